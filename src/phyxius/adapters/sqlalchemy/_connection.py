"""A connection to a server, as the stores use it: from plain functions, which SQLAlchemy runs on the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from phyxius.adapters._database import Dialect, Rows, Values
from phyxius.adapters.sqlalchemy._watchdog import Watchdog
from phyxius.clock import run_in_thread

T = TypeVar("T")
_NOTHING: Mapping[str, object] = {}


class Statements:
    """The stores' SQL, filled in for a database, and kept, so that SQLAlchemy looks but once at it and its columns."""

    def __init__(self, dialect: Dialect, returning: str) -> None:
        self.dialect = dialect
        self.returning = returning
        self._kept: dict[str, sa.TextClause | sa.TextualSelect] = {}

    def run(
        self, connection: sa.Connection, sql: str, values: dict[str, object] | list[dict[str, object]]
    ) -> sa.CursorResult[Any]:
        """Run a statement, once or for each of several values."""
        kept = self._kept.get(sql)
        if kept is not None:
            return connection.execute(kept, values)
        text = sa.text(self.dialect.fill_in(sql))
        result = connection.execute(text, values)
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in result.keys()] if result.returns_rows else []  # noqa: SIM118 - no dict
        self._kept[sql] = text.columns(*columns) if columns else text
        return result


class ServerConnection:
    """A connection in a transaction, or in none where one statement is all."""

    def __init__(self, raw: sa.Connection, statements: Statements, watchdog: Watchdog) -> None:
        self.raw = raw
        self._statements = statements
        self._watchdog = watchdog

    def execute(self, sql: str, values: Values = _NOTHING, /) -> Rows:
        """Run a statement."""
        self._watchdog.feed()
        return cast("Rows", self._statements.run(self.raw, sql, dict(values)))

    def execute_many(self, sql: str, values: Sequence[Values], /) -> None:
        """Run a statement for each of several values."""
        if values:
            self._watchdog.feed()
            self._statements.run(self.raw, sql, [dict(each) for each in values])

    def insert(self, sql: str, values: Values, /) -> int:
        """Run an INSERT, and return the key of the row."""
        self._watchdog.feed()
        result = self._statements.run(self.raw, sql + self._statements.returning, dict(values))
        return int(result.scalar_one() if self._statements.returning else result.lastrowid)

    def aside(self, function: Callable[[], T], /) -> T:
        """Call a function in a thread, and let the event loop go on meanwhile."""
        connection: Any = self.raw.connection.dbapi_connection
        self._watchdog.rest()
        try:
            answer: T = connection.run_async(lambda _: run_in_thread(function))
        finally:
            self._watchdog.feed()
        return answer
