"""The stores of one database on a server: what they open and close, and what they refuse."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phyxius.adapters.sqlalchemy import ServerStoreError, ServerStores, create_schema, open_stores
from phyxius.clock import create_controlled_clock, create_system_clock
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, SpecError, define_migration
from tests.places import ServerPlace

SPEC: Any = define_migration(name="m", phases={"a": {}, "b": {}})
DAY = timedelta(days=1)


def connections(place: ServerPlace) -> int:
    """How many connections of others there are to the database."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    if place.is_mysql:
        sql = "SELECT count(*) FROM information_schema.processlist WHERE db = 'phyxius' AND id <> connection_id()"
    return int(place.rows(sql)[0][0])


@pytest.mark.parametrize(
    "source,text",
    [
        ("nonsense", "such as .postgresql.asyncpg://.*Could not parse"),
        ("postgres://a/b", "not for 'postgres'; write postgresql.asyncpg://"),
        ("postgresql+nosuch://a/b", "with a driver that is installed: Can't load plugin"),
        ("postgresql+psycopg2://a/b", "no async driver: write postgresql.asyncpg"),
        ("mysql+pymysql://a/b", "no async driver: write postgresql.asyncpg"),
        ("mysql+mysqlconnector://a/b", "no async driver"),
        ("mysql+asyncmyy://a/b", "with a driver that is installed"),
        ("sqlite:///a", "phyxius.adapters.sqlite.open_file_stores"),
        ("sqlite+aiosqlite:///a", "phyxius.adapters.sqlite.open_file_stores"),
        (None, "such as .postgresql.asyncpg://.*, not NoneType"),
        (3, "an async engine or a URL is wanted, .* not int"),
        (create_async_engine("postgresql+asyncpg://a/b", poolclass=sa.StaticPool), "share one connection"),
        (sa.create_engine("sqlite://"), "pass the async one, of create_async_engine"),
    ],
)
async def test_what_is_no_server(source: Any, text: str) -> None:
    """It is refused where it is passed, and the message says what to pass instead."""
    with pytest.raises(SpecError, match=text):
        open_stores(source)
    with pytest.raises(SpecError, match=text):
        await create_schema(source)


def test_a_url_that_names_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands for one that is not installed here, or for one that cannot await; neither is what is wanted."""
    monkeypatch.setitem(sys.modules, "psycopg", None)  # which newer releases of SQLAlchemy take
    with pytest.raises(SpecError, match=r"(the name of an|no) async driver"):
        open_stores("postgresql://a/b")


def test_arguments_that_make_no_sense() -> None:
    """A name that would be cut off, a time that is not positive, a bound that is not, a clock that nobody has."""
    url = "postgresql+asyncpg://a/b"
    wrong: list[dict[str, Any]] = [
        {"prefix": "No"},
        {"schema": "a.b"},
        {"timeout": timedelta(0)},
        {"max_window_events": 0},
        {"time": "host"},
    ]
    for options in wrong:
        with pytest.raises(SpecError, match=next(iter(options))):
            open_stores(url, **options)
    stores = open_stores("postgresql+asyncpg://user:hunter2@host/db?password=hunter3")
    assert "hunter" not in stores._database.place
    assert stores._database.place == "postgresql+asyncpg://user:***@host/db (phyxius_*)"


def test_whose_clock_stamps() -> None:
    """The server's, unless the clock is one that a test controls, or somebody says otherwise."""

    def own_time(**options: Any) -> bool:
        database: Any = open_stores("postgresql+asyncpg://a/b", **options)._database
        return "statement_timestamp" not in database._dialect.now

    assert not own_time()
    assert not own_time(clock=create_system_clock())
    assert own_time(clock=create_controlled_clock())
    assert own_time(time="process")
    assert not own_time(clock=create_controlled_clock(), time="database")


async def use(stores: ServerStores) -> None:
    """All that takes a connection, also for code that cannot await."""
    journal = Journal[Any](clock=stores.clock)

    @recorded(journal, "kept")
    def plain() -> None:
        """Do nothing."""

    await stores.phase_store(SPEC).current()
    async with stores.recorder(journal, name="api-1", durable=["kept"]):
        plain()
        assert await stores.journal_store.query(JournalQuery("kept"), DAY)


async def test_it_closes_what_it_opened(place: ServerPlace) -> None:
    """Of an engine of ours nothing is left open; that of somebody else goes on, and has its connections back."""
    before = connections(place)
    stores = open_stores(place.url)
    for _ in range(2):  # it can be opened again
        async with stores:
            await use(stores)
            assert connections(place) > before
            with pytest.raises(RuntimeError, match="open here already"):
                await stores.__aenter__()
    assert connections(place) == before
    engine = create_async_engine(place.url)
    async with open_stores(engine) as stores:
        await use(stores)
        assert engine.pool.checkedout() <= 1  # type: ignore[attr-defined]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with engine.connect() as connection:
        assert (await connection.execute(sa.text("SELECT 1"))).scalar() == 1
    await engine.dispose()
    assert connections(place) == before


