"""Queries over what the processes of one machine recorded in a file."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phyxius.adapters import _journal_store
from phyxius.adapters._ledger import Batch, NewGap
from phyxius.adapters._records import CallRow, EventRow
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.adapters.sqlite import FileStoreError, FileStores, Recorder, open_file_stores
from phyxius.clock import ControlledClock, create_controlled_clock
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

    def __init__(self, stores: FileStores, name: str) -> None:
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
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def stores(clock: ControlledClock, path: Path) -> AsyncIterator[FileStores]:
    """A file that was made thirty days ago, and that nobody has recorded in but who asks."""
    async with open_file_stores(path, clock=clock) as stores:
        clock.advance_by(30 * DAY)
        async with asking(stores):
            yield stores


def asking(stores: FileStores) -> Recorder:
    """The recorder of a process that asks; without one it would get no answer."""
    return stores.recorder(Journal(clock=stores.clock), name="who asks", audit_only=True)


@pytest.fixture
def journal(clock: ControlledClock, stores: FileStores) -> Journal[Any]:
    return Journal(clock=clock)


@pytest.fixture
async def recorder(stores: FileStores, journal: Journal[Any]) -> AsyncIterator[Recorder]:
    async with stores.recorder(journal, name="here", durable=["quote.kept"]) as recorder:
        yield recorder


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who do not answer are not waited for."""
    monkeypatch.setattr(_journal_store, "_POLLS", 1)


async def ask(stores: FileStores, query: JournalQuery = READ, window: timedelta = DAY) -> JournalWindow:
    return await stores.journal_store.query(query, window)


async def judged(stores: FileStores, name: str = "quote.read", window: timedelta = DAY) -> Passed | EvidenceFailure:
    source = journal_window(name, window, lambda seen: err("seen") if seen else ok())
    seen = await ask(stores, source.query, window)
    return judge_window(source, seen, source.predicate(seen))


async def proven(stores: FileStores, name: str = "quote.read", window: timedelta = DAY) -> bool:
    """Whether the silence of a name counts as a true Ok."""
    return type(await judged(stores, name, window)) is Passed


def insert(path: Path, clock: ControlledClock, count: int, name: str = "quote.read", *, step: timedelta = US) -> None:
    """Put many events into the file, the newest now."""
    now, step_ns = clock.now().wall_ns, step // US * 1_000
    rows = ((name, now - step_ns * number, now, f'{{"n":{number}}}') for number in range(count))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO events (recorder, name, outcome, completed_ns, started_ns, source, attempts, observed)"
            " VALUES (1, ?, 'success', ?, ?, 'handler', 1, ?)",
            rows,
        )


