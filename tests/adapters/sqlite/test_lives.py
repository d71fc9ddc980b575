"""Recorders that come, go and end otherwise than they should, over one file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters._inbox import Inbox
from phyxius.adapters.sqlite import FileStoreError, FileStores, open_file_stores
from phyxius.clock import ControlledClock
from phyxius.handler import InFlightCall, recorded
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, JournalWindow
from tests.adapters.support import moment_of

DAY = timedelta(days=1)


@pytest.fixture
async def stores(tmp_path: Path, phyxius_clock: ControlledClock) -> AsyncIterator[FileStores]:
    async with open_file_stores(tmp_path / "m.db", clock=phyxius_clock) as stores:
        yield stores


async def asked(stores: FileStores) -> JournalWindow:
    return await stores.journal_store.query(JournalQuery("legacy"), DAY)


@pytest.mark.parametrize("durable", [(), ("legacy",)], ids=["background", "durable"])
async def test_a_call_that_ends_between_two_recorders_is_one_event(
    stores: FileStores, phyxius_clock: ControlledClock, durable: tuple[str, ...]
) -> None:
    """Its start is left behind by the first; the second stores how it ended, and lets the start go."""
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    async with stores.recorder(journal, name="first", durable=durable):
        call = recorded(journal, "legacy")
        call.__enter__()
    call.__exit__(None, None, None)
    async with stores.recorder(journal, name="second", durable=durable):
        (event,) = await asked(stores)
        assert (event.outcome, event.error) == ("success", None)


def test_stores_that_were_closed_after_their_loop(tmp_path: Path, phyxius_clock: ControlledClock) -> None:
    """A recorder that was left behind by its event loop, and then by its stores, holds up nobody who opens the file."""
    journal = Journal[Any](clock=phyxius_clock)

    @recorded(journal, "legacy")
    def legacy() -> None: ...

    def stores() -> FileStores:
        return open_file_stores(tmp_path / "m.db", clock=phyxius_clock)

    async def leave(stores: FileStores) -> None:
        await stores.__aenter__()
        await stores.recorder(journal, name="left", durable=["legacy"]).__aenter__()
        legacy()

    async def go_on() -> int:
        async with stores() as again, again.recorder(journal, name="next", durable=["legacy"]):
            legacy()
            return len(await asked(again))

    left = stores()
    asyncio.run(leave(left))
    asyncio.run(left.__aexit__(None, None, None))
    assert asyncio.run(go_on()) == 2


async def test_a_recorder_whose_tasks_were_cancelled_vouches_for_nothing(
    stores: FileStores, phyxius_clock: ControlledClock
) -> None:
    """It stores nothing any more, so its process gets no answer, whoever else records there."""
    async with stores.recorder(Journal(clock=phyxius_clock), name="cancelled") as recorder:
        for task in recorder._tasks:
            task.cancel()
        await asyncio.wait(recorder._tasks)
        async with stores.recorder(Journal(clock=phyxius_clock), name="other"):
            with pytest.raises(FileStoreError) as caught:
                await asked(stores)
    assert caught.value.problem == "not_recorded"


async def test_who_asks_from_within_a_handler_runs_handlers(stores: FileStores, phyxius_clock: ControlledClock) -> None:
    """A process that said it runs none is a witness as any other while its call is in flight."""
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    journal.declare("handler")
    async with stores.recorder(journal, name="says none", audit_only=True):
        assert (await asked(stores)).unwitnessed_by == ()
        with recorded(journal, "handler"):
            assert (await asked(stores)).unwitnessed_by == ("says none",)


async def test_a_call_that_no_database_can_name_stops_nothing(
    stores: FileStores, phyxius_clock: ControlledClock
) -> None:
    """Foreign code may put anything there: it is a loss, and what comes after it is stored."""
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    async with stores.recorder(journal, name="api") as recorder:
        end = journal.begin(InFlightCall("legacy", phyxius_clock.now(), invocation_id="\ud800"))
        await recorder.flush()
        end()
        with recorded(journal, "legacy"):
            pass
        window = await asked(stores)
    assert (len(window), [gap.reason for gap in window.gaps if gap.recorder]) == (1, ["an event could not be written"])


async def test_a_finalizer_ends_a_call_while_it_is_looked_for(phyxius_clock: ControlledClock) -> None:
    """A call that ends between two looks is seen as one or the other, in flight or as an event."""

    class Ending(Journal[Any]):
        ends: Any = None

        @property
        def in_flight(self) -> tuple[object, ...]:
            if self.ends is not None:
                self.ends.__exit__(None, None, None)
                self.ends = None
            return super().in_flight

    journal = Ending(clock=phyxius_clock)
    inbox = Inbox(journal, 10, lambda: None)
    inbox.open("file")
    call = recorded(journal, "legacy")
    call.__enter__()
    journal.ends = call
    capture = inbox.capture(moment_of(phyxius_clock))
    assert len(capture.entries) + len(capture.calls) == 1


async def test_a_step_of_the_clock_that_was_not_stored_is_not_forgotten(
    tmp_path: Path, phyxius_clock: ControlledClock
) -> None:
    """A recorder that could not note it leaves it to the next one of the same journal."""
    path = tmp_path / "locked.db"
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    async with open_file_stores(path, clock=phyxius_clock, lock_timeout=timedelta(milliseconds=20)) as stores:
        recorder = await stores.recorder(journal, name="first", durable=["legacy"]).__aenter__()
        phyxius_clock.jump_wall_time(phyxius_clock.now().wall + 14 * DAY)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(FileStoreError, match="lock"):
                await recorder.__aexit__(None, None, None)
        async with stores.recorder(journal, name="second", durable=["legacy"]):
            window = await stores.journal_store.query(JournalQuery("legacy"), 13 * DAY)
    assert ["the clock went forward by 14 days" in gap.reason for gap in window.gaps] == [True]
