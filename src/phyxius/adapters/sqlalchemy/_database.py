"""A database on a server, as the stores use it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Coroutine, Hashable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phyxius.adapters._database import OTHER_TABLES, Connection, StoreProblem, Work, WriteGroup, name_of
from phyxius.adapters._moment import Stamp, now_in, other_clock, stamp_of
from phyxius.adapters.sqlalchemy import _schema as schema
from phyxius.adapters.sqlalchemy._connection import ServerConnection, Statements
from phyxius.adapters.sqlalchemy._dialects import dialect_of
from phyxius.adapters.sqlalchemy._errors import ServerStoreError, place_of
from phyxius.adapters.sqlalchemy._lane import Lane
from phyxius.clock import Clock, Portal, PortalClosedError, carried_on, run_in_thread, uninterrupted

T = TypeVar("T")


class ServerDatabase:
    """The connections of one process to a database on a server. A cancelled caller leaves no transaction open.

    Args:
        source: The engine to use, or the URL to make one of.
        naming: Where the tables are.
        clock: The clock of this process.
        own_time: Whether the rows are stamped by that, and not by the clock of the server.
        timeout: How long the server may take to answer a statement, in real time.
    """

    poll_seconds = 0.5

    def __init__(
        self, source: sa.URL | AsyncEngine, naming: schema.Naming, clock: Clock, timeout: timedelta, *, own_time: bool
    ) -> None:
        self.clock = clock
        # Two clocks that two time servers discipline may differ in speed by this much, which is the most NTP corrects.
        self.drift = 0.0 if own_time else 500e-6
        self._stamp: Stamp = stamp_of(clock, own_time=own_time)
        self._source = source
        self._naming = naming
        self._timeout = timeout
        self._process = os.getpid()
        self.name: str | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._url = source.url if isinstance(source, AsyncEngine) else source
        self._kind = dialect_of(self._url.get_backend_name())
        self._dialect = self._kind.dialect(naming, own_time=own_time)
        self._lane: Lane | None = None
        self._blocking: Lane | None = None
        self._portal = Portal("phyxius-write")

    @property
    def identity(self) -> Hashable:
        """Names the database, by the route that is taken to it. A copy of it is another."""
        url = self._url
        return self.name, url.host, url.port, url.database, tuple(sorted(url.query.items())), self._naming

    @property
    def place(self) -> str:
        """Where it is, and which tables."""
        return f"{place_of(self._url)} ({self._naming.table('*')})"

    def error(self, problem: StoreProblem, detail: str | None = None) -> ServerStoreError:
        """What the stores raise."""
        return ServerStoreError(self.place, problem, detail)

    # -- its life

    async def open(self, *, create: bool = False) -> None:
        """Connect, and see whether the tables are there, and of our version; `create` makes them where none are.

        Raises:
            ServerStoreError: They are not, or the database cannot be used.
        """
        if self._process != os.getpid():  # pragma: no cover - in a fork, where what is open is the parent's
            self._process, self._lane = os.getpid(), None
        if self._lane is not None:
            raise RuntimeError(f"{self.place} is open here already")
        lane = self._lane = self._new_lane(self._engine())
        self._loop = asyncio.get_running_loop()
        self._blocking, self._portal = None, Portal("phyxius-write")
        begun = False
        try:
            with self._of_this_loop():
                self.name = await self._carried_on(self._prepare(lane, create=create))
            begun = True
        finally:
            if not begun:
                await self.close()

    async def create(self) -> None:
        """Make the tables, or bring them to our version.

        Raises:
            ServerStoreError: The database cannot be used, or the user may not make tables there.
        """
        lane = self._new_lane(self._engine())
        try:
            with self._of_this_loop():
                await lane.transact("READ COMMITTED", self._create)
        finally:
            await self._leave(lane)

    def _create(self, connection: Connection) -> None:
        assert isinstance(connection, ServerConnection)
        with self._kind.one_at_a_time(connection.raw):
            gone = schema.create(connection.raw, self._naming)
        if gone:
            raise ServerStoreError(self.place, "corrupt", _not_there(gone))

    @contextlib.contextmanager
    def _of_this_loop(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of tasks and futures that do not belong together
            detail = "the engine has connections of another event loop; make one in each, or `await engine.dispose()`"
            raise ServerStoreError(self.place, "not_open", f"{detail} there first") from error

    def _engine(self) -> AsyncEngine:
        if isinstance(self._source, AsyncEngine):
            return self._source
        # What a statement was given may be a secret, and an error is told to many.
        return create_async_engine(self._source, hide_parameters=True)

    def _new_lane(self, engine: AsyncEngine) -> Lane:
        statements = Statements(self._dialect, self._kind.returning)
        return Lane(engine, self._kind, statements, self.place, self._timeout)

    async def close(self) -> None:
        """Let what runs end, and close what was opened."""
        lane, self._lane = self._lane, None
        if lane is not None:
            await uninterrupted(self._close(lane))

    async def _close(self, lane: Lane) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * self._timeout.total_seconds())
        try:
            await run_in_thread(partial(self._portal.close, self._close_blocking(), 2 * self._timeout))
        finally:
            await self._leave(lane)

    async def _leave(self, lane: Lane) -> None:
        await lane.close()
        if not isinstance(self._source, AsyncEngine):  # else its owner closes it
            await lane.engine.dispose()

    async def _close_blocking(self) -> None:
        if self._blocking is not None:
            await self._blocking.close()
            await self._blocking.engine.dispose()

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        return self._lane is not None

    def check_open(self) -> None:
        """Refuse to work before it is opened, after it is closed, and in a forked child."""
        self._open_lane()

    def _here(self) -> Lane:
        lane = self._open_lane()
        if self._loop is not asyncio.get_running_loop():
            detail = "it was opened in another event loop; open stores of its own in this one"
            raise ServerStoreError(self.place, "not_open", detail)
        return lane

    def _open_lane(self) -> Lane:
        if self._lane is None:
            raise ServerStoreError(self.place, "not_open")
        if self._process != os.getpid():  # pragma: no cover - in a fork
            raise ServerStoreError(self.place, "not_open", "it was opened before this process was forked")
        return self._lane

    # -- its tables

    async def _prepare(self, lane: Lane, *, create: bool) -> str:
        """Look at the version, write down ours if the tables are as new, and say the name of the database."""
        version, name, stamp = await lane.transact("READ COMMITTED", self._look)
        if create and version in {0, schema.VERSION}:
            await lane.transact("READ COMMITTED", self._create)
        if version < schema.VERSION:
            if absent := await lane.transact("READ COMMITTED", self._missing):
                raise ServerStoreError(self.place, "older" if version else "missing", _not_there(absent))
            version, name, stamp = await lane.transact("READ COMMITTED", self._begin)
        if version > schema.VERSION:
            raise ServerStoreError(self.place, "newer", f"version {version}, known up to {schema.VERSION}")
        if other := other_clock(stamp, self._stamp):
            raise ServerStoreError(self.place, "other_clock", other)
        if await lane.read(name_of) != name:  # what is read without a transaction
            raise ServerStoreError(self.place, "missing", OTHER_TABLES)
        return name

    def _look(self, connection: Connection) -> tuple[int, str, Stamp]:
        assert isinstance(connection, ServerConnection)
        now_in(self, connection)  # or it says that nobody can write there
        if not sa.inspect(connection.raw).has_table(f"{self._naming.prefix}journal", schema=self._naming.schema):
            return 0, "", self._stamp
        sql = f"SELECT version, name, stamped_by, {self._kind.charset} FROM {{journal}}"  # noqa: S608 - our own words
        row = connection.execute(sql).fetchone()
        if row is None:
            return 0, "", self._stamp
        version, name, stamp, charset = row
        if charset.upper() not in {"UTF8", "UTF8MB4"}:
            raise ServerStoreError(self.place, "encoding", charset)
        return version, name, stamp

    def _missing(self, connection: Connection) -> list[str]:
        assert isinstance(connection, ServerConnection)
        return schema.missing(connection.raw, self._naming)

    def _begin(self, connection: Connection) -> tuple[int, str, Stamp]:
        now_ns = now_in(self, connection).wall_ns
        values = {"name": uuid.uuid4().hex, "version": schema.VERSION, "stamp": self._stamp}
        connection.execute(schema.BEGIN_JOURNAL, {**values, "covered_since": now_ns})
        connection.execute("UPDATE {journal} SET version = :version WHERE version < :version", values)
        return self._look(connection)

    # -- what the stores do

    async def read(self, work: Work[T]) -> T:
        """Run what reads with single statements; each sees its own state of the database."""
        return await self._carried_on(self._here().read(work))

    async def query(self, work: Work[T]) -> T:
        """Run what reads at length, or calls foreign functions, against one state of the database."""
        return await self._carried_on(self._here().transact("REPEATABLE READ", work))

    async def write(self, work: Work[T]) -> T:
        """Run what writes, in one transaction; anew, if it is certain that nothing of it was committed."""
        return await self._carried_on(self._here().transact("READ COMMITTED", work))

    async def write_together(self, group: WriteGroup) -> None:
        """Write what waits in a group, in one transaction with what others put there meanwhile."""
        await self._carried_on(self._here().write_together(group))

    def write_together_blocking(self, group: WriteGroup) -> None:
        """The same for code that cannot await: on an event loop of its own, since this one may be waiting for it."""
        try:
            self._portal.call(self._write_blocking(self._open_lane(), group))
        except PortalClosedError:
            raise ServerStoreError(self.place, "not_open") from None
        except RuntimeError as error:  # of what belongs to the event loop of the engine
            detail = f"plain functions of durable names have an event loop of their own: {error}"
            raise ServerStoreError(self.place, "failed", detail) from error

    async def _write_blocking(self, lane: Lane, group: WriteGroup) -> None:
        if self._blocking is None:
            engine = lane.engine.sync_engine
            # The same engine once more, with connections that belong to the other event loop.
            again = sa.Engine(engine.pool.recreate(), engine.dialect, engine.url, hide_parameters=True)
            self._blocking = self._new_lane(AsyncEngine(again))
        await self._blocking.write_together(group)

    async def _carried_on(self, work: Coroutine[Any, Any, T]) -> T:
        return await carried_on(self._tracked(work))

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await work
        finally:
            self._tasks.discard(task)


def _not_there(absent: list[str]) -> str:
    return f"not there: {', '.join(absent[:5])}"
