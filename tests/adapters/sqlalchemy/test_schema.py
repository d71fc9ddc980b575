"""The tables on a server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from phyxius.adapters.sqlalchemy import ServerStoreError, create_schema, metadata, metadata_for, open_stores
from phyxius.adapters.sqlalchemy import _schema as schema
from phyxius.adapters.sqlalchemy._schema import Naming, missing
from phyxius.migration import SpecError, define_migration
from tests.places import ServerPlace

SPEC: Any = define_migration(name="m", phases={"a": {}, "b": {}})


@pytest.fixture
async def engine(place: ServerPlace) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(place.url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def prefix(engine: AsyncEngine) -> AsyncIterator[str]:
    """One under which there are no tables, before and after."""
    prefix = f"t{uuid.uuid4().hex[:8]}_"
    yield prefix
    async with engine.begin() as connection:
        await connection.run_sync(metadata_for(prefix=prefix).drop_all)


async def run(engine: AsyncEngine, sql: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.text(sql))


def test_names_are_short_enough() -> None:
    """PostgreSQL would cut them off after 63 characters, also under the longest prefix."""
    tables = metadata_for(prefix="p" * 41, schema="s").tables.values()
    names = [each.name for table in tables for each in (table, *table.indexes, *table.constraints) if each.name]
    assert len(names) == len(set(names)) >= 20
    assert max(map(len, map(str, names))) <= 63


@pytest.mark.parametrize("name", ["", "1", "Phyxius", "a-b", "a b", "a;drop", "p" * 42, "ä", None, 3])
def test_names_that_a_database_would_misread(name: Any) -> None:
    """A prefix, or a schema, is a plain name."""
    with pytest.raises(SpecError, match="a prefix is up to 41 lower-case"):
        metadata_for(prefix=name)
    if name is not None:
        with pytest.raises(SpecError, match="a schema is up to 41 lower-case"):
            metadata_for(schema=name)


async def test_it_is_made_once(engine: AsyncEngine, prefix: str) -> None:
    """By several at once, and again: nothing is made twice, and what is there stays."""
    await asyncio.gather(*(create_schema(engine.url, prefix=prefix) for _ in range(4)))
    async with open_stores(engine, prefix=prefix) as stores:
        assert await stores.phase_store(SPEC).current() == "a"
    await create_schema(engine, prefix=prefix)
    async with open_stores(engine, prefix=prefix) as stores:
        assert await stores.phase_store(SPEC, initial="b").current() == "a"


@pytest.mark.parametrize("other", ["gates", "order"])
async def test_several_live_side_by_side(engine: AsyncEngine, prefix: str, other: str) -> None:
    """Under another prefix, or in another schema, everything is another; that may be called by a word of SQL."""
    await create_schema(engine, prefix=prefix)
    await create_schema(engine, prefix=prefix, schema=other)
    try:
        async with (
            open_stores(engine, prefix=prefix) as here,
            open_stores(engine, prefix=prefix, schema=other) as there,
        ):
            assert await here.phase_store(SPEC).current() == "a"
            assert await there.phase_store(SPEC, initial="b").current() == "b"
            assert here._database.identity != there._database.identity
            assert there._database.place.endswith(f"({other}.{prefix}*)")
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(metadata_for(prefix=prefix, schema=other).drop_all)
            await connection.execute(sa.schema.DropSchema(other))


async def test_tables_that_are_not_there(engine: AsyncEngine, prefix: str) -> None:
    """It says which, and how they are made; also if only some are."""
    with pytest.raises(
        ServerStoreError, match=rf"create_schema\(engine\)` once.*not there: {prefix}journal, "
    ) as caught:
        await open_stores(engine, prefix=prefix).__aenter__()
    assert caught.value.problem == "missing"
    await create_schema(engine, prefix=prefix)
    await run(engine, f"DROP TABLE {prefix}gaps")
    with pytest.raises(ServerStoreError, match=rf"not there: {prefix}gaps\)"):
        await open_stores(engine, prefix=prefix).__aenter__()


@pytest.mark.parametrize("gone", [["events"], ["journal"], ["events", "journal"], ["journal", "transitions"]], ids=str)
async def test_tables_that_are_gone(engine: AsyncEngine, prefix: str, gone: list[str]) -> None:
    """Once they were used they are not made anew: empty ones would say that nothing happened."""
    await create_schema(engine, prefix=prefix)
    stores = open_stores(engine, prefix=prefix)
    async with stores:
        await stores.phase_store(SPEC).current()
    for table in gone:
        await run(engine, f"DROP TABLE {prefix}{table}")
    names = {f"{prefix}{table}" for table in gone}
    wanted = {"match": rf"restore them from a backup: .*not there: {prefix}"}
    with pytest.raises(ServerStoreError, **wanted) as caught:
        await create_schema(engine, prefix=prefix)
    assert caught.value.problem == "corrupt"
    assert all(name in str(caught.value) for name in names)
    with pytest.raises(ServerStoreError, **wanted):
        await stores._database.open(create=True)
    async with engine.connect() as connection:
        assert set(await connection.run_sync(missing, Naming(prefix))) == names


async def test_tables_of_another_version(engine: AsyncEngine, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer ones are left alone, older ones have to be brought to ours first, by whatever makes the tables."""
    await create_schema(engine, prefix=prefix)
    async with open_stores(engine, prefix=prefix):
        pass
    await run(engine, f"UPDATE {prefix}journal SET version = 2")
    with pytest.raises(ServerStoreError, match=r"upgrade phyxius-migration here .version 2, known up to 1") as caught:
        await open_stores(engine, prefix=prefix).__aenter__()
    assert caught.value.problem == "newer"
    await run(engine, f"ALTER TABLE {prefix}journal RENAME COLUMN request TO renamed")  # as a newer version might
    await create_schema(engine, prefix=prefix)
    await run(engine, f"ALTER TABLE {prefix}journal RENAME COLUMN renamed TO request")

    def upgrade(connection: sa.Connection, naming: Naming) -> None:
        connection.execute(sa.text(f"ALTER TABLE {naming.table('journal')} ADD COLUMN colour VARCHAR(10)"))

    def wanted(*, prefix: str, schema: str | None) -> sa.MetaData:
        tables = metadata_for(prefix=prefix, schema=schema)
        tables.tables[f"{prefix}journal"].append_column(sa.Column("colour", sa.String(10)))
        return tables

    monkeypatch.setattr(schema, "UPGRADES", (*schema.UPGRADES, upgrade, lambda connection, naming: None))
    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setattr(schema, "metadata_for", wanted)
    await run(engine, f"UPDATE {prefix}journal SET version = 1")
    with pytest.raises(ServerStoreError, match=rf"earlier version.*not there: {prefix}journal.colour") as caught:
        await open_stores(engine, prefix=prefix).__aenter__()
    assert caught.value.problem == "older"
    for _ in range(2):
        await create_schema(engine, prefix=prefix)
    async with open_stores(engine, prefix=prefix) as stores:
        assert await stores.phase_store(SPEC).current() == "a"
    # Alembic had added the column, and knows nothing of the version.
    await run(engine, f"UPDATE {prefix}journal SET version = 1")
    async with open_stores(engine, prefix=prefix), engine.connect() as connection:
        assert (await connection.execute(sa.text(f"SELECT version FROM {prefix}journal"))).scalar() == 3


