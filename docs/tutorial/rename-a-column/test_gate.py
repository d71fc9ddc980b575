"""The gates open when they should, and stay shut when they should: days pass here without anybody waiting."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

os.environ["DATABASE_URL"] = os.environ["TEST_DATABASE_URL"]  # its tables are made and dropped here

from gate import DAY, customers, engine, spec
from phyxius import Err, HandlerEvent, Journal, Migration, Ok, create_migration
from phyxius.testing import aged_journal, record_events

NAMES = ["customer.write", "customer.read_name", "customer.read.parity"]


@pytest.fixture(scope="module")
def schema() -> Iterator[None]:
    """The tables, as they are before `contract`; in a database that has none."""
    alembic = [sys.executable, "-m", "alembic", "-c", str(Path(__file__).parent / "alembic.ini")]
    current = subprocess.run([*alembic, "current"], check=True, capture_output=True, text=True).stdout
    assert not current.strip(), f"TEST_DATABASE_URL has tables already, at {current}; give it an empty database"
    subprocess.run([*alembic, "upgrade", "0004"], check=True)
    yield
    subprocess.run([*alembic, "downgrade", "base"], check=True)


@pytest.fixture
async def database(schema: None) -> AsyncIterator[AsyncConnection]:
    """One customer, in both columns."""
    async with engine.connect() as connection:
        await connection.execute(sa.delete(customers))
        await connection.execute(sa.insert(customers).values(id=1, name="Ada", full_name="Ada"))
        await connection.commit()
        yield connection
    await engine.dispose()


def migration_at(phase: str, journal: Journal[HandlerEvent]) -> Migration[str]:
    """The migration, in memory, at some phase."""
    return create_migration(spec, journal=journal, initial_phase=phase, single_process=True)


async def blockers(migration: Migration[str]) -> set[str]:
    """Which evidence refuses the next step; none if it was taken."""
    match await migration.advance():
        case Ok():
            return set()
        case Err(refusal):
            return set(refusal.failures)


async def test_flip(database: AsyncConnection) -> None:
    """Reads move once all rows are copied, and a day has passed without a mismatch."""
    journal = aged_journal(30 * DAY, names=NAMES)
    migration = migration_at("dual_write", journal)
    record_events(journal, "customer.write", observed={"phase": "dual_write"})
    record_events(journal, "customer.read.parity", count=10, observed={"parity": "matched"})
    record_events(journal, "customer.read.parity", observed={"parity": "mismatched"})
    await database.execute(sa.insert(customers).values(id=2, name="Zoë", full_name="Zoe"))
    await database.commit()
    assert await blockers(migration) == {"backfilled", "reads_agree"}

    await database.execute(sa.update(customers).values(full_name=customers.c.name))
    await database.commit()
    await journal.clock.elapse(DAY)
    record_events(journal, "customer.read.parity", count=10, observed={"parity": "matched"})
    assert await blockers(migration) == {"reads_agree"}, "the mismatch is a day old, and not more"
    await journal.clock.elapse(DAY / 1_000)
    assert await blockers(migration) == set()


async def test_a_request_that_began_under_expand_blocks_the_flip(database: AsyncConnection) -> None:
    """It wrote the old column alone, maybe after the backfill had passed by."""
    journal = aged_journal(30 * DAY, names=NAMES)
    record_events(journal, "customer.read.parity", count=10, observed={"parity": "matched"})
    record_events(journal, "customer.write", observed={"phase": "expand"})
    assert await blockers(migration_at("dual_write", journal)) == {"nobody_writes_name_only"}


async def test_a_forgotten_report_blocks_contract(database: AsyncConnection) -> None:
    """Once in fourteen days is too often."""
    journal = aged_journal(30 * DAY, names=NAMES)
    migration = migration_at("flip", journal)
    record_events(journal, "customer.read_name", ago=13 * DAY)
    assert await blockers(migration) == {"nobody_reads_name"}
    await journal.clock.elapse(2 * DAY)
    assert await blockers(migration) == set()


async def test_a_build_that_does_not_know_the_names_proves_nothing(database: AsyncConnection) -> None:
    """Its silence has no witness."""
    assert await blockers(migration_at("flip", aged_journal(30 * DAY))) == {"nobody_reads_name"}
