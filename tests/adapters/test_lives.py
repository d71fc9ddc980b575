"""Recorders that come, go and end otherwise than they should, over one database."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from phyxius.adapters._inbox import Inbox
from phyxius.adapters._stores import SqlStores
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.clock import ControlledClock
from phyxius.handler import InFlightCall, recorded
from phyxius.journal import Journal
from phyxius.migration import (
    JournalQuery,
    JournalWindow,
    create_migration,
    define_migration,
    journal_window,
    no_events,
)
from tests.adapters.support import IN_THE_WAY, hasty, moment_of
from tests.places import Place

DAY = timedelta(days=1)


@pytest.fixture
async def stores(place: Place, phyxius_clock: ControlledClock) -> AsyncIterator[SqlStores]:
    async with place.stores(phyxius_clock) as stores:
        yield stores


async def asked(stores: SqlStores) -> JournalWindow:
    return await stores.journal_store.query(JournalQuery("legacy"), DAY)


@pytest.mark.parametrize("durable", [(), ("legacy",)], ids=["background", "durable"])
async def test_a_call_that_ends_between_two_recorders_is_one_event(
    stores: SqlStores, phyxius_clock: ControlledClock, durable: tuple[str, ...]
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


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # nobody can close a socket whose event loop is closed
def test_stores_that_were_closed_after_their_loop(
    place: Place, phyxius_clock: ControlledClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder that was left behind by its event loop, and then by its stores, holds up nobody who opens others."""
    caplog.set_level("CRITICAL", "sqlalchemy.pool")  # it would tell of the connections, and so keep them
    journal = Journal[Any](clock=phyxius_clock)

    @recorded(journal, "legacy")
    def legacy() -> None: ...

    async def leave(stores: SqlStores) -> None:
        await stores.__aenter__()
        await stores.recorder(journal, name="left", durable=["legacy"]).__aenter__()
        legacy()

    async def go_on() -> int:
        async with place.stores(phyxius_clock) as again, again.recorder(journal, name="next", durable=["legacy"]):
            legacy()
            return len(await asked(again))

    left = place.stores(phyxius_clock)
    asyncio.run(leave(left))
    asyncio.run(left.__aexit__(None, None, None))
    assert asyncio.run(go_on()) == 2
    del left
    gc.collect()


async def test_a_recorder_whose_tasks_were_cancelled_vouches_for_nothing(
    place: Place, stores: SqlStores, phyxius_clock: ControlledClock
) -> None:
    """It stores nothing any more, so its process gets no answer, whoever else records there."""
    async with stores.recorder(Journal(clock=phyxius_clock), name="cancelled") as recorder:
        for task in recorder._tasks:
            task.cancel()
        await asyncio.wait(recorder._tasks)
        async with stores.recorder(Journal(clock=phyxius_clock), name="other"):
            with pytest.raises(place.error) as caught:
                await asked(stores)
    assert caught.value.problem == "not_recorded"


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_recorder_whose_begin_seemed_to_fail(
    stores: SqlStores, phyxius_clock: ControlledClock, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """Nothing of it stands in the way of the next one, whether its row was made or not."""
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    create = SqlRecorderTables.create

    async def lost(tables: SqlRecorderTables, *args: Any) -> int:
        if arrives:
            await create(tables, *args)
        raise ConnectionResetError("cut off")

    for _ in range(2):
        monkeypatch.setattr(SqlRecorderTables, "create", lost)
        with pytest.raises(ConnectionResetError):
            await stores.recorder(journal, name="api", durable=["legacy"]).__aenter__()
        monkeypatch.undo()
        phyxius_clock.advance_by(timedelta(seconds=1))
    async with stores.recorder(journal, name="api", durable=["legacy"]):
        phyxius_clock.advance_by(timedelta(minutes=1))
        window = await asked(stores)
        assert [gap.recorder for gap in window.gaps if gap.recorder] == []


async def test_a_recorder_of_another_journal_vouches_for_nothing(
    place: Place, stores: SqlStores, phyxius_clock: ControlledClock
) -> None:
    """What is recorded in the migration's own never gets there, so the silence that it finds is not its own."""
    kept, own = Journal[Any](clock=phyxius_clock), Journal[Any](clock=phyxius_clock)
    silent = journal_window("legacy", DAY, no_events(), coverage="partial")
    spec = define_migration(name="m", phases={"before": {}, "after": {"silent": silent}})
    options = {"phase_store": stores.phase_store(spec), "journal_store": stores.journal_store}
    kept.declare("legacy")
    async with stores.recorder(kept, name="api", durable=["legacy"]):
        with recorded(own, "legacy"):
            """Nobody stores this call."""
        error: Any = (await create_migration(spec, journal=own, **options).advance()).error
        refused = error.errors["silent"]
        assert (type(refused), refused.problem) == (place.error, "not_recorded")
        assert "recorder api keeps another journal" in error.message
        async with stores.recorder(own, name="too", audit_only=True):
            error = (await create_migration(spec, journal=own, **options).advance()).error
            assert "saw 1 event" in error.message


async def test_who_asks_from_within_a_handler_runs_handlers(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """A process that said it runs none is a witness as any other while its call is in flight."""
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    journal.declare("handler")
    async with stores.recorder(journal, name="says none", audit_only=True):
        assert (await asked(stores)).unwitnessed_by == ()
        with recorded(journal, "handler"):
            assert (await asked(stores)).unwitnessed_by == ("says none",)


async def test_a_call_that_no_database_can_name_stops_nothing(
    stores: SqlStores, phyxius_clock: ControlledClock
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
    inbox.open("store")
    call = recorded(journal, "legacy")
    call.__enter__()
    journal.ends = call
    capture = inbox.capture(moment_of(phyxius_clock))
    assert len(capture.entries) + len(capture.calls) == 1


async def test_a_step_of_the_clock_that_was_not_stored_is_not_forgotten(
    place: Place, phyxius_clock: ControlledClock
) -> None:
    """A recorder that could not note it leaves it to the next one of the same journal."""
    journal: Journal[Any] = Journal(clock=phyxius_clock)
    async with hasty(place, phyxius_clock) as stores:
        recorder = await stores.recorder(journal, name="first", durable=["legacy"]).__aenter__()
        phyxius_clock.jump_wall_time(phyxius_clock.now().wall + 14 * DAY)
        with place.locked(), pytest.raises(place.error, match=IN_THE_WAY):
            await recorder.__aexit__(None, None, None)
        async with stores.recorder(journal, name="second", durable=["legacy"]):
            window = await stores.journal_store.query(JournalQuery("legacy"), 13 * DAY)
    assert ["the clock went forward by 14 days" in gap.reason for gap in window.gaps] == [True]
