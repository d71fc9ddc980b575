"""Finding the migrations of an application, and opening what they need."""

from __future__ import annotations

import getpass
import importlib
import inspect
import os
import shlex
import sys
import tomllib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from phyxius.blocking import SyncMigration
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._words import TRACED, told
from phyxius.migration import Migration

_SUCH_AS = '"package.module:name", such as "shop.migrations:migration"'
_WANTED = "a Migration, several of them, or a factory that returns them"
_PACKAGES = {
    "sqlalchemy": "phyxius-migration[postgresql]",
    "asyncpg": "phyxius-migration[postgresql]",
    "psycopg": "psycopg[binary]",
    "asyncmy": "phyxius-migration[mysql]",
    "aiomysql": "aiomysql",
    "alembic": "phyxius-migration[alembic]",
    "django": "phyxius-migration[django]",
}


@attrs.frozen
class Target:
    """Where an application has its migrations.

    Attributes:
        module: The module.
        name: The name in it; dots go deeper.
        root: The directory that the module is looked for in first.
    """

    module: str
    name: str
    root: Path

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"


def find_target(app: str | None, directory: Path) -> Target:
    """What `--app` names, or else the nearest pyproject.toml that names something.

    Raises:
        CommandError: Neither does, or that is no name.
    """
    if app is not None:
        return _target(app, directory, "PHYXIUS_APP" if app == os.environ.get("PHYXIUS_APP") else "--app")
    for place in (directory, *directory.parents):
        path = place / "pyproject.toml"
        if (found := _configured(path)) is not None:
            return _target(found, place, f"app of [tool.phyxius] in {path}")
    raise CommandError(
        "no application is named: give --app MODULE:NAME, set PHYXIUS_APP, or put app = "
        '"shop.migrations:migration" under [tool.phyxius] into pyproject.toml',
        Exit.USAGE,
    )


def _configured(path: Path) -> Any:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("tool", {}).get("phyxius")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise CommandError(f"{path} cannot be read: {error}", Exit.USAGE) from error
    if not isinstance(table, dict):
        return None
    if "app" not in table:
        raise CommandError(f"[tool.phyxius] in {path} has no app; write app = {_SUCH_AS}", Exit.USAGE)
    return table["app"]


def _target(app: object, root: Path, where: str) -> Target:
    module, colon, name = app.partition(":") if isinstance(app, str) else ("", "", "")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise CommandError(f"{where} must be {_SUCH_AS}, not {app!r}", Exit.USAGE)
    return Target(module, name, root)


def load(target: Target) -> object:
    """Import what a target names.

    Raises:
        CommandError: There is no such module or name, or the import fails; the error is its cause.
    """
    sys.path.insert(0, str(target.root))
    try:
        found: object = importlib.import_module(target.module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise CommandError(_not_found(target, error.name)) from error
        raise CommandError(f"{target.module} cannot be imported: {told(error)}; {TRACED}") from error
    for part in target.name.split("."):
        if not hasattr(found, part):
            raise CommandError(f"{target.module} has no {target.name}{_migrations_of(found)}")
        found = getattr(found, part)
    return found


def _not_found(target: Target, missing: str) -> str:
    if target.module == missing or target.module.startswith(f"{missing}."):
        return f"there is no module {missing}, neither in {target.root} nor among what is installed here"
    package = _PACKAGES.get(missing.partition(".")[0])
    cure = f"pip install {shlex.quote(package)}" if package else "install it here, or run this where the app runs"
    return f"{target.module} needs {missing}, which is not installed: {cure}"


def _migrations_of(found: object) -> str:
    names = [
        name for name, each in getattr(found, "__dict__", {}).items() if isinstance(each, Migration | SyncMigration)
    ]
    return f"; it has {', '.join(names)}" if names else f", and it has no other Migration either; wanted is {_WANTED}"


def make(found: Any, target: Target, stack: ExitStack) -> object:
    """What a factory makes, if there is one; a plain context manager is entered, and left with the stack.

    It runs in the main thread, like any plain code: it may wait for what it likes, and Ctrl-C ends that.

    Raises:
        CommandError: It is none that can be called so, or it fails.
    """
    if callable(found) and (isinstance(found, type) or not _can_be_entered(found)):
        try:
            with suppress(ValueError):  # one that does not tell its signature
                inspect.signature(found).bind()
        except TypeError:
            raise CommandError(f"{target} must be {_WANTED} and needs no argument; it needs some") from None
        with _guarded(target):
            found = found()
        if inspect.isgenerator(found) or inspect.isasyncgen(found):
            kind = "contextmanager" if inspect.isgenerator(found) else "asynccontextmanager"
            raise CommandError(f"{target} is a generator: write @contextlib.{kind} above it, and yield the migrations")
    made: Any = found
    if hasattr(made, "__enter__") and not hasattr(made, "__aenter__"):
        with _guarded(target):
            return stack.enter_context(made)
    return made


def _can_be_entered(found: object) -> bool:
    return hasattr(found, "__aenter__") or hasattr(found, "__enter__")


@contextmanager
def _guarded(target: Target) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise CommandError(f"{target} failed: {told(error)}; {TRACED}") from error


@asynccontextmanager
async def opened_app(made: Any, target: Target) -> AsyncIterator[dict[str, Migration[Any]]]:
    """The migrations that an application has, by name, with what it opens itself open.

    Raises:
        CommandError: It has none, or its async factory fails.
    """
    async with AsyncExitStack() as stack:
        with _guarded(target):
            wait = inspect.isawaitable(made) and not hasattr(made, "__aenter__")
            app: Any = await made if wait else made
            found: object = await stack.enter_async_context(app) if hasattr(app, "__aenter__") else app
        yield _listed(found, target)


def unwrapped(found: object) -> list[object]:
    """Each of what was found, with a `Migration` in place of a `SyncMigration`."""
    several: Iterable[object] = [found]
    if isinstance(found, Mapping):
        several = found.values()
    elif isinstance(found, Iterable) and not isinstance(found, str | bytes):
        several = found
    return [each.migration if isinstance(each, SyncMigration) else each for each in several]


def _listed(found: object, target: Target) -> dict[str, Migration[Any]]:
    plain = unwrapped(found)
    wrong = [each for each in plain if not isinstance(each, Migration)]
    if wrong or not plain:
        what = f"a {type(wrong[0]).__name__}" if wrong else "nothing"
        raise CommandError(f"{target} must be {_WANTED}, and came to {what}")
    migrations: dict[str, Migration[Any]] = {each.name: each for each in plain if isinstance(each, Migration)}
    if len(migrations) < len(plain):
        raise CommandError(f"{target} has two migrations of one name; it must have each once")
    return migrations


def as_named(who: str | None) -> str:
    """Whom an option names; whoever runs the command, unless one does.

    Raises:
        CommandError: It names nobody, such as a variable that is not set.
    """
    if who is not None and not who.strip():
        raise CommandError("a name is empty; say who, or leave the option out for your user name", Exit.USAGE)
    return user() if who is None else who


def user() -> str:
    """Who runs the command, as the system knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user, as in some containers
        return "somebody"
