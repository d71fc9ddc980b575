"""Keeping the journal of a process in a shared store."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters import _recorder as recorder_module
from phyxius.adapters._moment import Moment
from phyxius.adapters._recorder import Recorder, running_recorders, why_unrecorded
from phyxius.adapters.sqlalchemy._database import ServerDatabase
from phyxius.adapters.sqlite._database import FileDatabase
from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.handler import HandlerEvent, InFlightCall, recorded
from phyxius.journal import Journal, JournalOverflowError
from phyxius.migration import SpecError
from phyxius.testing import record_events
from tests.adapters.support import (
    LEASE,
    MemoryTables,
    PlaceTables,
    Store,
    failing,
    hanging,
    really,
    unanswered,
    until,
)
from tests.places import FILE, SERVERS, place_of

SECOND = timedelta(seconds=1)
BATCH = timedelta(milliseconds=200)
OLD = "quote.read_old"
BROKEN = OSError("the store is broken")


@pytest.fixture
def tables() -> MemoryTables:
    return MemoryTables()


@pytest.fixture(params=["memory", FILE, *SERVERS])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: ControlledClock) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryTables()
    else:
        async with place_of(request.param, tmp_path) as place, place.stores(clock) as stores:
            yield PlaceTables(place, stores)


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """After each test no recorder runs, and no task."""
    yield
    assert [ref for ref in recorder_module._running if (left := ref()) and not left.is_stranded] == []
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= 2, "this fixture's, and the one that tears down the others"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorders that look around all the time."""
    for store in (MemoryTables, FileDatabase, ServerDatabase):
        monkeypatch.setattr(store, "poll_seconds", 0.001)


# -- its life


async def test_it_keeps_what_is_recorded(store: Store, journal: Journal[Any], clock: ControlledClock) -> None:
    """What was recorded before, meanwhile and up to the last moment is stored once, in order; then it has closed."""
    record_events(journal, "before", 2)
    async with store.recorder(journal) as recorder:
        assert await store.events() == ["before"] * 2
        record_events(journal, "meanwhile")
        await clock.elapse(SECOND)
        assert await store.events() == ["before", "before", "meanwhile"]
        (row,) = await store.rows()
        assert (row.name, row.closed, row.audit_only) == ("api-7", False, False)
        assert row.ended_ns == row.stored_ns + 30 * 10**9
        assert recorder.is_running
        record_events(journal, "at the end")
        clock.advance_by(timedelta(milliseconds=1))
    record_events(journal, "after")
    (row,) = await store.rows()
    assert (row.closed, row.ended_ns, row.stored_ns) == (True, clock.now().wall_ns, clock.now().wall_ns)
    assert await store.events() == ["before", "before", "meanwhile", "at the end"]
    assert await store.gaps() == []
    assert await store.declared() == dict.fromkeys(["before", "meanwhile", "at the end"], False)


async def test_it_is_known_by_name_and_id(tables: MemoryTables, journal: Journal[Any]) -> None:
    """Its name is there from the start, its id once it has begun."""
    recorder = tables.recorder(journal, name="api-8")
    assert recorder.name == "api-8"
    with pytest.raises(RuntimeError, match="not begun"):
        await recorder.flush()
    with pytest.raises(RuntimeError, match="not begun"):
        _ = recorder.id
    async with recorder as entered:
        assert entered is recorder
        assert recorder.id == 1
        assert running_recorders(tables.key) == [recorder]
        assert running_recorders("other") == []
    assert running_recorders(tables.key) == []


async def test_it_runs_on_its_own_loop_alone(tables: MemoryTables, journal: Journal[Any]) -> None:
    """Another event loop cannot ask it to store."""

    async def elsewhere() -> tuple[bool, int]:
        return recorder.is_running, len(running_recorders(tables.key))

    async with tables.recorder(journal) as recorder:
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == (False, 0)


