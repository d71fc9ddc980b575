"""Every order in which the effects and replies of several callers can come, for real tasks on a real loop.

Each operation of the store and each check passes two gates: one before it takes effect, and one before its reply is
delivered. The explorer opens one gate at a time, runs the loop until all wait again, and goes through all orders.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, Result, ok
from phyxius.handler import HandlerEvent
from phyxius.journal import Journal
from phyxius.migration import (
    CasLost,
    Committed,
    Conflict,
    EvidenceSnapshot,
    MemoryPhaseStore,
    StoreErrored,
    create_migration,
    define_migration,
    schema_applied,
)

SETTLED_AFTER = 30


@attrs.define
class Gates:
    """Where the tasks of one run wait, in the order of their arrival."""

    waiting: dict[int, asyncio.Future[None]] = attrs.Factory(dict)
    arrivals: int = 0

    async def __call__(self) -> None:
        self.arrivals += 1
        number = self.arrivals
        gate = self.waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await gate
        finally:
            self.waiting.pop(number, None)

    def open(self, index: int) -> None:
        list(self.waiting.values())[index].set_result(None)


class GatedStore(MemoryPhaseStore):
    """A store whose effects and replies pass gates, and whose commits can break between the two."""

    def __init__(self, gates: Gates, *, breaks: bool) -> None:
        super().__init__("expand", create_controlled_clock())
        self._gates = gates
        self._breaks = breaks

    async def current(self) -> str:
        await self._gates()
        return await super().current()

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        await self._gates()
        answer = await super().try_advance(from_phase, to_phase, evidence)
        await self._gates()
        if self._breaks:
            raise ConnectionError("cut off")
        return answer

    async def resolve(self, attempt: str, /) -> Committed | None:
        await self._gates()
        return await super().resolve(attempt)


@attrs.define
class Run:
    """What one schedule led to."""

    choices: list[int]
    options: list[int]
    answers: list[Any]
    phase: str
    audits: list[HandlerEvent]
    moves: int


async def settle() -> None:
    for _ in range(SETTLED_AFTER):
        await asyncio.sleep(0)


async def run_schedule(script: Sequence[int], *, callers: int, breaks: bool, cancels: bool) -> Run:
    """Follow a script of choices, and beyond its end always take the first."""
    gates = Gates()
    store = GatedStore(gates, breaks=breaks)
    journal = Journal[HandlerEvent](clock=store.clock)

    @schema_applied
    async def ready() -> Ok[None]:
        await gates()
        return ok()

    spec = define_migration(name="m", phases={"expand": {}, "flip": {"ready": ready}, "contract": {"ready": ready}})
    migration = create_migration(spec, journal=journal, phase_store=store)
    tasks = [asyncio.ensure_future(migration.advance("flip")) for _ in range(callers)]
    choices: list[int] = []
    options: list[int] = []
    may_cancel = cancels
    await settle()
    while not all(task.done() for task in tasks):
        assert gates.waiting, "nobody can go on"
        count = len(gates.waiting) + may_cancel
        choice = script[len(choices)] if len(choices) < len(script) else 0
        choices.append(choice)
        options.append(count)
        if choice == len(gates.waiting):
            may_cancel = False
            tasks[0].cancel()
        else:
            gates.open(choice)
        await settle()
    answers = [None if task.cancelled() else task.result() for task in tasks]
    audits = [entry.data for entry in journal]
    return Run(choices, options, answers, store._phase, audits, len(store._transitions))


def explore(check: Callable[[Run], None], **setting: Any) -> int:
    """Go through all schedules, deepest choice first; returns how many there were."""
    schedules = 0
    script: list[int] = []
    with asyncio.Runner() as runner:
        while True:
            run = runner.run(run_schedule(script, **setting))
            schedules += 1
            check(run)
            script = run.choices
            while script and script[-1] + 1 == run.options[len(script) - 1]:
                script = script[:-1]
            if not script:
                return schedules
            script = [*script[:-1], script[-1] + 1]


def check_run(run: Run) -> None:
    """One move at most, one audit event a call, and every answer true."""
    won = [answer for answer in run.answers if isinstance(answer, Ok)]
    cancelled = run.answers.count(None)
    succeeded = [event for event in run.audits if event.outcome == "success"]
    assert len(run.audits) == len(run.answers), run
    assert run.moves == (run.phase == "flip") == len(succeeded), run
    assert len(won) <= run.moves <= len(won) + cancelled, run
    assert run.moves == 1 or cancelled == len(run.answers), run
    for answer in run.answers:
        if isinstance(answer, Err) and isinstance(answer.error, StoreErrored):
            assert answer.error.committed == "no", run
        elif isinstance(answer, Err):
            assert isinstance(answer.error, CasLost) or answer.error.type == "NOT_NEXT", run


@pytest.mark.parametrize(
    "setting, schedules",
    [
        ({"callers": 1, "breaks": False, "cancels": True}, 5),
        ({"callers": 1, "breaks": True, "cancels": True}, 6),
        ({"callers": 2, "breaks": False, "cancels": False}, 64),
        ({"callers": 2, "breaks": True, "cancels": False}, 216),
        ({"callers": 2, "breaks": True, "cancels": True}, 1_589),
        pytest.param({"callers": 3, "breaks": False, "cancels": False}, 24_750, marks=pytest.mark.prove),
    ],
    ids=str,
)
def test_every_order_of_effects_and_replies(setting: dict[str, Any], schedules: int) -> None:
    """Whatever the order, exactly one caller moves the migration, and nobody is told what is not true."""
    assert explore(check_run, **setting) == schedules


class ComparesTooEarly(GatedStore):
    """The race that the explorer must find: between the compare and the set another caller gets in."""

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        if self._phase != from_phase:
            return Err(Conflict(self._phase))
        await self._gates()
        return await MemoryPhaseStore.try_advance(self, self._phase, to_phase, evidence)


def test_the_explorer_finds_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store that compares and sets in two steps, some order moves the migration twice."""
    monkeypatch.setattr(sys.modules[__name__], "GatedStore", ComparesTooEarly)
    with pytest.raises(AssertionError):
        explore(check_run, callers=2, breaks=False, cancels=False)
