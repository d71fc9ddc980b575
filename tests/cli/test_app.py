"""Finding the migrations of an application, and opening and closing what it has open."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import SyncMigration, opened
from phyxius.cli._app import user
from phyxius.clock import create_controlled_clock
from phyxius.journal import Journal
from phyxius.migration import create_migration, define_migration
from tests.cli.support import (
    HOSTILE,
    NAMES,
    SEVERAL,
    SHOWN,
    TRACED,
    WANTED,
    Ended,
    Shop,
    in_memory,
    names,
    phyxius,
    shows,
)

# -- what an application may be


@pytest.mark.parametrize(
    "app",
    [
        lambda: SEVERAL["quotes"],
        lambda: list(SEVERAL.values()),
        lambda: tuple(SEVERAL.values()),
        lambda: SEVERAL,
        SEVERAL.values,
        lambda: iter(SEVERAL.values()),
        lambda: [SyncMigration(each) for each in SEVERAL.values()],
        lambda: SyncMigration(SEVERAL["quotes"]),
    ],
    ids=["one", "list", "tuple", "mapping", "values", "iterator", "plain ones", "a plain one"],
)
@pytest.mark.parametrize("how", ["as it is", "factory"])
def test_migrations_of_an_application(shop: Shop, app: Callable[[], Any], how: str) -> None:
    """One, several, or a mapping of them, async or plain, as they are or from a factory."""
    shop.has(app() if how == "as it is" else app)
    assert names(phyxius("status", "--json")) in (NAMES, NAMES[:1])


class Kept:
    """A factory in each of its shapes, which tells what happened to it."""

    def __init__(self) -> None:
        self.happened: list[str] = []

    async def coroutine(self) -> Any:
        self.happened.append("made")
        return SEVERAL

    @contextmanager
    def context(self) -> Iterator[Any]:
        self.happened.append("open")
        try:
            yield SEVERAL
        finally:
            self.happened.append("closed")

    @asynccontextmanager
    async def async_context(self) -> AsyncIterator[Any]:
        self.happened.append("open")
        try:
            yield SEVERAL
        finally:
            self.happened.append("closed")

    def __call__(self, colour: str = "blue") -> Any:
        self.happened.append(colour)
        return SEVERAL


@pytest.mark.parametrize(
    "shape, happened",
    [
        ("coroutine", ["made"]),
        ("context", ["open", "closed"]),
        ("async_context", ["open", "closed"]),
        ("__call__", ["blue"]),
    ],
)
def test_a_factory(shop: Shop, shape: str, happened: list[str]) -> None:
    """It is called once, and what it opens is closed at the end."""
    kept = Kept()
    shop.has(getattr(kept, shape))
    assert names(phyxius("status", "--json")) == NAMES
    assert kept.happened == happened


@pytest.mark.parametrize("shape", ["context", "async_context"])
def test_a_context_manager_as_it_is(shop: Shop, shape: str) -> None:
    """It may be open already made, without a factory."""
    kept = Kept()
    shop.has(getattr(kept, shape)())
    assert names(phyxius("status", "--json")) == NAMES
    assert kept.happened == ["open", "closed"]


@pytest.mark.parametrize("shape", ["context", "async_context"])
def test_what_is_open_is_closed_after_an_error(shop: Shop, shape: str) -> None:
    """Whatever keeps the command from its work."""
    kept = Kept()
    shop.has(getattr(kept, shape))
    assert phyxius("check", "nothing").exit == 2
    assert kept.happened == ["open", "closed"]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_application_that_swallows_errors(shop: Shop, kind: str) -> None:
    """It hides nothing: what went wrong is told all the same, and the command does not end as if it were done."""

    @contextmanager
    def swallows() -> Iterator[Any]:
        with suppress(Exception):
            yield SEVERAL

    @asynccontextmanager
    async def swallows_too() -> AsyncIterator[Any]:
        with swallows() as several:
            yield several

    shop.has(swallows if kind == "plain" else swallows_too)
    shows(phyxius("check", "nothing"), "there is no migration 'nothing'; there are: quotes, orders", 2)


@pytest.mark.parametrize(
    "error", [OSError("the tunnel is gone"), SystemExit("the tunnel is gone")], ids=["raise", "exit"]
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_application_that_cannot_be_closed(shop: Shop, as_json: bool, error: BaseException) -> None:
    """What was done is told before, and not taken back; but it is no success."""

    @contextmanager
    def breaks() -> Iterator[Any]:
        yield in_memory()
        raise error

    shop.has(breaks)
    ended = phyxius("advance", "quotes", "--to", "flip", "--yes", *(["--json"] if as_json else []))
    why = f"{type(error).__name__}: the tunnel is gone{TRACED}"
    assert ended.err == f"phyxius: the application could not be closed after that: {why}\n"
    assert ended.exit == 1
    if as_json:
        assert ended.told["outcome"] == "ADVANCED"
    else:
        assert "ADVANCED  quotes is at flip" in ended.out


def test_an_application_that_turns_one_error_into_another(shop: Shop) -> None:
    """The first one is what keeps the command from its work."""

    @contextmanager
    def turns() -> Iterator[Any]:
        try:
            yield SEVERAL
        finally:
            raise OSError("the tunnel is gone")

    shop.has(turns)
    shows(phyxius("check", "nothing"), "there is no migration 'nothing'; there are: quotes, orders", 2)


def test_a_plain_factory_is_plain_code(shop: Shop, tmp_path: Path) -> None:
    """It may run event loops, and open stores, as in any program without an event loop."""
    stores = open_file_stores(tmp_path / "a.db", clock=create_controlled_clock())
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}})

    async def settings() -> str:
        return "settings"

    @contextmanager
    def app() -> Iterator[Any]:
        assert asyncio.run(settings()) == "settings"
        with opened(stores):
            journal = Journal[Any](clock=stores.clock)
            yield SyncMigration(create_migration(spec, journal=journal, phase_store=stores.phase_store(spec)))

    shop.has(app)
    assert names(phyxius("status", "--json")) == ["quotes"]


# -- what it may not be


async def bare_async_generator() -> AsyncIterator[Any]:
    yield SEVERAL


def bare_generator() -> Iterator[Any]:
    yield SEVERAL


def failing_factory() -> Any:
    raise RuntimeError(f"no tunnel{HOSTILE}")


async def failing_coroutine() -> Any:
    raise RuntimeError("no tunnel")


def leaving_factory() -> Any:
    sys.exit("no settings")


def quiet_factory() -> Any:
    raise RuntimeError


@contextmanager
def failing_context() -> Iterator[Any]:
    raise RuntimeError("no tunnel")
    yield


@asynccontextmanager
async def failing_async_context() -> AsyncIterator[Any]:
    raise RuntimeError("no tunnel")
    yield


@pytest.mark.parametrize(
    "app, told",
    [
        ("quotes", f"must be {WANTED}, and came to a str"),
        (b"quotes", f"must be {WANTED}, and came to a bytes"),
        (7, f"must be {WANTED}, and came to a int"),
        (None, f"must be {WANTED}, and came to a NoneType"),
        ([SEVERAL["quotes"], "orders"], f"must be {WANTED}, and came to a str"),
        ({"quotes": 7}, f"must be {WANTED}, and came to a int"),
        ([], f"must be {WANTED}, and came to nothing"),
        ({}, f"must be {WANTED}, and came to nothing"),
        (list, f"must be {WANTED}, and came to nothing"),
        ([SEVERAL["quotes"], SEVERAL["quotes"]], "has two migrations of one name; it must have each once"),
        (lambda settings: SEVERAL, f"must be {WANTED} and needs no argument; it needs some"),
        (dict.fromkeys, f"must be {WANTED} and needs no argument; it needs some"),
        (
            bare_generator,
            "is a generator: write @contextlib.contextmanager above it, and yield the migrations",
        ),
        (
            bare_async_generator,
            "is a generator: write @contextlib.asynccontextmanager above it, and yield the migrations",
        ),
        (failing_factory, f"failed: RuntimeError: no tunnel{SHOWN}{TRACED}".replace(r"b\r\n", "b ")),
        (failing_coroutine, f"failed: RuntimeError: no tunnel{TRACED}"),
        (quiet_factory, f"failed: RuntimeError{TRACED}"),
        (leaving_factory, f"failed: SystemExit: no settings{TRACED}"),
        (failing_context, f"failed: RuntimeError: no tunnel{TRACED}"),
        (failing_async_context, f"failed: RuntimeError: no tunnel{TRACED}"),
    ],
    ids=range(20),
)
def test_what_is_no_application(shop: Shop, app: object, told: str) -> None:
    """One line says what it is, and what it must be."""
    shop.has(app)
    assert phyxius("status") == Ended(1, "", f"phyxius: shop:app {told}\n")
    assert "Traceback" in phyxius("status", "--traceback").err
    error = phyxius("status", "--json").told["error"]
    assert error["type"] == "CommandError"
    assert "shop:app " in error["message"]


def test_who_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not know who that is, as in some containers, it is somebody."""
    monkeypatch.setenv("LOGNAME", "ada")
    assert user() == "ada"

    def unknown() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", unknown)
    error: Exception = OSError("No username set")
    assert user() == "somebody"
    error = KeyError("getpwuid(): uid not found: 1000")
    assert user() == "somebody"