def rows_of(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def is_free(path: Path) -> bool:
    """Whether nobody holds a transaction that writes."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    return True


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


@given(events=events, declared=st.sampled_from(["quote", "quote.read"]), queries=st.lists(queries, min_size=3))
@settings(max_examples=40)
def test_it_answers_as_the_memory_does(
    tmp_path_factory: pytest.TempPathFactory, events: Any, declared: str, queries: list[JournalQuery]
) -> None:
    """With the same events both stores say the same, whatever is asked."""

    async def compare() -> None:
        clock = create_controlled_clock(EPOCH)
        journal = Journal[HandlerEvent](clock=clock)
        journal.declare(declared)
        directory = tmp_path_factory.mktemp("same")
        async with (
            open_file_stores(directory / "journal.db", clock=clock) as stores,
            stores.recorder(journal, name="here"),
        ):
            memory = create_memory_journal_store(journal=journal)
            clock.advance_by(DAY)
            for n, (name, outcome, minutes) in enumerate(events):
                source = "migration" if name.startswith("migration") else "handler"
                ago = minutes * MINUTE
                journal.append(
                    make_event(name, clock=clock, outcome=outcome, ago=ago, source=source, observed={"n": n})
                )
            for query in queries:
                for window in (10 * MINUTE, DAY):
                    agree(*[await each.query(query, window) for each in (stores.journal_store, memory)])

    asyncio.run(compare())


async def test_an_event_comes_back_as_it_was(stores: FileStores, journal: Journal[Any], recorder: Recorder) -> None:
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


@pytest.mark.parametrize(
    "query",
    [
        READ,
        JournalQuery("quote.read", outcome="failure"),
        JournalQuery("quote.read", limit=5),
        JournalQuery("quote.read", where=lambda event: False),
        JournalQuery(),
        JournalQuery(outcome="success", limit=5),
    ],
)
async def test_a_query_goes_by_an_index(stores: FileStores, path: Path, clock: ControlledClock, query: Any) -> None:
    """It reads no event that is not in the window, and sorts nothing."""
    insert(path, clock, 50)
    ran: list[str] = []

    def trace(connection: sqlite3.Connection) -> None:
        connection.raw.set_trace_callback(ran.append)

    await stores._database.query(trace)
    await ask(stores, query)
    state, sql = (each for each in ran if "FROM events" in each)
    with closing(sqlite3.connect(path)) as connection:
        glance, plan = ([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {each}")] for each in (state, sql))
    # What is asked first, in one statement: whether anything happened at all.
    by_name = "SEARCH events USING COVERING INDEX events_by_name (name=? AND outcome=? AND completed_ns>?)"
    assert [line for line in glance if "events" in line] == [by_name] * 2
    assert {line for line in glance if "SCAN" in line} == {"SCAN journal", "SCAN starts"}  # both are short
    index = "events_by_time (completed_ns>?)"
    if query.name is not None:
        index = "events_by_name (name=? AND outcome=? AND completed_ns>?)"
    assert [line for line in plan if "events" in line] == [f"SEARCH events USING INDEX {index}"] * (
        2 if query == READ or (query.name and not query.outcome) else 1
    )
    assert not [line for line in plan if "TEMP B-TREE" in line or "SCAN" in line]
    assert (f"LIMIT {2**62}" in sql) == (query.where is not None)


@pytest.mark.parametrize("limit", [None, 3])
async def test_a_where_streams(stores: FileStores, path: Path, clock: ControlledClock, limit: int | None) -> None:
    """However many events `where` is asked about, no more than it admits are held at a time."""
    insert(path, clock, 10_000)
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
    assert peak < 500_000


async def test_a_where_is_asked_no_more_than_needed(stores: FileStores, path: Path, clock: ControlledClock) -> None:
    """Once a window is full, and is known to be cut off, no further event is looked at."""
    insert(path, clock, 1_000)
    asked = []
    query = JournalQuery("quote.read", where=lambda event: asked.append(event.observed["n"]) is None, limit=2)
    assert (await ask(stores, query)).truncated
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("where", [None, lambda event: event.observed["n"] < 4])
@pytest.mark.parametrize("events", [3, 4])
async def test_a_window_without_a_limit_is_bounded(path: Path, clock: ControlledClock, events: int, where: Any) -> None:
    """It holds the newest `max_window_events`, and says so if there were more; a limit of its own goes before that."""
    async with open_file_stores(path, clock=clock, max_window_events=3) as stores, asking(stores):
        insert(path, clock, events)
        found = await ask(stores, JournalQuery("quote.read", where=where))
        assert [event.observed["n"] for event in found] == [2, 1, 0]
        assert found.truncated == (events == 4)
        more = await ask(stores, JournalQuery("quote.read", where=where, limit=4))
        assert (len(more), more.truncated) == (events, False)


async def test_a_where_that_raises_is_heard_of(stores: FileStores, path: Path, clock: ControlledClock) -> None:
    """It does not pass for an event that does not match, and leaves nothing open behind it."""
    insert(path, clock, 5)
    with pytest.raises(KeyError):
        await ask(stores, JournalQuery(where=lambda event: event.observed["tenant"] == "a"))
    with pytest.raises(TypeError, match="awaitable"):
        await ask(stores, JournalQuery(where=lambda event: asyncio.sleep(0)))
    assert len(await ask(stores)) == 5
    assert is_free(path)


@pytest.mark.parametrize("admits", [True, False])
async def test_a_where_stops_when_nobody_waits(
    stores: FileStores, path: Path, clock: ControlledClock, admits: bool
) -> None:
    """A query that is cancelled asks `where` about no further event, and its thread goes on to others."""
    insert(path, clock, 1_000)
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
    await stores._database._queries.close(MINUTE)
    assert query.cancelled()
    assert asked == 1


# -- calls in flight, and those whose end nobody stored


def call_of(clock: ControlledClock, name: str = "quote.read", *, key: str = "1", **observed: object) -> InFlightCall:
    return InFlightCall(name, clock.now(), observed=observed, invocation_id=key)  # type: ignore[arg-type]


async def test_own_calls_in_flight(stores: FileStores, journal: Journal[Any], recorder: Recorder) -> None:
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
async def test_a_durable_call_whose_event_never_came_in(stores: FileStores, clock: ControlledClock, lost: str) -> None:
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


async def test_calls_in_flight_elsewhere(stores: FileStores, clock: ControlledClock) -> None:
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


async def test_a_call_whose_recorder_died_is_an_event(stores: FileStores, clock: ControlledClock) -> None:
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
    stores: FileStores, clock: ControlledClock, query: JournalQuery, found: int, in_flight: int
) -> None:
    """All that cannot rule it out; that it succeeded nobody knows, so then it stays in flight."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    await other.start(call_of(clock, tenant="a"))
    clock.advance_by(2 * LEASE)
    window = await ask(stores, query)
    assert (len(window), len(window.in_flight)) == (found, in_flight)


@pytest.mark.parametrize("where", [None, lambda event: True])
async def test_a_lost_call_takes_its_place(stores: FileStores, path: Path, clock: ControlledClock, where: Any) -> None:
    """It stands among the stored events in the order of time, and counts towards the limit."""
    insert(path, clock, 1)
    for key in ("1", "2"):
        other = await Elsewhere(stores, f"there {key}").begin(quote_read=True)
        await other.start(call_of(clock, key=key))
        clock.advance_by(SECOND)
    clock.advance_by(HOUR)
    insert(path, clock, 1)
    for limit, kept in ((None, "sLLs"), (4, "sLLs"), (3, "LLs"), (2, "Ls"), (1, "s")):
        found = await ask(stores, JournalQuery("quote.read", where=where, limit=limit))
        assert "".join("s" if event.outcome == "success" else "L" for event in found) == kept
        assert found.truncated == (len(kept) < 4)
    times = [event.completed_at.wall for event in await ask(stores)]
    assert times == sorted(times)


async def test_a_lost_call_grows_old(stores: FileStores, clock: ControlledClock) -> None:
    """Once the end of the lease is out of the window, so is the call, and nothing is left to judge its silence."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    await other.start(call_of(clock))
    clock.advance_by(LEASE + HOUR)
    assert len(await ask(stores, READ, HOUR)) == 1
    assert len(await ask(stores, READ, HOUR - US)) == 0
    assert not (await ask(stores, READ, HOUR - US)).witnessed


async def test_a_call_that_began_after_its_lease(stores: FileStores, clock: ControlledClock) -> None:
    """A process that was held up for longer than its lease lives on, at least until the last call that it began."""
    other = await Elsewhere(stores, "there").begin(quote_read=True)
    clock.advance_by(2 * HOUR)
    await other.start(call_of(clock))
    clock.advance_by(SECOND)
    (event,) = await ask(stores, READ, HOUR)
    assert event.completed_at.wall == clock.now().wall - SECOND
    assert not await proven(stores, window=HOUR)


# -- gaps and witnesses


async def test_nobody_recorded(stores: FileStores) -> None:
    """While nobody records, nothing runs and that is no gap; but nothing witnessed the silence either."""
    found = await ask(stores)
    assert (found.gaps, found.witnessed, found.unwitnessed_by) == ((), False, ())
    assert not await proven(stores)


async def test_the_file_vouches_from_its_making_on(stores: FileStores) -> None:
    """A window that looks back further has a gap up to then."""
    (gap,) = (await ask(stores, READ, 31 * DAY)).gaps
    assert (gap.since, gap.until, gap.recorder) == (EPOCH - DAY, EPOCH, None)
    assert (await ask(stores, READ, 30 * DAY)).gaps == ()


async def test_every_recorder_of_the_window_is_a_witness(stores: FileStores, clock: ControlledClock) -> None:
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


async def test_a_dead_recorder_is_a_gap(stores: FileStores, clock: ControlledClock) -> None:
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


async def test_what_was_lost_is_a_gap(stores: FileStores, clock: ControlledClock) -> None:
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


async def test_a_gap_grows_old(stores: FileStores, clock: ControlledClock) -> None:
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


async def test_how_a_durable_call_ended_may_be_lost(stores: FileStores, clock: ControlledClock) -> None:
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
async def test_how_a_durable_call_elsewhere_ended_may_be_on_its_way(stores: FileStores, clock: ControlledClock) -> None:
    """While its process does not answer, and only then, its open start leaves a gap."""
    other = await Elsewhere(stores, "there").begin(quote_read=False, quote_kept=True)
    await other.store(events=[EventRow.of(make_event("quote.kept", clock=clock))])
    clock.advance_by(SECOND)
    assert (await ask(stores, JournalQuery("quote.kept"))).gaps == ()
    await other.start(call_of(clock, "quote.kept"))
    assert [gap.recorder for gap in (await ask(stores, JournalQuery("quote.kept"))).gaps] == ["there"]
    await other.store(answered=10**9)
    assert (await ask(stores, JournalQuery("quote.kept"))).gaps == ()


async def test_a_misspelt_durable_name_is_no_witness(stores: FileStores, clock: ControlledClock) -> None:
    """What a recorder is asked to record durably counts once something would record it: only then it is declared."""
    journal = Journal[Any](clock=clock)
    async with stores.recorder(journal, name="api-7", durable=["quote.raed", "quote.read"]):
        recorded(journal, "quote.read")
        assert await proven(stores, "quote.read")
        failure = await judged(stores, "quote.raed")
        assert isinstance(failure, EvidenceFailure)
        assert 'nothing named "quote.raed" happened, but 1 recorder of the window (api-7)' in failure.reason


async def test_who_recorded_is_told(stores: FileStores, clock: ControlledClock) -> None:
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
async def test_who_does_not_answer_is_a_gap(stores: FileStores, clock: ControlledClock) -> None:
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
async def test_a_command_line_tool_has_no_say(stores: FileStores, clock: ControlledClock) -> None:
    """What records the audit alone has nothing to say about handlers, dead or alive, but it has about audits."""
    await Elsewhere(stores, "cli").begin(audit_only=True)
    await (await Elsewhere(stores, "there").begin(quote_read=False)).close()
    assert await proven(stores)
    # It is asked all the same: it may run handlers by now, whatever it said when it began.
    assert rows_of(Path(stores.path), "SELECT request FROM journal") == [(1,)]
    clock.advance_by(HOUR)
    assert await proven(stores)
    assert [gap.recorder for gap in (await ask(stores, JournalQuery("migration.m.advance"))).gaps] == ["cli"]


# -- recorders elsewhere, asked and answering


@contextmanager
def elsewhere(path: Path, name: str) -> Iterator[tuple[Journal[Any], Callable[[], None]]]:
    """A recorder on an event loop of its own, in a thread of its own; its journal, and what lets it go on."""
    opened, leave = threading.Event(), threading.Event()
    held: list[Any] = []

    async def live() -> None:
        async with open_file_stores(path) as stores:
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


async def test_a_query_asks_the_others(path: Path) -> None:
    """What another recorder saw a moment ago is in the answer, and neither of the two leaves a gap."""
    async with open_file_stores(path) as stores:
        journal = Journal[Any](clock=stores.clock)
        journal.declare("quote.read")
        async with stores.recorder(journal, name="here"):
            with elsewhere(path, "there") as (theirs, leave):
                record_events(theirs, "quote.read")
                window = stores.clock.now().wall - rows_began(path) - US
                found = await ask(stores, READ, window)
                assert (len(found), found.gaps, found.witnessed) == (1, (), True)
                with recorded(theirs, "quote.read"):
                    assert len((await ask(stores, READ, window)).in_flight) == 1
                record_events(theirs, "quote.read")
                leave()
            assert len(await ask(stores)) == 3


def rows_began(path: Path) -> datetime:
    ((began_ns,),) = rows_of(path, "SELECT covered_since_ns FROM journal")
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=-(-began_ns // 1_000))


async def test_a_process_that_stands_still_is_a_gap(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named while it does not answer, and is no gap once it does."""
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
    stores: FileStores, path: Path, clock: ControlledClock, journal: Journal[Any], recorder: Recorder
) -> None:
    """But not the audit; and the file vouches for what is left alone."""
    record_events(journal, "quote.read", 3, ago=14 * DAY + US)
    record_events(journal, "quote.read", 2, ago=14 * DAY)
    journal.append(make_event("migration.m.advance", clock=clock, source="migration", ago=20 * DAY))
    await recorder.flush()
    assert await stores.journal_store.prune(older_than=14 * DAY) == 3
    assert await stores.journal_store.prune(older_than=14 * DAY) == 0
    found = await ask(stores, READ, 20 * DAY)
    (gap,) = found.gaps
    assert (len(found), gap.until) == (2, clock.now().wall - 14 * DAY)
    assert len(await ask(stores, JournalQuery("migration.m.advance"), 20 * DAY)) == 1
    assert (await ask(stores, READ, 14 * DAY)).gaps == ()


