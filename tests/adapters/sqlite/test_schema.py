"""The tables of the file: made once, brought forward by one step after another, and left alone otherwise."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters.sqlite import FileStoreError
from phyxius.adapters.sqlite import _schema as schema
from phyxius.clock import ControlledClock
from tests.adapters.sqlite.support import NAME, Crowd, assert_idle, bare, contents, file_stores, snapshot, spec_of
from tests.places import FilePlace

SPEC = spec_of()
STEP = ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (1)")
BROKEN = ("CREATE TABLE extra (x)", "INSERT INTO extra VALUES (1)", "INSERT INTO missing VALUES (1)")


@pytest.fixture
def memory() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


async def make(directory: Path, phase: str = "flip") -> Path:
    """A file of this version whose migration has taken a step."""
    async with file_stores(directory) as stores:
        await stores.phase_store(SPEC).try_advance("expand", phase, snapshot("a"))
    return directory / NAME


def newer(monkeypatch: pytest.MonkeyPatch, *steps: tuple[str, ...]) -> None:
    """From now on this library has more versions of the schema."""
    monkeypatch.setattr(schema, "UPGRADES", (*schema.UPGRADES, *steps))


def version(path: Path) -> int:
    with bare(path) as connection:
        return schema.version_of(connection)


# -- a new file


def test_an_empty_file_becomes_ours(memory: sqlite3.Connection) -> None:
    """What holds nothing may be ours, and is so after the upgrade; its time begins then."""
    assert schema.is_ours(memory)
    schema.upgrade(memory, 7, "process")
    assert schema.is_ours(memory)
    assert schema.version_of(memory) == len(schema.UPGRADES)
    ((one, file, stamp, covered, request),) = memory.execute("SELECT * FROM journal")
    assert (one, len(file), stamp, covered, request) == (1, 32, "process", 7, 0)
    assert memory.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"phyx", "big"),)


def test_an_upgrade_is_made_once(memory: sqlite3.Connection) -> None:
    """Made again, it changes nothing: not even the name of the file."""
    schema.upgrade(memory, 7, "process")
    before = list(memory.iterdump())
    schema.upgrade(memory, 8, "test")
    assert list(memory.iterdump()) == before


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE t (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1", "CREATE VIEW v AS SELECT 1"],
)
def test_whose_it_is(memory: sqlite3.Connection, statement: str) -> None:
    """A table, a mark or a version that we did not make is another's."""
    memory.execute(statement)
    assert not schema.is_ours(memory)


async def test_each_file_has_a_name(tmp_path: Path) -> None:
    """Two files have two names, by which recorders tell them apart, whatever their paths."""
    names = set()
    for directory in (tmp_path / "a", tmp_path / "b"):
        directory.mkdir()
        for _ in range(2):
            async with file_stores(directory) as stores:
                names.add(stores._database.identity)
    assert len(names) == 2


