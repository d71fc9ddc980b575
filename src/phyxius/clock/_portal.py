"""An event loop in a thread of its own, for callers that have none or must not wait for theirs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

from phyxius.clock._threads import result_of, run_aside

T = TypeVar("T")


class PortalClosedError(RuntimeError):
    """It was closed, and runs nothing any more."""


class Portal:
    """Runs coroutines for code that cannot await, in a daemon thread that starts with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop; None before the first call."""
        return self._loop

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and wait for it.

        Raises:
            PortalClosedError: It was closed.
            RuntimeError: A finalizer calls it in the very thread that would have to do it.
            BaseException: Whatever the coroutine raised.
        """
        return result_of(self.start(work))

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have a coroutine run, with the caller's context variables; to cancel the future cancels it.

        Raises:
            PortalClosedError: It was closed.
            RuntimeError: A finalizer calls it in the very thread that would have to do it.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a finalizer called this in the very thread that would have to do it")
        with self._lock:  # what is begun before the end is waited for, and nothing begins after it
            if self._closed:
                work.close()
                raise PortalClosedError("it was closed")
            return asyncio.run_coroutine_threadsafe(work, self._started())

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()
            loop.set_default_executor(_Threads())
            thread = threading.Thread(target=self._serve, args=[loop], name=self._name, daemon=True)
            try:
                thread.start()
            except BaseException:
                loop.close()
                raise
            self._loop, self._thread = loop, thread
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = False
        while not ended:
            # These two go through an event loop, also past those who wait for others; who raised them is told.
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                loop.run_forever()
                ended = True

    def close(self, last: Coroutine[Any, Any, object], limit: timedelta) -> None:
        """Let end what has begun, run a last coroutine, and end the thread.

        What is not done within `limit`, in real time, is cancelled.
        """
        with self._lock:
            was_closed, self._closed = self._closed, True
        if was_closed or self._loop is None or self._thread is None:
            last.close()
            return
        try:
            result_of(asyncio.run_coroutine_threadsafe(_end(last, limit), self._loop))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class _Threads(ThreadPoolExecutor):
    """Runs each call in a daemon thread, also at the exit of the interpreter, when those of the pool have ended.

    An event loop resolves the names of hosts by it; who closes a connection then may have to make one first.
    """

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        answer: Future[T] = Future()

        def run() -> None:
            try:
                outcome = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
                answer.set_exception(error)
            else:
                answer.set_result(outcome)

        run_aside(run, "phyxius-executor")
        return answer


async def _end(last: Coroutine[Any, Any, object], limit: timedelta) -> None:
    if running := asyncio.all_tasks() - {asyncio.current_task()}:
        _, late = await asyncio.wait(running, timeout=limit.total_seconds())
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    await last
