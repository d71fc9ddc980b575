"""One transaction per thread call: what goes wrong under way tears nothing, and what is cancelled leaves nothing."""

# ruff: noqa: ASYNC240 - a test may wait for its own files
from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters.sqlite import FileStoreError, FileStores, open_file_stores
from phyxius.adapters.sqlite import _database as database_module
from phyxius.clock import ControlledClock, create_controlled_clock, run_in_thread
from phyxius.fp import Ok
from phyxius.journal import Journal
from phyxius.migration import create_migration, define_migration
from tests.adapters.sqlite.support import (
    NAME,
    assert_idle,
    bare,
    cancelled_at,
    contents,
    file_stores,
    snapshot,
    spec_of,
    worker_threads,
)

SPEC = spec_of()
SHORT = timedelta(milliseconds=5)
Method = Callable[[FileStores], Coroutine[Any, Any, Any]]


@pytest.fixture
async def stores(tmp_path: Path, phyxius_clock: ControlledClock) -> AsyncIterator[FileStores]:
    async with file_stores(tmp_path, phyxius_clock, lock_timeout=SHORT) as opened:
        yield opened


def signed_spec(stores: FileStores, *ahead: str) -> Any:
    """A migration whose second phase is signed for."""
    bags: dict[str, Any] = {"expand": {}, "flip": {"dba": stores.attestations.signed_off()}}
    return define_migration(name="quotes", phases=bags | {phase: {} for phase in ahead or ("contract",)})


def migration(stores: FileStores) -> Any:
    journal: Journal[Any] = Journal(clock=stores.clock)
    return create_migration(signed_spec(stores), journal=journal, phase_store=stores.phase_store(signed_spec(stores)))


SUBJECT: dict[str, Any] = {"to": "flip", "source": "dba"}
NEW: Method = lambda stores: stores.phase_store(spec_of(name="new")).current()  # noqa: E731
METHODS: dict[str, Method] = {
    "first current": NEW,
    "current": lambda stores: stores.phase_store(signed_spec(stores)).current(),
    "try_advance": lambda stores: stores.phase_store(signed_spec(stores)).try_advance(
        "expand", "flip", snapshot("a", text="evidence")
    ),
    "resolve": lambda stores: stores.phase_store(signed_spec(stores)).resolve("a"),
    "history": lambda stores: stores.phase_store(signed_spec(stores)).history(),
    "amend": lambda stores: stores.phase_store(signed_spec(stores)).amend(
        signed_spec(stores, "verify", "contract"), who="ada", why="one more"
    ),
    "sign": lambda stores: stores.attestations.sign(signed_spec(stores), **SUBJECT, signer="bob"),
    "revoke": lambda stores: stores.attestations.revoke(signed_spec(stores), **SUBJECT, signer="ada"),
    "signatures": lambda stores: stores.attestations.signatures(signed_spec(stores), **SUBJECT),
    "signed_off": lambda stores: migration(stores).readiness(),
}
WRITES = {"first current", "try_advance", "resolve", "amend", "sign", "revoke"}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


async def prepare(stores: FileStores) -> None:
    """A migration that the file knows, and one signature."""
    await stores.phase_store(signed_spec(stores)).current()
    await stores.attestations.sign(signed_spec(stores), **SUBJECT, signer="ada")


async def settled(stores: FileStores) -> dict[str, list[Any]]:
    """What is in the file once all that was begun has ended; no transaction is open then."""
    await stores._database.write(lambda connection: None)
    assert_idle(Path(stores.path))
    return contents(Path(stores.path))


