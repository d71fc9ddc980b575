"""Evidence from a user's own tables, on real databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phyxius.adapters.sqlalchemy import NotAskedError, has_schema, no_rows, no_sessions
from phyxius.adapters.sqlalchemy import _dialects as dialects
from phyxius.clock import create_system_clock
from phyxius.fp import Err, Ok
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceFailed,
    SchemaAppliedEvidence,
    SpecError,
    create_memory_phase_store,
    create_migration,
    define_migration,
    demand_of,
)
from tests.servers import server

TABLES = sa.MetaData()
CUSTOMERS = sa.Table("customers", TABLES, sa.Column("id", sa.Integer, primary_key=True))
QUOTES = sa.Table(
    "quotes",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("customer_id", sa.Integer, sa.ForeignKey("customers.id", name="quotes_customer")),
    sa.Column("total", sa.Integer),
    sa.CheckConstraint("total >= 0", name="quotes_total"),
    sa.UniqueConstraint("total", name="quotes_once"),
    sa.Index("quotes_by_customer", "customer_id"),
)
LEFT = sa.select(QUOTES.c.id).where(QUOTES.c.customer_id.is_(None)).order_by(QUOTES.c.id)
URLS = {
    "postgresql-sync": lambda: server("postgresql").url("psycopg"),
    "postgresql-async": lambda: server("postgresql").url("asyncpg"),
    "mariadb-sync": lambda: server("mariadb").url("asyncmy").replace("asyncmy", "pymysql"),
    "mariadb-async": lambda: server("mariadb").url("asyncmy"),
}


class Shop:
    """A user's database, with an engine of his; what happens there goes over a plain one."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        url = f"sqlite:///{directory / 'shop.db'}" if kind == "sqlite" else URLS[kind]()
        plain = url.replace("asyncpg", "psycopg").replace("asyncmy", "pymysql")
        self.plain = sa.create_engine(plain, poolclass=sa.NullPool)
        self.engine: Any = create_async_engine(url) if kind.endswith("-async") else sa.create_engine(url)

    def run(self, *statements: Any) -> None:
        with self.plain.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement) if isinstance(statement, str) else statement)

    async def close(self) -> None:
        TABLES.drop_all(self.plain)
        self.plain.dispose()
        if isinstance(self.engine, AsyncEngine):
            await self.engine.dispose()
        else:
            self.engine.dispose()


@pytest.fixture(params=["sqlite", *URLS])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(request.param, tmp_path)
    TABLES.drop_all(shop.plain)
    TABLES.create_all(shop.plain)
    shop.run(sa.insert(CUSTOMERS).values([{"id": 1}]))
    yield shop
    await shop.close()


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop("postgresql-async", tmp_path)
    TABLES.drop_all(shop.plain)
    TABLES.create_all(shop.plain)
    yield shop
    await shop.close()


async def asked(evidence: SchemaAppliedEvidence[Any]) -> Any:
    """What a migration learns: the payload, or the reason why not."""
    spec: Any = define_migration(name="quotes", phases={"expand": {}, "flip": {"source": evidence}})
    journal = Journal[Any](clock=create_system_clock())
    phases = create_memory_phase_store(initial="expand", clock=journal.clock)
    answer = await create_migration(spec, journal=journal, phase_store=phases).advance()
    if isinstance(answer, Ok):
        return answer.value.evidence["source"]
    assert isinstance(answer, Err)
    if isinstance(answer.error, EvidenceFailed):
        return answer.error.failures["source"].reason
    raise answer.error.errors["source"]  # type: ignore[union-attr]


# -- no_rows


async def test_a_backfill_that_has_finished(shop: Shop) -> None:
    """The payload says where nothing was left."""
    shop.run(sa.insert(QUOTES).values([{"id": 1, "customer_id": 1}, {"id": 2, "customer_id": 1}]))
    (place, found), *others = (await asked(no_rows(shop.engine, LEFT))).items()
    assert (found, others) == ({"rows": 0}, [])
    assert shop.engine.url.get_backend_name() in place


