"""The tables on a server, and how older ones become newer ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateSchema, SchemaItem

from phyxius.migration import SpecError

PREFIX = "phyxius_"
# PostgreSQL cuts names off after 63 characters, silently; the longest of ours adds 21.
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_KEY = String(255)
_TEXT = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


@attrs.frozen
class Naming:
    """Where the tables are, and how their names begin.

    Raises:
        SpecError: A prefix or a schema that databases would cut off or misread.
    """

    prefix: str = PREFIX
    schema: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse names that are no plain ones."""
        for what, name in (("prefix", self.prefix), *([("schema", self.schema)] if self.schema is not None else [])):
            if not (isinstance(name, str) and _NAME.fullmatch(name)):
                raise SpecError(f"a {what} is up to 41 lower-case letters, digits and underscores, not {name!r}")

    def table(self, name: str, quote: str = "") -> str:
        """The full name of one of our tables, with a schema in quotes: that may be a word of SQL."""
        return f"{quote}{self.schema}{quote}.{self.prefix}{name}" if self.schema else f"{self.prefix}{name}"


def metadata_for(*, prefix: str = PREFIX, schema: str | None = None) -> MetaData:
    """The tables under other names than the usual ones, for Alembic's `target_metadata`.

    Args:
        prefix: What the names of the tables begin with.
        schema: The schema that they are in (with MySQL: the database); that of the connection unless given.

    Raises:
        SpecError: A name that a database would cut off or misread.
    """
    naming = Naming(prefix, schema)
    tables = MetaData(schema=schema)

    def table(name: str, *parts: SchemaItem) -> None:
        options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}
        both: dict[str, Any] = {
            f"{dialect}_{key}": value for dialect in ("mysql", "mariadb") for key, value in options.items()
        }
        Table(prefix + name, tables, *parts, **both)

    def index(name: str, *columns: str) -> Index:
        return Index(prefix + name, *columns)

    def refers_to(column: str) -> ForeignKey:
        return ForeignKey(naming.table(column), ondelete="CASCADE" if column == "recorders.id" else None)

    table(
        "journal",
        Column("one", Integer, primary_key=True, autoincrement=False),
        Column("name", String(32), nullable=False),
        Column("version", Integer, nullable=False),
        Column("stamped_by", String(10), nullable=False),
        _ns("covered_since_ns"),
        Column("request", BigInteger, nullable=False, server_default="0"),
        CheckConstraint("one = 1", name=f"{prefix}journal_one"),
    )
    table(
        "recorders",
        _id(),
        _words("name"),
        Column("pid", BigInteger, nullable=False),
        _flag("audit_only"),
        _ns("started_ns"),
        _ns("stored_ns"),
        _ns("ended_ns"),
        _flag("closed"),
        Column("answered", BigInteger, nullable=False, server_default="0"),
        Column("batch", BigInteger, nullable=False, server_default="0"),
        index("recorders_by_end", "ended_ns"),
    )
    table(
        "declarations",
        Column("recorder", BigInteger, refers_to("recorders.id"), primary_key=True, autoincrement=False),
        Column("name", _KEY, primary_key=True),
        _flag("durable"),
    )
    table(
        "gaps",
        _id(),
        Column("recorder", BigInteger, nullable=False),
        _ns("since_ns"),
        _ns("until_ns"),
        Column("kind", String(10), nullable=False),
        _words("reason"),
        CheckConstraint("kind IN ('lost', 'early', 'clock')", name=f"{prefix}gaps_kind"),
        index("gaps_by_end", "until_ns"),
    )
    table(
        "starts",
        # It refers to no row: to check that, a start would have to wait for a batch that is just being stored, and a
        # start that blocks the event loop keeps that batch from going on.
        Column("recorder", BigInteger, primary_key=True, autoincrement=False),
        Column("call_id", _KEY, primary_key=True),
        Column("name", _KEY, nullable=False),
        _ns("started_ns"),
        Column("source", _KEY, nullable=False),
        _words("observed"),
        Column("invocation_id", _KEY),
        _words("correlation_id", nullable=True),
        index("starts_by_call", "call_id"),
    )
    table(
        "events",
        _id(),
        Column("recorder", BigInteger, nullable=False),
        Column("name", _KEY, nullable=False),
        Column("outcome", String(10), nullable=False),
        _ns("completed_ns"),
        _ns("started_ns"),
        Column("source", _KEY, nullable=False),
        Column("attempts", BigInteger, nullable=False),
        _words("observed"),
        _words("missing", nullable=True),
        _words("error_type", nullable=True),
        _words("error_message", nullable=True),
        Column("invocation_id", _KEY),
        _words("correlation_id", nullable=True),
        CheckConstraint("outcome IN ('success', 'failure')", name=f"{prefix}events_outcome"),
        # With the key at the end, both give the newest first without sorting. The second is for queries without a name,
        # and says so, so that no planner takes it for the others.
        index("events_by_name", "name", "outcome", "completed_ns", "id"),
        Index(prefix + "events_by_time", "completed_ns", "id", postgresql_where=text("source <> 'migration'")),
    )
    table(
        "migrations",
        Column("name", _KEY, primary_key=True),
        Column("phase", _KEY, nullable=False),
        Column("version", Integer, nullable=False),
        Column("revision", Integer, nullable=False),
    )
    table(
        "orders",
        Column("migration", _KEY, refers_to("migrations.name"), primary_key=True),
        Column("revision", Integer, primary_key=True, autoincrement=False),
        _words("phases"),
        _words("who", nullable=True),
        _words("why", nullable=True),
        _ns("at_ns"),
    )
    table(
        "transitions",
        Column("attempt", _KEY, primary_key=True),
        Column("migration", _KEY, refers_to("migrations.name"), nullable=False),
        Column("version", Integer),
        Column("from_phase", _KEY),
        Column("to_phase", _KEY),
        _ns("at_ns"),
        _words("evidence", nullable=True),
        UniqueConstraint("migration", "version", name=f"{prefix}transitions_by_version"),
    )
    table(
        "signatures",
        _id(),
        Column("migration", _KEY, refers_to("migrations.name"), nullable=False),
        Column("revision", Integer, nullable=False),
        Column("from_phase", _KEY, nullable=False),
        Column("to_phase", _KEY, nullable=False),
        Column("source", _KEY, nullable=False),
        _words("signer"),
        _words("note"),
        _ns("signed_ns"),
        _ns("expires_ns", nullable=True),
        _ns("revoked_ns", nullable=True),
        _words("revoked_by", nullable=True),
        _words("revoked_why", nullable=True),
        # Not the migration first: MySQL would use it for the foreign key, too, and then refuse to drop it by itself.
        index("signatures_by_subject", "source", "to_phase", "migration"),
    )
    return tables


