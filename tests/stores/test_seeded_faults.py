"""Faults that are put into an application on purpose: each is refused, by the evidence that is there for it.

Two databases of a real PostgreSQL, made by Alembic; reads are shadowed and writes are doubled, for two tenants.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phyxius.adapters.alembic import at_revision
from phyxius.adapters.sqlalchemy import create_schema, has_schema, no_rows, open_stores
from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.fp import Ok
from phyxius.handler import correlated, dual_write, observe, recorded, shadow
from phyxius.journal import Journal
from phyxius.migration import Migration, create_migration, define_migration, shadow_parity, write_parity
from tests.projects import Project
from tests.servers import server

DAY = timedelta(days=1)
FEW = 200
tables = sa.MetaData()
quotes = sa.Table("quotes", tables, sa.Column("id", sa.Integer, primary_key=True), sa.Column("total", sa.Integer))
sales = sa.Table("sales", tables, sa.Column("id", sa.Integer, primary_key=True), sa.Column("total", sa.Integer))
different = (
    sa.select(quotes.c.id)
    .outerjoin(sales, quotes.c.id == sales.c.id)
    .where(sales.c.total.is_distinct_from(quotes.c.total))
)
_numbers = itertools.count(1)


def new_database() -> tuple[str, str]:
    """The URLs of a new database, for an async engine and for a sync one."""
    name = f"faults_{next(_numbers)}"
    server("postgresql").run(f"CREATE DATABASE {name}")
    urls = [server("postgresql").url(driver).replace("/postgres?", f"/{name}?") for driver in ("asyncpg", "psycopg")]
    return urls[0], urls[1]


@attrs.define(slots=False)
class Shop:
    """The application. Half of its quotes were there before writes were doubled; a tenth is a small tenant's."""

    engine: AsyncEngine
    clock: ControlledClock
    journal: Journal[Any]
    size: int
    drops: int = 0
    fails_for: str = ""
    is_late_for: int = 0
    cannot_compare: int = 0
    skips: range = range(0)

    def __attrs_post_init__(self) -> None:
        self.read = shadow(self.journal, "quote.read.parity", old=self.read_old, new=self.read_new, compare=self.same)
        self.write = dual_write(
            self.journal,
            "quote.write.parity",
            authoritative=self.write_old,
            secondary=self.write_new,
            on_failure="carry_on",
            compare=lambda old, new: bool(old == new),
        )

    def tenant(self, number: int) -> str:
        return "small" if number % 10 == 7 else "large"

    async def ask(self, statement: Any) -> Any:
        async with self.engine.begin() as connection:
            return (await connection.execute(statement)).scalar_one_or_none()

    async def read_old(self, number: int) -> int:
        return await self.ask(sa.select(quotes.c.total).where(quotes.c.id == number))  # type: ignore[no-any-return]

    async def read_new(self, number: int) -> int:
        if self.tenant(number) == self.fails_for:
            raise KeyError(self.fails_for)
        if number == self.is_late_for:
            await self.clock.sleep(timedelta(seconds=6))
        return await self.ask(sa.select(sales.c.total).where(sales.c.id == number))  # type: ignore[no-any-return]

    def same(self, old: int, new: int) -> bool:
        return {}[old] if old == self.cannot_compare else old == new  # type: ignore[no-any-return]

    async def write_old(self, number: int) -> int:
        return await self.ask(sa.insert(quotes).values(id=number, total=number).returning(quotes.c.id))  # type: ignore[no-any-return]

    async def write_new(self, number: int) -> int:
        if number == self.drops:
            return number  # and says that it did it
        return await self.ask(sa.insert(sales).values(id=number, total=number).returning(sales.c.id))  # type: ignore[no-any-return]

    async def keep_up(self, number: int) -> None:
        """Let the recorder store what there is, once in a while."""
        if not number % 1_000:
            await self.clock.elapse(timedelta(seconds=1))

    async def run(self) -> None:
        """Save half of the quotes in one way, copy those of before, and read them all."""
        half = self.size // 2
        before = [{"id": number, "total": number} for number in range(half + 1, self.size + 1)]
        async with self.engine.begin() as connection:
            await connection.execute(sa.insert(quotes), before)
        for number in range(1, half + 1):
            with correlated(f"save {number}"), recorded(self.journal, "quote.save"):
                observe(tenant=self.tenant(number), number=number)
                await self.write(number)
            await self.keep_up(number)
        copied = [row for row in before if row["id"] not in self.skips]
        async with self.engine.begin() as connection:
            await connection.execute(sa.insert(sales), copied)
        for number in range(1, self.size + 1):
            with correlated(f"read {number}"), recorded(self.journal, "quote.read"):
                observe(tenant=self.tenant(number), number=number)
                assert await self.read(number) == number
            await self.keep_up(number)
        await self.clock.elapse(timedelta(seconds=10))


