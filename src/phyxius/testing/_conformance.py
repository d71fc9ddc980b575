"""What a store must hold to, as checks that any test suite can run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol

from phyxius.clock import Clock
from phyxius.fp import Err, Ok
from phyxius.handler import HandlerEvent
from phyxius.migration import (
    AttemptFencedError,
    Committed,
    Conflict,
    EvidenceSnapshot,
    JournalQuery,
    JournalStore,
    JournalWindow,
    PhaseStore,
)
from phyxius.testing._events import make_event

CONFORMANCE_PHASES = ("expand", "dual_write", "flip", "contract")
"""The phases of the store that a check is given; it stands at the first."""

MakePhaseStore = Callable[[], Awaitable[PhaseStore]]


class ConformanceError(AssertionError):
    """A store breaks a rule; the message says which, and what was seen."""


class JournalStoreHarness(Protocol):
    """A journal store, and the way to get events into it.

    Attributes:
        store: The store on trial, empty.
        clock: What its events are stamped with.
    """

    store: JournalStore
    clock: Clock

    async def record(self, *events: HandlerEvent) -> None:
        """Get events into what the store reads; return once a query can see them."""

    async def declare(self, *names: str) -> None:
        """Have every recorder that the store knows of declare these names."""


MakeHarness = Callable[[], Awaitable[JournalStoreHarness]]


def _require(holds: bool, rule: str, seen: object) -> None:
    if not holds:
        raise ConformanceError(f"{rule}; seen: {seen!r}")


def _snapshot(attempt: str, **payloads: object) -> EvidenceSnapshot:
    return EvidenceSnapshot(attempt, payloads)


# -- phase stores


async def starts_at_the_first_phase(make: MakePhaseStore) -> None:
    """A new store answers with the first phase, as an exact `str`."""
    store = await make()
    phase = await store.current()
    _require(type(phase) is str and phase == "expand", "current() answers with the exact str of the first phase", phase)


async def commits_and_answers_with_an_instant(make: MakePhaseStore) -> None:
    """A transition from the current phase commits, and the phase is the new one."""
    store = await make()
    answer = await store.try_advance("expand", "dual_write", _snapshot("a1", ready={"revision": "0042"}))
    _require(type(answer) is Ok and type(answer.value) is Committed, "a commit answers Ok(Committed(at))", answer)
    _require(await store.current() == "dual_write", "after a commit current() is the new phase", await store.current())


async def refuses_a_stale_compare(make: MakePhaseStore) -> None:
    """A transition from another phase than the current one is a conflict that moves nothing."""
    store = await make()
    answer = await store.try_advance("dual_write", "flip", _snapshot("a1"))
    _require(answer == Err(Conflict("expand")), "a stale compare answers Err(Conflict(actual))", answer)
    _require(await store.current() == "expand", "a conflict moves nothing", await store.current())
    answer = await store.try_advance("expand", "dual_write", _snapshot("a2"))
    _require(type(answer) is Ok, "a conflict does not stand in the way of the next attempt", answer)


async def has_one_winner(make: MakePhaseStore) -> None:
    """Of many callers at once exactly one commits, and the others are told where the phase is."""
    store = await make()
    answers = await asyncio.gather(
        *(store.try_advance("expand", "dual_write", _snapshot(f"a{number}")) for number in range(8))
    )
    won = [answer for answer in answers if type(answer) is Ok]
    lost = [answer for answer in answers if answer == Err(Conflict("dual_write"))]
    _require((len(won), len(lost)) == (1, 7), "of eight callers one commits and seven see a conflict", answers)


async def keeps_its_history(make: MakePhaseStore) -> None:
    """`history()`, where offered, tells each transition once, in order, with its evidence as it was."""
    store = await make()
    history = _offered(store, "history")
    if history is None:
        return
    payload: dict[str, object] = {"count": 1, "text": "ü", "none": None, "nested": [1.5, {"deep": True}]}
    await store.try_advance("expand", "dual_write", EvidenceSnapshot("a1", {"ready": payload}))
    payload["count"] = 2
    await store.try_advance("expand", "dual_write", _snapshot("a2"))
    await store.try_advance("dual_write", "flip", _snapshot("a3"))
    told = [(each.from_phase, each.to_phase, each.attempt, dict(each.evidence)) for each in await history()]
    expected = [
        ("expand", "dual_write", "a1", {"ready": {**payload, "count": 1}}),
        ("dual_write", "flip", "a3", {}),
    ]
    _require(told == expected, "history() tells what was committed, with the evidence as it was then", told)


async def resolves_a_committed_attempt(make: MakePhaseStore) -> None:
    """`resolve`, where offered, answers with the commit of an attempt, also after the phase moved on."""
    store = await make()
    resolve = _offered(store, "resolve")
    if resolve is None:
        return
    answer = await store.try_advance("expand", "dual_write", _snapshot("a1"))
    await store.try_advance("dual_write", "flip", _snapshot("a2"))
    resolved = await resolve("a1")
    same = type(answer) is Ok and type(resolved) is Committed and resolved.at.wall_ns == answer.value.at.wall_ns
    _require(same, "resolve() of a commit answers with that Committed", (answer, resolved))


async def fences_an_attempt_that_never_committed(make: MakePhaseStore) -> None:
    """After `resolve` has answered None, that attempt can never commit, and others can."""
    store = await make()
    resolve = _offered(store, "resolve")
    if resolve is None:
        return
    for _ in range(2):
        resolved = await resolve("a1")
        _require(resolved is None, "resolve() of an attempt that never committed answers None, each time", resolved)
    try:
        answer = await store.try_advance("expand", "dual_write", _snapshot("a1"))
    except AttemptFencedError:
        pass
    else:
        raise ConformanceError(f"a fenced attempt must raise AttemptFencedError; seen: {answer!r}")
    _require(await store.current() == "expand", "a fenced attempt moves nothing", await store.current())
    answer = await store.try_advance("expand", "dual_write", _snapshot("a2"))
    _require(type(answer) is Ok, "a fence holds back its own attempt alone", answer)


async def decides_between_commit_and_fence(make: MakePhaseStore) -> None:
    """When an attempt is resolved while it commits, both answers agree."""
    for resolve_first in (True, False):
        store = await make()
        resolve = _offered(store, "resolve")
        if resolve is None:
            return
        calls: list[Awaitable[Any]] = [resolve("a1"), store.try_advance("expand", "dual_write", _snapshot("a1"))]
        if not resolve_first:
            calls.reverse()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if not resolve_first:
            answers.reverse()
        resolved, answer = answers
        fenced = resolved is None and isinstance(answer, AttemptFencedError)
        committed = type(resolved) is Committed and type(answer) is Ok
        _require(fenced or committed, "resolve() and try_advance() of one attempt agree", answers)
        phase = await store.current()
        _require(phase == ("expand" if fenced else "dual_write"), "the phase is what both say", (answers, phase))


async def tells_the_truth_after_a_cancellation(make: MakePhaseStore) -> None:
    """Cancelled at any point, a transition has happened or not, `resolve` says which, and the store works on."""
    for steps in range(25):
        store = await make()
        task = asyncio.ensure_future(store.try_advance("expand", "dual_write", _snapshot("a1")))
        for _ in range(steps):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait({task})
        resolve = _offered(store, "resolve")
        committed = None if resolve is None else await resolve("a1")
        phase = await store.current()
        if resolve is not None:
            told = phase == ("expand" if committed is None else "dual_write")
            _require(told, "after a cancellation resolve() and current() agree", (steps, committed, phase))
        if not task.cancelled():
            _require(phase == "dual_write", "an answer that came in spite of a cancellation is true", (steps, phase))
        following = CONFORMANCE_PHASES[CONFORMANCE_PHASES.index(phase) + 1]
        answer = await store.try_advance(phase, following, _snapshot("a2"))
        _require(type(answer) is Ok, "after a cancellation the store works on", (steps, answer))
        if ended:
            return


phase_store_checks: tuple[Callable[[MakePhaseStore], Awaitable[None]], ...] = (
    starts_at_the_first_phase,
    commits_and_answers_with_an_instant,
    refuses_a_stale_compare,
    has_one_winner,
    keeps_its_history,
    resolves_a_committed_attempt,
    fences_an_attempt_that_never_committed,
    decides_between_commit_and_fence,
    tells_the_truth_after_a_cancellation,
)
"""Each takes an async function that makes a new, empty store over `CONFORMANCE_PHASES`.