async def test_who_writes_to_a_store(
    tables: MemoryTables, journal: Journal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process does, from whatever loop, while a recorder of that store runs; one out of a fork does not count."""
    async with tables.recorder(journal):
        assert why_unrecorded(tables.key) is None
        assert await asyncio.to_thread(why_unrecorded, tables.key, journal) is None
        assert why_unrecorded("other") == "recorder api-7 writes elsewhere, or by another URL"
        other = Journal[Any](clock=journal.clock)
        assert "keeps another journal" in (why_unrecorded(tables.key, other) or "")
        async with tables.recorder(other, name="other"):
            assert why_unrecorded(tables.key, other) is None
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            assert why_unrecorded(tables.key) == "no recorder runs here"
    assert why_unrecorded(tables.key) == "no recorder runs here"


@pytest.mark.parametrize("cancelled", [True, False])
async def test_one_whose_tasks_end_says_so_once(
    tables: MemoryTables,
    journal: Journal[Any],
    cancelled: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It stores no more, and counts for nothing; a recorder that closes has nothing to say."""
    monkeypatch.setattr(MemoryTables, "poll_seconds", 0.001)
    async with tables.recorder(journal) as recorder:
        if cancelled:
            for task in recorder._tasks:
                task.cancel()
        else:
            monkeypatch.setattr(journal.clock, "now", lambda: 1 / 0)
        await asyncio.wait(recorder._tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        assert why_unrecorded(tables.key)
        monkeypatch.undo()
    (told,) = caplog.records
    assert "stores no more" in told.message
    assert told.exc_info is None or isinstance(told.exc_info[1], ZeroDivisionError) is not cancelled


def test_one_whose_loop_was_closed_makes_its_process_no_witness(clock: ControlledClock) -> None:
    """As long as its journal has something that nobody stores, or could: a call in flight, an event, a loss."""
    tables, stranded, other = MemoryTables(), Journal[Any](clock=clock), Journal[Any](clock=clock)

    async def leave() -> None:
        await tables.recorder(stranded).__aenter__()

    async def is_witness(journal: Journal[Any]) -> bool:
        async with tables.recorder(journal):
            return why_unrecorded(tables.key) is None

    asyncio.run(leave())
    assert why_unrecorded(tables.key) == why_unrecorded("another store") == "no recorder runs here"
    assert asyncio.run(is_witness(other))
    with recorded(stranded, "a"):
        assert not asyncio.run(is_witness(other))
    assert not asyncio.run(is_witness(other))
    assert asyncio.run(is_witness(stranded)), "it was taken over"
    assert asyncio.run(is_witness(other))


async def test_a_durable_name_that_nothing_would_record_is_warned_of(
    tables: MemoryTables, journal: Journal[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is no witness: what is durable is not thereby declared."""
    recorded(journal, OLD)(len)
    async with tables.recorder(journal, durable=[OLD]):
        assert await tables.declared() == {OLD: True}
    assert caplog.records == []
    async with tables.recorder(journal, durable=[OLD, "quote.raed"]) as recorder:
        assert "quote.raed" not in journal.declared
        assert "'quote.raed' yet, so recorder api-7 is no witness" in caplog.messages[0]
        recorded(journal, "quote.raed")(len)
        await recorder.flush()
        assert await tables.declared() == {OLD: True, "quote.raed": True}


async def test_it_is_used_once(tables: MemoryTables, journal: Journal[Any]) -> None:
    """A second time it is refused, while it runs and afterwards."""
    async with tables.recorder(journal) as recorder:
        with pytest.raises(RuntimeError, match="used once"):
            await recorder.__aenter__()
    with pytest.raises(RuntimeError, match="used once"):
        await recorder.__aenter__()
    assert len(await tables.rows()) == 1


async def test_a_second_recorder_of_one_journal_is_refused(store: Store, journal: Journal[Any]) -> None:
    """It would store everything twice; the first one is not disturbed. Once that has closed a second one may come."""
    record_events(journal, "a")
    async with store.recorder(journal):
        with pytest.raises(RuntimeError, match="has a recorder in this store already"):
            async with store.recorder(journal, name="twin"):
                pytest.fail("it was entered")
        record_events(journal, "b")
    record_events(journal, "between")
    async with store.recorder(journal, name="next"):
        record_events(journal, "c")
    assert await store.events() == ["a", "b", "between", "c"]
    assert [row.name for row in await store.rows()] == ["api-7", "next"]
    assert await store.gaps() == []


async def test_what_another_process_recorded_is_not_taken_over(
    store: Store, journal: Journal[Any], clock: ControlledClock
) -> None:
    """Events from before a fork were the parent's, and it stored them itself."""
    record_events(journal, "theirs")
    journal._after_fork()
    clock.advance_by(SECOND)
    record_events(journal, "ours")
    async with store.recorder(journal):
        pass
    assert await store.events() == ["ours"]
    assert await store.gaps() == []


@pytest.mark.parametrize(
    "options,says",
    [
        ({"name": ""}, "needs a name"),
        ({"name": 7}, "needs a name"),
        ({"name": "\x00"}, "needs a name"),
        ({"durable": OLD}, "durable must be a collection"),
        ({"durable": [OLD, ""]}, "durable must be a collection"),
        ({"durable": [7]}, "durable must be a collection"),
        ({"durable": ["\ud800"]}, "durable must be a collection"),
        ({"durable": [OLD], "audit_only": True}, "say one or the other"),
        ({"lease": timedelta(milliseconds=999)}, "lease must be at least 0:00:01"),
        ({"lease": 30}, "lease must be a positive timedelta"),
        ({"lease": timedelta.max}, "lease must not be longer than a century"),
        ({"max_pending": 0}, "max_pending must be a whole number from 1"),
        ({"max_pending": 1.5}, "max_pending must be a whole number from 1"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tables: MemoryTables, journal: Journal[Any], options: dict[str, Any], says: str
) -> None:
    """Misuse shows where the recorder is made."""
    with pytest.raises(SpecError, match=says):
        tables.recorder(journal, **options)


async def test_one_that_was_made_before_a_fork_may_be_entered_after_it(
    tables: MemoryTables, journal: Journal[Any], clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At module level, say: where it is entered counts, and since when the journal of that process records."""
    recorder = tables.recorder(journal, durable=[OLD])
    record_events(journal, "theirs")
    journal._after_fork()
    clock.advance_by(SECOND)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert not recorder.is_of_this_process
    record_events(journal, "ours")
    async with recorder:
        assert recorder.is_of_this_process
        assert why_unrecorded(tables.key) is None
        with recorded(journal, OLD):
            assert list((await tables.starts()).values()) == [OLD]
        record_events(journal, "later")
    assert why_unrecorded(tables.key)
    assert await tables.events() == ["ours", OLD, "later"]
    assert (await tables.gaps(), [row.started_ns for row in await tables.rows()]) == ([], [journal.began.wall_ns])


async def test_one_that_was_made_before_the_clock_was_set(
    store: Store, journal: Journal[Any], clock: ControlledClock
) -> None:
    """Nobody recorded then, so nothing was missed."""
    recorder = store.recorder(journal)
    clock.jump_wall_time(clock.now().wall + timedelta(hours=1))
    async with recorder:
        pass
    assert await store.gaps() == []


@pytest.mark.parametrize("entered", [True, False])
def test_one_whose_loop_was_closed_is_replaced(tables: MemoryTables, journal: Journal[Any], entered: bool) -> None:
    """Nobody can empty it any more: the next one on another loop takes over what it had not stored."""

    async def leave() -> None:
        if entered:
            await tables.recorder(journal, name="stranded").__aenter__()

    async def go_on() -> list[str]:
        async with tables.recorder(journal, name="next") as recorder:
            record_events(journal, "b")
            await recorder.flush()
            return [each.name for each in running_recorders(tables.key)]

    asyncio.run(leave())
    record_events(journal, "a", 2)
    assert asyncio.run(go_on()) == ["next"]
    assert asyncio.run(tables.events()) == ["a", "a", "b"]
    assert [row.closed for row in asyncio.run(tables.rows())] == ([False, True] if entered else [True])
    assert why_unrecorded(tables.key)


@pytest.mark.parametrize("written", range(5))
@pytest.mark.parametrize("arrived", [False, True])
def test_one_that_is_cut_off_while_it_begins_or_ends(
    tables: MemoryTables, journal: Journal[Any], written: int, arrived: bool
) -> None:
    """Whichever of its writes is cut off with the event loop, before it arrived or after: each event is stored once."""

    async def never_answer(write: Callable[[], Any]) -> None:
        if arrived:
            write()
        await asyncio.Event().wait()

    async def live() -> None:
        recorder = await tables.recorder(journal, name="cut off").__aenter__()
        record_events(journal, "b")
        await recorder.flush()
        record_events(journal, "c")
        await recorder.__aexit__(None, None, None)

    async def leave() -> None:
        tables.rigs = [*[really] * written, never_answer]
        task = asyncio.create_task(live())
        await until(tables.is_asked)
        assert not task.done()

    async def go_on() -> None:
        async with tables.recorder(journal, name="next"):
            record_events(journal, "d")

    record_events(journal, "a")
    asyncio.run(leave())
    recorded_by_then = "ab" if written == 3 else "abc" if written == 4 else "a"
    asyncio.run(go_on())
    assert asyncio.run(tables.events()) == [*recorded_by_then, "d"]
    assert asyncio.run(tables.rows())[-1].closed
    assert running_recorders_of(tables) == []


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("arrived", [False, True])
def test_what_was_on_its_way_when_its_loop_was_closed(
    tables: MemoryTables, journal: Journal[Any], arrived: bool, restored: bool
) -> None:
    """The next recorder finds out whether it has arrived, and stores it once; also where an older copy was restored."""

    async def never_answer(write: Callable[[], Any]) -> None:
        if arrived:
            write()
        await asyncio.Event().wait()

    async def leave() -> None:
        recorder = await tables.recorder(journal, name="stranded").__aenter__()
        record_events(journal, "a")
        tables.rigs = [never_answer]
        task = asyncio.create_task(recorder.flush())
        await until(tables.is_asked)
        assert not task.done()

    async def go_on() -> None:
        async with tables.recorder(journal, name="next"):
            pass

    asyncio.run(leave())
    record_events(journal, "b")
    if restored:
        tables.forget()
    asyncio.run(go_on())
    assert asyncio.run(tables.events()) == ["a", "b"]
    assert running_recorders_of(tables) == []


def test_the_starts_of_one_whose_loop_was_closed(tables: MemoryTables, journal: Journal[Any]) -> None:
    """It keeps its pledge until the next one of that store has given its own; for another store it goes on."""
    elsewhere = MemoryTables()

    async def leave() -> list[Recorder]:
        return [await each.recorder(journal, durable=[OLD]).__aenter__() for each in (tables, elsewhere)]

    async def fail() -> None:
        tables.rigs = [really, failing(BROKEN)]
        with pytest.raises(OSError, match="broken"):
            await tables.recorder(journal, durable=[OLD]).__aenter__()

    async def go_on() -> None:
        async with tables.recorder(journal, durable=[OLD]) as recorder:
            assert journal.start_keepers == (other, recorder)
            with recorded(journal, OLD):
                assert len(await tables.starts()) == len(await elsewhere.starts()) == 1
        assert await tables.starts() == {}

    first, other = asyncio.run(leave())
    asyncio.run(fail())
    assert journal.start_keepers == (first, other)
    asyncio.run(go_on())
    assert running_recorders_of(tables, elsewhere) == []


async def test_after_a_store_was_set_back_all_is_stored_again(tables: MemoryTables, journal: Journal[Any]) -> None:
    """An older copy was restored, without what it gave a receipt for; where it has that, nothing is stored twice."""
    record_events(journal, "a")
    async with tables.recorder(journal):
        pass
    async with tables.recorder(journal):
        pass
    assert await tables.events() == ["a"]
    tables.forget()
    async with tables.recorder(journal):
        pass
    assert await tables.events() == ["a"]


# -- when it cannot begin


@pytest.mark.parametrize("writes", [0, 1])
@pytest.mark.parametrize("rig", [failing, unanswered])
async def test_a_recorder_that_cannot_begin_leaves_none_behind(
    tables: MemoryTables, journal: Journal[Any], writes: int, rig: Callable[[BaseException], Any]
) -> None:
    """The exception comes out; no task runs, nothing is kept, and another recorder may be entered."""
    record_events(journal, "a")
    tables.rigs = [really] * writes + [rig(BROKEN)]
    recorder = tables.recorder(journal, durable=[OLD])
    with pytest.raises(OSError, match="broken"):
        await recorder.__aenter__()
    assert journal.start_keepers == ()
    assert running_recorders(tables.key) == []
    record_events(journal, "b")
    if rig is failing or writes:
        async with tables.recorder(journal):
            pass
        assert await tables.events() == ["a", "b"]
        assert all(row.closed for row in await tables.rows())


@pytest.mark.parametrize("writes", [0, 1])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_recorder_cancelled_while_it_begins_leaves_none_behind(
    tables: MemoryTables, journal: Journal[Any], writes: int, times: int
) -> None:
    """What it began is ended: its row says that it closed, and it keeps nothing."""
    gate = asyncio.Event()
    tables.rigs = [really] * writes + [hanging(gate)]
    entering = asyncio.ensure_future(tables.recorder(journal, durable=[OLD]).__aenter__())
    await until(tables.is_asked)
    for _ in range(times):
        entering.cancel()
        await asyncio.sleep(0)
        assert not entering.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await entering
    (row,) = await tables.rows()
    assert row.closed
    assert journal.start_keepers == ()
    record_events(journal, "a")
    async with tables.recorder(journal):
        pass
    assert await tables.events() == ["a"]


# -- batches


async def test_events_are_stored_in_batches(
    tables: MemoryTables, journal: Journal[Any], clock: ControlledClock
) -> None:
    """A batch goes 0.2 seconds after the first event that waits, and takes all that came by then."""
    async with tables.recorder(journal):
        begun = len(tables.batches)
        record_events(journal, "a")
        await clock.elapse(BATCH / 2)
        record_events(journal, "b")
        await clock.elapse(BATCH / 2 - timedelta(microseconds=1))
        assert await tables.events() == []
        await clock.elapse(timedelta(microseconds=1))
        assert await tables.events() == ["a", "b"]
        assert len(tables.batches) == begun + 1
        await clock.elapse(10 * BATCH)
        assert len(tables.batches) == begun + 1, "nothing happens while nothing is recorded"


async def test_many_events_are_several_batches(store: Store, journal: Journal[Any]) -> None:
    """A large backlog is written in pieces; only with the last one all is stored."""
    record_events(journal, "a", 4_500)
    async with store.recorder(journal):
        assert await store.events() == ["a"] * 4_500
        (row,) = await store.rows()
        assert row.batch == 5
        assert row.stored_ns == journal.clock.now().wall_ns


async def test_flush_stores_at_once(store: Store, journal: Journal[Any]) -> None:
    """What was recorded by then is stored when it returns, without any time having passed."""
    async with store.recorder(journal) as recorder:
        record_events(journal, "a", 3)
        await recorder.flush()
        assert await store.events() == ["a"] * 3


async def test_a_cancelled_flush_is_not_torn(tables: MemoryTables, journal: Journal[Any]) -> None:
    """What it began is done; then the cancellation goes on."""
    gate = asyncio.Event()
    async with tables.recorder(journal) as recorder:
        record_events(journal, "a")
        tables.rigs = [hanging(gate)]
        flushing = asyncio.ensure_future(recorder.flush())
        await until(tables.is_asked)
        flushing.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await flushing
        assert await tables.events() == ["a"]
    assert await tables.events() == ["a"]


async def test_flushes_at_once_store_nothing_twice(store: Store, journal: Journal[Any]) -> None:
    """They wait for each other."""
    async with store.recorder(journal) as recorder:
        for number in range(5):
            record_events(journal, f"name {number}", 20)
        await asyncio.gather(*(recorder.flush() for _ in range(5)))
        events = await store.events()
        assert (len(events), len(set(events))) == (100, 5)


@pytest.mark.parametrize("closing", [True, False])
async def test_a_flush_after_the_close_does_nothing(store: Store, journal: Journal[Any], closing: bool) -> None:
    """Nor one that waits for it: a row that says that all is stored is not written to again."""
    recorder = await store.recorder(journal).__aenter__()
    if closing:
        ending = asyncio.ensure_future(recorder.__aexit__(None, None, None))
        while not recorder._storing.locked():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        await asyncio.gather(ending, recorder.flush())
    else:
        await recorder.__aexit__(None, None, None)
    closed = await store.rows()
    record_events(journal, "a")
    await recorder.flush()
    assert await store.rows() == closed
    assert closed[0].closed
    assert await store.events() == []


# -- a store that fails


@pytest.mark.parametrize("rig", [failing, unanswered])
@pytest.mark.parametrize("failures", [1, 3])
async def test_after_a_failure_it_tries_again(
    tables: MemoryTables,
    journal: Journal[Any],
    clock: ControlledClock,
    caplog: pytest.LogCaptureFixture,
    rig: Callable[[BaseException], Any],
    failures: int,
) -> None:
    """Nothing is lost nor stored twice, also where the commit was done and its answer lost; it is logged once."""
    async with tables.recorder(journal):
        tables.rigs = [rig(BROKEN)] * failures
        record_events(journal, "a", 3)
        await clock.elapse(BATCH)
        record_events(journal, "b")
        await clock.elapse(10 * SECOND)
        assert tables.rigs == []
        assert await tables.events() == ["a"] * 3 + ["b"]
        record_events(journal, "c")
        tables.rigs = [rig(BROKEN)]
        await clock.elapse(10 * SECOND)
    assert await tables.events() == ["a"] * 3 + ["b", "c"]
    assert await tables.gaps() == []
    numbers = [batch.number for batch in tables.batches]
    assert numbers == list(range(1, len(numbers) + 1))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["recorder api-7 cannot store what it records; it goes on trying"] * 2


@pytest.mark.parametrize("rig", [failing, unanswered])
async def test_a_flush_that_fails_loses_nothing(
    tables: MemoryTables, journal: Journal[Any], rig: Callable[[BaseException], Any]
) -> None:
    """It raises what the store raised; the next one stores it all."""
    async with tables.recorder(journal) as recorder:
        record_events(journal, "a", 4_500)
        tables.rigs = [really, rig(BROKEN)]
        with pytest.raises(OSError, match="broken"):
            await recorder.flush()
        record_events(journal, "b")
        await recorder.flush()
        assert await tables.events() == ["a"] * 4_500 + ["b"]


async def test_a_close_that_fails(tables: MemoryTables, journal: Journal[Any]) -> None:
    """It raises what the store raised; the recorder is gone, and its row says that it has not closed."""
    recorder = tables.recorder(journal)
    await recorder.__aenter__()
    record_events(journal, "a")
    tables.rigs = [failing(BROKEN)]
    with pytest.raises(OSError, match="broken"):
        await recorder.__aexit__(None, None, None)
    (row,) = await tables.rows()
    assert not row.closed
    assert not recorder.is_running
    async with tables.recorder(journal):
        pass
    assert await tables.events() == ["a"]


async def test_a_call_that_ends_while_it_closes(tables: MemoryTables, journal: Journal[Any]) -> None:
    """First goes what a failure has left, however long that takes; what happens meanwhile is stored, too."""
    gate = asyncio.Event()
    recorder = await tables.recorder(journal, durable=[OLD]).__aenter__()
    record_events(journal, "a")
    tables.rigs = [failing(BROKEN), hanging(gate)]
    with pytest.raises(OSError, match="broken"):
        await recorder.flush()
    closing = asyncio.ensure_future(recorder.__aexit__(None, None, None))
    await until(tables.is_asked)
    with recorded(journal, "began and ended"):
        record_events(journal, "b")
    gate.set()
    await closing
    assert await tables.events() == ["a", "b", "began and ended"]
    assert (await tables.rows())[0].closed


@pytest.mark.parametrize("fails", [False, True])
async def test_nobody_takes_over_from_one_that_is_closing(
    tables: MemoryTables, journal: Journal[Any], fails: bool
) -> None:
    """What is on its way would be stored twice; once it has closed, in whatever way, the next one may come."""
    gate = asyncio.Event()
    recorder = await tables.recorder(journal).__aenter__()
    record_events(journal, "a")

    async def store(write: Callable[[], Any]) -> None:
        write()
        await gate.wait()
        if fails:
            raise BROKEN

    tables.rigs = [store]
    closing = asyncio.ensure_future(recorder.__aexit__(None, None, None))
    await until(tables.is_asked)
    with pytest.raises(RuntimeError, match="has a recorder in this store already"):
        await tables.recorder(journal, name="next").__aenter__()
    gate.set()
    await asyncio.wait([closing])
    assert isinstance(closing.exception(), OSError) is fails
    async with tables.recorder(journal, name="next"):
        pass
    assert await tables.events() == ["a"]
    assert [row.closed for row in await tables.rows()] == [True, True], "what failed was sent by the next one"


async def test_a_cancelled_close_closes(tables: MemoryTables, journal: Journal[Any]) -> None:
    """The cancellation waits for the end."""
    gate = asyncio.Event()
    recorder = tables.recorder(journal)
    await recorder.__aenter__()
    record_events(journal, "a")
    tables.rigs = [hanging(gate)]
    closing = asyncio.ensure_future(recorder.__aexit__(None, None, None))
    await until(tables.is_asked)
    closing.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    (row,) = await tables.rows()
    assert row.closed
    assert await tables.events() == ["a"]


async def test_closing_while_a_batch_is_under_way(
    tables: MemoryTables, journal: Journal[Any], clock: ControlledClock
) -> None:
    """The batch is stored to its end, and what came after it, too."""
    gate = asyncio.Event()
    recorder = tables.recorder(journal)
    await recorder.__aenter__()
    record_events(journal, "a")
    tables.rigs = [hanging(gate)]
    await clock.elapse(BATCH)
    assert tables.rigs == []
    record_events(journal, "b")
    closing = asyncio.ensure_future(recorder.__aexit__(None, None, None))
    await asyncio.sleep(0)
    gate.set()
    await closing
    assert await tables.events() == ["a", "b"]


async def test_what_comes_beyond_the_bound_is_a_gap_until_it_has_caught_up(
    tables: MemoryTables, journal: Journal[Any], clock: ControlledClock
) -> None:
    """A store that fails for long makes a gap from the last time that all was stored until all is again."""
    async with tables.recorder(journal, max_pending=3) as recorder:
        clock.advance_by(SECOND)
        await recorder.flush()
        since_ns = clock.now().wall_ns
        tables.rigs = [failing(BROKEN)] * 2
        record_events(journal, "a", 5)
        await clock.elapse(BATCH)
        assert await tables.events() == []
        await clock.elapse(10 * SECOND)
        assert await tables.events() == ["a"] * 3
        (gap,) = await tables.gaps()
        assert (gap.since_ns, gap.kind) == (since_ns, "lost")
        assert "more was recorded than could be stored" in gap.reason
        assert since_ns < gap.until_ns <= clock.now().wall_ns
        record_events(journal, "b", 3)
        await clock.elapse(SECOND)
        assert (await tables.events(), len(await tables.gaps())) == (["a"] * 3 + ["b"] * 3, 1)


async def test_it_has_patience_with_a_store_that_is_away(
    tables: MemoryTables, journal: Journal[Any], clock: ControlledClock
) -> None:
    """It tries again after one second, then after twice as long each time, up to eight; then as usual."""
    began = clock.now()
    tried: list[int] = []

    async def noted(write: Callable[[], Any]) -> Any:
        tried.append(round(clock.now().ns_since(began) / 10**9))
        raise BROKEN

    async with tables.recorder(journal, lease=timedelta(hours=1)) as recorder:
        tables.rigs = [noted] * 6
        record_events(journal, "a")
        await clock.elapse(timedelta(minutes=1))
        assert tried == [0, 1, 4, 8, 16, 24]
        assert await tables.events() == ["a"]
        assert recorder._patience == 1


async def test_a_backlog_is_not_bounded(store: Store, journal: Journal[Any]) -> None:
    """What was recorded before the recorder began is stored, however much; the bound is for a store that lags."""
    record_events(journal, "a", 5)
    async with store.recorder(journal, max_pending=2):
        pass
    assert (await store.events(), await store.gaps()) == (["a"] * 5, [])


async def test_what_was_lost_before_the_pledge_was_stored(store: Store, clock: ControlledClock) -> None:
    """A durable name does not cover it, so it is a gap of a kind of its own; what is lost later is not."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=2, overflow="error", emit=lambda notice: None)

    def lose() -> None:
        clock.advance_by(SECOND)
        with pytest.raises(JournalOverflowError):
            record_events(journal, OLD, 3)

    lose()
    async with store.recorder(journal, durable=[OLD]) as recorder:
        assert [gap.kind for gap in await store.gaps()] == ["early"]
        lose()
        await recorder.flush()
    assert [gap.kind for gap in await store.gaps()] == ["early", "lost"]


async def test_what_is_lost_while_the_pledge_is_stored(tables: MemoryTables, clock: ControlledClock) -> None:
    """Until the store has the pledge, nothing is covered by it."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    gate = asyncio.Event()
    tables.rigs = [hanging(gate)]
    entering = asyncio.ensure_future(tables.recorder(journal, durable=[OLD]).__aenter__())
    await until(tables.is_asked)
    with pytest.raises(JournalOverflowError):
        record_events(journal, OLD, 2)
    gate.set()
    recorder = await entering
    assert [gap.kind for gap in await tables.gaps()] == ["early"]
    await recorder.__aexit__(None, None, None)


@pytest.mark.parametrize("odd", [{"name": ["a"]}, {"source": ["a"]}, {"invocation_id": {"a": 1}}], ids=str)
async def test_odd_events_and_calls_poison_nothing(
    store: Store, journal: Journal[Any], clock: ControlledClock, odd: dict[str, Any]
) -> None:
    """Foreign code may put anything into an event; it is a gap, and the recorder goes on."""
    fields: dict[str, Any] = {"name": "a", "source": "test"} | odd
    async with store.recorder(journal) as recorder:
        journal.append(HandlerEvent(outcome="success", completed_at=clock.now(), **fields))
        journal.begin(InFlightCall(started_at=clock.now(), **fields))
        record_events(journal, "fine")
        await recorder.flush()
        assert await store.events() == ["fine"]
    assert [gap.reason for gap in await store.gaps()] == ["an entry of the journal was no proper HandlerEvent"]
    assert await store.starts() == {}


async def test_a_refused_append_is_a_gap(store: Store, clock: ControlledClock) -> None:
    """What the journal did not take nobody can store."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    async with store.recorder(journal):
        record_events(journal, "a")
        with pytest.raises(JournalOverflowError):
            record_events(journal, "a")
        clock.advance_by(SECOND)
    (gap,) = await store.gaps()
    assert gap.reason == "the journal refused an append"


async def test_what_no_store_takes_holds_up_nothing(
    store: Store, journal: Journal[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Events that cannot be written are a gap; what is beside them is stored, once."""

    class Unreadable:
        def __repr__(self) -> str:
            raise OSError

    async with store.recorder(journal) as recorder:
        for key in ("\x00", Unreadable(), 7):
            record_events(journal, "odd", observed={key: Unreadable()})  # type: ignore[dict-item]
        record_events(journal, "\ud800")
        record_events(journal, "huge", observed={"number": 10**5_000, "text": "x" * 20_000})
        record_events(journal, "fine")
        await recorder.flush()
    assert await store.events() == ["odd", "odd", "huge", "fine"]
    assert [gap.reason for gap in await store.gaps()] == ["an event could not be written"]
    assert len(caplog.records) == 2


# -- its lease, and the questions of others


@pytest.mark.usefixtures("impatient")
async def test_the_lease_is_renewed_in_time(store: Store, journal: Journal[Any], clock: ControlledClock) -> None:
    """Once a third of it is over it is renewed, and not before."""
    async with store.recorder(journal):
        (row,) = await store.rows()
        clock.advance_by(LEASE / 3)

        async def renewed() -> bool:
            (now,) = await store.rows()
            return now.ended_ns == row.ended_ns + 10 * 10**9

        await until(renewed)
        (now,) = await store.rows()
        assert now.batch == row.batch + 1


@pytest.mark.usefixtures("impatient")
async def test_requests_are_answered(store: Store, journal: Journal[Any]) -> None:
    """Who asks learns that all is stored by then, at once and without waiting for the next batch."""
    async with store.recorder(journal):
        record_events(journal, "a")
        request = await store.ask()

        async def answered() -> bool:
            (row,) = await store.rows()
            return row.answered == request

        await until(answered)
        assert await store.events() == ["a"]


@pytest.mark.usefixtures("impatient")
async def test_requests_that_cannot_be_read_are_left_for_later(
    tables: MemoryTables, journal: Journal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer for a while ends neither the recorder nor its lease."""
    asked = asyncio.Event()

    async def look() -> tuple[int, Moment]:
        asked.set()
        raise BROKEN

    async with tables.recorder(journal) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(tables, "look", look)
            await asked.wait()
            await asyncio.sleep(0)
            assert recorder.is_running
        number = await tables.ask()

        async def answered() -> bool:
            return (await tables.rows())[0].answered == number

        await until(answered)


@pytest.mark.parametrize("forward", [True, False])
async def test_a_clock_that_is_set(store: Store, journal: Journal[Any], clock: ControlledClock, forward: bool) -> None:
    """Set forward it is a gap that spares no name, told once; set back it is none."""
    async with store.recorder(journal) as recorder:
        clock.advance_by(SECOND)
        clock.jump_wall_time(clock.now().wall + (1 if forward else -1) * timedelta(hours=1))
        await recorder.flush()
        await recorder.flush()
        gaps = await store.gaps()
        assert [gap.kind for gap in gaps] == (["clock"] if forward else [])
        if forward:
            assert gaps[0].until_ns - gaps[0].since_ns == 3_601 * 10**9


@pytest.mark.usefixtures("impatient")
async def test_a_clock_that_is_set_forward_is_told_at_once(
    store: Store, journal: Journal[Any], clock: ControlledClock
) -> None:
    """Others take it for dead by their clocks until it does."""
    async with store.recorder(journal):
        (row,) = await store.rows()
        clock.jump_wall_time(clock.now().wall + timedelta(hours=1))

        async def told() -> bool:
            return [gap.kind for gap in await store.gaps()] == ["clock"]

        await until(told)
        (now,) = await store.rows()
        assert now.ended_ns == row.ended_ns + 3_600 * 10**9


async def test_calls_in_flight(tables: MemoryTables, journal: Journal[Any], clock: ControlledClock) -> None:
    """Who asks for them has first stored what the store does not know; without news nothing is written."""
    async with tables.recorder(journal) as recorder:
        with recorded(journal, "quote.read"):
            (call,) = await recorder.calls_in_flight()
            assert call.name == "quote.read"
            assert await tables.declared() == {"quote.read": False}
            written = len(tables.batches)
            await recorder.calls_in_flight()
            assert len(tables.batches) == written
        assert list(await recorder.calls_in_flight()) == []
        assert await tables.events() == ["quote.read"]
        tables.rigs = [failing(BROKEN)]
        record_events(journal, "a")
        with pytest.raises(OSError, match="broken"):
            await recorder.calls_in_flight()


# -- durable names


async def test_a_durable_start_is_stored_before_the_body(store: Store, journal: Journal[Any]) -> None:
    """It is there when the body runs, in an async and in a plain function; the stored event takes it away."""
    seen: list[dict[str, str]] = []

    @recorded(journal, OLD)
    async def read() -> None:
        seen.append(dict(await store.starts()))

    async with store.recorder(journal, durable=[OLD]) as recorder:
        assert (await store.declared())[OLD] is True
        await read()
        await asyncio.to_thread(recorded(journal, OLD)(lambda: None))
        ended = [entry.data.invocation_id for entry in journal]
        assert seen == [{ended[0]: OLD}]
        assert await store.starts() == dict.fromkeys(ended, OLD)
        await recorder.flush()
        assert await store.starts() == {}
    assert await store.events() == [OLD] * 2
    assert (await store.declared())[OLD] is True


async def test_only_durable_names_are_wanted(tables: MemoryTables, journal: Journal[Any]) -> None:
    """The rest costs nothing; and when the recorder is gone nobody keeps anything."""
    call = InFlightCall(OLD, journal.clock.now())
    async with tables.recorder(journal, durable=[OLD]) as recorder:
        assert recorder.wants(call)
        assert not recorder.wants(InFlightCall("other", call.started_at))
        assert not recorder.wants("no call")
        assert journal.start_keepers == (recorder,)
    assert journal.start_keepers == ()


async def test_a_durable_call_whose_start_cannot_be_stored_does_not_run(
    tables: MemoryTables, journal: Journal[Any]
) -> None:
    """It raises what the store raised, and leaves the event of a failure."""

    @recorded(journal, OLD)
    async def read() -> None:
        pytest.fail("the body ran")

    async with tables.recorder(journal, durable=[OLD]):
        tables.rigs = [failing(BROKEN)]
        with pytest.raises(OSError, match="broken"):
            await read()
        assert not journal.in_flight
    assert await tables.events() == [OLD]
    assert (await tables.declared())[OLD] is True


async def test_calls_that_run_when_it_begins_are_taken_over(store: Store, journal: Journal[Any]) -> None:
    """A call that began before the recorder is known as one in flight, and breaks no pledge when it ends."""
    with recorded(journal, OLD):
        recorder = store.recorder(journal, durable=[OLD])
        await recorder.__aenter__()
        (name,) = (await store.starts()).values()
        assert name == OLD
    await recorder.flush()
    assert await store.starts() == {}
    assert (await store.declared())[OLD] is True
    await recorder.__aexit__(None, None, None)


async def test_calls_that_begin_while_it_begins_run(tables: MemoryTables, journal: Journal[Any]) -> None:
    """A durable call that comes while the recorder's row is being made neither fails nor breaks the pledge."""
    gate = asyncio.Event()
    tables.rigs = [hanging(gate)]
    recorder = tables.recorder(journal, durable=[OLD])
    entering = asyncio.ensure_future(recorder.__aenter__())
    await until(tables.is_asked)
    with recorded(journal, OLD):
        pass
    with recorded(journal, OLD):
        gate.set()
        await entering
        assert list((await tables.starts()).values()) == [OLD]
    await recorder.flush()
    assert (await tables.events(), await tables.starts()) == ([OLD] * 2, {})
    assert (await tables.declared())[OLD] is True
    await recorder.__aexit__(None, None, None)


async def test_a_call_in_flight_at_the_close_stays_known(store: Store, journal: Journal[Any]) -> None:
    """What ends after the recorder has closed nobody stored, so its start remains."""
    with recorded(journal, "quote.read"):
        async with store.recorder(journal):
            pass
    assert list((await store.starts()).values()) == ["quote.read"]


async def test_audit_only(store: Store, journal: Journal[Any], caplog: pytest.LogCaptureFixture) -> None:
    """A process that said it runs no handlers, and does, is believed no more."""
    async with store.recorder(journal, audit_only=True) as recorder:
        assert (await store.rows())[0].audit_only
        with caplog.at_level(logging.WARNING):
            record_events(journal, "a")
            await recorder.flush()
        assert not (await store.rows())[0].audit_only
        assert "it is so no more" in caplog.text


async def test_audit_only_ends_with_a_loss(store: Store, clock: ControlledClock) -> None:
    """What was lost may have been a handler's."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    async with store.recorder(journal, audit_only=True) as recorder:
        journal.append(HandlerEvent("migration.quotes.advance", "success", clock.now(), source="migration"))
        await recorder.flush()
        assert (await store.rows())[0].audit_only
        with pytest.raises(JournalOverflowError):
            record_events(journal, OLD)
        await recorder.flush()
        assert not (await store.rows())[0].audit_only


# -- other threads


async def test_threads_record_while_it_stores(store: Store, journal: Journal[Any]) -> None:
    """Whatever is recorded in whichever thread, up to the very close, is stored once or not ours any more."""
    threads, each = 6, 150
    barrier = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        barrier.wait(30)
        for turn in range(each):
            with recorded(journal, f"{number}.{turn}"):
                pass

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    async with store.recorder(journal) as recorder:
        for worker in workers:
            worker.start()
        await asyncio.to_thread(barrier.wait, 30)
        while any(worker.is_alive() for worker in workers) and len(journal) < threads * each // 2:
            await recorder.flush()
            await asyncio.sleep(0)
    first = list(await store.events())
    for worker in workers:
        worker.join(30)
    async with store.recorder(journal):
        pass
    events = await store.events()
    assert events[: len(first)] == first
    assert sorted(events) == sorted(f"{number}.{turn}" for number in range(threads) for turn in range(each))
    assert await store.gaps() == []
    assert await store.starts() == {} or set((await store.starts()).values()) <= set(events[len(first) :])


RIGS = {"fail": failing(BROKEN), "unanswered": unanswered(BROKEN), "do": really}
STEPS = st.sampled_from(["record", "record", "flush", BATCH / 2, BATCH, 2 * SECOND, *RIGS])


@given(st.lists(STEPS, max_size=20))
def test_whatever_the_store_does_each_event_is_stored_once(steps: list[str | timedelta]) -> None:
    """Over failures before and after the commit, flushes and time: no event lost, none twice, and in order."""

    async def run() -> None:
        clock = create_controlled_clock()
        journal: Journal[Any] = Journal(clock=clock)
        tables = MemoryTables()
        async with tables.recorder(journal) as recorder:
            number = 0
            for step in steps:
                if isinstance(step, timedelta):
                    await clock.elapse(step)
                elif step == "record":
                    record_events(journal, str(number))
                    number += 1
                elif step in RIGS:
                    tables.rigs.append(RIGS[step])
                else:
                    try:
                        await recorder.flush()
                    except OSError:
                        assert await tables.events() == [str(n) for n in range(len(await tables.events()))]
                    else:
                        assert await tables.events() == [str(n) for n in range(number)]
            tables.rigs.clear()
        assert await tables.events() == [str(n) for n in range(number)]
        assert await tables.gaps() == []
        assert (await tables.rows())[0].closed

    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(run())
    finally:
        logging.disable(logging.NOTSET)


def test_events_after_its_loop_has_gone_break_nothing(tables: MemoryTables, journal: Journal[Any]) -> None:
    """Where the loop was closed without the recorder, recording goes on, and nobody stores any more."""
    recorder: Recorder | None = None

    async def leave() -> None:
        nonlocal recorder
        recorder = await tables.recorder(journal).__aenter__()

    asyncio.run(leave())
    record_events(journal, "a", 2)
    assert recorder is not None
    assert recorder.is_stranded
    assert running_recorders_of(tables) == []
    assert len(journal) == 2


def running_recorders_of(*tables: MemoryTables) -> list[Recorder]:
    """Those on a loop of their own."""

    async def ask() -> list[Recorder]:
        return [recorder for each in tables for recorder in running_recorders(each.key)]

    return asyncio.run(ask())