async def problem_of(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(FileStoreError) as caught:
        await work
    return caught.value.problem


async def set_page_limit(stores: FileStores, pages: int | None) -> None:
    """Let the file have so many pages and no more, as a full disk does; None for as many as it has."""

    def limit(connection: sqlite3.Connection) -> None:
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {count if pages is None else pages}").fetchone()

    await stores._database._writes.run(limit)


# -- what goes wrong under way


async def test_it_is_locked(stores: FileStores) -> None:
    """A lock that another process holds too long stops those who write, and those who read go on; then all is well."""
    store = stores.phase_store(SPEC)
    await store.current()
    with bare(Path(stores.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await problem_of(store.try_advance("expand", "flip", snapshot("a"))) == "locked"
        assert await problem_of(store.resolve("b")) == "locked"
        assert await store.current() == "expand"
        other.execute("ROLLBACK")
    assert isinstance(await store.try_advance("expand", "flip", snapshot("a")), Ok)


async def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    """A lock that is let go in time delays, and does not fail."""
    async with file_stores(tmp_path, lock_timeout=timedelta(minutes=1)) as stores:
        await stores.phase_store(SPEC).current()
        with bare(tmp_path / NAME) as other:
            other.execute("BEGIN IMMEDIATE")
            step = asyncio.ensure_future(stores.phase_store(SPEC).try_advance("expand", "flip", snapshot("a")))
            assert await stores.phase_store(SPEC).current() == "expand"
            assert not step.done()
            other.execute("ROLLBACK")
            assert isinstance(await step, Ok)


async def test_it_is_full(stores: FileStores) -> None:
    """What does not fit is not there at all; once there is room, the same attempt commits."""
    store = stores.phase_store(SPEC)
    await store.current()
    before = contents(Path(stores.path))
    await set_page_limit(stores, None)
    large = snapshot("a", **{f"text{number}": "x" * 16_000 for number in range(8)})
    assert await problem_of(store.try_advance("expand", "flip", large)) == "full"
    assert await store.current() == "expand"
    assert await settled(stores) == before
    await set_page_limit(stores, 1 << 20)
    assert isinstance(await store.try_advance("expand", "flip", large), Ok)


async def test_it_is_damaged(tmp_path: Path) -> None:
    """Garbage in its pages is named as such, and is not written over."""
    async with file_stores(tmp_path) as stores:
        await stores.phase_store(SPEC).current()
    async with file_stores(tmp_path) as stores:
        with (tmp_path / NAME).open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        before = (tmp_path / NAME).read_bytes()
        for work in (stores.phase_store(SPEC).current(), stores.phase_store(SPEC).resolve("a")):
            assert await problem_of(work) == "corrupt"
        assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize("used", [True, False], ids=["used", "not used"])
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
@each_method
async def test_it_is_not_there_any_more(
    tmp_path: Path, stores: FileStores, method: Method, replaced: bool, used: bool
) -> None:
    """A file that was moved or replaced is never gone on with; once it is back, it is, and not with the other."""
    path, away = tmp_path / NAME, tmp_path / "away.db"
    if used:
        await prepare(stores)
    path.rename(away)
    if replaced:
        (tmp_path / "other").mkdir()
        async with file_stores(tmp_path / "other") as others:
            await prepare(others)
            await METHODS["try_advance"](others)
        (tmp_path / "other" / NAME).rename(path)
    before = contents(path) if replaced else {}
    if method is METHODS["signed_off"]:
        with pytest.raises(FileStoreError):
            await method(stores)
    else:
        assert await problem_of(method(stores)) == "replaced"
    if replaced:
        assert contents(path) == before
        path.unlink()
    away.rename(path)
    assert await stores.phase_store(signed_spec(stores)).current() == "expand"
    await method(stores)


async def test_another_file_comes_while_it_connects(
    tmp_path: Path, stores: FileStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection to a file that was put in its place at that very moment is not kept."""
    (tmp_path / "other").mkdir()
    async with file_stores(tmp_path / "other"):
        pass
    connect = database_module.FileDatabase._connect

    def late(database: database_module.FileDatabase, mode: str) -> sqlite3.Connection:
        (tmp_path / NAME).rename(tmp_path / "away.db")
        (tmp_path / "other" / NAME).rename(tmp_path / NAME)
        return connect(database, mode)

    with monkeypatch.context() as patched:
        patched.setattr(database_module.FileDatabase, "_connect", late)
        assert await problem_of(stores.phase_store(SPEC).resolve("a")) == "replaced"
    (tmp_path / "away.db").rename(tmp_path / NAME)
    now = (tmp_path / NAME).stat()
    names = await stores._database.write(lambda each: each.execute("SELECT name FROM journal").fetchall())
    assert stores._database.identity == (*names[0], (now.st_dev, now.st_ino))
    assert await stores.phase_store(SPEC).resolve("a") is None
    assert [row[0] for row in contents(tmp_path / NAME)["transitions"]] == ["a"]


async def test_its_directory_is_gone(tmp_path: Path) -> None:
    """A directory that became a file, and one that nobody may look into, have no file of ours in them."""
    (tmp_path / "sub").mkdir()
    async with file_stores(tmp_path / "sub") as stores:
        await stores.phase_store(SPEC).current()
        (tmp_path / "sub").rename(tmp_path / "away")
        (tmp_path / "sub").touch()
        assert await problem_of(stores.phase_store(SPEC).current()) == "replaced"
        (tmp_path / "sub").unlink()
        (tmp_path / "sub").symlink_to("sub")
        assert await problem_of(stores.phase_store(SPEC).current()) == "unreachable"


@each_method
async def test_it_is_not_open(tmp_path: Path, method: Method) -> None:
    """Before it is opened, and after it was closed, each method says so, and starts no thread."""
    stores = open_file_stores(tmp_path / NAME, clock=create_controlled_clock())
    for _ in range(2):
        with pytest.raises(FileStoreError, match="use it inside `async with stores:`"):
            await method(stores)
        with pytest.raises(FileStoreError):
            stores._database.write_together_blocking(Group())
        assert not worker_threads()
        async with stores:
            await prepare(stores)


async def test_closing_what_is_closed(tmp_path: Path) -> None:
    """Closed without having been opened, or twice, nothing happens."""
    stores = open_file_stores(tmp_path / NAME)
    await stores.__aexit__(None, None, None)
    async with stores:
        pass
    await stores.__aexit__(None, None, None)


async def test_what_waits_when_it_closes(stores: FileStores) -> None:
    """What runs is let end; what only waits is told that the file is closed, and nobody waits for ever."""
    store = stores.phase_store(SPEC)
    await store.current()
    began, go_on = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> str:
        began.set()
        assert go_on.wait(30)
        connection.execute("UPDATE migrations SET phase = 'flip'")
        return "done"

    running = asyncio.ensure_future(stores._database.write(hold))
    await run_in_thread(lambda: began.wait(30))
    waiting = asyncio.ensure_future(store.resolve("a"))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(stores.__aexit__(None, None, None))
    await asyncio.sleep(0)
    assert await problem_of(store.resolve("b")) == "not_open"
    go_on.set()
    await closing
    assert await running == "done"
    assert await problem_of(_wait(waiting)) == "not_open"
    async with stores:
        assert await store.current() == "flip"
        assert not contents(Path(stores.path))["transitions"]


async def _wait(future: asyncio.Future[Any]) -> Any:
    return await future


async def test_it_is_removed_before_it_closes(tmp_path: Path) -> None:
    """A file that is gone, or another's in its place, is not touched by the close."""
    async with file_stores(tmp_path) as stores:
        await stores.phase_store(SPEC).current()
        (tmp_path / NAME).rename(tmp_path / "away.db")
    assert not (tmp_path / NAME).exists()
    assert not worker_threads()


async def test_a_close_leaves_one_file(tmp_path: Path) -> None:
    """However many connections there were, what was committed is in the file itself once it is closed."""
    async with file_stores(tmp_path) as stores:
        store = stores.phase_store(SPEC)
        await asyncio.gather(*(store.current() for _ in range(20)), *(store.history() for _ in range(20)))
        await store.try_advance("expand", "flip", snapshot("a"))
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


async def test_a_log_that_was_left_is_put_into_the_file(tmp_path: Path) -> None:
    """The close sees to it, also where the connections left it to each other, as they do when they close at once."""
    path, log = tmp_path / NAME, tmp_path / f"{NAME}-wal"
    async with file_stores(tmp_path) as stores:
        await stores.phase_store(SPEC).try_advance("expand", "flip", snapshot("a"))
        image = path.read_bytes(), log.read_bytes()
        assert image[1]
    async with file_stores(tmp_path):
        path.write_bytes(image[0])
        log.write_bytes(image[1])
    assert [each.name for each in tmp_path.iterdir()] == [NAME]
    assert contents(path)["migrations"] == [("quotes", "flip", 1, 1)]


async def test_what_raises_in_a_transaction(stores: FileStores) -> None:
    """What the work raises comes out as it is, and all that it did before is undone."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE journal SET request = 9")
        raise LookupError("own")

    before = await settled(stores)
    for run in (stores._database.write, stores._database.read, stores._database.query):
        with pytest.raises(LookupError, match="own"):
            await run(work)
        assert await settled(stores) == before


# -- written together


class Group:
    """Numbers that are written in one transaction."""

    def __init__(self, *numbers: int) -> None:
        self.waiting = list(numbers)
        self.done: list[int] = []

    def take(self) -> list[Any]:
        return list(self.waiting)

    def write(self, items: list[Any], connection: sqlite3.Connection, /) -> None:
        for number in items:
            connection.execute("UPDATE journal SET request = request + ?", [number])
        if 13 in items:
            raise LookupError("unlucky")

    def written(self, items: list[Any]) -> None:
        self.done += items
        self.waiting.clear()


async def test_a_group_is_written_together(stores: FileStores) -> None:
    """What waits is written at once and told so; where nothing waits nothing is done."""
    group = Group(1, 2)
    await stores._database.write_together(group)
    await stores._database.write_together(group)
    assert (group.done, (await settled(stores))["journal"]) == ([1, 2], [("test", 0, 3)])
    group.waiting.append(4)
    stores._database.write_together_blocking(group)
    assert (group.done, (await settled(stores))["journal"]) == ([1, 2, 4], [("test", 0, 7)])


async def test_a_group_that_fails(stores: FileStores) -> None:
    """None of it is written, and none of it is told to be."""
    group = Group(1, 13)
    with pytest.raises(LookupError):
        await stores._database.write_together(group)
    assert (group.done, (await settled(stores))["journal"]) == ([], [("test", 0, 0)])


# -- cancellation


@each_method
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_cancelled_at_every_await(tmp_path: Path, method: Method, late: bool) -> None:
    """Cancelled at any await a method has done all or nothing, and leaves no transaction, task or thread."""
    whole: dict[str, list[Any]] = {}
    name = next(name for name, each in METHODS.items() if each is method)
    for at in range(-1, 20):
        directory = tmp_path / str(at)
        directory.mkdir()
        async with file_stores(directory) as stores:
            await prepare(stores)
            before = await settled(stores)
            reached, cancelled = await cancelled_at(method(stores), at, late=late)
            assert cancelled == reached
            after = await settled(stores)
            whole = whole or after  # the first is not cancelled
            assert after in (before, whole)
            assert (whole == before) == (name not in WRITES)
            await method(stores)
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not worker_threads()
        if at >= 0 and not reached:
            assert at >= 1
            return
    raise AssertionError("it does not end")


@pytest.mark.parametrize("moment", ["waiting", "running", "committed"])
async def test_cancelled_while_it_is_written(stores: FileStores, moment: str) -> None:
    """Cancelled in line, in its transaction or after it, a step is whole, and `resolve` tells the truth of it."""
    store = stores.phase_store(SPEC)
    await store.current()
    here, go_on = threading.Event(), threading.Event()

    def pause() -> int:
        here.set()
        assert go_on.wait(30)
        return 0

    def rig(connection: sqlite3.Connection) -> None:
        connection.raw.create_function("pause", 0, pause)
        connection.execute("CREATE TEMP TRIGGER pausing AFTER UPDATE ON main.migrations BEGIN SELECT pause(); END")

    if moment == "running":
        await stores._database._writes.run(rig)
    elif moment == "waiting":
        held = asyncio.ensure_future(stores._database.write(lambda connection: pause()))
    step = asyncio.ensure_future(store.try_advance("expand", "flip", snapshot("a")))
    await asyncio.sleep(0)
    if moment == "committed":
        while contents(Path(stores.path))["migrations"] != [("quotes", "flip", 1, 1)]:
            pass  # the loop does not run meanwhile, so the answer waits
    else:
        await run_in_thread(lambda: here.wait(30))
    step.cancel()
    go_on.set()
    await asyncio.wait({step})
    assert step.cancelled()
    if moment == "waiting":
        await held
    assert await store.resolve("a") is not None
    assert await store.current() == "flip"
    await settled(stores)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_opening_is_cancelled_at_every_await(tmp_path: Path, late: bool) -> None:
    """The file is there or not, as a whole, no thread stays, and the same stores can be opened at once."""
    for at in range(20):
        path = tmp_path / f"{at}.db"
        stores = open_file_stores(path, clock=create_controlled_clock())
        reached, cancelled = await cancelled_at(stores.__aenter__(), at, late=late)
        assert cancelled == reached
        if not reached:
            await stores.__aexit__(None, None, None)
            assert at >= 1
            return
        async with stores:
            assert await stores.phase_store(SPEC).current() == "expand"
        assert not worker_threads()
        assert_idle(path)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_closing_is_cancelled_at_every_await(tmp_path: Path, late: bool) -> None:
    """It is closed all the same, as a whole, and can be opened again."""
    for at in range(20):
        path = tmp_path / f"{at}.db"
        stores = open_file_stores(path, clock=create_controlled_clock())
        await stores.__aenter__()
        await asyncio.gather(*(METHODS["current"](stores) for _ in range(8)))
        reached, cancelled = await cancelled_at(stores.__aexit__(None, None, None), at, late=late)
        assert cancelled == reached
        assert not worker_threads()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not list(tmp_path.glob(f"{at}.db-*"))
        async with stores:
            assert await METHODS["current"](stores) == "expand"
        if not reached:
            assert at >= 1
            return
    raise AssertionError("it does not end")


async def test_many_are_cancelled(tmp_path: Path) -> None:
    """Of a crowd half of which is cancelled at any turn, who has an answer has the truth."""
    for turns in range(12):
        directory = tmp_path / str(turns)
        directory.mkdir()
        async with file_stores(directory) as stores:
            store = stores.phase_store(SPEC)
            steps = [
                asyncio.ensure_future(store.try_advance("expand", "flip", snapshot(str(number))))
                for number in range(10)
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            for step in steps[::2]:
                step.cancel()
            await asyncio.wait(steps)
            (transition,) = await store.history()
            won = [n for n, step in enumerate(steps) if not step.cancelled() and isinstance(step.result(), Ok)]
            assert won in ([int(transition.attempt)], [])
            assert steps[int(transition.attempt)].cancelled() or won
            await settled(stores)


def test_a_loop_that_ends_leaves_nothing(tmp_path: Path) -> None:
    """Stores whose loop was stopped in the middle of a step are closed with it."""

    async def run() -> None:
        async with file_stores(tmp_path) as stores:
            await asyncio.gather(stores.phase_store(SPEC).current(), _stop())

    async def _stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    gc.collect()
    assert not worker_threads()
    assert_idle(tmp_path / NAME)
