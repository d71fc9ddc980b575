"""What PostgreSQL and MySQL or MariaDB say otherwise than each other: all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from phyxius.adapters._asking import MYSQL_READ_ONLY, POSTGRESQL_READ_ONLY
from phyxius.adapters._database import READ_ONLY, Dialect
from phyxius.adapters.sqlalchemy._schema import Naming
from phyxius.migration import SpecError

Isolation: TypeAlias = Literal["READ COMMITTED", "REPEATABLE READ"]


@attrs.frozen
class ServerDialect:
    """A kind of server.

    Attributes:
        now: Its time in nanoseconds since 1970: one and the same all through a statement, in no time zone.
        own_now: The time of this process, which is passed in as `:now`.
        read_only: Whether it is a replica, or an administrator lets nobody write.
        charset: In what characters are written, on the way there and where they stay.
        or_nothing: How an INSERT ends that leaves a row as it is which is there already.
        returning: How an INSERT ends so that it answers with the key of the row, if that needs to be asked.
        lock: What one says who makes tables; who says it meanwhile waits.
        unlock: What he says at the end, if the lock does not end with the transaction.
        quote: What stands around a name that may be a word of SQL.
        sets_level: Whether the isolation level of a transaction is a statement of its own, before it.
    """

    now: str
    own_now: str
    read_only: str
    charset: str
    or_nothing: str
    returning: str
    lock: str
    unlock: str | None
    quote: str
    sets_level: bool

    def dialect(self, naming: Naming, *, own_time: bool) -> Dialect:
        """How the stores' SQL is filled in for it.

        Args:
            naming: The names of the tables.
            own_time: Whether the rows are stamped by the clock of this process, and not by that of the server.
        """
        now = self.own_now if own_time else self.now
        return Dialect(
            for_update=" FOR UPDATE",
            unless_locked=" FOR UPDATE SKIP LOCKED",
            now=now,
            shown=f"CASE WHEN {self.read_only} THEN {READ_ONLY} ELSE {now} END",
            or_nothing=lambda column: self.or_nothing.format(column=column),
            table=lambda name: naming.table(name, self.quote),
        )

    @contextlib.contextmanager
    def one_at_a_time(self, connection: Connection) -> Iterator[None]:
        """Keep others out who do the same."""
        connection.exec_driver_sql(self.lock)
        try:
            yield
        finally:
            if self.unlock is not None:
                connection.exec_driver_sql(self.unlock)

    async def begin(self, connection: AsyncConnection, level: Isolation) -> None:
        """Have the next transaction of a connection run at a level. Nothing of it outlives the transaction."""
        if self.sets_level:
            # The option of SQLAlchemy would set the whole session, and set it back. And it is begun in so many words:
            # an engine may have been made to commit each statement.
            await connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
            await connection.exec_driver_sql("START TRANSACTION")
        else:
            connection = await connection.execution_options(isolation_level=level)


_MYSQL = ServerDialect(
    now="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) * 1000",
    own_now=":now",
    read_only=MYSQL_READ_ONLY,
    charset="@@character_set_client",  # the tables have theirs from us
    or_nothing="ON DUPLICATE KEY UPDATE {column} = {column}",
    returning="",
    lock="SELECT GET_LOCK('phyxius', 60)",
    unlock="SELECT RELEASE_LOCK('phyxius')",
    quote="`",
    sets_level=True,
)
_DIALECTS = {
    "postgresql": ServerDialect(
        now="CAST(extract(epoch FROM statement_timestamp()) * 1000000 AS bigint) * 1000",
        own_now="CAST(:now AS bigint)",
        read_only=POSTGRESQL_READ_ONLY,
        charset="CASE WHEN current_setting('client_encoding') <> 'UTF8' THEN current_setting('client_encoding')"
        " ELSE current_setting('server_encoding') END",
        or_nothing="ON CONFLICT DO NOTHING",
        returning=" RETURNING id",
        lock="SELECT pg_advisory_xact_lock(7235125870)",
        unlock=None,
        quote='"',
        sets_level=False,
    ),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


def find_dialect(name: str) -> ServerDialect | None:
    """The kind of server that SQLAlchemy calls so; None if it is none of ours."""
    return _DIALECTS.get(name)


def dialect_of(name: str) -> ServerDialect:
    """The kind of server that SQLAlchemy calls so.

    Raises:
        SpecError: There are no stores for it.
    """
    kind = find_dialect(name)
    if kind is None:
        hint = "for SQLite use phyxius.adapters.sqlite.open_file_stores"
        if name == "postgres":  # as some providers write it
            hint = "write postgresql+asyncpg://"
        raise SpecError(f"there are stores for PostgreSQL and for MySQL or MariaDB, not for {name!r}; {hint}")
    return kind
