"""Cancellation at every await of what reads and writes a database: nothing is torn, and nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
import types
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from phyxius.adapters import _journal_store, _recorder
from phyxius.adapters._ledger import Batch
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._stores import SqlStores
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.adapters.sqlite import open_file_stores
from phyxius.clock import ControlledClock, create_controlled_clock, run_in_thread
from phyxius.clock import _limits as limits_module
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import JournalQuery
from phyxius.testing import record_events
from tests.places import FILE, SERVERS, FilePlace, place_of

DAY = timedelta(days=1)


@attrs.define
class Lab:
    """A database, a recorder of this process with something to store, and one of another that does not answer."""

    place: Any
    clock: ControlledClock
    stores: SqlStores
    journal: Journal[Any]
    recorder: Recorder

    async def query(self) -> None:
        record_events(self.journal, "seen")
        await self.stores.journal_store.query(JournalQuery("seen", where=lambda event: True), DAY)

    async def prune(self) -> None:
        await self.stores.journal_store.prune(older_than=DAY / 2)

    async def flush(self) -> None:
        await self.recorder.flush()

    async def calls_in_flight(self) -> None:
        await self.recorder.calls_in_flight()

    async def enter(self) -> None:
        other = self.stores.recorder(Journal(clock=self.clock), name="second", durable=["kept"])
        await other.__aenter__()
        await other.__aexit__(None, None, None)

    async def exit(self) -> None:
        await self.recorder.__aexit__(None, None, None)

    async def call(self) -> None:
        @recorded(self.journal, "kept")
        async def body() -> None:
            ran.append(True)

        ran: list[bool] = []
        await body()
        assert ran

    def rows(self, sql: str) -> list[Any]:
        found: list[Any] = self.place.rows(sql)
        return found


@pytest.fixture(params=[FILE, *SERVERS])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Lab]]]:
    numbers = itertools.count()

    async def new() -> Lab:
        clock = create_controlled_clock()
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        async with place_of(request.param, directory) as place:
            stores = await place.stores(clock).__aenter__()
        journal = Journal[Any](clock=clock)
        recorder = await stores.recorder(journal, name="here", durable=["kept"]).__aenter__()
        tables = SqlRecorderTables(stores._database)
        record_events(journal, "old", 3)
        await recorder.flush()
        clock.advance_by(DAY)
        await tables.create("there", False, 0, Batch(1, (), ended_ns=clock.now().shifted(DAY).wall_ns))
        record_events(journal, "seen", 3)
        return Lab(place, clock, stores, journal, recorder)

    yield new
    assert not any(left for ref in _recorder._running if (left := ref()) and not left.is_stranded)


@types.coroutine
def counted(work: Coroutine[Any, Any, Any], suspended: Callable[[], object]) -> Generator[Any, Any, Any]:
    """Await a coroutine, and tell of each time that it suspends."""
    step = work.__await__()
    error: BaseException | None = None
    while True:
        try:
            waiting = next(step) if error is None else step.throw(error)
        except StopIteration as end:
            return end.value
        error = None
        suspended()
        try:
            yield waiting
        except BaseException as raised:  # noqa: BLE001 - it is passed on
            error = raised


async def cancelled_at(work: Coroutine[Any, Any, Any], moment: int, turns: int) -> bool:
    """Cancel work at its n-th suspension, so many turns of the loop after that; False if it has fewer."""
    reached: list[int] = []

    def suspended() -> None:
        reached.append(1)
        if len(reached) == moment:
            cancel(turns)

    def cancel(left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(cancel, left - 1)
        else:
            task.cancel()

    async def run() -> None:
        await counted(work, suspended)

    task = asyncio.ensure_future(run())
    with suppress(asyncio.CancelledError):
        await task
    return len(reached) >= moment


OPERATIONS = ["query", "prune", "flush", "calls_in_flight", "enter", "exit", "call"]


@pytest.mark.parametrize("turns", [0, 1, 3, *(pytest.param(turns, marks=pytest.mark.prove) for turns in (2, 5, 8, 13))])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_at_every_await(
    make: Callable[[], Awaitable[Lab]], monkeypatch: pytest.MonkeyPatch, operation: str, turns: int
) -> None:
    """The database is free, no event is lost or stored twice, no thread, task or call stays, and all works on."""
    monkeypatch.setattr(_journal_store, "_POLLS", 2)
    monkeypatch.setattr(_journal_store, "_POLL_SECONDS", 0.001)
    threads_before = set(threading.enumerate())
    tasks_before = asyncio.all_tasks()
    moments = 0
    for moment in itertools.count(1):
        lab = await make()
        reached = await cancelled_at(getattr(lab, operation)(), moment, turns)
        # nobody holds a lock for longer than it takes to let it go
        await run_in_thread(lab.place.settle)
        # what was asked for once more is done, and the end is clean
        if operation != "exit":
            await getattr(lab, operation)()
        assert not lab.journal.in_flight
        await lab.recorder.__aexit__(None, None, None)
        await lab.stores.__aexit__(None, None, None)
        assert lab.rows("SELECT closed, count(*) FROM recorders WHERE name <> 'there' GROUP BY 1") in (
            [(1, 1)],
            [(1, 2)],
            [(1, 3)],
        )
        recorded_here = Counter(entry.data.name for entry in lab.journal)
        stored = Counter(dict(lab.rows("SELECT name, count(*) FROM events GROUP BY 1")))
        if operation == "prune":
            recorded_here["old"] = 0
        assert stored == +recorded_here
        assert lab.rows("SELECT * FROM starts") == []
        assert lab.rows("SELECT * FROM gaps") == []
        moments = moment
        if not reached:
            break
    assert moments > 1  # it was cancelled at least once
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks_before
    assert not limits_module._unfinished
    for thread in set(threading.enumerate()) - threads_before:
        thread.join(60)  # one that has delivered its answer may not have ended yet
        assert not thread.is_alive()


@pytest.mark.parametrize("operation", ["query", "prune", "flush", "enter", "exit", "call"])
def test_a_program_that_ends(tmp_path: Path, operation: str) -> None:
    """Where a loop is shut down in the middle, the file holds whole batches, and is free for others at once."""
    for turns in range(12):
        path = tmp_path / f"{turns}.db"

        async def main(path: Path = path, turns: int = turns) -> None:
            clock = create_controlled_clock()
            stores = await open_file_stores(path, clock=clock).__aenter__()
            journal = Journal[Any](clock=clock)
            recorder = await stores.recorder(journal, name="here", durable=["kept"]).__aenter__()
            record_events(journal, "seen", 3)
            lab = Lab(FilePlace(path), clock, stores, journal, recorder)
            running = asyncio.ensure_future(getattr(lab, operation)())
            for _ in range(turns):
                await asyncio.sleep(0)
            del running

        asyncio.run(main())
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            ((events,),) = connection.execute("SELECT count(*) FROM events WHERE name = 'seen'").fetchall()
            assert events in {0, 3, 4}
            starts = connection.execute("SELECT name FROM starts").fetchall()
            assert starts in ([], [("kept",)])
    _recorder._running.clear()  # what the programs left behind
