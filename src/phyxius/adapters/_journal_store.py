"""What the processes of a fleet recorded, from a database."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import takewhile
from typing import Any, Literal, TypeAlias

import attrs

from phyxius.adapters._arguments import check_duration
from phyxius.adapters._coverage import GapRow, RecorderRow, gaps_of, is_audit, unwitnessed_by
from phyxius.adapters._database import Connection, Database
from phyxius.adapters._recorder import has_recorder, running_recorders
from phyxius.adapters._records import CALL_COLUMNS, EVENT_COLUMNS, CallRow, EventRow, is_storable
from phyxius.clock import Clock, Instant
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.migration import JournalQuery, JournalWindow

_POLL_SECONDS = 0.02
_POLLS = 100
_PRUNED_AT_ONCE = 5_000
_HELD_UP = timedelta(days=365)
_NO_LIMIT = 2**62

_EVENTS = f"SELECT recorder, {EVENT_COLUMNS}, id FROM {{events}}"  # noqa: S608 - our own names
_STARTS = f"SELECT recorder, {CALL_COLUMNS} FROM {{starts}} ORDER BY started_ns"  # noqa: S608 - our own names
_STARTS_OF_A_NAME = _STARTS.replace("ORDER", "WHERE name = :name ORDER")
_NEWEST_FIRST = " ORDER BY completed_ns DESC, id DESC LIMIT :limit"
_OF_ANY_NAME = f"{_EVENTS} WHERE completed_ns >= :since AND source <> 'migration'{_NEWEST_FIRST}"
_OF_ANY_NAME_AND_OUTCOME = (
    f"{_EVENTS} WHERE completed_ns >= :since AND source <> 'migration' AND outcome = :outcome{_NEWEST_FIRST}"
)
# One part for each outcome: the index has them in order, and merging them costs no sorting.
_OF_A_NAME = (
    " UNION ALL ".join(
        f"{_EVENTS} WHERE name = :name AND outcome = '{outcome}' AND completed_ns >= :since"
        for outcome in ("success", "failure")
    )
    + _NEWEST_FIRST
)
_OF_A_NAME_AND_OUTCOME = (
    f"{_EVENTS} WHERE name = :name AND outcome = :outcome AND completed_ns >= :since{_NEWEST_FIRST}"
)


_Found: TypeAlias = tuple[int, HandlerEvent]  # with the recorder that it is from


@attrs.define
class _Reading:
    """One query under way; what it finds is kept here."""

    query: JournalQuery
    since: Instant
    now: Instant
    own: Collection[int]
    in_flight: list[InFlightCall]
    request: int | None = None
    wanted: bool = True


class SqlJournalStore:
    """A `JournalStore` over a database that several processes record into; the `journal_store` of the stores.

    A query asks every recorder that is alive to store what it has seen, and waits up to two seconds for those of
    other processes. One that does not answer leaves a gap. All methods raise the error of the stores if the database
    cannot be used.
    """

    scope: Literal["fleet"] = "fleet"

    def __init__(self, database: Database, max_window_events: int) -> None:
        self._database = database
        self._max_window_events = max_window_events

    @property
    def clock(self) -> Clock:
        """The clock that ages are measured on; what others recorded is compared by its wall time."""
        return self._database.clock

    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        """The matching events that completed in the last `window`, or are stamped later, and what may be missing.

        What `where` does runs in a thread. Without a `limit` of its own a window holds 200,000 events at most
        (`max_window_events`), and is then marked as cut off.

        Raises:
            Exception: The error of the stores: the database cannot be used, or a recorder of this process cannot store
                what it has, or this process has none: one that nobody records cannot vouch, but it may ask about audit
                events. Or whatever `where` raised.
        """
        self._database.check_open()
        if query.name is not None and not is_storable(query.name):
            raise self._database.error("failed", f"nothing can be named {query.name!r} there")
        now = self._database.clock.now()
        own = running_recorders(self._database.identity)
        if not is_audit(query.name) and not has_recorder(self._database.identity):
            raise self._database.error("not_recorded")
        in_flight = [call for calls in [await each.calls_in_flight() for each in own] for call in calls]
        ids = {recorder.id for recorder in own}
        reading = _Reading(query, now.shifted(-window), now, ids, in_flight)
        try:
            found = await self._database.query(partial(self._read, reading))
            if found is None:
                reading.request = await self._catch_up(reading)
                found = await self._database.query(partial(self._read, reading))
            assert found is not None
            return found
        finally:
            reading.wanted = False  # a thread that still reads for a caller who has left comes to an end

    async def prune(self, *, older_than: timedelta) -> int:
        """Delete what is older, but the audit; from then on the database vouches for the time since then alone.

        Args:
            older_than: The age from which on it goes; longer than the longest window of your evidence.

        Returns:
            How many events were deleted.

        Raises:
            SpecError: `older_than` is not positive.
        """
        check_duration(older_than, "older_than")
        for recorder in running_recorders(self._database.identity):
            await recorder.flush()  # a lease that is renewed too late must not take its row with it
        until = self._database.clock.now().shifted(-older_than)
        until_ns = until.wall_ns
        await self._database.write(partial(_move_coverage, until_ns, until.shifted(-_HELD_UP).wall_ns))
        deleted = 0
        while count := await self._database.write(partial(_delete_events, until_ns)):
            deleted += count
        return deleted

    async def _catch_up(self, reading: _Reading) -> int:
        """Have the recorders of other processes store what they have; the request that they were sent."""
        request = await self._database.write(_new_request)
        behind = partial(_behind, reading.now.wall_ns, reading.own, request)
        for _ in range(_POLLS):
            if not await self._database.read(behind):
                break
            await asyncio.sleep(_POLL_SECONDS)  # other processes live in real time
        return request

    def _read(self, reading: _Reading, connection: Connection) -> JournalWindow | None:
        """The answer, or None if the recorders of other processes have to be asked first."""
        name, since_ns, now_ns = reading.query.name, reading.since.wall_ns, reading.now.wall_ns
        recorders = _recorders(connection, name, since_ns)
        others = [each for each in recorders.values() if each.id not in reading.own and each.is_alive(now_ns)]
        if others and reading.request is None:
            return None
        (covered_since_ns,) = connection.execute("SELECT covered_since_ns FROM {journal}").fetchone()
        in_flight = [call for call in reading.in_flight if reading.query.matches_call(call)]
        lost, unfinished = self._open_starts(connection, reading, recorders, in_flight)
        found, truncated = self._select(connection, reading, lost)
        recorded_by = Counter(recorders[recorder].name for recorder, _ in found if recorder in recorders)
        answered = {
            recorder.id
            for recorder in recorders.values()
            if recorder.id in reading.own or (reading.request is not None and recorder.answered >= reading.request)
        }
        gaps = gaps_of(
            recorders.values(),
            _lost(connection, since_ns),
            name=name,
            since_ns=since_ns,
            now_ns=now_ns,
            covered_since_ns=covered_since_ns,
            answered=answered,
            unfinished=unfinished,
        )
        witnessed, lacking = unwitnessed_by(recorders.values(), name)
        return JournalWindow(
            [event for _, event in found],
            since=reading.since.wall,
            until=reading.now.wall_rounded_up,
            gaps=tuple(gaps),
            truncated=truncated,
            witnessed=witnessed,
            in_flight=in_flight,
            unwitnessed_by=lacking,
            recorded_by=recorded_by,
        )

    def _open_starts(
        self,
        connection: Connection,
        reading: _Reading,
        recorders: dict[int, RecorderRow],
        in_flight: list[InFlightCall],
    ) -> tuple[list[_Found], set[int]]:
        """Sort the calls without an event: they are in flight, or their recorder is gone, which counts as an event.

        Returns:
            These events, and the recorders of the others: they may be over, with their event lost or on its way.
        """
        lost: list[_Found] = []
        unfinished: set[int] = set()
        # Our own calls are known from memory. A start beyond them is of a call whose event never came in: its journal
        # refused it, or more waited than could be stored.
        known = {None, *(call.invocation_id for call in reading.in_flight)}
        for recorder_id, row in _starts(connection, reading.query.name):
            recorder = recorders.get(recorder_id)
            if recorder is None or (recorder_id in reading.own and row.invocation_id in known):
                continue
            if not reading.query.matches_call(call := row.call(recorder.name)):
                continue
            if recorder.is_alive(reading.now.wall_ns):
                unfinished.add(recorder_id)
            if recorder_id in unfinished or reading.query.outcome == "success":
                in_flight.append(call)  # of a lost call nobody knows that it succeeded, nor that it did not
            else:
                lost.append((recorder_id, row.lost(recorder.name, recorder.ended_ns)))
        lost.sort(key=_newest_first)
        return lost, unfinished

    def _select(self, connection: Connection, reading: _Reading, lost: list[_Found]) -> tuple[Sequence[_Found], bool]:
        query = reading.query
        most = self._max_window_events if query.limit is None else query.limit
        rows = _rows(connection, query, reading.since.wall_ns, None if query.where else most + 1)
        rows = takewhile(lambda _: reading.wanted, rows)
        stored = (each for each in map(_found, rows) if query.where is None or query.admits(each[1]))
        found: list[_Found] = []
        for each in heapq.merge(stored, lost, key=_newest_first) if lost else stored:
            found.append(each)
            if len(found) > most:
                break
        return found[most - 1 :: -1] if len(found) > most else found[::-1], len(found) > most


def _newest_first(found: _Found) -> int:
    return -found[1].completed_at.wall_ns


def _found(row: tuple[Any, ...]) -> _Found:
    return row[0], EventRow(*row[1:-1]).event()


def _rows(connection: Connection, query: JournalQuery, since_ns: int, limit: int | None) -> Iterator[tuple[Any, ...]]:
    values = {"name": query.name, "outcome": query.outcome, "since": since_ns, "limit": limit or _NO_LIMIT}
    if query.name is None:
        sql = _OF_ANY_NAME if query.outcome is None else _OF_ANY_NAME_AND_OUTCOME
    else:
        sql = _OF_A_NAME if query.outcome is None else _OF_A_NAME_AND_OUTCOME
    return iter(connection.execute(sql, values))


def _recorders(connection: Connection, name: str | None, since_ns: int) -> dict[int, RecorderRow]:
    rows = connection.execute(
        "SELECT r.id, r.name, r.stored_ns, r.ended_ns, r.closed, r.audit_only, r.answered, d.durable FROM {recorders} r"
        " LEFT JOIN {declarations} d ON d.recorder = r.id AND d.name = :name WHERE r.ended_ns >= :since",
        {"name": name or "", "since": since_ns},
    )
    return {
        id_: RecorderRow(
            id=id_,
            name=recorder,
            stored_ns=stored_ns,
            ended_ns=ended_ns,
            closed=bool(closed),
            audit_only=bool(audit_only),
            answered=answered,
            declared={} if durable is None or name is None else {name: bool(durable)},
        )
        for id_, recorder, stored_ns, ended_ns, closed, audit_only, answered, durable in rows
    }


def _lost(connection: Connection, since_ns: int) -> list[GapRow]:
    rows = connection.execute(
        "SELECT recorder, since_ns, until_ns, kind, reason FROM {gaps} WHERE until_ns >= :since", {"since": since_ns}
    )
    return [GapRow(*row) for row in rows]


def _starts(connection: Connection, name: str | None) -> list[tuple[int, CallRow]]:
    rows = connection.execute(_STARTS if name is None else _STARTS_OF_A_NAME, {"name": name})
    return [(recorder, CallRow(*row)) for recorder, *row in rows]


def _behind(now_ns: int, own: Collection[int], request: int, connection: Connection) -> bool:
    """Whether a living recorder of another process has not answered a request."""
    rows = connection.execute(
        "SELECT id, answered FROM {recorders} WHERE ended_ns >= :now AND closed = 0", {"now": now_ns}
    )
    return any(id_ not in own and answered < request for id_, answered in rows)


def _new_request(connection: Connection) -> int:
    connection.execute("UPDATE {journal} SET request = request + 1")
    (request,) = connection.execute("SELECT request FROM {journal}").fetchone()
    return int(request)


def _move_coverage(until_ns: int, held_up_ns: int, connection: Connection) -> None:
    """Say first that the database vouches for less, so that a crash in between leaves nothing that is not true."""
    values = {"until": until_ns, "held_up": held_up_ns}
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


def _delete_events(until_ns: int, connection: Connection) -> int:
    return connection.execute(
        "DELETE FROM {events} WHERE id IN (SELECT id FROM (SELECT id FROM {events} WHERE completed_ns < :until"
        " AND source <> 'migration' LIMIT :most) AS oldest)",
        {"until": until_ns, "most": _PRUNED_AT_ONCE},
    ).rowcount
