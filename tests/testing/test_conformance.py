"""The conformance checks find stores that break a rule, each check its own kind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import attrs
import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, Result, err, ok
from phyxius.migration import (
    AttemptFencedError,
    Committed,
    Conflict,
    EvidenceSnapshot,
    Gap,
    JournalQuery,
    JournalWindow,
    MemoryJournalStore,
    MemoryPhaseStore,
    Transition,
)
from phyxius.testing import ConformanceError, FaultyPhaseStore, journal_store_checks, phase_store_checks
from tests.stores.test_journal_stores import MemoryHarness

PHASE_CHECKS = {check.__name__: check for check in phase_store_checks}
JOURNAL_CHECKS = {check.__name__: check for check in journal_store_checks}


class Broken(MemoryPhaseStore):
    """A memory store whose subclasses break one rule each."""

    def __init__(self) -> None:
        super().__init__("expand", create_controlled_clock())


class StartsElsewhere(Broken):
    async def current(self) -> str:
        return "elsewhere"


class AnswersTrue(Broken):
    async def try_advance(self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /) -> Any:
        await super().try_advance(from_phase, to_phase, evidence)
        return True


class MovesNothing(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        return ok(Committed(self.clock.now()))


class ComparesNothing(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        return await super().try_advance(self._phase, to_phase, evidence)


class ComparesTooEarly(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        if self._phase != from_phase:
            return err(Conflict(self._phase))
        await asyncio.sleep(0)
        return await super().try_advance(self._phase, to_phase, evidence)


class AsksNothing(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        return await super().try_advance(from_phase, to_phase, EvidenceSnapshot(evidence.attempt, evidence.payloads))


class AsksTooLate(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        snapshot = EvidenceSnapshot(evidence.attempt, evidence.payloads)
        answer = await super().try_advance(from_phase, to_phase, snapshot)
        evidence.check_standing()
        return answer


class ForgetsHistory(Broken):
    async def history(self) -> Sequence[Transition]:
        return (await super().history())[1:]


class KeepsReferences(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        answer = await super().try_advance(from_phase, to_phase, evidence)
        if type(answer) is Ok:
            kept = attrs.evolve(self._transitions[evidence.attempt], evidence=evidence.payloads)
            self._transitions[evidence.attempt] = kept
        return answer


class ResolvesNothing(Broken):
    async def resolve(self, attempt: str, /) -> Committed | None:
        return None


class HasNoFence(Broken):
    async def resolve(self, attempt: str, /) -> Committed | None:
        resolved = await super().resolve(attempt)
        self._fenced.clear()
        return resolved


class FencesEveryone(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        if self._fenced:
            self._fenced.add(evidence.attempt)
        return await super().try_advance(from_phase, to_phase, evidence)


class TearsWhenCancelled(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        self._phase = to_phase
        await asyncio.sleep(0)
        self._phase = from_phase
        return await super().try_advance(from_phase, to_phase, evidence)


class LiesWhenCancelled(Broken):
    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return ok(Committed(self.clock.now()))
        return await super().try_advance(from_phase, to_phase, evidence)


class StaysLocked(Broken):
    _locked = False

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        if self._locked:
            return Err(Conflict(self._phase))
        self._locked = True
        await asyncio.sleep(0)
        self._locked = False
        return await super().try_advance(from_phase, to_phase, evidence)


@pytest.mark.parametrize(
    "check, broken",
    [
        ("starts_at_the_first_phase", StartsElsewhere),
        ("commits_and_answers_with_an_instant", AnswersTrue),
        ("commits_and_answers_with_an_instant", MovesNothing),
        ("refuses_a_stale_compare", ComparesNothing),
        ("has_one_winner", ComparesTooEarly),
        ("asks_last_whether_the_evidence_stands", AsksNothing),
        ("asks_last_whether_the_evidence_stands", AsksTooLate),
        ("keeps_its_history", ForgetsHistory),
        ("keeps_its_history", KeepsReferences),
        ("resolves_a_committed_attempt", ResolvesNothing),
        ("fences_an_attempt_that_never_committed", HasNoFence),
        ("fences_an_attempt_that_never_committed", FencesEveryone),
        ("decides_between_commit_and_fence", HasNoFence),
        ("tells_the_truth_after_a_cancellation", TearsWhenCancelled),
        ("tells_the_truth_after_a_cancellation", LiesWhenCancelled),
        ("tells_the_truth_after_a_cancellation", StaysLocked),
    ],
)
async def test_finds_a_broken_phase_store(check: str, broken: type[Broken]) -> None:
    """A phase store that breaks the rule is told so."""

    async def make() -> Broken:
        return broken()

    with pytest.raises((ConformanceError, AttemptFencedError)):
        await PHASE_CHECKS[check](make)


class Reopening:
    """Makes memory stores, and opens them again with what its subclasses let survive."""

    async def __call__(self) -> Broken:
        return Broken()

    async def reopen(self, store: Broken) -> Any:
        again = Broken()
        again._phase, again._transitions, again._fenced = store._phase, store._transitions, store._fenced
        return again


class LosesThePhase(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)
        again._phase = "expand"
        return again


class GetsStuck(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)

        async def try_advance(*args: object) -> Result[Committed, Conflict]:
            return err(Conflict(again._phase))

        again.try_advance = try_advance
        return again


class RepeatsTheLastStep(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = ComparesNothing()
        again._phase, again._transitions, again._fenced = store._phase, store._transitions, store._fenced
        return again


class LosesTheHistory(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)
        again._transitions = {}
        return again


class LosesTheEvidence(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)
        again._transitions = {attempt: attrs.evolve(each, evidence={}) for attempt, each in store._transitions.items()}
        return again


class StopsTellingHistory(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)
        told = await again.history()

        async def history() -> Sequence[Transition]:
            return told

        again.history = history
        return again


class OffersLess(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)
        again.history = again.resolve = None
        return again


class LosesTheFence(Reopening):
    async def reopen(self, store: Broken) -> Any:
        again = await super().reopen(store)
        again._fenced = set()
        return again


@pytest.mark.parametrize(
    "check, broken",
    [
        ("keeps_the_phase_when_reopened", LosesThePhase),
        ("keeps_the_phase_when_reopened", RepeatsTheLastStep),
        ("keeps_the_phase_when_reopened", GetsStuck),
        ("keeps_its_history_when_reopened", LosesTheHistory),
        ("keeps_its_history_when_reopened", LosesTheEvidence),
        ("keeps_its_history_when_reopened", StopsTellingHistory),
        ("keeps_its_history_when_reopened", OffersLess),
        ("resolves_attempts_from_before_it_was_reopened", LosesTheHistory),
        ("resolves_attempts_from_before_it_was_reopened", OffersLess),
        ("resolves_attempts_from_before_it_was_reopened", LosesTheFence),
    ],
)
async def test_finds_a_phase_store_that_forgets(check: str, broken: type[Reopening]) -> None:
    """A phase store that is not what it was when it is opened again is told so."""
    with pytest.raises(ConformanceError):
        await PHASE_CHECKS[check](broken())


@pytest.mark.parametrize("check", phase_store_checks, ids=lambda check: check.__name__)
async def test_a_phase_store_that_can_be_reopened_conforms(check: Any) -> None:
    """One that is the same when it is opened again passes all checks."""
    await check(Reopening())


@pytest.mark.parametrize("check", phase_store_checks, ids=lambda check: check.__name__)
async def test_a_phase_store_need_not_offer_everything(check: Any) -> None:
    """A store without `resolve` and `history` passes."""

    class Bare:
        def __init__(self) -> None:
            self._store = Broken()

        async def current(self) -> str:
            return await self._store.current()

        async def try_advance(
            self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
        ) -> Result[Committed, Conflict]:
            await asyncio.sleep(0)
            return await self._store.try_advance(from_phase, to_phase, evidence)

    async def make() -> Bare:
        return Bare()

    await check(make)


async def test_a_slow_phase_store_conforms() -> None:
    """A store that takes more steps than the check of cancellations goes through passes too."""

    class Slow(Broken):
        async def try_advance(
            self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
        ) -> Result[Committed, Conflict]:
            for _ in range(40):
                await asyncio.sleep(0)
            return await super().try_advance(from_phase, to_phase, evidence)

    async def make() -> Slow:
        return Slow()

    await PHASE_CHECKS["tells_the_truth_after_a_cancellation"](make)


async def test_a_faulty_store_without_faults_conforms() -> None:
    """The wrapper changes nothing until it is told to."""

    async def make() -> FaultyPhaseStore:
        return FaultyPhaseStore(Broken())

    for check in phase_store_checks:
        await check(make)


class BrokenHarness(MemoryHarness):
    """A harness whose store has its windows altered by subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Any = self  # the harness stands in for its store
        self._real = MemoryJournalStore(self.journal)

    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        return await self._real.query(query, window)


