"""Where an application is looked for, and importing it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phyxius.blocking import SyncMigration
from tests.cli.support import NAMES, SEVERAL, TRACED, WANTED, Shop, names, phyxius, shows

SUCH_AS = 'must be "package.module:name", such as "shop.migrations:migration", not'


# -- where it is


@pytest.mark.parametrize(
    "app", ["shop", "shop.app", ":app", "shop:", "shop:app()", "shop/app:x", "shop:a b", "-m:x", ".a:b", "a..b:c"]
)
def test_what_is_no_name_of_an_application(shop: Shop, app: str) -> None:
    """It says how one looks."""
    shows(phyxius("status", f"--app={app}"), f"--app {SUCH_AS} {app!r}", 2)


def test_an_empty_name_of_an_application(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is not set, say: it stands for nothing else."""
    shows(phyxius("status", "--app="), f"--app {SUCH_AS} ''", 2)
    monkeypatch.setenv("PHYXIUS_APP", "shop")
    shows(phyxius("status"), f"PHYXIUS_APP {SUCH_AS} 'shop'", 2)


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
        ('[tool.phyxius]\napp = "bakery"\n', f"{SUCH_AS} 'bakery'"),
        ("[tool.phyxius]\napp = 7\n", f"{SUCH_AS} 7"),
        ('[tool.phyxius]\napp = ["bakery:migration"]\n', f"{SUCH_AS} ['bakery:migration']"),
    ],
    ids=range(3),
)
def test_a_pyproject_that_names_nothing_right(project: Path, content: str, told: str) -> None:
    """It says which file it is about."""
    where = configure(project, content)
    shows(phyxius("status"), f"{where} {told}", 2)


def test_a_pyproject_without_the_name(project: Path) -> None:
    """A key that is misspelt, say."""
    configure(project, '[tool.phyxius]\nap = "bakery:migration"\n')
    told = f'[tool.phyxius] in {project / "pyproject.toml"} has no app; write app = "package.module:name"'
    shows(phyxius("status"), f'{told}, such as "shop.migrations:migration"', 2)


def test_a_pyproject_with_a_byte_order_mark(project: Path) -> None:
    """Some editors write one."""
    configure(project, '\ufeff[tool.phyxius]\napp = "bakery"\n')
    assert "not 'bakery'" in phyxius("status").err


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
        ("import psycopg", f"bakery needs psycopg, {MISSING}pip install 'psycopg[binary]'"),
        ("import aiomysql", f"bakery needs aiomysql, {MISSING}pip install aiomysql"),
        ("import django", f"bakery needs django, {MISSING}pip install 'phyxius-migration[django]'"),
        ("raise ModuleNotFoundError('odd')", f"bakery cannot be imported: ModuleNotFoundError: odd{TRACED}"),
        ("1 / 0", f"bakery cannot be imported: ZeroDivisionError: division by zero{TRACED}"),
        ("import sys; sys.exit(3)", f"bakery cannot be imported: SystemExit: 3{TRACED}"),
        ("from sys import nothing", None),
        ("def", None),
    ],
    ids=range(11),
)
def test_a_module_that_cannot_be_imported(
    project: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str | None
) -> None:
    """It says what is missing, and how to get what belongs to this library; never the name of a wrong module."""
    for name in ("sqlalchemy", "asyncmy", "psycopg", "aiomysql", "django"):
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
