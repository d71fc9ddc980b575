"""What a clock must offer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from phyxius.clock._instant import Instant


class TimerHandle(Protocol):
    """A repeating timer that can be stopped."""

    def cancel(self) -> None:
        """Stop the timer; a second call does nothing."""


class Clock(Protocol):
    """The source of time. Pass one clock to everything that takes part in a migration."""

    def now(self) -> Instant:
        """Read the clock: both scales, `mono_ns` never None."""
        ...

    async def sleep(self, duration: timedelta, /) -> None:
        """Return once `duration` has passed on the monotonic clock; at once if it is not positive."""

    async def sleep_until(self, deadline: datetime, /) -> None:
        """Return once the wall clock reads `deadline` or later.

        Raises:
            ValueError: `deadline` has no time zone.
        """

    def interval(self, period: timedelta, callback: Callable[[], object], /) -> TimerHandle:
        """Call the plain function `callback` once each `period`, until the handle is cancelled.

        Raises:
            ValueError: `period` is not positive.
            TypeError: `callback` is a coroutine function.
        """
        ...


def check_interval(period: timedelta, callback: Callable[[], object]) -> None:
    """Refuse the arguments of `interval` that no clock can serve."""
    if period <= timedelta(0):
        raise ValueError(f"the period of an interval must be positive, not {period!r}")
    if inspect.iscoroutinefunction(callback):
        raise TypeError("an interval calls a plain function: for async work let it start a task")
