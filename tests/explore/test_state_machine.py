"""The promise, against a model: a migration advances only if every declared source was a true `Ok`.

Hypothesis makes up histories of one migration: what is recorded, lost, declared and in flight, what the checks say,
how time moves, how the store fails, who calls at once and who is cancelled. The model beside it knows nothing of
indexes, gaps or tasks: it keeps a list of events and asks itself what is true.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, err, ok
from phyxius.handler import HandlerEvent, InFlightCall, event_serializer
from phyxius.journal import Journal, JournalEntry, JournalNotice, JournalOverflowError
from phyxius.migration import (
    Advanced,
    CasLost,
    EvidenceErrored,
    EvidenceFailed,
    NotNext,
    StoreErrored,
    attestation,
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from phyxius.testing import FaultyPhaseStore, run_in_place

WINDOW = timedelta(hours=1)
LIMIT = timedelta(seconds=30)
SLOW = timedelta(seconds=5)
NAMES = ("legacy.read", "legacy.write")
PHASES = tuple(f"phase_{number}" for number in range(12))

KINDS = (
    *("ok",) * 6,
    *("slow ok",) * 2,
    "err",
    "err text",
    "raise",
    "true",
    "none",
    "err of a number",
    "not a number",
    "too large",
    "hang",
    "late",
    "swallow",
    "cancelled",
)
TRUE_OK = {"ok": timedelta(0), "slow ok": SLOW}
FAULTS = ("none",) * 3 + ("fail before", "fail after", "cancel after", "nonsense", "nonsense after", "current fails")


def nanoseconds(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1_000


@attrs.define
class Model:
    """What is true, kept as plainly as possible."""

    now: int
    complete_since: int
    bound: int | None
    overflow: str
    events: list[tuple[str, int]] = attrs.Factory(list)
    declared: set[str] = attrs.Factory(set)
    in_flight: list[str] = attrs.Factory(list)

    def add(self, name: str, completed: int) -> bool:
        if self.bound is not None and len(self.events) == self.bound:
            if self.overflow == "error":
                self.complete_since = max(self.complete_since, self.now + 1, completed + 1)
                return False
            self.complete_since = max(self.complete_since, self.events.pop(0)[1] + 1)
        self.events.append((name, completed))
        self.declared.add(name)
        return True

    def clear(self) -> None:
        self.complete_since = max(self.complete_since, self.now, *(completed + 1 for _, completed in self.events))
        self.events.clear()

    def silent(self, name: str, at: int) -> bool:
        since = at - nanoseconds(WINDOW)
        return (
            not any(each == name and completed >= since for each, completed in self.events)
            and self.complete_since <= since
            and name in self.declared
            and name not in self.in_flight
        )


class MigrationMachine(RuleBasedStateMachine):
    """One migration, and its model."""

    @initialize(
        bound=st.sampled_from([(None, "none"), (6, "drop_oldest"), (40, "drop_oldest"), (40, "error")]),
        resolvable=st.booleans(),
    )
    def start(self, bound: tuple[int | None, Any], resolvable: bool) -> None:
        self.runner = asyncio.Runner()
        self.clock = create_controlled_clock()
        self.journal: Journal[HandlerEvent] = Journal(
            clock=self.clock, max_entries=bound[0], overflow=bound[1], serializer=event_serializer, emit=self.refused
        )
        now = self.clock.now().mono_ns
        assert now is not None
        self.model = Model(now, now, *bound)
        self.audits: list[HandlerEvent | None] = []
        self.journal.subscribe(self.recorded)
        self.advancing = False
        self.open_calls: list[tuple[str, Callable[[], None]]] = []
        self.kinds = {"schema": "ok", "signed": "ok"}
        self.resolvable = resolvable
        self.fault = "none"
        self.store = FaultyPhaseStore(
            create_memory_phase_store(initial=PHASES[0], clock=self.clock), resolvable=resolvable
        )
        read, write = (journal_window(name, WINDOW, no_events()) for name in NAMES)
        bags = [
            {},
            {"schema": schema_applied(lambda: self.check("schema")), "read": read},
            {"signed": attestation(lambda: self.check("signed")), "write": write},
            {"schema": schema_applied(lambda: self.check("schema")), "read": read, "write": write},
        ]
        spec = define_migration(name="m", phases={phase: bags[n % 4] for n, phase in enumerate(PHASES)})
        self.migration = create_migration(
            spec, journal=self.journal, phase_store=self.store, evidence_timeout=LIMIT, run_sync=run_in_place
        )

    def recorded(self, entry: JournalEntry[HandlerEvent]) -> None:
        """Note an audit event, in the model too."""
        if entry.data.source == "migration":
            self.audits.append(entry.data)
            self.sync()
            assert self.model.add(entry.data.name, self.model.now)

    def refused(self, notice: JournalNotice) -> None:
        """Note that the full journal refused an event."""
        assert isinstance(notice.error, JournalOverflowError)
        if self.advancing:
            self.audits.append(None)
            self.sync()
            assert not self.model.add("migration.m.advance", self.model.now)

    def teardown(self) -> None:
        self.runner.close()

    async def check(self, source: str) -> Any:
        """Answer as the kind of the source has it."""
        match self.kinds[source]:
            case "ok":
                return ok({"n": 1})
            case "slow ok":
                await self.clock.sleep(SLOW)
                return ok()
            case "err":
                return err("not yet")
            case "raise":
                raise OSError("away")
            case "true":
                return True
            case "err of a number":
                return err(42)
            case "not a number":
                return ok(math.nan)
            case "too large":
                return ok("x" * 20_000)
            case "hang":
                await asyncio.get_running_loop().create_future()
            case "late":
                self.clock.advance_by(LIMIT)
                return ok()
            case "swallow":
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    return ok()
            case "cancelled":
                raise asyncio.CancelledError
            case "err text":
                return err("")
        return None

    # -- the world

    @rule()
    def everything_is_ready(self) -> None:
        """Nothing stands in the way any more, so that the next rule can make all the difference."""
        self.store_changes("none")
        self.kinds = dict.fromkeys(self.kinds, "ok")
        while self.open_calls:
            self.open_calls.pop()[1]()
        for name in NAMES:
            self.name_is_declared(name)
        if self.model.overflow == "error":
            self.journal_is_cleared()
        self.clock.advance_by(WINDOW + timedelta(seconds=20))

    @rule(seconds=st.sampled_from([0, 1, 60, 1_800, 3_599, 3_600, 3_601]), microseconds=st.integers(0, 1))
    def time_passes(self, seconds: int, microseconds: int) -> None:
        self.clock.advance_by(timedelta(seconds=seconds, microseconds=microseconds))

    @rule(hours=st.integers(-48, 48))
    def wall_jumps(self, hours: int) -> None:
        self.clock.jump_wall_time(self.clock.now().wall + timedelta(hours=hours))

    @rule(name=st.sampled_from(NAMES), ago=st.sampled_from([0, 0, 1, 3_600, 4_000, -10]))
    def something_happens(self, name: str, ago: int) -> None:
        completed_at = self.clock.now().shifted(-ago * 10**9)
        self.sync()
        assert completed_at.mono_ns is not None
        taken = self.model.add(name, completed_at.mono_ns)
        try:
            self.journal.append(HandlerEvent(name, "failure", completed_at))
        except JournalOverflowError:
            assert not taken

    @rule(name=st.sampled_from(NAMES))
    def call_begins(self, name: str) -> None:
        self.open_calls.append((name, self.journal.begin(InFlightCall(name, self.clock.now()))))

    @precondition(lambda self: self.open_calls)
    @rule(data=st.data())
    def call_ends_unrecorded(self, data: st.DataObject) -> None:
        self.open_calls.pop(data.draw(st.integers(0, len(self.open_calls) - 1)))[1]()

    @rule(name=st.sampled_from(NAMES))
    def name_is_declared(self, name: str) -> None:
        self.journal.declare(name)
        self.model.declared.add(name)

    @rule()
    def journal_is_cleared(self) -> None:
        self.sync()
        self.journal.clear()
        self.model.clear()

    @rule(source=st.sampled_from(["schema", "signed"]), kind=st.sampled_from(KINDS))
    def check_changes_its_mind(self, source: str, kind: str) -> None:
        self.kinds[source] = kind

    @rule(fault=st.sampled_from(FAULTS))
    def store_changes(self, fault: str) -> None:
        self.fault = fault
        self.store.heal()
        match fault:
            case "fail before":
                self.store.fail("try_advance", OSError("away"))
            case "fail after":
                self.store.fail("try_advance", OSError("away"), when="after")
            case "cancel after":
                self.store.fail("try_advance", asyncio.CancelledError(), when="after")
            case "nonsense":
                self.store.answer("try_advance", True)
            case "nonsense after":
                self.store.answer("try_advance", ok(None), when="after")
            case "current fails":
                self.store.fail("current", OSError("away"))

    # -- the calls

    def sync(self) -> None:
        now = self.clock.now().mono_ns
        assert now is not None
        self.model.now = now
        self.model.in_flight = [name for name, _ in self.open_calls]

    def patience(self, sources: set[str]) -> int | None:
        """How long the checks among the sources take to answer a true `Ok`, or None if one of them does not."""
        kinds = [self.kinds[name] for name in sources & self.kinds.keys()]
        if any(kind not in TRUE_OK for kind in kinds):
            return None
        return max((nanoseconds(TRUE_OK[kind]) for kind in kinds), default=0)

    def silent(self, sources: set[str], after: int = 0) -> bool:
        """Whether the windows among the sources are truly silent, so long after now."""
        self.sync()
        windows = dict(zip(("read", "write"), NAMES, strict=True))
        return all(self.model.silent(windows[name], self.model.now + after) for name in sources & windows.keys())

    async def phase(self) -> str:
        return str(await self.store._inner.current())  # type: ignore[attr-defined]

    @rule(
        callers=st.sampled_from([1, 1, 2, 4]),
        to=st.sampled_from(["none", "none", "none", "next", "next", "other"]),
        cancel_after=st.sampled_from([None] * 10 + list(range(1, 14))),
        meanwhile=st.sampled_from(["nothing", "nothing", "event", "call", "clear"]),
    )
    def advance(self, callers: int, to: str, cancel_after: int | None, meanwhile: str) -> None:
        self.advancing = True
        self.runner.run(self._advance(callers, to, cancel_after, meanwhile))
        self.advancing = False

    def happens_meanwhile(self, what: str) -> None:
        """The world changes while a slow check is still thinking."""
        match what:
            case "event":
                self.something_happens(NAMES[0], 0)
            case "call":
                self.call_begins(NAMES[1])
            case "clear":
                self.journal_is_cleared()

    async def _advance(self, callers: int, to: str, cancel_after: int | None, meanwhile: str) -> None:
        before = await self.phase()
        if before == PHASES[-1]:
            return
        following = PHASES[PHASES.index(before) + 1]
        sources = set(self.migration.spec.phases[following].evidence)
        patience = self.patience(sources)
        allowed = patience is not None and self.silent(sources)
        target = {"none": None, "next": following, "other": PHASES[-1] if following != PHASES[-1] else PHASES[0]}[to]
        audited = len(self.audits)
        tasks = [asyncio.ensure_future(self.migration.advance(target)) for _ in range(callers)]
        if cancel_after is not None:
            for _ in range(cancel_after):
                await asyncio.sleep(0)
            tasks[0].cancel()
        if patience:
            await self.clock.elapse(SLOW / 2)
            self.advancing = False
            self.happens_meanwhile(meanwhile)
            self.advancing = True
            allowed = allowed and self.silent(sources, patience // 2)
        while not all(task.done() for task in tasks):
            await self.clock.elapse(SLOW)
        after = await self.phase()
        answers = [None if task.cancelled() else task.result() for task in tasks]
        won = [answer for answer in answers if isinstance(answer, Ok)]

        # Nothing but a true Ok of every source moves it, by one step, once.
        if after != before:
            assert allowed, "advanced although the model says no"
            assert (after, to != "other", self.fault) != (following, False, self.fault)
            assert after == following
        assert len(won) <= (after != before)
        for answer in won:
            assert isinstance(answer.value, Advanced)
            assert (answer.value.from_phase, answer.value.to_phase) == (before, following)
        # What says that it did not move tells the truth.
        if after != before and not won:
            told = [answer for answer in answers if isinstance(answer, Err) and _unknown(answer.error)]
            assert told or None in answers, answers
        # A gate that may open does open.
        if allowed and to != "other" and self.fault == "none" and None not in answers:
            assert after == following
            assert len(won) == 1
            assert all(isinstance(answer, Ok) or isinstance(answer.error, CasLost) for answer in answers if answer)
        # The audit of a call that is cancelled may push out of a bounded journal what the others have to see.
        pushed = None in answers and self.model.overflow == "drop_oldest"
        self._check_refusals(answers, allowed, to, may_refuse=not allowed or pushed)
        # Each call leaves one audit event, and it tells what happened.
        assert len(self.audits) - audited == callers
        committed = {transition.attempt for transition in await self.store._inner.history()}  # type: ignore[attr-defined]
        for event in filter(None, self.audits[audited:]):
            refusal: Any = event.observed.get("refusal", {})
            if self.resolvable or refusal.get("type") != "STORE_ERRORED":
                assert (event.invocation_id in committed) == (event.outcome == "success")
        kept = [event for event in self.audits[audited:] if event is not None]
        if len(kept) == callers:
            succeeded = sum(event.outcome == "success" for event in kept)
            finished_in_spite = None in answers and after != before and not won
            assert succeeded == len(won) or (finished_in_spite and succeeded <= 1)

    def _check_refusals(self, answers: list[Any], allowed: bool, to: str, *, may_refuse: bool) -> None:
        for answer in answers:
            if not isinstance(answer, Err):
                continue
            match answer.error:
                case EvidenceFailed() | EvidenceErrored():
                    assert may_refuse
                    assert to != "other"
                case NotNext():
                    assert to == "other"
                case StoreErrored(operation="current"):
                    assert self.fault == "current fails"
                case StoreErrored(committed="unknown"):
                    assert not self.resolvable
                    assert self.fault not in ("none", "current fails")
                case StoreErrored():
                    assert self.fault not in ("none", "current fails")
                case CasLost():
                    assert allowed
                case _:
                    raise AssertionError(answer)

    @invariant()
    def journal_agrees(self) -> None:
        if hasattr(self, "journal"):
            assert self.journal.complete_since.mono_ns == self.model.complete_since
            assert len(self.journal) == len(self.model.events)


def _unknown(error: object) -> bool:
    return isinstance(error, StoreErrored) and error.committed == "unknown"


MigrationMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestMigration = MigrationMachine.TestCase


@pytest.mark.prove
class TestMigrationAtLength(MigrationMachine.TestCase):  # type: ignore[misc, name-defined]
    """The same, for a quarter of a million steps."""

    settings = settings(MigrationMachine.TestCase.settings, max_examples=5_000)
