"""A server that is stopped at once, as by a loss of power, under load: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import attrs
import pytest

from phyxius.adapters.sqlalchemy import ServerStoreError
from phyxius.clock import create_system_clock, run_in_thread
from phyxius.fp import Ok
from phyxius.handler import observe, recorded
from phyxius.journal import Journal
from phyxius.migration import EvidenceSnapshot, JournalQuery, define_migration
from tests.places import SERVERS, ServerPlace, place_of
from tests.stores.test_kills import faults_of, made

PHASES = tuple(f"p{number}" for number in range(20))
FAST = pytest.param(2, id="fast")
ALL = pytest.param(20, id="all", marks=pytest.mark.prove)


@attrs.define
class Load:
    """Workers that take steps and make calls against one server, and remember what they were told."""

    stores: Any
    journal: Journal[Any]
    said: list[list[str]] = attrs.field(factory=list)
    called: set[str] = attrs.field(factory=set)
    refused: int = 0
    going: bool = True

    async def advance(self, worker: int) -> None:
        """One migration after the other, through all its phases."""
        for number in itertools.count():
            spec = define_migration(name=f"m{worker}-{number}", phases={phase: {} for phase in PHASES})
            store = self.stores.phase_store(spec)
            while self.going:
                attempt = uuid.uuid4().hex
                try:
                    phase = await store.current()
                    if phase == PHASES[-1]:
                        break
                    to = PHASES[PHASES.index(phase) + 1]
                    self.said.append(["tries", spec.name, phase, to, attempt])
                    answer = await store.try_advance(phase, to, EvidenceSnapshot(attempt, {"attempt": attempt}))
                except ServerStoreError:
                    self.refused += 1
                    continue
                self.said.append(["moved" if type(answer) is Ok else "lost", attempt])
            if not self.going:
                return

    async def call(self) -> None:
        """Durable calls, each of which ran if and only if it could be stored before."""
        journal, ran = self.journal, self.called

        @recorded(journal, "legacy.read")
        async def read(call: str) -> None:
            observe(call=call)
            ran.add(call)

        while self.going:
            try:
                await read(uuid.uuid4().hex)
            except ServerStoreError:
                self.refused += 1


async def under_load(place: ServerPlace, stops: int) -> AsyncIterator[Load]:
    """Stop and start the server so many times under load; then let it end."""
    await made(place)
    stores = place.stores(create_system_clock())
    journal = Journal[Any](clock=stores.clock)
    async with (
        stores,
        stores.recorder(journal, name="api-1", durable=["legacy.read"], lease=timedelta(minutes=10), max_pending=10**6),
    ):
        load = Load(stores, journal)
        workers = [asyncio.ensure_future(load.advance(number)) for number in range(3)]
        workers += [asyncio.ensure_future(load.call()) for _ in range(2)]
        for _ in range(stops):
            moved = len(load.said)
            while len(load.said) < moved + 40:  # noqa: ASYNC110 - until it is under load
                await asyncio.sleep(0)
            await run_in_thread(place.server.stop_at_once)
            await run_in_thread(place.server.start)
        moved = len(load.said)
        while len(load.said) < moved + 10:  # noqa: ASYNC110 - until it goes on
            await asyncio.sleep(0)
        load.going = False
        await asyncio.gather(*workers)
        yield load


@pytest.mark.parametrize("stops", [FAST, ALL])
@pytest.mark.parametrize("kind", SERVERS)
async def test_what_was_acknowledged_outlives_the_server(kind: str, stops: int, tmp_path: Any) -> None:
    """Each commit has its transition, each answer is true, each call that ran is an event; and the rest goes on."""
    async with place_of(kind, tmp_path) as place:
        async for load in under_load(place, stops):
            assert load.refused
            assert load.called
            window = await load.stores.journal_store.query(JournalQuery("legacy.read"), timedelta(hours=1))
            found = [event.observed["call"] for event in window if event.error is None]
            missing = load.called.difference(found)
            assert not missing, (window.gaps, window.in_flight, place.contents(), load.journal.snapshot())
            assert len(found) == len(load.called)
            assert not window.in_flight
        place.settle()
        assert not faults_of(place, load.said)
