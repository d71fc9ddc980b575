"""The journal itself."""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import threading
import uuid
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Generic, Self, cast

from typing_extensions import TypeVar

from phyxius.clock import Clock, Instant
from phyxius.journal._entry import JournalEntry, JournalNotice, JournalSnapshot, completed_at, just_after
from phyxius.journal._errors import JournalFormatError, JournalOverflowError, JournalReentrancyError
from phyxius.journal._format import dump_journal, load_journal
from phyxius.journal._overflow import Overflow, check_bound
from phyxius.journal._protocols import JournalFollower, JournalSerializer, Redact, StartKeeper

T = TypeVar("T", default=Any)
F = TypeVar("F", bound=JournalFollower)

_logger = logging.getLogger("phyxius.journal")


class Journal(Generic[T]):
    """An append-only log in memory that can say since when it is complete.

    It is safe to use from any thread, and `append` costs the same at any size. Of the data it reads no more
    than `name` and `completed_at`, where it has them.

    Args:
        clock: Stamps the entries.
        max_entries: The most entries to hold; needs an `overflow` policy.
        overflow: What a full journal does: `"drop_oldest"` forgets the oldest entry, `"error"` refuses the
            append. Either is a loss, and `complete_since` tells of it.
        serializer: Writes and reads the data in `to_json` and `from_json`; without one it must be JSON itself.
        id_generator: Makes the id of an entry; by default a random prefix and the sequence number.
        emit: Is told what went wrong (`JournalNotice`); without one it is logged.
        redact: Is asked of each value that a recorded call observes, by its key, and answers with what is to be
            recorded in its place; so it is of the message of what the call raised, by the key `"error"`. It works
            where calls are recorded; what is appended by hand, and what evidence says, it does not see.

    Raises:
        ValueError: A bound without a policy, a policy without a bound, or a bound that is not positive.
        TypeError: `redact` is no plain function.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_entries: int | None = None,
        overflow: Overflow = "none",
        serializer: JournalSerializer[T] | None = None,
        id_generator: Callable[[], str] | None = None,
        emit: Callable[[JournalNotice], object] | None = None,
        redact: Redact | None = None,
    ) -> None:
        check_bound(max_entries, overflow)
        if redact is not None and (not callable(redact) or inspect.iscoroutinefunction(redact)):
            raise TypeError(f"redact must be a plain function of a key and a value, not {redact!r}")
        self._clock = clock
        self._max_entries = max_entries
        self._overflow = overflow
        self._serializer = serializer
        self._new_id = id_generator or _numbered_ids()
        self._emit = emit
        self._redact = redact
        self._lock = threading.RLock()
        self._appending = threading.local()
        # A ring: the entry of a sequence number lies at (sequence - base) modulo the bound.
        self._ring: list[JournalEntry[T]] = []
        self._base = 0
        self._next = 0
        self._declared: set[str] = set()
        self._in_flight: dict[int, object] = {}
        self._call_numbers = itertools.count()
        self._subscribers: tuple[_Subscription, ...] = ()
        self._followers: dict[Callable[[Clock], JournalFollower], JournalFollower] = {}
        self._start_keepers: tuple[StartKeeper, ...] = ()
        self._refused = 0
        self._began = self._complete_since = clock.now()
        self._complete_reason = "the journal began then"
        _journals.add(self)

    # -- what it holds

    def append(self, data: T, /) -> JournalEntry[T]:
        """Add an entry, declare its name, and tell the subscribers.

        Raises:
            JournalOverflowError: The journal is full and `overflow` is `"error"`.
            JournalReentrancyError: Called from within an append of the same thread, by a subscriber say.
        """
        if getattr(self._appending, "now", False):
            error = JournalReentrancyError()
            self.lose(data)
            self._report(JournalNotice("append_refused", error))
            raise error
        self._appending.now = True
        try:
            entry = self._store(data)
            for subscription in self._subscribers:
                self._tell(subscription, entry)
        except JournalOverflowError as full:
            self._report(JournalNotice("append_refused", full))
            raise
        finally:
            self._appending.now = False
        return entry

    def lose(self, data: T, /) -> None:
        """Note that an append may have come to nothing, as one that a signal handler broke off: a loss."""
        with self._lock:
            now = self._clock.now()
            self._refused += 1
            reason = "the journal refused an append then"
            self._lose(just_after(now, now), reason)
            self._lose(just_after(completed_at(data, now), now), reason)

    def entry(self, sequence: int) -> JournalEntry[T] | None:
        """The entry of a sequence number, or None if it is not held (any more)."""
        with self._lock:
            if not self._next - len(self._ring) <= sequence < self._next:
                return None
            return self._ring[self._slot(sequence)]

    def first(self) -> JournalEntry[T] | None:
        """The oldest entry, or None."""
        with self._lock:
            return self.entry(self._next - len(self._ring))

    def last(self) -> JournalEntry[T] | None:
        """The newest entry, or None."""
        with self._lock:
            return self.entry(self._next - 1)

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[JournalEntry[T]]:
        """Iterate over the entries that are held now, oldest first."""
        return iter(self._entries())

    def snapshot(self) -> JournalSnapshot[T]:
        """What the journal holds and knows now."""
        with self._lock:
            return JournalSnapshot(self._entries(), self._clock.now(), self._complete_since, self.declared)

    def clear(self) -> None:
        """Let all entries go. The journal is complete only from here on; declarations and open calls stay."""
        with self._lock:
            now = self._clock.now()
            self._lose(now, "the journal was cleared then")
            for entry in self._ring:
                self._lose(just_after(completed_at(entry.data, entry.timestamp), now), self._complete_reason)
            self._ring.clear()
            self._base = self._next
            for follower in self._followers.values():
                follower.cleared()

    # -- what it knows

    @property
    def clock(self) -> Clock:
        """The clock that stamps the entries."""
        return self._clock

    @property
    def complete_since(self) -> Instant:
        """Since when nothing that completed is missing here: the time before is a gap in any window."""
        return self._complete_since

    @property
    def complete_since_reason(self) -> str:
        """Why the journal is complete only since then."""
        return self._complete_reason

    @property
    def began(self) -> Instant:
        """When this journal was made or restored, or its process was forked: it saw nothing of the time before."""
        return self._began

    @property
    def refused(self) -> int:
        """How many appends it refused; one may count twice."""
        return self._refused

    def declare(self, *names: str) -> None:
        """Pledge that this process would record events of these names, even if it never does.

        It is what makes silence mean something. A build whose old path is gone declares the old path's names.

        Raises:
            ValueError: A name is empty or no text.
        """
        for name in names:
            if not isinstance(name, str) or not name:
                raise ValueError(f"a declared name must be a text that is not empty, not {name!r}")
        with self._lock:
            self._declared.update(names)

    @property
    def declared(self) -> frozenset[str]:
        """The names that this process would record: those declared, and those appended here."""
        with self._lock:
            return frozenset(self._declared)

    def begin(self, call: object, /) -> Callable[[], None]:
        """Note that a call is in flight; call the returned function once its event was appended.

        Queries look at an `InFlightCall`; what else is given here is kept, and means nothing to them.
        """
        number = next(self._call_numbers)
        with self._lock:
            self._in_flight[number] = call

        def end() -> None:
            with self._lock:
                self._in_flight.pop(number, None)

        return end

    @property
    def in_flight(self) -> tuple[object, ...]:
        """The calls that began and have not ended, oldest first."""
        with self._lock:
            return tuple(self._in_flight.values())

    def keep_starts(self, keeper: StartKeeper, /) -> Callable[[], None]:
        """Have a keeper store the starts of calls before their bodies run; call what is returned to end that."""
        with self._lock:
            self._start_keepers = (*self._start_keepers, keeper)

        def end() -> None:
            with self._lock:
                self._start_keepers = tuple(each for each in self._start_keepers if each is not keeper)

        return end

    @property
    def redact(self) -> Redact | None:
        """What those who record here have to ask of each value."""
        return self._redact

    @property
    def start_keepers(self) -> tuple[StartKeeper, ...]:
        """Who stores the starts of calls."""
        return self._start_keepers

    # -- who is told

    def subscribe(self, function: Callable[[JournalEntry[T]], object], /) -> Callable[[], None]:
        """Have a plain function called with each new entry, in the thread that appends it.

        One that raises is reported through `emit` and breaks nothing. It must not append here.

        Returns:
            A function that ends the subscription.

        Raises:
            TypeError: A coroutine function: nobody would await it.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError("a subscriber is a plain function: for async work let it start a task")
        subscription = _Subscription(function)
        with self._lock:
            self._subscribers = (*self._subscribers, subscription)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(each for each in self._subscribers if each is not subscription)

        return unsubscribe

    def follow(self, kind: Callable[[Clock], F], /) -> F:
        """The journal's one follower of a kind, made at the first call and told of all entries held by then."""
        with self._lock:
            follower = self._followers.get(kind)
            if follower is None:
                follower = kind(self._clock)
                for entry in self._entries():
                    follower.added(entry)
                self._followers[kind] = follower
            return cast("F", follower)

    def paused(self) -> AbstractContextManager[object]:
        """Hold the journal still, so that several things can be read of one moment; other threads wait."""
        return self._lock

    # -- as text

    def to_json(self) -> str:
        """The entries and the bound as JSON text.

        Raises:
            PayloadError: The data of an entry is not JSON, and no serializer makes it so.
        """
        with self._lock:
            entries, next_sequence = self._entries(), self._next
        dump = None if self._serializer is None else self._serializer.dump
        return dump_journal(entries, next_sequence, self._max_entries, self._overflow, dump)

    @classmethod
    def from_json(
        cls,
        text: str,
        /,
        *,
        clock: Clock,
        serializer: JournalSerializer[T] | None = None,
        redact: Redact | None = None,
    ) -> Self:
        """The journal that `to_json` wrote.

        What happened while nobody recorded is unknown, so it is complete only since now, and it declares nothing.

        Raises:
            JournalFormatError: The text is not what `to_json` writes.
        """
        stored = load_journal(text, None if serializer is None else serializer.load)
        try:
            journal = cls(
                clock=clock,
                max_entries=stored.max_entries,
                overflow=cast("Overflow", stored.overflow),
                serializer=serializer,
                redact=redact,
            )
        except ValueError as error:
            raise JournalFormatError(str(error)) from error
        journal._complete_reason = "the journal was restored then"
        journal._ring = list(stored.entries)
        journal._next = stored.next_sequence
        journal._base = stored.next_sequence - len(stored.entries)
        return journal

    # -- inside

    def _after_fork(self) -> None:
        """Begin anew in a forked child: its parent's threads are gone, maybe with the lock, and with their calls."""
        self._lock = threading.RLock()
        self._appending = threading.local()
        self._in_flight.clear()
        self._began = self._clock.now().shifted(1)
        self._lose(self._began, "the process was forked then")

    def _entries(self) -> tuple[JournalEntry[T], ...]:
        with self._lock:
            split = self._slot(self._next - len(self._ring)) if self._ring else 0
            return (*self._ring[split:], *self._ring[:split])

    def _slot(self, sequence: int) -> int:
        return (sequence - self._base) % (self._max_entries or self._next - self._base + 1)

    def _store(self, data: T) -> JournalEntry[T]:
        with self._lock:
            full = self._max_entries is not None and len(self._ring) >= self._max_entries
            if full and self._overflow == "error":
                self.lose(data)
                raise JournalOverflowError(len(self._ring))
            taken = False
            try:
                entry = self._place(data, self._clock.now(), full)
                taken = True
            finally:
                if not taken:
                    self.lose(data)
            return entry

    def _place(self, data: T, now: Instant, full: bool) -> JournalEntry[T]:
        # What foreign code may raise comes first, also what is asked again once the entry is dropped.
        name = getattr(data, "name", None)
        now.ns_since(completed_at(data, now))
        entry = JournalEntry(self._new_id(), self._next, now, data)
        if isinstance(name, str):
            self._declared.add(str.__str__(name))
        slot = self._slot(self._next)
        if full:
            self._drop(self._ring[slot], now)
            self._ring[slot] = entry
        else:
            self._ring.append(entry)
        self._next += 1
        for follower in self._followers.values():
            follower.added(entry)
        return entry

    def _drop(self, entry: JournalEntry[T], now: Instant) -> None:
        ended = completed_at(entry.data, entry.timestamp)
        self._lose(just_after(ended, now), "entries up to then were dropped to make room")
        for follower in self._followers.values():
            follower.dropped(entry)

    def _lose(self, until: Instant, reason: str) -> None:
        if until.ns_since(self._complete_since) >= 0:
            self._complete_since, self._complete_reason = until, reason

    def _tell(self, subscription: _Subscription, entry: JournalEntry[T]) -> None:
        try:
            subscription.function(entry)
        except (Exception, CancelledError) as error:  # noqa: BLE001 - a foreign function, that must not break append
            self._report(JournalNotice("subscriber_failed", error, entry.sequence))

    def _report(self, notice: JournalNotice) -> None:
        # What emit itself brings about, by appending here, is not told to it: it would never end.
        if self._emit is None or getattr(self._appending, "reporting", False):
            _logger.warning("%s: %r", notice.kind, notice.error, exc_info=notice.error)
            return
        self._appending.reporting = True
        try:
            self._emit(notice)
        except (Exception, CancelledError):
            _logger.exception("emit raised when it was told of %r", notice)
        finally:
            self._appending.reporting = False


# What a forked child has to mend.
_journals: weakref.WeakSet[Journal[Any]] = weakref.WeakSet()


def _mend_after_fork() -> None:
    for journal in tuple(_journals):
        journal._after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork elsewhere
    os.register_at_fork(after_in_child=_mend_after_fork)


class _Subscription:
    __slots__ = ("function",)

    def __init__(self, function: Callable[[JournalEntry[Any]], object]) -> None:
        self.function = function


def _numbered_ids() -> Callable[[], str]:
    prefix, numbers = uuid.uuid4().hex[:12], itertools.count()
    return lambda: f"{prefix}-{next(numbers)}"
