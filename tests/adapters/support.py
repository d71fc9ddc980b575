"""Stores for recorders: one in memory that fails on cue, and all others, seen through one pair of glasses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import attrs

from phyxius.adapters._inbox import Receipt
from phyxius.adapters._ledger import Batch, NewGap
from phyxius.adapters._moment import Moment
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._records import CallRow
from phyxius.adapters._stores import SqlStores
from phyxius.clock import Clock, create_controlled_clock
from phyxius.journal import Journal
from tests.places import FILE, Place

T = TypeVar("T")
LEASE = timedelta(seconds=30)


@attrs.define
class Row:
    """A recorder, as a store knows it."""

    name: str
    audit_only: bool
    started_ns: int
    stored_ns: int
    ended_ns: int
    closed: bool = False
    answered: int = 0
    batch: int = 0


class Store(Protocol):
    """What a test sees of a store."""

    async def rows(self) -> list[Row]: ...

    async def events(self) -> list[str]:
        """The names of the events, in the order in which they were stored."""
        ...

    async def starts(self) -> dict[str, str]:
        """The names of the calls whose start is stored, by key."""
        ...

    async def declared(self) -> dict[str, bool]: ...

    async def gaps(self) -> list[NewGap]: ...

    async def ask(self) -> int:
        """Ask the recorders to catch up."""
        ...

    def recorder(self, journal: Journal[Any], **options: Any) -> Recorder: ...


def moment_of(clock: Clock) -> Moment:
    """What a store shows that goes by the clock of this process."""
    now = clock.now()
    return Moment(now.wall_ns, now, now)


class MemoryTables:
    """What recorders write, in memory. Each write first asks the next of `rigs` what is to become of it."""

    def __init__(self) -> None:
        self.rigs: list[Callable[[Callable[[], Any]], Awaitable[Any]]] = []
        self.batches: list[Batch] = []
        self.requested = 0
        self.clock: Clock = create_controlled_clock()
        self._rows: list[Row] = []
        self._events: list[str] = []
        self._starts: dict[str, str] = {}
        self._declared: dict[str, bool] = {}
        self._gaps: list[NewGap] = []

    # -- RecorderTables

    @property
    def key(self) -> Hashable:
        return id(self)

    async def create(
        self, name: str, audit_only: bool, started_ns: int, batch: Batch, instead_of: Collection[int] = ()
    ) -> int:
        def write() -> int:
            self._rows.append(Row(name, audit_only, started_ns, started_ns, batch.ended_ns))
            self._store(self._rows[-1], batch)
            return len(self._rows)

        return await self._rigged(write)

    async def has(self, receipt: Receipt) -> bool:
        return receipt.recorder <= len(self._rows) and self._rows[receipt.recorder - 1].batch >= receipt.batch

    async def store(self, recorder: int, batch: Batch) -> None:
        await self._rigged(lambda: self._store(self._rows[recorder - 1], batch))

    poll_seconds = 0.1

    async def look(self) -> tuple[int, Moment]:
        return self.requested, moment_of(self.clock)

    async def keep(self, recorder: int, key: str, call: CallRow) -> None:
        await self._rigged(lambda: self._starts.setdefault(key, call.name))

    def keep_blocking(self, recorder: int, key: str, call: CallRow) -> None:
        self._starts.setdefault(key, call.name)

    async def _rigged(self, write: Callable[[], T]) -> T:
        if self.rigs:
            answer: T = await self.rigs.pop(0)(write)
            return answer
        await asyncio.sleep(0)
        return write()

    def _store(self, row: Row, batch: Batch) -> None:
        if row.batch >= batch.number:
            return
        row.batch, row.ended_ns, row.closed = batch.number, batch.ended_ns, batch.closed
        row.stored_ns = row.stored_ns if batch.stored_ns is None else batch.stored_ns
        row.answered = row.answered if batch.answered is None else batch.answered
        row.audit_only = row.audit_only if batch.audit_only is None else batch.audit_only
        self.batches.append(batch)
        self._events += [event.name for event in batch.events]
        for key, call in batch.started:
            self._starts.setdefault(key, call.name)
        for key in batch.ended:
            self._starts.pop(key, None)
        self._declared |= batch.declared
        self._gaps += batch.gaps

    def forget(self) -> None:
        """Be what it was before anybody wrote: an older copy was restored."""
        for kept in (self._rows, self._events, self._starts, self._declared, self._gaps):
            kept.clear()

    async def is_asked(self) -> bool:
        """Whether all rigs are taken."""
        return not self.rigs

    # -- Store

    async def rows(self) -> list[Row]:
        return [attrs.evolve(row) for row in self._rows]

    async def events(self) -> list[str]:
        return list(self._events)

    async def starts(self) -> dict[str, str]:
        return dict(self._starts)

    async def declared(self) -> dict[str, bool]:
        return self._declared

    async def gaps(self) -> list[NewGap]:
        return list(self._gaps)

    async def ask(self) -> int:
        self.requested += 1
        return self.requested

    def recorder(self, journal: Journal[Any], **options: Any) -> Recorder:
        self.clock = journal.clock
        given = {"name": "api-7", "durable": (), "audit_only": False, "lease": LEASE, "max_pending": 10_000} | options
        return Recorder(self, journal, **given)


class PlaceTables:
    """The same of a file, or of a database on a server."""

    def __init__(self, place: Place, stores: SqlStores) -> None:
        self._place = place
        self._stores = stores

    async def rows(self) -> list[Row]:
        sql = "SELECT name, audit_only, started_ns, stored_ns, ended_ns, closed, answered, batch FROM recorders"
        return [
            Row(name, bool(audit), *times, bool(closed), *rest)  # type: ignore[misc]
            for name, audit, *times, closed, answered, batch in self._place.rows(f"{sql} ORDER BY id")
            for rest in [(answered, batch)]
        ]

    async def events(self) -> list[str]:
        return [name for (name,) in self._place.rows("SELECT name FROM events ORDER BY id")]

    async def starts(self) -> dict[str, str]:
        return dict(self._place.rows("SELECT call_id, name FROM starts"))

    async def declared(self) -> dict[str, bool]:
        return {name: bool(durable) for name, durable in self._place.rows("SELECT name, durable FROM declarations")}

    async def gaps(self) -> list[NewGap]:
        sql = "SELECT since_ns, until_ns, kind, reason FROM gaps ORDER BY since_ns, until_ns"
        return [NewGap(*row) for row in self._place.rows(sql)]

    async def ask(self) -> int:
        self._place.change("UPDATE journal SET request = request + 1")
        ((request,),) = self._place.rows("SELECT request FROM journal")
        return int(request)

    def recorder(self, journal: Journal[Any], **options: Any) -> Recorder:
        return self._stores.recorder(journal, **({"name": "api-7"} | options))


IN_THE_WAY = "lock|did not answer in time"
"""What is said of a lock that somebody else holds: a file knows that, of a server one sees that it does not answer."""


@asynccontextmanager
async def hasty(place: Place, clock: Clock) -> AsyncIterator[SqlStores]:
    """Stores that wait for nobody's lock for long, once they are open."""
    async with place.stores(clock, lock_timeout=timedelta(milliseconds=20)) as stores:
        if place.kind != FILE:
            database: Any = stores._database
            database._timeout = database._lane.limit = timedelta(milliseconds=300)
        yield stores


