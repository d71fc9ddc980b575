from contextlib import closing
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Exists, OuterRef

from billing.models import Quote, SalesDocument
from phyxius import (
    Journal,
    JournalQuery,
    create_migration,
    define_migration,
    err,
    journal_window,
    no_events,
    ok,
    ran_under,
    schema_applied,
)
from phyxius.adapters.django import migration_applied
from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import SyncMigration


def different_quotes():
    same = SalesDocument.objects.filter(number=OuterRef("number"), customer=OuterRef("customer"))
    return Quote.objects.exclude(Exists(same))


@schema_applied
def copied():
    with closing(connection):  # the check has a thread of its own, and nobody else closes the connection of that
        different, quotes = different_quotes().count(), Quote.objects.count()
    if different:
        return err(f"{different} of {quotes} quotes have no sales document, or another one; run copy_quotes")
    return ok({"quotes": quotes})


spec = define_migration(
    name="quote-to-sales-document",
    phases={
        "expand": {},
        "dual_write": {"schema": migration_applied("billing", "0002_sales_documents")},
        "flip": {
            "copied": copied,
            # The starts of writes are stored, so that one which still runs is known, and a moment without any will do.
            "nobody_writes_old_only": journal_window(
                JournalQuery("quote.write", where=ran_under("expand")), timedelta(milliseconds=100), no_events()
            ),
        },
        "contract": {"no_legacy_reads": journal_window("quote.read_old", timedelta(days=14), no_events())},
    },
)
stores = open_file_stores(settings.PHASES_FILE)  # opens nothing yet
journal = Journal(clock=stores.clock, max_entries=10_000, overflow="drop_oldest")
migration = SyncMigration(
    create_migration(spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec))
)
