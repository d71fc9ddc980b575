"""An event loop in a thread of its own, for callers that have none or must not wait for theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """Runs coroutines for code that cannot await, in a daemon thread that starts with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and wait for it.

        Raises:
            RuntimeError: A finalizer calls it in the very thread that would have to do it.
            BaseException: Whatever the coroutine raised.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a finalizer called this in the very thread that would have to do it")
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def close(self, last: Coroutine[Any, Any, object]) -> None:
        """Run a last coroutine, if there were others before it, and end the thread."""
        if self._loop is None or self._thread is None:
            last.close()
            return
        try:
            self.call(last)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None
