"""Stores that cannot be used as they are: each is one line that says why, and what to do."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from phyxius.adapters.sqlalchemy import open_stores
from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import opened
from phyxius.clock import create_controlled_clock
from phyxius.journal import Journal
from phyxius.migration import create_migration, define_migration
from tests.cli.support import Ended, Quotes, Shop, phyxius
from tests.places import FilePlace, ServerPlace, place_of

COMMANDS = [
    ("check", "quotes"),
    ("advance", "quotes", "--to", "flip", "--yes"),
    ("history", "quotes"),
    ("signatures", "quotes"),
    ("prune", "--older-than", "90d", "--yes"),
    ("diagram", "quotes"),
]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])


def over(stores: Any, name: str = "quotes") -> Any:
    spec = define_migration(name=name, phases={"expand": {}, "flip": {}})
    journal = Journal[Any](clock=stores.clock)
    return create_migration(
        spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
    )


def broken(ended: Ended, told: str) -> None:
    """It ended with one line."""
    assert (ended.exit, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert told in ended.err


@each_command
def test_a_file_that_is_missing(shop: Shop, command: tuple[str, ...]) -> None:
    """A wrong path is no new migration, unless somebody says that it is."""
    path = shop.directory / "stores.db"
    shop.has(over(open_file_stores(path, clock=create_controlled_clock())))
    ended = phyxius(*command)
    broken(ended, f"phyxius: {path}: it is not there")
    assert ended.err.endswith("; --create makes what is to be new\n")
    assert phyxius(*command, "--json").told["error"]["type"] == "FileStoreError"
    assert not path.exists()
    assert phyxius(*command, "--create").exit == 0
    assert path.exists()
    assert phyxius(*command).exit in (0, 3)


def test_a_database_that_is_away(shop: Shop) -> None:
    """Nobody needs it for a migration that is elsewhere; `status` tells of it where it is."""
    there = over(open_file_stores(shop.directory / "there.db", clock=create_controlled_clock()))
    away = over(open_file_stores(shop.directory / "away.db", clock=create_controlled_clock()), "orders")
    shop.has(there)
    assert phyxius("status", "--create").exit == 0
    shop.has([away, there])
    assert phyxius("advance", "quotes", "--to", "flip", "--yes").exit == 0
    ended = phyxius("status")
    assert (ended.exit, ended.err) == (1, "")
    assert ended.out.startswith(f"orders\n  error  {shop.directory}/away.db: it is not there")
    assert "quotes\n  phase  expand → [flip]" in ended.out
    assert not (shop.directory / "away.db").exists()


def test_a_directory_that_is_missing(shop: Shop) -> None:
    """That is not made."""
    shop.has(over(open_file_stores(shop.directory / "no" / "stores.db")))
    broken(phyxius("diagram", "quotes", "--create"), "check that its directory exists and can be read and written")


def test_a_file_of_somebody_else(shop: Shop) -> None:
    """It is left alone."""
    path = shop.directory / "stores.db"
    path.write_bytes(b"not a database" * 1000)
    shop.has(over(open_file_stores(path)))
    broken(phyxius("diagram", "quotes", "--create"), "it is not a file of this library, and was left as it is")
    assert path.read_bytes() == b"not a database" * 1000


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions bind: whoever runs the tests as root is somebody else meanwhile."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "file, directory, told",
    [
        (0o444, 0o777, "give this process write access to the file and to its directory"),
        (0o666, 0o555, "give this process write access to the file and to its directory"),
        (0o000, 0o777, "check that its directory exists and can be read and written"),
    ],
)
def test_a_file_without_permission(shop: Shop, file: int, directory: int, told: str) -> None:
    """It says what it needs."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "stores.db"
        stores = open_file_stores(path)
        shop.has(over(stores))
        with opened(stores):
            pass
        path.chmod(file)
        Path(name).chmod(directory)
        try:
            with ordinary_user():
                broken(phyxius("diagram", "quotes"), told)
        finally:
            Path(name).chmod(0o777)