class IgnoresOutcome(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        return await self._real.query(attrs.evolve(query, outcome=None), window)


class ForgetsObserved(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, events=[attrs.evolve(event, observed={}) for event in found])


class ShiftsTimes(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        moved = [attrs.evolve(event, completed_at=event.completed_at.shifted(10_000)) for event in found]
        return attrs.evolve(found, events=moved)


class AnswersWithAList(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        return list(await self._real.query(query, window))


class HidesTheFuture(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, events=[event for event in found if event.completed_at.wall <= found.until])


class LooksBackLess(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, since=found.until - window / 2)


class AnswersNewestFirst(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, events=tuple(reversed(found)))


class KeepsTheOldest(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(attrs.evolve(query, limit=None), window)
        return attrs.evolve(found, events=found.events[: query.limit], truncated=len(found) > (query.limit or 99))


class NeverSaysTruncated(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        return attrs.evolve(await self._real.query(query, window), truncated=False)


class ShowsAuditEvents(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        events = [entry.data for entry in self.journal] if query.name is None else found.events
        return attrs.evolve(found, events=events)


class WitnessesAnything(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        return attrs.evolve(await self._real.query(query, window), witnessed=True)


class SwallowsWhere(BrokenHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        try:
            return await self._real.query(query, window)
        except KeyError:
            return await self._real.query(attrs.evolve(query, where=None), window)


@pytest.mark.parametrize(
    "check, broken",
    [
        ("finds_by_name_and_outcome", IgnoresOutcome),
        ("finds_by_name_and_outcome", ForgetsObserved),
        ("finds_by_name_and_outcome", ShiftsTimes),
        ("finds_by_name_and_outcome", AnswersWithAList),
        ("looks_back_as_far_as_was_asked", HidesTheFuture),
        ("looks_back_as_far_as_was_asked", LooksBackLess),
        ("answers_oldest_first", AnswersNewestFirst),
        ("keeps_the_newest_within_the_limit", KeepsTheOldest),
        ("keeps_the_newest_within_the_limit", NeverSaysTruncated),
        ("hides_audit_events_from_nameless_queries", ShowsAuditEvents),
        ("witnesses_declared_names_alone", WitnessesAnything),
        ("passes_on_what_a_where_raises", SwallowsWhere),
    ],
)
async def test_finds_a_broken_journal_store(check: str, broken: type[BrokenHarness]) -> None:
    """A journal store that breaks the rule is told so."""

    async def make() -> BrokenHarness:
        return broken()

    with pytest.raises((ConformanceError, KeyError)):
        await JOURNAL_CHECKS[check](make)


class ReopenableHarness(BrokenHarness):
    """A harness that says that it opened its store again, and lets all survive."""

    reopened = False

    async def reopen(self) -> None:
        self.reopened = True


class LosesEvents(ReopenableHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, events=found[1:] if self.reopened else found)


class LosesErrors(ReopenableHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, events=[attrs.evolve(e, error=None) if self.reopened else e for e in found])


class LosesTheWitness(ReopenableHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        return attrs.evolve(found, witnessed=found.witnessed and not self.reopened)


class WitnessesAnythingLater(ReopenableHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        return attrs.evolve(await self._real.query(query, window), witnessed=True)


class LeavesAGap(ReopenableHarness):
    async def query(self, query: JournalQuery, window: timedelta, /) -> Any:
        found = await self._real.query(query, window)
        gap = Gap(found.since, found.until, "it was closed")
        return attrs.evolve(found, gaps=[gap] if self.reopened else [])


@pytest.mark.parametrize(
    "check, broken",
    [
        ("keeps_events_when_reopened", LosesEvents),
        ("keeps_events_when_reopened", LosesErrors),
        ("keeps_the_witness_when_reopened", LosesTheWitness),
        ("keeps_the_witness_when_reopened", WitnessesAnythingLater),
        ("keeps_the_witness_when_reopened", LeavesAGap),
    ],
)
async def test_finds_a_journal_store_that_forgets(check: str, broken: type[ReopenableHarness]) -> None:
    """A journal store that is not what it was when it is opened again is told so."""

    async def make() -> ReopenableHarness:
        return broken()

    with pytest.raises(ConformanceError):
        await JOURNAL_CHECKS[check](make)


@pytest.mark.parametrize("check", journal_store_checks, ids=lambda check: check.__name__)
async def test_a_journal_store_that_can_be_reopened_conforms(check: Any) -> None:
    """One that is the same when it is opened again passes all checks."""

    async def make() -> ReopenableHarness:
        return ReopenableHarness()

    await check(make)
