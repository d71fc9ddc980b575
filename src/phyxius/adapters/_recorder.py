"""Keeping the journal of a process in a shared store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal

from phyxius.adapters._arguments import check_count, check_duration
from phyxius.adapters._inbox import Capture, Inbox, Receipt
from phyxius.adapters._ledger import Ledger, Parcel
from phyxius.adapters._moment import Moment
from phyxius.adapters._recorder_tables import RecorderTables
from phyxius.adapters._records import is_storable
from phyxius.clock import run_in_thread, uninterrupted
from phyxius.handler import InFlightCall
from phyxius.journal import Journal
from phyxius.migration import SpecError

_logger = logging.getLogger("phyxius.adapters")
_INLINE = 50
_BATCH_DELAY = timedelta(milliseconds=200)
_RETRY_DELAY = timedelta(seconds=1)
_MOST_DOUBLINGS = 4
_SHORTEST_LEASE = timedelta(seconds=1)


class Recorder:
    """Keeps what a journal records in a shared store; an async context manager, made by the `recorder` of the stores.

    What is recorded is stored in batches, off the path of whoever recorded it. Leaving the context stores the rest
    and says that the process has closed, so that no gap remains. A process that dies instead leaves one.
    """

    def __init__(
        self,
        tables: RecorderTables,
        journal: Journal[Any],
        *,
        name: str,
        durable: Collection[str] = (),
        audit_only: bool = False,
        lease: timedelta = timedelta(seconds=30),
        max_pending: int = 10_000,
    ) -> None:
        _check(name, durable, audit_only, lease, max_pending)
        self._tables = tables
        self._journal = journal
        self._name = name
        self._durable = frozenset(durable)
        self._inbox = Inbox(journal, max_pending, self._wake_up, lambda: self.is_stranded)
        self._stop_keeping: Callable[[], None] = _do_nothing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._storing = asyncio.Lock()
        self._woken = asyncio.Event()
        self._failures = 0
        self._id: int | None = None
        self._stage: Literal["made", "open", "stopped", "closing", "closed"] = "made"
        self._key: Hashable = None
        self._new_ledger = partial(Ledger, name, audit_only, lease)
        self._look_around()
        self._outbox: deque[Parcel] = deque()

    def _look_around(self) -> None:
        """Take in where it is: it may have been made before a fork, which begins the journal anew."""
        self._process = os.getpid()
        self._began_ns = 0
        self._ledger = self._new_ledger(self._journal.began)

    # -- its life

    @property
    def name(self) -> str:
        """How people know it."""
        return self._name

    @property
    def id(self) -> int:
        """Its key in the store.

        Raises:
            RuntimeError: It has not begun.
        """
        if self._id is None:
            raise RuntimeError("the recorder has not begun: enter it with `async with`")
        return self._id

    @property
    def journal(self) -> Journal[Any]:
        """The journal that it keeps."""
        return self._journal

    @property
    def key(self) -> Hashable:
        """Names the store that it writes to, also when that was closed before it."""
        return self._tables.key if self._key is None else self._key

    async def __aenter__(self) -> Recorder:
        """Make its row, and begin to record.

        Raises:
            RuntimeError: Another recorder keeps this journal in the same store, or this one was used already.
            Exception: What the store raised.
        """
        if self._loop is not None:
            raise RuntimeError("a recorder is used once; make another")
        self._loop = asyncio.get_running_loop()
        self._key = self._tables.key
        self._look_around()
        if undeclared := self._durable - self._journal.declared:
            _logger.warning(
                "nothing in this process would record %s yet, so recorder %s is no witness for its silence: mend the"
                " name, or journal.declare it",
                ", ".join(map(repr, sorted(undeclared))),
                self._name,
            )
        receipt = self._inbox.receipt(self.key)
        known = receipt is None or await self._tables.has(receipt)
        for earlier in self._left_behind() if known else []:
            earlier._tables = self._tables  # its own may have been closed
            if earlier._id is not None:  # else it has stored no event, whatever became of its row
                await uninterrupted(earlier._send())  # what may have arrived: under its number it is not stored twice
        self._inbox.open(self.key, forget=not known)
        self._inbox.senders(self.key).append(self)
        for keeper in self._journal.start_keepers:
            if isinstance(keeper, Recorder) and keeper._process != self._process:  # pragma: no cover - in a fork
                keeper._stop_keeping()  # it is the parent's
        begun = False
        try:
            await uninterrupted(self._begin())
            begun = True
        finally:
            if not begun:
                await self._end()
        self._tasks = [self._loop.create_task(work()) for work in (self._store_batches, self._stay_known)]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        self._stage = "open"
        _running.append(weakref.ref(self, _remove))
        return self

    async def _begin(self) -> None:
        await self._store()
        # Only now can starts be stored; and only once all that began before is stored, too, are they all.
        self._stop_keeping = self._journal.keep_starts(self)
        self._ledger.pledge(self._durable)
        await self._store()
        self._ledger.has_begun = True
        for earlier in self._left_behind():
            earlier._stop_keeping()  # not earlier: until now its pledge was the one that held
            self._inbox.senders(self.key).remove(earlier)
            earlier._forget()

    def _left_behind(self) -> list[Recorder]:
        """Recorders of this journal and store that were cut off, before or while they closed."""
        others: list[Recorder] = [each for each in self._inbox.senders(self.key) if each is not self]
        return [each for each in others if each.is_of_this_process and (each.is_stranded or each._stage == "closed")]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store the rest, and close.

        Raises:
            Exception: What the store raised; then the recorder counts as one that died, and leaves a gap.
        """
        await self._end()

    async def _end(self) -> None:
        self._forget()
        if self._stage != "closed":
            self._stage = "closing"
        for task in self._tasks:
            task.cancel()
        try:
            await uninterrupted(self._close())
        finally:
            self._stop_keeping()
            self._inbox.close()  # not earlier: another recorder would take in again what is on its way
            self._stage = "closed"
            if not self._outbox and self in self._inbox.senders(self.key):
                self._inbox.senders(self.key).remove(self)

    def _forget(self) -> None:
        _remove(weakref.ref(self))

    async def _close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self._storing:
            if self._id is not None and self._stage != "closed":
                await self._send()
                request, looked = await self._tables.look()
                with self._journal.paused():  # nothing can come between the last capture and the end
                    self._stop_keeping()
                    capture = self._inbox.stop(looked)
                await self._write(capture, request, closed=True)
            self._stage = "closed"

    def _task_ended(self, ended: asyncio.Task[None]) -> None:
        if self._stage == "open":
            self._stage = "stopped"
            _logger.error(
                "recorder %s stores no more, since its task was ended from outside, and its process is no witness any"
                " more; leave it by the end of its `async with`, before the event loop cancels all tasks",
                self._name,
                exc_info=None if ended.cancelled() else ended.exception(),
            )

    @property
    def is_running(self) -> bool:
        """Whether it stores what is recorded, on the running event loop."""
        return self._loop is asyncio.get_running_loop() and self.is_at_work

    @property
    def is_at_work(self) -> bool:
        """Whether its tasks go on: somebody may have cancelled all that he found, or closed the event loop."""
        if self.is_stranded:
            return not self._inbox.is_filled  # of a journal that records no more nothing is missing
        return not any(task.done() for task in self._tasks)

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made here, and did not come over in a fork."""
        return self._process == os.getpid()

    @property
    def is_stranded(self) -> bool:
        """Whether its event loop was closed without it."""
        return self._loop is not None and self._loop.is_closed()

    # -- what others ask of it

    async def flush(self) -> None:
        """Store all that was recorded by now; from whatever event loop.

        Raises:
            RuntimeError: It has not begun, or its event loop is closed.
            Exception: What the store raised; nothing is lost by that, and it is tried again.
        """
        if self._loop is None or self._loop.is_closed():
            raise RuntimeError("the recorder has not begun, or its event loop is closed")
        if self._loop is asyncio.get_running_loop():
            await uninterrupted(self._store())
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.flush(), self._loop))

    async def calls_in_flight(self) -> Sequence[InFlightCall]:
        """The calls in flight, once all that the store should know of the time before is stored.

        Raises:
            Exception: What the store raised.
        """
        looked = self._ledger.looked
        assert looked is not None
        capture = self._inbox.capture(looked)
        if self._ledger.has_news(capture):
            await self.flush()
        return capture.calls

    def must_tell(self, looked: Moment) -> bool:
        """Whether the store's clock was set forward, as it now shows, and the store does not know that yet."""
        with self._journal.paused():
            return bool(self._inbox.set_forward_ns(looked))

    # -- starts that are stored before the call runs: a `StartKeeper`

    def wants(self, call: object, /) -> bool:
        """Whether its name is recorded durably."""
        return isinstance(call, InFlightCall) and call.name in self._ledger.durable

    def keep(self, call: Any, /) -> None:
        """Store the start of a call, and wait for it."""
        self._tables.keep_blocking(self.id, *self._ledger.durable_call(call))

    async def keep_async(self, call: Any, /) -> None:
        """Store the start of a call, and let other tasks run meanwhile."""
        await self._tables.keep(self.id, *self._ledger.durable_call(call))

    # -- when it stores

    def _wake_up(self) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody stores any more
            self._loop.call_soon_threadsafe(self._woken.set)

    async def _store_batches(self) -> None:
        clock = self._journal.clock
        while True:
            await self._woken.wait()
            await clock.sleep(_BATCH_DELAY)
            self._woken.clear()
            if not await self._try_to_store():
                await clock.sleep(_RETRY_DELAY * self._patience / 2)
                self._woken.set()

    async def _stay_known(self) -> None:
        """Renew the lease in time, and answer the requests of others to catch up.

        Other processes wait in real time, as for a lock, so it looks around in real time, too. Under a controlled
        clock two weeks may pass between two looks: a lease that ran out is renewed by whoever asks next.
        """
        clock = self._journal.clock
        while True:
            await asyncio.sleep(self._tables.poll_seconds * self._patience)
            is_wanted = self._ledger.is_due(clock.now())
            with contextlib.suppress(Exception):  # what is wrong with the store, the renewal reports
                request, looked = await self._tables.look()
                # Not only a later one: a database that lost commits begins to count anew.
                is_wanted |= request != self._ledger.answered or self.must_tell(looked)
            if is_wanted:
                await self._try_to_store()

    async def _try_to_store(self) -> bool:
        try:
            await uninterrupted(self._store())
        except Exception:
            if not self._failures:
                _logger.exception("recorder %s cannot store what it records; it goes on trying", self._name)
            self._failures += 1
            return False
        self._failures = 0
        return True

    @property
    def _patience(self) -> int:
        """How many times longer than usual to wait: a store that is away, or comes back, has others to see to."""
        return 1 << min(self._failures, _MOST_DOUBLINGS)

    # -- what it stores

    async def _store(self) -> None:
        async with self._storing:
            if self._stage == "closed":
                return
            await self._send()  # what a failure has left
            request, looked = await self._tables.look()
            await self._write(self._inbox.capture(looked), request)

    async def _write(self, capture: Capture, request: int, *, closed: bool = False) -> None:
        pack = partial(self._ledger.parcels, capture, request, closed=closed)
        self._outbox.extend(await run_in_thread(pack) if len(capture.entries) > _INLINE else pack())
        await self._send()

    async def _send(self) -> None:
        """Send what is in the outbox. A batch whose fate is unknown is sent again as it was, under its number."""
        while self._outbox:
            parcel = self._outbox[0]
            batch = parcel.batch
            if self._id is None:
                assert self._ledger.looked is not None
                began_ns = self._began_ns = self._ledger.looked.latest(self._journal.began)
                opening = self._name, self._ledger.audit_only, began_ns, batch.opening()
                attempts = self._inbox.attempts(self.key)
                earlier = list(attempts)
                attempts.append(began_ns)
                self._id = await self._tables.create(*opening, earlier)
                attempts.clear()
            await self._tables.store(self._id, batch)
            self._outbox.popleft()
            self._inbox.stored(parcel.count, Receipt(self._id, self._began_ns, batch.number, batch.ended_ns))
            if parcel.capture is not None:
                self._inbox.told(parcel.capture)
            self._ledger.sent(parcel)


