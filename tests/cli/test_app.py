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
from tests.cli.support import HOSTILE, SHOWN, Ended, Shop, in_memory, phyxius

SEVERAL = {"quotes": in_memory("quotes"), "orders": in_memory("orders")}
NAMES = ["quotes", "orders"]
SUCH_AS = 'must be "package.module:name", such as "shop.migrations:migration", not'
WANTED = "a Migration, several of them, or a factory that returns them"


def names(ended: Ended) -> list[str]:
    assert ended.exit == 0, ended.err
    return [each["migration"] for each in ended.told["migrations"]]


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


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_an_application_that_cannot_be_closed(shop: Shop, as_json: bool) -> None:
    """What was done is told before, and not taken back; but it is no success."""

    @contextmanager
    def breaks() -> Iterator[Any]:
        yield in_memory()
        raise OSError("the tunnel is gone")

    shop.has(breaks)
    ended = phyxius("advance", "quotes", "--to", "flip", "--yes", *(["--json"] if as_json else []))
    assert (
        ended.err == f"phyxius: the application could not be closed after that: OSError: the tunnel is gone{TRACED}\n"
    )
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


TRACED = "; --traceback shows where"


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


# -- where it is


def shows(ended: Ended, told: str, code: int = 1) -> None:
    """It ended with one line that says what is wrong."""
    assert (ended.exit, ended.out, ended.err) == (code, "", f"phyxius: {told}\n")


@pytest.mark.parametrize(
    "app", ["shop", "shop.app", ":app", "shop:", "shop:app()", "shop/app:x", "shop:a b", "-m:x", ".a:b", "a..b:c"]
)
def test_what_is_no_name_of_an_application(shop: Shop, app: str) -> None:
    """It says how one looks."""
    shows(phyxius("status", f"--app={app}"), f"--app {SUCH_AS} {app!r}", 2)


def test_no_application_at_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three ways to name one are told."""
    monkeypatch.setenv("PHYXIUS_APP", "")
    told = (
        "no application is named: give --app MODULE:NAME, set PHYXIUS_APP, or put app = "
        '"shop.migrations:migration" under [tool.phyxius] into pyproject.toml'
    )
    shows(phyxius("status"), told, 2)


def test_a_module_that_is_not_there(shop: Shop) -> None:
    """It says where it looked: the package, or the module in it."""
    where = f"neither in {shop.directory} nor among what is installed here"
    shows(phyxius("status", "--app", "nowhere:app"), f"there is no module nowhere, {where}")
    shows(phyxius("status", "--app", "nowhere.at.all:app"), f"there is no module nowhere, {where}")
    (shop.directory / "somewhere").mkdir()
    (shop.directory / "somewhere" / "__init__.py").touch()
    shows(phyxius("status", "--app", "somewhere.at:app"), f"there is no module somewhere.at, {where}")


def test_a_name_that_is_not_there(shop: Shop) -> None:
    """It says which ones are, or what is wanted."""
    shop.has(7)
    none = f", and it has no other Migration either; wanted is {WANTED}"
    shows(phyxius("status", "--app", "shop:nothing"), f"shop has no nothing{none}")
    shows(phyxius("status", "--app", "shop:app.nothing"), f"shop has no app.nothing{none}")
    shop.has(7, quotes=SEVERAL["quotes"], plain=SyncMigration(SEVERAL["orders"]))
    shows(phyxius("status", "--app", "shop:nothing"), "shop has no nothing; it has quotes, plain")


def test_a_name_within_a_name(shop: Shop) -> None:
    """Dots go deeper."""

    class Settings:
        migrations = SEVERAL

    shop.has(7, settings=Settings)
    assert names(phyxius("status", "--json", "--app", "shop:settings.migrations")) == NAMES


APPLICATION = """
from phyxius import *
clock = create_controlled_clock()
migration = create_migration(
    define_migration(name="{}", phases={{"expand": {{}}, "flip": {{}}}}), journal=Journal(clock=clock)
)
"""


@pytest.fixture
def project(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a module of its own, and nothing that names it yet."""
    monkeypatch.setenv("PHYXIUS_APP", "")
    before = set(sys.modules)
    (shop.directory / "bakery.py").write_text(APPLICATION.format("bread"))
    yield shop.directory
    for name in set(sys.modules) - before:
        del sys.modules[name]


def configure(directory: Path, content: str) -> str:
    (directory / "pyproject.toml").write_text(content)
    return f"app of [tool.phyxius] in {directory / 'pyproject.toml'}"


