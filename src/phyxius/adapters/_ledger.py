"""What a recorder still has to tell its store, and what the store knows already."""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import attrs

from phyxius.adapters._coverage import GapKind
from phyxius.adapters._inbox import Capture
from phyxius.adapters._moment import Moment
from phyxius.adapters._records import CallRow, EventRow, is_storable
from phyxius.clock import Instant
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.journal import JournalEntry, PayloadError

_logger = logging.getLogger("phyxius.adapters")
_CHUNK = 2_000


@attrs.frozen
class NewGap:
    """A gap that a recorder notes."""

    since_ns: int
    until_ns: int
    kind: GapKind
    reason: str


@attrs.frozen
class Batch:
    """What one transaction stores of a recorder.

    Attributes:
        number: Counts the batches of a recorder, so that none is stored twice.
        events: Events.
        siblings: The keys of its journal's recorders; what earlier ones have left, this one takes over.
        ended: Keys of calls whose start is not to be kept any longer.
        ended_ns: The end of the lease, or of the recorder.
        started: Calls that began, by key.
        declared: Names that are declared now, and whether they are recorded durably.
        gaps: Gaps to note.
        stored_ns: Up to when all is stored with it; None, like the next two, if more is to come.
        answered: The request that it answers.
        audit_only: Whether the recorder runs no handlers.
        closed: Whether it is the last one.
    """

    number: int
    events: Sequence[EventRow]
    siblings: Collection[int] = ()
    ended: Sequence[str] = ()
    ended_ns: int = attrs.field(kw_only=True)
    started: Sequence[tuple[str, CallRow]] = ()
    declared: Mapping[str, bool] = attrs.field(factory=dict)
    gaps: Sequence[NewGap] = ()
    stored_ns: int | None = None
    answered: int | None = None
    audit_only: bool | None = None
    closed: bool = False

    def opening(self) -> Batch:
        """What the recorder's row is made with: nothing that would be there twice if nobody learns of the row."""
        return attrs.evolve(self, number=1, events=(), ended=(), started=(), gaps=(), stored_ns=None)


@attrs.frozen
class Parcel:
    """A batch on its way.

    Attributes:
        batch: The batch.
        count: How many events of the inbox it has.
        capture: The capture that it completes, if it does.
        calls: The calls that it stores the start of.
    """

    batch: Batch
    count: int
    capture: Capture | None
    calls: Mapping[str, InFlightCall] = attrs.field(factory=dict)


