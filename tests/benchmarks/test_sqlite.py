"""What the file stores cost, beside bare `sqlite3` that does the same. Trust the ratios, not the absolutes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters.sqlite import FileStores, Recorder, open_file_stores
from phyxius.clock import Workers, create_system_clock, run_in_thread
from phyxius.fp import Ok
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import EvidenceSnapshot, JournalQuery, define_migration
from phyxius.testing import make_event

CLOCK = create_system_clock()
DAY = timedelta(days=1)
PHASES = ("expand", "dual_write", "flip", "contract")
SPEC = define_migration(name="m", phases={phase: {} for phase in PHASES})
EVENTS, NAMES = 1_000_000, 50
KINDS = ["ours", "Workers.run", "asyncio.to_thread", "run_in_thread", "no thread"]
Work = Callable[[sqlite3.Connection], Any]


class Bench:
    """A file that is open, a recorder that keeps a journal there, and bare connections beside it."""

    def __init__(self, path: Path, runner: asyncio.Runner) -> None:
        self.path = path
        self.runner = runner
        self._stack = AsyncExitStack()
        self._workers: Workers[sqlite3.Connection] = Workers(self.connect, most=1, name="bare")
        self._bare = self.connect()

    async def open(self) -> None:
        self.stores: FileStores = await self._stack.enter_async_context(open_file_stores(self.path, clock=CLOCK))
        self.journal = Journal[Any](clock=CLOCK)
        self.journal.declare("silent", "seen", "kept")
        recorder = self.stores.recorder(self.journal, name="here", durable=["kept"], max_pending=10**6)
        self.recorder: Recorder = await self._stack.enter_async_context(recorder)

    async def close(self) -> None:
        await self._stack.aclose()
        await self._workers.close(DAY)
        self._bare.close()

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    async def do(self, kind: str, work: Work) -> Any:
        """Run what bare `sqlite3` does, in a thread or in none."""
        if kind == "Workers.run":
            return await self._workers.run(work)
        if kind == "asyncio.to_thread":
            return await asyncio.to_thread(work, self._bare)
        if kind == "run_in_thread":
            return await run_in_thread(partial(work, self._bare))
        return work(self._bare)

    def many(self, coroutine_function: Callable[[], Any], times: int) -> Callable[[], None]:
        """Many awaits in one run of the loop, so that starting the loop does not count."""

        async def run() -> None:
            for _ in range(times):
                await coroutine_function()

        return lambda: self.runner.run(run())


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """On one core: where there are several, it is chance whether two threads share one, and that doubles a hop."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def opened(path: Path, runner: asyncio.Runner) -> Iterator[Bench]:
    bench = Bench(path, runner)
    runner.run(bench.open())
    yield bench
    runner.run(bench.close())


