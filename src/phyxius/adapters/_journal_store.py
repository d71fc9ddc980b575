"""What the processes of a fleet recorded, from a database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from phyxius.adapters._arguments import check_duration
from phyxius.adapters._coverage import is_audit
from phyxius.adapters._database import Connection, Database
from phyxius.adapters._moment import look, now_in
from phyxius.adapters._reading import Reading
from phyxius.adapters._recorder import recorders_of, running_recorders, why_unrecorded
from phyxius.adapters._records import is_storable
from phyxius.clock import Clock
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, JournalWindow

_POLL_SECONDS = 0.02
_POLLS = 100
_ROUNDS = 5
_PRUNED_AT_ONCE = 5_000
_HELD_UP = timedelta(days=365)


class SqlJournalStore:
    """A `JournalStore` over a database that several processes record into; the `journal_store` of the stores.

    A query asks every recorder that is alive to store what it has seen, and waits up to two seconds for those of
    other processes. One that does not answer leaves a gap. All methods raise the error of the stores if the database
    cannot be used.
    """

    scope: Literal["fleet"] = "fleet"

    def __init__(self, database: Database, max_window_events: int) -> None:
        self.database = database
        self._max_window_events = max_window_events

    @property
    def clock(self) -> Clock:
        """The clock of this process; the rows are stamped by that of the database, which may be the same."""
        return self.database.clock

    def check_journal(self, journal: Journal[Any], /) -> None:
        """Do nothing, unless no recorder of this process keeps the journal in this database.

        Raises:
            Exception: The error of the stores: what is recorded in that journal never gets here.
        """
        if why := why_unrecorded(self.database.identity, journal):
            raise self.database.error("not_recorded", why)

    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        """The matching events that completed in the last `window`, or are stamped later, and what may be missing.

        What `where` does runs in a thread. Without a `limit` of its own a window holds 200,000 events at most
        (`max_window_events`), and is then marked as cut off.

        Raises:
            Exception: The error of the stores: the database cannot be used, or a recorder of this process cannot store
                what it has, or this process has none: one that nobody records cannot vouch, but it may ask about audit
                events. Or whatever `where` raised.
        """
        database = self.database
        database.check_open()
        if query.name is not None and not is_storable(query.name):
            raise database.error("failed", f"nothing can be named {query.name!r} there")
        asked_at = database.clock.now()
        here = recorders_of(database.identity)
        own = [each for each in here if each.is_running]
        if not is_audit(query.name) and (why := why_unrecorded(database.identity)):
            raise database.error("not_recorded", why)
        in_flight = [call for calls in [await each.calls_in_flight() for each in own] for call in calls]
        keys = {each.id for each in own}
        reading = Reading(database, query, window, asked_at, here, keys, in_flight, self._max_window_events)
        try:
            for _ in range(_ROUNDS):
                answer = await self._answer(reading)
                if isinstance(answer, JournalWindow):
                    return answer
                if answer == "ask":
                    reading.request = await self._catch_up(reading)
                else:
                    await asyncio.gather(*(recorder.flush() for recorder in here))
            raise database.error("failed", "the clock that stamps its rows was set forward again and again")
        finally:
            reading.wanted = False  # a thread that still reads for a caller who has left comes to an end

    async def _answer(self, reading: Reading) -> JournalWindow | Literal["ask", "tell"]:
        if reading.query.name is not None:
            answer = await self.database.read(reading.glance)
            if answer != "read":
                return answer
        return await self.database.query(reading.read)

    async def prune(self, *, older_than: timedelta, before: datetime | None = None) -> int:
        """Delete what is older, but the audit; from then on the database vouches for the time since then alone.

        Args:
            older_than: The age from which on it goes; longer than the longest window of your evidence.
            before: An aware datetime. Nothing from then on goes, however late this runs, and whatever the clock of the
                database says: for what somebody was asked about.

        Returns:
            How many events were deleted.

        Raises:
            SpecError: `older_than` is not positive.
        """
        check_duration(older_than, "older_than")
        for recorder in running_recorders(self.database.identity):
            await recorder.flush()  # a lease that is renewed too late must not take its row with it
        until_ns = await self.database.write(partial(_move_coverage, self.database, older_than, before))
        deleted = 0
        while count := await self.database.write(partial(_delete_events, until_ns)):
            deleted += count
        return deleted

    async def _catch_up(self, reading: Reading) -> int:
        """Have the recorders of other processes store what they have; the request that they were sent."""
        request = await self.database.write(_new_request)
        behind = partial(_behind, self.database, reading.own, request)
        for _ in range(_POLLS):
            if not await self.database.read(behind):
                break
            await asyncio.sleep(_POLL_SECONDS)  # other processes live in real time
        return request


def _behind(database: Database, own: Collection[int], request: int, connection: Connection) -> bool:
    """Whether a living recorder of another process has not answered a request."""
    _, rows = look(
        database,
        connection,
        "SELECT {shown}, 0, 0 FROM {journal}"
        " UNION ALL SELECT NULL, id, answered FROM {recorders} WHERE ended_ns >= {now} AND closed = 0 {no_limit}",
    )
    return any(id_ not in own and answered < request for _, id_, answered in rows if id_)


def _new_request(connection: Connection) -> int:
    connection.execute("UPDATE {journal} SET request = request + 1")
    (request,) = connection.execute("SELECT request FROM {journal}").fetchone()
    return int(request)


def _move_coverage(database: Database, older_than: timedelta, before: datetime | None, connection: Connection) -> int:
    """Say first that the database vouches for less, so that a crash in between leaves nothing that is not true."""
    until = now_in(database, connection).shifted(-older_than)
    if before is not None and before < until.wall_rounded_up:
        until = until.shifted(before - until.wall_rounded_up)
    values = {"until": until.wall_ns, "held_up": until.shifted(-_HELD_UP).wall_ns}
    connection.execute("UPDATE {journal} SET covered_since_ns = :until WHERE covered_since_ns < :until", values)
    connection.execute("DELETE FROM {gaps} WHERE until_ns < :until", values)
    # What lived on into the time that is left stays: it is needed to judge that time. So do the newest, which tells
    # what has been there, and for long those that did not close: a process that was held up would find its row again.
    ended = connection.execute(
        "SELECT id FROM {recorders} WHERE ended_ns < :until AND (closed = 1 OR ended_ns < :held_up)"
        " AND id < (SELECT max(id) FROM {recorders})",
        values,
    ).fetchall()
    for sql in (
        "DELETE FROM {starts} WHERE recorder = :id",
        "DELETE FROM {declarations} WHERE recorder = :id",
        "DELETE FROM {recorders} WHERE id = :id",
    ):
        connection.execute_many(sql, [{"id": id_} for (id_,) in ended])
    return until.wall_ns


def _delete_events(until_ns: int, connection: Connection) -> int:
    """Delete the oldest of what is older, not much at once."""
    values = {"until": until_ns, "most": _PRUNED_AT_ONCE}
    # Up to when is asked first: to name the rows in the DELETE itself, MariaDB would look at the whole table.
    (last_ns,) = connection.execute(
        "SELECT max(completed_ns) FROM (SELECT completed_ns FROM {events} WHERE completed_ns < :until"
        " AND source <> 'migration' ORDER BY completed_ns, id LIMIT :most) AS oldest",
        values,
    ).fetchone()
    if last_ns is None:
        return 0
    return connection.execute(
        "DELETE FROM {events} WHERE completed_ns <= :last AND source <> 'migration'", {"last": last_ns}
    ).rowcount
