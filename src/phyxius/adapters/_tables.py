"""The tables that recorders write to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Hashable, Iterable

import attrs

from phyxius.adapters._database import Connection, Database, Values
from phyxius.adapters._inbox import Receipt
from phyxius.adapters._ledger import Batch, NewGap
from phyxius.adapters._moment import Moment, look
from phyxius.adapters._records import CALL_COLUMNS, EVENT_COLUMNS, CallRow, EventRow
from phyxius.clock import uninterrupted

_GONE = "this recorder's row is gone, or what this connection sees are the tables of other stores; restart it"


def _insert(table: str, columns: str) -> str:
    values = ", ".join(f":{column}" for column in columns.split(", "))
    return f"INSERT INTO {{{table}}} ({columns}) VALUES ({values})"  # noqa: S608 - our own names


_INSERT_EVENT = _insert("events", f"recorder, {EVENT_COLUMNS}")
_INSERT_START = _insert("starts", f"recorder, call_id, {CALL_COLUMNS}") + " {or_nothing:call_id}"


@attrs.define(eq=False)
class _Start:
    recorder: int
    key: str
    call: CallRow
    begun: bool = False
    written: bool = False
    error: Exception | None = None


class _Starts:
    """The starts of calls that wait to be written, in one transaction for as many as there are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[int, _Start] = {}

    def add(self, start: _Start) -> None:
        self._waiting[id(start)] = start

    def remove(self, start: _Start) -> None:
        self._waiting.pop(id(start), None)

    def take(self) -> list[_Start]:
        return [start for start in list(self._waiting.values()) if not start.written and start.error is None]

    def write(self, items: list[_Start], connection: Connection, /) -> None:
        items = [start for start in items if id(start) in self._waiting]  # some may have left while it was begun
        for start in items:
            start.begun = True
        for recorder in {start.recorder for start in items}:
            starts = [start for start in items if start.recorder == recorder]
            row = connection.execute(
                "SELECT ended_ns, {now} FROM {recorders} WHERE id = :id AND {ours}",
                {"id": recorder, "now": self._database.clock.now().wall_ns, "store": self._database.name},
            ).fetchone()
            if row is None:
                self.failed(starts, self._database.error("failed", _GONE))  # others may be well
                continue
            # A recorder lives as long as its calls begin, also when it was held up for longer than its lease; by what
            # the database says, for a host that was suspended does not know how long it was away.
            ended_ns, now_ns = row
            alive_ns = max(now_ns, *(start.call.started_ns for start in starts))
            calls = [(start.key, start.call) for start in starts]
            if ended_ns < alive_ns and not _revive(connection, recorder, alive_ns):
                # Then they begin now, as they do, and so they are found whatever is said of their recorder.
                calls = [(key, attrs.evolve(call, started_ns=alive_ns)) for key, call in calls]
            _insert_starts(connection, recorder, calls)

    def written(self, items: list[_Start]) -> None:
        for start in items:
            start.written = start.error is None  # that of a recorder that is gone was left out

    def failed(self, items: list[_Start], error: Exception) -> None:
        for start in items:
            start.error = error


class SqlRecorderTables:
    """What a `Recorder` writes, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Apart, for they may be written by two connections: what both wrote might come back after it was deleted.
        self._starts = _Starts(database)
        self._blocking_starts = _Starts(database)

    @property
    def key(self) -> Hashable:
        """Names the database."""
        return self._database.identity

    async def create(
        self, name: str, audit_only: bool, started_ns: int, batch: Batch, instead_of: Collection[int] = ()
    ) -> int:
        """Make the recorder's row, and store its first batch with it."""
        pid = os.getpid()

        def write(connection: Connection) -> int:
            for began_ns in instead_of:
                _unmake(connection, {"name": name, "pid": pid, "started": began_ns})
            id_ = connection.insert(
                "INSERT INTO {recorders} (name, pid, audit_only, started_ns, stored_ns, ended_ns)"
                " VALUES (:name, :pid, :audit_only, :started, :started, :ended)",
                {
                    "name": name,
                    "pid": pid,
                    "audit_only": int(audit_only),
                    "started": started_ns,
                    "ended": batch.ended_ns,
                },
            )
            _store(connection, id_, batch, self._database.name)
            return id_

        return await self._database.write(write)

    async def has(self, receipt: Receipt) -> bool:
        """Whether the database still knows what it gave this receipt for; an older copy of it does not."""

        def read(connection: Connection) -> bool:
            row = connection.execute(
                "SELECT pid, started_ns, batch FROM {recorders} WHERE id = :id", {"id": receipt.recorder}
            ).fetchone()
            if row is not None:
                pid, started_ns, batch = row
                return (pid, started_ns) == (os.getpid(), receipt.began_ns) and batch >= receipt.batch
            # Or it was pruned. A copy that is older than the row has none that is newer.
            pruned = connection.execute(
                "SELECT 1 FROM {journal}, {recorders} WHERE covered_since_ns > :ended AND id > :id",
                {"ended": receipt.ended_ns, "id": receipt.recorder},
            )
            return pruned.fetchone() is not None

        return await self._database.read(read)

    async def store(self, recorder: int, batch: Batch) -> None:
        """Store a batch, unless that number was stored already."""

        def write(connection: Connection) -> None:
            name = self._database.name
            if not _store(connection, recorder, batch, name) and not _is_known(connection, recorder, name):
                raise self._database.error("failed", _GONE)

        await self._database.write(write)

    @property
    def poll_seconds(self) -> float:
        """How often a recorder looks whether somebody waits for it."""
        return self._database.poll_seconds

    async def look(self) -> tuple[int, Moment]:
        """The last request to the recorders to catch up, and what the clock shows that stamps the rows."""

        def read(connection: Connection) -> tuple[int, Moment]:
            looked, rows = look(self._database, connection, "SELECT {shown}, request FROM {journal}")
            return int(rows[0][1]), looked

        return await self._database.read(read)

    async def keep(self, recorder: int, key: str, call: CallRow) -> None:
        """Store the start of a call, together with others that begin just then."""
        start = _Start(recorder, key, call)
        self._starts.add(start)
        try:
            await self._database.write_together(self._starts)
            _check_written(start)
        except asyncio.CancelledError:
            if start.begun:  # its end would miss it if it were told before the start is there, or is not
                await uninterrupted(self._database.write_together(self._starts))
            raise
        finally:
            self._starts.remove(start)

    def keep_blocking(self, recorder: int, key: str, call: CallRow) -> None:
        """The same for code that cannot await."""
        start = _Start(recorder, key, call)
        self._blocking_starts.add(start)
        try:
            self._database.write_together_blocking(self._blocking_starts)
            _check_written(start)
        except KeyboardInterrupt:
            if start.begun:
                self._database.write_together_blocking(self._blocking_starts)
            raise
        finally:
            self._blocking_starts.remove(start)


