"""Where stores can be: a file, or a database on a server. Tests open stores there, and look into the tables."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from phyxius.adapters._database import TABLES
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlalchemy import ServerStoreError, create_schema, open_stores
from phyxius.adapters.sqlite import FileStoreError, open_file_stores
from phyxius.clock import Clock, create_controlled_clock
from tests.servers import server

FILE = "file"
SERVERS = ("postgresql", "mariadb")
"""The places that every rule is tested in, with the driver that is recommended for each."""
OTHERS = ("postgresql-psycopg", "mariadb-aiomysql", "pgbouncer-asyncpg", "pgbouncer-psycopg")
"""More ways to the same servers."""
PREFIX = "phyxius_"


class Place(Protocol):
    """Where stores can be opened, by several at once, and again."""

    kind: str
    error: type[FileStoreError] | type[ServerStoreError]

    def stores(self, clock: Clock | None = None, **options: Any) -> SqlStores:
        """Stores to open; on a controlled clock unless one is given."""
        ...

    def rows(self, sql: str) -> list[Any]:
        """What a SELECT finds, as somebody else's connection sees it. Tables have their plain names."""
        ...

    def change(self, sql: str, values: list[tuple[Any, ...]] | None = None) -> None:
        """Run a statement that writes, once or for each of several values (`?`), and commit it."""

    def locked(self, migration: str | None = None) -> contextlib.AbstractContextManager[object]:
        """Somebody else holds a transaction open meanwhile that keeps others from writing."""
        ...

    def assert_idle(self) -> None:
        """Nobody holds a transaction open that writes."""

    def broken(self, moment: str, table: str, condition: str = "1 = 1") -> contextlib.AbstractContextManager[object]:
        """What writes to a table fails meanwhile with "killed": `moment` is such as "BEFORE INSERT"."""
        ...

    def contents(self) -> dict[str, list[Any]]:
        """Every row of every table, but for the random name of the database."""
        ...


