"""Blocking code off the event loop, in daemon threads that a controlled clock knows of."""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Generic, NoReturn, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

Waiting = set[asyncio.Future[Any]]
Outcome: TypeAlias = Callable[[], T]
# How long a thread that waits sleeps at most, in seconds: a signal that came just before it fell asleep, or that
# another thread received, wakes nobody.
_PULSE = 0.2
_carried_on: set[asyncio.Task[Any]] = set()
_awaited: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Waiting] = weakref.WeakKeyDictionary()


def starts(thread: threading.Thread) -> bool:
    """Start a thread. At the exit of the interpreter some versions of Python start none, and then it is False."""
    try:
        thread.start()
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        return False
    return True


def result_of(answer: Future[T]) -> T:
    """Wait for an answer as `answer.result()` does, but never deaf to signals: what a handler raises comes at once.

    CPython runs handlers between two bytecodes of the main thread, and a signal that comes when it has run the last
    one before its wait is otherwise noticed only with the next signal.

    Raises:
        BaseException: Whatever the answer is.
    """
    done = threading.Event()
    answer.add_done_callback(lambda _: done.set())
    while not done.wait(_PULSE):
        pass
    return answer.result()


def run_aside(function: Callable[[], object], name: str) -> None:
    """Run a function that raises nothing in a daemon thread of its own; in place, if none starts any more."""
    if not starts(threading.Thread(target=function, name=name, daemon=True)):
        function()


def awaited_threads() -> Waiting:
    """The threads' results that coroutines of the running loop still wait for."""
    return set(_awaited.get(asyncio.get_running_loop(), ()))


async def carried_on(work: Coroutine[Any, Any, T], /) -> T:
    """Run a coroutine in a task of its own, which runs on to its end if the wait is cancelled.

    It is for what waits for the outside world, such as a database: while someone waits for it, the `elapse` of a
    controlled clock stands still.

    Returns:
        What the coroutine returned.

    Raises:
        BaseException: Whatever the coroutine raised.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Outcome[T]] = loop.create_future()

    async def run() -> None:
        try:
            outcome: Outcome[T] = partial(_same, await work)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is awaited
            outcome = partial(_raise, error)
        if not answer.done():
            answer.set_result(outcome)

    task = loop.create_task(run())
    _carried_on.add(task)  # the event loop holds tasks weakly
    task.add_done_callback(_carried_on.discard)
    return await _awaited_answer(loop, answer)


async def run_in_thread(function: Callable[[], T], /) -> T:
    """Run a plain function in a daemon thread of its own, with the caller's context variables.

    The loop's default executor is not used: its few threads would make calls wait for each other, and a hung
    one would hold up the interpreter's exit. If the wait is cancelled the thread runs on, and what it answers
    is thrown away. While someone waits, the `elapse` of a controlled clock stands still.

    Returns:
        What the function returned.

    Raises:
        BaseException: Whatever the function raised.
    """

    def start(deliver: Callable[[Outcome[T]], object]) -> None:
        work = partial(contextvars.copy_context().run, function)
        run_aside(lambda: deliver(_outcome_of(work)), "phyxius-call")

    return await _answer(start)


class Closable(Protocol):
    """What a thread holds while it serves."""

    def close(self) -> object:
        """Let it go."""


R = TypeVar("R", bound=Closable)
_Job = tuple[Callable[[R], Any], Callable[[Outcome[Any]], object]]


class Workers(Generic[R]):
    """A few daemon threads, each with a resource of its own that never leaves it: a database connection, say.

    A call waits for the next free thread. One whose caller was cancelled runs to its end all the same, so nothing
    that it began is left half done.

    Args:
        open_resource: Makes the resource, in the thread that will use it; if it raises, so does the call.
        most: How many threads there may be. They are started as calls need them.
        name: Names the threads.
    """

    def __init__(self, open_resource: Callable[[], R], *, most: int, name: str) -> None:
        self._open = open_resource
        self._most = most
        self._name = name
        self._jobs: queue.SimpleQueue[_Job[R] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._closed = False
        self._process = os.getpid()

    async def run(self, function: Callable[[R], T], /) -> T:
        """Have a thread call the function with its resource, and wait for what it returns.

        It has the caller's context variables, and the `elapse` of a controlled clock stands still meanwhile.

        Raises:
            RuntimeError: The workers were closed, or belong to the process that this one was forked from.
            BaseException: Whatever the function raised.
        """
        context = contextvars.copy_context()

        def work(resource: R) -> T:
            return context.run(function, resource)

        return await _answer(partial(self._put, work))

    def run_blocking(self, function: Callable[[R], T], /) -> T:
        """The same for code that cannot await.

        Raises:
            RuntimeError: As `run`; or it is called, by a finalizer, in a thread that it would have to wait for.
            BaseException: Whatever the function raised.
        """
        if threading.current_thread() in self._threads:
            raise RuntimeError("a finalizer called this in the very thread that would have to do it")
        answer: Future[Outcome[T]] = Future()
        self._put(function, answer.set_result)
        return result_of(answer)()

    async def close(self, limit: timedelta) -> None:
        """Let the calls end that have begun, then the threads, each closing its resource.

        A thread that is not done within `limit`, in real time, is left behind; it holds up no exit.
        """
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            await run_in_thread(partial(thread.join, limit.total_seconds()))

    def _put(self, function: Callable[[R], T], deliver: Callable[[Outcome[T]], object]) -> None:
        if os.getpid() != self._process:
            raise RuntimeError("this was opened before the process was forked: open it in the child")
        with self._lock:
            if self._closed:
                raise RuntimeError("this was closed")
            if self._unfinished >= len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                if starts(thread):
                    self._threads.append(thread)
                elif not self._threads:
                    raise RuntimeError("the interpreter is about to exit, and starts no thread any more")
            self._unfinished += 1
            self._jobs.put((function, deliver))

    def _work(self) -> None:
        resource: R | None = None
        while (job := self._jobs.get()) is not None:
            function, deliver = job
            try:
                resource = self._open() if resource is None else resource
            except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is awaited
                outcome: Outcome[Any] = partial(_raise, error)
            else:
                outcome = _outcome_of(partial(function, resource))
            with self._lock:
                self._unfinished -= 1
            deliver(outcome)
            del job, function, deliver, outcome  # a thread that waits must not keep what it worked on alive
        if resource is not None:
            resource.close()


async def _answer(start: Callable[[Callable[[Outcome[T]], object]], object]) -> T:
    """Start work in a thread, which delivers what came of it, and wait for that."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Outcome[T]] = loop.create_future()

    def settle(outcome: Outcome[T]) -> None:
        if not answer.done():
            answer.set_result(outcome)

    def deliver(outcome: Outcome[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    start(deliver)
    return await _awaited_answer(loop, answer)


async def _awaited_answer(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Outcome[T]]) -> T:
    """Wait for an answer, and let a controlled clock know of that."""
    waiting = _awaited.setdefault(loop, set())
    waiting.add(answer)
    try:
        return (await answer)()
    finally:
        waiting.discard(answer)


def _outcome_of(work: Callable[[], T]) -> Outcome[T]:
    try:
        return partial(_same, work())
    except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is awaited
        return partial(_raise, error)


def _same(value: T) -> T:
    return value


def _raise(error: BaseException) -> NoReturn:
    raise error