def test_a_database_that_cannot_be_reached(shop: Shop) -> None:
    """Nobody listens there: it says so at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"postgresql+asyncpg://ada:secret@127.0.0.1:{taken.getsockname()[1]}/shop"
        shop.has(over(open_stores(url)))
        for more in ((), ("--json",), ("--traceback",)):
            ended = phyxius("diagram", "quotes", *more)
            assert ended.exit == 1
            assert "it cannot be reached, or did not answer in time" in ended.err
            assert "secret" not in ended.err
            assert ("Traceback" in ended.err) == ("--traceback" in more)
        broken(phyxius("diagram", "quotes"), "it cannot be reached")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerPlace]:
    with opened(place_of("postgresql", tmp_path)) as place:
        yield place


def test_a_database_without_the_tables(shop: Shop, server: ServerPlace) -> None:
    """It says how they are made, and makes them if it is told to."""
    shop.has(over(open_stores(server.url, prefix="nowhere_", schema="some_where")))
    broken(phyxius("diagram", "quotes"), "the tables are not there, or not all; run `await create_schema(engine)` once")
    assert "; --create makes what is to be new" in phyxius("diagram", "quotes").err
    assert phyxius("status", "--create").exit == 0
    assert phyxius("status").exit == 0
    assert phyxius("status", "--create").exit == 0


@each_command
def test_a_user_without_rights(shop: Shop, server: ServerPlace, command: tuple[str, ...]) -> None:
    """It says which rights are needed."""
    server.server.run("DROP ROLE IF EXISTS guest")
    server.server.run("CREATE ROLE guest LOGIN")
    try:
        shop.has(over(open_stores(sa.make_url(server.url).set(username="guest"))))
        broken(phyxius(*command), "grant it SELECT, INSERT, UPDATE and DELETE")
    finally:
        server.server.run("DROP ROLE guest")


def test_a_user_who_may_only_read(shop: Shop, server: ServerPlace) -> None:
    """A tool records what it does, so that is not enough."""
    with opened(open_stores(server.url)) as stores:
        shop.has(over(stores))
        assert phyxius("status").exit == 0
    server.server.run("DROP ROLE IF EXISTS guest")
    server.server.run("CREATE ROLE guest LOGIN")
    server.server.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
    try:
        shop.has(over(open_stores(sa.make_url(server.url).set(username="guest"))))
        for command in (("diagram", "quotes"), ("advance", "quotes", "--to", "flip", "--yes")):
            broken(phyxius(*command), "grant it SELECT, INSERT, UPDATE and DELETE")
        assert server.rows("SELECT phase FROM migrations") == [("expand",)]
    finally:
        server.server.run("DROP OWNED BY guest")
        server.server.run("DROP ROLE guest")


def test_a_file_that_is_locked(shop: Shop, tmp_path: Path) -> None:
    """It says who to look for."""
    from datetime import timedelta

    place = FilePlace(tmp_path / "stores.db")
    stores = open_file_stores(place.path, lock_timeout=timedelta(milliseconds=10))
    with opened(stores):
        pass
    shop.has(over(stores))
    with place.locked():
        broken(phyxius("diagram", "quotes"), "another process held its lock for too long")


def test_another_clock(shop: Shop, tmp_path: Path) -> None:
    """What a test has made is none of a process in real time."""
    with opened(open_file_stores(tmp_path / "stores.db", clock=create_controlled_clock())):
        pass
    shop.has(over(open_file_stores(tmp_path / "stores.db")))
    broken(phyxius("diagram", "quotes"), "this process would stamp its rows by another clock than the rest")


def test_stores_that_are_open_already(quotes_in: Quotes) -> None:
    """An application may hold them open: they are used, and left open."""
    with quotes_in.made():
        assert phyxius("status").exit == 0
        assert phyxius("advance", "quotes", "--to", "dual_write").exit == 0
        assert phyxius("status").out.startswith("quotes\n  phase  expand → [dual_write]")
