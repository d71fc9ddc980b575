"""What the stores on a server cost, beside a bare SELECT over the same SQLAlchemy. Trust the ratios.

`PHYXIUS_BENCH_EVENTS` says how many events the journal holds; ten million take a few minutes and 4 GB of disk.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from phyxius.adapters.sqlalchemy import open_stores
from phyxius.clock import create_system_clock
from phyxius.fp import Ok
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import EvidenceSnapshot, JournalQuery, create_migration, define_migration
from phyxius.testing import make_event
from tests.places import PREFIX, SERVERS, ServerPlace

CLOCK = create_system_clock()
DAY = timedelta(days=1)
EVENTS = int(os.environ.get("PHYXIUS_BENCH_EVENTS", "10000000"))
BARE = f"SELECT id FROM {PREFIX}events WHERE name = :name AND outcome = 'success' AND completed_ns >= :since LIMIT 1"
PHASES = ("expand", "dual_write", "flip", "contract")


class Bench:
    """Stores that are open, a recorder, and a bare connection beside it."""

    def __init__(self, place: ServerPlace, runner: asyncio.Runner) -> None:
        self.place = place
        self.runner = runner
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        await self.place.make()
        stores = open_stores(self.place.url, timeout=timedelta(minutes=5))
        self.stores: Any = await self._stack.enter_async_context(stores)
        self.journal = Journal[Any](clock=CLOCK)
        self.journal.declare("silent", "seen", "kept")
        recorder = self.stores.recorder(self.journal, name="here", durable=["kept"], max_pending=10**6)
        self.recorder: Any = await self._stack.enter_async_context(recorder)
        engine = create_async_engine(self.place.url)
        self._stack.push_async_callback(engine.dispose)
        connection = await self._stack.enter_async_context(engine.connect())
        self.bare = await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        await self._stack.aclose()

    def fill(self, count: int) -> None:
        """So many events of fifty names, a tenth of a second apart, up to now."""
        now_ns, step_ns = CLOCK.now().wall_ns, 10**8
        columns = "recorder, name, outcome, completed_ns, started_ns, source, attempts, observed"
        at = f"{now_ns} - ({count} - n) * {step_ns}"
        values = f"{self.recorder.id}, concat('name ', n % 50), 'success', {at}, {at}, 'handler', 1"
        if self.place.is_mysql:
            rows = f"SELECT {values}, concat('{{\"n\":', n, '}}') FROM (SELECT seq AS n FROM seq_1_to_{count}) AS s"
        else:
            rows = f"SELECT {values}, concat('{{\"n\":', n, '}}') FROM generate_series(1::bigint, {count}) AS n"
        self.place.change(f"INSERT INTO events ({columns}) {rows}")
        self.place.server.run(
            f"ANALYZE TABLE {PREFIX}events" if self.place.is_mysql else f"VACUUM ANALYZE {PREFIX}events"
        )

    def many(self, coroutine_function: Callable[[], Any], times: int) -> Callable[[], None]:
        """Many awaits in one run of the loop, so that starting the loop does not count."""

        async def run() -> None:
            for _ in range(times):
                await coroutine_function()

        return lambda: self.runner.run(run())


@pytest.fixture(scope="module", params=SERVERS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        bench = Bench(ServerPlace(request.param), runner)
        runner.run(bench.open())
        bench.fill(EVENTS)
        yield bench
        runner.run(bench.close())
        runner.run(bench.place.make())


@pytest.mark.parametrize("kind", ["ours", "bare"])
@pytest.mark.benchmark(group="silence")
def test_silence(benchmark: Any, bench: Bench, kind: str) -> None:
    """Nothing happened for fourteen days, over all these events; beside a bare SELECT by the same index."""
    query, statement = JournalQuery("silent"), sa.text(BARE)
    values = {"name": "silent", "since": CLOCK.now().shifted(-14 * DAY).wall_ns}

    async def ours() -> None:
        assert not await bench.stores.journal_store.query(query, 14 * DAY)

    async def bare() -> None:
        assert (await bench.bare.execute(statement, values)).fetchone() is None

    benchmark.pedantic(bench.many(ours if kind == "ours" else bare, 50), rounds=40, warmup_rounds=3)


@pytest.mark.parametrize("kind", ["ours", "bare"])
@pytest.mark.benchmark(group="current_phase")
def test_current_phase(benchmark: Any, bench: Bench, kind: str) -> None:
    """A live read of the phase."""
    spec: Any = define_migration(name="m", phases={phase: {} for phase in PHASES})
    store = bench.stores.phase_store(spec)
    running = create_migration(spec, journal=bench.journal, phase_store=store, journal_store=bench.stores.journal_store)
    statement = sa.text(f"SELECT phase FROM {PREFIX}migrations WHERE name = 'm'")

    async def bare() -> None:
        (await bench.bare.execute(statement)).fetchone()

    bench.runner.run(running.current_phase())
    benchmark.pedantic(bench.many(running.current_phase if kind == "ours" else bare, 50), rounds=40, warmup_rounds=3)


@pytest.mark.benchmark(group="commit")
def test_a_commit(benchmark: Any, bench: Bench) -> None:
    """A step, with its transition and its evidence."""
    numbers = iter(range(10**6))

    async def step() -> None:
        spec: Any = define_migration(name=f"m{next(numbers)}", phases={phase: {} for phase in PHASES})
        answer = await bench.stores.phase_store(spec).try_advance(
            "expand", "dual_write", EvidenceSnapshot(spec.name, {"a": {"count": 0}})
        )
        assert type(answer) is Ok

    benchmark.pedantic(bench.many(step, 20), rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("at_once", [1, 100])
@pytest.mark.benchmark(group="durable")
def test_a_durable_call(benchmark: Any, bench: Bench, at_once: int) -> None:
    """A call whose start is stored before it runs."""

    @recorded(bench.journal, "kept")
    async def call() -> None:
        """Do nothing."""

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(at_once)))

    benchmark.pedantic(bench.many(calls, 10), rounds=10, warmup_rounds=1)


@pytest.mark.benchmark(group="store")
def test_storing(benchmark: Any, bench: Bench) -> None:
    """Twenty thousand events that wait are stored."""

    def record() -> tuple[tuple[()], dict[str, Any]]:
        for _ in range(20_000):
            bench.journal.append(make_event("seen", clock=CLOCK, observed={"user": 7, "queue": "quotes"}))
        return (), {}

    benchmark.pedantic(lambda: bench.runner.run(bench.recorder.flush()), setup=record, rounds=5)


@pytest.mark.benchmark(group="where")
def test_memory_while_a_where_streams(benchmark: Any, bench: Bench) -> None:
    """However many events `where` is asked about, no more than a page is held."""
    asked = 0

    def where(event: Any) -> bool:
        nonlocal asked
        asked += 1
        return False

    async def ask(days: timedelta) -> None:
        await bench.stores.journal_store.query(JournalQuery("name 7", where=where), days)

    bench.runner.run(ask(DAY / 24))
    before, first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, asked
    benchmark.pedantic(lambda: bench.runner.run(ask(14 * DAY)), rounds=1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    benchmark.extra_info.update(asked=asked - first, grown_kib=grown)
    assert asked - first == EVENTS // 50
    assert grown < 20_000
