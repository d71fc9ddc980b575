"""What a journal store must hold to, as checks that any test suite can run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

from phyxius.clock import Clock
from phyxius.handler import HandlerError, HandlerEvent
from phyxius.migration import JournalQuery, JournalStore, JournalWindow
from phyxius.testing._conformance import ConformanceError, require
from phyxius.testing._events import make_event

_WINDOW = timedelta(hours=1)


class JournalStoreHarness(Protocol):
    """A journal store, and the way to get events into it.

    One whose store outlives the process may also have `async reopen() -> None`: end what records, cleanly, let go of
    the store, and open the same again as another process would, as `store`. Nobody records in it after that. The
    checks of what has to survive pass where this is not offered.

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
        require(len(found) == count, f"{query} finds {count} events", found.events)
    event = (await _query(harness, JournalQuery("a", outcome="failure")))[0]
    same = (event.name, event.outcome, dict(event.observed)) == ("a", "failure", {"n": 1})
    require(same, "an event comes back as it was recorded", event)
    apart = abs(event.completed_at.wall - wanted.completed_at.wall)
    require(apart <= timedelta(microseconds=1), "an event comes back with its time", event.completed_at)


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
    require(names == ["future", "long", "young"], "a window holds what completed in it or later", names)
    short = found.until - found.since < _WINDOW
    require(not short or bool(found.gaps), "a window that looks back less far has a gap there", found.since)


async def answers_oldest_first(make: MakeHarness) -> None:
    """Events come in the order of their completion, in whatever order they were recorded."""
    harness = await make()
    for minutes in (3, 1, 2):
        await harness.record(make_event("a", clock=harness.clock, ago=timedelta(minutes=minutes)))
    times = [event.completed_at.wall for event in await _query(harness, JournalQuery("a"))]
    require(times == sorted(times) and len(times) == 3, "events come oldest first", times)


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
        require(seen == (kept, truncated), f"a limit of {limit} keeps the newest and says what it cut", seen)


async def hides_audit_events_from_nameless_queries(make: MakeHarness) -> None:
    """The library's audit events are no evidence, unless they are asked for by name."""
    harness = await make()
    await harness.record(make_event("migration.m.advance", clock=harness.clock, source="migration"))
    for query, count in ((JournalQuery(), 0), (JournalQuery("migration.m.advance"), 1)):
        found = await _query(harness, query)
        require(len(found) == count, f"{query} finds {count} audit events", found.events)


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
        require(found.witnessed is witnessed, f"{query} is {'' if witnessed else 'not '}witnessed", found.witnessed)


async def passes_on_what_a_where_raises(make: MakeHarness) -> None:
    """A `where` that raises about an event is an error, and not a "no"."""
    harness = await make()
    await harness.record(make_event("a", clock=harness.clock))
    try:
        found = await _query(harness, JournalQuery("a", where=lambda event: event.observed["missing"]))
    except KeyError:
        return
    raise ConformanceError(f"what a where raises comes out of the query; seen: {found.events!r}")


async def keeps_events_when_reopened(make: MakeHarness) -> None:
    """Where the store can be reopened its events survive, as they were, audit events among them."""
    harness = await make()
    reopen = _reopening_of(harness)
    if reopen is None:
        return
    error = HandlerError("LookupError", "gone")
    await harness.record(
        make_event("a", clock=harness.clock, ago=timedelta(minutes=3), observed={"n": 1, "nested": {"text": "ü"}}),
        make_event("a", clock=harness.clock, ago=timedelta(minutes=2), outcome="failure", error=error),
        make_event("b", clock=harness.clock, ago=timedelta(minutes=1), duration=timedelta(minutes=1)),
        make_event("migration.m.advance", clock=harness.clock, source="migration", correlation_id="c"),
    )
    queries = (JournalQuery(), JournalQuery("a", outcome="failure"), JournalQuery("migration.m.advance"))
    before = [[_seen(event) for event in await _query(harness, query)] for query in queries]
    await reopen()
    after = [[_seen(event) for event in await _query(harness, query)] for query in queries]
    counts = [len(events) for events in after]
    require(after == before and counts == [3, 1, 1], "events survive as they were", (before, after))


async def keeps_the_witness_when_reopened(make: MakeHarness) -> None:
    """Where the store can be reopened the silence of a declared name stays witnessed, and a clean end is no gap."""
    harness = await make()
    reopen = _reopening_of(harness)
    if reopen is None:
        return
    await harness.declare("declared")
    before = await _query(harness, JournalQuery("declared"))
    await reopen()
    for name, witnessed in (("declared", True), ("misspelt", False)):
        found = await _query(harness, JournalQuery(name))
        rule = f"the silence of a name is {'' if witnessed else 'not '}witnessed by recorders that have ended"
        require(found.witnessed is witnessed, rule, (name, found.witnessed))
        require(len(found.gaps) <= len(before.gaps), "a clean end leaves no gap", found.gaps)


journal_store_checks: tuple[Callable[[MakeHarness], Awaitable[None]], ...] = (
    finds_by_name_and_outcome,
    looks_back_as_far_as_was_asked,
    answers_oldest_first,
    keeps_the_newest_within_the_limit,
    hides_audit_events_from_nameless_queries,
    witnesses_declared_names_alone,
    passes_on_what_a_where_raises,
    keeps_events_when_reopened,
    keeps_the_witness_when_reopened,
)
"""Each takes an async function that makes a `JournalStoreHarness` around a new, empty store.

A check of what a harness does not offer (`reopen`) passes.
"""


def _reopening_of(harness: JournalStoreHarness) -> Callable[[], Awaitable[None]] | None:
    return getattr(harness, "reopen", None)


def _seen(event: HandlerEvent) -> tuple[object, ...]:
    times = (event.completed_at.wall, event.started_at.wall)
    return (event.name, event.outcome, *times, event.source, dict(event.observed), event.error, event.correlation_id)


async def _query(harness: JournalStoreHarness, query: JournalQuery) -> JournalWindow:
    window: object = await harness.store.query(query, _WINDOW)
    if not isinstance(window, JournalWindow):
        raise ConformanceError(f"query() answers with a JournalWindow; seen: {window!r}")
    return window
