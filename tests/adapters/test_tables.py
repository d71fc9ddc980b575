"""The tables that recorders write to."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from phyxius.adapters._inbox import Receipt
from phyxius.adapters._ledger import Batch, NewGap
from phyxius.adapters._records import CallRow, EventRow
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.adapters.sqlite import FileStoreError, FileStores, open_file_stores
from phyxius.clock import ControlledClock
from phyxius.handler import InFlightCall
from phyxius.testing import make_event


@pytest.fixture
async def stores(clock: ControlledClock, tmp_path: Path) -> AsyncIterator[FileStores]:
    async with open_file_stores(
        tmp_path / "journal.db", clock=clock, lock_timeout=timedelta(milliseconds=50)
    ) as stores:
        yield stores


@pytest.fixture
def tables(stores: FileStores) -> SqlRecorderTables:
    return SqlRecorderTables(stores._database)


def rows_of(stores: FileStores, sql: str) -> list[Any]:
    with closing(sqlite3.connect(stores.path)) as connection:
        return connection.execute(sql).fetchall()


def change(stores: FileStores, sql: str) -> None:
    with closing(sqlite3.connect(stores.path)) as connection, connection:
        connection.execute(sql)


async def until(holds: Callable[[], bool]) -> None:
    """Let others run until something holds."""
    for _ in iter(holds, True):
        await asyncio.sleep(0)


@asynccontextmanager
async def held(stores: FileStores) -> AsyncIterator[list[str]]:
    """Hold up whoever else wants to write; gives the statements that run from here on."""
    ran: list[str] = []
    entered, goes_on = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        connection.raw.set_trace_callback(ran.append)
        entered.set()
        goes_on.wait()

    holding = asyncio.ensure_future(stores._database.write(hold))
    await until(entered.is_set)
    yield ran
    goes_on.set()
    await holding


def batch(number: int, **fields: Any) -> Batch:
    return Batch(**{"number": number, "events": (), "ended_ns": 1_000, **fields})


def event_row(clock: ControlledClock, name: str = "a") -> EventRow:
    return EventRow.of(make_event(name, clock=clock))


def call_row(clock: ControlledClock, name: str = "a") -> CallRow:
    return CallRow.of(InFlightCall(name, clock.now(), invocation_id="i"))


FULL = "SELECT name, audit_only, started_ns, stored_ns, ended_ns, closed, answered, batch FROM recorders"


async def test_a_recorder_is_made_with_its_first_batch(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
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
    assert rows_of(stores, FULL) == [("api-1", 0, 5, 7, 1_000, 0, 3, 1)]
    for table, count in (("events", 1), ("starts", 1), ("declarations", 2), ("gaps", 1)):
        assert rows_of(stores, f"SELECT recorder FROM {table}") == [(recorder,)] * count
    change(stores, "CREATE TRIGGER no BEFORE INSERT ON gaps BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(FileStoreError):
        await tables.create("api-2", False, 5, first)
    assert [row[0] for row in rows_of(stores, FULL)] == ["api-1"]


async def test_a_batch_that_says_nothing_changes_the_lease_alone(stores: FileStores, tables: SqlRecorderTables) -> None:
    """What it leaves out stays as it was: more is to come before that is true."""
    recorder = await tables.create("api-1", True, 5, batch(1, stored_ns=7, answered=3))
    await tables.store(recorder, batch(2, ended_ns=2_000))
    assert rows_of(stores, FULL) == [("api-1", 1, 5, 7, 2_000, 0, 3, 2)]
    await tables.store(recorder, batch(3, ended_ns=9, closed=True, audit_only=False, stored_ns=9, answered=4))
    assert rows_of(stores, FULL) == [("api-1", 0, 5, 9, 9, 1, 4, 3)]


async def test_a_batch_is_stored_once(stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock) -> None:
    """Sent again because nobody knew what became of it, it changes nothing."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    again = batch(2, events=[event_row(clock)], gaps=[NewGap(1, 2, "clock", "set")])
    for each in (again, again, batch(3), again):
        await tables.store(recorder, each)
    assert rows_of(stores, "SELECT count(*) FROM events UNION ALL SELECT count(*) FROM gaps") == [(1,), (1,)]


