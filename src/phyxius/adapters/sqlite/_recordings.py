"""The tables that recorders write to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Hashable, Iterable

import attrs

from phyxius.adapters._inbox import Receipt
from phyxius.adapters._ledger import Batch
from phyxius.adapters._records import CALL_COLUMNS, EVENT_COLUMNS, CallRow
from phyxius.adapters.sqlite._database import Database
from phyxius.adapters.sqlite._errors import FileStoreError


@attrs.define(eq=False)
class _Start:
    recorder: int
    key: str
    call: CallRow
    written: bool = False
    error: Exception | None = None


class _Starts:
    """The starts of calls that wait to be written, in one transaction for as many as there are."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: dict[int, _Start] = {}

    def add(self, start: _Start) -> None:
        self._waiting[id(start)] = start

    def remove(self, start: _Start) -> None:
        self._waiting.pop(id(start), None)

    def take(self) -> list[_Start]:
        return [start for start in list(self._waiting.values()) if not start.written and start.error is None]

    def write(self, items: list[_Start], connection: sqlite3.Connection, /) -> None:
        for recorder in {start.recorder for start in items}:
            starts = [start for start in items if start.recorder == recorder]
            try:
                _check_known(connection, recorder, self._path)
            except FileStoreError as error:
                self.failed(starts, error)  # others may be well
                continue
            _insert_starts(connection, recorder, [(start.key, start.call) for start in starts])
            # A recorder lives as long as its calls begin, also when it was held up for longer than its lease.
            connection.execute(
                "UPDATE recorders SET ended_ns = max(ended_ns, ?) WHERE id = ?",
                [max(start.call.started_ns for start in starts), recorder],
            )

    def written(self, items: list[_Start]) -> None:
        for start in items:
            start.written = True

    def failed(self, items: list[_Start], error: Exception) -> None:
        for start in items:
            start.error = error


class FileRecorderTables:
    """What a `Recorder` writes, in a file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._starts = _Starts(database.path)

    @property
    def key(self) -> Hashable:
        """Names the file."""
        return self._database.identity

    async def create(self, name: str, audit_only: bool, started_ns: int, batch: Batch) -> int:
        """Make the recorder's row, and store its first batch with it."""

        def write(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "INSERT INTO recorders (name, pid, audit_only, started_ns, stored_ns, ended_ns)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [name, os.getpid(), audit_only, started_ns, started_ns, batch.ended_ns],
            )
            assert row.lastrowid is not None
            _store(connection, row.lastrowid, batch)
            return row.lastrowid

        return await self._database.write(write)

    async def has(self, receipt: Receipt) -> bool:
        """Whether the file still knows what it gave this receipt for; an older copy of it does not."""

        def read(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "SELECT pid, started_ns, batch FROM recorders WHERE id = ?", [receipt.recorder]
            ).fetchone()
            if row is not None:
                pid, started_ns, batch = row
                return (pid, started_ns) == (os.getpid(), receipt.began_ns) and batch >= receipt.batch
            # Or it was pruned. A copy that is older than the row has none that is newer.
            pruned = "SELECT 1 FROM journal, recorders WHERE covered_since_ns > ? AND id > ?"
            return connection.execute(pruned, [receipt.ended_ns, receipt.recorder]).fetchone() is not None

        return await self._database.read(read)

    async def store(self, recorder: int, batch: Batch) -> None:
        """Store a batch, unless that number was stored already."""

        def write(connection: sqlite3.Connection) -> None:
            if not _store(connection, recorder, batch):
                _check_known(connection, recorder, self._database.path)

        await self._database.write(write)

    async def request(self) -> int:
        """The last request to the recorders to catch up."""

        def read(connection: sqlite3.Connection) -> int:
            (request,) = connection.execute("SELECT request FROM journal").fetchone()
            return int(request)

        return await self._database.read(read)

    async def keep(self, recorder: int, key: str, call: CallRow) -> None:
        """Store the start of a call, together with others that begin just then."""
        start = _Start(recorder, key, call)
        self._starts.add(start)
        try:
            await self._database.write_together(self._starts)
            _check_written(start)
        finally:
            self._starts.remove(start)

    def keep_blocking(self, recorder: int, key: str, call: CallRow) -> None:
        """The same for code that cannot await."""
        start = _Start(recorder, key, call)
        self._starts.add(start)
        try:
            self._database.write_together_blocking(self._starts)
            _check_written(start)
        finally:
            self._starts.remove(start)


def _check_written(start: _Start) -> None:
    if start.error is not None:
        raise start.error


def _store(connection: sqlite3.Connection, recorder: int, batch: Batch) -> bool:
    """Store a batch; False if its number was stored already, or there is no such recorder."""
    values = {
        "batch": batch.number,
        "ended_ns": batch.ended_ns,
        "stored_ns": batch.stored_ns,
        "answered": batch.answered,
        "audit_only": batch.audit_only,
        "closed": batch.closed,
        "id": recorder,
    }
    updated = connection.execute(
        "UPDATE recorders SET batch = :batch, ended_ns = :ended_ns, stored_ns = coalesce(:stored_ns, stored_ns),"
        " answered = coalesce(:answered, answered), audit_only = coalesce(:audit_only, audit_only), closed = :closed"
        " WHERE id = :id AND batch < :batch AND closed = 0",
        values,
    )
    if not updated.rowcount:
        return False
    connection.executemany(
        f"INSERT INTO events (recorder, {EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        [(recorder, *attrs.astuple(event)) for event in batch.events],
    )
    # A call that another recorder of its journal knew of is this one's from here on, and counts once.
    connection.executemany("DELETE FROM starts WHERE call = ?", [(key,) for key, _ in batch.started])
    _insert_starts(connection, recorder, batch.started)
    connection.executemany("DELETE FROM starts WHERE call = ?", [(key,) for key in batch.ended])
    connection.executemany(
        "INSERT INTO declarations (recorder, name, durable) VALUES (?, ?, ?)"
        " ON CONFLICT (recorder, name) DO UPDATE SET durable = excluded.durable",
        [(recorder, name, durable) for name, durable in batch.declared.items()],
    )
    connection.executemany(
        "INSERT INTO gaps (recorder, since_ns, until_ns, kind, reason) VALUES (?, ?, ?, ?, ?)",
        [(recorder, gap.since_ns, gap.until_ns, gap.kind, gap.reason) for gap in batch.gaps],
    )
    return True


def _check_known(connection: sqlite3.Connection, recorder: int, path: str) -> None:
    if connection.execute("SELECT 1 FROM recorders WHERE id = ?", [recorder]).fetchone() is None:
        raise FileStoreError(path, "failed", "this recorder's row is gone; restart it")


def _insert_starts(connection: sqlite3.Connection, recorder: int, starts: Iterable[tuple[str, CallRow]]) -> None:
    connection.executemany(
        f"INSERT INTO starts (recorder, call, {CALL_COLUMNS})"  # noqa: S608 - our own names
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [(recorder, key, *attrs.astuple(call)) for key, call in starts],
    )
