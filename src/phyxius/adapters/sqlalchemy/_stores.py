"""All stores of one database on a server."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine

from phyxius.adapters._arguments import check_count, check_duration
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlalchemy._database import ServerDatabase
from phyxius.adapters.sqlalchemy._dialects import dialect_of
from phyxius.adapters.sqlalchemy._schema import PREFIX, Naming
from phyxius.clock import Clock, ControlledClock, create_system_clock
from phyxius.migration import SpecError

_IN_EXTRA = {"postgresql+asyncpg": "phyxius-migration[postgresql]", "mysql+asyncmy": "phyxius-migration[mysql]"}
_SUCH_AS = 'such as "postgresql+asyncpg://user:password@host/database" (pip install "phyxius-migration[postgresql]")'


class ServerStores(SqlStores):
    """The stores of one database, made by `open_stores`. They work while the context is open.

    To enter it raises `ServerStoreError` if the database cannot be used: its tables are missing or newer, it cannot be
    reached, this user may not do what is needed.
    """


def open_stores(
    source: str | sa.URL | AsyncEngine,
    *,
    prefix: str = PREFIX,
    schema: str | None = None,
    clock: Clock | None = None,
    time: Literal["database", "process"] | None = None,
    timeout: timedelta = timedelta(seconds=10),
    max_window_events: int = 200_000,
) -> ServerStores:
    """The stores of a migration in a PostgreSQL, MySQL or MariaDB database, for a fleet; an async context manager.

    Nothing is connected yet, so it can stand at module level. The tables have to be there: see `create_schema`.

    Args:
        source: Your async engine, which stays open, or a URL with an async driver, such as
            "postgresql+asyncpg://user:password@host/database". One connection of the engine is kept for reading, unless
            its pool has but one.
        prefix: What the names of the tables begin with.
        schema: The schema that they are in (with MySQL: the database); that of the connection unless given.
        clock: The journal's clock; the system clock unless given.
        time: Whose clock stamps the rows: the database's, which all processes share; with a controlled clock, in
            tests, that of this process.
        timeout: How long the database may take to answer a statement, in real time.
        max_window_events: The most events of a window that has no `limit`.

    Raises:
        SpecError: A URL or an engine that is none of these, a name that a database would misread, a time that is not
            positive, a bound that is not.
    """
    source = _source(source)
    check_duration(timeout, "timeout")
    check_count(max_window_events, "max_window_events")
    if time not in (None, "database", "process"):
        raise SpecError(f'time must be "database" or "process", not {time!r}')
    clock = create_system_clock() if clock is None else clock
    own_time = isinstance(clock, ControlledClock) if time is None else time == "process"
    return ServerStores(
        ServerDatabase(source, Naming(prefix, schema), clock, timeout, own_time=own_time), max_window_events
    )


async def create_schema(
    source: str | sa.URL | AsyncEngine,
    *,
    prefix: str = PREFIX,
    schema: str | None = None,
    timeout: timedelta = timedelta(seconds=60),
) -> None:
    """Make the tables of the stores, and the schema if one is named, or bring them to the version of this library.

    It does nothing where all is as it should be, and several processes may do it at once. If Alembic makes your tables,
    let it make these, too, from `metadata`, and leave this out.

    Args:
        source: As for `open_stores`.
        prefix: What the names of the tables begin with.
        schema: The schema to make them in (with MySQL: the database); that of the connection unless given.
        timeout: How long the database may take to answer a statement, in real time.

    Raises:
        SpecError: As for `open_stores`.
        ServerStoreError: The database cannot be reached, or this user may not make tables there.
    """
    source = _source(source)
    check_duration(timeout, "timeout")
    await ServerDatabase(source, Naming(prefix, schema), create_system_clock(), timeout, own_time=False).create()


def _source(source: object) -> sa.URL | AsyncEngine:
    if not isinstance(source, AsyncEngine):
        return _url(source)
    if isinstance(source.pool, sa.StaticPool):
        raise SpecError("an engine whose callers share one connection (StaticPool) cannot have transactions of its own")
    return source


def _url(source: object) -> sa.URL:
    if not isinstance(source, (str, sa.URL)):
        hint = "; pass the async one, of create_async_engine" if isinstance(source, sa.Engine) else ""
        raise SpecError(f"an async engine or a URL is wanted, {_SUCH_AS}, not {type(source).__name__}{hint}")
    try:
        url = sa.make_url(source)
        dialect_of(url.get_backend_name())
        dialect = url.get_dialect(_is_async=True)
        if dialect.is_async:
            dialect.import_dbapi()
            return url
    except (ArgumentError, ImportError) as error:
        # A URL that names no driver stands for the usual one, which may not be there.
        named = isinstance(error, ArgumentError) or "+" in str(source).partition(":")[0]
        if named and isinstance(error, ModuleNotFoundError):
            wanted = sa.make_url(source).drivername
            package = _IN_EXTRA.get(wanted, error.name)
            raise SpecError(f'{wanted} needs {error.name}, which is not installed: pip install "{package}"') from None
        driver = "a driver that is installed" if named else "the name of an async driver"
        raise SpecError(f"a URL is wanted, {_SUCH_AS}, with {driver}: {error}") from None
    raise SpecError(
        f"{url.drivername!r} is no async driver: write postgresql+asyncpg, postgresql+psycopg, mysql+asyncmy or"
        " mysql+aiomysql"
    )
