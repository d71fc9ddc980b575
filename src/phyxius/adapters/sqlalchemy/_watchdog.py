"""A limit on how long a server may take to answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import TracebackType
from typing import Self


class Watchdog:
    """An async context manager that cancels its body if it is not fed for a while, in real time.

    Raises:
        TimeoutError: It did.
    """

    def __init__(self, limit: timedelta) -> None:
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self._has_bitten = False

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        task = asyncio.current_task()
        assert task is not None
        self._loop, self._task, self._cancelling = asyncio.get_running_loop(), task, task.cancelling()
        self.feed()
        return self

    def feed(self) -> None:
        """It goes on: the time begins anew."""
        self.rest()
        if not self._has_bitten:
            self._timer = self._loop.call_later(self._limit.total_seconds(), self._bite)

    def rest(self) -> None:
        """Watch no more, until it is fed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _bite(self) -> None:
        self._has_bitten = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say whether it ended the body."""
        self.rest()
        if self._has_bitten and self._task.uncancel() <= self._cancelling and error is not None:
            raise TimeoutError(f"no answer within {self._limit}") from error