async def test_calls_that_end_are_forgotten(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Whoever has kept them: their keys are unique; and a start that is stored twice is there once."""
    first = await tables.create("api-1", False, 5, batch(1, started=[("k", call_row(clock)), ("l", call_row(clock))]))
    await tables.create("api-2", False, 5, batch(1, started=[("k", call_row(clock))]))
    await tables.keep(first, "k", call_row(clock))
    assert len(rows_of(stores, "SELECT * FROM starts")) == 3
    await tables.store(first, batch(2, ended=["k", "unknown"]))
    assert rows_of(stores, "SELECT recorder, call_id FROM starts") == [(first, "l")]


async def test_a_name_can_stop_being_durable(stores: FileStores, tables: SqlRecorderTables) -> None:
    """The last word counts."""
    recorder = await tables.create("api-1", False, 5, batch(1, declared={"a": True, "b": True}))
    await tables.store(recorder, batch(2, declared={"a": False, "c": True}))
    assert rows_of(stores, "SELECT name, durable FROM declarations ORDER BY name") == [("a", 0), ("b", 1), ("c", 1)]


async def test_a_call_is_the_last_recorders_that_stores_its_start(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """A journal may have had one before, which knew of the same call: it would count twice."""
    one, two = [await tables.create(name, False, 5, batch(1)) for name in ("one", "two")]
    await tables.keep(one, "k", call_row(clock))
    await tables.keep(one, "l", call_row(clock))
    await tables.store(two, batch(2, started=[("k", call_row(clock))]))
    assert rows_of(stores, "SELECT recorder, call_id FROM starts ORDER BY call_id") == [(two, "k"), (one, "l")]


async def test_what_a_file_knows(stores: FileStores, tables: SqlRecorderTables) -> None:
    """Whether it knows what it gave a receipt for: so many batches, of a recorder that may have been pruned since."""
    one, two = [await tables.create(name, False, 5, batch(2)) for name in ("one", "two")]
    receipt = Receipt(one, 5, 2, 1_000)
    assert await tables.has(receipt)
    for other in ({"batch": 3}, {"began_ns": 6}, {"recorder": two + 1}):
        assert not await tables.has(attrs.evolve(receipt, **other)), other
    change(stores, "DELETE FROM recorders WHERE name = 'one'")
    assert not await tables.has(receipt), "it is gone, and nothing was pruned"
    change(stores, "UPDATE journal SET covered_since_ns = 1000")
    assert not await tables.has(receipt)
    change(stores, "UPDATE journal SET covered_since_ns = 1001")
    assert await tables.has(receipt)
    assert not await tables.has(attrs.evolve(receipt, recorder=two + 1)), "an older copy does not know it yet"


async def test_a_recorder_whose_row_is_gone(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """It is told so, whatever it wants to store: nobody would see it."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    change(stores, "DELETE FROM recorders")
    with pytest.raises(FileStoreError, match="restart it"):
        await tables.store(recorder, batch(2, events=[event_row(clock)]))
    with pytest.raises(FileStoreError, match="restart it"):
        await tables.keep(recorder, "k", call_row(clock))
    with pytest.raises(FileStoreError, match="restart it"):
        tables.keep_blocking(recorder, "k", call_row(clock))
    assert rows_of(stores, "SELECT 1 FROM events UNION ALL SELECT 1 FROM starts") == []
    assert tables._starts.take() == []


async def test_the_last_request(stores: FileStores, tables: SqlRecorderTables) -> None:
    """It says how often somebody asked the recorders to catch up."""
    request, looked = await tables.look()
    assert (request, looked.now.wall) == (0, stores.clock.now().wall)
    change(stores, "UPDATE journal SET request = 4")
    assert (await tables.look())[0] == 4


async def test_starts_at_once_share_a_transaction(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """However many calls begin while one transaction is written, the next one takes them all."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    async with held(stores) as ran:
        kept = [asyncio.ensure_future(tables.keep(recorder, f"k{number}", call_row(clock))) for number in range(50)]
        threads = [
            threading.Thread(target=tables.keep_blocking, args=(recorder, f"t{number}", call_row(clock)))
            for number in range(5)
        ]
        for thread in threads:
            thread.start()
        await until(lambda: len(tables._starts.take()) == 55)
    await asyncio.gather(*kept)
    for thread in threads:
        thread.join()
    assert len(rows_of(stores, "SELECT * FROM starts")) == 55
    assert ran.count("BEGIN IMMEDIATE") == 1
    assert tables._starts.take() == []


async def test_of_starts_at_once_only_those_of_a_recorder_that_is_gone_fail(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Those of the others are stored, and their leases go on."""
    gone, well = [await tables.create(name, False, 0, batch(1)) for name in ("gone", "well")]
    change(stores, "DELETE FROM recorders WHERE name = 'gone'")
    clock.advance_by(timedelta(seconds=1))
    async with held(stores) as ran:
        kept = [asyncio.ensure_future(tables.keep(each, f"{each}", call_row(clock))) for each in (gone, well)]
        await until(lambda: len(tables._starts.take()) == 2)
    failed, stored = await asyncio.gather(*kept, return_exceptions=True)
    assert (stored, ran.count("BEGIN IMMEDIATE")) == (None, 1)
    assert isinstance(failed, FileStoreError)
    assert rows_of(stores, "SELECT recorder FROM starts") == [(well,)]
    assert rows_of(stores, "SELECT ended_ns FROM recorders") == [(10**9,)]


async def test_a_start_moves_the_end_of_a_lease_forward_alone(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """A recorder that begins a call is alive then, even if its lease ran out."""
    recorder = await tables.create("api-1", False, 0, batch(1))
    await tables.keep(recorder, "k", call_row(clock))
    assert rows_of(stores, "SELECT ended_ns FROM recorders") == [(1_000,)]
    clock.advance_by(timedelta(seconds=1))
    await tables.keep(recorder, "l", call_row(clock))
    assert rows_of(stores, "SELECT ended_ns FROM recorders") == [(10**9,)]


async def test_a_start_that_cannot_be_stored(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Whoever wanted to call learns of it, and what comes later is not held up."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    with closing(sqlite3.connect(stores.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(FileStoreError, match="lock"):
            await tables.keep(recorder, "k", call_row(clock))
        with pytest.raises(FileStoreError, match="lock"):
            tables.keep_blocking(recorder, "k", call_row(clock))
    await tables.keep(recorder, "l", call_row(clock))
    assert rows_of(stores, "SELECT call_id FROM starts") == [("l",)]


async def test_a_start_that_nobody_waits_for_any_more(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock
) -> None:
    """Cancelled before its transaction began, it is not stored."""
    recorder = await tables.create("api-1", False, 5, batch(1))
    goes_on = threading.Event()
    holding = asyncio.ensure_future(stores._database.write(lambda _: goes_on.wait()))
    keeping = asyncio.ensure_future(tables.keep(recorder, "k", call_row(clock)))
    await until(lambda: len(tables._starts.take()) == 1)
    keeping.cancel()
    await asyncio.wait({keeping})
    goes_on.set()
    await holding
    await tables.keep(recorder, "l", call_row(clock))
    assert rows_of(stores, "SELECT call_id FROM starts") == [("l",)]


async def test_the_key_names_the_file(
    stores: FileStores, tables: SqlRecorderTables, clock: ControlledClock, tmp_path: Path
) -> None:
    """It is the same under another path, and another for another file."""
    (tmp_path / "link.db").symlink_to(stores.path)
    async with (
        open_file_stores(tmp_path / "link.db", clock=clock) as same,
        open_file_stores(tmp_path / "other.db", clock=clock) as other,
    ):
        assert SqlRecorderTables(same._database).key == tables.key
        assert SqlRecorderTables(other._database).key != tables.key


async def test_starts_that_cannot_be_stored_fail_together(tmp_path: Path, clock: ControlledClock) -> None:
    """Nobody waits for the same lock once more after somebody has waited for it in vain; later the stores work on."""
    path = tmp_path / "locked.db"
    async with open_file_stores(path, clock=clock, lock_timeout=timedelta(milliseconds=20)) as stores:
        tables = SqlRecorderTables(stores._database)
        recorder = await tables.create("api-1", False, 5, batch(1))
        tried: list[str] = []
        transaction = stores._database._transaction

        def counted(begin: str, work: Any, connection: sqlite3.Connection) -> Any:
            tried.append(begin)
            return transaction(begin, work, connection)

        stores._database._transaction = counted
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            keeping = [tables.keep(recorder, f"k{number}", call_row(clock)) for number in range(20)]
            answers = await asyncio.gather(*keeping, return_exceptions=True)
        assert {type(answer) for answer in answers} == {FileStoreError}
        assert len(tried) == 1
        await tables.keep(recorder, "later", call_row(clock))
        assert rows_of(stores, "SELECT call_id FROM starts") == [("later",)]
