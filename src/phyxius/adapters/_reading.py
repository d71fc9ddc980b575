"""One query of a journal, read from the tables."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice, takewhile
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from phyxius.adapters._coverage import GapRow, RecorderRow, gaps_of, unwitnessed_by
from phyxius.adapters._database import OTHER_TABLES, Connection, Database
from phyxius.adapters._moment import Moment, look
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._records import CALL_COLUMNS, EVENT_COLUMNS, CallRow, EventRow
from phyxius.clock import Instant
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.migration import JournalQuery, JournalWindow

T = TypeVar("T")
_PAGE = 250
_INLINE = 50
_LATEST = 2**63 - 1
_COMPLETED = 1 + EVENT_COLUMNS.split(", ").index("completed_ns")
_SLACK_NS = 1_000_000_000

_STARTS = f"SELECT recorder, {CALL_COLUMNS} FROM {{starts}} ORDER BY started_ns {{no_limit}}"  # noqa: S608 - our names
_STARTS_OF_A_NAME = _STARTS.replace("ORDER", "WHERE name = :name ORDER")


def _page(*conditions: str) -> str:
    """The newest events that meet one of several conditions, of those that come after a page.

    For each condition an index has them in this order; what is sorted is a page of each.
    """
    newest_first = "ORDER BY completed_ns DESC, id DESC LIMIT :most"
    parts = [
        f"SELECT recorder, {EVENT_COLUMNS}, id FROM {{events}} WHERE {condition}"  # noqa: S608 - our names
        " AND completed_ns >= :since AND completed_ns <= :last_ns AND (completed_ns < :last_ns OR id < :last_id)"
        f" {newest_first}"
        for condition in conditions
    ]
    if len(parts) == 1:
        return parts[0]
    whole = " UNION ALL ".join(f"SELECT * FROM ({part}) AS part{number}" for number, part in enumerate(parts))  # noqa: S608
    return f"{whole} {newest_first}"


_PAGES = {  # by whether a name is asked for, and an outcome
    (False, False): _page("source <> 'migration'"),
    (False, True): _page("source <> 'migration' AND outcome = :outcome"),
    (True, False): _page("name = :name AND outcome = 'success'", "name = :name AND outcome = 'failure'"),
    (True, True): _page("name = :name AND outcome = :outcome"),
}
# All that an answer needs where nothing happened, in one statement: most queries of a gate end so. The newest event of
# a name is asked for, and not whether there is one: a planner that takes a name that was frequent once for one that is
# frequent now would read them all.
_SOMETHING_HAPPENED = " OR ".join(
    (
        "EXISTS (SELECT 1 FROM {starts} WHERE name = :name)",
        *(
            f"(SELECT completed_ns FROM {{events}} WHERE name = :name{condition}"  # noqa: S608 - our names
            " ORDER BY outcome DESC, completed_ns DESC LIMIT 1) >= {now} - :back"
            for condition in ("", " AND outcome < 'success'")
        ),
    )
)
_STATE = (
    f"SELECT {{shown}}, 'journal', covered_since_ns, CASE WHEN {_SOMETHING_HAPPENED} THEN 1 ELSE 0 END,"  # noqa: S608
    " 0, 0, 0, 0, 0, name, '' FROM {journal}"
    " UNION ALL SELECT NULL, 'recorder', r.id, r.stored_ns, r.ended_ns, r.closed, r.audit_only, r.answered,"
    " coalesce((SELECT d.durable FROM {declarations} d WHERE d.recorder = r.id AND d.name = :name), -1), r.name, ''"
    " FROM {recorders} r WHERE r.ended_ns >= {now} - :back"
    " UNION ALL SELECT NULL, 'gap', recorder, since_ns, until_ns, 0, 0, 0, 0, kind, reason"
    " FROM {gaps} WHERE until_ns >= {now} - :back {no_limit}"
)

_Found: TypeAlias = tuple[int, HandlerEvent]  # with the recorder that it is from


@attrs.frozen
class _State:
    """What the rows tell of a window, its events aside.

    Attributes:
        looked: When they were read.
        until_ns: The end of the window: when it was asked for, as the rows are stamped.
        since_ns: Its begin.
        covered_since_ns: Since when the database holds events.
        recorders: Who recorded in it, by key.
        gaps: What they noted as lost.
        is_silent: Whether it has neither an event of the name nor the start of a call.
    """

    looked: Moment
    until_ns: int
    since_ns: int
    covered_since_ns: int
    recorders: dict[int, RecorderRow]
    gaps: list[GapRow]
    is_silent: bool


@attrs.frozen
class _Calls:
    """The calls without an event, sorted.

    Attributes:
        in_flight: Those that may still run.
        lost: What stands for those whose recorder is gone, newest first.
        unfinished: The recorders of those that may be over, with their event lost or on its way.
    """

    in_flight: list[InFlightCall]
    lost: list[_Found] = attrs.field(factory=list)
    unfinished: set[int] = attrs.field(factory=set)


@attrs.define
class Reading:
    """One query under way. `glance` and `read` give the answer, or say what has to be done first.

    That is `"ask"`, to have the recorders of other processes store what they have; `"tell"`, to have those of this
    process tell of a step of the database's clock; after a glance also `"read"`.

    Attributes:
        query: What is asked.
        window: How far back.
        asked_at: When; what the recorders of this process had seen then is stored.
        here: The recorders of this process, on whatever event loop.
        own: The keys of those on the running one.
        in_flight: What was in flight in this process just after that.
        most: How many events the answer may have.
        request: The request that the other recorders were sent to catch up, once they were.
        wanted: Whether somebody still waits for the answer.
    """

    database: Database
    query: JournalQuery
    window: timedelta
    asked_at: Instant
    here: Sequence[Recorder]
    own: Collection[int]
    in_flight: Sequence[InFlightCall]
    most: int
    request: int | None = None
    wanted: bool = True

    def glance(self, connection: Connection) -> JournalWindow | Literal["read", "ask", "tell"]:
        """The answer if nothing happened: one statement."""
        state = self._state(connection)
        if todo := self._todo(state):
            return todo
        if not state.is_silent:
            return "read"
        in_flight = _aside(connection, self.query, partial(_matching, self.query, self.in_flight))
        return self._window(state, _Calls(in_flight), [], truncated=False)

    def read(self, connection: Connection) -> JournalWindow | Literal["ask", "tell"]:
        """The answer, from one state of the database."""
        state = self._state(connection)
        if todo := self._todo(state):
            return todo
        rows = connection.execute(
            _STARTS if self.query.name is None else _STARTS_OF_A_NAME, {"name": self.query.name}
        ).fetchall()
        calls = _aside(connection, self.query, partial(self._sort_calls, state, rows))
        found, truncated = self._select(connection, state, calls.lost)
        return self._window(state, calls, found, truncated=truncated)

    def _state(self, connection: Connection) -> _State:
        window_ns = self.window // timedelta(microseconds=1) * 1_000
        late_ns = self.database.clock.now().ns_since(self.asked_at)
        while True:
            back_ns = window_ns + late_ns + _SLACK_NS
            values = {"name": self.query.name or "", "back": back_ns}
            looked, rows = look(self.database, connection, _STATE, values)
            until_ns = looked.earliest(self.asked_at)
            late_ns = looked.wall_ns - until_ns
            if late_ns + window_ns <= back_ns:
                break
        since_ns = until_ns - window_ns
        ((covered_since_ns, something, *_, name, _),) = [row[2:] for row in rows if row[1] == "journal"]
        if name != self.database.name:
            raise self.database.error("missing", OTHER_TABLES)
        recorders = sorted(row[2:10] for row in rows if row[1] == "recorder" and row[4] >= since_ns)
        return _State(
            looked,
            until_ns,
            since_ns,
            covered_since_ns,
            {row[0]: _recorder(row, self.query.name) for row in recorders},
            sorted(GapRow(*row[2:5], *row[9:11]) for row in rows if row[1] == "gap" and row[4] >= since_ns),
            self.query.name is not None and not something,
        )

    def _todo(self, state: _State) -> Literal["ask", "tell"] | None:
        if any(recorder.must_tell(state.looked) for recorder in self.here):
            return "tell"
        if self.request is None and self.others(state.recorders.values(), state.until_ns):
            return "ask"
        return None

    def others(self, recorders: Iterable[RecorderRow], now_ns: int) -> list[RecorderRow]:
        """Those of other processes that may still be recording."""
        return [each for each in recorders if each.id not in self.own and each.is_alive(now_ns)]

    def _sort_calls(self, state: _State, rows: Sequence[Any]) -> _Calls:
        """Sort the calls without an event: they are in flight, or their recorder is gone, which counts as an event."""
        calls = _Calls(_matching(self.query, self.in_flight))
        # Our own calls are known from memory. A start beyond them is of a call whose event never came in: its journal
        # refused it, or more waited than could be stored.
        known = {None, *(call.invocation_id for call in self.in_flight)}
        for recorder_id, *columns in rows:
            row, recorder = CallRow(*columns), state.recorders.get(recorder_id)
            if recorder_id in self.own and row.invocation_id in known:
                continue
            if recorder is None and row.started_ns < state.since_ns:
                continue  # it ended before the window
            if not self.query.matches_call(
                call := row.call(f"recorder {recorder_id}" if recorder is None else recorder.name)
            ):
                continue
            if recorder is None:
                calls.in_flight.append(call)  # its lease has ended, and it goes on
                continue
            if recorder.is_alive(state.until_ns):
                calls.unfinished.add(recorder_id)
            if recorder_id in calls.unfinished or self.query.outcome == "success":
                calls.in_flight.append(call)  # of a lost call nobody knows that it succeeded, nor that it did not
            else:
                calls.lost.append((recorder_id, row.lost(recorder.name, recorder.ended_ns)))
        calls.lost.sort(key=_newest_first)
        return calls

    def _select(self, connection: Connection, state: _State, lost: list[_Found]) -> tuple[Sequence[_Found], bool]:
        most = self.most if self.query.limit is None else self.query.limit
        stored = self._stored(connection, state, most + 1)
        merged = heapq.merge(stored, lost, key=_newest_first) if lost else stored
        found = list(islice(merged, most + 1))
        return found[most - 1 :: -1] if len(found) > most else found[::-1], len(found) > most

    def _stored(self, connection: Connection, state: _State, most: int) -> Iterator[_Found]:
        query = self.query
        sql = _PAGES[query.name is not None, query.outcome is not None]
        values = {"name": query.name, "outcome": query.outcome, "since": state.since_ns}
        last_ns = last_id = _LATEST
        while self.wanted and most:
            size = min(_PAGE, most) if query.where is None else _PAGE
            page = {"last_ns": last_ns, "last_id": last_id, "most": size}
            rows = connection.execute(sql, {**values, **page}).fetchall()
            admit = partial(self._admitted, rows, most)
            admitted = admit() if query.where is None and len(rows) <= _INLINE else connection.aside(admit)
            yield from admitted
            most -= len(admitted)
            if len(rows) < size:
                break
            last_ns, last_id = rows[-1][_COMPLETED], rows[-1][-1]

    def _admitted(self, rows: Iterable[Sequence[Any]], most: int) -> list[_Found]:
        """Those that `where` admits; no more than so many, nor longer than somebody waits."""
        found = ((row[0], EventRow(*row[1:-1]).event()) for row in takewhile(lambda _: self.wanted, rows))
        return list(islice((each for each in found if self.query.admits(each[1])), most))

    def _window(self, state: _State, calls: _Calls, found: Sequence[_Found], *, truncated: bool) -> JournalWindow:
        recorders, request = state.recorders, self.request
        answered = {
            each.id
            for each in recorders.values()
            if each.id in self.own or (request is not None and each.answered >= request)
        }
        gaps = gaps_of(
            recorders.values(),
            state.gaps,
            name=self.query.name,
            since_ns=state.since_ns,
            now_ns=state.until_ns,
            covered_since_ns=state.covered_since_ns,
            answered=answered,
            unfinished=calls.unfinished,
        )
        witnessed, lacking = unwitnessed_by(recorders.values(), self.query.name)
        until = Instant(wall_ns=state.until_ns, mono_ns=None).wall_rounded_up
        return JournalWindow(
            [event for _, event in found],
            since=Instant(wall_ns=state.since_ns, mono_ns=None).wall,
            until=until,
            asked_at=until,
            gaps=tuple(gaps),
            truncated=truncated,
            witnessed=witnessed,
            in_flight=calls.in_flight,
            unwitnessed_by=lacking,
            recorded_by=Counter(recorders[id_].name for id_, _ in found if id_ in recorders) if found else {},
        )


def _recorder(row: Sequence[Any], name: str | None) -> RecorderRow:
    id_, stored_ns, ended_ns, closed, audit_only, answered, durable, recorder = row
    return RecorderRow(
        id=id_,
        name=recorder,
        stored_ns=stored_ns,
        ended_ns=ended_ns,
        closed=bool(closed),
        audit_only=bool(audit_only),
        answered=answered,
        declared={} if durable < 0 or name is None else {name: bool(durable)},
    )


def _aside(connection: Connection, query: JournalQuery, function: partial[T]) -> T:
    """Call what calls `where`, which is a foreign function: it may take its time."""
    return function() if query.where is None else connection.aside(function)


def _matching(query: JournalQuery, calls: Iterable[InFlightCall]) -> list[InFlightCall]:
    return [call for call in calls if query.matches_call(call)]


def _newest_first(found: _Found) -> int:
    return -found[1].completed_at.wall_ns
