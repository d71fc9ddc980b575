"""The tables that recorders write to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from phyxius.adapters import _tables
from phyxius.adapters._database import Connection
from phyxius.adapters._inbox import Receipt
from phyxius.adapters._ledger import Batch, NewGap
from phyxius.adapters._records import CallRow, EventRow
from phyxius.adapters._stores import SqlStores
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.adapters.sqlalchemy import create_schema, metadata_for, open_stores
from phyxius.adapters.sqlite import open_file_stores
from phyxius.clock import ControlledClock
from phyxius.handler import InFlightCall
from phyxius.migration import JournalQuery
from phyxius.testing import make_event
from tests.adapters.support import IN_THE_WAY, hasty, refusing
from tests.places import FILE, PREFIX, SERVERS, FilePlace, Place, place_of

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def stores(place: Place, clock: ControlledClock) -> AsyncIterator[SqlStores]:
    async with place.stores(clock) as stores:
        yield stores


@pytest.fixture
def tables(stores: SqlStores) -> SqlRecorderTables:
    return SqlRecorderTables(stores._database)


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds."""
    for _ in iter(holds, True):
        await asyncio.sleep(0)


@contextmanager
def transactions(place: Place, stores: SqlStores, step: Literal["begin", "commit"]) -> Iterator[list[str]]:
    """Those that begin, or are committed, meanwhile."""
    ran: list[str] = []
    database: Any = stores._database

    def note(connection: sa.Connection) -> None:
        ran.append(step)

    def noted(begin: str, *args: Any) -> Any:
        if step == "begin":
            ran.append(step)
        answer = transaction(begin, *args)
        if step == "commit":
            ran.append(step)
        return answer

    if place.kind == FILE:
        transaction, database._transaction = database._transaction, noted
        yield ran
        del database._transaction
    else:
        sa.event.listen(sa.Engine, step, note)
        yield ran
        sa.event.remove(sa.Engine, step, note)


class Holding:
    """Something that is written with others, and takes until it may go on."""

    def __init__(self, goes_on: threading.Event) -> None:
        self.entered = threading.Event()
        self._goes_on = goes_on

    def take(self) -> list[Any]:
        return [self]

    def write(self, items: list[Any], connection: Connection, /) -> None:
        connection.execute("SELECT request FROM {journal}").fetchall()
        self.entered.set()
        connection.aside(self._goes_on.wait)

    def written(self, items: list[Any]) -> None:
        """It is no news."""

    def failed(self, items: list[Any], error: Exception) -> None:
        raise error


@asynccontextmanager
async def held(place: Place, stores: SqlStores) -> AsyncIterator[list[Holding]]:
    """Hold up whoever else wants to write a start; gives what they wait for, a transaction each."""
    database, goes_on = stores._database, threading.Event()
    every = [Holding(goes_on)]
    holding = [asyncio.ensure_future(database.write_together(every[0]))]
    if place.kind != FILE:  # there, code that cannot await has a connection of its own
        every.append(Holding(goes_on))
        holding.append(asyncio.ensure_future(asyncio.to_thread(database.write_together_blocking, every[1])))
    await until(lambda: all(each.entered.is_set() for each in every))
    yield every
    goes_on.set()
    await asyncio.gather(*holding)


def waiting(tables: SqlRecorderTables) -> list[Any]:
    """The starts that wait to be written."""
    return [*tables._starts.take(), *tables._blocking_starts.take()]


def batch(number: int, **fields: Any) -> Batch:
    return Batch(**{"number": number, "events": (), "ended_ns": 1_000, **fields})


def event_row(clock: ControlledClock, name: str = "a") -> EventRow:
    return EventRow.of(make_event(name, clock=clock))


def call_row(clock: ControlledClock, name: str = "a") -> CallRow:
    return CallRow.of(InFlightCall(name, clock.now(), invocation_id="i"))


FULL = "SELECT name, audit_only, started_ns, stored_ns, ended_ns, closed, answered, batch FROM recorders"