def _check_written(start: _Start) -> None:
    if start.error is not None:
        raise start.error


def _unmake(connection: Connection, values: Values) -> None:
    """Delete the row of a recorder that did not learn of it, and so never recorded."""
    rows = connection.execute(
        "SELECT id FROM {recorders} WHERE name = :name AND pid = :pid AND started_ns = :started AND batch = 1", values
    ).fetchall()
    for sql in ("DELETE FROM {declarations} WHERE recorder = :id", "DELETE FROM {recorders} WHERE id = :id"):
        connection.execute_many(sql, [{"id": id_} for (id_,) in rows])


def _store(connection: Connection, recorder: int, batch: Batch, store: str | None) -> bool:
    """Store a batch; False if its number was stored already, or there is no such recorder."""
    updated = connection.execute(
        "UPDATE {recorders} SET batch = :batch, ended_ns = :ended_ns, stored_ns = coalesce(:stored_ns, stored_ns),"
        " answered = coalesce(:answered, answered), audit_only = coalesce(:audit_only, audit_only), closed = :closed"
        " WHERE id = :id AND batch < :batch AND closed = 0 AND {ours}",
        {
            "id": recorder,
            "batch": batch.number,
            "ended_ns": batch.ended_ns,
            "stored_ns": batch.stored_ns,
            "answered": batch.answered,
            "audit_only": None if batch.audit_only is None else int(batch.audit_only),
            "closed": int(batch.closed),
            "store": store,
        },
    )
    if not updated.rowcount:
        return False
    connection.execute_many(_INSERT_EVENT, [_values(event, recorder) for event in batch.events])
    # A call that another recorder of its journal knew of is this one's from here on, and counts once.
    _delete_starts(connection, recorder, batch, [key for key, _ in batch.started])
    _insert_starts(connection, recorder, batch.started)
    _delete_starts(connection, recorder, batch, batch.ended)
    declared = [
        {"recorder": recorder, "name": name, "durable": int(durable)} for name, durable in batch.declared.items()
    ]
    connection.execute_many("DELETE FROM {declarations} WHERE recorder = :recorder AND name = :name", declared)
    connection.execute_many(
        "INSERT INTO {declarations} (recorder, name, durable) VALUES (:recorder, :name, :durable)", declared
    )
    connection.execute_many(
        "INSERT INTO {gaps} (recorder, since_ns, until_ns, kind, reason)"
        " VALUES (:recorder, :since_ns, :until_ns, :kind, :reason)",
        [_values(gap, recorder) for gap in batch.gaps],
    )
    return True


def _revive(connection: Connection, recorder: int, alive_ns: int) -> bool:
    """Say that a recorder lives; False if its own batch is just being stored, on an event loop that may wait for us."""
    values = {"id": recorder, "alive": alive_ns}
    if connection.execute("SELECT id FROM {recorders} WHERE id = :id{unless_locked}", values).fetchone() is None:
        return False
    connection.execute("UPDATE {recorders} SET ended_ns = :alive WHERE id = :id AND ended_ns < :alive", values)
    return True


def _is_known(connection: Connection, recorder: int, store: str | None) -> bool:
    sql = "SELECT 1 FROM {recorders} WHERE id = :id AND {ours}"
    return connection.execute(sql, {"id": recorder, "store": store}).fetchone() is not None


def _delete_starts(connection: Connection, recorder: int, batch: Batch, keys: Iterable[str]) -> None:
    """Let go of the starts of calls; not of those of other journals, where a call may have the same id."""
    recorders = ", ".join(map(str, sorted({recorder, *batch.siblings})))
    sql = f"DELETE FROM {{starts}} WHERE call_id = :call_id AND recorder IN ({recorders})"  # noqa: S608 - whole numbers
    connection.execute_many(sql, [{"call_id": key} for key in keys])


def _insert_starts(connection: Connection, recorder: int, starts: Iterable[tuple[str, CallRow]]) -> None:
    connection.execute_many(_INSERT_START, [{"call_id": key, **_values(call, recorder)} for key, call in starts])


def _values(row: EventRow | CallRow | NewGap, recorder: int) -> dict[str, object]:
    return {"recorder": recorder, **attrs.asdict(row, recurse=False)}