class FilePlace:
    """A file."""

    kind = FILE
    error = FileStoreError

    def __init__(self, path: Path) -> None:
        self.path = path

    def stores(self, clock: Clock | None = None, **options: Any) -> SqlStores:
        return open_file_stores(self.path, clock=create_controlled_clock() if clock is None else clock, **options)

    @contextlib.contextmanager
    def _connected(self, timeout: float = 30) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=timeout, isolation_level=None)) as connection:
            yield connection

    def rows(self, sql: str) -> list[Any]:
        with self._connected() as connection:
            return connection.execute(sql).fetchall()

    def change(self, sql: str, values: list[tuple[Any, ...]] | None = None) -> None:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql, [()] if values is None else values)
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def locked(self, migration: str | None = None) -> Iterator[object]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("ROLLBACK")

    def assert_idle(self) -> None:
        with self._connected(timeout=0) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def broken(self, moment: str, table: str, condition: str = "1 = 1") -> Iterator[None]:
        fails = f"WHEN {condition} BEGIN SELECT RAISE(ABORT, 'killed'); END"
        with self._connected() as connection:
            connection.execute(f"CREATE TRIGGER broken {moment} ON {table} {fails}")
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER broken")

    def settle(self) -> None:
        """Return once nobody holds a lock any more."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")

    def contents(self) -> dict[str, list[Any]]:
        return contents(self)


_NAMES = re.compile(rf"(?<![\w.])({'|'.join(TABLES)})(?=\s*(?:\(|[a-z]\b|$|\s|,|;|\)))")
_BEFORE = re.compile(r"(?:FROM|INTO|JOIN|UPDATE|TABLE|ON|TO|EXISTS)\s+$")


class ServerPlace:
    """The tables of a database on a server; those that were there are empty."""

    error = ServerStoreError

    def __init__(self, name: str) -> None:
        self.kind = name
        kind, _, driver = name.partition("-")
        self.server = server(kind)
        self.database = server("postgresql" if kind == "pgbouncer" else kind)
        self.is_mysql = kind == "mariadb"
        self.url = self.server.url(driver or None)

    async def make(self) -> ServerPlace:
        """Make the tables, or empty them."""
        await create_schema(self.database.url())
        with self._connected() as connection, connection.cursor() as cursor:
            for table in reversed(TABLES):
                cursor.execute(f"DELETE FROM {PREFIX}{table}")
            for table in ("recorders", "signatures", "events", "gaps"):
                cursor.execute(
                    f"ALTER TABLE {PREFIX}{table} AUTO_INCREMENT = 1"
                    if self.is_mysql
                    else f"ALTER SEQUENCE {PREFIX}{table}_id_seq RESTART"
                )
        return self

    def stores(self, clock: Clock | None = None, **options: Any) -> SqlStores:
        options.pop("lock_timeout", None)
        source: Any = self.url
        if self.kind == "pgbouncer-asyncpg":
            import uuid

            source = create_async_engine(
                self.url,
                poolclass=NullPool,
                connect_args={"statement_cache_size": 0, "prepared_statement_name_func": lambda: f"s{uuid.uuid4()}"},
            )
        if self.kind == "pgbouncer-psycopg":
            source = create_async_engine(self.url, poolclass=NullPool, connect_args={"prepare_threshold": None})
        return open_stores(source, clock=create_controlled_clock() if clock is None else clock, **options)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        where = parse_qs(urlsplit(self.database.url()).query)
        if self.is_mysql:
            import pymysql

            raw: Any = pymysql.connect(
                unix_socket=where["unix_socket"][0],
                user="root",
                database="phyxius",
                autocommit=True,
                init_command="SET SESSION lock_wait_timeout = 20",  # a transaction that stays open fails, not hangs
            )
        else:
            import psycopg

            raw = psycopg.connect(host=where["host"][0], user="postgres", autocommit=True)
        with contextlib.closing(raw) as connection:
            yield connection

    def _sql(self, sql: str) -> str:
        named = _NAMES.sub(
            lambda found: f"{PREFIX}{found[0]}" if _BEFORE.search(sql[: found.start()]) else found[0], sql
        )
        return named.replace("?", "%s")

    def rows(self, sql: str) -> list[Any]:
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute(self._sql(sql))
            return [tuple(row) for row in cursor.fetchall()]

    def change(self, sql: str, values: list[tuple[Any, ...]] | None = None) -> None:
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            if values is None:
                cursor.execute(self._sql(sql))
            else:
                cursor.executemany(self._sql(sql), values)
            cursor.execute("COMMIT")

    @contextlib.contextmanager
    def locked(self, migration: str | None = None) -> Iterator[object]:
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for table in TABLES:
                if not self.is_mysql:
                    cursor.execute(f"LOCK TABLE {PREFIX}{table} IN SHARE ROW EXCLUSIVE MODE")
            if self.is_mysql:
                cursor.execute("LOCK TABLES " + ", ".join(f"{PREFIX}{table} READ" for table in TABLES))
            yield connection
            cursor.execute("ROLLBACK")

    def assert_idle(self) -> None:
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0"
                if self.is_mysql
                else "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
                " AND backend_type = 'client backend'"  # autovacuum comes and goes
            )
            assert cursor.fetchone()[0] == 0

    @contextlib.contextmanager
    def broken(self, moment: str, table: str, condition: str = "1 = 1") -> Iterator[None]:
        where = f"{moment} ON {PREFIX}{table} FOR EACH ROW"
        with self._connected() as connection, connection.cursor() as cursor:
            if self.is_mysql:
                fails = f"IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'killed'; END IF"
                cursor.execute(f"CREATE TRIGGER broken {where} BEGIN {fails}; END")
            else:
                cursor.execute(
                    "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'killed'; END $$"
                )
                cursor.execute(f"CREATE TRIGGER broken {where} WHEN ({condition}) EXECUTE FUNCTION broken()")
            try:
                yield
            finally:
                cursor.execute("DROP TRIGGER broken" + ("" if self.is_mysql else f" ON {PREFIX}{table}"))

    def settle(self) -> None:
        """Return once nobody works on anything any more, also for clients that are gone."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()"
        if self.is_mysql:
            sql = "SELECT count(*) FROM information_schema.innodb_trx"
        with self._connected() as connection, connection.cursor() as cursor:
            left = True
            while left:
                cursor.execute(sql)
                left = cursor.fetchone()[0]

    def contents(self) -> dict[str, list[Any]]:
        return contents(self)


# In the order of the columns in a file; a server has a key and a version more.
COLUMNS: Mapping[str, str] = {
    "journal": "covered_since_ns, request",
    "recorders": "id, name, pid, audit_only, started_ns, stored_ns, ended_ns, closed, answered, batch",
    "declarations": "recorder, name, durable",
    "gaps": "recorder, since_ns, until_ns, kind, reason",
    "starts": "recorder, call_id, name, started_ns, source, observed, invocation_id, correlation_id",
    "events": "id, recorder, name, outcome, completed_ns, started_ns, source, attempts, observed, missing, error_type,"
    " error_message, invocation_id, correlation_id",
    "migrations": "name, phase, version, revision",
    "orders": "migration, revision, phases, who, why, at_ns",
    "transitions": "attempt, migration, version, from_phase, to_phase, at_ns, evidence",
    "signatures": "id, migration, revision, from_phase, to_phase, source, signer, note, signed_ns, expires_ns,"
    " revoked_ns, revoked_by, revoked_why",
}
_FIRST = {table: 2 if table in {"declarations", "starts", "orders"} else 1 for table in TABLES}


def contents(place: Any) -> dict[str, list[Any]]:
    """Every row of every table, in the order of the first columns, but for the random name of the database."""
    return {
        table: place.rows(
            f"SELECT {columns} FROM {table} ORDER BY {', '.join(str(n + 1) for n in range(_FIRST[table]))}"
        )
        for table, columns in COLUMNS.items()
    }


@contextlib.asynccontextmanager
async def place_of(kind: str, directory: Path) -> AsyncIterator[Any]:
    """A place of a kind, with nothing in it."""
    yield FilePlace(directory / "phyxius.db") if kind == FILE else await ServerPlace(kind).make()
