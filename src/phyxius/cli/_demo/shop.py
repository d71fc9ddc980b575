"""A shop that sells by quotes. Its table `quotes` becomes the table `sales_documents`, while it goes on selling.

    phase        reads                           writes
    expand       quotes                          quotes
    dual_write   quotes, compares with the new   both, in one transaction
    flip         sales_documents                 both, in one transaction
    contract     sales_documents                 sales_documents
    drop         sales_documents                 sales_documents, and quotes may go

`phyxius demo` runs this file. It is an application as you would write it, but for its clock: that one moves when the
demonstration says so, so that weeks pass at once. The tables, the queries and the processes are real.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from phyxius import (
    Evidence,
    HandlerEvent,
    Journal,
    JournalQuery,
    JournalWindow,
    create_controlled_clock,
    create_migration,
    define_migration,
    err,
    journal_window,
    no_events,
    observe,
    ok,
    ran_under,
    recorded,
    schema_applied,
    shadow,
    shadow_parity,
)
from phyxius.adapters.sqlite import open_file_stores

Phase = Literal["expand", "dual_write", "flip", "contract", "drop"]
Row = tuple[int, str, str]  # number, customer, total as "19.99"

HERE = Path(__file__).parent
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

# Yours has no `clock=` and no file that tells the time.
clock = create_controlled_clock(datetime.fromisoformat((HERE / "now").read_text(encoding="ascii")))
stores = open_file_stores(HERE / "migrations.db", clock=clock)
journal = Journal[HandlerEvent](clock=clock)


# -- the tables


def cents(total: str) -> int:
    """The total in cents, as the new table has it."""
    return int(float(total) * 100)


def sql(*statements: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Run statements in one transaction, and return the rows of the last."""
    with closing(sqlite3.connect(HERE / "shop.db", timeout=30, isolation_level="IMMEDIATE")) as database, database:
        database.create_function("cents", 1, cents)
        return [database.execute(statement, values).fetchall() for statement in statements][-1]


READ_OLD = "SELECT number, customer, total FROM quotes WHERE number = ?"
READ_NEW = "SELECT number, customer, printf('%d.%02d', cents / 100, cents % 100) FROM sales_documents WHERE number = ?"
WRITE_OLD = "INSERT OR REPLACE INTO quotes VALUES (?, ?, ?)"
WRITE_NEW = "INSERT OR REPLACE INTO sales_documents VALUES (?, ?, cents(?))"
COPY = """INSERT OR REPLACE INTO sales_documents
          SELECT number, customer, cents(total) FROM quotes WHERE number > ? AND number <= ?"""
NOT_COPIED = """SELECT count(*) - count(new.number), count(new.number)
                FROM quotes old LEFT JOIN sales_documents new USING (number)
                WHERE (old.customer, cents(old.total)) IS NOT (new.customer, new.cents)"""


# -- the migration: which evidence guards the way into which phase


@schema_applied
def table_there() -> Evidence[str]:
    """There is a table sales_documents."""
    there = sql("SELECT 1 FROM sqlite_schema WHERE name = 'sales_documents'")
    return ok("it is there") if there else err("there is no table sales_documents; create it")


@schema_applied
def copied() -> Evidence[str]:
    """Each quote is in sales_documents, as this build would write it."""
    [(missing, different)] = sql(NOT_COPIED)
    found = [(missing, "are not in sales_documents"), (different, "differ in sales_documents")]
    told = " and ".join(f"{count:,} quotes {what}" for count, what in found if count)
    return err(f"{told}; copy them") if told else ok("all are there")


def nobody_reads(window: JournalWindow) -> Evidence[str]:
    """Nobody reads quotes."""
    last = {str(event.observed["reader"]): f"{event.completed_at.wall:%b %d}" for event in window}
    readers = " and ".join(f"{reader} (last on {day})" for reader, day in last.items())
    return err(f"quotes was read by {readers}; see to it that nobody does") if readers else ok("nobody did")


spec = define_migration(
    name="quotes",
    phases={
        "expand": {},
        "dual_write": {"table_there": table_there},
        "flip": {
            "copied": copied,  # and since before the copy nobody has written to quotes alone:
            "both_written": journal_window(JournalQuery("quote.save", where=ran_under("expand")), DAY, no_events()),
            "reads_agree": shadow_parity("quote.read.parity", window=DAY, min_comparisons=1_000),
        },
        "contract": {
            "nobody_reads": journal_window("quote.read_old", 14 * DAY, nobody_reads),
            "copied": copied,
            "owner_agrees": stores.attestations.signed_off(),
        },
        "drop": {
            "nobody_writes": journal_window(
                JournalQuery("quote.save", where=ran_under("expand", "dual_write", "flip")), HOUR, no_events()
            ),
        },
    },
)
migration = create_migration(
    spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
)


# -- the handlers: what a request does in which phase


async def read_old(number: int, reader: str = "the shop") -> Row:
    """Read a quote from the old table."""
    with recorded(journal, "quote.read_old", {"reader": reader}):
        return _only(sql(READ_OLD, values=[number]))


async def read_new(number: int) -> Row:
    """Read a quote from the new table."""
    observe(number=number)
    return _only(sql(READ_NEW, values=[number]))


def _only(rows: list[tuple[Any, ...]]) -> Row:
    [(number, customer, total)] = rows
    return number, customer, total


async def write_old(row: Row) -> None:
    """Write a quote to the old table."""
    await _write(row, WRITE_OLD)


async def write_both(row: Row) -> None:
    """Write a quote to both tables."""
    await _write(row, WRITE_OLD, WRITE_NEW)


async def write_new(row: Row) -> None:
    """Write a quote to the new table."""
    await _write(row, WRITE_NEW)


async def _write(row: Row, *statements: str) -> None:
    await clock.sleep(timedelta(milliseconds=20))  # what a request does else; by now the phase may have changed
    sql(*statements, values=row)


both_read = shadow(journal, "quote.read.parity", old=read_old, new=read_new)  # answers as read_old does
read = migration.by_phase(
    {"expand": read_old, "dual_write": both_read, "flip": read_new, "contract": read_new, "drop": read_new}
)
save = migration.by_phase(
    {"expand": write_old, "dual_write": write_both, "flip": write_both, "contract": write_new, "drop": write_new},
    record_as="quote.save",
)
DURABLE = ["quote.save"]  # stored before they run, so that no crash can hide one
