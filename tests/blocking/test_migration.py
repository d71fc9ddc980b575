"""A migration whose methods are plain functions, over real stores."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters._stores import SqlStores
from phyxius.blocking import SyncMigration, opened, run
from phyxius.clock import create_system_clock
from phyxius.fp import Err, Ok, ok
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import (
    AlreadyAtFinal,
    JournalQuery,
    SpecError,
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from tests.blocking.support import interrupting
from tests.places import FILE, SERVERS, place_of

MINUTE = timedelta(minutes=1)


@contextmanager
def stores_of(kind: str, directory: Path) -> Iterator[SqlStores]:
    """Stores that are open in the background."""
    with opened(place_of(kind, directory)) as place, opened(place.stores(create_system_clock())) as stores:
        place.change("UPDATE journal SET covered_since_ns = 0")  # they have held everything for years
        yield stores


def spec_of(stores: SqlStores) -> Any:
    return define_migration(
        name="quotes",
        phases={
            "expand": {},
            "flip": {"signed": stores.attestations.signed_off()},
            "contract": {"silent": journal_window("quote.read_old", timedelta(milliseconds=1), no_events())},
        },
    )


@pytest.mark.parametrize("kind", [FILE, *SERVERS])
def test_a_whole_migration_without_an_event_loop(kind: str, tmp_path: Path) -> None:
    """From the first phase to the last, with what plain handlers record durably, and signatures."""
    with stores_of(kind, tmp_path) as stores:
        journal = Journal[Any](clock=stores.clock)
        spec = spec_of(stores)
        store = stores.phase_store(spec)
        migration: SyncMigration[Any] = SyncMigration(
            create_migration(spec, journal=journal, journal_store=stores.journal_store, phase_store=store)
        )

        @recorded(journal, "quote.read_old")
        def read_old(number: int) -> str:
            return f"quote {number}"

        def read_new(number: int) -> str:
            return f"sales document {number}"

        read = migration.by_phase({"expand": read_old, "flip": read_old, "contract": read_new})
        assert (migration.name, migration.spec) == ("quotes", spec)
        with opened(stores.recorder(journal, name="worker-1", durable=["quote.read_old"])):
            assert migration.current_phase() == "expand"
            assert migration.readiness().ready is False
            refused = migration.advance()
            assert isinstance(refused, Err)
            assert "1 signature is wanted" in refused.error.message
            run(stores.attestations.sign(spec, to="flip", source="signed", signer="ada"))
            assert isinstance(migration.advance(to="flip"), Ok)
            with ThreadPoolExecutor(8) as threads:
                assert list(threads.map(read, range(40))) == [f"quote {number}" for number in range(40)]
            window = run(stores.journal_store.query(JournalQuery("quote.read_old"), MINUTE))
            assert len(window) == 40
            while isinstance(answer := migration.advance(to="contract"), Err):
                assert "quote.read_old" in answer.error.message, "the last one is too young yet"
            assert read(7) == "sales document 7"
            assert isinstance(migration.advance().error, AlreadyAtFinal)  # type: ignore[union-attr]
        assert [each.to_phase for each in run(store.history())] == ["flip", "contract"]


AT_EXIT = """
import sys
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from phyxius.adapters.sqlalchemy import open_stores
from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import keep_open
from phyxius import Journal, recorded

where = sys.argv[1]
if "://" in where:
    stores = open_stores(create_async_engine(where, poolclass=NullPool))
else:
    stores = open_file_stores(where)
journal = Journal(clock=stores.clock)
keep_open(stores)
keep_open(stores.recorder(journal, name="worker-1", durable=["read"]))
with recorded(journal, "read"):
    pass