class Ledger:
    """Works out the batches of one recorder. It is told when one has arrived.

    Args:
        name: The recorder's name, for the log.
        audit_only: Whether the process runs no handlers.
        lease: How long a batch says that the recorder lives.
        began: Since when its journal records.
    """

    def __init__(self, name: str, audit_only: bool, lease: timedelta, began: Instant) -> None:
        # The names whose starts are stored, and those of them that the store is still to be told are no more: until it
        # was, it believes that nothing of them can be missing, so nothing may be.
        self.durable: set[str] = set()
        self._broken: set[str] = set()
        self.has_begun = False
        self._prefix = uuid.uuid4().hex
        self.audit_only = audit_only
        self.stored_until = began
        self.looked: Moment | None = None
        self._stored_ns: int | None = None
        self.answered = 0
        self._name = name
        self._lease = lease
        self._leased_until = began
        self._numbers = itertools.count(2)  # the first one makes its row
        self._declared: dict[str, bool] = {}
        # Calls whose start is stored: those of durable names, by `recorded`, and others that were in flight.
        self._durable_calls: set[str] = set()
        self._other_calls: dict[str, InFlightCall] = {}
        self._taken_over: set[str | None] | None = set()
        self._finished: set[str | None] = set()

    def pledge(self, durable: Collection[str]) -> None:
        """Say that from here on the starts of these names are stored; what the next capture knows is older."""
        self.durable = set(durable)
        self._taken_over = None

    def durable_call(self, call: InFlightCall) -> tuple[str, CallRow]:
        """Note that the start of a call is stored apart from the batches; its key, and its row.

        Raises:
            PayloadError: It is one that databases refuse, or cannot be read.
        """
        assert self.looked is not None
        key, row = self._key(call), CallRow.of(call, self.looked.latest)
        self._durable_calls.add(key)
        return key, row

    def has_news(self, capture: Capture) -> bool:
        """Whether the store would answer a question otherwise if it knew what we know."""
        return (
            bool(capture.entries or capture.losses or capture.set_forward_ns)
            or not capture.declared <= self._declared.keys()
            or (self.audit_only and any(call.source != "migration" for call in capture.calls))
            or capture.now.ns_since(self._leased_until) > 0
        )

    def is_due(self, now: Instant) -> bool:
        """Whether it is time to renew the lease."""
        return now.ns_since(self.stored_until.shifted(self._lease / 3)) >= 0

    def parcels(self, capture: Capture, request: int, *, closed: bool) -> list[Parcel]:
        """The batches that store a capture; only the last one says that all is stored."""
        self._look_for_broken_pledges(capture)
        self.looked = capture.looked
        chunks = [capture.entries[begin : begin + _CHUNK] for begin in range(0, len(capture.entries), _CHUNK)] or [()]
        known = set(self._durable_calls) | set(self._other_calls)
        lease_ns = capture.looked.latest(capture.now.shifted(self._lease))
        parcels: list[Parcel] = []
        unwritable = 0
        for left, chunk in zip(reversed(range(len(chunks))), chunks, strict=True):
            rows = _event_rows(chunk, capture.looked)
            unwritable += len(chunk) - len(rows)
            # At first also of calls whose start an earlier recorder of this journal has left behind.
            ended = [key for row in rows if (key := row.invocation_id) in known or (key and not self.has_begun)]
            batch = Batch(next(self._numbers), rows, siblings=capture.siblings, ended=ended, ended_ns=lease_ns)
            if left:
                parcels.append(Parcel(batch, len(chunk), None))
            else:
                news = self._news(capture)
                last = self._last_of(batch, capture, news, request, unwritable, closed)
                parcels.append(Parcel(last, len(chunk), capture, news))
        return parcels

    def sent(self, parcel: Parcel) -> None:
        """The store has it."""
        batch, capture = parcel.batch, parcel.capture
        self._durable_calls.difference_update(batch.ended)
        for key in batch.ended:
            self._other_calls.pop(key, None)
        self._other_calls |= parcel.calls
        if capture is not None:
            self.durable -= self._broken
            self._declared |= {name: name in self.durable for name in capture.declared}
            self.stored_until, self._leased_until = capture.now, capture.now.shifted(self._lease)
            self._stored_ns = batch.stored_ns
            self.answered = batch.answered or 0

    def _news(self, capture: Capture) -> dict[str, InFlightCall]:
        """The calls in flight whose start is not stored yet."""
        calls = {self._key(call): call for call in capture.calls}
        # Between an event and the end of its call there is a moment in which both are seen.
        self._finished = (self._finished | {entry.data.invocation_id for entry in capture.entries}) & calls.keys()
        stored = self._durable_calls | self._other_calls.keys() | self._finished
        return {key: call for key, call in calls.items() if key not in stored}

    def _last_of(
        self,
        batch: Batch,
        capture: Capture,
        news: Mapping[str, InFlightCall],
        request: int,
        unwritable: int,
        closed: bool,
    ) -> Batch:
        calls = {self._key(call) for call in capture.calls}
        # Of a durable name only a stored event ends the call: an append that was refused must not hide it.
        gone = [key for key, call in self._other_calls.items() if key not in calls and call.name not in self.durable]
        started = _call_rows(news, capture.looked)
        durable = self.durable - self._broken
        names = {name: name in durable for name in capture.declared if is_storable(name)}
        return attrs.evolve(
            batch,
            started=started,
            ended=[*batch.ended, *filter(is_storable, gone)],
            declared={name: kept for name, kept in names.items() if self._declared.get(name) is not kept},
            gaps=self._gaps(capture, unwritable + len(news) - len(started)),
            stored_ns=capture.looked.earliest(capture.now),
            ended_ns=capture.looked.latest(capture.now) if closed else batch.ended_ns,
            answered=request,
            audit_only=self.audit_only,
            closed=closed,
        )

    def _key(self, call: InFlightCall) -> str:
        return call.invocation_id or f"{self._prefix}-{id(call)}"

    def _gaps(self, capture: Capture, unwritable: int) -> list[NewGap]:
        until_ns = capture.looked.latest(capture.now)
        # As it was stamped then: a clock that was set since is why it may have to be told.
        stored_ns = capture.looked.earliest(self.stored_until) if self._stored_ns is None else self._stored_ns
        since_ns = min(stored_ns, until_ns)
        reasons = [*capture.losses, *(["an event could not be written"] if unwritable else [])]
        # What was lost before the pledge was stored, it does not cover.
        kind: GapKind = "lost" if self.has_begun else "early"
        gaps = [NewGap(since_ns, until_ns, kind, reason) for reason in reasons]
        if capture.set_forward_ns:
            by = timedelta(microseconds=capture.set_forward_ns // 1_000)
            reason = f"the clock went forward by {by} without that time having passed here"
            gaps.append(NewGap(since_ns, until_ns, "clock", reason))
        return gaps

    def _look_for_broken_pledges(self, capture: Capture) -> None:
        if self._taken_over is None:  # what began before the recorder is taken over as it is
            self._taken_over = {self._key(call) for call in capture.calls} | {
                e.data.invocation_id for e in capture.entries
            }
        known = self._durable_calls | self._taken_over
        for entry in capture.entries:
            event = entry.data
            if event.name in self.durable - self._broken and event.invocation_id not in known:
                self._broken.add(event.name)
                _logger.warning(
                    "%r was recorded without its start, so recorder %s records it in the background from here on; "
                    "durable names are for `recorded`",
                    event.name,
                    self._name,
                )
        sources = {entry.data.source for entry in capture.entries} | {call.source for call in capture.calls}
        if self.audit_only and (sources - {"migration"} or capture.losses):
            self.audit_only = False
            _logger.warning("recorder %s is audit_only, but its process runs handlers; it is so no more", self._name)


def _event_rows(entries: Sequence[JournalEntry[HandlerEvent]], looked: Moment) -> list[EventRow]:
    """The events that can be written."""
    rows: list[EventRow] = []
    for entry in entries:
        try:
            rows.append(EventRow.of(entry.data, looked.latest))
        except PayloadError:
            _logger.warning("an event %r cannot be stored: a loss", entry.data.name, exc_info=True)
    return rows


def _call_rows(calls: Mapping[str, InFlightCall], looked: Moment) -> list[tuple[str, CallRow]]:
    """The starts that can be written."""
    rows: list[tuple[str, CallRow]] = []
    for key, call in calls.items():
        try:
            rows.append((key, CallRow.of(call, looked.latest)))
        except PayloadError:
            _logger.warning("the start of a call %r cannot be stored: a loss", call.name, exc_info=True)
    return rows
