"""Event builders, aged journals, faulty stores, `run_in_place` and the pytest plugin."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.fp import Ok, ok
from phyxius.handler import HandlerError, HandlerEvent
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceSnapshot,
    JournalQuery,
    create_memory_journal_store,
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from phyxius.testing import (
    FaultyJournalStore,
    FaultyPhaseStore,
    aged_journal,
    make_event,
    record_events,
    run_in_place,
)

HOUR = timedelta(hours=1)


def test_makes_events_with_a_past() -> None:
    """An event lies as far back as it was asked to, and took as long."""
    clock = create_controlled_clock()
    event = make_event(
        "a", clock=clock, ago=HOUR, duration=2 * HOUR, outcome="failure", error=HandlerError("ValueError", "no")
    )
    assert clock.now().wall - event.completed_at.wall == HOUR
    assert event.duration == 2 * HOUR
    assert (event.outcome, event.error, event.observed) == ("failure", HandlerError("ValueError", "no"), {})


def test_records_events() -> None:
    """So many events are appended, and returned."""
    journal = aged_journal()
    events = record_events(journal, "a", 3, outcome="failure", ago=HOUR, observed={"n": 1})
    assert [entry.data for entry in journal] == events
    assert {(event.name, event.outcome, event.observed["n"]) for event in events} == {("a", "failure", 1)}


async def test_an_aged_journal_vouches_for_its_age() -> None:
    """Silence of a declared name is proven for the age of the journal, and not for longer."""
    journal = aged_journal(timedelta(days=14), names=["legacy.read"])
    spec = define_migration(
        name="m",
        phases={
            "old": {},
            "new": {"silent": journal_window("legacy.read", timedelta(days=14), no_events())},
            "gone": {"silent": journal_window("legacy.read", timedelta(days=15), no_events())},
        },
    )
    migration = create_migration(spec, journal=journal)
    assert type(await migration.advance("new")) is Ok
    assert type(await migration.advance("gone")) is not Ok


def test_an_aged_journal_can_share_a_clock() -> None:
    """The clock that is given is used, and moved."""
    clock = create_controlled_clock()
    began = clock.now()
    journal = aged_journal(HOUR, clock=clock)
    assert journal.clock is clock
    assert clock.now().ns_since(began) == HOUR // timedelta(microseconds=1) * 1_000
    assert journal.complete_since == began


def phase_store(**options: bool) -> FaultyPhaseStore:
    return FaultyPhaseStore(create_memory_phase_store(initial="expand", clock=create_controlled_clock()), **options)


async def test_a_phase_store_fails_before_or_after() -> None:
    """Before means that nothing was done, after that it was."""
    store = phase_store()
    snapshot = EvidenceSnapshot("a1", {})
    store.fail("try_advance", OSError("before"))
    with pytest.raises(OSError, match="before"):
        await store.try_advance("expand", "flip", snapshot)
    assert await store.current() == "expand"
    store.fail("try_advance", OSError("after"), when="after")
    with pytest.raises(OSError, match="after"):
        await store.try_advance("expand", "flip", snapshot)
    assert await store.current() == "flip"
    assert store.calls == ["try_advance", "current", "try_advance", "current"]


async def test_a_fault_can_wear_off_or_be_healed() -> None:
    """A fault happens as often as it was told to, or until it is healed."""
    store = phase_store()
    store.answer("current", None, times=2)
    store.answer("resolve", "nonsense")
    store.answer("history", [])
    assert [await store.current() for _ in range(3)] == [None, None, "expand"]
    assert [await store.resolve("a1"), await store.history()] == ["nonsense", []]
    store.heal("resolve")
    assert [await store.resolve("a1"), await store.history()] == [None, []]
    store.heal()
    assert await store.history() == ()


async def test_a_store_hangs_until_it_is_cancelled() -> None:
    """A hanging operation ends by cancellation alone."""
    store = phase_store()
    store.hang("current")
    task = asyncio.ensure_future(store.current())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_faulty_store_has_what_the_real_one_has() -> None:
    """Scope and clock come from the real store, `resolve` unless it is hidden, and nothing that is not there."""
    store = phase_store()
    assert store.scope == "process"
    assert isinstance(store.clock, ControlledClock)
    assert hasattr(store, "resolve")
    assert not hasattr(phase_store(resolvable=False), "resolve")
    assert not hasattr(store, "_missing")
    with pytest.raises(ValueError, match="currant"):
        store.fail("currant", OSError())


async def test_a_journal_store_fails_on_cue() -> None:
    """A query goes wrong as it was told, and works otherwise."""
    store = FaultyJournalStore(create_memory_journal_store(journal=aged_journal()))
    store.fail("query", OSError("away"), times=1)
    with pytest.raises(OSError, match="away"):
        await store.query(JournalQuery("a"), HOUR)
    assert len(await store.query(JournalQuery("a"), HOUR)) == 0
    assert store.scope == "process"
    assert not hasattr(store, "_missing")


async def test_runs_plain_checks_in_place() -> None:
    """With `run_in_place` a plain check runs in the thread of the loop."""
    threads: list[threading.Thread] = []

    @schema_applied
    def check() -> Ok[None]:
        threads.append(threading.current_thread())
        return ok()

    spec = define_migration(name="m", phases={"old": {}, "new": {"check": check}})
    assert type(await create_migration(spec, journal=aged_journal(), run_sync=run_in_place).advance()) is Ok
    assert threads == [threading.current_thread()]


def test_fixtures(phyxius_clock: ControlledClock, phyxius_journal: Journal[HandlerEvent]) -> None:
    """The plugin's journal runs on the plugin's clock, and is thirty days old."""
    assert phyxius_journal.clock is phyxius_clock
    assert phyxius_clock.now().wall - phyxius_journal.complete_since.wall == timedelta(days=30)


def test_the_plugin_costs_nothing_when_unused() -> None:
    """Loading the plugin does not import the library."""
    code = "import pytest_phyxius, sys; sys.exit('phyxius' in sys.modules or 'attrs' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
