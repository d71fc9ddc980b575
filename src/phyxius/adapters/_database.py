"""What the stores ask of a database, whichever it is.

Their SQL is written once, in what our databases have in common. What each says in its own way stands in braces, and
its `Dialect` fills it in: `{events}` is a table, `{for_update}` a clause. `{ours}` is whether these are the tables of
the database whose name is `:store`, and not others that a connection sees under their names.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import attrs

from phyxius.clock import Clock

T = TypeVar("T")
Values: TypeAlias = Mapping[str, object]
StoreProblem: TypeAlias = Literal["failed", "not_recorded", "missing", "read_only"]

OTHER_TABLES = (
    "what this connection sees are the tables of other stores: does an event of the engine choose the schema? Name it"
    " with schema= instead"
)
"""What is wrong where a statement is answered from tables of the same names elsewhere."""

READ_ONLY = -1
"""What `{shown}` is where nobody can write."""

TABLES = (
    "journal",
    "recorders",
    "declarations",
    "gaps",
    "starts",
    "events",
    "migrations",
    "orders",
    "transitions",
    "signatures",
)


class Rows(Protocol):
    """What a statement answered."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, if there is one."""
        ...

    def fetchall(self) -> Sequence[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left, one after the other."""
        ...


class Connection(Protocol):
    """A connection in a transaction."""

    def execute(self, sql: str, values: Values = ..., /) -> Rows:
        """Run a statement, in which `:name` is a value."""
        ...

    def execute_many(self, sql: str, values: Sequence[Values], /) -> None:
        """Run a statement for each of several values, which may be none."""

    def aside(self, function: Callable[[], T], /) -> T:
        """Call a function that may take its time, so that nobody but this transaction waits for it."""
        ...

    def insert(self, sql: str, values: Values, /) -> int:
        """Run an INSERT of one row into a table with an `id`, and return that."""
        ...


Work: TypeAlias = Callable[[Connection], T]


class WriteGroup(Protocol):
    """Things that several callers want written at once: whoever comes first writes them for all."""

    def take(self) -> list[Any]:
        """What is not written yet."""
        ...

    def write(self, items: list[Any], connection: Connection, /) -> None:
        """Write it."""

    def written(self, items: list[Any]) -> None:
        """It is committed."""

    def failed(self, items: list[Any], error: Exception) -> None:
        """It could not be written: who waits in line need not wait for that once more."""


class Database(Protocol):
    """A database of ours. A cancelled caller leaves no transaction open, and what it began happens as a whole or not.

    Each method raises a `StoreError` of its kind if the database cannot be used.
    """

    @property
    def identity(self) -> Hashable:
        """Names it in this process."""
        ...

    @property
    def name(self) -> str | None:
        """What is in the row of the table `journal`, and tells it from all others; None before it is opened."""
        ...

    @property
    def place(self) -> str:
        """Where it is, as people know it, without secrets."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock of this process."""
        ...

    async def open(self, *, create: bool = ...) -> None:
        """Open it; `create` is whether a file or tables that are not there may be made."""

    async def close(self) -> None:
        """Let what runs end, and close what was opened."""

    @property
    def drift(self) -> float:
        """What fraction of a duration the clock that stamps the rows may gain on `clock` without having been set."""
        ...

    @property
    def poll_seconds(self) -> float:
        """How often a recorder looks whether somebody waits for it."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        ...

    def check_open(self) -> None:
        """Refuse to work before it is opened and after it is closed."""

    def error(self, problem: StoreProblem, detail: str | None = None) -> Exception:
        """A `StoreError` of its kind."""
        ...

    async def read(self, work: Work[T]) -> T:
        """Run what reads briefly, against one state of the database."""
        ...

    async def query(self, work: Work[T]) -> T:
        """Run what reads at length, or calls foreign functions, against one state of the database."""
        ...

    async def write(self, work: Work[T]) -> T:
        """Run what writes, in one transaction."""
        ...

    async def write_together(self, group: WriteGroup) -> None:
        """Write what waits in a group, in one transaction with what others put there meanwhile."""

    def write_together_blocking(self, group: WriteGroup) -> None:
        """The same for code that cannot await."""


# MySQL can be told to cut off a SELECT that names no limit (`sql_select_limit`).
_NO_LIMIT = "LIMIT 9223372036854775807"


@attrs.frozen
class Dialect:
    """How a database says what others say otherwise.

    Attributes:
        for_update: What makes a SELECT lock its rows until the transaction ends.
        unless_locked: The same, and leaves out what somebody else has locked.
        now: The time by which the rows are stamped, in nanoseconds since 1970; `:now` is that of this process.
        shown: The same, or `READ_ONLY` on a server that is a replica, or has become one, and may lag behind.
        or_nothing: Ends an INSERT: a row that is there already stays as it is. It is given a column of the table.
        table: The full name of one of our tables.
    """

    for_update: str
    unless_locked: str
    now: str
    shown: str
    or_nothing: Callable[[str], str]
    table: Callable[[str], str] = str

    def fill_in(self, sql: str) -> str:
        """The statement as this database takes it."""
        return sql.format(
            **{table: self.table(table) for table in TABLES},
            for_update=self.for_update,
            unless_locked=self.unless_locked,
            now=self.now,
            shown=self.shown,
            no_limit=_NO_LIMIT,
            ours=f"EXISTS (SELECT 1 FROM {self.table('journal')} WHERE name = :store)",  # noqa: S608 - our own names
            or_nothing=_OrNothing(self.or_nothing),
        )


@attrs.frozen
class _OrNothing:
    write: Callable[[str], str]

    def __format__(self, column: str) -> str:
        return self.write(column)


def name_of(connection: Connection) -> str:
    """What tells a database from all others, also from a copy under another name."""
    (name,) = connection.execute("SELECT name FROM {journal}").fetchone()
    return str(name)
