"""The migration as a value: the column customers.name becomes customers.full_name."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from phyxius import (
    Journal,
    JournalQuery,
    MigrationSpec,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    ran_under,
    shadow_parity,
)
from phyxius.adapters.alembic import at_revision
from phyxius.adapters.sqlalchemy import no_rows, open_stores

# SHOP_DAY=1 makes a day last a second, to try it out. In production leave it alone.
DAY = timedelta(seconds=float(os.environ.get("SHOP_DAY", "86400")))
SCRIPTS = Path(__file__).parent / "migrations"

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=10)
customers = sa.Table(
    "customers",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text),  # to go
    sa.Column("full_name", sa.Text),  # to come
)
unequal = sa.select(customers.c.id).where(customers.c.full_name.is_distinct_from(customers.c.name))

stores = open_stores(engine)  # opens nothing yet
journal: Journal[Any] = Journal(clock=stores.clock, max_entries=10_000, overflow="drop_oldest")

Phase = Literal["expand", "dual_write", "flip", "contract", "drop"]

spec: MigrationSpec[Phase] = define_migration(
    name="customer-full-name",
    phases={
        "expand": {},
        "dual_write": {
            "column_added": at_revision(engine, "0003", script_location=SCRIPTS),
        },
        "flip": {
            "nobody_writes_name_only": journal_window(
                JournalQuery("customer.write", where=ran_under("expand")), DAY, no_events()
            ),
            "backfilled": no_rows(engine, unequal),
            # a day of production has a thousand comparisons, and more; one that lasts a second has ten
            "reads_agree": shadow_parity("customer.read.parity", window=DAY, min_comparisons=10),
        },
        "contract": {
            "name_optional": at_revision(engine, "0004", script_location=SCRIPTS),
            "nobody_reads_name": journal_window("customer.read_name", 14 * DAY, no_events()),
            "still_equal": no_rows(engine, unequal),
        },
        "drop": {
            "nobody_writes_name": journal_window(
                JournalQuery("customer.write", where=ran_under("expand", "dual_write", "flip")), DAY, no_events()
            ),
            "signed": stores.attestations.signed_off(),
        },
    },
)
migration = create_migration(
    spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
)
