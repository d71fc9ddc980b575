"""What the core costs. `nox -s bench` runs these; trust the ratios, not the absolutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from phyxius.clock import create_controlled_clock, create_system_clock
from phyxius.fp import Ok, ok
from phyxius.handler import HandlerEvent
from phyxius.journal import Journal
from phyxius.migration import (
    JournalQuery,
    create_memory_journal_store,
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)

CLOCK = create_system_clock()
DAY = timedelta(days=1)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def per_call(coroutine_function: Callable[[], Any], runner: asyncio.Runner, times: int) -> Callable[[], None]:
    """Many awaits in one run of the loop, so that starting the loop does not count."""

    async def many() -> None:
        for _ in range(times):
            await coroutine_function()

    return lambda: runner.run(many())


@pytest.mark.parametrize("what", ["a bare await", "current_phase"])
def test_current_phase(benchmark: Any, runner: asyncio.Runner, what: str) -> None:
    """1,000 reads of the phase, beside 1,000 awaits of a bare method."""
    store = create_memory_phase_store(initial="old", clock=CLOCK)
    migration = create_migration(
        define_migration(name="m", phases={"old": {}, "new": {}}), journal=Journal(clock=CLOCK), phase_store=store
    )
    read = store.current if what == "a bare await" else migration.current_phase
    benchmark(per_call(read, runner, 1_000))


def make_event() -> HandlerEvent:
    return HandlerEvent("quote.read", "success", CLOCK.now())


def test_make_event(benchmark: Any) -> None:
    """Making the event that the appends below append."""
    benchmark(make_event)


@pytest.mark.parametrize("size", [1_000, 1_000_000])
@pytest.mark.parametrize("kind", ["unbounded", "full ring", "subscriber", "indexed", "full ring, indexed"])
def test_append(benchmark: Any, kind: str, size: int) -> None:
    """Appending an event to a journal of that size."""
    journal = Journal[Any](clock=CLOCK)
    if "full ring" in kind:
        journal = Journal[Any](clock=CLOCK, max_entries=size, overflow="drop_oldest")
    if "subscriber" in kind:
        journal.subscribe(lambda _: None)
    if "indexed" in kind:
        create_memory_journal_store(journal=journal)
    for _ in range(size):
        journal.append(make_event())
    event = make_event()
    benchmark.pedantic(journal.append, (event,), rounds=5_000, warmup_rounds=100)


@pytest.mark.parametrize("size", [10_000, 1_000_000])
@pytest.mark.parametrize("what", ["silence", "name and outcome, the newest tenth", "where over all"])
def test_query(benchmark: Any, runner: asyncio.Runner, what: str, size: int) -> None:
    """Asking a journal of that size; one event in a hundred thousand microseconds."""
    clock = create_controlled_clock()
    journal = Journal[Any](clock=clock)
    store = create_memory_journal_store(journal=journal)
    journal.declare("legacy.read")
    for number in range(size):
        journal.append(HandlerEvent("quote.read", "success" if number % 2 else "failure", clock.now()))
        clock.advance_by(timedelta(microseconds=1))
    query, window, found = {
        "silence": (JournalQuery("legacy.read"), DAY, 0),
        "name and outcome, the newest tenth": (
            JournalQuery("quote.read", outcome="success"),
            timedelta(microseconds=size // 10),
            size // 20,
        ),
        "where over all": (JournalQuery("quote.read", where=lambda event: event.attempts > 1), DAY, 0),
    }[what]
    assert len(runner.run(store.query(query, window))) == found
    benchmark(per_call(lambda: store.query(query, window), runner, 1 if "where" in what else 100))


@pytest.mark.parametrize("sources", [1, 16, 64])
@pytest.mark.parametrize("kind", ["async checks", "journal windows", "plain checks"])
def test_advance(benchmark: Any, runner: asyncio.Runner, kind: str, sources: int) -> None:
    """One whole `advance()`: read, ask, judge, commit, audit."""
    journal = Journal[Any](clock=CLOCK)
    journal.declare("legacy.read")

    async def check() -> Ok[dict[str, int]]:
        return ok({"count": 0})

    source: Any = {
        "async checks": lambda: schema_applied(check),
        "journal windows": lambda: journal_window("legacy.read", timedelta(microseconds=1), no_events()),
        "plain checks": lambda: schema_applied(lambda: ok({"count": 0})),
    }[kind]
    spec = define_migration(name="m", phases={"old": {}, "new": {f"s{n}": source() for n in range(sources)}})

    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        store = create_memory_phase_store(initial="old", clock=CLOCK)
        return (create_migration(spec, journal=journal, phase_store=store),), {}

    def advance(migration: Any) -> None:
        assert type(runner.run(migration.advance())) is Ok

    benchmark.pedantic(advance, setup=fresh, rounds=200, warmup_rounds=20)
