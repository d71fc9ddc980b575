"""What a recorder has still to store: filled by the journal, emptied batch by batch."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, TypeGuard

import attrs

from phyxius.adapters._moment import Moment
from phyxius.clock import Clock, Instant
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.journal import Journal, JournalEntry

_logger = logging.getLogger("phyxius.adapters")


@attrs.frozen
class Capture:
    """What there is to know of a journal at one moment.

    Attributes:
        now: That moment.
        looked: When the store's clock was last looked at before.
        entries: The events that are not stored yet, oldest first.
        calls: What is in flight.
        declared: The names that this process would record.
        losses: What was lost since the store was last told, as a recorder would say it, and how often.
        set_forward_ns: By how much the store's clock was set forward since then.
        complete_since: Since when the journal says that it is complete.
        siblings: The keys of the journal's recorders in this store, so far.
    """

    now: Instant
    looked: Moment
    entries: tuple[JournalEntry[HandlerEvent], ...]
    calls: tuple[InFlightCall, ...]
    declared: frozenset[str]
    losses: Mapping[str, int]
    set_forward_ns: int
    complete_since: Instant
    siblings: tuple[int, ...] = ()


@attrs.frozen
class Receipt:
    """Says what a store knew once.

    Attributes:
        recorder: The key of a recorder.
        began_ns: When its journal began.
        batch: So many of its batches.
        ended_ns: When its lease was to end, or it has closed.
    """

    recorder: int
    began_ns: int
    batch: int
    ended_ns: int


class Inbox:
    """The events of one journal on their way into a store; bounded.

    Args:
        journal: Where they come from.
        most: How many may wait; what comes beyond them is lost, and the store is told so.
        on_arrival: Called, in any thread, when something comes in after the inbox was empty.
        is_stranded: Whether nobody can empty it any more, so that another may take its place.
    """

    def __init__(
        self,
        journal: Journal[Any],
        most: int,
        on_arrival: Callable[[], object],
        is_stranded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_stranded = is_stranded
        self._store: Hashable = None
        self._state: Literal["opening", "open", "stopped"] = "stopped"
        self._is_late = False
        self._journal = journal
        self._most = most
        self._on_arrival = on_arrival
        self._waiting: deque[JournalEntry[HandlerEvent]] = deque()
        self._losses: Counter[str] = Counter()
        self._taps = journal.follow(_Taps)
        self._begin()
        self._has_warned = False

    def _begin(self) -> None:
        """Look at where it is: it may have been made before a fork, or before the clock was set."""
        self._process = os.getpid()
        self._refused = self._journal.refused

    def receipt(self, store: Hashable) -> Receipt | None:
        """What an earlier recorder of this journal has stored there last."""
        with self._journal.paused():
            return self._taps.known(store).receipt

    def senders(self, store: Hashable) -> list[Any]:
        """Who keeps this journal there, or was cut off while he did; whoever does enters himself."""
        return self._taps.known(store).senders

    def attempts(self, store: Hashable) -> list[int]:
        """The begins of recorders of this journal that may have a row there without having learned of it."""
        return self._taps.known(store).attempts

    def open(self, store: Hashable, *, forget: bool = False) -> None:
        """Take in what the journal has recorded in this process, and from now on what it records.

        Args:
            store: Names the store that it is for. What one recorder has stored there another does not store again.
            forget: Whether the store knows nothing of that any more: an older copy of it was restored.

        Raises:
            RuntimeError: Another recorder keeps this journal in the same store.
        """
        journal = self._journal
        with journal.paused():
            self._begin()
            other = self._taps.open.get(store)
            if other is not None and other._process == self._process and not other._is_stranded():
                raise RuntimeError("this journal has a recorder in this store already; enter one, at start-up")
            if forget:
                # Also of steps of its clock: it is told of all since that was first looked at.
                known = self._taps.known(store)
                self._taps.stores[store] = _Known(scale=known.first, first=known.first, senders=known.senders)
            known = self._taps.known(store)
            self._store = store
            self._taps.open[store] = self
            self._taps.closed = False
            self._take_all(known.entries)
            if known.missed or self._has_lost_since(known.told or journal.began, known.complete_since or journal.began):
                self._lose(journal.complete_since_reason)
                known.missed = False

    def _take_all(self, first: int) -> None:
        """Take in what the journal holds; again, if a finalizer has ended a call meanwhile, in this very thread."""
        self._state = "opening"
        while self._state == "opening":
            self._is_late = False
            for entry in self._journal.snapshot().entries:
                # What was restored, or copied by a fork, another process recorded.
                ours = entry.timestamp.mono_ns is not None and entry.timestamp.ns_since(self._journal.began) >= 0
                if ours and entry.sequence >= first:
                    self._take(entry)  # all of it: the bound is for what comes faster than it is stored
                    first = entry.sequence + 1
            if not self._is_late:
                self._state = "open"

    @property
    def is_filled(self) -> bool:
        """Whether there is something to store."""
        with self._journal.paused():
            return bool(self._waiting or self._losses or self._journal.in_flight)

    def stop(self, looked: Moment) -> Capture:
        """Take in nothing more, and look at everything for the last time."""
        with self._journal.paused():
            capture = self.capture(looked)
            self._state = "stopped"
            return capture

    def close(self) -> None:
        """Make room for another inbox; what is on its way by then may be taken in again."""
        with self._journal.paused():
            self._state = "stopped"
            if self._taps.open.get(self._store) is self:
                del self._taps.open[self._store]
                self._taps.closed = not self._taps.open

    def take(self, entry: JournalEntry[Any]) -> None:
        """Take in an entry; called while the journal is locked, and never raises."""
        if self._state == "stopped":
            return
        if self._state == "opening":
            self._is_late = True
        elif os.getpid() != self._process:
            self._forked()
        elif len(self._waiting) >= self._most:
            self._lose("more was recorded than could be stored in time")
        else:
            self._take(entry)

    def _take(self, entry: JournalEntry[Any]) -> None:
        event = entry.data
        if not issubclass(type(event), HandlerEvent) or not _has_proper_names(event):
            self._lose("an entry of the journal was no proper HandlerEvent")
        else:
            self._waiting.append(entry)
            if len(self._waiting) == 1:
                self._on_arrival()

    def capture(self, looked: Moment) -> Capture:
        """Look at everything at one moment, just after the store's clock. Nothing leaves the inbox before `stored`."""
        with self._journal.paused():
            # First: a finalizer may end a call at any point, in this very thread, and its event then appears.
            calls = tuple(filter(_is_call, self._journal.in_flight))
            if self._journal.refused != self._refused:
                self._refused = self._journal.refused
                self._lose("the journal refused an append")
            return Capture(
                now=self._journal.clock.now(),
                looked=looked,
                entries=tuple(self._waiting),
                calls=calls,
                declared=self._journal.declared,
                losses=dict(self._losses),
                set_forward_ns=self.set_forward_ns(looked),
                complete_since=self._journal.complete_since,
                siblings=tuple(self._taps.known(self._store).recorders),
            )

    def stored(self, count: int, receipt: Receipt) -> None:
        """Let go of the oldest so many events, which are stored now."""
        with self._journal.paused():
            known = self._taps.known(self._store)
            known.receipt = receipt
            if receipt.recorder not in known.recorders:
                known.recorders.append(receipt.recorder)
            for _ in range(count):
                known.entries = self._waiting.popleft().sequence + 1
            if self._waiting:
                self._on_arrival()

    def told(self, capture: Capture) -> None:
        """Let go of the losses and of the step of the clock that the store was told of."""
        with self._journal.paused():
            for reason, count in capture.losses.items():
                if self._losses[reason] == count:  # else it went on meanwhile
                    del self._losses[reason]
            known = self._taps.known(self._store)
            known.told, known.complete_since = capture.now, capture.complete_since
            if capture.set_forward_ns:
                known.scale = capture.looked

    def _forked(self) -> None:
        self._lose("its process was forked")
        if not self._has_warned:
            self._has_warned = True
            _logger.error(
                "this process was forked from one that had a recorder open, and nothing that it does is recorded; "
                "open a recorder in each process, after the fork"
            )

    def _lose(self, reason: str) -> None:
        self._losses[reason] += 1

    def _has_lost_since(self, told: Instant, complete_since: Instant) -> bool:
        journal = self._journal
        if journal.complete_since in (complete_since, journal.began):
            return False
        return journal.complete_since.ns_since(told) > 0  # else it let go of what was stored

    def set_forward_ns(self, looked: Moment) -> int:
        """By how much the store's clock was set forward since the store was last told."""
        known = self._taps.known(self._store)
        known.first = known.first or looked
        if known.scale is None or known.scale.is_behind(looked):
            known.scale = looked  # it was set back, which hides nothing: the new scale is what counts from here
        return known.scale.gained_ns(looked)


