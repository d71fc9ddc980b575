"""A migration in a laboratory: a controlled clock, a journal that can vouch, and a phase store that fails on cue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import attrs

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.fp import ok
from phyxius.handler import HandlerEvent
from phyxius.journal import Journal
from phyxius.migration import (
    JournalWindowEvidence,
    MemoryPhaseStore,
    Migration,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)

Go = Callable[[], Awaitable[Any]]
Rig = Callable[[Go], Awaitable[Any]]

SECOND = timedelta(seconds=1)
LIMIT = timedelta(seconds=30)
PHASES = ("expand", "flip", "contract")
QUIET = "old.read"
REALLY: Rig = lambda go: go()  # noqa: E731


def raising(error: BaseException, *, after: bool = False) -> Rig:
    """Raise, before or after the store did what it was asked."""

    async def rig(go: Go) -> Any:
        if after:
            await go()
        raise error

    return rig


def answering(value: object, *, after: bool = False) -> Rig:
    """Answer with `value`, before or after the store did what it was asked."""

    async def rig(go: Go) -> Any:
        if after:
            await go()
        return value

    return rig


def waiting(until: Callable[[], Awaitable[Any]], *, after: bool = False) -> Rig:
    """Wait, before or after the store does what it is asked, and then answer truly."""

    async def rig(go: Go) -> Any:
        if after:
            answer = await go()
            await until()
            return answer
        await until()
        return await go()

    return rig


async def forever() -> None:
    """Never return; it can be cancelled."""
    await asyncio.get_running_loop().create_future()


async def rounds(count: int = 3) -> None:
    """Give way to the loop a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


class RiggedStore:
    """A phase store in memory whose operations are rigged; `resolve=None` means that it has none."""

    scope = "process"

    def __init__(
        self,
        clock: ControlledClock,
        initial: str = "expand",
        *,
        current: Rig = REALLY,
        try_advance: Rig = REALLY,
        resolve: Rig | None = REALLY,
    ) -> None:
        self.inner = MemoryPhaseStore(initial, clock)
        self.clock = clock
        self.calls: list[tuple[object, ...]] = []
        self._rigs: dict[str, Rig] = {"current": current, "try_advance": try_advance}
        if resolve is not None:
            self._rigs["resolve"] = resolve
            self.resolve = partial(self._run, "resolve")
        self.current = partial(self._run, "current")
        self.try_advance = partial(self._run, "try_advance")

    async def _run(self, operation: str, *args: object) -> Any:
        self.calls.append((operation, *args))
        return await self._rigs[operation](lambda: getattr(self.inner, operation)(*args))

    def rig(self, operation: str, rig: Rig) -> None:
        self._rigs[operation] = rig

    def offer(self, operation: str, rig: Rig) -> None:
        """Have an operation that a store need not have."""
        self._rigs[operation] = rig
        setattr(self, operation, partial(self._run, operation))

    @property
    def phase(self) -> str:
        return self.inner._phase

    @property
    def operations(self) -> list[object]:
        return [call[0] for call in self.calls]


@attrs.frozen
class Lab:
    """What a test works with."""

    clock: ControlledClock
    journal: Journal[Any]
    store: RiggedStore
    migration: Migration[str]

    @property
    def audits(self) -> list[HandlerEvent]:
        return [entry.data for entry in self.journal if getattr(entry.data, "source", None) == "migration"]

    @property
    def audit(self) -> HandlerEvent:
        """The one audit event."""
        (event,) = self.audits
        return event

    @property
    def refusal(self) -> Any:
        """The refusal of the one audit event."""
        return self.audit.observed["refusal"]

    async def advance(self, elapse: timedelta = timedelta(0), *, threads: bool = True, to: str | None = None) -> Any:
        """Call `advance()`, and let time pass while it runs."""
        task = asyncio.ensure_future(self.migration.advance(to))
        await self.clock.elapse(elapse, wait_for_threads=threads)
        return await task


def build(
    evidence: Mapping[str, Any] | None = None,
    *,
    first: Mapping[str, Any] | None = None,
    phases: tuple[str, ...] = PHASES,
    journal: Callable[[ControlledClock], Journal[Any]] = lambda clock: Journal(clock=clock),
    store: Mapping[str, Any] | None = None,
    **options: Any,
) -> Lab:
    """A migration at its first phase, whose second is guarded by `evidence`, with thirty days of journal."""
    clock = create_controlled_clock()
    kept = journal(clock)
    kept.declare(QUIET)
    clock.advance_by(timedelta(days=30))
    bags: dict[str, Mapping[str, Any]] = {phase: {} for phase in phases}
    bags |= {phases[0]: first or {}, phases[1]: evidence or {}}
    spec = define_migration(name="quotes", phases=bags)
    phase_store = RiggedStore(clock, str.__str__(phases[0]), **(store or {}))
    options = {"phase_store": phase_store, "evidence_timeout": LIMIT} | options
    migration = create_migration(spec, journal=kept, clock=clock, **options)
    return Lab(clock, kept, phase_store, migration)


def checked(value: object = None) -> Any:
    """Evidence whose async check answers `ok(value)`."""

    async def check() -> Any:
        return ok(value)

    return schema_applied(check)


def quiet(window: timedelta = timedelta(days=14), **options: Any) -> JournalWindowEvidence[Any]:
    """Evidence that the old path is silent."""
    return journal_window(QUIET, window=window, predicate=no_events(), **options)


async def no_tasks_left() -> bool:
    """Whether, once what was cancelled has ended, no other task is there."""
    await rounds(5)
    return asyncio.all_tasks() == {asyncio.current_task()}