@pytest.fixture
def bench(tmp_path: Path, runner: asyncio.Runner) -> Iterator[Bench]:
    yield from opened(tmp_path / "stores.db", runner)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner) -> Iterator[Bench]:
    """A file with a million events of fifty names, one each second up to now."""
    path = tmp_path_factory.mktemp("full") / "stores.db"

    async def make() -> None:
        async with open_file_stores(path, clock=CLOCK):
            pass

    runner.run(make())
    now = CLOCK.now().wall_ns
    rows = (
        (f"name.{n % NAMES}", "failure" if n % 3 else "success", now - (EVENTS - n) * 10**9, now, '{"tenant":"a"}')
        for n in range(EVENTS)
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE journal SET covered_since_ns = 0")
        connection.executemany(
            "INSERT INTO events (recorder, name, outcome, completed_ns, started_ns, source, attempts, observed)"
            " VALUES (1, ?, ?, ?, ?, 'handler', 1, ?)",
            rows,
        )
    yield from opened(path, runner)


# -- phases

LOOK = (
    "SELECT m.phase, m.version, m.revision, o.phases FROM migrations m"
    " JOIN orders o ON o.migration = m.name AND o.revision = m.revision WHERE m.name = 'm'"
)


def bare_current(connection: sqlite3.Connection) -> str:
    connection.execute("BEGIN")
    connection.execute("PRAGMA user_version").fetchone()
    phase, _, _, phases = connection.execute(LOOK).fetchone()
    connection.execute("COMMIT")
    json.loads(phases)
    return phase


def bare_try_advance(attempt: str, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("PRAGMA user_version").fetchone()
    phase, version, _, phases = connection.execute(LOOK).fetchone()
    assert json.loads(phases)[0] == phase
    assert connection.execute("SELECT version FROM transitions WHERE attempt = ?", [attempt]).fetchone() is None
    connection.execute(
        "UPDATE migrations SET phase = ?, version = ? WHERE name = 'm' AND phase = ? AND version = ?",
        [PHASES[1], version + 1, phase, version],
    )
    connection.execute(
        "INSERT INTO transitions (attempt, migration, version, from_phase, to_phase, at_ns, evidence)"
        " VALUES (?, 'm', ?, ?, ?, ?, ?)",
        [attempt, version + 1, phase, PHASES[1], CLOCK.now().wall_ns, '{"ready": {"count": 0}}'],
    )
    connection.execute("COMMIT")


@pytest.mark.parametrize("kind", KINDS)
def test_current(benchmark: Any, bench: Bench, kind: str) -> None:
    """100 reads of the phase."""
    store = bench.stores.phase_store(SPEC)
    bench.runner.run(store.current())
    read = store.current if kind == "ours" else partial(bench.do, kind, bare_current)
    benchmark(bench.many(read, 100))


@pytest.mark.parametrize("kind", KINDS)
def test_try_advance(benchmark: Any, bench: Bench, kind: str) -> None:
    """One compare-and-set, with its transition."""
    store = bench.stores.phase_store(SPEC)
    bench.runner.run(store.current())
    attempts = map("a{}".format, itertools.count())

    def back() -> tuple[tuple[str], dict[str, object]]:
        with closing(bench.connect()) as connection:
            connection.execute("UPDATE migrations SET phase = 'expand'")
        return (next(attempts),), {}

    async def ours(attempt: str) -> None:
        snapshot = EvidenceSnapshot(attempt, {"ready": {"count": 0}})
        assert type(await store.try_advance(PHASES[0], PHASES[1], snapshot)) is Ok

    async def bare(attempt: str) -> None:
        await bench.do(kind, partial(bare_try_advance, attempt))

    step = ours if kind == "ours" else bare
    benchmark.pedantic(lambda attempt: bench.runner.run(step(attempt)), setup=back, rounds=300, warmup_rounds=20)


# -- queries over a million events


@pytest.mark.parametrize("kind", KINDS)
def test_silence(benchmark: Any, full: Bench, kind: str) -> None:
    """100 times: nothing named that way happened in two weeks."""

    def bare(connection: sqlite3.Connection) -> None:
        since_ns = CLOCK.now().shifted(-14 * DAY).wall_ns
        found = connection.execute(
            "SELECT * FROM events WHERE name = ? AND outcome IN ('success', 'failure') AND completed_ns >= ? LIMIT 1",
            ["silent", since_ns],
        )
        assert found.fetchone() is None

    async def ours() -> None:
        found = await full.stores.journal_store.query(JournalQuery("silent"), 14 * DAY)
        assert (len(found), found.witnessed, found.gaps) == (0, True, ())

    benchmark(full.many(ours if kind == "ours" else partial(full.do, kind, bare), 100))


@pytest.mark.parametrize("what", ["20,000 of a name", "where over 20,000", "where over all", "the newest 10"])
def test_query(benchmark: Any, full: Bench, what: str) -> None:
    """Longer answers, and a `where` that is asked about much."""
    query, found = {
        "20,000 of a name": (JournalQuery("name.7"), EVENTS // NAMES),
        "where over 20,000": (JournalQuery("name.7", where=lambda event: event.attempts > 1), 0),
        "where over all": (JournalQuery(where=lambda event: event.attempts > 1), 0),
        "the newest 10": (JournalQuery(limit=10), 10),
    }[what]

    def ask() -> None:
        assert len(full.runner.run(full.stores.journal_store.query(query, 100 * DAY))) == found

    benchmark.pedantic(ask, rounds=1 if "all" in what else 10)


@pytest.mark.parametrize("what", ["20,000 of a name", "all"])
def test_bare_rows(benchmark: Any, full: Bench, what: str) -> None:
    """Reading the rows of these queries, and nothing else."""
    where = "name = 'name.7' AND outcome IN ('success', 'failure')" if what != "all" else "completed_ns >= 0"

    def read(connection: sqlite3.Connection) -> None:
        for _ in connection.execute(f"SELECT * FROM events WHERE {where} ORDER BY completed_ns DESC"):
            pass

    benchmark.pedantic(lambda: full.runner.run(full.do("no thread", read)), rounds=1 if what == "all" else 10)


# -- recording


@pytest.mark.parametrize("name", ["no recorder", "in the background", "durable", "durable, 1,000 at once"])
def test_recorded_async(benchmark: Any, bench: Bench, name: str) -> None:
    """1,000 calls of a recorded coroutine function."""
    journal = Journal[Any](clock=CLOCK) if name == "no recorder" else bench.journal

    @recorded(journal, "kept" if "durable" in name else "seen")
    async def call() -> None:
        pass

    async def at_once() -> None:
        await asyncio.gather(*(call() for _ in range(1_000)))

    def settle() -> None:
        bench.runner.run(bench.recorder.flush())

    run = bench.many(at_once, 1) if "at once" in name else bench.many(call, 1_000)
    benchmark.pedantic(run, setup=settle, rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("name", ["seen", "kept"])
def test_recorded_plain(benchmark: Any, bench: Bench, name: str) -> None:
    """1,000 calls of a recorded plain function: in the background, and durable."""
    call = recorded(bench.journal, name)(lambda: None)

    def calls() -> None:
        for _ in range(1_000):
            call()

    def settle() -> None:
        bench.runner.run(bench.recorder.flush())

    benchmark.pedantic(calls, setup=settle, rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("kind", KINDS)
def test_durable_start(benchmark: Any, bench: Bench, kind: str) -> None:
    """100 starts, one after the other, beside bare inserts of the same row."""
    numbers = itertools.count()
    sql = (
        "INSERT INTO starts (recorder, call_id, name, started_ns, source, observed) VALUES (?, ?, 'kept', ?, 'handler',"
        " '{}') ON CONFLICT DO NOTHING"
    )

    def bare(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("PRAGMA user_version").fetchone()
        connection.execute(sql, [bench.recorder.id, f"call-{next(numbers)}", CLOCK.now().wall_ns])
        connection.execute("COMMIT")

    @recorded(bench.journal, "kept")
    async def ours() -> None:
        pass

    run = bench.many(ours if kind == "ours" else partial(bench.do, kind, bare), 100)
    benchmark.pedantic(run, setup=lambda: bench.runner.run(bench.recorder.flush()), rounds=20, warmup_rounds=1)


def test_flush(benchmark: Any, bench: Bench) -> None:
    """Storing 20,000 events that wait."""
    event = make_event("seen", clock=CLOCK, observed={"tenant": "a", "n": 1})

    def fill() -> None:
        bench.runner.run(bench.recorder.flush())
        for _ in range(20_000):
            bench.journal.append(event)

    benchmark.pedantic(lambda: bench.runner.run(bench.recorder.flush()), setup=fill, rounds=5)