Each call of that function must make a store of its own, with nothing in it. What these checks cannot see is whether
the phase outlives the process: open such a store twice, and compare.

A check of what a store does not offer (`resolve`, `history`) passes.
"""


def _offered(store: PhaseStore, operation: str) -> Callable[..., Awaitable[Any]] | None:
    return getattr(store, operation, None)


# -- journal stores

_WINDOW = timedelta(hours=1)


async def finds_by_name_and_outcome(make: MakeHarness) -> None:
    """A query finds what has its name and outcome, and nothing else."""
    harness = await make()
    wanted = make_event("a", clock=harness.clock, ago=timedelta(minutes=3), outcome="failure", observed={"n": 1})
    await harness.record(
        make_event("a", clock=harness.clock, ago=timedelta(minutes=4)),
        wanted,
        make_event("ab", clock=harness.clock, ago=timedelta(minutes=2)),
    )
    for query, count in (
        (JournalQuery("a"), 2),
        (JournalQuery("a", outcome="failure"), 1),
        (JournalQuery("A"), 0),
        (JournalQuery(), 3),
        (JournalQuery(outcome="success"), 2),
        (JournalQuery("a", where=lambda event: event.observed.get("n") == 1), 1),
    ):
        found = await _query(harness, query)
        _require(len(found) == count, f"{query} finds {count} events", found.events)
    event = (await _query(harness, JournalQuery("a", outcome="failure")))[0]
    same = (event.name, event.outcome, dict(event.observed)) == ("a", "failure", {"n": 1})
    _require(same, "an event comes back as it was recorded", event)
    apart = abs(event.completed_at.wall - wanted.completed_at.wall)
    _require(apart <= timedelta(microseconds=1), "an event comes back with its time", event.completed_at)


async def looks_back_as_far_as_was_asked(make: MakeHarness) -> None:
    """A window holds what completed in it and what is stamped later, and says where it begins and ends."""
    harness = await make()
    await harness.record(
        make_event("old", clock=harness.clock, ago=_WINDOW * 2),
        make_event("young", clock=harness.clock, ago=_WINDOW / 2),
        make_event("long", clock=harness.clock, ago=_WINDOW / 2, duration=_WINDOW),
        make_event("future", clock=harness.clock, ago=-_WINDOW),
    )
    found = await _query(harness, JournalQuery())
    names = sorted(event.name for event in found)
    _require(names == ["future", "long", "young"], "a window holds what completed in it or later", names)
    short = found.until - found.since < _WINDOW
    _require(not short or bool(found.gaps), "a window that looks back less far has a gap there", found.since)


async def answers_oldest_first(make: MakeHarness) -> None:
    """Events come in the order of their completion, in whatever order they were recorded."""
    harness = await make()
    for minutes in (3, 1, 2):
        await harness.record(make_event("a", clock=harness.clock, ago=timedelta(minutes=minutes)))
    times = [event.completed_at.wall for event in await _query(harness, JournalQuery("a"))]
    _require(times == sorted(times) and len(times) == 3, "events come oldest first", times)


async def keeps_the_newest_within_the_limit(make: MakeHarness) -> None:
    """A `limit` keeps the newest matching events, and the window says whether it cut others off."""
    harness = await make()
    for minute in range(5):
        event = make_event("a", clock=harness.clock, ago=timedelta(minutes=5 - minute), observed={"n": minute})
        await harness.record(event)
    for limit, where, kept, truncated in (
        (2, None, [3, 4], True),
        (5, None, [0, 1, 2, 3, 4], False),
        (2, lambda event: event.observed["n"] != 4, [2, 3], True),
        (4, lambda event: event.observed["n"] != 4, [0, 1, 2, 3], False),
    ):
        found = await _query(harness, JournalQuery("a", limit=limit, where=where))
        seen = ([event.observed["n"] for event in found], found.truncated)
        _require(seen == (kept, truncated), f"a limit of {limit} keeps the newest and says what it cut", seen)


async def hides_audit_events_from_nameless_queries(make: MakeHarness) -> None:
    """The library's audit events are no evidence, unless they are asked for by name."""
    harness = await make()
    await harness.record(make_event("migration.m.advance", clock=harness.clock, source="migration"))
    for query, count in ((JournalQuery(), 0), (JournalQuery("migration.m.advance"), 1)):
        found = await _query(harness, query)
        _require(len(found) == count, f"{query} finds {count} audit events", found.events)