async def test_the_coverage_never_moves_back(stores: FileStores, clock: ControlledClock) -> None:
    """To prune less afterwards brings nothing back."""
    await stores.journal_store.prune(older_than=DAY)
    await stores.journal_store.prune(older_than=14 * DAY)
    (gap,) = (await ask(stores, READ, 14 * DAY)).gaps
    assert gap.until == clock.now().wall - DAY


async def test_pruning_a_lot(
    stores: FileStores, path: Path, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes in portions, so that others can write in between."""
    monkeypatch.setattr(_journal_store, "_PRUNED_AT_ONCE", 10)
    insert(path, clock, 35)
    clock.advance_by(DAY)
    assert await stores.journal_store.prune(older_than=DAY / 2) == 35


@pytest.mark.parametrize("age", [timedelta(0), -DAY])
async def test_pruning_everything_is_refused(stores: FileStores, age: timedelta) -> None:
    """An age that is not positive would delete what has just happened."""
    with pytest.raises(SpecError, match="older_than must be a positive"):
        await stores.journal_store.prune(older_than=age)


async def test_pruning_keeps_what_the_rest_needs(stores: FileStores, path: Path, clock: ControlledClock) -> None:
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
    assert rows_of(path, "SELECT name FROM recorders") == [("who asks",), ("dead",)]
    assert rows_of(path, "SELECT DISTINCT recorder, name FROM declarations") == [(3, "quote.read"), (3, "quote.write")]
    assert rows_of(path, "SELECT call_id FROM starts") == [("dead",)]
    assert rows_of(path, "SELECT reason FROM gaps") == []
    assert [event.error is not None for event in await ask(stores, READ, DAY)] == [True]
    assert [gap.recorder for gap in (await ask(stores, JournalQuery("quote.write"), DAY)).gaps] == ["dead"]


async def test_pruning_keeps_who_may_come_back(stores: FileStores, path: Path, clock: ControlledClock) -> None:
    """A process that was held up finds its row again, for a year; and the newest row tells which there have been."""
    await Elsewhere(stores, "held up").begin(quote_read=True)
    last = await Elsewhere(stores, "last").begin(quote_read=True)
    await last.close()
    for age, left in ((DAY, ["held up", "last"]), (367 * DAY, ["last"])):
        clock.advance_by(age)
        await stores.journal_store.prune(older_than=timedelta(hours=1))
        assert [name for (name,) in rows_of(path, "SELECT name FROM recorders WHERE id > 1")] == left


async def test_silence_can_be_proven_after_pruning(
    stores: FileStores, clock: ControlledClock, journal: Journal[Any], recorder: Recorder
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
    stores: FileStores, path: Path, clock: ControlledClock
) -> None:
    """The coverage moves first, so that what is half deleted is already out of what the file vouches for."""
    insert(path, clock, 4)
    clock.advance_by(2 * DAY)
    await (await Elsewhere(stores, "there").begin(quote_read=False)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TRIGGER no BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'not now'); END")
    with pytest.raises(FileStoreError, match="not now"):
        await stores.journal_store.prune(older_than=DAY)
    assert is_free(path)
    found = await ask(stores, READ, 3 * DAY)
    assert (len(found), [gap.until for gap in found.gaps]) == (4, [clock.now().wall - DAY])
    assert await proven(stores, window=DAY)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER no")
    assert await stores.journal_store.prune(older_than=DAY) == 4


async def test_pruning_that_is_cancelled_in_the_middle_lies_about_nothing(
    stores: FileStores, path: Path, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
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

    insert(path, clock, 4, step=MINUTE)
    clock.advance_by(2 * DAY)
    monkeypatch.setattr(stores._database, "write", write_and_stop)
    with pytest.raises(asyncio.CancelledError):
        await stores.journal_store.prune(older_than=DAY)
    found = await ask(stores, READ, 3 * DAY)
    assert (len(found), [gap.until for gap in found.gaps]) == (2, [clock.now().wall - DAY])


async def test_a_closed_file_answers_nothing(clock: ControlledClock, path: Path) -> None:
    """Neither before it is opened nor after it was closed."""
    stores = open_file_stores(path, clock=clock)
    for _ in range(2):
        with pytest.raises((FileStoreError, RuntimeError)):
            await ask(stores)
        with pytest.raises((FileStoreError, RuntimeError)):
            await stores.journal_store.prune(older_than=DAY)
        async with stores:
            with pytest.raises(FileStoreError, match="cannot vouch even for itself"):
                await ask(stores)
            assert (await ask(stores, JournalQuery("migration.m.advance"))).events == ()
            with pytest.raises(FileStoreError, match="nothing can be named"):
                await ask(stores, JournalQuery("\ud800"))
            async with asking(stores):
                assert (await ask(stores)).events == ()
    assert stores.journal_store.clock is clock
