"""Opening what migrations are bound to, for a tool that has nothing but them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters import attestations_of, opened_stores
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlite import FileStoreError, open_file_stores
from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, ok
from phyxius.journal import Journal
from phyxius.migration import (
    AttestationEvidence,
    Migration,
    attestation,
    create_migration,
    define_migration,
    demand_of,
    journal_window,
    no_events,
)
from phyxius.testing import record_events
from tests.places import Place

DAY = timedelta(days=1)


def migration_over(stores: SqlStores, name: str = "quotes", **evidence: Any) -> Migration[str]:
    """A migration whose second phase is guarded by a window, and by more."""
    bag = {"silent": journal_window("old.read", DAY, no_events()), **evidence}
    spec = define_migration(name=name, phases={"expand": {}, "flip": bag})
    journal: Journal[Any] = Journal(clock=stores.clock)
    return create_migration(
        spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
    )


async def test_it_opens_records_the_audit_and_closes(place: Place) -> None:
    """All parts are open inside, one's own calls of `advance()` are stored, no gap is left, and all is closed after."""
    stores = place.stores()
    first, second = migration_over(stores), migration_over(stores, "orders")
    async with opened_stores(first, second, name="phyxius, ada", create=True):
        assert await first.current_phase() == "expand"
        refused = await first.advance("flip")
        assert isinstance(refused, Err)
        assert refused.error.type == "EVIDENCE_FAILED"  # the store is young, and nobody witnesses: it could be asked
        assert (await second.readiness()).phase == "expand"
    with pytest.raises(place.error, match="not open"):
        await first.current_phase()
    assert place.rows("SELECT name, audit_only, closed FROM recorders") == [("phyxius, ada", 1, 1)] * 2
    assert place.rows("SELECT name, outcome FROM events") == [("migration.quotes.advance", "failure")]


async def test_what_is_open_stays_as_it_is(place: Place) -> None:
    """Stores and a recorder that somebody has opened are used, and are left open."""
    async with place.stores() as stores:
        migration = migration_over(stores)
        async with stores.recorder(migration.journal, name="api"):
            async with opened_stores(migration, name="phyxius"):
                assert await migration.current_phase() == "expand"
            record_events(migration.journal, "old.read")
            assert await migration.current_phase() == "expand"
        assert place.rows("SELECT name FROM recorders") == [("api",)]


async def test_stores_that_are_open_without_a_recorder_get_one(place: Place) -> None:
    """The audit of a tool would end with it, else."""
    async with place.stores() as stores:
        migration = migration_over(stores)
        async with opened_stores(migration, name="phyxius"):
            await migration.advance()
        assert place.rows("SELECT name, audit_only, closed FROM recorders") == [("phyxius", 1, 1)]
        assert await migration.current_phase() == "expand"


async def test_no_file_is_made_by_mistake(tmp_path: Path) -> None:
    """A path that is wrong is no new migration, unless that is meant."""
    stores = open_file_stores(tmp_path / "elsewhere.db", clock=create_controlled_clock())
    migration = migration_over(stores)
    with pytest.raises(FileStoreError, match="not there"):
        async with opened_stores(migration, name="phyxius"):
            raise AssertionError
    assert not (tmp_path / "elsewhere.db").exists()
    async with opened_stores(migration, name="phyxius", create=True):
        assert await migration.current_phase() == "expand"


async def test_stores_in_memory_need_nothing() -> None:
    """What is not of the adapters is taken as it is."""
    clock = create_controlled_clock()
    journal: Journal[Any] = Journal(clock=clock)
    migration = create_migration(define_migration(name="a", phases={"x": {}, "y": {}}), journal=journal)
    async with opened_stores(migration, name="phyxius"):
        assert isinstance(await migration.advance(), Ok)
    assert len(journal) == 1


async def test_it_opens_all_that_a_migration_needs(tmp_path: Path) -> None:
    """Phases, journal and signatures may be in three files; each is opened, and closed if another is not there."""
    clock = create_controlled_clock()
    phases, events, signatures = (open_file_stores(tmp_path / f"{each}.db", clock=clock) for each in "abc")
    bag = {"silent": journal_window("x", DAY, no_events()), "dba": signatures.attestations.signed_off()}
    spec = define_migration(name="a", phases={"expand": {"first": signatures.attestations.signed_off(2)}, "flip": bag})
    journal: Journal[Any] = Journal(clock=clock)
    migration = create_migration(
        spec, journal=journal, journal_store=events.journal_store, phase_store=phases.phase_store(spec)
    )
    assert attestations_of(migration) == {
        ("flip", "dba"): signatures.attestations,
        ("flip", "first"): signatures.attestations,
    }
    for _ in range(2):
        async with opened_stores(migration, name="phyxius", create=True):
            refused = await migration.advance()
            assert isinstance(refused, Err)
            assert refused.error.type == "EVIDENCE_FAILED"  # each source could be asked
    (tmp_path / "c.db").unlink()
    with pytest.raises(FileStoreError, match="not there"):
        async with opened_stores(migration, name="phyxius"):
            raise AssertionError
    assert not phases._database.is_open


def test_signatures_of_others_are_none_of_ours() -> None:
    """A check of one's own looks signatures up wherever that is."""
    spec = define_migration(name="a", phases={"x": {}, "y": {"signed": attestation(ok)}})
    migration = create_migration(spec, journal=Journal(clock=create_controlled_clock()))
    assert attestations_of(migration) == {}


def test_what_signatures_are_demanded(tmp_path: Path) -> None:
    """Quorum, signers and age are told."""
    signed_off = open_file_stores(tmp_path / "a.db").attestations.signed_off

    def told(evidence: AttestationEvidence[Any]) -> str:
        return demand_of(evidence)

    assert told(signed_off()) == "a signature by 1 person"
    assert told(signed_off(2, ["bob", "ada"], DAY)) == "signatures by 2 people of ada, bob, no older than 1 day"