def _id() -> Column[int]:
    return Column("id", BigInteger, primary_key=True, autoincrement=True)


def _ns(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _flag(name: str) -> Column[int]:
    return Column(name, SmallInteger, nullable=False, server_default="0")


def _words(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=nullable)


metadata = metadata_for()
"""The tables under their usual names, for Alembic's `target_metadata`."""

UPGRADES: tuple[Callable[[Connection, Naming], None], ...] = (
    lambda connection, naming: metadata_for(prefix=naming.prefix, schema=naming.schema).create_all(connection),
)
"""What leads from each version of the tables to the next; the first from none."""

VERSION = len(UPGRADES)
BEGIN_JOURNAL = (
    "INSERT INTO {journal} (one, name, version, stamped_by, covered_since_ns)"
    " VALUES (1, :name, :version, :stamp, :covered_since)"
    " {or_nothing:one}"
)


def create(connection: Connection, naming: Naming) -> list[str]:
    """Make what is not there yet, and bring what is older to our version. What is newer is left alone.

    Returns:
        The tables and columns that were there, as the version or the rows of the others say, and are gone: they are
        not made anew.
    """
    if naming.schema is not None and not inspect(connection).has_schema(naming.schema):
        connection.execute(CreateSchema(naming.schema, if_not_exists=True))
    journal, version = naming.table("journal"), 0
    if inspect(connection).has_table(f"{naming.prefix}journal", schema=naming.schema):
        version = connection.execute(text(f"SELECT version FROM {journal}")).scalar() or 0  # noqa: S608 - our own names
    if not version and (gone := missing(connection, naming)) and _is_used(connection, naming):
        return gone
    for upgrade in UPGRADES[version:]:
        upgrade(connection, naming)
    if 0 < version < VERSION:
        connection.execute(text(f"UPDATE {journal} SET version = {VERSION}"))  # noqa: S608 - our own names
    return missing(connection, naming) if version <= VERSION else []


def _is_used(connection: Connection, naming: Naming) -> bool:
    """Whether any of the tables that are there has a row."""
    look = inspect(connection)
    there = [
        each
        for each in metadata_for(prefix=naming.prefix, schema=naming.schema).sorted_tables
        if look.has_table(each.name, schema=naming.schema)
    ]
    return any(connection.execute(select(literal(1)).select_from(each).limit(1)).first() for each in there)


def missing(connection: Connection, naming: Naming) -> list[str]:
    """The tables and columns that this version needs and the database does not have."""
    wanted = metadata_for(prefix=naming.prefix, schema=naming.schema).tables.values()
    found = {
        name: {column["name"] for column in columns}
        for (_, name), columns in inspect(connection)
        .get_multi_columns(schema=naming.schema, filter_names=[each.name for each in wanted])
        .items()
    }
    absent: list[str] = []
    for each in wanted:
        columns = [column.name for column in each.columns if column.name not in found.get(each.name, set())]
        absent += [f"{each.name}.{column}" for column in columns] if each.name in found else [each.name]
    return absent
