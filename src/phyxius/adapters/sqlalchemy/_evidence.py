"""Evidence from a user's own tables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import CompileError
from sqlalchemy.sql import visitors

from phyxius.adapters._asking import Answers, Found
from phyxius.adapters.sqlalchemy._engines import EngineSource, evidence_of
from phyxius.fp import Result, err, ok
from phyxius.migration import SchemaAppliedEvidence, SpecError

_MOST_TOLD = 3
_LEAVE_ROWS_OUT = ("_limit_clause", "_offset_clause", "_fetch_clause", "_for_update_arg")
_MOST_COUNTED = 1_000
_LONGEST = 200


def no_rows(
    engine: EngineSource, statement: sa.Select[Any], *, allow_empty: bool = False, timeout: timedelta | None = None
) -> SchemaAppliedEvidence[Answers]:
    """Evidence that a query finds nothing: a backfill has finished, two tables do not differ.

    That what is selected from has no row at all is no proof: the query may have gone to the wrong database.

    Args:
        engine: Where to ask; each of several, and not a replica.
        statement: A `select(...)` of what should not be there. Up to three rows of what it selects are named in the
            failure and in the audit, so select keys, and nothing that is secret.
        allow_empty: Whether it is enough that there are no rows at all.
        timeout: How long it may take; the migration's `evidence_timeout` unless given.

    Returns:
        Evidence whose payload says for each database how many rows it found, 0.

    Raises:
        SpecError: There is no engine, or that is no `select` from anything.
    """
    tables = _tables(statement)
    if not tables:
        raise SpecError(f"no_rows() needs a select(...) from a table, not {type(statement).__name__}")
    if any(getattr(statement, clause) is not None for clause in _LEAVE_ROWS_OUT):
        raise SpecError("no_rows() needs a select(...) of all rows: without limit, offset, fetch and with_for_update")
    options = statement.get_execution_options()

    def check(connection: sa.Connection) -> Result[Found, str]:
        found = connection.execute(statement.limit(_MOST_TOLD)).fetchall()
        if found:
            limited = statement.limit(_MOST_COUNTED).subquery()
            counting = sa.select(sa.func.count()).select_from(limited)
            count = connection.execute(counting, execution_options=options).scalar_one()
            counted = f"{_MOST_COUNTED:,} rows or more are" if count >= _MOST_COUNTED else _counted(count)
            told = ", ".join(_shown(row) for row in found)
            return err(f"{counted} left, such as {told}")
        for name, table in () if allow_empty else tables.items():
            probe = sa.select(sa.literal(1)).select_from(table).limit(1)
            if connection.execute(probe, execution_options=options).first() is None:
                return err(f"there is no row at all in {name}, so that none is left proves nothing")
        return ok({"rows": 0})

    return evidence_of(engine, check, timeout, f"no row is left of {_listed(tables)}: {_sql(statement)}")


def has_schema(
    engine: EngineSource,
    *,
    table: str,
    schema: str | None = None,
    columns: Collection[str] = (),
    indexes: Collection[str] = (),
    constraints: Collection[str] = (),
    timeout: timedelta | None = None,
) -> SchemaAppliedEvidence[Answers]:
    """Evidence that a table is there, with columns, indexes and constraints of these names.

    On PostgreSQL an index has to be valid, and a constraint validated: one that was made `CONCURRENTLY` and failed, or
    is `NOT VALID`, is there and holds nothing.

    Args:
        engine: Where to look; each of several, and not a replica.
        table: The name of the table.
        schema: The schema that it is in; that of the connection unless given.
        columns: Names of columns.
        indexes: Names of indexes.
        constraints: Names of constraints: of checks, unique ones, foreign keys, the primary key.
        timeout: How long it may take; the migration's `evidence_timeout` unless given.

    Raises:
        SpecError: There is no engine, or a name is no text.
    """
    for names in ((table,), columns, indexes, constraints):
        if isinstance(names, str) or not all(isinstance(each, str) and each for each in names):
            raise SpecError(f'has_schema() needs names such as columns=["customer_id"], not {names!r}')

    def check(connection: sa.Connection) -> Result[Found, str]:
        inspector, place = sa.inspect(connection), schema
        if translated := connection.get_execution_options().get("schema_translate_map"):
            place = translated.get(schema, schema)
        if table not in (names := inspector.get_table_names(place)):  # a view of that name is no table
            where = "" if place is None else f" in {place}"
            return err(f"there is no table {table!r}{where}; there are {_listed(names)}")
        found = {
            "columns": {column["name"] for column in inspector.get_columns(table, place)},
            "indexes": {str(index["name"]) for index in inspector.get_indexes(table, place)},
            "constraints": _constraints(inspector, table, place),
        }
        wanted = {"columns": columns, "indexes": indexes, "constraints": constraints}
        problems = [
            f"{table} lacks the {kind} {_listed(lacking)}; it has {_listed(found[kind])}"
            for kind, names in wanted.items()
            if (lacking := set(names) - found[kind])
        ]
        if not problems and connection.dialect.name == "postgresql":
            problems = _unfinished(connection, table, place, indexes, constraints)
        return err("; ".join(problems)) if problems else ok({kind: sorted(names) for kind, names in wanted.items()})

    kinds = {"columns": columns, "indexes": indexes, "constraints": constraints}
    parts = " and ".join(f"the {kind} {_listed(names)}" for kind, names in kinds.items() if names)
    return evidence_of(engine, check, timeout, f"the table {table} is there{', with ' if parts else ''}{parts}")


def no_sessions(
    engine: EngineSource,
    is_old: Callable[[str], bool],
    *,
    allow_empty: bool = False,
    timeout: timedelta | None = None,
) -> SchemaAppliedEvidence[Answers]:
    """Evidence that no build is connected any more that would be harmed; for PostgreSQL.

    Each build says who it is by its `application_name`, such as "shop 41", in what it connects with. A session that
    says nothing may be of any build, and stands in the way.

    Args:
        engine: Where to ask; each of several, and not a replica.
        is_old: Whether an application name is of a build that has to be gone.
        allow_empty: Whether it is enough that nobody else is connected at all.
        timeout: How long it may take; the migration's `evidence_timeout` unless given.

    Raises:
        SpecError: There is no engine, or `is_old` cannot be called.
    """
    if not callable(is_old) or inspect.iscoroutinefunction(is_old):
        raise SpecError(f"no_sessions() needs a function of the application name, not {is_old!r}")

    def check(connection: sa.Connection) -> Result[Found, str]:
        if connection.dialect.name != "postgresql":
            return err(f"sessions have no application_name in {connection.dialect.name}, but in PostgreSQL")
        names = connection.execute(sa.text(_SESSIONS)).scalars().all()
        if unnamed := names.count(""):
            return err(f"{_counted(unnamed, 'session')} without an application_name, and may be of any build")
        told = {name: is_old(name) for name in names}
        if unclear := [name for name, answer in told.items() if type(answer) is not bool]:
            return err(f"is_old says neither True nor False of {_listed(unclear)}")
        if old := sorted(name for name in names if told[name]):
            return err(f"{_counted(len(old), 'session')} of an old build: {_listed(set(old))}")
        if not names and not allow_empty:
            return err("nobody else is connected there, which proves nothing: is it the right database?")
        return ok({"sessions": sorted(set(names))})

    return evidence_of(engine, check, timeout, "no build is connected any more that would be harmed")


# Who else there is everybody may see, but not what kind of backend it is.
_SESSIONS = (
    "SELECT coalesce(application_name, '') FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND (backend_type = 'client backend' OR backend_type IS NULL)"
)
_INVALID_INDEXES = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE i.indrelid = CAST(:table AS regclass) AND NOT (i.indisvalid AND i.indisready)"
)
_UNVALIDATED = "SELECT conname FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND NOT convalidated"


def _unfinished(
    connection: sa.Connection, table: str, schema: str | None, indexes: Iterable[str], constraints: Iterable[str]
) -> list[str]:
    quote = connection.dialect.identifier_preparer.quote_identifier
    name = quote(table) if schema is None else f"{quote(schema)}.{quote(table)}"
    invalid = set(connection.execute(sa.text(_INVALID_INDEXES), {"table": name}).scalars())
    open_ = set(connection.execute(sa.text(_UNVALIDATED), {"table": name}).scalars())
    problems = []
    if bad := invalid & set(indexes):
        problems.append(f"the indexes {_listed(bad)} are not valid: they are still being made, or that failed")
    if bad := open_ & set(constraints):
        problems.append(f"the constraints {_listed(bad)} are NOT VALID: run ALTER TABLE ... VALIDATE CONSTRAINT")
    return problems


def _constraints(inspector: sa.Inspector, table: str, schema: str | None) -> set[str]:
    found: list[Any] = [
        *inspector.get_check_constraints(table, schema),
        *inspector.get_unique_constraints(table, schema),
        *inspector.get_foreign_keys(table, schema),
        inspector.get_pk_constraint(table, schema),
    ]
    return {each["name"] for each in found if each.get("name")}


def _counted(count: int, noun: str = "row") -> str:
    return f"1 {noun} is" if count == 1 else f"{count:,} {noun}s are"


def _shown(row: Any) -> str:
    text = repr(tuple(row) if len(row) > 1 else row[0])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return (", ".join(listed[:10]) or "none") + more


def _sql(statement: sa.Select[Any]) -> str:
    """The statement in one line, with names where its values go."""
    try:
        return " ".join(str(statement).split())
    except CompileError:  # only some databases know how to say it
        return "what its query selects"


def _tables(statement: object) -> dict[str, sa.TableClause]:
    """The tables that a select looks into, also in its joins and subqueries, by name."""
    if not isinstance(statement, sa.Select):
        return {}
    found = [each for each in visitors.iterate(statement) if isinstance(each, sa.TableClause)]
    return {each.fullname: each for each in found}
