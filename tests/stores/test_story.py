"""A four-phase migration of a fleet on PostgreSQL: three processes, of which one is killed and one is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from phyxius.clock import create_system_clock, run_in_thread
from phyxius.fp import Err, Ok, ok
from phyxius.journal import Journal
from phyxius.migration import (
    JournalQuery,
    Migration,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from tests.places import place_of
from tests.proxy import CuttingProxy
from tests.stores.processes import Child

SILENCE = timedelta(seconds=2)
DAY = timedelta(days=1)


@attrs.define
class Fleet:
    """Three processes that record in one database, and the operator's tool, which advances."""

    processes: dict[str, Child]
    proxy: CuttingProxy
    stores: Any
    migration: Migration[str]
    refusals: list[str] = attrs.field(factory=list)

    async def tell(self, name: str, line: str) -> str:
        """Have a process do something; what it says then."""
        process = self.processes[name]
        process.say(line)
        return await run_in_thread(process.hear)

    async def refused(self, to: str) -> str:
        """Press, and be refused; why."""
        answer: Any = await self.migration.advance(to=to)
        assert isinstance(answer, Err), answer
        self.refusals.append(answer.error.message)
        return self.refusals[-1]

    async def advance(self, to: str) -> None:
        """Press until it moves: the time that has to pass is real."""
        async with asyncio.timeout(60):
            while not (await self.migration.readiness()).ready:
                pass
        answer = await self.migration.advance(to=to)
        assert isinstance(answer, Ok), answer


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(place_of("postgresql", tmp_path))
        proxy = await stack.enter_async_context(CuttingProxy.unix(place.server.socket))
        behind = sa.make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
        stores: Any = await stack.enter_async_context(place.stores(create_system_clock()))
        spec: Any = define_migration(
            name="quotes",
            phases={
                "expand": {},
                "dual_write": {"schema_ready": schema_applied(lambda: ok({"revision": "0042"}))},
                "flip": {"parity_signed": stores.attestations.signed_off()},
                "contract": {
                    "no_legacy_reads": journal_window("legacy.read", SILENCE, no_events()),
                    "nothing_else": journal_window("background", SILENCE, no_events()),
                },
            },
        )
        processes = {}
        for name, url in (("api-1", place.url), ("api-2", place.url), ("api-3", str(behind))):
            child = partial(Child, "serve", url, name, "legacy.read", 1)
            processes[name] = stack.enter_context(await run_in_thread(child))
            assert await run_in_thread(processes[name].hear) == "ready"
        journal = Journal[Any](clock=stores.clock)
        tool = stores.recorder(journal, name="the tool", audit_only=True)
        await stack.enter_async_context(tool)
        migration: Any = create_migration(
            spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
        )
        yield Fleet(processes, proxy, stores, migration)


async def test_it_is_brought_to_its_end(fleet: Fleet) -> None:
    """Each trouble is refused by name, the rest goes on, and what happened can be told afterwards."""
    assert await fleet.tell("api-1", "call legacy.read") == "done"
    await fleet.advance("dual_write")
    assert "1 signature is wanted" in await fleet.refused("flip")
    await fleet.stores.attestations.sign(fleet.migration.spec, to="flip", source="parity_signed", signer="ada")
    await fleet.advance("flip")

    # api-2 is killed in the middle of a legacy call, which is known, for it was stored before it ran.
    assert await fleet.tell("api-2", "begin legacy.read") == "done"
    fleet.processes["api-2"].kill()
    assert 'in flight, the oldest "legacy.read"' in (why := await fleet.refused("contract")) or "saw" in why

    # api-3 is cut off: it can neither be asked, nor can it do what nobody would learn of.
    fleet.proxy.hang_after(0)
    assert await fleet.tell("api-3", "call legacy.read") == "refused unreachable"
    assert "api-3" in await fleet.refused("contract") or "saw" in fleet.refusals[-1]
    fleet.proxy.heal()

    await fleet.advance("contract")
    for name in ("api-1", "api-3"):
        fleet.processes[name].say()
        assert (await run_in_thread(fleet.processes[name].rest))[-1] == "closed"

    steps = await fleet.stores.phase_store(fleet.migration.spec).history()
    assert [(step.from_phase, step.to_phase) for step in steps] == [
        ("expand", "dual_write"),
        ("dual_write", "flip"),
        ("flip", "contract"),
    ]
    assert [sorted(step.evidence) for step in steps] == [
        ["schema_ready"],
        ["parity_signed"],
        ["no_legacy_reads", "nothing_else"],
    ]
    assert steps[1].evidence["parity_signed"]["signatures"][0]["signer"] == "ada"
    audit = await fleet.stores.journal_store.query(JournalQuery("migration.quotes.advance"), DAY)
    told = [event.observed["refusal"]["message"] for event in audit if event.outcome == "failure"]
    assert told == fleet.refusals
    calls = await fleet.stores.journal_store.query(JournalQuery("legacy.read"), DAY)
    first, *others = calls
    assert first.error is None
    assert {call.error.type for call in others} == {"RecorderLost", "ServerStoreError"}, "killed, and cut off"
    (lost,) = [call.error.message for call in others if call.error.type == "RecorderLost"]
    assert "api-2" in lost