async def test_a_backfill_that_skipped_a_range(shop: Shop) -> None:
    """It is told how many are left, and which."""
    shop.run(sa.insert(QUOTES).values([{"id": n, "customer_id": 1 if n < 40 else None} for n in range(1, 51)]))
    assert (await asked(no_rows(shop.engine, LEFT))).endswith("11 rows are left, such as 40, 41, 42")
    shop.run(sa.update(QUOTES).where(QUOTES.c.id > 40).values(customer_id=1))
    both = sa.select(QUOTES.c.id, QUOTES.c.total).where(QUOTES.c.customer_id.is_(None))
    assert (await asked(no_rows(shop.engine, both))).endswith("1 row is left, such as (40, None)")


async def test_many_rows_are_not_counted(shop: Shop) -> None:
    """A table of millions is not read for the sake of a number."""
    shop.run(sa.insert(QUOTES).values([{"id": n, "customer_id": None} for n in range(1, 1_201)]))
    assert "1,000 rows or more are left" in await asked(no_rows(shop.engine, LEFT))


async def test_an_empty_table_proves_nothing(shop: Shop) -> None:
    """The query may have gone to the wrong database; unless it is said that this is all right."""
    assert "no row at all in quotes" in await asked(no_rows(shop.engine, LEFT))
    assert await asked(no_rows(shop.engine, LEFT, allow_empty=True))


async def test_rows_that_differ(shop: Shop) -> None:
    """Two tables can be compared: it may select from a join."""
    shop.run(sa.insert(QUOTES).values([{"id": 1, "customer_id": 1}, {"id": 2, "customer_id": None}]))
    differing = (
        sa.select(QUOTES.c.id).outerjoin_from(QUOTES, CUSTOMERS).where(CUSTOMERS.c.id.is_(None), QUOTES.c.id != 2)
    )
    assert await asked(no_rows(shop.engine, differing))
    shop.run(sa.delete(QUOTES))
    assert "no row at all in quotes" in await asked(no_rows(shop.engine, differing))
    bad = sa.select(QUOTES.c.id).where(QUOTES.c.customer_id.is_(None)).subquery()
    assert "no row at all in quotes" in await asked(no_rows(shop.engine, sa.select(bad.c.id)))


async def test_long_rows_are_cut(shop: Shop) -> None:
    """A refusal is for people."""
    shop.run(sa.insert(QUOTES).values([{"id": 1}]))
    assert (await asked(no_rows(shop.engine, sa.select(sa.literal("x" * 500), QUOTES.c.id)))).endswith("x...")


@pytest.mark.parametrize("statement", [sa.select(sa.literal(1)), sa.text("SELECT 1"), "SELECT 1", sa.insert(QUOTES)])
def test_what_is_no_question(statement: Any) -> None:
    """It is refused where it is written."""
    with pytest.raises(SpecError, match=r"needs a select\(\.\.\.\) from a table"):
        no_rows(sa.create_engine("sqlite://"), statement)


@pytest.mark.parametrize(
    "statement", [LEFT.limit(1), LEFT.offset(5), LEFT.fetch(1), LEFT.with_for_update(skip_locked=True)]
)
def test_a_question_about_some_rows(statement: Any) -> None:
    """What it leaves out would pass for none."""
    with pytest.raises(SpecError, match="of all rows: without limit, offset"):
        no_rows(sa.create_engine("sqlite://"), statement)


async def test_rows_that_a_policy_hides(postgres: Shop) -> None:
    """A user who does not see them all cannot say that there are none."""
    postgres.run(
        "INSERT INTO quotes (id) VALUES (1), (2)",
        "DROP ROLE IF EXISTS clerk",
        "CREATE ROLE clerk LOGIN",
        "GRANT SELECT ON quotes TO clerk",
        "ALTER TABLE quotes ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON quotes USING (id > 1 AND customer_id IS NOT NULL)",
    )
    clerk = create_async_engine(sa.make_url(URLS["postgresql-async"]()).set(username="clerk"), poolclass=sa.NullPool)
    try:
        with pytest.raises(NotAskedError, match="row-level security"):
            await asked(no_rows(clerk, LEFT, allow_empty=True))
    finally:
        postgres.run("DROP OWNED BY clerk", "DROP ROLE clerk")


