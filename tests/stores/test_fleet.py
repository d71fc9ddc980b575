"""A fleet that is deployed and crashes every day: after two weeks it can prove what it should, and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from phyxius.adapters._recorder import Recorder
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlalchemy._database import ServerDatabase
from phyxius.adapters.sqlite._database import FileDatabase
from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.fp import Ok
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceFailed,
    JournalQuery,
    create_migration,
    define_migration,
    journal_window,
    no_events,
)
from phyxius.testing import record_events
from tests.stores.processes import Child
from tests.stores.test_kills import made, where

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
DAYS, PROCESSES = 14, 20
WINDOW = DAYS * DAY


class Process:
    """A process of the fleet: a journal, and the recorder that keeps it."""

    def __init__(self, stores: SqlStores, name: str, *, declares: bool = True) -> None:
        self.journal = Journal[Any](clock=stores.clock)
        if declares:
            self.journal.declare("legacy.kept", "legacy.seen")
        durable = ["legacy.kept"] if declares else []
        self.recorder: Recorder = stores.recorder(self.journal, name=name, durable=durable)

    async def start(self) -> Process:
        await self.recorder.__aenter__()
        return self

    async def renew(self) -> None:
        """Do what a recorder does from time to time, and cannot here, where two weeks pass in a moment."""
        await self.recorder.flush()

    async def stop(self) -> None:
        await self.recorder.__aexit__(None, None, None)

    async def die(self) -> None:
        """Be gone, without another word to the database."""
        recorder = self.recorder
        for task in recorder._tasks:
            task.cancel()
        await asyncio.gather(*recorder._tasks, return_exceptions=True)
        recorder._forget()
        recorder._stop_keeping()
        recorder._inbox.close()


class Fleet:
    """Twenty processes behind one database."""

    def __init__(self, stores: SqlStores, clock: ControlledClock, processes: int) -> None:
        self.stores = stores
        self.clock = clock
        self.processes: list[Process] = []
        self.killed: list[tuple[str, datetime]] = []
        self._size = processes

    async def live(self, *, undeclared_on: int | None = None, calls_on: int | None = None) -> None:
        """Two weeks: each day all are restarted one after the other, and one is killed at noon."""
        self.processes = [await Process(self.stores, f"api-{n}.0").start() for n in range(self._size)]
        for day in range(DAYS):
            for number in range(self._size):
                declares = not (day == undeclared_on and number == 0)
                await self._deploy(number, f"api-{number}.{day + 1}", declares=declares)
                self.clock.advance_by(DAY / 2 / self._size)
            await self._kill(day % self._size, day, calls=day == calls_on)
            self.clock.advance_by(DAY / 2)
        for process in self.processes:
            await process.renew()

    async def _deploy(self, number: int, name: str, *, declares: bool) -> None:
        """Start the new one, then stop the old one: so is the fleet never without."""
        new = await Process(self.stores, name, declares=declares).start()
        record_events(self.processes[number].journal, "request")
        await self.processes[number].stop()
        self.processes[number] = new

    async def _kill(self, number: int, day: int, *, calls: bool) -> None:
        victim = self.processes[number]
        await victim.renew()
        self.killed.append((victim.recorder.name, self.clock.now().wall))
        self.clock.advance_by(SECOND)
        record_events(victim.journal, "request")  # nobody will ever learn of it
        if calls:

            @recorded(victim.journal, "legacy.kept")
            async def call() -> None:
                await victim.die()

            await call()
        else:
            await victim.die()
        self.processes[number] = await Process(self.stores, f"{victim.recorder.name} again").start()

    async def advance(self, phase: str) -> Any:
        """What the gate of a phase says now."""
        silent = journal_window(f"legacy.{phase}", WINDOW, no_events())
        spec = define_migration(name=phase, phases={"before": {}, phase: {"silent": silent}})
        migration = create_migration(
            spec,
            journal=self.processes[0].journal,
            phase_store=self.stores.phase_store(spec),
            journal_store=self.stores.journal_store,
        )
        return await migration.advance()

    async def refused(self, phase: str) -> Any:
        """How the gate of a phase refuses."""
        answer = await self.advance(phase)
        assert isinstance(answer.error, EvidenceFailed), answer
        return answer.error.failures["silent"]


@pytest.fixture
async def fleet(place: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    for database in (FileDatabase, ServerDatabase):  # what a recorder does in real time, it is told to do here
        monkeypatch.setattr(database, "poll_seconds", 3_600)
    clock = create_controlled_clock(datetime(2024, 1, 1, tzinfo=UTC))
    async with place.stores(clock) as stores:
        fleet = Fleet(stores, clock, PROCESSES)
        yield fleet
        for process in fleet.processes:
            await process.stop()


async def test_two_weeks_of_deploys_and_crashes(fleet: Fleet) -> None:
    """The silence of a durable name is proven, that of another refused, for the gaps of all who were killed."""
    await fleet.live()
    assert isinstance(await fleet.advance("kept"), Ok)
    failure = await fleet.refused("seen")
    gaps = failure.details["gaps"]
    told = [(gap["recorder"], datetime.fromisoformat(gap["since"])) for gap in gaps]
    assert told == fleet.killed
    assert len(told) == DAYS
    lengths = {datetime.fromisoformat(gap["until"]) - datetime.fromisoformat(gap["since"]) for gap in gaps}
    assert lengths == {timedelta(seconds=30)}
    assert "7 minutes of 14 days missing" in failure.reason
    assert fleet.killed[0][0] in failure.reason


async def test_a_build_that_does_not_declare_the_name(fleet: Fleet) -> None:
    """One process of one day is enough: it would not have recorded the call, and it is named."""
    await fleet.live(undeclared_on=6)
    for phase in ("kept", "seen"):
        failure = await fleet.refused(phase)
        assert "api-0.7" in failure.reason
        assert "api-1.7" not in failure.reason
    fleet.clock.advance_by(7 * DAY)
    for process in fleet.processes:
        await process.renew()
    assert isinstance(await fleet.advance("kept"), Ok)


async def test_a_call_that_its_process_did_not_survive(fleet: Fleet) -> None:
    """The start of a durable call is stored before it runs, so that it counts though nobody stored its end."""
    await fleet.live(calls_on=3)
    query = JournalQuery("legacy.kept")
    (event,) = await fleet.stores.journal_store.query(query, WINDOW)
    name, killed = fleet.killed[3]
    assert event.started_at.wall == killed + SECOND
    assert event.error is not None
    assert name in event.error.message
    assert not isinstance(await fleet.advance("kept"), Ok)
    fleet.clock.advance_by(4 * DAY)
    for process in fleet.processes:
        await process.renew()
    assert isinstance(await fleet.advance("kept"), Ok)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL")
async def test_processes_that_are_really_killed(place: Any) -> None:
    """A kill leaves a gap of its recorder, but none for its durable name; and its open durable call is an event."""
    await made(place)
    children = [Child("record", where(place), f"api-{number}", "legacy.kept") for number in range(3)]
    with children[0] as dies, children[1] as dies_calling, children[2] as closes:
        for child in children:
            assert child.hear() == "ready"
            child.say("call background")
            assert child.hear() == "done"
        dies.kill()
        later = create_controlled_clock(datetime.now(UTC) + timedelta(hours=1))
        place.change("UPDATE journal SET stamped_by = 'test'")  # so that a clock of tests may read on
        stores = place.stores(later)
        async with stores, stores.recorder(Journal(clock=later), name="who asks", audit_only=True):

            async def ask(name: str) -> Any:
                # an hour later all leases are over; the file is younger than the window, which is no recorder's gap
                found = await stores.journal_store.query(JournalQuery(name), timedelta(hours=2))
                return found, {gap.recorder for gap in found.gaps if gap.recorder}

            dies_calling.say("begin legacy.kept")
            assert dies_calling.hear() == "done"
            dies_calling.kill()
            closes.say()
            assert closes.rest() == ["closed"]
            found, gaps = await ask("background")
            assert (found.witnessed, gaps) == (True, {"api-0", "api-1"})
            found, gaps = await ask("legacy.kept")
            assert (found.witnessed, gaps) == (True, set())
            assert ["api-1" in event.error.message for event in found] == [True]
