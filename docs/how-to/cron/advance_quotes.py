"""Take the next step of the migration, if it is safe; for cron."""

from __future__ import annotations

import argparse
import os
import sys

from phyxius import (
    CasLost,
    Err,
    EvidenceFailed,
    Journal,
    NotNext,
    Ok,
    create_migration,
    define_migration,
)
from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import SyncMigration, opened

stores = open_file_stores(os.environ["MIGRATIONS"])  # for a fleet open_stores(url); neither opens anything yet
journal = Journal(clock=stores.clock)
spec = define_migration(
    name="quote-to-sales-document", phases={"expand": {}, "dual_write": {"dba": stores.attestations.signed_off()}}
)
migration = SyncMigration(
    create_migration(spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec))
)


def main() -> int:
    """Press once, and say what came of it."""
    parser = argparse.ArgumentParser(description="Take the next step of the migration, if it is safe.")
    parser.add_argument("phase", choices=spec.order, help="the phase to reach")
    to = parser.parse_args().phase

    # It runs no handlers, so its recorder keeps the audit, and vouches for nothing.
    with opened(stores), opened(stores.recorder(journal, name="cron", audit_only=True)):
        if spec.order.index(migration.current_phase()) >= spec.order.index(to):
            return 0  # it is there already: nothing to tell
        match migration.advance(to=to):
            case Ok(advanced):
                print(f"{spec.name}: {advanced.from_phase} -> {advanced.to_phase}")
                return 0
            case Err(EvidenceFailed() | CasLost() | NotNext() as refusal):
                print(f"{spec.name}: {refusal.message}")
                return 75  # EX_TEMPFAIL: not yet, the next run asks again
            case Err(refusal):
                print(f"{spec.name}: {refusal.message}", file=sys.stderr)
                return 1  # somebody should look, as at what is raised


if __name__ == "__main__":
    sys.exit(main())