# -- has_schema


async def test_a_view_is_no_table(shop: Shop) -> None:
    """It may show a column that the table does not have."""
    shop.run("CREATE VIEW offers AS SELECT id, total AS price FROM quotes")
    try:
        assert "there is no table 'offers'" in await asked(has_schema(shop.engine, table="offers", columns=["price"]))
    finally:
        shop.run("DROP VIEW offers")


async def test_a_schema_that_is_there(shop: Shop) -> None:
    """Table, columns, index and constraints."""
    names: Any = {"columns": ["customer_id", "id"], "indexes": ["quotes_by_customer"]}
    found = await asked(has_schema(shop.engine, table="quotes", constraints=["quotes_total"], **names))
    assert list(found.values()) == [{**names, "constraints": ["quotes_total"]}]
    for constraint in ("quotes_customer", "quotes_once"):
        assert await asked(has_schema(shop.engine, table="quotes", constraints=[constraint]))
    assert await asked(has_schema(shop.engine, table="quotes"))


async def test_a_schema_that_is_not_there(shop: Shop) -> None:
    """It is told what was found instead."""
    lacks = await asked(has_schema(shop.engine, table="quotes", columns=["id", "customer"], indexes=["by_total"]))
    assert (
        "quotes lacks the columns customer; it has customer_id, id, total; quotes lacks the indexes by_total" in lacks
    )
    assert "lacks the constraints other; it has" in await asked(
        has_schema(shop.engine, table="quotes", constraints=["other"])
    )
    missing = await asked(has_schema(shop.engine, table="quotation"))
    assert "there is no table 'quotation'; there are customers" in missing


async def test_a_table_in_a_schema_of_its_own(postgres: Shop) -> None:
    """It is looked for there alone."""
    ops: Any = {"table": "quotes", "schema": "ops"}
    assert "there is no table 'quotes' in ops; there are none" in await asked(has_schema(postgres.engine, **ops))
    postgres.run(
        "CREATE SCHEMA ops",
        "CREATE TABLE ops.quotes (id integer)",
        "ALTER TABLE ops.quotes ADD CONSTRAINT positive CHECK (id > 0) NOT VALID",
    )
    try:
        assert await asked(has_schema(postgres.engine, columns=["id"], **ops))
        assert "lacks the columns total; it has id" in await asked(
            has_schema(postgres.engine, columns=["total"], **ops)
        )
        assert "are NOT VALID" in await asked(has_schema(postgres.engine, constraints=["positive"], **ops))
    finally:
        postgres.run("DROP SCHEMA ops CASCADE")


async def test_an_engine_that_translates_schemas(postgres: Shop) -> None:
    """It is looked for where its statements go."""
    postgres.run("CREATE SCHEMA tenant", "CREATE TABLE tenant.quotes (id integer)")
    engine = postgres.engine.execution_options(schema_translate_map={None: "tenant"})
    try:
        assert "lacks the columns total; it has id" in await asked(
            has_schema(engine, table="quotes", columns=["total"])
        )
        assert "no row at all in quotes" in await asked(no_rows(engine, sa.select(QUOTES.c.id).where(QUOTES.c.id < 0)))
    finally:
        postgres.run("DROP SCHEMA tenant CASCADE")


async def test_an_index_that_failed(postgres: Shop) -> None:
    """Made CONCURRENTLY it stays behind, and serves nobody."""
    postgres.run("INSERT INTO quotes (id, customer_id) VALUES (1, NULL), (2, NULL)")
    sql = "CREATE UNIQUE INDEX CONCURRENTLY failed ON quotes (customer_id) NULLS NOT DISTINCT"
    with (
        postgres.plain.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(sa.exc.IntegrityError),
    ):
        connection.exec_driver_sql(sql)
    failed = await asked(has_schema(postgres.engine, table="quotes", indexes=["failed"]))
    assert "the indexes failed are not valid" in failed
    assert await asked(has_schema(postgres.engine, table="quotes", indexes=["quotes_by_customer"]))


