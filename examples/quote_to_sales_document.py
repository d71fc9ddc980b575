"""One migration from end to end: the table `quotes` becomes `sales_documents`, in a real SQLite file.

    phase        reads                           writes
    expand       quotes                          quotes
    dual_write   quotes, compares with the new   both, in one transaction
    flip         sales_documents                 both, in one transaction
    contract     sales_documents                 sales_documents; a little later quotes is dropped

The shop keeps serving all the while. A second file holds the phases and the journal, and so what happened before a
restart still counts after it. Time is a controlled clock, so that weeks pass at once; everything else is real: the
tables, the queries that are the evidence, and every number that is printed. The exit code is 1 if the story goes
otherwise than it should, or if a single row is lost.
"""

import asyncio
import hashlib
import sqlite3
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from phyxius import (
    Err,
    Evidence,
    EvidenceFailed,
    HandlerEvent,
    Journal,
    JournalQuery,
    JournalWindow,
    Migration,
    MigrationSpec,
    Ok,
    create_controlled_clock,
    create_migration,
    define_migration,
    err,
    journal_window,
    no_events,
    ok,
    phase_reached,
    recorded,
    schema_applied,
    shadow,
    shadow_parity,
)
from phyxius.adapters.sqlite import FileStores, open_file_stores

Phase = Literal["expand", "dual_write", "flip", "contract"]
Row = tuple[int, str, str]  # number, customer, total as "19.99"
ToCents = Callable[[str], int]
Sql = Callable[..., list[tuple[Any, ...]]]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

FILL_OLD = """INSERT INTO quotes WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
              SELECT i, 'customer ' || i % 97, printf('%d.%02d', i * 37 % 500, i * 7 % 100) FROM n"""
READ_OLD = "SELECT number, customer, total FROM quotes WHERE number = ?"
READ_NEW = "SELECT number, customer, printf('%d.%02d', cents / 100, cents % 100) FROM sales_documents WHERE number = ?"
WRITE_OLD = "INSERT OR REPLACE INTO quotes VALUES (?, ?, ?)"
WRITE_NEW = "INSERT OR REPLACE INTO sales_documents VALUES (?, ?, cents(?))"
COPY = """INSERT OR REPLACE INTO sales_documents
          SELECT number, customer, cents(total) FROM quotes WHERE number BETWEEN ? AND ?"""
NOT_COPIED = "SELECT number, customer, cents(total) FROM quotes EXCEPT SELECT * FROM sales_documents"


def cents_by_float(total: str) -> int:
    return int(float(total) * 100)  # 19.99 becomes 1998: the bug that the comparison of reads will find


def cents_by_decimal(total: str) -> int:
    return int(Decimal(total) * 100)


# -- the migration: which evidence guards the way into which phase
def define(sql: Sql) -> MigrationSpec[Phase]:
    @schema_applied
    def schema_ready() -> Evidence[str]:
        found = sql("SELECT 1 FROM sqlite_schema WHERE name = 'sales_documents'")
        return ok("sales_documents is there") if found else err("there is no table sales_documents; create it")

    @schema_applied
    def copied() -> Evidence[str]:
        left = len(sql(NOT_COPIED))
        return err(f"{left} quotes are not in sales_documents; copy them") if left else ok("all quotes are there")

    def nobody_reads(window: JournalWindow) -> Evidence[dict[str, int]]:
        last = {str(event.observed["caller"]): f"{event.completed_at.wall:%b %d}" for event in window}
        readers = " and ".join(f"{caller} (last on {day})" for caller, day in last.items())
        return err(f"quotes was read by {readers}; see to it that nobody does") if readers else ok({"count": 0})

    return define_migration(
        name="quote-to-sales-document",
        phases={
            "expand": {},
            "dual_write": {"schema_ready": schema_ready},
            "flip": {
                "copied": copied,  # and since before the copy nobody has written to quotes alone:
                "copy_not_outrun": journal_window("quote.write_old_only", DAY, no_events()),
                "parity": shadow_parity("quote.read.parity", window=DAY, min_comparisons=1_000),
            },
            "contract": {
                "no_legacy_reads": journal_window("quote.read_old", 14 * DAY, nobody_reads),
                "no_legacy_writes": journal_window("quote.write_old_only", 14 * DAY, no_events()),
                "still_copied": copied,
            },
        },
    )


def define_drop(migration: Migration[Phase]) -> MigrationSpec[str]:
    """Requests that read `flip` just before `contract` still write to quotes; it may go when they have ended."""
    contracted = phase_reached(migration, "contract")
    mirror_silent = journal_window("quote.mirror", HOUR, no_events())
    return define_migration(
        name="drop-quotes", phases={"kept": {}, "dropped": {"contracted": contracted, "mirror_silent": mirror_silent}}
    )


