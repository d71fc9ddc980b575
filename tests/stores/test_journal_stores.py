"""Every journal store holds to the same rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from phyxius.handler import HandlerEvent
from phyxius.migration import create_memory_journal_store
from phyxius.testing import JournalStoreHarness, aged_journal, journal_store_checks

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


async def make_memory_harness() -> JournalStoreHarness:
    return MemoryHarness()


@pytest.mark.parametrize("make_harness", [pytest.param(make_memory_harness, id="memory")])
@pytest.mark.parametrize("check", journal_store_checks, ids=lambda check: check.__name__)
async def test_journal_store(check: Callable[[MakeHarness], Awaitable[None]], make_harness: MakeHarness) -> None:
    """The store passes the check."""
    await check(make_harness)
