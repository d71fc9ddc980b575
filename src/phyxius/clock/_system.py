"""The operating system's time. Nothing else in the library reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from phyxius.clock._clock import TimerHandle, check_interval
from phyxius.clock._instant import Instant, wall_ns_of

# A wall clock can be set while somebody waits for it, so a long wait looks at it now and then.
_LONGEST_WAIT = 30.0


class SystemClock:
    """The clock of production code. Waiting needs a running event loop."""

    def now(self) -> Instant:
        """Read the wall clock and the monotonic clock of the operating system."""
        return Instant(wall_ns=time.time_ns(), mono_ns=time.monotonic_ns())

    async def sleep(self, duration: timedelta, /) -> None:
        """Return once `duration` has passed; at once if it is not positive."""
        await asyncio.sleep(duration.total_seconds())

    async def sleep_until(self, deadline: datetime, /) -> None:
        """Return once the wall clock reads `deadline`; a clock that is set is noticed within half a minute.

        Raises:
            ValueError: `deadline` has no time zone.
        """
        deadline_ns = wall_ns_of(deadline)
        while (remaining := (deadline_ns - time.time_ns()) / 1e9) > 0:  # noqa: ASYNC110 - it waits for the wall
            await asyncio.sleep(min(remaining, _LONGEST_WAIT))

    def interval(self, period: timedelta, callback: Callable[[], object], /) -> TimerHandle:
        """Call `callback` once each `period` on the running loop, until the handle is cancelled.

        The beat does not drift, beats that a blocked loop missed are left out, and a callback that raises is
        reported to the loop's exception handler and does not stop the timer.

        Raises:
            ValueError: `period` is not positive.
            TypeError: `callback` is a coroutine function.
            RuntimeError: No event loop is running.
        """
        check_interval(period, callback)
        return _Interval(asyncio.get_running_loop(), period.total_seconds(), callback)


class _Interval:
    def __init__(self, loop: asyncio.AbstractEventLoop, period: float, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._period = period
        self._callback = callback
        self._due = loop.time()
        self._arm()

    def _arm(self) -> None:
        behind = max(self._loop.time() - self._due, 0.0)
        self._due += (behind // self._period + 1) * self._period
        self._handle = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        self._arm()
        self._callback()

    def cancel(self) -> None:
        self._handle.cancel()


_SYSTEM_CLOCK = SystemClock()


def create_system_clock() -> SystemClock:
    """The clock of the operating system: one and the same object at every call, since there is one time."""
    return _SYSTEM_CLOCK
