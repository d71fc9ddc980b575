"""What engines and servers are set to, or become: none of it may make an answer untrue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phyxius.adapters.sqlalchemy import ServerStoreError, ServerStores, create_schema, open_stores
from phyxius.clock import create_system_clock
from phyxius.fp import Ok
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import (
    JournalQuery,
    Migration,
    create_migration,
    define_migration,
    journal_window,
    no_events,
)
from phyxius.testing import make_event
from tests.places import ServerPlace
from tests.servers import Postgres, Standby, server

WINDOW = timedelta(hours=1)
SPEC: Any = define_migration(
    name="quotes", phases={"flip": {}, "contract": {"silent": journal_window("legacy", WINDOW, no_events())}}
)


def aged(place: ServerPlace) -> None:
    """The tables have held everything for years."""
    place.change("UPDATE journal SET covered_since_ns = 0")


@contextlib.asynccontextmanager
async def running(stores: ServerStores) -> AsyncIterator[Migration[Any]]:
    """A migration in a process that would record "legacy"."""
    journal = Journal[Any](clock=stores.clock)
    journal.declare("legacy")
    async with stores.recorder(journal, name="api-1"):
        yield create_migration(
            SPEC, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(SPEC)
        )


async def assert_no_plain_call_runs(stores: ServerStores, why: str) -> None:
    """A plain function of a durable name is told why its start cannot be stored, and does not run."""
    journal, ran = Journal[Any](clock=stores.clock), list[str]()

    @recorded(journal, "legacy")
    def legacy() -> None:
        ran.append("legacy")

    async with stores.recorder(journal, name="api-1", durable=["legacy"]):
        with pytest.raises(ServerStoreError, match=why):
            legacy()
    assert not ran


# -- servers that change their role


@contextlib.contextmanager
def demoted(place: ServerPlace) -> Iterator[None]:
    """A primary that became a replica, and keeps its sessions."""
    assert place.is_mysql
    place.server.run("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        place.server.run("SET GLOBAL read_only = 0")


@pytest.mark.parametrize("connections", [1, 5])
async def test_a_primary_that_was_demoted_proves_nothing(connections: int) -> None:
    """Its sessions go on, also those that wait in the pool: each says what it knew, which may be old by now."""
    place = await ServerPlace("mariadb").make()
    engine = create_async_engine(place.url, pool_size=connections)
    async with open_stores(engine) as stores, running(stores) as migration:
        aged(place)
        await asyncio.gather(*(stores.phase_store(SPEC).history() for _ in range(connections)))
        with demoted(place):
            for _ in range(connections + 2):
                refused = await migration.advance()
                assert not isinstance(refused, Ok)
                assert "connect to the primary" in refused.error.message
        assert isinstance(await migration.advance(), Ok)
    await engine.dispose()


async def test_a_standby_is_refused() -> None:
    """Where the address leads to one, it is refused as it is opened."""
    place, primary = await ServerPlace("postgresql").make(), server("postgresql")
    assert isinstance(primary, Postgres)
    async with place.stores(create_system_clock()):
        pass
    with Standby(primary) as standby, pytest.raises(ServerStoreError, match="connect to the primary") as caught:
        async with open_stores(standby.url()):
            pass
    assert caught.value.problem == "read_only"


# -- engines that choose the schema


@contextlib.asynccontextmanager
async def tenant(place: ServerPlace, command: str) -> AsyncIterator[AsyncEngine]:
    """An engine whose transactions see another schema than the usual one; both have the tables."""
    engine = create_async_engine(place.url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA tenant")
    sa.event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(command))
    await create_schema(engine)
    try:
        async with place.stores(create_system_clock()) as others, running(others):
            yield engine
    finally:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("DROP SCHEMA tenant CASCADE")
        await engine.dispose()


async def test_reads_that_see_another_schema_than_transactions() -> None:
    """`SET LOCAL` does nothing outside of a transaction, so the stores are not even opened."""
    place = await ServerPlace("postgresql").make()
    async with tenant(place, "SET LOCAL search_path TO tenant") as engine:
        with pytest.raises(ServerStoreError, match="does an event of the engine choose the schema") as caught:
            async with open_stores(engine):
                pass
    assert caught.value.problem == "missing"


async def test_plain_functions_that_see_another_schema() -> None:
    """They have connections of their own, without the events of the engine: their calls do not run unrecorded."""
    place = await ServerPlace("postgresql").make()
    async with tenant(place, "SET search_path TO tenant") as engine, open_stores(engine) as stores:
        await assert_no_plain_call_runs(stores, "are the tables of other stores")
        assert not place.rows("SELECT * FROM starts")


async def test_a_query_that_sees_another_schema() -> None:
    """An event of the engine may change its mind, by a variable of its own."""
    place, schema = await ServerPlace("postgresql").make(), "tenant"
    async with tenant(place, "SET search_path TO tenant") as engine:
        sa.event.listen(
            engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(f"SET search_path TO {schema}")
        )
        async with open_stores(engine) as stores, running(stores) as migration:
            schema = "public"
            await stores._database._lane._let_go()  # type: ignore[attr-defined]
            refused = await migration.advance()
            assert not isinstance(refused, Ok)
            assert "the tables of other stores" in refused.error.message
            schema = "tenant"
            await stores._database._lane._let_go()  # type: ignore[attr-defined]


# -- engines that do not roll back


async def test_a_transaction_that_fails_is_not_left_to_the_pool() -> None:
    """SQLAlchemy may be told not to roll back what commits each statement, and knows of no transaction of ours."""
    place = await ServerPlace("mariadb").make()
    engine = create_async_engine(
        place.url, pool_size=2, max_overflow=0, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True
    )
    async with open_stores(engine) as stores:
        journal = Journal[Any](clock=stores.clock)
        async with stores.recorder(journal, name="api-1") as recorder:
            journal.append(make_event("legacy", clock=journal.clock))
            with place.broken("BEFORE INSERT", "events"), pytest.raises(ServerStoreError):
                await recorder.flush()
            for _ in range(3):  # the application commits something on whatever connection comes
                async with engine.begin() as connection:
                    await connection.exec_driver_sql("SELECT 1")
            await recorder.flush()
            assert place.rows("SELECT count(*) FROM events") == [(1,)]
    await engine.dispose()


async def test_connections_that_belong_to_an_event_loop() -> None:
    """A plain function cannot use them, and says so instead of running unrecorded."""
    place, home = await ServerPlace("postgresql").make(), asyncio.get_running_loop()

    async def connect() -> Any:
        if asyncio.get_running_loop() is not home:
            raise RuntimeError("this connector belongs to another event loop")
        return await asyncpg.connect(host=str(Path(place.server.socket).parent), user="postgres", database="postgres")

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    async with open_stores(engine) as stores:
        await assert_no_plain_call_runs(stores, "have an event loop of their own: this connector belongs")
    await engine.dispose()


async def test_reads_that_get_another_connection_for_each_statement() -> None:
    """Behind PgBouncer what one statement has prepared the next may not find, unless a transaction holds both."""
    place = await ServerPlace("pgbouncer-asyncpg").make()
    async with contextlib.AsyncExitStack() as stack:
        phases = [(await stack.enter_async_context(place.stores())).phase_store(SPEC) for _ in range(8)]
        for _ in range(20):
            assert set(await asyncio.gather(*(phase.current() for phase in phases))) == {"flip"}


# -- settings of the server


async def test_a_server_that_cuts_off_what_names_no_limit() -> None:
    """What it knows of recorders is read as a whole: the last one may be the one that died."""
    place = await ServerPlace("mariadb").make()
    async with place.stores(create_system_clock()) as stores, running(stores) as migration:
        aged(place)
        now_ns = stores.clock.now().wall_ns
        row = ("died", 1, 0, 0, now_ns - 10**9, now_ns, 0)
        rows = [(f"api-{number}", 1, 0, 0, now_ns, now_ns, 1) for number in range(9)]
        place.change(
            "INSERT INTO recorders (name, pid, audit_only, started_ns, stored_ns, ended_ns, closed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            [*rows, row],
        )
        place.change(
            "INSERT INTO declarations (recorder, name, durable) SELECT id, 'legacy', 0 FROM recorders WHERE pid = 1"
        )
        place.server.run("SET GLOBAL sql_select_limit = 5")
        try:
            async with place.stores(create_system_clock()) as limited:  # whose sessions begin under it
                assert (await limited.journal_store.query(JournalQuery("migration.quotes.advance"), WINDOW)) is not None
            database: Any = stores._database
            await database._lane._let_go()
            await database._lane.engine.dispose()
            refused = await migration.advance()
        finally:
            place.server.run("SET GLOBAL sql_select_limit = DEFAULT")
        assert not isinstance(refused, Ok)
        assert "died" in refused.error.message


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_database_that_lacks_characters(driver: str) -> None:
    """One event with a character of another script would keep all others from being stored."""
    place = await ServerPlace("postgresql").make()
    place.server.run("DROP DATABASE IF EXISTS latin")
    place.server.run("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = sa.make_url(place.server.url(driver)).set(database="latin")
    await create_schema(url)
    with pytest.raises(ServerStoreError, match="make the database in UTF8") as caught:
        async with open_stores(url):
            pass
    assert caught.value.problem == "encoding"
    place.server.run("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize(
    "driver,charset", [("asyncmy", "latin1"), ("aiomysql", "latin1"), ("aiomysql", "utf8mb3")]
)  # asyncmy knows of no utf8mb3
async def test_a_connection_that_lacks_characters(driver: str, charset: str) -> None:
    """The same, where the tables have them, but the way there does not."""
    place = await ServerPlace("mariadb").make()
    url = sa.make_url(place.server.url(driver)).update_query_dict({"charset": charset})
    with pytest.raises(ServerStoreError, match="connect in utf8mb4") as caught:
        async with open_stores(url):
            pass
    assert caught.value.problem == "encoding"
