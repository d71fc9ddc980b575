"""Blocking code off the event loop, in daemon threads that a controlled clock knows of."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

Waiting = set[asyncio.Future[Any]]
_awaited: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Waiting] = weakref.WeakKeyDictionary()


def awaited_threads() -> Waiting:
    """The threads' results that coroutines of the running loop still wait for."""
    return set(_awaited.get(asyncio.get_running_loop(), ()))


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
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Callable[[], T]] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        outcome: Callable[[], T]
        try:
            value = context.run(function)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the answer is awaited
            outcome = partial(_raise, error)
        else:
            outcome = partial(_same, value)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, outcome)

    def deliver(outcome: Callable[[], T]) -> None:
        if not answer.done():
            answer.set_result(outcome)

    threading.Thread(target=work, name="phyxius-call", daemon=True).start()
    waiting = _awaited.setdefault(loop, set())
    waiting.add(answer)
    try:
        return (await answer)()
    finally:
        waiting.discard(answer)


def _same(value: T) -> T:
    return value


def _raise(error: BaseException) -> NoReturn:
    raise error
