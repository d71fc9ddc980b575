"""Stores that fail, hang or answer nonsense on cue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal, cast

import attrs

from phyxius.fp import Result
from phyxius.migration import (
    Committed,
    Conflict,
    EvidenceSnapshot,
    JournalQuery,
    JournalStore,
    JournalWindow,
    PhaseStore,
)

When = Literal["before", "after"]


@attrs.define
class _Fault:
    happen: Callable[[], Awaitable[Any]]
    when: When
    times: int | None


class _Faulty:
    """Passes calls on to a real store, and has them go wrong as it was told."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self._faults: dict[str, _Fault] = {}
        self.calls: list[str] = []

    def fail(self, operation: str, error: BaseException, *, when: When = "before", times: int | None = None) -> None:
        """Have an operation raise: before the real store is asked, or after it did what it was asked.

        Args:
            operation: The method's name.
            error: What it raises; a `CancelledError` is fine.
            when: `"after"` is the nasty one: the store did it, and the caller does not learn that.
            times: How often; for ever unless given.
        """

        async def happen() -> None:
            raise error

        self._plan(operation, happen, when, times)

    def hang(self, operation: str, *, when: When = "before", times: int | None = None) -> None:
        """Have an operation never answer; it can be cancelled."""

        async def happen() -> None:
            await asyncio.get_running_loop().create_future()

        self._plan(operation, happen, when, times)

    def answer(self, operation: str, value: object, *, when: When = "before", times: int | None = None) -> None:
        """Have an operation answer with `value`, be it nonsense, instead of what the real store says."""

        async def happen() -> object:
            return value

        self._plan(operation, happen, when, times)

    def heal(self, operation: str | None = None) -> None:
        """Let an operation, or all of them, work again."""
        if operation is None:
            self._faults.clear()
        else:
            self._faults.pop(operation, None)

    def _plan(self, operation: str, happen: Callable[[], Awaitable[Any]], when: When, times: int | None) -> None:
        if not callable(getattr(self._inner, operation, None)):
            raise ValueError(f"the store has no operation {operation!r} that could go wrong")
        self._faults[operation] = _Fault(happen, when, times)

    async def _run(self, operation: str, /, *args: object) -> Any:
        self.calls.append(operation)
        fault = self._faults.get(operation)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del self._faults[operation]
        if fault is not None and fault.when == "before":
            return await fault.happen()
        answer = await getattr(self._inner, operation)(*args)
        return answer if fault is None else await fault.happen()


class FaultyPhaseStore(_Faulty):
    """A `PhaseStore` around a real one, whose operations go wrong on cue.

    `scope`, `clock`, `resolve` and `history` are there if the real store has them.

    Args:
        inner: The real store.
        resolvable: False hides the real store's `resolve`, so that an outcome can stay unknown.

    Attributes:
        calls: The names of the operations that were called, in order.
    """

    def __init__(self, inner: PhaseStore, *, resolvable: bool = True) -> None:
        super().__init__(inner)
        self._resolvable = resolvable

    async def current(self) -> str:
        """The real store's answer, unless it was told otherwise."""
        return cast("str", await self._run("current"))

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        """The real store's answer, unless it was told otherwise."""
        answer = await self._run("try_advance", from_phase, to_phase, evidence)
        return cast("Result[Committed, Conflict]", answer)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or (name == "resolve" and not self._resolvable):
            raise AttributeError(name)
        value = getattr(self._inner, name)
        return partial(self._run, name) if name in ("resolve", "history") else value


class FaultyJournalStore(_Faulty):
    """A `JournalStore` around a real one, whose `query` goes wrong on cue.

    Attributes:
        calls: The names of the operations that were called, in order.
    """

    def __init__(self, inner: JournalStore) -> None:
        super().__init__(inner)

    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        """The real store's answer, unless it was told otherwise."""
        return cast("JournalWindow", await self._run("query", query, window))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)