# -- the application, one build in one process: what a request does in which phase
class Shop:
    def __init__(self, path: Path, to_cents: ToCents, journal: Journal[HandlerEvent], stores: FileStores) -> None:
        self.path, self.to_cents, self.journal = path, to_cents, journal
        journal.declare("quote.read_old", "quote.write_old_only", "quote.mirror")  # this build would record them
        self.migration = self.bind(define(self.sql), stores)
        self.drop = self.bind(define_drop(self.migration), stores)
        compared = shadow(journal, "quote.read.parity", old=self.read_old, new=self.read_new)  # answers as old does
        self.read = self.migration.by_phase(
            {"expand": self.read_old, "dual_write": compared, "flip": self.read_new, "contract": self.read_new}
        )
        old, both, new = self.write_old_only, self.write_both, self.write_new
        self.write = self.migration.by_phase({"expand": old, "dual_write": both, "flip": both, "contract": new})

    def bind(self, spec: MigrationSpec[Any], stores: FileStores) -> Migration[Any]:
        phases, events = stores.phase_store(spec), stores.journal_store
        return create_migration(spec, journal=self.journal, journal_store=events, phase_store=phases)

    async def read_old(self, number: int, caller: str = "the shop") -> Row:
        with recorded(self.journal, "quote.read_old", {"caller": caller}):
            return self.sql(READ_OLD, values=[number])[0]

    async def read_new(self, number: int) -> Row:
        return self.sql(READ_NEW, values=[number])[0]

    async def write_old_only(self, row: Row) -> None:
        with recorded(self.journal, "quote.write_old_only"):
            await self.store(row, WRITE_OLD)

    async def write_both(self, row: Row) -> None:
        with recorded(self.journal, "quote.mirror"):
            await self.store(row, WRITE_OLD, WRITE_NEW)

    async def write_new(self, row: Row) -> None:
        await self.store(row, WRITE_NEW)

    async def store(self, row: Row, *statements: str) -> None:
        await self.journal.clock.sleep(timedelta(milliseconds=20))  # the phase, read before, can change by now
        self.sql(*statements, values=row)

    def sql(self, *statements: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run statements in one transaction, and return the rows of the last."""
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute("PRAGMA synchronous = OFF")  # an example need not survive a power cut
            database.create_function("cents", 1, self.to_cents)
            return [database.execute(statement, values).fetchall() for statement in statements][-1]


# -- the story: traffic, calls of advance(), and a ledger of what the shop has accepted
class Story:
    def __init__(self, directory: Path) -> None:
        self.path, self.clock = directory / "shop.db", create_controlled_clock(datetime(2026, 1, 1, tzinfo=UTC))
        self.stores = open_file_stores(directory / "migrations.db", clock=self.clock)
        self.process = AsyncExitStack()  # what ends with the shop's process
        self.ledger: dict[int, Row] = {}

    async def start(self, to_cents: ToCents) -> None:
        """Start the shop's process; one that runs ends, and says so in the file."""
        await self.process.aclose()
        journal = Journal[HandlerEvent](clock=self.clock)
        await self.process.enter_async_context(self.stores.recorder(journal, name=f"shop, {to_cents.__name__}"))
        self.shop = Shop(self.path, to_cents, journal, self.stores)

    def tell(self, text: str, *details: str) -> None:
        print(f"{self.clock.now().wall:%b %d %H:%M}  {text}")
        for detail in details:
            print(textwrap.indent(textwrap.fill(detail, 86, subsequent_indent="    "), " " * 14))

    def copy(self, last: int) -> None:
        self.shop.sql(COPY, values=[1, last])  # one statement, so that it never writes what is stale
        [(count,)] = self.shop.sql("SELECT count(*) FROM sales_documents")
        self.tell(f"backfill of numbers 1 to {last}: {count} rows are in sales_documents")

    def check(self, row: Row) -> None:
        if row != self.ledger[row[0]]:
            sys.exit(f"read {row}, but the shop had accepted {self.ledger[row[0]]}")

    @asynccontextmanager
    async def requests(self, count: int) -> AsyncIterator[None]:
        """Save new quotes and reprice as many old ones, in requests that begin before the body and end after it."""
        size = len(self.ledger)
        rows = [(size + n, "a new customer", f"{n}.99") for n in range(1, count + 1)]
        rows += [((7 * size + 13 * n) % 2000 + 1, "an old customer", f"{n}.49") for n in range(1, count + 1)]
        saved = [asyncio.create_task(self.shop.write(row)) for row in rows]
        await asyncio.sleep(0)  # each reads the phase
        yield
        await self.clock.elapse(timedelta(seconds=1))
        await asyncio.gather(*saved)
        self.ledger |= {row[0]: row for row in rows}

    async def traffic(self, reads: int) -> None:
        async with self.requests(10):
            pass
        for number in range(1, reads + 1):
            self.check(await self.shop.read(number))
        await self.clock.elapse(timedelta(seconds=1))  # lets the comparisons end

    async def press(self, to: str, *blockers: str) -> None:
        """Call advance() amid requests that have just read the phase; exit unless `blockers` refuse it."""
        migration: Migration[Any] = self.shop.drop if to == "dropped" else self.shop.migration
        async with self.requests(2):
            result = await migration.advance(to)
        match result:
            case Ok(advanced) if not blockers:
                self.tell(f"ADVANCED to {to}", *(f"{name}: {said}" for name, said in advanced.evidence.items()))
            case Err(EvidenceFailed(_, failures)) if tuple(failures) == blockers:
                self.tell(f"REFUSED {to}", *(f"{name}: {failure.reason}" for name, failure in failures.items()))
            case unexpected:
                sys.exit(f"{to} should have been refused by {blockers}, but it came to {unexpected}")

    async def run(self) -> None:
        async with self.stores:
            await self.start(cents_by_float)
            await self.migrate()
            await self.prove()
            await self.process.aclose()

    async def migrate(self) -> None:
        self.shop.sql("CREATE TABLE quotes (number INTEGER PRIMARY KEY, customer TEXT, total TEXT)", FILL_OLD)
        self.ledger = {row[0]: row for row in self.shop.sql("SELECT * FROM quotes")}
        self.tell(f"{len(self.ledger)} rows in quotes; the shop runs, and its new code has {cents_by_float.__name__}")
        await self.traffic(reads=100)
        await self.press("dual_write", "schema_ready")
        self.shop.sql("CREATE TABLE sales_documents (number INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
        self.tell("created the table sales_documents")
        await self.press("dual_write")

        self.copy(1000)
        await self.press("flip", "copied", "copy_not_outrun", "parity")
        self.copy(len(self.ledger))
        await self.clock.elapse(DAY)
        await self.traffic(reads=1200)
        await self.press("flip", "parity")
        await self.start(cents_by_decimal)
        self.tell("restarted with cents_by_decimal; the file still knows what happened before")
        await self.clock.elapse(HOUR)
        self.copy(len(self.ledger))
        await self.clock.elapse(DAY - HOUR)
        await self.traffic(reads=1200)
        await self.press("flip")

        for _ in range(12):
            await self.clock.elapse(DAY)
            await self.traffic(reads=20)
            self.check(await self.shop.read_old(len(self.ledger), caller="the nightly report"))
        await self.clock.elapse(12 * HOUR)
        await self.press("contract", "no_legacy_reads")
        self.tell("the nightly report is retired")
        await self.clock.elapse(14 * DAY)
        await self.press("contract")

        await self.press("dropped", "mirror_silent")
        await self.clock.elapse(HOUR)
        await self.press("dropped")
        self.shop.sql("DROP TABLE quotes")
        self.tell("dropped the table quotes")
        await self.traffic(reads=2000)

    async def prove(self) -> None:
        """Print the audit trail, and compare what the shop has accepted with what the new table holds."""
        print("\nThe audit trail, from the file:")
        queries = [JournalQuery(f"migration.{each.name}.advance") for each in (self.shop.migration, self.shop.drop)]
        trails = [await self.stores.journal_store.query(query, 60 * DAY) for query in queries]
        for event in (event for trail in trails for event in trail):
            step = f"{event.observed['from']} -> {event.observed['attempted']}"
            print(f"  {event.completed_at.wall:%b %d %H:%M}  {step:<20}  {event.outcome}")
        accepted = [(n, customer, cents_by_decimal(total)) for n, customer, total in sorted(self.ledger.values())]
        stored = self.shop.sql("SELECT * FROM sales_documents ORDER BY number")
        print("\nNo row lost:")
        for what, rows in (("accepted by the shop", accepted), ("in sales_documents", stored)):
            print(f"  {what:<20}  {len(rows)} rows, sha256 {hashlib.sha256(repr(rows).encode()).hexdigest()[:32]}")
        if stored != accepted:
            sys.exit(f"rows differ: {sorted(set(accepted) ^ set(stored))[:10]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(Story(Path(directory)).run())
