"""Queries over what the processes of a fleet, or of one machine, recorded."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phyxius.adapters import _journal_store, _reading
from phyxius.adapters._ledger import Batch, NewGap
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._records import CallRow, EventRow
from phyxius.adapters._stores import SqlStores
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.adapters.sqlalchemy._connection import ServerConnection
from phyxius.adapters.sqlite import FileStores, open_file_stores
from phyxius.clock import ControlledClock, create_controlled_clock, create_system_clock
from phyxius.fp import err, ok
from phyxius.handler import HandlerEvent, InFlightCall, recorded
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceFailure,
    JournalQuery,
    JournalWindow,
    SpecError,
    create_memory_journal_store,
    journal_window,
)
from phyxius.migration._judge import Passed, judge_window
from phyxius.testing import make_event, record_events
from tests.adapters.support import refusing
from tests.places import FILE, SERVERS, FilePlace, Place, place_of
from tests.stores.processes import Child

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
US, SECOND, MINUTE, HOUR, DAY = (
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)
LEASE = timedelta(seconds=30)
READ = JournalQuery("quote.read")


class Elsewhere:
    """A recorder of another process, as its rows tell of it."""

    def __init__(self, stores: SqlStores, name: str) -> None:
        self.name = name
        self._tables = SqlRecorderTables(stores._database)
        self._clock = stores.clock
        self._id = 0
        self._number = 1

    async def begin(self, *, audit_only: bool = False, answers: bool = False, **declared: bool) -> Elsewhere:
        """It starts now, declares names ("quote.read" as quote_read), and lives for the length of a lease."""
        batch = self._batch(answered=10**9 if answers else 0, declared=_dotted(declared))
        self._id = await self._tables.create(self.name, audit_only, self._now, batch)
        return self

    async def store(self, **news: Any) -> None:
        self._number += 1
        await self._tables.store(self._id, self._batch(**news))

    async def close(self) -> None:
        await self.store(closed=True, ended_ns=self._now)

    async def start(self, call: InFlightCall) -> None:
        """A call begins, which it stores at once."""
        await self._tables.keep(self._id, call.invocation_id or "?", CallRow.of(call))

    @property
    def _now(self) -> int:
        return self._clock.now().wall_ns

    def _batch(self, **news: Any) -> Batch:
        lease_ns = self._clock.now().shifted(LEASE).wall_ns
        return Batch(**{"number": self._number, "events": (), "ended_ns": lease_ns, "stored_ns": self._now, **news})


def _dotted(declared: dict[str, bool]) -> dict[str, bool]:
    return {name.replace("_", "."): durable for name, durable in declared.items()}


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock(EPOCH)


@pytest.fixture
async def stores(clock: ControlledClock, place: Place) -> AsyncIterator[SqlStores]:
    """A store that was made thirty days ago, and that nobody has recorded in but who asks."""
    async with place.stores(clock) as stores:
        clock.advance_by(30 * DAY)
        async with asking(stores):
            yield stores


def asking(stores: SqlStores) -> Recorder:
    """The recorder of a process that asks; without one it would get no answer."""
    return stores.recorder(Journal(clock=stores.clock), name="who asks", audit_only=True)


@pytest.fixture
def journal(clock: ControlledClock, stores: SqlStores) -> Journal[Any]:
    return Journal(clock=clock)


@pytest.fixture
async def recorder(stores: SqlStores, journal: Journal[Any]) -> AsyncIterator[Recorder]:
    async with stores.recorder(journal, name="here", durable=["quote.kept"]) as recorder:
        yield recorder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who do not answer are not waited for."""
    monkeypatch.setattr(_journal_store, "_POLLS", 1)


async def ask(stores: SqlStores, query: JournalQuery = READ, window: timedelta = DAY) -> JournalWindow:
    return await stores.journal_store.query(query, window)


async def judged(stores: SqlStores, name: str = "quote.read", window: timedelta = DAY) -> Passed | EvidenceFailure:
    source = journal_window(name, window, lambda seen: err("seen") if seen else ok())
    seen = await ask(stores, source.query, window)
    return judge_window(source, seen, source.predicate(seen))


async def proven(stores: SqlStores, name: str = "quote.read", window: timedelta = DAY) -> bool:
    """Whether the silence of a name counts as a true Ok."""
    return type(await judged(stores, name, window)) is Passed


def insert(place: Place, clock: ControlledClock, count: int, name: str = "quote.read", *, step: timedelta = US) -> None:
    """Put many events into the store, the newest now."""
    now, step_ns = clock.now().wall_ns, step // US * 1_000
    place.change(
        "INSERT INTO events (recorder, name, outcome, completed_ns, started_ns, source, attempts, observed)"
        " VALUES (1, ?, 'success', ?, ?, 'handler', 1, ?)",
        [(name, now - step_ns * number, now, f'{{"n":{number}}}') for number in reversed(range(count))],
    )


# -- what a query finds

events = st.lists(
    st.tuples(
        st.sampled_from(["quote.read", "quote.write", "migration.quotes.advance"]),
        st.sampled_from(["success", "failure"]),
        st.integers(-3, 12),
    ),
    max_size=14,
)
queries = st.builds(
    JournalQuery,
    name=st.sampled_from([None, "quote.read", "quote.write", "quote", "migration.quotes.advance"]),
    outcome=st.sampled_from([None, "success", "failure"]),
    where=st.sampled_from([None, lambda event: event.observed["n"] % 2 == 0]),
    limit=st.sampled_from([None, 1, 2, 5, 14]),
)


