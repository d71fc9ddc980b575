"""Opening the stores of a file: what may be opened, from where, how often, and what is left alone."""

# ruff: noqa: ASYNC240 - a test may wait for its own files
from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters.sqlite import FileStoreError, open_file_stores
from phyxius.adapters.sqlite import _database as database_module
from phyxius.adapters.sqlite._database import _mount_points
from phyxius.clock import ControlledClock, SystemClock, create_controlled_clock, run_in_thread
from phyxius.fp import Ok
from phyxius.journal import Journal
from phyxius.migration import SpecError
from tests.adapters.sqlite.support import (
    NAME,
    assert_idle,
    bare,
    contents,
    file_stores,
    snapshot,
    spec_of,
    worker_threads,
)

SPEC = spec_of()
SHORT = timedelta(milliseconds=5)
PAGE = 4096


async def use(path: Any, **options: Any) -> str:
    """Open the file, take the first step if it was not taken, and tell the phase."""
    options = {"clock": create_controlled_clock()} | options
    async with open_file_stores(path, **options) as stores:
        store = stores.phase_store(SPEC)
        await store.try_advance("expand", "flip", snapshot("a"))
        return await store.current()


async def refused(path: Path, **options: Any) -> FileStoreError:
    """Why the file cannot be opened; the file is the same after it, byte for byte, and no thread is left."""
    before = path.read_bytes() if os.path.isfile(path) else None  # noqa: PTH113 - Path raises for a long name
    with pytest.raises(FileStoreError) as caught:
        await use(path, **options)
    assert caught.value.path == str(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert (path.read_bytes() if before is not None else None) == before
    assert not worker_threads()
    return caught.value


# -- the path


@pytest.mark.parametrize(
    "name",
    ["a b.db", "a?b.db", "a#b.db", "a%20b.db", "a%.db", "ü☃.db", "a&mode=ro.db", "-", "a;b'\".db", "a\\b", "x:y"],
)
async def test_any_name(tmp_path: Path, name: str) -> None:
    """What means something in a URI is a plain character of a path."""
    assert [await use(tmp_path / name), await use(str(tmp_path / name))] == ["flip", "flip"]
    assert [each.name for each in tmp_path.iterdir()] == [name]


async def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A path whose bytes are no UTF-8 can be opened, as everywhere in Python."""
    name = os.fsdecode(b"\xff.db")
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system has no such names")
    assert await use(tmp_path / name) == "flip"


async def test_two_slashes(tmp_path: Path) -> None:
    """A path that begins with two slashes names no host."""
    assert await use(f"/{tmp_path}/a.db") == "flip"
    assert await use(tmp_path / "a.db") == "flip"


async def test_a_link_and_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is called, it is the same file."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    async with open_file_stores("real/a.db") as one, open_file_stores(Path("link/../real/./a.db")) as two:
        assert one._database.identity == two._database.identity
        await one.phase_store(SPEC).try_advance("expand", "flip", snapshot("a"))
        assert await two.phase_store(SPEC).current() == "flip"


async def test_the_working_directory_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is taken from where the stores were made, and not from where they are opened or used."""
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    stores = open_file_stores("a.db", clock=create_controlled_clock())
    assert stores.path == str(tmp_path / "here" / "a.db")
    monkeypatch.chdir(tmp_path / "there")
    async with stores:
        monkeypatch.chdir(tmp_path / "elsewhere")
        store = stores.phase_store(SPEC)
        assert await store.current() == "expand"
        assert isinstance(await store.try_advance("expand", "flip", snapshot("a")), Ok)
    assert {path.parent.name for path in tmp_path.rglob("*.db")} == {"here"}


@pytest.mark.parametrize(
    "path", ["", ":memory:", "file:a.db", "file:a.db?mode=memory", "file::memory:", "sqlite:///a.db", "a\0b"]
)
def test_what_is_no_path(path: str) -> None:
    """What SQLite would take for something else than a file is refused at once, and says what to use."""
    with pytest.raises(SpecError, match=r"a path to a file is wanted, not .*; in memory use create_memory_phase_store"):
        open_file_stores(path)


@pytest.mark.parametrize("lock_timeout", [timedelta(0), timedelta(seconds=-1)])
def test_a_time_that_makes_no_sense(lock_timeout: timedelta) -> None:
    """A lock that is not waited for would fail whenever two processes write at once."""
    with pytest.raises(SpecError, match="lock_timeout must be a positive"):
        open_file_stores("a.db", lock_timeout=lock_timeout)


@pytest.mark.parametrize("bound", [0, -1])
def test_a_bound_that_makes_no_sense(bound: int) -> None:
    """A window without events would be cut off always."""
    with pytest.raises(SpecError, match="max_window_events must be a whole number from 1"):
        open_file_stores("a.db", max_window_events=bound)


# -- its life


async def test_nothing_happens_before_it_is_opened(tmp_path: Path) -> None:
    """Made at module level the stores touch no file and start no thread."""
    stores = open_file_stores(tmp_path / NAME)
    stores.phase_store(SPEC)
    assert isinstance(stores.clock, SystemClock)
    assert stores.journal_store.clock is stores.clock
    assert list(tmp_path.iterdir()) == []
    assert not worker_threads()


async def test_it_is_opened_again_and_again(tmp_path: Path, phyxius_clock: ControlledClock) -> None:
    """After a close it can be opened once more, and the stores that were made from it work on."""
    stores = open_file_stores(tmp_path / NAME, clock=phyxius_clock)
    store = stores.phase_store(SPEC)
    async with stores as entered:
        assert entered is stores
        await store.try_advance("expand", "flip", snapshot("a"))
    assert not worker_threads()
    async with stores:
        assert await store.current() == "flip"


async def test_it_is_open_once(tmp_path: Path, phyxius_clock: ControlledClock) -> None:
    """Opened while it is open, or is being opened, it refuses, and what is open stays open."""
    stores = open_file_stores(tmp_path / NAME, clock=phyxius_clock)
    answers = await asyncio.gather(*(stores.__aenter__() for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(RuntimeError) == 2
    with pytest.raises(RuntimeError, match=r"phyxius\.db is open here already"):
        await stores.__aenter__()
    assert await stores.phase_store(SPEC).current() == "expand"
    await stores.__aexit__(None, None, None)
    assert not worker_threads()


async def test_after_it_could_not_be_opened(tmp_path: Path, phyxius_clock: ControlledClock) -> None:
    """What was in the way can be put right, and the same stores opened."""
    stores = open_file_stores(tmp_path / "later" / NAME, clock=phyxius_clock)
    with pytest.raises(FileStoreError):
        await stores.__aenter__()
    (tmp_path / "later").mkdir()
    async with stores:
        assert await stores.phase_store(SPEC).current() == "expand"


def test_two_event_loops(tmp_path: Path, phyxius_clock: ControlledClock) -> None:
    """One after the other, two event loops may open the same stores."""
    stores = open_file_stores(tmp_path / NAME, clock=phyxius_clock)

    async def run() -> str:
        async with stores:
            store = stores.phase_store(SPEC)
            await store.try_advance("expand", "flip", snapshot("a"))
            return await store.current()

    assert [asyncio.run(run()), asyncio.run(run())] == ["flip", "flip"]
    assert not worker_threads()


async def test_an_error_inside_closes_it(tmp_path: Path) -> None:
    """What is raised in the context goes through, and the file is closed all the same."""

    async def run() -> None:
        async with file_stores(tmp_path) as stores:
            await stores.phase_store(SPEC).current()
            raise KeyError

    with pytest.raises(KeyError):
        await run()
    assert not worker_threads()
    assert [each.name for each in tmp_path.iterdir()] == [NAME]  # no log is left beside it


async def test_a_file_of_no_bytes_becomes_ours(tmp_path: Path) -> None:
    """What `mktemp` or `touch` made is a place for a new file."""
    (tmp_path / NAME).touch()
    assert await use(tmp_path / NAME) == "flip"


async def test_a_database_without_tables_becomes_ours(tmp_path: Path) -> None:
    """A database that holds nothing is nobody's."""
    with bare(tmp_path / NAME) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("DROP TABLE t")
    assert (tmp_path / NAME).stat().st_size
    assert await use(tmp_path / NAME) == "flip"


async def test_a_recorder_is_on_the_same_clock(tmp_path: Path) -> None:
    """Two clocks could not be compared: the journal of another one is refused, and says what to write."""
    async with file_stores(tmp_path) as stores:
        assert stores.recorder(Journal(clock=stores.clock), name="web").name == "web"
        with pytest.raises(SpecError, match=r"open them with clock=journal\.clock"):
            stores.recorder(Journal(clock=create_controlled_clock()), name="web")


# -- what is left alone


def foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')")


def foreign_with_a_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE notes (text)")


def foreign_mark(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA application_id = 7")


def foreign_text(path: Path) -> None:
    path.write_text("to do: back this file up\n" * 1_000, encoding="utf-8")


def foreign_short(path: Path) -> None:
    path.write_bytes(b"42")


@pytest.mark.parametrize(
    "make",
    [foreign_database, foreign_with_a_log, foreign_mark, foreign_text, foreign_short],
    ids=lambda each: each.__name__,
)
async def test_a_file_of_others(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A file that is not ours is refused, and is the same after it."""
    make(tmp_path / NAME)
    assert (await refused(tmp_path / NAME)).problem == "foreign"


async def test_no_file(tmp_path: Path) -> None:
    """A directory, a pipe, a path below a file, one without a directory or too long for a name cannot be opened."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in ("directory", "pipe", "missing/a.db", "file/a.db", "x" * 300):
        assert (await refused(tmp_path / path)).problem == "unreachable", path
    assert {each.name for each in tmp_path.iterdir()} == {"directory", "file", "pipe"}


@pytest.mark.parametrize("since, until", [(PAGE, None), (PAGE, 3 * PAGE), (100, PAGE)])
async def test_a_damaged_file(tmp_path: Path, since: int, until: int | None) -> None:
    """A file with pages that are garbage is refused as what it is, and is not mended."""
    path = tmp_path / NAME
    await use(path)
    damaged = bytearray(path.read_bytes())
    damaged[since:until] = b"\xff" * len(damaged[since:until])
    path.write_bytes(damaged)
    assert (await refused(path)).problem == "corrupt"


@pytest.mark.parametrize("length", [50, PAGE, 3 * PAGE])
async def test_a_file_that_was_cut_off(tmp_path: Path, length: int) -> None:
    """A copy that did not come to its end is refused."""
    path = tmp_path / NAME
    await use(path)
    path.write_bytes(path.read_bytes()[:length])
    assert (await refused(path)).problem == "corrupt"


@contextmanager
def ordinary_user(directory: Path) -> Iterator[None]:
    """Permissions bind: whoever runs the tests as root is somebody else meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o777)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.parametrize(
    "file, directory, problem",
    [
        (0o444, 0o777, "read_only"),
        (0o444, 0o555, "read_only"),
        (0o666, 0o555, "read_only"),
        (0o000, 0o777, "unreachable"),
        (0o666, 0o000, "unreachable"),
    ],
)
async def test_a_file_that_may_not_be_written(open_directory: Path, file: int, directory: int, problem: str) -> None:
    """It shows when it is opened, and not at the first step of a migration; the file is the same after it."""
    path = open_directory / NAME
    await use(path)
    before = path.read_bytes()
    path.chmod(file)
    open_directory.chmod(directory)
    with ordinary_user(open_directory), pytest.raises(FileStoreError) as caught:
        await use(path)
    assert (caught.value.problem, caught.value.path) == (problem, str(path))
    assert path.read_bytes() == before
    path.chmod(0o666)
    assert await use(path) == "flip"


async def test_a_file_without_a_log_that_may_not_be_written(open_directory: Path) -> None:
    """A log that cannot be switched on for want of access is told as that, and is not waited for."""
    path = open_directory / NAME
    await use(path)
    with bare(path) as other:
        other.execute("PRAGMA journal_mode = DELETE")
    path.chmod(0o444)
    with ordinary_user(open_directory), pytest.raises(FileStoreError) as caught:
        await use(path, lock_timeout=timedelta(hours=1))
    assert caught.value.problem == "read_only"


async def test_a_new_file_where_none_may_be(open_directory: Path) -> None:
    """Where no file can be made the directory is what is to be looked at."""
    open_directory.chmod(0o555)
    with ordinary_user(open_directory), pytest.raises(FileStoreError, match="check that its directory") as caught:
        await use(open_directory / NAME)
    assert caught.value.problem == "unreachable"
    assert list(open_directory.iterdir()) == []


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_a_file_that_is_locked(tmp_path: Path, begin: str) -> None:
    """A lock that another process holds for longer than is waited for is named as such; after it, all is well."""
    path = tmp_path / NAME
    await use(path)
    before = path.read_bytes()
    with bare(path) as other:
        other.execute(begin)
        with pytest.raises(FileStoreError, match="give a longer lock_timeout=") as caught:
            await use(path, lock_timeout=SHORT)
    assert (caught.value.problem, path.read_bytes()) == ("locked", before)
    assert await use(path, lock_timeout=SHORT) == "flip"


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
async def test_a_new_file_that_is_locked(tmp_path: Path, begin: str) -> None:
    """The same for a file that is just being made by somebody else."""
    path = tmp_path / NAME
    with bare(path) as other:
        other.execute(begin)
        with pytest.raises(FileStoreError) as caught:
            await use(path, lock_timeout=SHORT)
        assert caught.value.problem == "locked"
    assert await use(path, lock_timeout=SHORT) == "flip"


async def test_somebody_who_reads_a_file_without_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log cannot be switched on under a reader's eyes; that is waited for, and after it tried again."""
    path = tmp_path / NAME
    tried = threading.Event()
    switch = database_module._journal_mode

    def spied(connection: sqlite3.Connection) -> str | None:
        mode = switch(connection)
        if mode is None:
            tried.set()
        return mode

    await use(path)
    with bare(path) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT * FROM journal").fetchall()
        error = await refused(path, lock_timeout=SHORT)
        assert (error.problem, error.detail) == ("locked", "another process keeps it from using a write-ahead log")
        monkeypatch.setattr(database_module, "_journal_mode", spied)
        waiting = asyncio.ensure_future(use(path, lock_timeout=timedelta(minutes=1)))
        await run_in_thread(lambda: tried.wait(30))
        other.execute("ROLLBACK")
        assert await waiting == "flip"
    assert_idle(path)


async def test_a_file_system_without_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite answers that there is no write-ahead log the file is refused, with a likely reason."""
    monkeypatch.setattr(database_module, "_journal_mode", lambda connection: "delete")
    with pytest.raises(FileStoreError, match=r"only 'delete': is it on a network file system?") as caught:
        await use(tmp_path / NAME)
    assert caught.value.problem == "unreachable"


async def test_what_is_recorded_is_what_was_opened(tmp_path: Path) -> None:
    """Two files side by side do not know of each other."""
    assert await use(tmp_path / "a.db") == "flip"
    async with open_file_stores(tmp_path / "b.db") as stores:
        assert await stores.phase_store(SPEC).current() == "expand"
    assert len(contents(tmp_path / "b.db")["transitions"]) == 0


# -- files that are not made, and files with two names


async def test_a_file_that_is_not_made(tmp_path: Path) -> None:
    """With `create=False` a file that is not there, or is empty, is an error and no new migration."""
    path = tmp_path / "m.db"
    for _ in range(2):
        with pytest.raises(FileStoreError, match="look at the path") as caught:
            await open_file_stores(path, create=False).__aenter__()
        assert caught.value.problem == "missing"
        assert contents_of(tmp_path) in ({}, {"m.db": b""})
        path.touch()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 0")
        connection.execute("VACUUM")
    with pytest.raises(FileStoreError, match="look at the path"):  # a file of SQLite with nothing in it
        await open_file_stores(path, create=False).__aenter__()
    async with open_file_stores(path):
        pass
    async with open_file_stores(path, create=False) as stores:
        assert stores.path == str(path)


async def test_a_file_that_was_made_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and for whoever listens: a wrong path is a new migration."""
    caplog.set_level("INFO", "phyxius.adapters")
    for _ in range(2):
        async with open_file_stores(tmp_path / "m.db"):
            pass
    assert caplog.messages == [f"{tmp_path / 'm.db'} was made: each migration in it is new, and at its first phase"]


async def test_a_file_with_two_names(tmp_path: Path) -> None:
    """Each name would have a write-ahead log of its own, so neither is taken."""
    async with open_file_stores(tmp_path / "m.db"):
        pass
    (tmp_path / "again.db").hardlink_to(tmp_path / "m.db")
    for name in ("m.db", "again.db"):
        with pytest.raises(FileStoreError, match="hard links"):
            await open_file_stores(tmp_path / name).__aenter__()
    (tmp_path / "again.db").unlink()
    (tmp_path / "link.db").symlink_to(tmp_path / "m.db")
    async with open_file_stores(tmp_path / "link.db"):  # it leads to the one name
        pass


async def test_a_file_that_is_mounted_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log would stay behind in the container that made it."""
    path = tmp_path / "m m.db"
    async with open_file_stores(path):
        pass
    assert "/proc" in _mount_points()
    monkeypatch.setattr(database_module, "_mount_points", lambda: ["/", str(path)])
    with pytest.raises(FileStoreError, match="mount its directory"):
        await open_file_stores(path).__aenter__()


def test_what_is_mounted_is_read_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with blanks are written with their codes; where there is no list, nothing is known."""
    (tmp_path / "mountinfo").write_text("36 35 98:0 /m.db /app/m\\040m.db rw - ext4 /dev/root rw\n", encoding="utf-8")
    monkeypatch.setattr(database_module, "_MOUNTS", tmp_path / "mountinfo")
    assert _mount_points() == ["/app/m m.db"]
    monkeypatch.setattr(database_module, "_MOUNTS", tmp_path / "nothing")
    assert _mount_points() == []


def contents_of(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}
