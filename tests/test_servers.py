"""The servers that tests run against are what the tests take them for."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tests.proxy import CuttingProxy
from tests.servers import MariaDB, Postgres, server

KINDS = ("postgresql", "mariadb")
WAYS = [("postgresql", driver) for driver in Postgres.drivers] + [("mariadb", driver) for driver in MariaDB.drivers]
DURABLE = {
    "postgresql": ("SELECT setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')", "on\non"),
    "mariadb": ("SELECT @@innodb_flush_log_at_trx_commit", "1"),
}


@asynccontextmanager
async def engine_of(url: str | sa.URL, **options: Any) -> AsyncIterator[AsyncEngine]:
    """An engine that keeps no connection."""
    engine = create_async_engine(url, poolclass=NullPool, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def table_of(kind: str) -> AsyncIterator[str]:
    """A table of numbers, for one test."""
    server(kind).run("CREATE TABLE test_servers (number integer)")
    try:
        yield "test_servers"
    finally:
        server(kind).run("DROP TABLE test_servers")


async def answer(connection: AsyncConnection, sql: str) -> Any:
    return (await connection.execute(sa.text(sql))).scalar_one()


@pytest.mark.parametrize("kind,driver", WAYS)
async def test_each_driver_reaches_its_server(kind: str, driver: str) -> None:
    """A server answers through SQLAlchemy, with each of its drivers."""
    async with engine_of(server(kind).url(driver)) as engine, engine.connect() as connection:
        assert await answer(connection, "SELECT 6 * 7") == 42


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_is_started_once(kind: str) -> None:
    """Who asks again gets the same server."""
    assert server(kind) is server(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_syncs_what_it_commits(kind: str) -> None:
    """Durability is as in production, not traded for speed."""
    question, expected = DURABLE[kind]
    assert server(kind).run(question).strip() == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_committed_outlives_a_stop(kind: str) -> None:
    """A server that stops at once loses its connections and what is open, and nothing that is committed."""
    async with table_of(kind) as table, engine_of(server(kind).url()) as engine:
        async with engine.begin() as connection:
            await connection.execute(sa.text(f"INSERT INTO {table} VALUES (1)"))
        async with engine.connect() as connection:
            await connection.execute(sa.text(f"INSERT INTO {table} VALUES (2)"))
            server(kind).stop_at_once()
            server(kind).start()
            with pytest.raises(DBAPIError):
                await connection.execute(sa.text(f"INSERT INTO {table} VALUES (3)"))
            await connection.invalidate()
        async with engine.connect() as connection:
            assert await answer(connection, f"SELECT sum(number) FROM {table}") == 1


async def test_pgbouncer_shares_few_connections_among_many() -> None:
    """More clients than there are connections to the server get their transactions, one after the other."""
    url = server("pgbouncer").url("psycopg")
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(engine_of(url, connect_args={"prepare_threshold": None}))
        clients = [await stack.enter_async_context(engine.connect()) for _ in range(8)]

        async def backend(client: AsyncConnection) -> int:
            async with client.begin():
                return int(await answer(client, "SELECT pg_backend_pid()"))

        assert len(set(await asyncio.gather(*map(backend, clients)))) <= 3


@pytest.mark.parametrize("kind", KINDS)
async def test_a_driver_is_cut_off_before_its_statement_arrives(kind: str) -> None:
    """A driver whose line is cut before the first byte gets an error, nothing happens, and it can connect again."""
    async with table_of(kind) as table, CuttingProxy.unix(server(kind).socket) as proxy:
        url = sa.make_url(server(kind).url()).set(host="127.0.0.1", port=proxy.port, query={})
        async with engine_of(url, isolation_level="AUTOCOMMIT") as engine:
            async with engine.connect() as connection:
                proxy.cut_after(0)
                with pytest.raises(DBAPIError):
                    await connection.execute(sa.text(f"INSERT INTO {table} VALUES (1)"))
                assert proxy.forwarded == 0
                await connection.invalidate()
            async with engine.connect() as connection:
                assert await answer(connection, f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("kind", ["mariadb", "pgbouncer"])
@pytest.mark.parametrize("ci,outcome", [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_missing_server_is_named(
    kind: str, ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test whose server is not installed is skipped, and fails in CI; both say what is missing."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(outcome, match=f"{kind} is not installed: .*not found"):
        server.__wrapped__(kind)


USER = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
from tests.servers import server
used = [server(name) for name in ("postgresql", "mariadb", "pgbouncer")]
used[0].stop_at_once()
used[0].start()
print(*(each._directory for each in used), flush=True)
sys.stdin.read(1)
"""


@pytest.mark.parametrize("ending", [None, signal.SIGKILL])
def test_no_server_outlives_its_user(ending: signal.Signals | None) -> None:
    """Servers and their directories are gone after the process that used them, however it ends."""
    for kind in (*KINDS, "pgbouncer"):
        server(kind)  # or skip
    root = Path(__file__).parents[1]
    command, environment = [sys.executable, "-c", USER], os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as user:
        assert user.stdout is not None
        directories = user.stdout.readline().split()
        assert len(directories) == 3
        if ending is not None:
            user.send_signal(ending)
        user.communicate("x" if ending is None else None)
    # Nothing tells us of the end of a process that is not our child: look, for a while, until it is seen.
    limit = time.monotonic() + 10
    while (left := left_of(directories)) and time.monotonic() < limit:
        os.sched_yield()
    assert not left


def left_of(directories: list[str]) -> list[str]:
    """Which of the directories are still there, and the processes that are not told to end before they are gone."""
    left = [each for each in directories if Path(each).exists()]
    if left:
        return left
    return [each for each in directories if each in running()]


def running() -> str:
    """The command lines of all processes but those that clean up."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found.append(path.read_text(errors="replace"))
    return "\n".join(each for each in found if "\0reaper\0" not in each)
