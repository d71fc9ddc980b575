"""Limits on the time that awaited code may take, measured on an injected clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import attrs

from phyxius.clock._clock import Clock
from phyxius.clock._instant import Instant, duration_ns
from phyxius.fp import Err, Ok, Result

T = TypeVar("T")

# The event loop holds tasks weakly; one that was abandoned still has to run to its end.
_unfinished: set[asyncio.Task[Any]] = set()


class timeout:  # noqa: N801 - it reads like asyncio.timeout
    """An async context manager that cancels its body after `limit` on `clock` and raises `TimeoutError`.

    It does what `asyncio.timeout` does, on the clock that it is given. A body that ends by itself just when the
    limit falls has ended; to have a late answer refused, use `gather_within`.

    Raises:
        TimeoutError: The body was cancelled because its time was up.
    """

    def __init__(self, clock: Clock, limit: timedelta) -> None:
        self._clock = clock
        self._limit = limit

    async def __aenter__(self) -> timeout:
        """Start the limit."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("timeout() needs to run inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self._watch = _start(self._expire(task, self._clock.now()))
        return self

    async def _expire(self, task: asyncio.Task[Any], began: Instant) -> None:
        await _sleep_from(self._clock, began, self._limit)
        self._expired = True
        task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lift the limit, and say whether it ended the body."""
        self._watch.cancel()
        if self._expired and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError(f"not done within {self._limit}") from error


@attrs.frozen
class Limited(Generic[T]):
    """A call, and the time that it may take."""

    function: Callable[[], Awaitable[T]]
    limit: timedelta


@attrs.frozen
class Settled(Generic[T]):
    """How a limited call ended, and when."""

    result: Result[T, BaseException]
    at: Instant


async def gather_within(
    clock: Clock, calls: Mapping[str, Limited[T]], on_settled: Callable[[str, Settled[T]], None] | None = None
) -> dict[str, Settled[T]]:
    """Run calls at once, each in a task of its own, and wait until each has ended or used up its limit.

    All limits count from the start of the gathering. The end of a call is stamped: what ends at or after its
    limit has timed out, even if the loop was blocked so that no timer fired. A call that times out is cancelled
    and not waited for, so one that swallows its cancellation holds nobody up. If the gathering itself is
    cancelled, so are all its calls.

    Args:
        clock: Measures the limits.
        calls: The calls, by name.
        on_settled: Is told of each end as it comes; must not raise.

    Returns:
        For each name the `Ok` of what its call returned, or the `Err` of what it raised (`TimeoutError` if it
        was late, `CancelledError` if it ended in one), with the instant of its end.
    """
    gathering = _Gathering(clock, calls, on_settled)
    try:
        gathering.start()
        await gathering.all_settled
    finally:
        gathering.stop()
    return gathering.settled


class _Gathering(Generic[T]):
    def __init__(
        self, clock: Clock, calls: Mapping[str, Limited[T]], on_settled: Callable[[str, Settled[T]], None] | None
    ) -> None:
        self._clock = clock
        self._calls = calls
        self._on_settled = on_settled
        self._began = clock.now()
        self._ended: dict[str, Instant] = {}
        self._tasks: dict[str, asyncio.Task[T]] = {}
        self._watches: list[asyncio.Task[None]] = []
        self.settled: dict[str, Settled[T]] = {}
        self.all_settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        if not self._calls:
            self.all_settled.set_result(None)
        for name, call in self._calls.items():
            task = self._tasks[name] = _start(self._run(name, call))
            task.add_done_callback(partial(self._on_done, name))
        for limit in {call.limit for call in self._calls.values()}:
            watch = _start(_sleep_from(self._clock, self._began, limit))
            watch.add_done_callback(partial(self._on_limit, limit))
            self._watches.append(watch)

    async def _run(self, name: str, call: Limited[T]) -> T:
        try:
            return await call.function()
        finally:
            self._ended[name] = self._clock.now()

    def _on_done(self, name: str, task: asyncio.Task[T]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if name in self.settled:
            return
        at = self._ended.get(name) or self._clock.now()
        if at.ns_since(self._began) >= duration_ns(self._calls[name].limit):
            self._settle(name, Err(self._too_late(name)), at)
        elif error is not None:
            self._settle(name, Err(error), at)
        else:
            self._settle(name, Ok(task.result()), at)

    def _on_limit(self, limit: timedelta, watch: asyncio.Task[None]) -> None:
        if watch.cancelled():
            return
        broken = watch.exception()
        for name, call in self._calls.items():
            if call.limit == limit and name not in self._ended:
                self._settle(name, Err(broken or self._too_late(name)), self._clock.now())
                self._tasks[name].cancel()

    def _too_late(self, name: str) -> TimeoutError:
        return TimeoutError(f"no answer within {self._calls[name].limit}")

    def _settle(self, name: str, result: Result[T, BaseException], at: Instant) -> None:
        self.settled[name] = Settled(result, at)
        try:
            if self._on_settled is not None:
                self._on_settled(name, self.settled[name])
        finally:  # whoever watches may leave the interpreter; who waits must not wait for ever
            if len(self.settled) == len(self._calls) and not self.all_settled.done():
                self.all_settled.set_result(None)

    def stop(self) -> None:
        self._on_settled = None  # what is cancelled from here on is no answer
        # A second cancellation would break into the clean-up of a call that was late.
        unsettled = [task for name, task in self._tasks.items() if name not in self.settled]
        for task in (*unsettled, *self._watches):
            if self.all_settled.get_loop().is_closed():
                _unfinished.discard(task)  # it can never go on: this coroutine is thrown away after its loop
            else:
                task.cancel()


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a task of its own, whoever cancels the wait; that goes on once it has ended.

    Raises:
        BaseException: What the coroutine raised, or the cancellation with that as its cause.
    """
    task = _start(work)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted from (None if task.cancelled() else task.exception())
    return cast("T", task.result())


async def _sleep_from(clock: Clock, began: Instant, duration: timedelta) -> None:
    """Sleep until `duration` after `began`, however late the event loop comes to it."""
    await clock.sleep(duration - timedelta(microseconds=clock.now().ns_since(began) // 1_000))


def _start(coroutine: Any) -> asyncio.Task[Any]:
    task = asyncio.get_running_loop().create_task(coroutine)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    return task
