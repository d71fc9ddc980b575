"""What an application pays on each read, beside LaunchDarkly's `Migrator` that does the same read.

There are two groups, one of async and one of plain code. The factors in brackets are over the fastest of the group,
which is the bare call: a look into a dict, so that they are as large as they can be. Trust the ratios, not the
absolutes.

`Migrator` runs on the real client, which takes the flag from the test source of its SDK and sends no events: it builds
them, and drops them. It is plain only, so async code calls it as it is, which is right for a read that never blocks, or
in a thread.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from ldclient import Config, Context, LDClient, Result
from ldclient.integrations.test_data import TestData
from ldclient.migrations import ExecutionOrder, MigratorBuilder, Stage

from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import SyncMigration, opened
from phyxius.clock import create_system_clock
from phyxius.handler import Parity, recorded, shadow
from phyxius.journal import Journal
from phyxius.migration import Migration, create_memory_phase_store, create_migration, define_migration

CLOCK = create_system_clock()
SPEC = define_migration(name="quotes", phases={"off": {}, "shadow": {}, "complete": {}})
TABLE = {number: f"quote {number}" for number in range(1_000)}
ANSWERS = list(TABLE.values())
JOURNALS = ["unbounded", "full ring"]
STORES = ["memory", "file"]
USER = Context.create("ada")
Read = Callable[[int], Any]
Measure = Callable[[Read], None]


async def read_async(number: int) -> str:
    return TABLE[number]


def read_plain(number: int) -> str:
    return TABLE[number]


def never(number: int) -> str:
    raise AssertionError("the phase is another")


async def never_async(number: int) -> str:
    never(number)


def make_journal(kind: str = "full ring") -> Journal[Any]:
    """A journal. An unbounded one grows all the time that it is measured; a ring is full before."""
    if kind == "unbounded":
        return Journal(clock=CLOCK)
    journal = Journal[Any](clock=CLOCK, max_entries=10_000, overflow="drop_oldest")
    fill = recorded(journal, "quote.read")(read_plain)
    for _ in range(10):
        for number in TABLE:
            fill(number)
    return journal


def in_memory(initial: str) -> Migration[Any]:
    store = create_memory_phase_store(initial=initial, clock=CLOCK)
    return create_migration(SPEC, journal=make_journal(), phase_store=store)


def assert_all_matched(journal: Journal[Any]) -> None:
    attempts = [entry.data for entry in journal if entry.data.name == "quote.compare"]
    assert len(attempts) >= len(TABLE)
    assert {attempt.observed["parity"] for attempt in attempts} == {Parity.MATCHED.value}


# -- async code


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def measure_async(benchmark: Any, runner: asyncio.Runner) -> Measure:
    """Reads the whole table in one run of the loop, so that starting the loop does not count."""
    benchmark.group = "async code, 1,000 reads"

    def measure(read: Read) -> None:
        async def read_all() -> list[str]:
            return [await read(number) for number in TABLE]

        assert benchmark(lambda: runner.run(read_all())) == ANSWERS

    return measure


def test_async_bare(measure_async: Measure) -> None:
    """The call itself."""
    measure_async(read_async)


@pytest.mark.parametrize("kind", JOURNALS)
def test_async_recorded(measure_async: Measure, kind: str) -> None:
    """The call becomes an event."""
    journal = make_journal(kind)
    appended = journal.last()
    measure_async(recorded(journal, "quote.read")(read_async))
    assert journal.last() is not appended
    assert len(journal) >= len(TABLE)


@pytest.mark.parametrize("store", STORES)
def test_async_by_phase(measure_async: Measure, runner: asyncio.Runner, tmp_path: Path, store: str) -> None:
    """The phase is read at each call."""
    handlers = {"off": read_async, "shadow": never_async, "complete": never_async}
    if store == "memory":
        measure_async(in_memory("off").by_phase(handlers))
        return
    stack = AsyncExitStack()
    stores = runner.run(stack.enter_async_context(open_file_stores(tmp_path / "m.db", clock=CLOCK)))
    try:
        migration = create_migration(SPEC, journal=Journal(clock=CLOCK), phase_store=stores.phase_store(SPEC))
        measure_async(migration.by_phase(handlers))
    finally:
        runner.run(stack.aclose())


def test_async_by_phase_recorded(measure_async: Measure) -> None:
    """Both, as an application has it."""
    journal = make_journal()
    appended = journal.last()
    record = recorded(journal, "quote.read")
    handlers = {"off": record(read_async), "shadow": record(never_async), "complete": record(never_async)}
    measure_async(in_memory("off").by_phase(handlers))
    assert journal.last() is not appended


def test_async_by_phase_record_as(measure_async: Measure) -> None:
    """Both, and the phase is recorded."""
    migration = in_memory("off")
    handlers = {"off": read_async, "shadow": never_async, "complete": never_async}
    measure_async(migration.by_phase(handlers, record_as="quote.read"))
    last: Any = migration.journal.last()
    assert last.data.observed == {"phase": "off"}


@pytest.mark.parametrize("routed", ["alone", "by phase"])
def test_async_shadow(measure_async: Measure, routed: str) -> None:
    """Both sides are read, compared, and the comparison recorded, which is awaited here before the next read."""
    journal = make_journal()
    read = shadow(journal, "quote.compare", old=read_async, new=read_async)
    if routed == "by phase":
        read = in_memory("shadow").by_phase({"off": never_async, "shadow": read, "complete": never_async})

    async def read_and_wait(number: int) -> str:
        answer = await read(number)
        while journal.in_flight:  # noqa: ASYNC110 - a journal tells nobody of that
            await asyncio.sleep(0)
        return answer

    measure_async(read_and_wait)
    assert_all_matched(journal)


# -- plain code


@pytest.fixture
def measure_plain(benchmark: Any) -> Measure:
    """Reads the whole table."""
    benchmark.group = "plain code, 1,000 reads"

    def measure(read: Read) -> None:
        assert benchmark(lambda: [read(number) for number in TABLE]) == ANSWERS

    return measure


def test_plain_bare(measure_plain: Measure) -> None:
    """The call itself."""
    measure_plain(read_plain)


@pytest.mark.parametrize("kind", JOURNALS)
def test_plain_recorded(measure_plain: Measure, kind: str) -> None:
    """The call becomes an event."""
    journal = make_journal(kind)
    appended = journal.last()
    measure_plain(recorded(journal, "quote.read")(read_plain))
    assert journal.last() is not appended
    assert len(journal) >= len(TABLE)


@pytest.mark.parametrize("store", STORES)
def test_plain_by_phase(measure_plain: Measure, tmp_path: Path, store: str) -> None:
    """The phase is read at each call, on the event loop in the background."""
    handlers = {"off": read_plain, "shadow": never, "complete": never}
    if store == "memory":
        measure_plain(SyncMigration(in_memory("off")).by_phase(handlers))
        return
    with opened(open_file_stores(tmp_path / "m.db", clock=CLOCK)) as stores:
        migration = create_migration(SPEC, journal=Journal(clock=CLOCK), phase_store=stores.phase_store(SPEC))
        measure_plain(SyncMigration(migration).by_phase(handlers))


def test_plain_by_phase_recorded(measure_plain: Measure) -> None:
    """Both, as an application has it."""
    journal = make_journal()
    appended = journal.last()
    record = recorded(journal, "quote.read")
    handlers = {"off": record(read_plain), "shadow": record(never), "complete": record(never)}
    measure_plain(SyncMigration(in_memory("off")).by_phase(handlers))
    assert journal.last() is not appended


def test_plain_by_phase_record_as(measure_plain: Measure) -> None:
    """Both, and the phase is recorded."""
    migration = SyncMigration(in_memory("off"))
    handlers = {"off": read_plain, "shadow": never, "complete": never}
    measure_plain(migration.by_phase(handlers, record_as="quote.read"))
    last: Any = migration.journal.last()
    assert last.data.observed == {"phase": "off"}


@pytest.mark.parametrize("routed", ["alone", "by phase"])
def test_plain_shadow(measure_plain: Measure, routed: str) -> None:
    """The same, in a thread for each comparison."""
    journal = make_journal()
    read = shadow(journal, "quote.compare", old=read_plain, new=read_plain)
    if routed == "by phase":
        read = SyncMigration(in_memory("shadow")).by_phase({"off": never, "shadow": read, "complete": never})

    def read_and_wait(number: int) -> str:
        answer = read(number)
        while journal.in_flight:
            time.sleep(0)
        return answer

    measure_plain(read_and_wait)
    assert_all_matched(journal)


# -- LaunchDarkly


class LaunchDarkly:
    """A client with a flag, and what reads by it."""

    def __init__(self, client: LDClient, flags: TestData) -> None:
        self._client = client
        self._flags = flags

    def read_at(self, stage: Stage, order: ExecutionOrder = ExecutionOrder.PARALLEL) -> Read:
        """What reads at a stage. That it compares both sides in `shadow`, and only there, is seen beforehand."""
        self._flags.update(self._flags.flag("quotes").variations(stage.value).variation_for_all(0))
        compared: list[tuple[str, str]] = []
        seen = self._read(order, stage, lambda *answers: compared.append(answers) or True)
        assert seen(7) == TABLE[7]
        assert compared == ([(TABLE[7], TABLE[7])] if stage is Stage.SHADOW else [])
        return self._read(order, stage, operator.eq)

    def _read(self, order: ExecutionOrder, stage: Stage, compare: Callable[[str, str], bool]) -> Read:
        new = read_plain if stage is Stage.SHADOW else never
        builder = MigratorBuilder(self._client).read_execution_order(order)
        builder.read(
            old=lambda number: Result.success(read_plain(number)),
            new=lambda number: Result.success(new(number)),
            comparison=compare,
        )
        builder.write(never, never)
        migrator = builder.build()
        # The default is another stage, so that an answer which is right shows that the flag was read.
        return lambda number: migrator.read("quotes", USER, Stage.COMPLETE, number).value


@pytest.fixture
def launchdarkly() -> Iterator[LaunchDarkly]:
    flags = TestData.data_source()
    config = Config("no key", update_processor_class=flags, send_events=False, diagnostic_opt_out=True)
    with LDClient(config=config, start_wait=10) as client:
        assert client.is_initialized()
        yield LaunchDarkly(client, flags)


@pytest.mark.parametrize("how", ["as it is", "to_thread"])
def test_async_migrator_off(measure_async: Measure, launchdarkly: LaunchDarkly, how: str) -> None:
    """The flag is read at each call, by plain code that async code calls."""
    read = launchdarkly.read_at(Stage.OFF)

    async def as_it_is(number: int) -> str:
        return read(number)

    measure_async(as_it_is if how == "as it is" else lambda number: asyncio.to_thread(read, number))


def test_plain_migrator_off(measure_plain: Measure, launchdarkly: LaunchDarkly) -> None:
    """The flag is read at each call: the counterpart of `by_phase`."""
    measure_plain(launchdarkly.read_at(Stage.OFF))


@pytest.mark.parametrize("order", [ExecutionOrder.PARALLEL, ExecutionOrder.SERIAL], ids=lambda order: order.value)
def test_plain_migrator_shadow(measure_plain: Measure, launchdarkly: LaunchDarkly, order: ExecutionOrder) -> None:
    """Both sides are read and compared, before the call answers: the counterpart of `shadow` by phase."""
    measure_plain(launchdarkly.read_at(Stage.SHADOW, order))
