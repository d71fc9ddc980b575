"""The connections of one event loop to a server, and what becomes of transactions that fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from phyxius.adapters._database import Connection
from phyxius.adapters.sqlalchemy import ServerStoreError, ServerStores, create_schema, open_stores
from phyxius.adapters.sqlalchemy._connection import ServerConnection
from phyxius.adapters.sqlalchemy._lane import Lane
from phyxius.clock import create_controlled_clock, run_in_thread
from phyxius.migration import define_migration
from tests.places import PREFIX, ServerPlace, place_of
from tests.proxy import CuttingProxy

SPEC: Any = define_migration(name="m", phases={"a": {}, "b": {}})
READ = "SELECT phase FROM {migrations}"
WRITE = "UPDATE {migrations} SET version = version + 1"


@pytest.fixture
async def stores(place: ServerPlace) -> AsyncIterator[ServerStores]:
    async with place.stores(create_controlled_clock()) as stores:
        await stores.phase_store(SPEC).current()
        yield stores  # type: ignore[misc]


@pytest.fixture
def lane(stores: ServerStores) -> Lane:
    lane: Lane = stores._database._lane  # type: ignore[attr-defined]
    return lane


def disconnect(place: ServerPlace) -> None:
    """The server ends all connections of others, as an operator or a restart does."""
    if not place.is_mysql:
        place.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        return
    sql = "SELECT id FROM information_schema.processlist WHERE db = 'phyxius' AND id <> connection_id()"
    for (number,) in place.rows(sql):
        place.server.run(f"KILL {number}")


def version(place: ServerPlace) -> int:
    return int(place.rows("SELECT version FROM migrations")[0][0])


async def test_a_connection_is_kept_for_reading(place: ServerPlace, lane: Lane) -> None:
    """What reads one statement uses it, in no transaction; while it is taken others get one of the pool."""
    connection = lane._idle
    assert connection is not None

    async def read() -> Any:
        return await lane.read(lambda each: each.execute(READ).fetchone()[0])

    assert await asyncio.gather(*(read() for _ in range(5))) == ["a"] * 5
    assert lane._idle is not None
    place.change("UPDATE migrations SET phase = 'b'")
    assert await read() == "b"
    place.assert_idle()


async def test_a_work_that_raises_is_undone(place: ServerPlace, lane: Lane) -> None:
    """What it raised is passed on as it is, and nothing of it stays; the next one works."""

    def fail(connection: Connection) -> None:
        connection.execute(WRITE)
        raise KeyError("mine")

    for run in (lane.read, lambda work: lane.transact("READ COMMITTED", work)):
        with pytest.raises(KeyError, match="mine"):
            await run(lambda connection: {}["mine"])  # type: ignore[operator]
    with pytest.raises(KeyError):
        await lane.transact("READ COMMITTED", fail)
    assert version(place) == 0
    assert await lane.read(lambda each: each.execute(READ).fetchone()[0]) == "a"
    place.assert_idle()


async def test_a_statement_that_the_server_refuses(place: ServerPlace, lane: Lane) -> None:
    """It is an error of the stores, once, and the connection is none the worse."""
    ran: list[int] = []

    def refused(connection: Connection) -> None:
        ran.append(1)
        connection.execute("SELECT nonsense FROM {migrations}")

    for run in (lane.read(refused), lane.transact("READ COMMITTED", refused)):
        with pytest.raises(ServerStoreError, match="nonsense") as caught:
            await run
        assert caught.value.problem == "missing"
    assert len(ran) == 2
    assert await lane.read(lambda each: each.execute(READ).fetchone()[0]) == "a"


async def test_connections_that_the_server_has_ended(place: ServerPlace, lane: Lane) -> None:
    """A read, and what was not told to commit, is done on another one; nobody notices."""
    await lane.transact("READ COMMITTED", lambda each: each.execute(WRITE))
    disconnect(place)
    assert await lane.read(lambda each: each.execute(READ).fetchone()[0]) == "a"
    disconnect(place)
    await lane.transact("READ COMMITTED", lambda each: each.execute(WRITE))
    assert version(place) == 2

    tries: list[int] = []

    def ended(connection: Connection) -> None:
        connection.execute(WRITE)
        tries.append(1)
        if len(tries) == 1:
            disconnect(place)
        connection.execute(READ)

    await lane.transact("READ COMMITTED", ended)
    assert (len(tries), version(place)) == (2, 3)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "asyncmy", "aiomysql"])
async def test_a_server_that_goes_once_it_has_answered(tmp_path: Path, driver: str) -> None:
    """Its answer counts, and the pool has no place less; be it on the connection that is kept, or on another."""
    kind = "postgresql" if driver in ("asyncpg", "psycopg") else "mariadb"
    async with place_of(kind, tmp_path) as place:
        engine = create_async_engine(sa.make_url(place.url).set(drivername=f"{place.url.split('+')[0]}+{driver}"))
        async with open_stores(engine) as stores:
            lane: Lane = stores._database._lane  # type: ignore[attr-defined]

            def work(connection: Connection) -> str:
                phase = connection.execute(READ).fetchone()[0]
                disconnect(place)
                return str(phase)

            place.rows("SELECT 1 FROM migrations")
            await stores.phase_store(SPEC).current()
            async with lane._reading():
                for _ in range(3):
                    assert await lane.read(work) == "a"
                    assert engine.pool.checkedout() == 1  # type: ignore[attr-defined]
                assert await lane.transact("READ COMMITTED", lambda each: each.execute(READ).fetchone()[0]) == "a"
            assert await lane.read(work) == "a"
            assert await lane.read(work) == "a"
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await engine.dispose()


async def test_a_commit_whose_answer_is_lost_is_not_repeated(tmp_path: Path) -> None:
    """It may have happened: whoever asked has to find out."""
    async with place_of("postgresql", tmp_path) as place, CuttingProxy.unix(place.server.socket) as proxy:
        url = sa.make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
        async with open_stores(url) as stores:
            await stores.phase_store(SPEC).current()
            lane: Lane = stores._database._lane  # type: ignore[attr-defined]
            ran: list[int] = []

            def work(connection: Connection) -> None:
                ran.append(1)
                connection.execute(WRITE)
                proxy.cut_after(len(b"Q....COMMIT;."))  # what is sent, and nothing of the answer

            with pytest.raises(ServerStoreError) as caught:
                await lane.transact("READ COMMITTED", work)
            assert (len(ran), caught.value.problem) == (1, "unreachable")
            proxy.heal()
            place.settle()
            assert version(place) == 1


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_server_that_reads_no_more(driver: str, tmp_path: Path) -> None:
    """It ends in time, also in the middle of many rows, where asyncpg waits on when it is cancelled."""
    async with place_of(f"postgresql-{driver}", tmp_path) as place, CuttingProxy.unix(place.server.socket) as proxy:
        url = sa.make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
        async with open_stores(url) as stores:
            await stores.phase_store(SPEC).current()
            lane: Lane = stores._database._lane  # type: ignore[attr-defined]
            lane.limit = timedelta(seconds=1)
            rows = [{"name": "x" * 100_000}] * 400

            def work(connection: Connection) -> None:
                connection.execute(WRITE)
                proxy.hang_after(1_000_000)
                connection.execute_many("UPDATE {migrations} SET version = 7 WHERE name = :name", rows)

            with pytest.raises(ServerStoreError) as caught:
                await lane.transact("READ COMMITTED", work)
            assert caught.value.problem == "unreachable"
            proxy.heal()
            await run_in_thread(place.settle)
            assert version(place) == 0


async def test_transactions_that_are_in_each_others_way(place: ServerPlace, stores: ServerStores, lane: Lane) -> None:
    """Of two that wait for each other the server undoes one, which is run anew: both are done."""
    await stores.phase_store(define_migration(name="n", phases={"a": {}, "b": {}})).current()
    met = [asyncio.Event(), asyncio.Event()]
    tries = [0, 0]

    def crossing(number: int) -> Callable[[Connection], None]:
        first, second = ("m", "n") if number == 0 else ("n", "m")

        def work(connection: Connection) -> None:
            assert isinstance(connection, ServerConnection)
            tries[number] += 1
            connection.execute(WRITE + " WHERE name = :name", {"name": first})
            met[number].set()
            raw: Any = connection.raw.connection.dbapi_connection
            raw.run_async(lambda _: met[1 - number].wait())
            connection.execute(WRITE + " WHERE name = :name", {"name": second})

        return work

    await asyncio.gather(*(lane.transact("READ COMMITTED", crossing(number)) for number in range(2)))
    assert sum(tries) == 3
    assert place.rows("SELECT version FROM migrations ORDER BY name") == [(2,), (2,)]


async def test_others_that_are_always_in_the_way(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """After five tries it says so."""
    tries: list[int] = []

    class ConflictError(Exception):
        sqlstate = "40001"

    def conflict(connection: Connection) -> None:
        tries.append(1)
        raise sa.exc.OperationalError("UPDATE", {}, ConflictError("could not serialize"))

    with pytest.raises(ServerStoreError, match="others were in the way") as caught:
        await lane.transact("READ COMMITTED", conflict)
    assert (len(tries), caught.value.problem) == (5, "busy")
    lost = sa.exc.OperationalError("SELECT", {}, Exception("gone"), connection_invalidated=True)

    def gone(connection: Connection) -> None:
        raise lost

    with pytest.raises(ServerStoreError, match="cannot be reached"):
        await lane.read(gone)


@pytest.mark.parametrize("then", ["hangs in the middle", "hangs at once"])
async def test_a_server_that_answers_no_more(tmp_path: Path, then: str) -> None:
    """A line that is dead without being closed is given up in time, and whatever hung on it."""
    async with place_of("postgresql", tmp_path) as place, CuttingProxy.unix(place.server.socket) as proxy:
        url = sa.make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
        async with open_stores(url) as stores:
            store = stores.phase_store(SPEC)
            assert await store.current() == "a"
            stores._database._lane.limit = timedelta(milliseconds=200)  # type: ignore[attr-defined]
            proxy.hang_after(30 if then == "hangs in the middle" else 0)
            for work in (store.current(), store.resolve("x")):
                with pytest.raises(ServerStoreError, match="no answer within") as caught:
                    await work
                assert caught.value.problem == "unreachable"
            proxy.heal()
            assert await store.current() == "a"


async def test_foreign_functions_run_aside(lane: Lane) -> None:
    """In a thread, while the event loop goes on; what they raise ends the transaction."""
    loop = asyncio.get_running_loop()
    turned = threading.Event()

    def work(connection: Connection) -> threading.Thread:
        def foreign() -> threading.Thread:
            loop.call_soon_threadsafe(turned.set)
            assert turned.wait(30), "the event loop stands still"
            return threading.current_thread()

        return connection.aside(foreign)

    assert await lane.transact("REPEATABLE READ", work) is not threading.current_thread()

    def failing(connection: Connection) -> None:
        connection.aside(lambda: {}["mine"])

    with pytest.raises(KeyError, match="mine"):
        await lane.transact("REPEATABLE READ", failing)


async def test_a_query_sees_one_state(place: ServerPlace, lane: Lane) -> None:
    """What others commit meanwhile is not there; for a write it is."""

    def work(connection: Connection) -> list[int]:
        before = connection.execute("SELECT version FROM {migrations}").fetchone()[0]
        place.change("UPDATE migrations SET version = version + 1")
        return [before, connection.execute("SELECT version FROM {migrations}").fetchone()[0]]

    assert await lane.transact("REPEATABLE READ", work) == [0, 0]
    assert await lane.transact("READ COMMITTED", work) == [1, 2]


async def test_the_tables_go_away(place: ServerPlace, stores: ServerStores) -> None:
    """Nothing moves, and it says what is missing."""
    place.change(f"ALTER TABLE {PREFIX}orders RENAME TO {PREFIX}away")
    try:
        with pytest.raises(ServerStoreError, match="the tables are not there"):
            await stores.phase_store(SPEC).current()
    finally:
        place.change(f"ALTER TABLE {PREFIX}away RENAME TO {PREFIX}orders")
    assert await stores.phase_store(SPEC).current() == "a"
    await create_schema(place.url)


async def test_an_engine_that_commits_each_statement(place: ServerPlace) -> None:
    """Whatever the engine is made to do, what belongs together is one transaction."""
    engine = create_async_engine(place.url, isolation_level="AUTOCOMMIT")
    async with open_stores(engine, clock=create_controlled_clock()) as stores:
        await stores.phase_store(SPEC).current()
        lane: Lane = stores._database._lane  # type: ignore[attr-defined]

        def fail(connection: Connection) -> None:
            connection.execute(WRITE)
            raise KeyError("mine")

        with pytest.raises(KeyError):
            await lane.transact("READ COMMITTED", fail)
        assert version(place) == 0
        await lane.transact("READ COMMITTED", lambda each: each.execute(WRITE))
        assert version(place) == 1
        await lane.transact("READ COMMITTED", lambda each: each.execute(WRITE))
        assert version(place) == 2
    await engine.dispose()


async def test_a_pool_of_one_connection(place: ServerPlace) -> None:
    """It is not kept then: what writes needs it, too."""
    engine = create_async_engine(place.url, pool_size=1, max_overflow=0)
    async with open_stores(engine, clock=create_controlled_clock()) as stores:
        store = stores.phase_store(SPEC)
        assert await store.current() == "a"
        assert await store.current() == "a"
        assert await store.resolve("x") is None
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 1"))
    await engine.dispose()


async def test_a_primary_that_is_one_no_more(tmp_path: Path) -> None:
    """Where nothing can be written, the connections are given up: others may lead to the primary that is."""
    async with place_of("postgresql", tmp_path) as place, place.stores(create_controlled_clock()) as stores:
        await stores.phase_store(SPEC).current()
        lane: Lane = stores._database._lane
        assert await lane.read(lambda each: each.execute(READ).fetchone()[0]) == "a"
        assert lane._idle is not None

        def write(connection: Connection) -> None:
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute(WRITE)

        with pytest.raises(ServerStoreError, match="connect to the primary"):
            await lane.transact("READ COMMITTED", write)
        assert lane._idle is None
        await lane.transact("READ COMMITTED", lambda each: each.execute(WRITE))


async def test_a_closed_lane_keeps_nothing(lane: Lane) -> None:
    """What still ran while it was closed gives its connection back."""
    gate = asyncio.Event()

    def slow(connection: Connection) -> str:
        assert isinstance(connection, ServerConnection)
        raw: Any = connection.raw.connection.dbapi_connection
        raw.run_async(lambda _: gate.wait())
        return str(connection.execute(READ).fetchone()[0])

    reading = asyncio.ensure_future(lane.read(slow))
    await asyncio.sleep(0)
    await lane.close()
    gate.set()
    assert await reading == "a"
    assert lane._idle is None