async def witnesses_declared_names_alone(make: MakeHarness) -> None:
    """Silence has a witness only if the query names its events and their name is declared."""
    harness = await make()
    await harness.declare("declared")
    for query, witnessed in (
        (JournalQuery("declared"), True),
        (JournalQuery("misspelt"), False),
        (JournalQuery(), False),
    ):
        found = await _query(harness, query)
        _require(found.witnessed is witnessed, f"{query} is {'' if witnessed else 'not '}witnessed", found.witnessed)


async def passes_on_what_a_where_raises(make: MakeHarness) -> None:
    """A `where` that raises about an event is an error, and not a "no"."""
    harness = await make()
    await harness.record(make_event("a", clock=harness.clock))
    try:
        found = await _query(harness, JournalQuery("a", where=lambda event: event.observed["missing"]))
    except KeyError:
        return
    raise ConformanceError(f"what a where raises comes out of the query; seen: {found.events!r}")


journal_store_checks: tuple[Callable[[MakeHarness], Awaitable[None]], ...] = (
    finds_by_name_and_outcome,
    looks_back_as_far_as_was_asked,
    answers_oldest_first,
    keeps_the_newest_within_the_limit,
    hides_audit_events_from_nameless_queries,
    witnesses_declared_names_alone,
    passes_on_what_a_where_raises,
)
"""Each takes an async function that makes a `JournalStoreHarness` around a new, empty store."""


async def _query(harness: JournalStoreHarness, query: JournalQuery) -> JournalWindow:
    window: object = await harness.store.query(query, _WINDOW)
    if not isinstance(window, JournalWindow):
        raise ConformanceError(f"query() answers with a JournalWindow; seen: {window!r}")
    return window
