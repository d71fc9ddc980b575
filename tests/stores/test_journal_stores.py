"""Every journal store holds to the same rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from phyxius.clock import Clock, create_controlled_clock
from phyxius.handler import HandlerEvent
from phyxius.journal import Journal
from phyxius.migration import JournalStore, create_memory_journal_store
from phyxius.testing import JournalStoreHarness, aged_journal, journal_store_checks
from tests.places import FILE, OTHERS, SERVERS, Place, place_of

MakeHarness = Callable[[], Awaitable[JournalStoreHarness]]


class MemoryHarness:
    """The memory store, and its journal."""

    def __init__(self) -> None:
        self.journal = aged_journal(timedelta(days=1))
        self.clock = self.journal.clock
        self.store = create_memory_journal_store(journal=self.journal)

    async def record(self, *events: HandlerEvent) -> None:
        for event in events:
            self.journal.append(event)

    async def declare(self, *names: str) -> None:
        self.journal.declare(*names)


class PlaceHarness:
    """A file or a server, and a recorder that keeps a journal there."""

    store: JournalStore

    def __init__(self, place: Place, clock: Clock, stack: AsyncExitStack) -> None:
        self.clock = clock
        self.journal = Journal[HandlerEvent](clock=clock)
        self._place = place
        self._open = stack

    async def open(self) -> None:
        stores = await self._open.enter_async_context(self._place.stores(self.clock))
        await self._open.enter_async_context(stores.recorder(self.journal, name="api-1"))
        self.store = stores.journal_store

    async def record(self, *events: HandlerEvent) -> None:
        for event in events:
            self.journal.append(event)

    async def declare(self, *names: str) -> None:
        self.journal.declare(*names)

    async def reopen(self) -> None:
        await self._open.aclose()
        stores = await self._open.enter_async_context(self._place.stores(self.clock))
        asking = stores.recorder(Journal(clock=self.clock), name="who asks", audit_only=True)
        await self._open.enter_async_context(asking)
        self.store = stores.journal_store


async def make_memory_harness() -> JournalStoreHarness:
    return MemoryHarness()


@pytest.fixture(params=["memory", FILE, *SERVERS, *OTHERS])
async def make_harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeHarness]:
    async with AsyncExitStack() as stack:

        async def make_place_harness() -> JournalStoreHarness:
            clock = create_controlled_clock()
            harness = PlaceHarness(place, clock, stack)
            await harness.open()
            clock.advance_by(timedelta(days=1))
            return harness

        if request.param == "memory":
            yield make_memory_harness
        else:
            async with place_of(request.param, tmp_path) as place:
                yield make_place_harness
                await stack.aclose()


@pytest.mark.parametrize("check", journal_store_checks, ids=lambda check: check.__name__)
async def test_journal_store(check: Callable[[MakeHarness], Awaitable[None]], make_harness: MakeHarness) -> None:
    """The store passes the check."""
    await check(make_harness)