async def test_it_works_while_it_is_open(place: ServerPlace) -> None:
    """Before and after it says what to do."""
    stores = open_stores(place.url)
    for _ in range(2):
        with pytest.raises(ServerStoreError, match="inside `async with stores:`") as caught:
            await stores.phase_store(SPEC).current()
        assert caught.value.problem == "not_open"
        with pytest.raises(ServerStoreError, match="inside `async with"):
            await stores.journal_store.query(JournalQuery("a"), DAY)
        async with stores:
            await stores.phase_store(SPEC).current()


async def test_it_works_where_it_was_opened(place: ServerPlace) -> None:
    """In another event loop it says so; there one opens stores of its own."""

    async def elsewhere(stores: ServerStores) -> None:
        with pytest.raises(ServerStoreError, match="opened in another event loop"):
            await stores.phase_store(SPEC).current()
        async with place.stores(create_system_clock()) as others:
            assert await others.phase_store(SPEC).current() == "a"

    async with open_stores(place.url) as stores:
        await asyncio.to_thread(lambda: asyncio.run(elsewhere(stores)))
        assert await stores.phase_store(SPEC).current() == "a"


@pytest.mark.parametrize("use", [create_schema, lambda engine: open_stores(engine).__aenter__()], ids=["make", "open"])
def test_an_engine_of_another_event_loop(use: Callable[[AsyncEngine], Awaitable[object]]) -> None:
    """Its connections are of no use here, which is said where the stores are opened, or made."""
    engine = create_async_engine(ServerPlace("postgresql").url)

    async def connect() -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def elsewhere() -> None:
        with pytest.raises(ServerStoreError, match="connections of another event loop"):
            await use(engine)

    with asyncio.Runner() as one:
        one.run(connect())
        asyncio.run(elsewhere())
        one.run(engine.dispose())


async def test_a_database_that_is_not_there(place: ServerPlace) -> None:
    """It is told from tables that are not there, and so is a driver that is not installed."""
    url = sa.make_url(place.url).set(database="nowhere")
    for work in (create_schema(url), open_stores(url).__aenter__()):
        with pytest.raises(ServerStoreError, match="no such database") as caught:
            await work
        assert caught.value.problem == "no_database"
    assert ("host=" in caught.value.place) is not place.is_mysql
    assert ("unix_socket=" in caught.value.place) is place.is_mysql


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said where the URL is passed, and not when it is connected to."""
    for driver, extra in (("asyncpg", "phyxius-migration\\[postgresql\\]"), ("psycopg", "psycopg")):
        monkeypatch.setitem(sys.modules, driver, None)
        told = rf'^postgresql\+{driver} needs {driver}, which is not installed: pip install "{extra}"$'
        with pytest.raises(SpecError, match=told):
            open_stores(f"postgresql+{driver}://a/b")


async def test_an_engine_of_ours_hides_what_it_is_given(place: ServerPlace) -> None:
    """An error of the database has no values in it."""
    async with open_stores(place.url) as stores:
        database: Any = stores._database
        assert database._lane.engine.sync_engine.hide_parameters


async def test_a_server_that_is_not_there() -> None:
    """It cannot be reached, which is told in a line, without the password."""
    for url in (
        "postgresql+asyncpg://user:hunter2@127.0.0.1:1/db",
        "postgresql+psycopg://user:hunter2@127.0.0.1:1/db",
        "mysql+asyncmy://user:hunter2@127.0.0.1:1/db",
        "mysql+aiomysql://user:hunter2@127.0.0.1:1/db",
    ):
        with pytest.raises(ServerStoreError, match="cannot be reached") as caught:
            await open_stores(url).__aenter__()
        assert caught.value.problem == "unreachable"
        assert "hunter2" not in str(caught.value)


async def test_what_still_runs_is_waited_for(place: ServerPlace) -> None:
    """It ends before the connections are closed; closed twice they are closed."""
    async with place.stores() as stores:
        database: Any = stores._database
        await stores.phase_store(SPEC).current()
        asked = asyncio.ensure_future(database.query(lambda connection: connection.aside(lambda: "answered")))
        while not database._tasks:  # noqa: ASYNC110 - until it runs
            await asyncio.sleep(0)
        await database.close()
        assert await asked == "answered"
        await database.close()


async def test_who_comes_while_it_closes_is_told(place: ServerPlace) -> None:
    """Code that cannot await is refused as any other, and the other connections are closed all the same."""
    async with place.stores() as stores:
        database: Any = stores._database
        await asyncio.to_thread(database._portal.call, asyncio.sleep(0))
        await asyncio.to_thread(database._portal.close, database._close_blocking(), timedelta(seconds=30))
        with pytest.raises(ServerStoreError, match="it is not open"):
            database.write_together_blocking(None)


async def test_a_driver_that_raises_an_error_of_its_own() -> None:
    """While it connects nothing stands between; it is an error of the stores all the same."""

    class OddError(Exception):
        sqlstate = "28P01"

    async def connect() -> Any:
        raise OddError("go away")

    engine = create_async_engine("postgresql+asyncpg://a/b", async_creator=connect)
    with pytest.raises(ServerStoreError, match=r"mend the user and the password.*OddError: go away"):
        await open_stores(engine).__aenter__()
    await engine.dispose()
