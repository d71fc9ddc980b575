"""A Celery application whose tasks live through a migration."""

from __future__ import annotations

import os
from contextlib import ExitStack

from celery import Celery, Task
from celery.signals import worker_process_init, worker_process_shutdown

from phyxius import Journal, correlated, create_migration, define_migration
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
process = ExitStack()  # what lives as long as a worker's process


@worker_process_init.connect
def open_stores(**_: object) -> None:
    """Open the stores, and record: in each child, after the fork. If one fails neither is open, and no task runs."""
    with ExitStack() as both:
        both.enter_context(opened(stores))
        both.enter_context(opened(stores.recorder(journal, name=f"worker-{os.getpid()}", durable=["quote.save"])))
        process.push(both.pop_all())


@worker_process_shutdown.connect
def close_stores(**_: object) -> None:
    """Store the rest; a child ends by `os._exit()`, which would not."""
    process.close()


class CorrelatedTask(Task):
    """A task whose id is that of all that it records."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the task."""
        with correlated(self.request.id):
            return super().__call__(*args, **kwargs)


app = Celery("shop", broker=os.environ["BROKER"], task_cls=CorrelatedTask)


def write_old(number: int) -> str:
    """What `expand` does."""
    return f"quote {number} is in the old table"


def write_both(number: int) -> str:
    """What `dual_write` does; in a database it is one transaction."""
    return f"quote {number} is in both tables"


route = migration.by_phase({"expand": write_old, "dual_write": write_both}, record_as="quote.save")


@app.task
def save_quote(number: int) -> str:
    """Save a quote, as the phase wants it when the task runs."""
    return route(number)