# Weak: of a journal that nobody has any more, and that no event loop keeps, nothing can be missing.
_running: list[weakref.ref[Recorder]] = []


def _remove(ref: weakref.ref[Recorder]) -> None:
    with contextlib.suppress(ValueError):
        _running.remove(ref)


def _recorders() -> list[Recorder]:
    """Those of this process, and not those that came over in a fork."""
    return [each for ref in list(_running) if (each := ref()) is not None and each.is_of_this_process]


def recorders_of(key: Hashable) -> list[Recorder]:
    """The recorders of this process that write to a store, from whatever event loop."""
    return [each for each in _recorders() if each.key == key and each.is_at_work and not each.is_stranded]


def running_recorders(key: Hashable) -> list[Recorder]:
    """Those of the running event loop."""
    return [each for each in recorders_of(key) if each.is_running]


def why_unrecorded(key: Hashable, journal: Journal[Any] | None = None) -> str | None:
    """Why this process does not write all that it records to a store, from whatever event loop; None if it does.

    Args:
        key: Names the store.
        journal: One that has to be among what is written.
    """
    here = _recorders()
    if not all(each.is_at_work for each in here if each.key == key):
        return "a recorder of this process was cut off, and stores no more"
    living = [each for each in here if not each.is_stranded]
    ours = [each for each in living if each.key == key]
    if any(journal is None or each.journal is journal for each in ours):
        return None
    if ours:
        return f"recorder {ours[0].name} keeps another journal than the one that the migration was given"
    return f"recorder {living[0].name} writes elsewhere, or by another URL" if living else "no recorder runs here"


def _do_nothing() -> None:
    """Nothing is kept yet."""


def _check(name: str, durable: Collection[str], audit_only: bool, lease: timedelta, max_pending: int) -> None:
    if not isinstance(name, str) or not name or not is_storable(name):
        raise SpecError(f"a recorder needs a name by which people know its process, not {name!r}")
    if isinstance(durable, str) or not all(isinstance(each, str) and each and is_storable(each) for each in durable):
        raise SpecError(f'durable must be a collection of names such as ["quote.read_old"], not {durable!r}')
    if audit_only and durable:
        raise SpecError("a process that runs no handlers (audit_only) has no durable names; say one or the other")
    check_duration(lease, "lease", _SHORTEST_LEASE)
    check_count(max_pending, "max_pending")