@attrs.define
class _Known:
    """What a store knows of a journal.

    Attributes:
        entries: It has those whose number is lower.
        receipt: What it last gave a receipt for.
        told: When it was last told of losses.
        complete_since: Since when the journal said then that it is complete.
        scale: When its clock was looked at to see how far it is ahead of the monotonic one: a step since then, of which
            it was not told, must not be forgotten.
        first: When that was looked at first.
        missed: Whether the journal has dropped what it does not have while no inbox was open.
        senders: Who may have something on its way there.
        attempts: The begins of recorders that may have a row there without having learned of it.
        recorders: The keys of those that have stored something there.
    """

    entries: int = 0
    receipt: Receipt | None = None
    told: Instant | None = None
    complete_since: Instant | None = None
    scale: Moment | None = None
    first: Moment | None = None
    missed: bool = False
    senders: list[Any] = attrs.field(factory=list)
    attempts: list[int] = attrs.field(factory=list)
    recorders: list[int] = attrs.field(factory=list)


class _Taps:
    """Follows a journal for the inboxes that are open."""

    def __init__(self, clock: Clock) -> None:  # noqa: ARG002 - every follower is given one
        self.open: dict[Hashable, Inbox] = {}
        self.closed = False
        self.stores: dict[Hashable, _Known] = {}

    def known(self, store: Hashable) -> _Known:
        if store not in self.stores:
            self.stores[store] = _Known()
        return self.stores[store]

    def added(self, entry: JournalEntry[Any], /) -> None:
        for inbox in self.open.values():
            inbox.take(entry)
        if self.closed:
            self.closed = False
            _logger.warning(
                "%r was recorded after the last recorder of its journal closed, and no store will know of it: close"
                " recorders last",
                getattr(entry.data, "name", None),
            )

    def dropped(self, entry: JournalEntry[Any], /) -> None:
        """The journal may let go of what the inboxes hold, but not of what no store has."""
        for store, known in self.stores.items():
            if store not in self.open and entry.sequence >= known.entries:
                known.missed = True

    def cleared(self) -> None:
        """The same."""


def _is_call(call: object) -> TypeGuard[InFlightCall]:
    return isinstance(call, InFlightCall) and _has_proper_names(call)


def _has_proper_names(event: HandlerEvent | InFlightCall) -> bool:
    """Whether it can be told apart from others: foreign code may have put anything there."""
    named = isinstance(event.name, str) and isinstance(event.source, str)
    return named and (event.invocation_id is None or isinstance(event.invocation_id, str))