async def test_a_constraint_that_is_not_validated(postgres: Shop) -> None:
    """It holds for what is written from now on, and not for what is there."""
    constrained = has_schema(postgres.engine, table="quotes", constraints=["present"])
    postgres.run("ALTER TABLE quotes ADD CONSTRAINT present CHECK (customer_id IS NOT NULL) NOT VALID")
    assert "the constraints present are NOT VALID: run ALTER TABLE ... VALIDATE" in await asked(constrained)
    postgres.run("ALTER TABLE quotes VALIDATE CONSTRAINT present")
    assert await asked(constrained)


@pytest.mark.parametrize("names", [{"columns": "id"}, {"indexes": [1]}, {"table": ""}, {"constraints": [""]}])
def test_names_that_are_none(names: Any) -> None:
    """A text is no list of names."""
    with pytest.raises(SpecError, match="needs names such as"):
        has_schema(sa.create_engine("sqlite://"), **{"table": "quotes", **names})


# -- no_sessions


@pytest.fixture
def connected() -> Iterator[Callable[..., sa.Engine]]:
    """Engines for a database of their own: of builds that say who they are, or do not."""
    postgresql = server("postgresql")
    postgresql.run("DROP DATABASE IF EXISTS sessions WITH (FORCE)")
    postgresql.run("CREATE DATABASE sessions")
    postgresql.run("DROP ROLE IF EXISTS reader")
    postgresql.run("CREATE ROLE reader LOGIN")
    url = sa.make_url(URLS["postgresql-sync"]()).set(database="sessions")

    def connect(name: str | None, user: str = "postgres") -> sa.Engine:
        given = {} if name is None else {"application_name": name}
        return sa.create_engine(url.set(username=user), poolclass=sa.NullPool, connect_args=given)

    yield connect
    postgresql.run("DROP DATABASE sessions WITH (FORCE)")
    postgresql.run("DROP ROLE reader")


def is_old(name: str) -> bool:
    return name.startswith("shop ") and int(name.split()[1]) < 42


@pytest.mark.parametrize("user", ["postgres", "reader"])
async def test_an_old_build_that_is_still_connected(connected: Callable[..., sa.Engine], user: str) -> None:
    """It is named, and how many sessions it has; to see who is there needs no rights."""
    gone = no_sessions(connected("gate", user), is_old)
    with connected("shop 41").connect(), connected("shop 41").connect(), connected("shop 42").connect():
        assert "2 sessions are of an old build: shop 41" in await asked(gone)


async def test_an_old_build_that_is_gone(connected: Callable[..., sa.Engine]) -> None:
    """The payload says who was there."""
    with connected("shop 42").connect(), connected("shop 43").connect():
        (found,) = (await asked(no_sessions(connected("gate"), is_old))).values()
    assert found == {"sessions": ["shop 42", "shop 43"]}


async def test_a_session_that_does_not_say_who_it_is(connected: Callable[..., sa.Engine]) -> None:
    """It may be of any build."""
    with connected(None).connect(), connected("shop 42").connect():
        assert "1 session is without an application_name" in await asked(no_sessions(connected("gate"), is_old))


async def test_an_answer_that_is_none(connected: Callable[..., sa.Engine]) -> None:
    """Neither True nor False is not False."""
    unclear: Any = lambda name: None  # noqa: E731
    with connected("shop 42").connect():
        assert "says neither True nor False of shop 42" in await asked(no_sessions(connected("gate"), unclear))


async def test_nobody_at_all(connected: Callable[..., sa.Engine]) -> None:
    """The application may be elsewhere; unless it is said that this is all right."""
    assert "nobody else is connected there" in await asked(no_sessions(connected("gate"), is_old))
    assert await asked(no_sessions(connected("gate"), is_old, allow_empty=True))


