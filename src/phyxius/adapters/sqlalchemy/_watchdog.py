"""A limit on how long a server may take to answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import TracebackType
from typing import Self


class Watchdog:
    """An async context manager that cancels its body if it is not fed for a while, in real time.

    It does so again and again: asyncpg waits on where it is cancelled while it sends many rows.

    Raises:
        TimeoutError: It did.
    """

    def __init__(self, limit: timedelta) -> None:
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None
        self._bites = 0

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
        if not self._bites:
            self._watch()

    def rest(self) -> None:
        """Watch no more, until it is fed; but what it has bitten it does not let go."""
        if not self._bites:
            self._stop()

    def _watch(self) -> None:
        self._timer = self._loop.call_later(self._limit.total_seconds(), self._bite)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _bite(self) -> None:
        self._bites += 1
        self._task.cancel()
        self._watch()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say whether it ended the body."""
        self._stop()
        for _ in range(self._bites):
            self._task.uncancel()
        if self._bites and self._task.cancelling() <= self._cancelling and error is not None:
            raise TimeoutError(f"no answer within {self._limit}") from error
