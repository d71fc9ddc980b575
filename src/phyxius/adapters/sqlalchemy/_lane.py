"""The connections of one event loop to a server, and what becomes of transactions that fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TypeVar

import attrs
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from phyxius.adapters._database import Work, WriteGroup
from phyxius.adapters.sqlalchemy._connection import ServerConnection, Statements
from phyxius.adapters.sqlalchemy._dialects import Isolation, ServerDialect
from phyxius.adapters.sqlalchemy._errors import (
    ServerStoreError,
    is_conflict,
    is_lost,
    is_misled,
    problem_of,
    server_error,
)
from phyxius.adapters.sqlalchemy._watchdog import Watchdog

T = TypeVar("T")
_TRIES = 5
_TROUBLE = (SQLAlchemyError, OSError)


@attrs.define(eq=False)
class Lane:
    """The connections of one event loop. It keeps one for what reads with single statements.

    All methods raise `ServerStoreError`, and whatever the work raises.

    Attributes:
        engine: Where they come from.
        kind: The kind of server.
        statements: The stores' SQL, as that takes it.
        place: The server, as people know it.
        limit: How long it may take to answer a statement, in real time.
    """

    engine: AsyncEngine
    kind: ServerDialect
    statements: Statements
    place: str
    limit: timedelta
    _idle: AsyncConnection | None = None
    _keeps: bool = False
    _shares: bool = False
    _closed: bool = False
    _group: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    async def read(self, work: Work[T]) -> T:
        """Run what reads with single statements, each of which sees its own state of the database."""
        left = _TRIES
        while True:
            left -= 1
            try:
                async with Watchdog(self.limit) as watchdog, self._reading() as connection:
                    return await connection.run_sync(self._run, work, watchdog)
            except _TROUBLE as error:
                # A pooler gives each statement whatever connection is free, unless a transaction holds one together.
                is_elsewhere = is_misled(error)
                self._shares |= is_elsewhere
                if not left or not (is_elsewhere or is_lost(error) or is_conflict(error)):
                    raise server_error(self.place, error) from None

    async def transact(self, level: Isolation, work: Work[T]) -> T:
        """Run work in a transaction, and anew where it is certain that nothing was committed and that it may help."""
        left = _TRIES
        while True:
            left -= 1
            is_committing = False
            try:
                async with Watchdog(self.limit) as watchdog, self._fresh() as connection:
                    await self.kind.begin(connection, level)
                    answer = await connection.run_sync(self._run, work, watchdog)
                    is_committing = True
                    watchdog.feed()
                    await connection.commit()
                    return answer
            except _TROUBLE as error:
                if problem_of(error) == "read_only":  # it is the primary no more, also for what is read
                    await self._let_go()
                # The server that refuses to commit says so; one that was lost meanwhile may have done it.
                if not left or not (is_conflict(error) or (is_lost(error) and not is_committing)):
                    raise server_error(self.place, error) from None

    async def write_together(self, group: WriteGroup) -> None:
        """Write what waits in a group, in one transaction with what others put there meanwhile."""
        async with self._group:
            if items := group.take():
                try:
                    await self.transact("READ COMMITTED", lambda connection: group.write(items, connection))
                except ServerStoreError as error:
                    group.failed(items, error)
                else:
                    group.written(items)

    async def close(self) -> None:
        """Let go of the connection that is kept."""
        self._closed = True
        await self._let_go()

    async def _let_go(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None:
            self._keeps = False
            # The server may be gone, and so is the connection; or its event loop, of which drivers complain.
            with contextlib.suppress(*_TROUBLE, RuntimeError):
                await _throw_away(idle)

    def _run(self, raw: sa.Connection, work: Work[T], watchdog: Watchdog) -> T:
        return work(ServerConnection(raw, self.statements, watchdog))

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        """The connection that is kept, which commits each statement; or a transaction on another while it is taken."""
        if self._idle is None and (self._keeps or self._shares or not self._has_others()):
            async with self._fresh() as connection:
                await self.kind.begin(connection, "READ COMMITTED")
                yield connection
            return
        kept, self._idle, self._keeps = self._idle, None, True
        try:
            if kept is None:
                kept = await self._connect()
                kept = await kept.execution_options(isolation_level="AUTOCOMMIT")
            yield kept
        except Exception as error:
            if kept is not None and not isinstance(error, (*_TROUBLE, ServerStoreError)):  # it is not the connection's
                self._idle = kept
            raise
        else:
            self._idle = kept
        finally:
            if self._idle is None or self._closed:
                self._idle, self._keeps = None, False
                if kept is not None:
                    await _throw_away(kept)

    @contextlib.asynccontextmanager
    async def _fresh(self) -> AsyncIterator[AsyncConnection]:
        """A connection of the pool."""
        connection = await self._connect()
        try:
            yield connection
        except BaseException:
            # Somebody may still answer on it, it may be of a primary that is one no more, and whoever takes it next
            # must not commit what is left: SQLAlchemy may know of no transaction that it would have to roll back.
            await _throw_away(connection)
            raise
        with contextlib.suppress(*_TROUBLE):  # the answer is there, whatever the end of a transaction comes to
            await connection.close()

    def _has_others(self) -> bool:
        """Whether the pool can be left with one connection less."""
        size: Callable[[], int] = getattr(self.engine.pool, "size", lambda: 0)  # not every pool has a bound
        return size() != 1

    async def _connect(self) -> AsyncConnection:
        try:
            return await self.engine.connect()
        except (*_TROUBLE, RuntimeError):
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise errors of their own while they connect
            raise server_error(self.place, error) from None


async def _throw_away(connection: AsyncConnection) -> None:
    """Close a connection, and do not give it back.

    One that commits each statement SQLAlchemy would tell some servers to do that no more. Where such a server is gone
    by then it raises what the driver does, and its pool has one place less for ever.
    """
    await connection.invalidate()
    await connection.close()