def agree(mine: JournalWindow, theirs: JournalWindow) -> None:
    """Whether two windows say the same; among events of one moment any order is right."""
    for field in ("since", "until", "truncated", "witnessed", "gaps", "in_flight"):
        assert getattr(mine, field) == getattr(theirs, field)
    assert [event.completed_at.wall for event in mine] == [event.completed_at.wall for event in theirs]
    if not mine.truncated:
        told = [sorted((event.observed["n"], event.name, event.outcome) for event in each) for each in (mine, theirs)]
        assert told[0] == told[1]


async def compare(place: Place, events: Any, declared: str, queries: list[JournalQuery]) -> None:
    """Whether a store and the memory say the same of the same events."""
    clock = create_controlled_clock(EPOCH)
    journal = Journal[HandlerEvent](clock=clock)
    journal.declare(declared)
    async with place.stores(clock) as stores, stores.recorder(journal, name="here"):
        memory = create_memory_journal_store(journal=journal)
        clock.advance_by(DAY)
        for n, (name, outcome, minutes) in enumerate(events):
            source = "migration" if name.startswith("migration") else "handler"
            ago = minutes * MINUTE
            journal.append(make_event(name, clock=clock, outcome=outcome, ago=ago, source=source, observed={"n": n}))
        for query in queries:
            for window in (10 * MINUTE, DAY):
                agree(*[await each.query(query, window) for each in (stores.journal_store, memory)])


asked_alike = given(
    events=events, declared=st.sampled_from(["quote", "quote.read"]), queries=st.lists(queries, min_size=3)
)


@asked_alike
@settings(max_examples=40)
def test_a_file_answers_as_the_memory_does(
    tmp_path_factory: pytest.TempPathFactory, events: Any, declared: str, queries: list[JournalQuery]
) -> None:
    """With the same events both stores say the same, whatever is asked."""
    place = FilePlace(tmp_path_factory.mktemp("same") / "journal.db")
    asyncio.run(compare(place, events, declared, queries))


@pytest.mark.parametrize("kind", SERVERS)
@asked_alike
@settings(max_examples=10)
def test_a_server_answers_as_the_memory_does(
    kind: str, events: Any, declared: str, queries: list[JournalQuery]
) -> None:
    """With the same events both stores say the same, whatever is asked."""

    async def compare_there() -> None:
        async with place_of(kind, Path()) as place:
            await compare(place, events, declared, queries)

    asyncio.run(compare_there())


async def test_an_event_comes_back_as_it_was(stores: SqlStores, journal: Journal[Any], recorder: Recorder) -> None:
    """Its fields are the same; its times are on the wall alone, for all we know they are another process'."""
    with suppress(LookupError), recorded(journal, "quote.read", observed={"tenant": "a"}):
        journal.clock.advance_by(SECOND)  # type: ignore[attr-defined]
        raise LookupError("gone")
    (event,) = await ask(stores)
    (was,) = (entry.data for entry in journal)
    assert event.completed_at.mono_ns is event.started_at.mono_ns is None
    assert (event.completed_at.wall, event.duration) == (was.completed_at.wall, SECOND)
    same = ("name", "outcome", "source", "observed", "attempts", "error", "invocation_id", "correlation_id")
    assert [getattr(event, field) for field in same] == [getattr(was, field) for field in same]


BY_INDEX = [
    READ,
    JournalQuery("quote.read", outcome="failure"),
    JournalQuery("quote.read", limit=5),
    JournalQuery("quote.read", where=lambda event: False),
    JournalQuery(),
    JournalQuery(outcome="success", limit=5),
]


@pytest.mark.parametrize("query", BY_INDEX)
async def test_a_query_goes_by_an_index(tmp_path: Path, clock: ControlledClock, query: JournalQuery) -> None:
    """It reads no event that is not in the window, and sorts nothing."""
    place, ran = FilePlace(tmp_path / "journal.db"), []

    def trace(connection: Any) -> None:
        connection.raw.set_trace_callback(ran.append)

    async with place.stores(clock) as stores, asking(stores):
        insert(place, clock, 50)
        await stores._database.query(trace)
        await ask(stores, query)
    state, sql = (each for each in ran if "FROM events" in each)
    glance, plan = ([row[3] for row in place.rows(f"EXPLAIN QUERY PLAN {each}")] for each in (state, sql))
    # What is asked first, in one statement: whether anything happened at all.
    by_name = "SEARCH events USING COVERING INDEX events_by_name"
    assert [line for line in glance if "events" in line] == [f"{by_name} (name=?)", f"{by_name} (name=? AND outcome<?)"]
    assert {line for line in glance if "SCAN" in line} == {"SCAN journal", "SCAN starts"}  # both are short
    index = "events_by_time (completed_ns>? AND completed_ns<?)"
    if query.name is not None:
        index = "events_by_name (name=? AND outcome=? AND completed_ns>? AND completed_ns<?)"
    parts = 2 if query.name and not query.outcome else 1
    assert [line for line in plan if "events" in line] == [f"SEARCH events USING INDEX {index}"] * parts
    # Two parts are merged by sorting what is left of both: a page each.
    assert len([line for line in plan if "TEMP B-TREE" in line]) == (2 if parts == 2 else 0)
    assert [line for line in plan if "SCAN" in line] == (["SCAN part0", "SCAN part1"] if parts == 2 else [])


PAGES = 8


def reads_of(plan: dict[str, Any]) -> list[tuple[str | None, float]]:
    """By what index PostgreSQL read events, and how many."""
    inner = [read for part in plan.get("Plans", []) for read in reads_of(part)]
    if plan.get("Relation Name") != "phyxius_events":
        return inner
    rows = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    is_bitmap = plan["Node Type"] == "Bitmap Heap Scan"
    return [((plan["Plans"][0] if is_bitmap else plan).get("Index Name"), rows)]


