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
    """The stores' SQL, filled in for a database, and kept so that SQLAlchemy compiles it once."""

    def __init__(self, dialect: Dialect, returning: str) -> None:
        self.dialect = dialect
        self.returning = returning
        self._kept: dict[str, sa.TextClause] = {}

    def __getitem__(self, sql: str) -> sa.TextClause:
        statement = self._kept.get(sql)
        if statement is None:
            statement = self._kept[sql] = sa.text(self.dialect.fill_in(sql))
        return statement


class ServerConnection:
    """A connection in a transaction, or in none where one statement is all."""

    def __init__(self, raw: sa.Connection, statements: Statements, watchdog: Watchdog) -> None:
        self.raw = raw
        self._statements = statements
        self._watchdog = watchdog

    def execute(self, sql: str, values: Values = _NOTHING, /) -> Rows:
        """Run a statement."""
        self._watchdog.feed()
        return cast("Rows", self.raw.execute(self._statements[sql], dict(values)))

    def execute_many(self, sql: str, values: Sequence[Values], /) -> None:
        """Run a statement for each of several values."""
        if values:
            self._watchdog.feed()
            self.raw.execute(self._statements[sql], [dict(each) for each in values])

    def insert(self, sql: str, values: Values, /) -> int:
        """Run an INSERT, and return the key of the row."""
        self._watchdog.feed()
        result = self.raw.execute(self._statements[sql + self._statements.returning], dict(values))
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
