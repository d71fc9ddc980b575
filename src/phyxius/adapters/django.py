"""Evidence from the migrations of Django."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeAlias

from django.apps import apps
from django.db import Error, connections, router, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RenameModel, SeparateDatabaseAndState
from django.db.migrations.operations.models import ModelOperation
from django.db.migrations.recorder import MigrationRecorder

from phyxius.adapters._asking import MYSQL_READ_ONLY, POSTGRESQL_READ_ONLY, Answers, Found, NotAskedError, all_of
from phyxius.adapters._redaction import redacted
from phyxius.clock import run_in_thread
from phyxius.fp import Result, err, ok
from phyxius.migration import EvidenceFailure, SchemaAppliedEvidence, SpecError, schema_applied

__all__ = ["NotAskedError", "migration_applied"]

AliasSource: TypeAlias = str | Sequence[str] | Callable[[], str | Sequence[str]]
Key: TypeAlias = tuple[str, str]

_NO_NAMES = ("zero", "__first__", "__latest__")
_READ_ONLY = {"postgresql": POSTGRESQL_READ_ONLY, "mysql": MYSQL_READ_ONLY}


def migration_applied(
    app_label: str, name: str, *, using: AliasSource | None = None, timeout: timedelta | None = None
) -> SchemaAppliedEvidence[Answers]:
    """Evidence that a migration of Django is applied, with all that it depends on.

    The rows of `django_migrations` say so, and the migrations of this build say what belongs to what. A squashed
    migration is applied where all are that it replaces, and these where it is. One that was recorded with `--fake`
    counts as applied, since nothing tells the two apart.

    Args:
        app_label: The label of the app, such as `"billing"`.
        name: The whole name of the migration, such as `"0042_sales"`: what `"0042"` means another build may see
            otherwise.
        using: The alias of the database, several of them, or a callable that returns them; each has to have it, and
            not be a replica. Unless given, all of `DATABASES` where the routers let any of it be done, so give it
            where Django migrates only some of them.
        timeout: How long it may take; the migration's `evidence_timeout` unless given.

    Returns:
        Evidence whose payload says for each database which migrations of the app come last there.

    Raises:
        SpecError: There is no alias, or no whole name, such as `"zero"`.
    """
    for given, what in ((app_label, 'the label of an app, such as "billing"'), (name, 'a name, such as "0042_sales"')):
        if not isinstance(given, str) or not re.fullmatch(r"\w+", given) or given in _NO_NAMES:
            raise SpecError(f"migration_applied() needs {what}, not {given!r}")
    if using is not None and not callable(using):
        _aliases(using)

    async def ask() -> Result[Answers, EvidenceFailure]:
        # A connection of Django belongs to its thread, and a thread that runs an event loop may have none.
        return await run_in_thread(partial(_ask, (app_label, name), using))

    ask.__doc__ = f"the Django migration {app_label}.{name} is applied"
    return schema_applied(ask, timeout=timeout)


def _aliases(found: object) -> list[str]:
    """One or several aliases as a list; nothing is not enough, since nothing would then be asked."""
    several: list[Any] = list(found) if isinstance(found, Iterable) and not isinstance(found, (str, bytes)) else [found]
    wrong = [each for each in several if not isinstance(each, str) or not each]
    if wrong or not several:
        wanted = "the alias of a database is wanted, several of them, or a callable that returns them"
        raise SpecError(f"{wanted}, not {wrong[0]!r}" if wrong else f"{wanted}, and not none at all")
    return several


def _ask(key: Key, using: AliasSource | None) -> Result[Answers, EvidenceFailure]:
    if not apps.ready:
        raise NotAskedError("Django is not set up here; set DJANGO_SETTINGS_MODULE, and call django.setup() first")
    migrations = _on_disk()
    migration = migrations.get(key) or next((each for each in migrations.values() if key in each.replaces), None)
    if migration is None:
        return err(EvidenceFailure(_unknown(migrations, key)))

    # On what the routers keep out of a database Django does nothing there, and records it as applied all the same.
    parts = list(_operations(migration.operations)) or [None]
    done = {alias: {n for n, part in enumerate(parts) if _allows(alias, key[0], part)} for alias in connections}
    aliases = [alias for alias in done if done[alias]]
    if using is not None:
        aliases = _aliases(using() if callable(using) else using)
    if strange := [alias for alias in aliases if alias not in done]:
        return err(EvidenceFailure(f"DATABASES has no {_listed(strange)}, but {_listed(done)}"))
    here: set[int] = set().union(*(done[alias] for alias in aliases))
    if elsewhere := [alias for alias in done if done[alias] - here]:
        if not here:
            return err(EvidenceFailure(f"the routers let it be done in {_listed(elsewhere)} alone; ask there"))
        return err(EvidenceFailure(f"the routers have a part of it done in {_listed(elsewhere)}; ask there as well"))
    if not aliases:
        return err(EvidenceFailure("the routers let it be done in no database"))
    return all_of([(alias, _asked(alias, key, aliases, done)) for alias in aliases])


def _asked(alias: str, key: Key, aliases: list[str], done: dict[str, set[int]]) -> Result[Found, str]:
    if not done[alias]:
        return err("the routers keep it out of there, so that it does nothing, even where it is recorded as applied")
    settings: Any = connections.settings
    mirrored = settings[alias]["TEST"]["MIRROR"]
    if mirrored and mirrored not in aliases:
        return err(f"it mirrors {mirrored} in tests, so it may be a replica; ask {mirrored}")
    read_only = _READ_ONLY.get(connections[alias].vendor)
    # In one transaction, for the next one may go to another server, behind a pooler.
    whole: Any = transaction.atomic(using=alias) if read_only else nullcontext()
    try:
        with closing(connections[alias]) as connection, whole:
            if read_only and _is_true(connection, read_only):
                return err("it is a replica, which may lag behind; give using= the alias of the primary")
            if not MigrationRecorder(connection).has_table():
                return err("nothing was ever migrated there: it has no table django_migrations")
            return _applied(MigrationLoader(connection), key)
    except (Error, OSError) as error:
        raise NotAskedError(f"{alias}: {type(error).__name__}: {redacted(str(error).partition(chr(10))[0])}") from None


def _is_true(connection: Any, expression: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT CASE WHEN {expression} THEN 1 ELSE 0 END")
        return bool(cursor.fetchone()[0])


def _applied(loader: Any, key: Key) -> Result[Found, str]:
    app, name = key
    ends = _ends(loader, app)
    at = f"it is at {_listed(ends)}" if ends else f"nothing of {app} is"
    node = _node(loader, key)
    if node is None:
        squash, replaces = next((k, m.replaces) for k, m in loader.replacements.items() if key in (k, *m.replaces))
        lacking = _listed(_dotted(each) for each in replaces if each not in loader.applied_migrations)
        return err(f"{name} is not applied: {squash[1]} is in part, and lacks {lacking}; {at}")
    if node not in loader.applied_migrations:
        replaced = "" if node == key else f", nor is {node[1]}, which replaces it"
        leaves = [leaf[1] for leaf in loader.graph.leaf_nodes(app)]
        several = f"; the code has {len(leaves)} leaf nodes, {_listed(leaves)}" if len(leaves) > 1 else ""
        return err(f"{name} is not applied{replaced}: {at}{several}")
    if before := [each for each in loader.graph.forwards_plan(node) if each not in loader.applied_migrations]:
        return err(f"{name} is recorded as applied, and what it depends on is not: {_listed(map(_dotted, before))}")
    return ok({"at": ends})


def _node(loader: Any, key: Key) -> Key | None:
    """What stands for a migration in the graph: itself, or the squashed one that is used in its place.

    One that replaces others is not used, and None, as long as some of them are applied and some not.
    """
    if key in loader.graph.nodes:
        return key
    by = (_node(loader, squash) for squash, each in loader.replacements.items() if key in each.replaces)
    return next(filter(None, by), None)


def _ends(loader: Any, app: str) -> list[str]:
    """The migrations of an app that are applied, and after which none of that app is."""
    graph, applied = loader.graph, loader.applied_migrations
    here = [each for each in applied if each[0] == app and each in graph.nodes]
    return sorted(
        name for _, name in here if not any(child.key in here for child in graph.node_map[app, name].children)
    )


def _on_disk() -> dict[Key, Any]:
    """The migrations of this build, as they are now."""
    loader: Any = MigrationLoader(None, load=False)
    loader.load_disk()
    return dict(loader.disk_migrations)


def _unknown(migrations: Iterable[Key], key: Key) -> str:
    """Why this build has no such migration."""
    label, name = key
    with suppress(LookupError):
        apps.get_app_config(label)
        known = sorted(each for app, each in migrations if app == label)
        alike = [each for each in known if each.startswith(name)] or get_close_matches(name, known)
        meant = f"; did you mean {_listed(alike)}?" if alike else f"; its last one is {known[-1]}" if known else ""
        return f"{label} has no migration {name} in this build{meant}"
    return f"this build has no app {label}"


def _operations(operations: Iterable[Any]) -> Iterator[Any]:
    """What may be done in the database."""
    for each in operations:
        if isinstance(each, SeparateDatabaseAndState):
            yield from _operations(each.database_operations)
        else:
            yield each


def _allows(alias: str, label: str, operation: Any) -> bool:
    """Whether the routers let a database have an operation, or the app, if it is None."""
    hints = dict(getattr(operation, "hints", {}))
    name = getattr(operation, "model_name", None)
    if isinstance(operation, ModelOperation):
        name = operation.new_name if isinstance(operation, RenameModel) else operation.name
    if name is not None:
        hints["model_name"] = name.lower()
        with suppress(LookupError):
            hints["model"] = apps.get_model(label, name)
    return bool(router.allow_migrate(alias, label, **hints))


def _dotted(key: Key) -> str:
    return ".".join(key)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
