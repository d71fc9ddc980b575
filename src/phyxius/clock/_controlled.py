"""A clock that moves only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import attrs

from phyxius.clock._clock import TimerHandle, check_interval
from phyxius.clock._instant import EPOCH, Instant, duration_ns, wall_ns_of
from phyxius.clock._threads import awaited_threads

# Unlike zero, a start that makes it show if the two scales are mixed up.
_FIRST_MONO_NS = 3_600_000_000_000
# A task that polls with `asyncio.sleep(0)` never goes idle: after so many rounds time moves on regardless.
_MOST_ROUNDS = 500


@attrs.define(eq=False)
class _Timer:
    due_ns: int
    fire: Callable[[], object]
    wall_ns: int | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class ControlledClock:
    """A clock for tests: time stands still until it is moved, and then everything falls due in order.

    It drives real asyncio code: whoever sleeps on it is woken by the call that moves it. It may be read and
    moved from any thread.
    """

    def __init__(self, initial_time: datetime) -> None:
        self._now = Instant(wall_ns=wall_ns_of(initial_time), mono_ns=_FIRST_MONO_NS)
        self._timers: list[tuple[int, int, _Timer]] = []
        self._order = itertools.count()
        self._lock = threading.RLock()
        self._elapsing = False

    def now(self) -> Instant:
        """Read the clock."""
        return self._now

    @property
    def pending_timers(self) -> int:
        """How many sleepers and intervals wait."""
        with self._lock:
            return sum(not timer.cancelled for _, _, timer in self._timers)

    async def sleep(self, duration: timedelta, /) -> None:
        """Return once the clock was moved by `duration`; at once if it is not positive."""
        if duration <= timedelta(0):
            await asyncio.sleep(0)
            return
        await self._wait(self._mono_ns + duration_ns(duration))

    async def sleep_until(self, deadline: datetime, /) -> None:
        """Return once the wall reads `deadline`, be it that time passed or that the wall jumped.

        Raises:
            ValueError: `deadline` has no time zone.
        """
        wall_ns = wall_ns_of(deadline)
        ahead = wall_ns - self._now.wall_ns
        if ahead <= 0:
            await asyncio.sleep(0)
            return
        await self._wait(self._mono_ns + ahead, wall_ns)

    def interval(self, period: timedelta, callback: Callable[[], object], /) -> TimerHandle:
        """Call `callback` once each `period`, until the handle is cancelled; no event loop is needed.

        What the callback raises comes out of the call that moved the clock; the interval goes on.

        Raises:
            ValueError: `period` is not positive.
            TypeError: `callback` is a coroutine function.
        """
        check_interval(period, callback)

        def beat() -> None:
            timer.due_ns += duration_ns(period)
            self._push(timer)
            callback()

        timer = _Timer(self._mono_ns + duration_ns(period), beat)
        self._push(timer)
        return timer

    def advance_by(self, duration: timedelta, /) -> None:
        """Move both scales, firing what falls due on the way, in order, each at its own instant.

        Tasks that wake run when the caller next gives way to the event loop; `elapse` does that at each instant.

        Raises:
            ValueError: `duration` is negative: time does not run backwards; for the wall use `jump_wall_time`.
        """
        self._run_to(self._target(duration))

    def jump_wall_time(self, moment: datetime, /) -> None:
        """Set the wall to `moment` and leave the monotonic scale alone, as a step of NTP does.

        Who waits for a wall time (`sleep_until`) that is now past is woken.

        Raises:
            ValueError: `moment` has no time zone.
        """
        with self._lock:
            self._now = Instant(wall_ns=wall_ns_of(moment), mono_ns=self._mono_ns)
            for _, _, timer in self._timers:
                if timer.wall_ns is not None:
                    timer.due_ns = self._mono_ns + max(timer.wall_ns - self._now.wall_ns, 0)
            self._timers = [(timer.due_ns, order, timer) for _, order, timer in self._timers]
            heapq.heapify(self._timers)
        self._run_to(self._mono_ns)

    def tick(self) -> bool:
        """Move to the next instant at which something falls due, and fire it; False if nothing waits."""
        due_ns = self._next_due()
        if due_ns is None:
            return False
        self._run_to(due_ns)
        return True

    async def elapse(self, duration: timedelta, /, wait_for_threads: bool = True) -> None:
        """Let `duration` pass for running asyncio code, as if it had really passed.

        Tasks that are ready run before time moves. Then the clock goes from one instant at which something
        falls due to the next, and at each the woken tasks run until all of them wait again, so that the timers
        they start on the way count too. Time stands still while a worker thread runs whose answer the library
        still awaits. What waits for the outside world (a socket, a thread of your own) is not waited for.

        Args:
            duration: How much time passes.
            wait_for_threads: Pass False to let time outrun the worker threads, for a test of a hung one.

        Raises:
            ValueError: `duration` is negative.
            RuntimeError: Another `elapse` of this clock is under way.
        """
        if self._elapsing:
            raise RuntimeError("another elapse() of this clock is under way; await it first")
        target_ns = self._target(duration)
        self._elapsing = True
        try:
            await _settle(wait_for_threads)
            while (due_ns := self._next_due()) is not None and due_ns <= target_ns:
                self._run_to(due_ns)
                await _settle(wait_for_threads)
            self._run_to(target_ns)
        finally:
            self._elapsing = False

    @property
    def _mono_ns(self) -> int:
        mono_ns = self._now.mono_ns
        assert mono_ns is not None
        return mono_ns

    def _target(self, duration: timedelta) -> int:
        if duration < timedelta(0):
            raise ValueError(f"a clock cannot be moved by {duration!r}; to set the wall back use jump_wall_time()")
        return self._mono_ns + duration_ns(duration)

    def _push(self, timer: _Timer) -> None:
        with self._lock:
            heapq.heappush(self._timers, (timer.due_ns, next(self._order), timer))

    def _next_due(self) -> int | None:
        with self._lock:
            while self._timers and self._timers[0][2].cancelled:
                heapq.heappop(self._timers)
            return self._timers[0][0] if self._timers else None

    def _run_to(self, target_ns: int) -> None:
        while True:
            with self._lock:
                due_ns = self._next_due()
                if due_ns is None or due_ns > target_ns:
                    self._move_to(target_ns)
                    return
                self._move_to(due_ns)
                timer = heapq.heappop(self._timers)[2]
            timer.fire()

    def _move_to(self, mono_ns: int) -> None:
        self._now = self._now.shifted(max(mono_ns - self._mono_ns, 0))

    async def _wait(self, due_ns: int, wall_ns: int | None = None) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()
        woken = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        def fire() -> None:
            if loop.is_closed():
                return
            if threading.get_ident() == thread:
                wake()
            else:
                loop.call_soon_threadsafe(wake)

        timer = _Timer(due_ns, fire, wall_ns)
        self._push(timer)
        try:
            await woken
        finally:
            timer.cancel()


async def _settle(wait_for_threads: bool) -> None:
    """Return once no task of the running loop is ready, nor any awaited thread at work."""
    await _run_ready()
    while wait_for_threads and (threads := awaited_threads()):
        await asyncio.wait(threads, return_when=asyncio.FIRST_COMPLETED)
        await _run_ready()


async def _run_ready() -> None:
    # asyncio has no public word for "everyone waits". Its own loops keep the ready callbacks in `_ready`; on
    # another loop (uvloop) time moves on after a fixed number of rounds.
    ready: object = getattr(asyncio.get_running_loop(), "_ready", True)
    quiet = 0
    for _ in range(_MOST_ROUNDS):
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1
        if quiet == 2:
            return


def create_controlled_clock(initial_time: datetime = EPOCH) -> ControlledClock:
    """A clock for tests that starts at `initial_time` and moves only when it is told to.

    Raises:
        ValueError: `initial_time` has no time zone.
    """
    return ControlledClock(initial_time)
