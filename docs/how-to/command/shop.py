"""A shop whose quotes move to another table."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from phyxius import (
    Evidence,
    Journal,
    create_migration,
    define_migration,
    err,
    journal_window,
    no_events,
    ok,
    schema_applied,
)
from phyxius.adapters.sqlite import open_file_stores

HERE = Path(__file__).parent
stores = open_file_stores(HERE / "migrations.db")  # opens nothing yet
journal = Journal(clock=stores.clock)


@schema_applied
def copied() -> Evidence[str]:
    """Each quote is in the new table."""
    if not (HERE / "copied").exists():  # stands for a query
        return err("3 quotes are not copied; run the backfill")
    return ok("all are copied")


spec = define_migration(
    name="quotes",
    phases={
        "expand": {},
        "flip": {"copied": copied, "dba": stores.attestations.signed_off()},
        "contract": {"silent": journal_window("quote.read_old", timedelta(days=14), no_events())},
    },
)
migration = create_migration(
    spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
)