"""


@pytest.mark.parametrize("kind", [FILE, *SERVERS])
def test_a_recorder_that_is_kept_open_leaves_no_gap(kind: str, tmp_path: Path) -> None:
    """At the exit of the interpreter it stores the rest, and says that its process has closed."""
    with opened(place_of(kind, tmp_path)) as place:
        done = subprocess.run(
            [sys.executable, "-c", AT_EXIT, place.path if kind == FILE else place.url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "Error" not in done.stderr
        assert place.rows("SELECT closed FROM recorders") == [(1,)]
        assert place.rows("SELECT count(*) FROM events") == [(1,)]


def in_memory(**evidence: Any) -> SyncMigration[Any]:
    journal = Journal[Any](clock=create_system_clock())
    spec: Any = define_migration(name="quotes", phases={"expand": {}, "flip": evidence})
    phases = create_memory_phase_store(initial="expand", clock=journal.clock)
    return SyncMigration(create_migration(spec, journal=journal, phase_store=phases))


def test_threads_race_for_one_step() -> None:
    """One of them takes it."""
    migration = in_memory()
    barrier = threading.Barrier(8)

    def press(_: int) -> Any:
        barrier.wait(30)
        return migration.advance(to="flip")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(press, range(8)))
    assert sum(isinstance(answer, Ok) for answer in answers) == 1
    assert migration.current_phase() == "flip"


def test_an_interrupt_moves_nothing() -> None:
    """Before the compare-and-set all stops, and the audit says so; a plain check may press again."""
    began = threading.Event()

    @schema_applied
    async def slow() -> Any:
        began.set()
        await asyncio.Event().wait()

    migration = in_memory(slow=slow)
    with interrupting(began), pytest.raises(KeyboardInterrupt):
        migration.advance()
    assert migration.current_phase() == "expand"
    journal: Any = migration._migration._runtime.journal
    assert journal.last().data.observed["refusal"]["type"] == "CANCELLED"


async def test_an_event_loop_is_refused() -> None:
    """Also that of a check that runs on it: it would wait for itself."""
    migration = in_memory()
    for ask in (migration.current_phase, migration.advance, migration.readiness):
        with pytest.raises(RuntimeError, match="await the method of the Migration itself"):
            ask()
    assert await asyncio.to_thread(migration.current_phase) == "expand"


def test_a_check_may_ask_another_migration() -> None:
    """A plain check runs in a thread of its own, which may wait; an async one may not."""
    first = in_memory()

    @schema_applied
    def plain() -> Any:
        return ok(first.current_phase())

    @schema_applied
    async def awaits() -> Any:
        return ok(first.current_phase())

    assert in_memory(first=plain).advance().value.evidence == {"first": "expand"}  # type: ignore[union-attr]
    refused = in_memory(first=awaits).advance()
    assert isinstance(refused, Err)
    assert "this thread runs an event loop" in refused.error.message


def test_misuse() -> None:
    """It is refused where it is put together."""
    migration = in_memory()
    assert SyncMigration(migration.migration).journal is migration.journal
    wrong: Any = migration
    with pytest.raises(SpecError, match="needs what create_migration"):
        SyncMigration(wrong)
    with pytest.raises(SpecError, match="lacks"):
        migration.by_phase({"expand": print})

    async def awaits() -> None: ...

    with pytest.raises(SpecError, match="nobody here awaits"):
        migration.by_phase({"expand": print, "flip": awaits})


class Keeper:
    """Stores that calls begin, and lets something happen meanwhile."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.kept: list[object] = []
        self._meanwhile = meanwhile

    def wants(self, call: object, /) -> bool:
        return True

    def keep(self, call: Any, /) -> None:
        self.kept.append(dict(call.observed.known))
        self._meanwhile()

    async def keep_async(self, call: object, /) -> None:
        raise AssertionError("nobody awaits it")


def test_the_phase_is_recorded() -> None:
    """As by the migration itself: once it has read the phase it says so, and a durable call reads it again."""
    migration = in_memory()
    journal = migration.journal
    in_flight: list[Any] = []

    def save(number: int) -> int:
        in_flight.extend(dict(call.observed.known) for call in journal.in_flight)
        return number

    def fail(number: int) -> int:
        raise KeyError(number)

    route = migration.by_phase({"expand": save, "flip": fail}, record_as="quote.save")
    assert route(7) == 7
    everything = {"may_run_under": ["expand", "flip"]}
    assert in_flight == [{**everything, "phase": "expand"}]
    keeper = Keeper(migration.advance)
    journal.keep_starts(keeper)
    with pytest.raises(KeyError):
        route(8)
    assert keeper.kept == [{**everything, "phase": "expand"}, {**everything, "phase": "flip"}]
    events = [entry.data for entry in journal if entry.data.name == "quote.save"]
    assert [(event.observed["phase"], event.outcome) for event in events] == [
        ("expand", "success"),
        ("expand", "success"),
        ("flip", "failure"),
    ]
    assert not journal.in_flight