async def test_sessions_are_postgresqls() -> None:
    """Elsewhere nobody can tell."""
    assert "but in PostgreSQL" in await asked(no_sessions(sa.create_engine("sqlite://", poolclass=sa.NullPool), bool))
    with pytest.raises(SpecError, match="a function of the application name"):
        no_sessions(sa.create_engine("sqlite://"), "shop 41")  # type: ignore[arg-type]

    async def waits(name: str) -> bool:
        return False

    with pytest.raises(SpecError, match="a function of the application name"):
        no_sessions(sa.create_engine("sqlite://"), waits)  # type: ignore[arg-type]


# -- engines


async def test_each_of_several_is_asked(tmp_path: Path) -> None:
    """One of two lacks the column: it is named, and the other does not make up for it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (Shop("sqlite", tmp_path / name) for name in "ab")
    TABLES.create_all(first.plain)
    first.run("ALTER TABLE quotes ADD COLUMN note TEXT")
    TABLES.create_all(second.plain)
    evidence = has_schema(lambda: [first.engine, second.engine], table="quotes", columns=["note"])
    refused = await asked(evidence)
    assert f"{tmp_path}/b/shop.db: quotes lacks the columns note" in refused
    assert f"{tmp_path}/a/" not in refused
    second.run("ALTER TABLE quotes ADD COLUMN note TEXT")
    assert len(await asked(evidence)) == 2
    for shop in (first, second):
        await shop.close()


@pytest.mark.parametrize("source", [None, "postgresql://a/b", [], [1], 7])
async def test_what_is_no_engine(source: Any) -> None:
    """It is refused where it is given; or, where a callable returns it, the source is errored."""
    with pytest.raises(SpecError, match="an engine of SQLAlchemy is wanted"):
        has_schema(source, table="quotes")
    with pytest.raises(SpecError, match="an engine of SQLAlchemy is wanted"):
        await asked(has_schema(lambda: source, table="quotes"))


async def test_a_database_that_cannot_be_asked(shop: Shop) -> None:
    """It is errored and named; what a statement was given, and the password, are in no message."""
    statement = sa.select(sa.table("nowhere", sa.column("id")).c.id).where(sa.literal("secret!") == sa.literal("x"))
    with pytest.raises(NotAskedError, match="nowhere") as caught:
        await asked(no_rows(shop.engine, statement))
    assert "secret!" not in str(caught.value)
    assert "sqlite" in str(caught.value) or "localhost" in str(caught.value) or "host=" in str(caught.value)
    away = sa.create_engine("postgresql+psycopg://app:hunter2@127.0.0.1:1/shop?sslpassword=hunter2")
    with pytest.raises(NotAskedError, match=r"127\.0\.0\.1") as caught:
        await asked(has_schema(away, table="quotes"))
    assert "hunter2" not in str(caught.value)


async def test_a_replica_is_not_asked(postgres: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may be old."""
    replica = attrs.evolve(dialects._DIALECTS["postgresql"], read_only="true")
    monkeypatch.setitem(dialects._DIALECTS, "postgresql", replica)
    assert "it is a replica, which may lag behind" in await asked(has_schema(postgres.engine, table="quotes"))


# -- in words


def test_what_they_demand() -> None:
    """A screen tells what is looked at, with names where the values of a query go."""
    engine = sa.create_engine("sqlite://")
    quotes = sa.table("quotes", sa.column("id"), sa.column("customer"))
    left = sa.select(quotes.c.id).where(quotes.c.customer == "a secret")
    told = {
        "the table quotes is there": has_schema(engine, table="quotes"),
        "the table quotes is there, with the columns a, b and the indexes i": has_schema(
            engine, table="quotes", columns=["b", "a"], indexes=["i"]
        ),
        "no row is left of quotes: SELECT quotes.id FROM quotes WHERE quotes.customer = :customer_1": no_rows(
            engine, left
        ),
        "no row is left of quotes: what its query selects": no_rows(
            engine, left.where(sa.func.coalesce(quotes.c.customer, _OfOneDatabase()))
        ),
        "no build is connected any more that would be harmed": no_sessions(engine, str.isdigit),
    }
    for demand, evidence in told.items():
        assert demand_of(evidence) == demand


class _OfOneDatabase(sa.ColumnElement[str]):
    inherit_cache = False