def test_the_nearest_pyproject_that_names_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever in the project; one that names none is passed by. Its directory is where modules are looked for."""
    inner = project / "services" / "api"
    inner.mkdir(parents=True)
    configure(project, '[tool.phyxius]\napp = "bakery:migration"\n')
    configure(project / "services", "[tool.other]\n")
    configure(inner, "[tool]\nphyxius = 7\n")
    monkeypatch.chdir(inner)
    assert names(phyxius("status", "--json")) == ["bread"]
    assert sys.path[0] == str(project)


def test_what_is_nearer_goes_first(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--app before PHYXIUS_APP before pyproject.toml; and a module beside it before one of that name elsewhere."""
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "bakery.py").write_text("raise AssertionError('the wrong one')")
    (project / "mill.py").write_text(APPLICATION.format("flour"))
    monkeypatch.syspath_prepend(elsewhere)
    configure(project, '[tool.phyxius]\napp = "nowhere:migration"\n')
    monkeypatch.setenv("PHYXIUS_APP", "bakery:migration")
    assert names(phyxius("status", "--json")) == ["bread"]
    assert names(phyxius("status", "--json", "--app", "mill:migration")) == ["flour"]


@pytest.mark.parametrize(
    "content, told",
    [
        ("[tool.phyxius]\n", f"{SUCH_AS} ''"),
        ('[tool.phyxius]\napp = "bakery"\n', f"{SUCH_AS} 'bakery'"),
        ("[tool.phyxius]\napp = 7\n", f"{SUCH_AS} 7"),
        ('[tool.phyxius]\napp = ["bakery:migration"]\n', f"{SUCH_AS} ['bakery:migration']"),
    ],
    ids=range(4),
)
def test_a_pyproject_that_names_nothing_right(project: Path, content: str, told: str) -> None:
    """It says which file it is about."""
    where = configure(project, content)
    shows(phyxius("status"), f"{where} {told}", 2)


@pytest.mark.parametrize("content", ["[tool", "tool = 7", "\udcff"], ids=["cut off", "no table", "no UTF-8"])
def test_a_pyproject_that_is_broken(project: Path, content: str) -> None:
    """It is not passed by: who knows what it would have named."""
    path = project / "pyproject.toml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    ended = phyxius("status")
    assert ended.exit == 2
    assert ended.err.startswith(f"phyxius: {path} cannot be read: ")
    assert ended.err.count("\n") == 1
    path.unlink()
    path.mkdir()
    assert "cannot be read: [Errno 21] Is a directory" in phyxius("status").err


# -- importing it

MISSING = "which is not installed: "


@pytest.mark.parametrize(
    "code, told",
    [
        ("import bread_maker", f"bakery needs bread_maker, {MISSING}install it here, or run this where the app runs"),
        (
            "import sqlalchemy.ext.asyncio",
            f"bakery needs sqlalchemy, {MISSING}pip install 'phyxius-migration[postgresql]'",
        ),
        ("import asyncmy", f"bakery needs asyncmy, {MISSING}pip install 'phyxius-migration[mysql]'"),
        ("import django", f"bakery needs django, {MISSING}pip install 'phyxius-migration[django]'"),
        ("raise ModuleNotFoundError('odd')", f"bakery cannot be imported: ModuleNotFoundError: odd{TRACED}"),
        ("1 / 0", f"bakery cannot be imported: ZeroDivisionError: division by zero{TRACED}"),
        ("import sys; sys.exit(3)", f"bakery cannot be imported: SystemExit: 3{TRACED}"),
        ("from sys import nothing", None),
        ("def", None),
    ],
    ids=range(9),
)
def test_a_module_that_cannot_be_imported(
    project: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str | None
) -> None:
    """It says what is missing, and how to get what belongs to this library; never the name of a wrong module."""
    for name in ("sqlalchemy", "asyncmy", "django"):
        monkeypatch.setitem(sys.modules, name, None)
    (project / "bakery.py").write_text(code)
    ended = phyxius("status", "--app", "bakery:migration")
    assert (ended.exit, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("phyxius: bakery cannot be imported: " if told is None else f"phyxius: {told}\n")
    traced = phyxius("status", "--app", "bakery:migration", "--traceback")
    assert "bakery.py" in traced.err
    assert traced.err.endswith(ended.err)


def test_a_driver_that_is_missing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL of an application may ask for one; it says how to install it."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    (project / "bakery.py").write_text(
        "from phyxius.adapters.sqlalchemy import open_stores\nopen_stores('postgresql+asyncpg://a@b/c')\n"
    )
    ended = phyxius("status", "--app", "bakery:migration")
    assert ended.exit == 1
    assert 'pip install "phyxius-migration[postgresql]"' in ended.err
    assert ended.err.count("\n") == 1


def test_an_attribute_that_raises(shop: Shop) -> None:
    """What is foreign may do anything."""

    class Settings:
        @property
        def migrations(self) -> Any:
            raise RuntimeError("no settings")

    shop.has(7, settings=Settings())
    shows(phyxius("status", "--app", "shop:settings.migrations"), f"RuntimeError: no settings{TRACED}")


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