@contextmanager
def refusing(place: Place, change: str, table: str) -> Iterator[None]:
    """The database refuses to INSERT, or to DELETE, any row of a table: not now."""
    trigger, drop = f"CREATE TRIGGER refuse BEFORE {change} ON {table}", "DROP TRIGGER refuse"
    if place.kind == FILE:
        place.change(f"{trigger} BEGIN SELECT RAISE(ABORT, 'not now'); END")
    elif place.kind == "mariadb":
        place.change(f"{trigger} FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not now'")
    else:
        body = "BEGIN RAISE EXCEPTION 'not now'; END"
        place.change(f"CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        place.change(f"{trigger} FOR EACH ROW EXECUTE FUNCTION refuse()")
        drop = f"{drop} ON {table}"
    try:
        yield
    finally:
        place.change(drop)


# -- rigs


def failing(error: BaseException) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """Raise, and write nothing."""

    async def rig(write: Callable[[], Any]) -> Any:
        await asyncio.sleep(0)
        raise error

    return rig


def unanswered(error: BaseException) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """Write, and raise: the answer to the commit was lost."""

    async def rig(write: Callable[[], Any]) -> Any:
        write()
        await asyncio.sleep(0)
        raise error

    return rig


def hanging(gate: asyncio.Event) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    """Write once the gate opens."""

    async def rig(write: Callable[[], Any]) -> Any:
        await gate.wait()
        return write()

    return rig


async def really(write: Callable[[], Any]) -> Any:
    """Write."""
    return write()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait, in real time, for what other tasks bring about."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - what is waited for is seen in the store alone
            await asyncio.sleep(0)