async def test_it_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    """Readers and the writer do not wait for each other, and what was committed is on the disk."""
    path = await make(tmp_path)
    with bare(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    async with file_stores(tmp_path) as stores:
        for run in (stores._database.read, stores._database.write, stores._database.query):
            assert await run(lambda each: each.execute("PRAGMA synchronous").fetchone()) == (2,)


# -- from version to version


async def test_an_older_file_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step that is missing is made once, in order, and nothing that was there is lost."""
    path = await make(tmp_path)
    before = contents(path)
    newer(monkeypatch, STEP, ("INSERT INTO extra SELECT x + 1 FROM extra",))
    for _ in range(2):
        async with file_stores(tmp_path) as stores:
            assert await stores.phase_store(SPEC).current() == "flip"
    assert version(path) == 3
    assert contents(path) == before | {"extra": [(1,), (2,)]}


async def test_a_new_file_takes_all_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file made by a newer library is of its version from the start."""
    newer(monkeypatch, STEP)
    path = await make(tmp_path)
    assert version(path) == 2
    assert contents(path)["extra"] == [(1,)]


@pytest.mark.parametrize("old", [True, False], ids=["old file", "new file"])
async def test_a_step_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    """It leaves the file as it was, byte for byte, and the version that it had goes on with it."""
    path = tmp_path / NAME
    if old:
        await make(tmp_path)
    before = path.read_bytes() if old else b""
    with monkeypatch.context() as patched:
        newer(patched, STEP, BROKEN)
        with pytest.raises(FileStoreError, match=r"table extra already exists|no such table: missing") as caught:
            await make(tmp_path)
        assert caught.value.problem == "failed"
    assert path.read_bytes() == before
    assert_idle(path)
    async with file_stores(tmp_path) as stores:
        assert await stores.phase_store(SPEC).current() == ("flip" if old else "expand")


def test_threads_bring_it_forward_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that find an older file one makes the step, and all go on."""
    asyncio.run(make(tmp_path))
    newer(monkeypatch, STEP)

    async def run() -> str:
        async with file_stores(tmp_path) as stores:
            return await stores.phase_store(SPEC).current()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: asyncio.run(run()), range(8))) == ["flip"] * 8
    assert contents(tmp_path / NAME)["extra"] == [(1,)]


UPGRADER = f"""
import asyncio, json, sys
from phyxius.adapters.sqlite import _schema as schema, open_file_stores
from phyxius.migration import define_migration

schema.UPGRADES += ({STEP!r},)
SPEC = define_migration(name="quotes", phases={{phase: {{}} for phase in ("expand", "flip", "contract")}})

async def run(path):
    async with open_file_stores(path) as stores:
        return await stores.phase_store(SPEC).current()

print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    try:
        told = asyncio.run(run(json.loads(line)))
    except BaseException as error:
        told = repr(error)
    print(json.dumps(told), flush=True)
"""


def test_processes_bring_it_forward_at_once(tmp_path: Path) -> None:
    """The same for processes, with an older file and with a new one."""
    (tmp_path / "old").mkdir()
    old = asyncio.run(make(tmp_path / "old"))
    FilePlace(old).change("UPDATE journal SET stamped_by = 'process'")
    with Crowd(UPGRADER, ["" for _ in range(4)]) as crowd:
        assert crowd.tell(str(old)) == ["flip"] * 4
        assert crowd.tell(str(tmp_path / "new.db")) == ["expand"] * 4
    for path in (old, tmp_path / "new.db"):
        assert contents(path)["extra"] == [(1,)]


async def test_a_newer_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that does not know its version does not open it, and says which it is."""
    with monkeypatch.context() as patched:
        newer(patched, STEP)
        path = await make(tmp_path)
    before = path.read_bytes()
    with pytest.raises(FileStoreError, match="schema version 2, known up to 1") as caught:
        await make(tmp_path)
    assert caught.value.problem == "newer"
    assert path.read_bytes() == before


async def test_it_becomes_newer_while_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process brings the file forward, the earlier version stops, in reading and in writing."""
    async with file_stores(tmp_path) as stores:
        store = stores.phase_store(SPEC)
        assert await store.current() == "expand"
        with monkeypatch.context() as patched:
            newer(patched, STEP)
            async with file_stores(tmp_path) as others:
                assert await others.phase_store(SPEC).current() == "expand"
        before = contents(tmp_path / NAME)
        for work in (store.current(), store.try_advance("expand", "flip", snapshot("a")), store.resolve("a")):
            with pytest.raises(FileStoreError) as caught:
                await work
            assert caught.value.problem == "newer"
        assert contents(tmp_path / NAME) == before
        assert_idle(tmp_path / NAME)


async def test_it_becomes_newer_while_it_is_brought_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phyxius_clock: ControlledClock
) -> None:
    """Who waits to bring it forward, and finds that a still newer version was first, leaves it alone."""
    path = await make(tmp_path)
    newer(monkeypatch, STEP)

    class Later:
        """A connection before whose transaction another process is faster."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, statement: str, *args: Any) -> Any:
            if statement == "BEGIN EXCLUSIVE":
                with bare(path) as other:
                    other.execute("PRAGMA user_version = 9")
            return self._connection.execute(statement, *args)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

    async with file_stores(tmp_path, phyxius_clock) as stores:
        with bare(path) as connection:
            connection.execute("PRAGMA user_version = 1")
            with pytest.raises(FileStoreError, match="schema version 9, known up to 2") as caught:
                stores._database._upgrade(Later(connection))  # type: ignore[arg-type]
            assert caught.value.problem == "newer"
            assert not connection.in_transaction