async def test_a_recorder_is_made_with_its_first_batch(
    place: Place, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Its row, and all that the batch says, come in one transaction."""
    first = batch(
        1,
        events=[event_row(clock)],
        started=[("k", call_row(clock))],
        declared={"a": True, "b": False},
        gaps=[NewGap(1, 2, "lost", "full")],
        stored_ns=7,
        answered=3,
        audit_only=False,
    )
    recorder = await tables.create("api-1", True, 5, first)
    assert place.rows(FULL) == [("api-1", 0, 5, 7, 1_000, 0, 3, 1)]
    for table, count in (("events", 1), ("starts", 1), ("declarations", 2), ("gaps", 1)):
        assert place.rows(f"SELECT recorder FROM {table}") == [(recorder,)] * count
    with refusing(place, "INSERT", "gaps"), pytest.raises(place.error, match="not now"):
        await tables.create("api-2", False, 5, first)
    assert [row[0] for row in place.rows(FULL)] == ["api-1"]


async def test_a_batch_that_says_nothing_changes_the_lease_alone(place: Place, tables: SqlRecorderTables) -> None:
    """What it leaves out stays as it was: more is to come before that is true."""
    recorder = await tables.create("api-1", True, 5, batch(1, stored_ns=7, answered=3))
    await tables.store(recorder, batch(2, ended_ns=2_000))
    assert place.rows(FULL) == [("api-1", 1, 5, 7, 2_000, 0, 3, 2)]
    await tables.store(recorder, batch(3, ended_ns=9, closed=True, audit_only=False, stored_ns=9, answered=4))
    assert place.rows(FULL) == [("api-1", 0, 5, 9, 9, 1, 4, 3)]


async def test_a_batch_is_stored_once(place: Place, tables: SqlRecorderTables, clock: ControlledClock) -> None:
    """Sent again because nobody knew what became of it, it changes nothing."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    again = batch(2, events=[event_row(clock)], gaps=[NewGap(1, 2, "clock", "set")])
    for each in (again, again, batch(3), again):
        await tables.store(recorder, each)
    assert place.rows("SELECT count(*) FROM events UNION ALL SELECT count(*) FROM gaps") == [(1,), (1,)]


async def test_calls_that_end_are_forgotten(place: Place, tables: SqlRecorderTables, clock: ControlledClock) -> None:
    """Whichever recorder of their journal has kept them; and a start that is stored twice is there once."""
    started = [("k", call_row(clock)), ("l", call_row(clock))]
    first, sibling, other = [
        await tables.create(name, False, 5, batch(1, started=started)) for name in ("api-1", "api-2", "other")
    ]
    await tables.keep(first, "k", call_row(clock))
    assert len(place.rows("SELECT * FROM starts")) == 6
    await tables.store(first, batch(2, siblings=[sibling], ended=["k", "unknown"]))
    assert place.rows("SELECT recorder, call_id FROM starts ORDER BY recorder, call_id") == [
        (first, "l"),
        (sibling, "l"),
        (other, "k"),
        (other, "l"),
    ], "in another process a call may have the same id"


async def test_a_name_can_stop_being_durable(place: Place, tables: SqlRecorderTables) -> None:
    """The last word counts."""
    recorder = await tables.create("api-1", False, 5, batch(1, declared={"a": True, "b": True}))
    await tables.store(recorder, batch(2, declared={"a": False, "c": True}))
    assert place.rows("SELECT name, durable FROM declarations ORDER BY name") == [("a", 0), ("b", 1), ("c", 1)]


async def test_a_call_is_the_last_recorders_that_stores_its_start(
    place: Place, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """A journal may have had one before, which knew of the same call: it would count twice."""
    one, two = [await tables.create(name, False, 5, batch(1)) for name in ("one", "two")]
    await tables.keep(one, "k", call_row(clock))
    await tables.keep(one, "l", call_row(clock))
    await tables.store(two, batch(2, siblings=[one], started=[("k", call_row(clock))]))
    assert place.rows("SELECT recorder, call_id FROM starts ORDER BY call_id") == [(two, "k"), (one, "l")]


async def test_what_a_store_knows(place: Place, tables: SqlRecorderTables) -> None:
    """Whether it knows what it gave a receipt for: so many batches, of a recorder that may have been pruned since."""
    one, two = [await tables.create(name, False, 5, batch(2)) for name in ("one", "two")]
    receipt = Receipt(one, 5, 2, 1_000)
    assert await tables.has(receipt)
    for other in ({"batch": 3}, {"began_ns": 6}, {"recorder": two + 1}):
        assert not await tables.has(attrs.evolve(receipt, **other)), other
    place.change("DELETE FROM recorders WHERE name = 'one'")
    assert not await tables.has(receipt), "it is gone, and nothing was pruned"
    place.change("UPDATE journal SET covered_since_ns = 1000")
    assert not await tables.has(receipt)
    place.change("UPDATE journal SET covered_since_ns = 1001")
    assert await tables.has(receipt)
    assert not await tables.has(attrs.evolve(receipt, recorder=two + 1)), "an older copy does not know it yet"


async def test_a_recorder_whose_row_is_gone(place: Place, tables: SqlRecorderTables, clock: ControlledClock) -> None:
    """It is told so, whatever it wants to store: nobody would see it."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    place.change("DELETE FROM recorders")
    with pytest.raises(place.error, match="restart it"):
        await tables.store(recorder, batch(2, events=[event_row(clock)]))
    with pytest.raises(place.error, match="restart it"):
        await tables.keep(recorder, "k", call_row(clock))
    with pytest.raises(place.error, match="restart it"):
        tables.keep_blocking(recorder, "k", call_row(clock))
    assert place.rows("SELECT 1 FROM events UNION ALL SELECT 1 FROM starts") == []
    assert waiting(tables) == []


async def test_the_last_request(place: Place, stores: SqlStores, tables: SqlRecorderTables) -> None:
    """It says how often somebody asked the recorders to catch up."""
    request, looked = await tables.look()
    assert (request, looked.now.wall) == (0, stores.clock.now().wall)
    place.change("UPDATE journal SET request = 4")
    assert (await tables.look())[0] == 4


@pytest.mark.parametrize("plain,awaited", [(0, 50), (5, 0), (5, 50)])
async def test_starts_at_once_share_a_transaction(
    place: Place, stores: SqlStores, tables: SqlRecorderTables, clock: ControlledClock, plain: int, awaited: int
) -> None:
    """However many calls begin while one transaction is written, the next one takes them all; one for each way."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    with transactions(place, stores, "commit") as ran:
        async with held(place, stores) as ours:
            kept = [
                asyncio.ensure_future(tables.keep(recorder, f"k{number}", call_row(clock))) for number in range(awaited)
            ]
            threads = [
                threading.Thread(target=tables.keep_blocking, args=(recorder, f"t{number}", call_row(clock)))
                for number in range(plain)
            ]
            for thread in threads:
                thread.start()
            await until(lambda: len(waiting(tables)) == plain + awaited)
        await asyncio.gather(*kept)
        for thread in threads:
            thread.join()
    assert len(place.rows("SELECT * FROM starts")) == plain + awaited
    assert len(ran) - len(ours) == bool(plain) + bool(awaited)
    assert waiting(tables) == []


async def test_of_starts_at_once_only_those_of_a_recorder_that_is_gone_fail(
    place: Place, stores: SqlStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Those of the others are stored, and their leases go on."""
    gone, well = [await tables.create(name, False, 0, batch(1)) for name in ("gone", "well")]
    place.change("DELETE FROM recorders WHERE name = 'gone'")
    clock.advance_by(timedelta(seconds=1))
    with transactions(place, stores, "commit") as ran:
        async with held(place, stores) as ours:
            kept = [asyncio.ensure_future(tables.keep(each, f"{each}", call_row(clock))) for each in (gone, well)]
            await until(lambda: len(waiting(tables)) == 2)
        failed, stored = await asyncio.gather(*kept, return_exceptions=True)
    assert (stored, len(ran) - len(ours)) == (None, 1)
    assert isinstance(failed, place.error)
    assert place.rows("SELECT recorder FROM starts") == [(well,)]
    assert place.rows("SELECT ended_ns FROM recorders") == [(10**9,)]


async def test_a_start_moves_the_end_of_a_lease_forward_alone(
    place: Place, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """A recorder that begins a call is alive then, even if its lease ran out."""
    recorder = await tables.create("api-1", False, 0, batch(1))
    await tables.keep(recorder, "k", call_row(clock))
    assert place.rows("SELECT ended_ns FROM recorders") == [(1_000,)]
    clock.advance_by(timedelta(seconds=1))
    await tables.keep(recorder, "l", call_row(clock))
    assert place.rows("SELECT ended_ns FROM recorders") == [(10**9,)]


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_start_does_not_wait_for_the_batch_of_its_recorder(
    kind: str, clock: ControlledClock, tmp_path: Path
) -> None:
    """Whose event loop it may hold up; then it begins now, so that the recorder's lease does not matter."""
    async with place_of(kind, tmp_path) as place, hasty(place, clock) as stores:
        tables = SqlRecorderTables(stores._database)
        recorder = await tables.create("api-1", False, 0, batch(1))
        call = call_row(clock)
        clock.advance_by(timedelta(seconds=1))
        engine = create_async_engine(place.url)
        async with engine.connect() as storing:
            await storing.exec_driver_sql(f"UPDATE {PREFIX}recorders SET batch = 2")
            tables.keep_blocking(recorder, "k", call)
            await tables.keep(recorder, "l", call)
            await storing.rollback()
        await engine.dispose()
        assert place.rows("SELECT started_ns FROM starts") == [(10**9,)] * 2
        assert place.rows("SELECT ended_ns FROM recorders") == [(1_000,)]


async def test_a_recorder_in_place_of_one_that_did_not_learn_of_its_row(
    place: Place, tables: SqlRecorderTables
) -> None:
    """Nothing is left of that, nor is anything else touched: another's row, or that of one who went on."""
    went_on = await tables.create("api-1", False, 5, batch(1))
    await tables.store(went_on, batch(2))
    for name, began_ns in (("api-1", 5), ("api-1", 6), ("api-1", 7), ("api-2", 5)):
        await tables.create(name, False, began_ns, batch(1, declared={"a": False}))
    last = await tables.create("api-1", False, 8, batch(1), [5, 6])
    left = [("api-1", 5), ("api-1", 7), ("api-2", 5), ("api-1", 8)]
    assert place.rows("SELECT name, started_ns FROM recorders ORDER BY id") == left
    assert len(place.rows("SELECT * FROM declarations")) == 2
    assert last == place.rows("SELECT max(id) FROM recorders")[0][0]


async def test_a_start_that_cannot_be_stored(place: Place, clock: ControlledClock) -> None:
    """Whoever wanted to call learns of it, and what comes later is not held up."""
    async with hasty(place, clock) as stores:
        tables = SqlRecorderTables(stores._database)
        recorder = await tables.create("api-1", False, 5, batch(1))
        with place.locked():
            with pytest.raises(place.error, match=IN_THE_WAY):
                await tables.keep(recorder, "k", call_row(clock))
            with pytest.raises(place.error, match=IN_THE_WAY):
                tables.keep_blocking(recorder, "k", call_row(clock))
        await tables.keep(recorder, "l", call_row(clock))
        tables.keep_blocking(recorder, "m", call_row(clock))
        assert place.rows("SELECT call_id FROM starts ORDER BY call_id") == [("l",), ("m",)]


async def test_a_start_that_nobody_waits_for_any_more(
    place: Place, stores: SqlStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Cancelled before its transaction began, it is not stored."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    async with held(place, stores):
        keeping = asyncio.ensure_future(tables.keep(recorder, "k", call_row(clock)))
        await until(lambda: len(waiting(tables)) == 1)
        keeping.cancel()
        await asyncio.wait({keeping})
    await tables.keep(recorder, "l", call_row(clock))
    assert place.rows("SELECT call_id FROM starts") == [("l",)]


async def test_the_key_names_the_file(clock: ControlledClock, tmp_path: Path) -> None:
    """It is the same under another path, and another for another file."""
    async with FilePlace(tmp_path / "phyxius.db").stores(clock) as stores:
        (tmp_path / "link.db").symlink_to(tmp_path / "phyxius.db")
        async with (
            open_file_stores(tmp_path / "link.db", clock=clock) as same,
            open_file_stores(tmp_path / "other.db", clock=clock) as other,
        ):
            key = SqlRecorderTables(stores._database).key
            assert SqlRecorderTables(same._database).key == key
            assert SqlRecorderTables(other._database).key != key


@pytest.mark.parametrize("kind", SERVERS)
async def test_the_key_names_the_tables_on_a_server(kind: str, clock: ControlledClock, tmp_path: Path) -> None:
    """It is the same over another engine, and another for other tables of the same database."""
    async with place_of(kind, tmp_path) as place, place.stores(clock) as stores, place.stores(clock) as same:
        engine = create_async_engine(place.url)
        await create_schema(engine, prefix="other_")
        async with open_stores(engine, prefix="other_", clock=clock) as other:
            key = SqlRecorderTables(stores._database).key
            assert SqlRecorderTables(same._database).key == key
            assert SqlRecorderTables(other._database).key != key
        async with engine.begin() as connection:
            await connection.run_sync(metadata_for(prefix="other_").drop_all)
        await engine.dispose()


async def test_starts_that_cannot_be_stored_fail_together(
    place: Place, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the same lock once more after somebody has waited for it in vain; later the stores work on."""
    async with hasty(place, clock) as stores:
        tables = SqlRecorderTables(stores._database)
        recorder = await tables.create("api-1", False, 5, batch(1))
        take, all_there = tables._starts.take, threading.Event()

        def take_all() -> list[Any]:
            if place.kind == FILE:  # in a thread, which may be faster than who puts them there
                all_there.wait(30)
            return take()

        with transactions(place, stores, "begin") as tried, place.locked(), monkeypatch.context() as patch:
            patch.setattr(tables._starts, "take", take_all)
            keeping = [tables.keep(recorder, f"k{number}", call_row(clock)) for number in range(20)]
            answers = asyncio.gather(*keeping, return_exceptions=True)
            await asyncio.sleep(0)
            all_there.set()
            await answers
        assert {type(answer) for answer in answers.result()} == {place.error}
        assert len(tried) == 1
        await tables.keep(recorder, "later", call_row(clock))
        assert place.rows("SELECT call_id FROM starts") == [("later",)]


async def test_a_journal_row_that_is_gone(place: Place, stores: SqlStores, tables: SqlRecorderTables) -> None:
    """Without it nobody can say since when the rows are complete, nor whose they are."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    place.change("DELETE FROM journal")
    for ask in (tables.look, lambda: stores.journal_store.query(JournalQuery("migration.m.advance"), MINUTE)):
        with pytest.raises(place.error) as caught:
            await ask()
        assert caught.value.problem == "missing"
    with pytest.raises(place.error, match="gone"):
        await tables.store(recorder, batch(2))


async def test_ctrl_c_before_a_start_is_being_written(
    place: Place, stores: SqlStores, tables: SqlRecorderTables, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it never will be."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    with monkeypatch.context() as patch:
        patch.setattr(stores._database, "write_together_blocking", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            tables.keep_blocking(recorder, "k", call_row(clock))
    tables.keep_blocking(recorder, "l", call_row(clock))
    assert place.rows("SELECT call_id FROM starts") == [("l",)]


def raise_interrupt(group: object) -> None:
    raise KeyboardInterrupt


async def test_ctrl_c_waits_for_a_start_that_is_being_written(
    place: Place, stores: SqlStores, tables: SqlRecorderTables, clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end would miss it if it were told before the start is there: then the call would be in flight for ever."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    write_blocking, insert = stores._database.write_together_blocking, _tables._insert_starts
    going_on, threads = threading.Event(), list[threading.Thread]()

    def interrupted(group: Any) -> None:
        if threads:  # the second time: who waits for it
            going_on.set()
            return write_blocking(group)
        threads.append(threading.Thread(target=write_blocking, args=[group]))
        threads[0].start()
        while not all(start.begun for start in group._waiting.values()):
            pass
        raise KeyboardInterrupt

    def slow(*args: Any) -> None:
        going_on.wait()
        insert(*args)

    monkeypatch.setattr(stores._database, "write_together_blocking", interrupted)
    monkeypatch.setattr(_tables, "_insert_starts", slow)
    try:
        with pytest.raises(KeyboardInterrupt):
            tables.keep_blocking(recorder, "k", call_row(clock))
        assert place.rows("SELECT call_id FROM starts") == [("k",)]
    finally:
        going_on.set()
        threads[0].join()
