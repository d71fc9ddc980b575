"""Evidence from the revisions of Alembic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from os import PathLike, fspath
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from phyxius.adapters._asking import Answers, Found
from phyxius.adapters.sqlalchemy._engines import EngineSource, evidence_of
from phyxius.fp import Result, err, ok
from phyxius.migration import SchemaAppliedEvidence, SpecError

__all__ = ["at_revision"]

_SYMBOLS = ("", "head", "heads", "base", "current")
_NO_PART_OF_AN_ID = set("@-+: ")


def at_revision(
    engine: EngineSource,
    revision: str,
    *,
    script_location: str | PathLike[str] | None = None,
    version_table: str = "alembic_version",
    version_table_schema: str | None = None,
    timeout: timedelta | None = None,
) -> SchemaAppliedEvidence[Answers]:
    """Evidence that a revision is applied: a database is at it or past it, by whichever of its heads.

    Args:
        engine: Where to look; each of several, and not a replica.
        revision: The revision, by its whole id: what "head" means another build may see otherwise.
        script_location: The directory of the scripts, or the `alembic.ini` that names it. Without it the database has
            to be exactly at the revision, since only the scripts tell what comes after what.
        version_table: The table that Alembic writes to.
        version_table_schema: The schema that it is in; that of the connection unless given.
        timeout: How long it may take; the migration's `evidence_timeout` unless given.

    Returns:
        Evidence whose payload says for each database at which revisions it is.

    Raises:
        SpecError: There is no engine, or the revision is none by itself, such as "head" or "-1".
    """
    if not isinstance(revision, str) or revision.lower() in _SYMBOLS or _NO_PART_OF_AN_ID & set(revision):
        raise SpecError(f'at_revision() needs the whole id of a revision, such as "ae1027a6acf", not {revision!r}')

    def check(connection: sa.Connection) -> Result[Found, str]:
        options = {"version_table": version_table, "version_table_schema": version_table_schema}
        heads = MigrationContext.configure(connection, opts=options).get_current_heads()
        if not heads:
            return err(f"no revision is applied there: {version_table} is empty, or not there")
        if revision in heads:
            return ok({"heads": sorted(heads)})
        if script_location is None:
            return err(f"it is at {_listed(heads)}, and not at {revision}; script_location= tells what is past it")
        try:
            return _past(_scripts(script_location), heads, revision)
        except CommandError as error:
            return err(f"it is at {_listed(heads)}, and the scripts do not tell: {error}")

    return evidence_of(engine, check, timeout, f"the Alembic revision {revision} is applied")


def _scripts(location: str | PathLike[str]) -> ScriptDirectory:
    """The scripts as they are now: a build that is rolled out may have brought more."""
    if Path(location).suffix == ".ini":
        return ScriptDirectory.from_config(Config(fspath(location)))
    return ScriptDirectory(fspath(location))


def _past(scripts: ScriptDirectory, heads: Iterable[str], revision: str) -> Result[Found, str]:
    for each in (revision, *heads):  # Alembic also finds one by how it begins, or by a label
        if (known := _script(scripts, each).revision) != each:
            return err(f"the scripts have no revision {each}, but {known}; it is at {_listed(heads)}")
    if revision in _applied(scripts, heads):
        return ok({"heads": sorted(heads)})
    ends = scripts.get_heads()
    several = f"; the scripts have {len(ends)} heads, {_listed(ends)}" if len(ends) > 1 else ""
    return err(f"{revision} is not applied: it is at {_listed(heads)}{several}")


def _applied(scripts: ScriptDirectory, heads: Iterable[str]) -> set[str]:
    """All revisions below some heads, with what they depend on."""
    applied: set[str] = set()
    waiting = list(heads)
    while waiting:
        script = _script(scripts, waiting.pop())
        if script.revision not in applied:
            applied.add(script.revision)
            waiting += [*_several(script.down_revision), *_several(script.dependencies)]
    return applied


def _script(scripts: ScriptDirectory, revision: str) -> Script:
    found = scripts.get_revision(revision)
    assert found is not None  # as only "base" is
    return found


def _several(revisions: str | Iterable[str] | None) -> list[str]:
    if revisions is None:
        return []
    return [revisions] if isinstance(revisions, str) else list(revisions)


def _listed(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions))
