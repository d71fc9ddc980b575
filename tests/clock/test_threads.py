"""Blocking code off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from phyxius.clock import run_in_thread
from phyxius.clock._threads import awaited_threads

subject: contextvars.ContextVar[str] = contextvars.ContextVar("subject", default="nobody")


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> object:
        raise error

    return function


async def test_it_answers_what_the_function_returned() -> None:
    """The answer comes from a daemon thread other than the caller's, and nothing is awaited afterwards."""
    thread = await run_in_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert awaited_threads() == set()


async def test_forty_calls_run_at_once() -> None:
    """No call waits for another, so that forty can meet at one barrier."""
    barrier = threading.Barrier(40)
    places = await asyncio.gather(*(run_in_thread(lambda: barrier.wait(30)) for _ in range(40)))
    assert sorted(places) == list(range(40))


async def test_the_default_executor_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own pool is neither used nor even made."""

    def refuse(*_: object) -> None:
        raise AssertionError("the default executor was used")

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
    assert await run_in_thread(lambda: 1) == 1


async def test_the_thread_sees_a_copy_of_the_context() -> None:
    """The function sees the caller's context variables, and what it sets stays its own."""
    subject.set("caller")

    def work() -> str:
        seen = subject.get()
        subject.set("thread")
        return seen

    assert await run_in_thread(work) == "caller"
    assert subject.get() == "caller"


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError(), asyncio.CancelledError(), GeneratorExit(), BaseException("odd")], ids=repr
)
async def test_what_the_function_raises_is_raised(error: BaseException) -> None:
    """The very exception comes out of the await, whatever its kind, and the thread is no longer awaited."""
    with pytest.raises(type(error)) as caught:
        await run_in_thread(raising(error))
    assert caught.value is error
    assert awaited_threads() == set()


async def test_a_stop_iteration_does_not_hang() -> None:
    """A `StopIteration`, which no future can hold, comes out as any coroutine raises it."""
    with pytest.raises(RuntimeError) as caught:
        await run_in_thread(raising(StopIteration(1)))
    assert isinstance(caught.value.__cause__, StopIteration)


async def test_an_exception_as_an_answer_is_no_failure() -> None:
    """What is returned is returned, be it an exception or a coroutine function."""
    error = ValueError()
    assert await run_in_thread(lambda: error) is error


async def test_a_cancelled_wait_leaves_the_thread_alone() -> None:
    """The waiter is free at once; the thread runs to its end, and its answer is thrown away quietly."""
    opened, ended = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def work() -> None:
        assert opened.wait(10)
        loop.call_soon_threadsafe(ended.set)

    waiter = asyncio.ensure_future(run_in_thread(work))
    await asyncio.sleep(0)
    assert len(awaited_threads()) == 1
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert awaited_threads() == set()

    threads = [thread for thread in threading.enumerate() if thread.name == "phyxius-call"]
    opened.set()
    await ended.wait()
    for thread in threads:
        thread.join(10)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == []


def test_an_answer_after_the_loop_was_closed_is_dropped() -> None:
    """A thread that outlives its loop ends without a complaint; pytest reports any other end."""
    opened = threading.Event()
    before = set(threading.enumerate())

    async def leave() -> None:
        waiter = asyncio.ensure_future(run_in_thread(lambda: opened.wait(10)))
        await asyncio.sleep(0)
        waiter.cancel()

    asyncio.run(leave())
    (thread,) = set(threading.enumerate()) - before
    opened.set()
    thread.join(10)
    assert not thread.is_alive()


def test_each_loop_awaits_its_own_threads() -> None:
    """The threads of one loop are no concern of another."""
    opened = threading.Event()

    async def wait() -> int:
        waiter = asyncio.ensure_future(run_in_thread(lambda: opened.wait(10)))
        await asyncio.sleep(0)
        elsewhere = await run_in_thread(lambda: asyncio.run(count()))
        opened.set()
        assert await waiter
        return elsewhere

    async def count() -> int:
        return len(awaited_threads())

    assert asyncio.run(wait()) == 0


async def test_a_thread_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had, the caller learns it, and no clock waits for the answer."""
    monkeypatch.setattr(threading.Thread, "start", lambda _: raising(RuntimeError("can't start new thread"))())
    with pytest.raises(RuntimeError, match="can't start"):
        await run_in_thread(lambda: 1)
    assert awaited_threads() == set()


def test_a_hung_thread_does_not_hold_up_the_exit() -> None:
    """The interpreter exits although a thread that nobody awaits any more never ends."""
    program = """
        import asyncio, threading
        from phyxius.clock import run_in_thread

        async def main():
            entered = threading.Event()
            def hang():
                entered.set()
                threading.Event().wait()
            waiter = asyncio.ensure_future(run_in_thread(hang))
            await run_in_thread(entered.wait)
            waiter.cancel()

        asyncio.run(main())
        print("done")
    """
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("done\n", "")
