"""The stores on a server: they satisfy the protocols, and carry the type of the phases."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

from sqlalchemy import URL, Engine, Integer, MetaData, column, select, table
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import assert_type

from phyxius import (
    AttestationEvidence,
    Clock,
    Journal,
    JournalStore,
    Migration,
    MigrationSpec,
    PhaseStore,
    SchemaAppliedEvidence,
    create_migration,
    create_system_clock,
    define_migration,
    phase_reached,
)
from phyxius.adapters.alembic import at_revision
from phyxius.adapters.django import migration_applied
from phyxius.adapters.sqlalchemy import (
    SqlAttestations,
    SqlJournalStore,
    SqlPhaseStore,
    Recorder,
    ServerProblem,
    ServerStoreError,
    ServerStores,
    Signature,
    create_schema,
    has_schema,
    metadata,
    metadata_for,
    no_rows,
    no_sessions,
    open_stores,
)

Phase = Literal["expand", "flip"]


class Step(StrEnum):
    OLD = "old"
    NEW = "new"


module_level = open_stores("postgresql+asyncpg://host/db")
assert_type(module_level, ServerStores)
assert_type(metadata, MetaData)
assert_type(metadata_for(prefix="ours_", schema="ops"), MetaData)
assert_type(module_level.attestations, SqlAttestations)
assert_type(module_level.journal_store, SqlJournalStore)
assert_type(module_level.attestations.signed_off(), AttestationEvidence[dict[str, object]])
spec: MigrationSpec[Phase] = define_migration(
    name="quotes",
    phases={
        "expand": {},
        "flip": {"signed": module_level.attestations.signed_off(2, ["ada", "bob"], timedelta(days=1))},
    },
)
steps = define_migration(name="steps", phases={Step.OLD: {}, Step.NEW: {}})


async def run(engine: AsyncEngine, url: URL) -> None:
    clock: Clock = create_system_clock()
    assert_type(await create_schema(url, prefix="ours_", schema="ops"), None)
    async with open_stores(engine, clock=clock, time="process", timeout=timedelta(seconds=1)) as stores:
        journal = Journal(clock=clock)
        async with stores.recorder(journal, name="api", durable={"quote.read_old"}) as recorder:
            assert_type(recorder, Recorder)
            assert_type(await recorder.flush(), None)
            assert_type(recorder.name, str)
        phase_store: PhaseStore = stores.phase_store(spec)
        journal_store: JournalStore = stores.journal_store
        migration = create_migration(spec, journal=journal, journal_store=journal_store, phase_store=phase_store)
        assert_type(migration, Migration[Phase])
        assert_type(phase_reached(migration, "flip"), SchemaAppliedEvidence[dict[str, str]])
        kept = stores.phase_store(spec, initial="flip")
        assert_type(kept, SqlPhaseStore)
        assert_type(await kept.amend(spec, who="ada", why="it was missing"), int)
        stores.phase_store(steps, initial=Step.NEW)
        signature = await stores.attestations.sign(spec, to="flip", source="signed", signer="ada", note="looked")
        assert_type(signature, Signature)
        await stores.attestations.sign(steps, to=Step.NEW, source="signed", signer="ada", valid_for=timedelta(1))
        assert_type(await stores.attestations.revoke(spec, to="flip", source="signed", signer="ada"), int)
        assert_type(await stores.journal_store.prune(older_than=timedelta(days=90)), int)


def explain(error: ServerStoreError) -> ServerProblem:
    return error.problem


Found: TypeAlias = Mapping[str, Mapping[str, object]]


def ask(engine: Engine, other: AsyncEngine) -> None:
    assert_type(has_schema(engine, table="quotes", columns=["id"]), SchemaAppliedEvidence[Found])
    assert_type(has_schema(lambda: [engine, other], table="quotes"), SchemaAppliedEvidence[Found])
    assert_type(
        no_rows([other], select(column("id", Integer)).select_from(table("quotes"))), SchemaAppliedEvidence[Found]
    )
    assert_type(no_sessions(lambda: other, lambda name: name == "shop 41"), SchemaAppliedEvidence[Found])
    assert_type(at_revision(engine, "0042", script_location="migrations"), SchemaAppliedEvidence[Found])
    assert_type(migration_applied("billing", "0042_sales"), SchemaAppliedEvidence[Found])
    migration_applied("billing", "0042_sales", using="default", timeout=timedelta(seconds=5))
    migration_applied("billing", "0042_sales", using=lambda: ["default", "reports"])
