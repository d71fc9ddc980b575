"""Asking a user's own databases, of whatever engines he has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from phyxius.adapters._asking import Answers, Found, NotAskedError, all_of
from phyxius.adapters.sqlalchemy._dialects import find_dialect
from phyxius.adapters.sqlalchemy._errors import driver_error, first_line, place_of
from phyxius.clock import run_in_thread
from phyxius.fp import Result, err
from phyxius.migration import EvidenceFailure, SchemaAppliedEvidence, SpecError, schema_applied

AnyEngine: TypeAlias = sa.Engine | AsyncEngine
EngineSource: TypeAlias = AnyEngine | Sequence[AnyEngine] | Callable[[], AnyEngine | Sequence[AnyEngine]]
Check: TypeAlias = Callable[[sa.Connection], Result[Found, str]]

_WANTED = "an engine of SQLAlchemy is wanted, sync or async, several of them, or a callable that returns them"


def evidence_of(
    source: EngineSource, check: Check, timeout: timedelta | None, demand: str
) -> SchemaAppliedEvidence[Answers]:
    """Evidence that a check of a connection is `Ok` in every database of some engines, and none of them a replica.

    Its payload has what each database answered, by where that is. `demand` says what it asks for, in words.

    Raises:
        SpecError: There is no engine, and no callable that might return one.
    """
    if not callable(source):
        _engines(source)

    async def ask() -> Result[Answers, EvidenceFailure]:
        engines = _engines(source() if callable(source) else source)
        return all_of([(place_of(engine.url), await _asked(engine, check)) for engine in engines])

    ask.__doc__ = demand
    return schema_applied(ask, timeout=timeout)


def _engines(found: object) -> list[AnyEngine]:
    """One or several engines as a list; nothing is not enough, since nothing would then be asked."""
    several: list[Any] = list(found) if isinstance(found, Iterable) and not isinstance(found, (str, bytes)) else [found]
    wrong = [each for each in several if not isinstance(each, (sa.Engine, AsyncEngine))]
    if wrong or not several:
        raise SpecError(f"{_WANTED}, not {wrong[0]!r}" if wrong else f"{_WANTED}, and not none at all")
    return several


async def _asked(engine: AnyEngine, check: Check) -> Result[Found, str]:
    def ask(connection: sa.Connection) -> Result[Found, str]:
        if _is_replica(connection):
            return err("it is a replica, which may lag behind; give the engine of the primary")
        if connection.dialect.name == "postgresql":  # rather an error than rows that a policy hides from this user
            connection.exec_driver_sql("SET LOCAL row_security = off")
        return check(connection)

    def ask_blocking(engine: sa.Engine) -> Result[Found, str]:
        with engine.connect() as connection:
            return ask(connection)

    try:
        if isinstance(engine, sa.Engine):
            return await run_in_thread(partial(ask_blocking, engine))
        async with engine.connect() as connection:
            return await connection.run_sync(ask)
    except (SQLAlchemyError, OSError) as error:
        # What a statement was given may be a secret.
        cause = driver_error(error)
        raise NotAskedError(f"{place_of(engine.url)}: {type(cause).__name__}: {first_line(cause)}") from None


def _is_replica(connection: sa.Connection) -> bool:
    kind = find_dialect(connection.dialect.name)
    if kind is None:
        return False
    return bool(connection.exec_driver_sql(f"SELECT CASE WHEN {kind.read_only} THEN 1 ELSE 0 END").scalar_one())