async def plan_of(place: Place, stores: SqlStores, sql: str, *values: Any) -> list[tuple[str | None, float]]:
    """By what index a server reads events when it runs a statement, and how many."""
    explain = "ANALYZE" if place.kind == "mariadb" else "EXPLAIN (ANALYZE, FORMAT JSON)"
    rows = await stores._database.query(lambda connection: connection.execute(f"{explain} {sql}", *values).fetchall())
    if place.kind != "mariadb":
        ((plan,),) = rows
        return reads_of((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return [(row[5], float(row[9] or 0)) for row in rows if row[2] == "phyxius_events"]


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("query", BY_INDEX)
async def test_a_query_goes_by_an_index_on_a_server(
    kind: str, tmp_path: Path, clock: ControlledClock, query: JournalQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads no event that is not in its window, nor of another name, however busy that name has been once."""
    ran: list[Any] = []

    def note(connection: ServerConnection, sql: str, *values: Any) -> Any:
        ran.append((sql, *values))
        return execute(connection, sql, *values)

    async with place_of(kind, tmp_path) as place, place.stores(clock) as stores, asking(stores):
        insert(place, clock, 5_000)
        clock.advance_by(2 * DAY)
        insert(place, clock, 2_000, "quote.other")
        insert(place, clock, PAGES * _reading._PAGE)
        # What other tests have deleted there must not count.
        place.server.run(f"{'OPTIMIZE TABLE' if kind == 'mariadb' else 'VACUUM FULL ANALYZE'} phyxius_events")
        with monkeypatch.context() as patch:
            execute = ServerConnection.execute
            patch.setattr(ServerConnection, "execute", note)
            await ask(stores, query)
        plans = [(sql, await plan_of(place, stores, sql, *values)) for sql, *values in ran if "{events}" in sql]
    index = "phyxius_events_by_time" if query.name is None else "phyxius_events_by_name"
    pages = set(_reading._PAGES.values())
    assert {sql in pages for sql, _ in plans} == {True, False}  # what is asked first is whether anything happened
    for sql, plan in plans:
        assert {each for each, _ in plan} == {index if sql in pages else "phyxius_events_by_name"}, (sql, plan)
    # Towards the end of the window the planner may well read all that is left, and sort it, but no page reads it all.
    window = PAGES * _reading._PAGE + (2_000 if query.name is None else 0)
    assert sum(read for _, plan in plans for _, read in plan) <= 2 * window, plans


@pytest.mark.parametrize("limit", [None, 3])
async def test_a_where_streams(place: Place, stores: SqlStores, clock: ControlledClock, limit: int | None) -> None:
    """However many events `where` is asked about, no more than it admits are held at a time."""
    insert(place, clock, 10_000)
    asked = 0

    def where(event: HandlerEvent) -> bool:
        nonlocal asked
        asked += 1
        return event.observed["n"] in {9_990, 9_995}

    await ask(stores, JournalQuery("nothing", where=where))
    tracemalloc.start()
    try:
        found = await ask(stores, JournalQuery("quote.read", where=where, limit=limit))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [event.observed["n"] for event in found] == [9_995, 9_990]
    assert asked == 10_000
    assert peak < (500_000 if place.kind == FILE else 1_000_000)  # a driver holds a page once more


async def test_a_where_is_asked_no_more_than_needed(place: Place, stores: SqlStores, clock: ControlledClock) -> None:
    """Once a window is full, and is known to be cut off, no further event is looked at."""
    insert(place, clock, 1_000)
    asked = []
    query = JournalQuery("quote.read", where=lambda event: asked.append(event.observed["n"]) is None, limit=2)
    assert (await ask(stores, query)).truncated
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("where", [None, lambda event: event.observed["n"] < 4])
@pytest.mark.parametrize("events", [3, 4])
async def test_a_window_without_a_limit_is_bounded(
    place: Place, clock: ControlledClock, events: int, where: Any
) -> None:
    """It holds the newest `max_window_events`, and says so if there were more; a limit of its own goes before that."""
    async with place.stores(clock, max_window_events=3) as stores, asking(stores):
        insert(place, clock, events)
        found = await ask(stores, JournalQuery("quote.read", where=where))
        assert [event.observed["n"] for event in found] == [2, 1, 0]
        assert found.truncated == (events == 4)
        more = await ask(stores, JournalQuery("quote.read", where=where, limit=4))
        assert (len(more), more.truncated) == (events, False)


async def test_a_where_that_raises_is_heard_of(place: Place, stores: SqlStores, clock: ControlledClock) -> None:
    """It does not pass for an event that does not match, and leaves nothing open behind it."""
    insert(place, clock, 5)
    with pytest.raises(KeyError):
        await ask(stores, JournalQuery(where=lambda event: event.observed["tenant"] == "a"))
    with pytest.raises(TypeError, match="awaitable"):
        await ask(stores, JournalQuery(where=lambda event: asyncio.sleep(0)))
    assert len(await ask(stores)) == 5
    place.assert_idle()


@pytest.mark.parametrize("admits", [True, False])
async def test_a_where_stops_when_nobody_waits(
    place: Place, stores: SqlStores, clock: ControlledClock, admits: bool
) -> None:
    """A query that is cancelled asks `where` about no further event, and what it read with goes on to others."""
    insert(place, clock, 1_000)
    asked, goes_on, loop = 0, threading.Event(), asyncio.get_running_loop()
    reached = asyncio.Event()

    def where(event: HandlerEvent) -> bool:
        nonlocal asked
        asked += 1
        loop.call_soon_threadsafe(reached.set)
        goes_on.wait()
        return admits

    query = asyncio.ensure_future(ask(stores, JournalQuery("quote.read", where=where)))
    await reached.wait()
    query.cancel()
    await asyncio.wait({query})
    goes_on.set()
    await settled(stores)
    assert query.cancelled()
    assert asked == 1


async def settled(stores: SqlStores) -> None:
    """Let what reads end, also where nobody waits for it."""
    database: Any = stores._database
    if isinstance(stores, FileStores):
        await database._queries.close(MINUTE)
    else:
        await asyncio.wait(database._tasks)


# -- calls in flight, and those whose end nobody stored


def call_of(clock: ControlledClock, name: str = "quote.read", *, key: str = "1", **observed: object) -> InFlightCall:
    return InFlightCall(name, clock.now(), observed=observed, invocation_id=key)  # type: ignore[arg-type]


async def test_own_calls_in_flight(stores: SqlStores, journal: Journal[Any], recorder: Recorder) -> None:
    """From before its body until after its event, a call of this process is in flight, and seen once."""
    for name in ("quote.read", "quote.kept"):
        query = JournalQuery(name, where=lambda call: call.observed["tenant"] == "a")
        with recorded(journal, name, observed={"tenant": "a"}), recorded(journal, name, observed={"tenant": "b"}):
            await recorder.flush()
            (call,) = (await ask(stores, query)).in_flight
            assert (call.name, call.observed["tenant"]) == (name, "a")
            assert not await proven(stores, name)
        found = await ask(stores, query)
        assert (len(found), len(found.in_flight)) == (1, 0)


@pytest.mark.parametrize("lost", ["refused", "overflow"])
async def test_a_durable_call_whose_event_never_came_in(stores: SqlStores, clock: ControlledClock, lost: str) -> None:
    """Its start is stored, so it is not forgotten: it counts as in flight, and as an event once its recorder ended."""
    bounded = Journal[Any](clock=clock, max_entries=1, overflow="error") if lost == "refused" else Journal(clock=clock)
    async with stores.recorder(bounded, name="here", durable=["quote.kept"], max_pending=1) as recorder:
        await recorder.flush()
        record_events(bounded, "other")
        with recorded(bounded, "quote.kept"):
            pass
        found = await ask(stores, JournalQuery("quote.kept"))
        assert (len(found), len(found.in_flight)) == (0, 1)
        assert not await proven(stores, "quote.kept")
    found = await ask(stores, JournalQuery("quote.kept"))
    assert ([event.error and event.error.type for event in found], len(found.in_flight)) == (["RecorderLost"], 0)


async def test_calls_in_flight_elsewhere(stores: SqlStores, clock: ControlledClock) -> None:
    """What another process stored as begun, and not as ended, is in flight there while it lives."""
    other = await Elsewhere(stores, "there").begin(answers=True, quote_read=True)
    assert await proven(stores)
    await other.start(call_of(clock, tenant="a"))
    await other.start(call_of(clock, "quote.write", key="2"))
    await other.start(attrs_migration(call_of(clock, "migration.m.advance", key="3")))
    for query, names in (
        (READ, ["quote.read"]),
        (JournalQuery("quote.read", where=lambda call: call.observed["tenant"] == "a"), ["quote.read"]),
        (JournalQuery("quote.read", where=lambda call: call.observed["tenant"] == "b"), []),
        (JournalQuery("quote.read", where=lambda call: call.observed["n"] == 1), ["quote.read"]),
        (JournalQuery("quote.read", outcome="success"), ["quote.read"]),
        (JournalQuery(), ["quote.read", "quote.write"]),
        (JournalQuery("quote"), []),
    ):
        found = await ask(stores, query)
        assert ([call.name for call in found.in_flight], len(found)) == (names, 0)
        assert {call.recorder for call in found.in_flight} == ({"there"} if names else set())
    assert not await proven(stores)
    await other.store(ended=["1"], answered=10**9)
    assert await proven(stores)


def attrs_migration(call: InFlightCall) -> InFlightCall:
    return InFlightCall(call.name, call.started_at, source="migration", invocation_id=call.invocation_id)


async def test_a_call_whose_recorder_died_is_an_event(stores: SqlStores, clock: ControlledClock) -> None:
    """It counts as a failure at the end of the lease, up to which it may have run."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    await other.start(call_of(clock, tenant="a"))
    started = clock.now().wall
    clock.advance_by(LEASE + US)
    (event,) = found = await ask(stores)
    assert (event.outcome, event.started_at.wall, event.completed_at.wall) == ("failure", started, started + LEASE)
    assert event.error is not None
    assert event.error.type == "RecorderLost"
    assert "there" in event.error.message
    assert found.recorded_by == {"there": 1}
    assert (found.in_flight, found.gaps, found.witnessed) == ((), (), True)
    assert not await proven(stores)


@pytest.mark.parametrize(
    "query,found,in_flight",
    [
        (JournalQuery("quote.read", outcome="failure"), 1, 0),
        (JournalQuery("quote.read", outcome="success"), 0, 1),
        (JournalQuery(), 1, 0),
        (JournalQuery("quote.read", where=lambda call: call.observed["tenant"] == "a"), 1, 0),
        (JournalQuery("quote.read", where=lambda call: call.observed["tenant"] == "b"), 0, 0),
        (JournalQuery("quote.read", where=lambda call: call.observed["later"]), 1, 0),
        (JournalQuery("quote.write"), 0, 0),
    ],
)
async def test_which_queries_a_lost_call_matches(
    stores: SqlStores, clock: ControlledClock, query: JournalQuery, found: int, in_flight: int
) -> None:
    """All that cannot rule it out; that it succeeded nobody knows, so then it stays in flight."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    await other.start(call_of(clock, tenant="a"))
    clock.advance_by(2 * LEASE)
    window = await ask(stores, query)
    assert (len(window), len(window.in_flight)) == (found, in_flight)


@pytest.mark.parametrize("where", [None, lambda event: True])
async def test_a_lost_call_takes_its_place(place: Place, stores: SqlStores, clock: ControlledClock, where: Any) -> None:
    """It stands among the stored events in the order of time, and counts towards the limit."""
    insert(place, clock, 1)
    for key in ("1", "2"):
        other = await Elsewhere(stores, f"there {key}").begin(quote_read=True)
        await other.start(call_of(clock, key=key))
        clock.advance_by(SECOND)
    clock.advance_by(HOUR)
    insert(place, clock, 1)
    for limit, kept in ((None, "sLLs"), (4, "sLLs"), (3, "LLs"), (2, "Ls"), (1, "s")):
        found = await ask(stores, JournalQuery("quote.read", where=where, limit=limit))
        assert "".join("s" if event.outcome == "success" else "L" for event in found) == kept
        assert found.truncated == (len(kept) < 4)
    times = [event.completed_at.wall for event in await ask(stores)]
    assert times == sorted(times)


async def test_a_lost_call_grows_old(stores: SqlStores, clock: ControlledClock) -> None:
    """Once the end of the lease is out of the window, so is the call, and nothing is left to judge its silence."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    await other.start(call_of(clock))
    clock.advance_by(LEASE + HOUR)
    assert len(await ask(stores, READ, HOUR)) == 1
    assert len(await ask(stores, READ, HOUR - US)) == 0
    assert not (await ask(stores, READ, HOUR - US)).witnessed


async def test_a_call_that_began_after_its_lease(stores: SqlStores, clock: ControlledClock) -> None:
    """A process that was held up for longer than its lease lives on, at least until the last call that it began."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    clock.advance_by(2 * HOUR)
    await other.start(call_of(clock))
    clock.advance_by(SECOND)
    (event,) = await ask(stores, READ, HOUR)
    assert event.completed_at.wall == clock.now().wall - SECOND
    assert not await proven(stores, window=HOUR)


async def test_a_call_that_began_in_the_window_of_a_recorder_that_did_not_live_to_see_it(
    place: Place, stores: SqlStores, clock: ControlledClock
) -> None:
    """Whatever is said of the recorder, its call may be in flight."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    await other.start(call_of(clock))
    place.change("UPDATE recorders SET ended_ns = 0")
    clock.advance_by(MINUTE)
    (call,) = (await ask(stores, READ, HOUR)).in_flight
    assert (call.name, call.recorder) == (READ.name, f"recorder {other._id}")
    assert (await ask(stores, JournalQuery("another"), HOUR)).in_flight == ()
    assert (await ask(stores, READ, MINUTE - US)).in_flight == ()


# -- gaps and witnesses


async def test_nobody_recorded(stores: SqlStores) -> None:
    """While nobody records, nothing runs and that is no gap; but nothing witnessed the silence either."""
    found = await ask(stores)
    assert (found.gaps, found.witnessed, found.unwitnessed_by) == ((), False, ())
    assert not await proven(stores)


async def test_the_store_vouches_from_its_making_on(stores: SqlStores) -> None:
    """A window that looks back further has a gap up to then."""
    (gap,) = (await ask(stores, READ, 31 * DAY)).gaps
    assert (gap.since, gap.until, gap.recorder) == (EPOCH - DAY, EPOCH, None)
    assert (await ask(stores, READ, 30 * DAY)).gaps == ()


async def test_every_recorder_of_the_window_is_a_witness(stores: SqlStores, clock: ControlledClock) -> None:
    """Silence of a name is witnessed by those who declare it; those who do not are named, while they are in it."""
    for name, declared in (("old", {}), ("new", {"quote_read": False}), ("cli", {})):
        await (await Elsewhere(stores, name).begin(audit_only=name == "cli", **declared)).close()
        clock.advance_by(HOUR)
    for window, witnessed, lacking in ((DAY, False, ("old",)), (3 * HOUR, False, ("old",)), (3 * HOUR - US, True, ())):
        found = await ask(stores, READ, window)
        assert (found.witnessed, found.unwitnessed_by, found.gaps) == (witnessed, lacking, ())
    assert (await ask(stores, JournalQuery("quote.raed"))).unwitnessed_by == ("old", "new")
    assert not (await ask(stores, JournalQuery(), 2 * HOUR)).witnessed
    assert not (await ask(stores, READ, 90 * MINUTE)).witnessed


async def test_a_dead_recorder_is_a_gap(stores: SqlStores, clock: ControlledClock) -> None:
    """From what it stored last to the end of its lease, for all names but those that it recorded durably."""
    other = await Elsewhere(stores, "there").begin(quote_read=False, quote_kept=True)
    clock.advance_by(MINUTE)
    await other.store()
    died = clock.now().wall
    clock.advance_by(LEASE + US)
    for name in ("quote.read", "quote.other", None):
        (gap,) = (await ask(stores, JournalQuery(name))).gaps
        assert (gap.since, gap.until, gap.recorder) == (died, died + LEASE, "there")
        assert "without closing" in gap.reason
    assert (await ask(stores, JournalQuery("quote.kept"))).gaps == ()
    assert not await proven(stores)
    assert await proven(stores, "quote.kept")


async def test_what_was_lost_is_a_gap(stores: SqlStores, clock: ControlledClock) -> None:
    """What a recorder noted as lost spares its durable names; what its clock skipped spares none."""
    other = await Elsewhere(stores, "there").begin(answers=True, quote_read=False, quote_kept=True)
    now = clock.now().wall_ns
    lost, skipped = NewGap(now - 2_000, now - 1_000, "lost", "full"), NewGap(now - 1_000, now, "clock", "skipped")
    await other.store(gaps=[lost, skipped], answered=10**9)
    await other.close()
    for name, reasons in (
        ("quote.read", ["full", "skipped"]),
        (None, ["full", "skipped"]),
        ("quote.kept", ["skipped"]),
    ):
        gaps = (await ask(stores, JournalQuery(name))).gaps
        assert [(gap.reason, gap.recorder) for gap in gaps] == [(reason, "there") for reason in reasons]


async def test_a_gap_grows_old(stores: SqlStores, clock: ControlledClock) -> None:
    """It is told of as long as any of it is in the window."""
    other = await Elsewhere(stores, "there").begin(quote_read=False)
    now = clock.now().wall_ns
    await other.store(gaps=[NewGap(now - 1_000, now, "lost", "full")])
    await other.close()
    clock.advance_by(HOUR)
    assert await proven(stores, window=HOUR - US) is False  # nobody is left who could witness it
    assert [gap.reason for gap in (await ask(stores, READ, HOUR + US)).gaps] == ["full"]
    assert not await proven(stores, window=HOUR + US)
    assert await proven(stores, window=HOUR)
    clock.advance_by(US)
    assert (await ask(stores, READ, HOUR)).gaps == ()


async def test_how_a_durable_call_ended_may_be_lost(stores: SqlStores, clock: ControlledClock) -> None:
    """That it began is stored, so its silence has no gap; what is claimed of its outcomes has one while it is open."""
    journal = Journal[Any](clock=clock, max_entries=1, overflow="error")

    @recorded(journal, "quote.kept")
    async def kept() -> None: ...

    async with stores.recorder(journal, name="api-7", durable=["quote.kept"]):
        await kept()
        assert (await ask(stores, JournalQuery("quote.kept"))).gaps == ()
        await kept()  # the journal is full
        found = await ask(stores, JournalQuery("quote.kept"))
        assert (len(found), len(found.in_flight)) == (1, 1)
        assert [gap.reason for gap in found.gaps] == ["the journal refused an append"]


@pytest.mark.usefixtures("impatient")
async def test_how_a_durable_call_elsewhere_ended_may_be_on_its_way(stores: SqlStores, clock: ControlledClock) -> None:
    """While its process does not answer, and only then, its open start leaves a gap."""
    other = await Elsewhere(stores, "there").begin(quote_read=False, quote_kept=True)
    await other.store(events=[EventRow.of(make_event("quote.kept", clock=clock))])
    clock.advance_by(SECOND)
    assert (await ask(stores, JournalQuery("quote.kept"))).gaps == ()
    await other.start(call_of(clock, "quote.kept"))
    assert [gap.recorder for gap in (await ask(stores, JournalQuery("quote.kept"))).gaps] == ["there"]
    await other.store(answered=10**9)
    assert (await ask(stores, JournalQuery("quote.kept"))).gaps == ()


async def test_a_misspelt_durable_name_is_no_witness(stores: SqlStores, clock: ControlledClock) -> None:
    """What a recorder is asked to record durably counts once something would record it: only then it is declared."""
    journal = Journal[Any](clock=clock)
    async with stores.recorder(journal, name="api-7", durable=["quote.raed", "quote.read"]):
        recorded(journal, "quote.read")(len)
        assert await proven(stores, "quote.read")
        failure = await judged(stores, "quote.raed")
        assert isinstance(failure, EvidenceFailure)
        assert 'nothing named "quote.raed" happened, but 1 recorder of the window (api-7)' in failure.reason


async def test_who_recorded_is_told(stores: SqlStores, clock: ControlledClock) -> None:
    """How many events of the window each recorder recorded; what a limit cut off does not count."""
    for name in ("one", "two"):
        other = await Elsewhere(stores, name).begin(quote_read=True)
        await other.store(events=[EventRow.of(make_event("quote.read", clock=clock)) for _ in range(len(name) - 1)])
        clock.advance_by(SECOND)
        await other.store(events=[EventRow.of(make_event("quote.read", clock=clock))])
        await other.close()
    assert (await ask(stores)).recorded_by == {"one": 3, "two": 3}
    assert (await ask(stores, JournalQuery("quote.read", limit=4))).recorded_by == {"one": 1, "two": 3}
    assert (await ask(stores, JournalQuery("quote"))).recorded_by == {}


@pytest.mark.usefixtures("impatient")
async def test_who_does_not_answer_is_a_gap(stores: SqlStores, clock: ControlledClock) -> None:
    """Until a living recorder says that all it saw is stored, it may hold what would be an answer."""
    other = await Elsewhere(stores, "there").begin(quote_read=False, quote_kept=True)
    told = clock.now().wall
    clock.advance_by(SECOND)
    (gap,) = (await ask(stores)).gaps
    assert (gap.since, gap.until, gap.recorder, gap.may_close) == (told, told + LEASE, "there", True)
    assert "did not say in time" in gap.reason
    assert await proven(stores, "quote.kept")
    await other.store(answered=10**9)
    assert await proven(stores)


@pytest.mark.usefixtures("impatient")
async def test_a_command_line_tool_has_no_say(place: Place, stores: SqlStores, clock: ControlledClock) -> None:
    """What records the audit alone has nothing to say about handlers, dead or alive, but it has about audits."""
    await Elsewhere(stores, "cli").begin(audit_only=True)
    await (await Elsewhere(stores, "there").begin(quote_read=False)).close()
    assert await proven(stores)
    # It is asked all the same: it may run handlers by now, whatever it said when it began.
    assert place.rows("SELECT request FROM journal") == [(1,)]
    clock.advance_by(HOUR)
    assert await proven(stores)
    assert [gap.recorder for gap in (await ask(stores, JournalQuery("migration.m.advance"))).gaps] == ["cli"]


# -- recorders elsewhere, asked and answering


@contextmanager
def elsewhere(place: Place, name: str) -> Iterator[tuple[Journal[Any], Callable[[], None]]]:
    """A recorder on an event loop of its own, in a thread of its own; its journal, and what lets it go on."""
    opened, leave = threading.Event(), threading.Event()
    held: list[Any] = []

    async def live() -> None:
        async with place.stores(create_system_clock()) as stores:
            journal = Journal[Any](clock=stores.clock)
            journal.declare("quote.read")
            async with stores.recorder(journal, name=name):
                held.append(journal)
                opened.set()
                await asyncio.get_running_loop().run_in_executor(None, leave.wait)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        opened.wait()
        yield held[0], leave.set
    finally:
        leave.set()
        thread.join()


async def test_a_query_asks_the_others(place: Place) -> None:
    """What another recorder saw a moment ago is in the answer, and neither of the two leaves a gap."""
    async with place.stores(create_system_clock()) as stores:
        place.change("UPDATE journal SET covered_since_ns = 0")  # whoever asks need not know when it began
        journal = Journal[Any](clock=stores.clock)
        journal.declare("quote.read")
        async with stores.recorder(journal, name="here"):
            with elsewhere(place, "there") as (theirs, leave):
                record_events(theirs, "quote.read")
                found = await ask(stores)
                assert (len(found), found.gaps, found.witnessed) == (1, (), True)
                with recorded(theirs, "quote.read"):
                    assert len((await ask(stores)).in_flight) == 1
                record_events(theirs, "quote.read")
                leave()
            assert len(await ask(stores)) == 3


async def test_a_process_that_stands_still_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named while it does not answer, and is no gap once it does."""
    path = tmp_path / "journal.db"
    async with open_file_stores(path) as stores, asking(stores):
        with Child("record", path, "api-2", "") as child:
            assert child.hear() == "ready"
            child.say("call quote.read")
            child.say("call quote.read")
            assert [child.hear(), child.hear()] == ["done", "done"]
            query, window = JournalQuery("background"), US
            assert [gap.recorder for gap in (await ask(stores, query, window)).gaps] == []
            assert len(await ask(stores)) == 2
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")  # so that it does not stand still with the lock in its hands
                child.stop()
            with monkeypatch.context() as patch:
                patch.setattr(_journal_store, "_POLLS", 1)
                assert [gap.recorder for gap in (await ask(stores, query, window)).gaps] == ["api-2"]
            child.go_on()
            assert [gap.recorder for gap in (await ask(stores, query, window)).gaps] == []


# -- pruning


async def test_pruning_deletes_what_is_old(
    stores: SqlStores, clock: ControlledClock, journal: Journal[Any], recorder: Recorder
) -> None:
    """But not the audit; and the store vouches for what is left alone."""
    record_events(journal, "quote.read", 3, ago=14 * DAY + US)
    record_events(journal, "quote.read", 2, ago=14 * DAY)
    journal.append(make_event("migration.m.advance", clock=clock, source="migration", ago=20 * DAY))
    await recorder.flush()
    long_ago = stores.clock.now().wall - 90 * DAY
    assert await stores.journal_store.prune(older_than=14 * DAY, before=long_ago) == 0
    assert await stores.journal_store.prune(older_than=14 * DAY, before=stores.clock.now().wall) == 3
    assert await stores.journal_store.prune(older_than=14 * DAY) == 0
    found = await ask(stores, READ, 20 * DAY)
    (gap,) = found.gaps
    assert (len(found), gap.until) == (2, clock.now().wall - 14 * DAY)
    assert len(await ask(stores, JournalQuery("migration.m.advance"), 20 * DAY)) == 1
    assert (await ask(stores, READ, 14 * DAY)).gaps == ()


async def test_the_coverage_never_moves_back(stores: SqlStores, clock: ControlledClock) -> None:
    """To prune less afterwards brings nothing back."""
    await stores.journal_store.prune(older_than=DAY)
    await stores.journal_store.prune(older_than=14 * DAY)
    (gap,) = (await ask(stores, READ, 14 * DAY)).gaps
    assert gap.until == clock.now().wall - DAY


async def test_pruning_a_lot(
    place: Place, stores: SqlStores, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes in portions, so that others can write in between."""
    monkeypatch.setattr(_journal_store, "_PRUNED_AT_ONCE", 10)
    insert(place, clock, 35)
    clock.advance_by(DAY)
    assert await stores.journal_store.prune(older_than=DAY / 2) == 35


@pytest.mark.parametrize("age", [timedelta(0), -DAY])
async def test_pruning_everything_is_refused(stores: SqlStores, age: timedelta) -> None:
    """An age that is not positive would delete what has just happened."""
    with pytest.raises(SpecError, match="older_than must be a positive"):
        await stores.journal_store.prune(older_than=age)


async def test_pruning_keeps_what_the_rest_needs(place: Place, stores: SqlStores, clock: ControlledClock) -> None:
    """Whoever lived on into the time that is left stays, with its names, gaps and open calls; others go with theirs."""
    now = clock.now().wall_ns
    for name in ("gone", "dead"):
        other = await Elsewhere(stores, name).begin(quote_read=True, quote_write=False)
        await other.store(gaps=[NewGap(now, now + 1, "clock", f"skipped by {name}")])
        await other.start(call_of(clock, key=name))
        if name == "gone":
            await other.close()
        clock.advance_by(LEASE + DAY)
    await stores.journal_store.prune(older_than=DAY)  # to the very end of its life
    assert place.rows("SELECT name FROM recorders ORDER BY id") == [("who asks",), ("dead",)]
    assert place.rows("SELECT DISTINCT recorder, name FROM declarations ORDER BY name") == [
        (3, "quote.read"),
        (3, "quote.write"),
    ]
    assert place.rows("SELECT call_id FROM starts") == [("dead",)]
    assert place.rows("SELECT reason FROM gaps") == []
    assert [event.error is not None for event in await ask(stores, READ, DAY)] == [True]
    assert [gap.recorder for gap in (await ask(stores, JournalQuery("quote.write"), DAY)).gaps] == ["dead"]


async def test_pruning_keeps_who_may_come_back(place: Place, stores: SqlStores, clock: ControlledClock) -> None:
    """A process that was held up finds its row again, for a year; and the newest row tells which there have been."""
    await Elsewhere(stores, "held up").begin(quote_read=True)
    last = await Elsewhere(stores, "last").begin(quote_read=True)
    await last.close()
    for age, left in ((DAY, ["held up", "last"]), (367 * DAY, ["last"])):
        clock.advance_by(age)
        await stores.journal_store.prune(older_than=timedelta(hours=1))
        assert [name for (name,) in place.rows("SELECT name FROM recorders WHERE id > 1 ORDER BY id")] == left


async def test_silence_can_be_proven_after_pruning(
    stores: SqlStores, clock: ControlledClock, journal: Journal[Any], recorder: Recorder
) -> None:
    """What was pruned is out of the window, and what witnesses it is not."""
    journal.declare("quote.read")
    record_events(journal, "quote.read", ago=20 * DAY)
    clock.advance_by(10 * DAY)
    await recorder.flush()
    assert await stores.journal_store.prune(older_than=14 * DAY) == 1
    assert await proven(stores, window=14 * DAY)
    assert not await proven(stores, window=14 * DAY + US)


async def test_pruning_that_fails_in_the_middle_lies_about_nothing(
    place: Place, stores: SqlStores, clock: ControlledClock
) -> None:
    """The coverage moves first, so that what is half deleted is already out of what the store vouches for."""
    insert(place, clock, 4)
    clock.advance_by(2 * DAY)
    await (await Elsewhere(stores, "there").begin(quote_read=False)).close()
    with refusing(place, "DELETE", "events"), pytest.raises(place.error, match="not now"):
        await stores.journal_store.prune(older_than=DAY)
    place.assert_idle()
    found = await ask(stores, READ, 3 * DAY)
    assert (len(found), [gap.until for gap in found.gaps]) == (4, [clock.now().wall - DAY])
    assert await proven(stores, window=DAY)
    assert await stores.journal_store.prune(older_than=DAY) == 4


async def test_pruning_that_is_cancelled_in_the_middle_lies_about_nothing(
    place: Place, stores: SqlStores, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops, the coverage is beyond all that is deleted."""
    monkeypatch.setattr(_journal_store, "_PRUNED_AT_ONCE", 1)
    write, deleted = stores._database.write, []

    async def write_and_stop(work: partial[Any]) -> Any:
        answer = await write(work)
        if getattr(work, "func", None) is _journal_store._delete_events:
            deleted.append(answer)
            if len(deleted) == 2:
                raise asyncio.CancelledError
        return answer

    insert(place, clock, 4, step=MINUTE)
    clock.advance_by(2 * DAY)
    monkeypatch.setattr(stores._database, "write", write_and_stop)
    with pytest.raises(asyncio.CancelledError):
        await stores.journal_store.prune(older_than=DAY)
    found = await ask(stores, READ, 3 * DAY)
    assert (len(found), [gap.until for gap in found.gaps]) == (2, [clock.now().wall - DAY])


async def test_closed_stores_answer_nothing(clock: ControlledClock, place: Place) -> None:
    """Neither before they are opened nor after they were closed."""
    stores = place.stores(clock)
    for _ in range(2):
        with pytest.raises((place.error, RuntimeError)):
            await ask(stores)
        with pytest.raises((place.error, RuntimeError)):
            await stores.journal_store.prune(older_than=DAY)
        async with stores:
            with pytest.raises(place.error, match="cannot vouch even for itself"):
                await ask(stores)
            assert (await ask(stores, JournalQuery("migration.m.advance"))).events == ()
            with pytest.raises(place.error, match="nothing can be named"):
                await ask(stores, JournalQuery("\ud800"))
            async with asking(stores):
                assert (await ask(stores)).events == ()
    assert stores.journal_store.clock is clock


async def test_a_look_that_takes_long_is_taken_again(place: Place, clock: ControlledClock, monkeypatch: Any) -> None:
    """The window reaches as far back as it was asked for, however long it took to ask."""
    async with place.stores(clock) as stores, asking(stores):
        clock.advance_by(DAY)
        began, slow = clock.now(), [5 * SECOND, 7 * SECOND]
        looked = _reading.look

        def look(*args: Any) -> Any:
            moment, rows = looked(*args)
            return attrs.evolve(moment, after=moment.after.shifted(slow.pop() if slow else SECOND)), rows

        monkeypatch.setattr(_reading, "look", look)
        window = await ask(stores, READ, HOUR)
        assert window.until - window.since == HOUR
        assert window.until <= began.wall


async def test_a_clock_that_is_set_all_the_time(stores: SqlStores, journal: Journal[Any], recorder: Recorder) -> None:
    """Nobody can tell how long ago anything was, and there is an end to trying."""
    recorder.must_tell = lambda looked: True  # type: ignore[method-assign]
    with pytest.raises(Exception, match="set forward again and again"):
        await ask(stores)