async def test_alembic_makes_them_too(engine: AsyncEngine, prefix: str) -> None:
    """What it generates from the metadata is what we need; then it finds nothing to change, and can undo it."""
    target = metadata_for(prefix=prefix)

    def context_of(connection: sa.Connection) -> MigrationContext:
        def include(item: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
            return kind != "table" or str(name).startswith(prefix)

        return MigrationContext.configure(connection, opts={"include_object": include, "compare_type": True})

    def generate(connection: sa.Connection) -> tuple[str, str]:
        script = produce_migrations(context_of(connection), target)
        assert script.upgrade_ops is not None
        assert script.downgrade_ops is not None
        return render_python_code(script.upgrade_ops), render_python_code(script.downgrade_ops)

    def migrate(connection: sa.Connection, code: str) -> None:
        dialects = {"mysql": sa.dialects.mysql, "postgresql": sa.dialects.postgresql}
        names: dict[str, Any] = {"op": Operations(context_of(connection)), "sa": sa, **dialects}
        exec("def migrate():\n    " + code.replace("\n", "\n    "), names)
        names["migrate"]()

    def compare(connection: sa.Connection) -> list[Any]:
        found = compare_metadata(context_of(connection), target)
        return [each for each in found if "fk" not in str(each[0])]

    async with engine.begin() as connection:
        upgrade, downgrade = await connection.run_sync(generate)
        await connection.run_sync(migrate, upgrade)
        assert await connection.run_sync(compare) == []
        assert await connection.run_sync(missing, Naming(prefix)) == []
    async with open_stores(engine, prefix=prefix) as stores:
        assert await stores.phase_store(SPEC).current() == "a"
    async with engine.begin() as connection:
        await connection.run_sync(migrate, downgrade)
        assert len(await connection.run_sync(missing, Naming(prefix))) == len(target.tables)


async def test_a_user_who_may_not_make_tables_can_work(place: ServerPlace) -> None:
    """SELECT, INSERT, UPDATE and DELETE are enough once the tables are there; without them it says so."""
    tables = [f"{table.name}" for table in metadata.sorted_tables]
    if place.is_mysql:
        place.server.run("CREATE OR REPLACE USER worker@localhost IDENTIFIED BY 'pw'")
        grants = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON phyxius.{table} TO worker@localhost" for table in tables]
    else:
        place.server.run("DROP ROLE IF EXISTS worker")
        place.server.run("CREATE ROLE worker LOGIN")
        grants = [f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO worker" for table in tables]
        grants.append("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO worker")
    url = sa.make_url(place.url).set(username="worker", password="pw")
    with pytest.raises(ServerStoreError) as caught:
        await open_stores(url).__aenter__()
    assert caught.value.problem in {"denied", "missing"}, "a database may not even say that they are there"
    for grant in grants:
        place.server.run(grant)
    try:
        async with open_stores(url, timeout=timedelta(seconds=30)) as stores:
            assert await stores.phase_store(SPEC).current() == "a"
        with pytest.raises(ServerStoreError, match="may not do that") as caught:
            await create_schema(url, prefix="another_")
        assert caught.value.problem == "denied"
    finally:
        if not place.is_mysql:
            place.server.run("DROP OWNED BY worker; DROP ROLE worker")
