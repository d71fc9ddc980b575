"""One event loop in the background, for all code of this process that has none."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, TypeVar

from phyxius.clock import Portal, result_of

T = TypeVar("T")
_logger = logging.getLogger("phyxius.blocking")
_LIMIT = timedelta(seconds=10)


class Background:
    """An event loop in a daemon thread, which starts when it is first needed, and what is open there.

    A forked child has one of its own; what the parent opened stays with the parent.
    """

    def __init__(self) -> None:
        self._left_to_parents: list[object] = []
        self._begin()

    def _begin(self) -> None:
        self._portal = Portal("phyxius-blocking")
        self._calls: set[Future[Any]] = set()
        self._open: list[Opened[Any]] = []
        self._closing = False
        self._lock = threading.RLock()  # a signal may come while it is held, and its handler ask for something

    def renew(self) -> None:
        """Begin anew, in a forked child. What the parent has there must not be collected: it would be left here."""
        self._left_to_parents += [self._portal, self._calls, self._open, *_all_tasks(self._portal)]
        self._begin()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have a coroutine run.

        Raises:
            RuntimeError: This thread runs an event loop, or the interpreter is about to exit.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError(
                "this thread runs an event loop, which would stand still meanwhile: await the method of the Migration"
                " itself, or call this in another thread, by `await asyncio.to_thread(...)`"
            )
        with self._lock:  # either it begins before the end, which waits for it, or not at all
            if self._closing:
                raise RuntimeError("the interpreter is about to exit, and all that was open is closed")
            answer = self._portal.start(work)
            self._calls.add(answer)
        answer.add_done_callback(self._calls.discard)
        return answer

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and wait for what it returns. Who is interrupted here, as by Ctrl-C, cancels it first."""
        job = _Job(work)
        running = job.run()
        answer: Future[T] | None = None
        try:
            answer = self.start(running)
            return result_of(answer)
        except BaseException as error:
            # Without an answer it was refused, unless what came is no error.
            interrupted = not isinstance(error, Exception) if answer is None else not answer.done()
            if interrupted:
                job.unwanted = True
                result_of(self.start(job.cancel()))
            raise
        finally:
            if not job.begun:
                running.close()
                work.close()

    def entered(self, opened: Opened[Any]) -> None:
        """Note what is open."""
        self._open.append(opened)

    def left(self, opened: Opened[Any]) -> None:
        """Note that it is so no more."""
        if opened in self._open:
            self._open.remove(opened)

    def close(self) -> None:
        """Let what was asked end, leave what is open, the last one first, and end."""
        with self._lock:
            self._closing = True
        wait(list(self._calls), timeout=_LIMIT.total_seconds())
        while self._open:
            opened = self._open.pop()
            try:
                self._portal.start(opened.leave(None)).result(_LIMIT.total_seconds())
            except Exception:
                _logger.exception("%r could not be closed at exit", opened.resource)
        self._portal.close(asyncio.sleep(0), _LIMIT)


def _all_tasks(portal: Portal) -> list[object]:
    """All that runs on its event loop."""
    return [] if portal.loop is None else list(asyncio.all_tasks(portal.loop))


class _Job(Generic[T]):
    """A coroutine that somebody waits for in another thread, who may be interrupted at any moment."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self.begun = self.unwanted = False

    async def run(self) -> T:
        self._task = asyncio.current_task()
        if self.unwanted:
            raise asyncio.CancelledError
        self.begun = True
        return await self._work

    async def cancel(self) -> None:
        """Have it end; what was sent here before this has begun by now, or never will."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


class Opened(Generic[T]):
    """An async context manager that is open in the background; a context manager. Its whole life is one task."""

    def __init__(self, resource: AbstractAsyncContextManager[T, Any]) -> None:
        self.resource = resource

    def __enter__(self) -> T:
        """Enter it, and wait for that."""
        self._process = os.getpid()
        return _background.run(self._enter())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Leave it, and wait for that. It is told of an error, and may swallow it."""
        if self._process != os.getpid():  # pragma: no cover - in a fork, where what is open is the parent's
            return False
        return _background.run(self.leave(error))

    async def _enter(self) -> T:
        loop = asyncio.get_running_loop()
        self._leaving: asyncio.Future[BaseException | None] = loop.create_future()
        entered: asyncio.Future[T] = loop.create_future()
        self._life = loop.create_task(self._live(entered))
        waited: set[asyncio.Future[Any]] = {self._life, entered}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._life.cancel()
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            self._leaving.set_result(None)  # if it has swallowed that, and is open
            await asyncio.wait({self._life})
            if not self._life.cancelled():
                self._life.exception()  # which nobody asks for any more
            raise
        if self._life.done():
            self._life.result()  # it raised
        _background.entered(self)
        return entered.result()

    async def _live(self, entered: asyncio.Future[T]) -> None:
        value = await self.resource.__aenter__()
        try:
            entered.set_result(value)
            if (error := await self._leaving) is not None:
                raise error
        except GeneratorExit:  # it is collected, with its event loop or without: nothing can be awaited any more
            raise
        except BaseException as error:
            if not await self.resource.__aexit__(type(error), error, error.__traceback__):
                raise
        else:
            await self.resource.__aexit__(None, None, None)

    async def leave(self, error: BaseException | None) -> bool:
        """Leave it; whether it has swallowed the error."""
        _background.left(self)
        if not self._leaving.done():
            self._leaving.set_result(error)
        await asyncio.wait({self._life})
        if (raised := self._life.exception()) is None:
            return error is not None
        if raised is error:
            return False
        raise raised


_background = Background()
atexit.register(_background.close)
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_background.renew)


def run(work: Coroutine[Any, Any, T], /) -> T:
    """Run a coroutine on the event loop in the background, and wait for what it returns.

    It is for the async methods that have no plain twin here: `run(stores.attestations.sign(...))`. Any thread may call
    it. An interrupt, such as Ctrl-C, cancels the coroutine, waits until that has ended, and goes on. A second one
    meanwhile goes on at once: what becomes of the coroutine is unknown then, and the interpreter waits for it for ten
    seconds at most when it exits.

    Raises:
        TypeError: That is no coroutine.
        RuntimeError: This thread runs an event loop, or the interpreter is about to exit.
        BaseException: Whatever the coroutine raised.
    """
    if not isinstance(work, Coroutine):
        raise TypeError(f"a coroutine is wanted, such as stores.attestations.sign(...), not {work!r}")
    return _background.run(work)


def opened(resource: AbstractAsyncContextManager[T, Any], /) -> AbstractContextManager[T]:
    """An async context manager, such as stores or a recorder, for a plain `with`. It lives in the background.

    Raises:
        RuntimeError: As for `run`, when it is entered.
    """
    return Opened(resource)


def keep_open(resource: AbstractAsyncContextManager[T, Any], /) -> T:
    """Enter an async context manager, and leave it at the exit of the interpreter; the last one first.

    It is for what lives as long as its process, such as the stores and the recorder of a web worker. A worker that is
    forked calls it after the fork: what the parent has open is the parent's, and is not closed by the child.

    Returns:
        What it gave when it was entered.

    Raises:
        RuntimeError: As for `run`.
        BaseException: Whatever it raised when it was entered.
    """
    return Opened(resource).__enter__()