@attrs.define
class World:
    """Two databases, of which the second one has the tables too, and the stores are in the first."""

    shop: Shop
    migration: Migration[str]
    projects: tuple[Project, Project]
    reports: sa.Engine

    async def verdicts(self) -> dict[str, Any]:
        return dict((await self.migration.readiness()).verdicts)

    async def blockers(self) -> dict[str, str]:
        """Which sources refuse, and why."""
        found = await self.verdicts()
        assert len(found) == 5
        return {name: verdict.reason for name, verdict in found.items() if type(verdict) is not Ok}


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    size, faults = getattr(request, "param", (FEW, {}))
    clock = create_controlled_clock()
    (url, sync_url), (_, reports_url) = new_database(), new_database()
    projects = Project(tmp_path / "shop", sync_url), Project(tmp_path / "reports", reports_url)
    for project in projects:
        project.add("0041")
        project.add("0042", "0041")
        project.upgrade("0042")
    async with AsyncExitStack() as stack:
        engine = create_async_engine(url)
        reports = sa.create_engine(reports_url)
        stack.callback(reports.dispose)
        for project in projects:
            stack.callback(project.engine.dispose)
        stack.push_async_callback(engine.dispose)
        async with engine.begin() as connection:
            await connection.run_sync(tables.create_all)
        with reports.begin() as blocking:
            tables.create_all(blocking)
            blocking.execute(sa.insert(quotes).values(id=1, total=1))
            blocking.execute(sa.insert(sales).values(id=1, total=1))
        await create_schema(engine)
        stores = await stack.enter_async_context(open_stores(engine, clock=clock))
        journal = Journal[Any](clock=clock)
        await stack.enter_async_context(stores.recorder(journal, name="shop"))
        shop = Shop(engine, clock, journal, size, **faults)
        both = [engine, reports]
        evidence = {
            "schema": has_schema(both, table="sales", columns=["id", "total"]),
            "revision": at_revision(both, "0042", script_location=projects[0].scripts, version_table="versions"),
            "copied": no_rows(both, different),
            "reads": shadow_parity("quote.read.parity", window=DAY, min_comparisons=size // 20, by="tenant"),
            "writes": write_parity("quote.write.parity", window=DAY, min_writes=size // 40, by="tenant"),
        }
        spec = define_migration(name="quotes", phases={"dual_write": {}, "flip": evidence})
        migration = create_migration(
            spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
        )
        await clock.elapse(2 * DAY)
        yield World(shop, migration, projects, reports)


async def test_without_a_fault_it_moves(world: World) -> None:
    """All five sources say yes."""
    await world.shop.run()
    assert await world.blockers() == {}
    advanced: Any = await world.migration.advance(to="flip")
    assert advanced.value.evidence["reads"]["counts"]["matched"] == FEW
    assert advanced.value.evidence["writes"]["counts"]["matched"] == FEW // 2
    assert advanced.value.evidence["reads"]["cohort_count"] == 2


@pytest.mark.parametrize(
    "world, expected",
    [
        (
            (FEW, {"drops": 42}),
            {"copied": "1 row is left, such as 42", "reads": "1 mismatched and 0 errored beside"},
        ),
        (
            (FEW, {"fails_for": "small"}),
            {"reads": "cohort 'small': 0 mismatched and 20 errored beside 0 matched attempts"},
        ),
        (
            (FEW, {"is_late_for": 42}),
            {"reads": "0 mismatched and 1 errored beside"},
        ),
        (
            (FEW, {"cannot_compare": 42}),
            {"reads": "0 mismatched and 1 errored beside"},
        ),
        (
            (FEW, {"skips": range(150, 160)}),
            {"copied": "10 rows are left, such as 150, 151, 152", "reads": "mismatched and 0 errored beside"},
        ),
    ],
    indirect=["world"],
    ids=["drops a row", "raises for one tenant", "is late", "cannot be compared", "the backfill skips a range"],
)
async def test_a_fault_of_the_application(world: World, expected: dict[str, str]) -> None:
    """It is found by what is there to find it, and by nothing else; the callers have not noticed."""
    await world.shop.run()
    blockers = await world.blockers()
    assert blockers.keys() == expected.keys()
    for name, part in expected.items():
        assert part in blockers[name]
    refused: Any = await world.migration.advance(to="flip")
    assert refused.error.failures.keys() == expected.keys()
    assert await world.migration.current_phase() == "dual_write"


@pytest.mark.parametrize(
    "world, why",
    [
        ((FEW, {"is_late_for": 42}), "the new side was late"),
        ((FEW, {"cannot_compare": 42}), "the comparison failed"),
        ((FEW, {"fails_for": "small"}), "the new side raised"),
    ],
    indirect=["world"],
)
async def test_the_newest_failure_is_told(world: World, why: str) -> None:
    """What it was, and for which request."""
    await world.shop.run()
    newest = (await world.verdicts())["reads"].details["newest"]
    number = newest["observed"]["number"]
    assert (newest["observed"]["why"], newest["correlation_id"]) == (why, f"read {number}")


async def test_a_database_that_lacks_the_column(world: World) -> None:
    """The other one has it."""
    await world.shop.run()
    with world.reports.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE sales RENAME COLUMN total TO sum")
    found = await world.verdicts()
    assert "faults_" in found["schema"].reason
    assert found["schema"].reason.endswith(": sales lacks the columns total; it has id, sum")
    assert isinstance(found["copied"], Exception), "nor can the rows be compared there"
    assert [type(found[name]) for name in ("revision", "reads", "writes")] == [Ok] * 3


async def test_two_heads(world: World) -> None:
    """A branch that was merged into the code and not into the database."""
    await world.shop.run()
    for project in world.projects:
        project.add("b042", "0041")
    evidence = at_revision(
        [world.shop.engine, world.reports], "b042", script_location=world.projects[0].scripts, version_table="versions"
    )
    spec = define_migration(name="branch", phases={"dual_write": {}, "flip": {"revision": evidence}})
    branch = create_migration(spec, journal=world.shop.journal, single_process=True)
    verdict: Any = (await branch.readiness()).verdicts["revision"]
    assert verdict.reason.count("b042 is not applied: it is at 0042; the scripts have 2 heads, 0042, b042") == 2
    world.projects[0].upgrade("heads")
    verdict = (await branch.readiness()).verdicts["revision"]
    assert verdict.reason.count("b042 is not applied: it is at 0042") == 1
    world.projects[1].upgrade("heads")
    assert (await branch.readiness()).ready


@pytest.mark.prove
@pytest.mark.parametrize("world", [(20_000, {"drops": 4_242})], indirect=True)
async def test_one_row_in_ten_thousand_is_dropped(world: World) -> None:
    """Of 10,000 that were written and 20,000 that were read."""
    await world.shop.run()
    blockers = await world.blockers()
    assert blockers.keys() == {"copied", "reads"}
    assert blockers["copied"].endswith(": 1 row is left, such as 4242")
    assert "1 mismatched and 0 errored beside" in blockers["reads"]


@pytest.mark.prove
@pytest.mark.parametrize("world", [(20_000, {})], indirect=True)
async def test_none_in_ten_thousand_is_dropped(world: World) -> None:
    """The same without the fault."""
    await world.shop.run()
    assert await world.blockers() == {}
