"""The file as a database: opened with care, and used one transaction per thread call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from phyxius.adapters._database import Dialect, StoreProblem, Values, Work, WriteGroup
from phyxius.adapters._moment import Stamp, other_clock, stamp_of
from phyxius.adapters.sqlite import _schema as schema
from phyxius.adapters.sqlite._errors import FileStoreError, file_error
from phyxius.clock import Clock, Workers, run_in_thread, uninterrupted

T = TypeVar("T")
_logger = logging.getLogger("phyxius.adapters")
_MOUNTS = Path("/proc/self/mountinfo")
_READERS = 4
_QUERIES = 8
_POLL = timedelta(milliseconds=5)
_NOTHING: Mapping[str, object] = {}


DIALECT = Dialect(
    for_update="", unless_locked="", now=":now", shown=":now", or_nothing=lambda _: "ON CONFLICT DO NOTHING"
)
_fill_in = cache(DIALECT.fill_in)


class FileConnection:
    """A connection to the file, as the stores use it.

    Attributes:
        raw: As Python has it.
    """

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw

    def execute(self, sql: str, values: Values = _NOTHING, /) -> sqlite3.Cursor:
        """Run a statement."""
        return self.raw.execute(_fill_in(sql), values)

    def execute_many(self, sql: str, values: Sequence[Values], /) -> None:
        """Run a statement for each of several values."""
        self.raw.executemany(_fill_in(sql), values)

    def aside(self, function: Callable[[], T], /) -> T:
        """Call it: whoever works on the file has a thread of his own."""
        return function()

    def insert(self, sql: str, values: Values, /) -> int:
        """Run an INSERT, and return the key of the row."""
        id_ = self.execute(sql, values).lastrowid
        assert id_ is not None
        return id_

    def close(self) -> None:
        """Close it."""
        self.raw.close()


class FileDatabase:
    """The connections of one process to one file. A cancelled caller leaves no transaction open.

    Its rows are stamped by the clock of this process, which all processes of a machine share.

    Args:
        path: The file, as an absolute path.
        clock: Says when the file began.
        create: Whether to make it if it is not there.
        lock_timeout: How long to wait for the lock of another process, in real time.
    """

    drift = 0.0
    poll_seconds = 0.1

    def __init__(self, path: str, clock: Clock, lock_timeout: timedelta, create: bool = True) -> None:
        self.path = path
        self.clock = clock
        self._stamp: Stamp = stamp_of(clock, own_time=True)
        self._create = create
        self._lock_timeout = lock_timeout
        self._process = os.getpid()
        self._opened = False
        self._file: tuple[int, int] | None = None
        self.name: str | None = None
        self._make_workers()

    def _make_workers(self) -> None:
        self._reads = self._workers(_READERS, "read")
        self._queries = self._workers(_QUERIES, "query")
        self._writes = self._workers(1, "write")

    def _workers(self, most: int, kind: str) -> Workers[FileConnection]:
        return Workers(self._connect_again, most=most, name=f"phyxius-{kind}")

    @property
    def identity(self) -> Hashable:
        """Names the file, under whatever path it was opened. A copy of it is another."""
        return self.name, self._file

    @property
    def place(self) -> str:
        """The path."""
        return self.path

    def error(self, problem: StoreProblem, detail: str | None = None) -> FileStoreError:
        """What the stores raise."""
        return FileStoreError(self.path, problem, detail)

    async def open(self, *, create: bool = True) -> None:
        """Make the file, unless it must not be, or bring it to our version, unless it is another's.

        Raises:
            FileStoreError: It cannot be used.
        """
        if self._process != os.getpid():  # pragma: no cover - in a fork, where what is open is the parent's
            self._process, self._opened, self._file = os.getpid(), False, None
        if self._opened:
            raise RuntimeError(f"{self.path} is open here already")
        self._opened = True
        try:
            self._file, self.name = await run_in_thread(partial(self._prepare, create=self._create and create))
        finally:
            self._opened = self._file is not None
        self._make_workers()

    async def close(self) -> None:
        """Close all connections, once what runs on them has ended."""
        file, self._file = self._file, None
        if file is not None:
            await uninterrupted(self._close(file, (self._writes, self._reads, self._queries)))

    async def _close(self, file: tuple[int, int], every: Iterable[Workers[FileConnection]]) -> None:
        try:
            await asyncio.gather(*(workers.close(2 * self._lock_timeout) for workers in every))
            await run_in_thread(partial(self._tidy_up, file))
        finally:
            self._opened = False

    def _tidy_up(self, file: tuple[int, int]) -> None:
        """Have the log put into the file; connections that close at once leave that to each other."""
        with contextlib.suppress(FileStoreError, sqlite3.Error):
            if _identity(self.path) == file:
                with contextlib.closing(self._connect("rw")) as connection:
                    schema.version_of(connection)

    async def read(self, work: Work[T]) -> T:
        """Run what reads briefly, against one state of the file."""
        return await self._while_open(self._reads).run(partial(self._transaction, "BEGIN", work))

    async def query(self, work: Work[T]) -> T:
        """Run what reads at length, or calls foreign functions, against one state of the file."""
        return await self._while_open(self._queries).run(partial(self._transaction, "BEGIN", work))

    async def write(self, work: Work[T]) -> T:
        """Run what writes, in one transaction; those of this process wait in line and not for each other's lock."""
        return await self._while_open(self._writes).run(partial(self._transaction, "BEGIN IMMEDIATE", work))

    async def write_together(self, group: WriteGroup) -> None:
        """Write what waits in a group, in one transaction with what others put there meanwhile."""
        await self._while_open(self._writes).run(partial(self._write_group, group))

    def write_together_blocking(self, group: WriteGroup) -> None:
        """The same for code that cannot await."""
        self._while_open(self._writes).run_blocking(partial(self._write_group, group))

    def _while_open(self, workers: Workers[FileConnection]) -> Workers[FileConnection]:
        self.check_open()
        return workers

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        return self._file is not None

    def check_open(self) -> None:
        """Refuse to work before it is opened, after it is closed, and in a forked child."""
        if self._file is None:
            raise FileStoreError(self.path, "not_open")
        if self._process != os.getpid():  # pragma: no cover - in a fork
            raise FileStoreError(self.path, "not_open", "it was opened before this process was forked")

    def _write_group(self, group: WriteGroup, connection: FileConnection) -> None:
        if items := group.take():
            try:
                self._transaction("BEGIN IMMEDIATE", partial(group.write, items), connection)
            except FileStoreError as error:
                group.failed(items, error)
            else:
                group.written(items)

    def _transaction(self, begin: str, work: Work[T], connection: FileConnection) -> T:
        raw = connection.raw
        with self._errors():
            self._check_file()
            raw.execute(begin)
            try:
                if schema.version_of(raw) != len(schema.UPGRADES):
                    raise FileStoreError(self.path, "newer")
                answer = work(connection)
                raw.execute("COMMIT")
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
            return answer

    def _check_file(self) -> None:
        """Refuse to go on with a file that nobody else can see any more."""
        if self._file is None:
            raise FileStoreError(self.path, "not_open")
        if _identity(self.path) != self._file:
            raise FileStoreError(self.path, "replaced")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise file_error(self.path, error) from error

    def _connect_again(self) -> FileConnection:
        """A connection to the file that was opened, and to no other that is found in its place."""
        self._check_file()
        with contextlib.ExitStack() as stack:
            raw = self._connect("rw")
            stack.callback(raw.close)
            self._check_file()
            stack.pop_all()
            return FileConnection(raw)

    def _connect(self, mode: str) -> sqlite3.Connection:
        with self._errors(), contextlib.ExitStack() as stack:
            connection = sqlite3.connect(
                f"{Path(self.path).as_uri()}?mode={mode}",
                uri=True,
                timeout=self._lock_timeout.total_seconds(),
                isolation_level=None,
            )
            stack.callback(connection.close)
            if mode != "ro":
                # What was answered must outlive a loss of power, too: a phase or a lease that goes back is a lie.
                connection.execute("PRAGMA synchronous = FULL")
            stack.pop_all()
            return connection

    def _prepare(self, *, create: bool) -> tuple[tuple[int, int], str]:
        status = _status(self.path)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise FileStoreError(self.path, "unreachable", "it is no file")
        if not create and (status is None or not status.st_size):
            raise FileStoreError(self.path, "missing")
        if status is not None and (other := _other_name(self.path, status)):
            raise FileStoreError(self.path, "unreachable", other)
        with self._errors():
            if status is not None and status.st_size:
                with contextlib.closing(self._connect("ro")) as connection:
                    self._look_at(connection)
            with contextlib.closing(self._connect("rwc" if create else "rw")) as connection:
                self._look_at(connection)
                if not create and not schema.version_of(connection):
                    raise FileStoreError(self.path, "missing")
                if schema.version_of(connection) < len(schema.UPGRADES):
                    self._upgrade(connection)
                self._switch_to_wal(connection)
                # It tells at once, and not at the first step of a migration, whether the file can be written.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE journal SET request = request")
                connection.execute("ROLLBACK")
                name, stamped_by = connection.execute("SELECT name, stamped_by FROM journal").fetchone()
            if other := other_clock(stamped_by, self._stamp):
                raise FileStoreError(self.path, "other_clock", other)
            identity = _identity(self.path)
            assert identity is not None
            if status is None:
                _logger.info("%s was made: each migration in it is new, and at its first phase", self.path)
            return identity, name

    def _look_at(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one state of the file: another process may be making it just now
        self._check_ours(connection)
        connection.execute("ROLLBACK")

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        try:
            ours = schema.is_ours(connection)
            version = schema.version_of(connection)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
                raise FileStoreError(self.path, "foreign", str(error)) from error
            raise
        if not ours:
            raise FileStoreError(self.path, "foreign", "an SQLite database of another application")
        if version > len(schema.UPGRADES):
            raise FileStoreError(self.path, "newer", f"schema version {version}, known up to {len(schema.UPGRADES)}")

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            self._check_ours(connection)  # again: another process may have been first
            schema.upgrade(connection, self.clock.now().wall_ns, self._stamp)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        # Of two processes that switch at once SQLite refuses one on the spot, however long it would wait for a lock.
        connection.execute("PRAGMA busy_timeout = 0")
        tries = self._lock_timeout // _POLL
        while (mode := _journal_mode(connection)) is None:
            tries -= 1
            if tries < 0:
                raise FileStoreError(self.path, "locked", "another process keeps it from using a write-ahead log")
            time.sleep(_POLL.total_seconds())
        connection.execute(f"PRAGMA busy_timeout = {self._lock_timeout // timedelta(milliseconds=1)}")
        if mode != "wal":
            detail = f"it cannot use a write-ahead log, but only {mode!r}: is it on a network file system?"
            raise FileStoreError(self.path, "unreachable", detail)


def _journal_mode(connection: sqlite3.Connection) -> str | None:
    """The journal mode, set to a write-ahead log where that can be; None if somebody else is in the way."""
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return None
        raise
    return str(mode)


def _identity(path: str) -> tuple[int, int] | None:
    status = _status(path)
    return None if status is None else (status.st_dev, status.st_ino)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - asked in each transaction, and Path costs twice as much
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FileStoreError(path, "unreachable", str(error)) from error


def _other_name(path: str, status: os.stat_result) -> str | None:
    """Why a file may be known by another name, under which it would have a write-ahead log of its own."""
    if status.st_nlink > 1:
        return "it has hard links, and each name would have a log of its own: keep one"
    if os.path.realpath(path) in _mount_points():
        return "it is mounted by itself, and its log would stay behind: mount its directory"
    return None


def _mount_points() -> list[str]:
    """What is mounted where, as far as the system tells."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    return [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines]
