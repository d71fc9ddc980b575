"""Blocking code off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from datetime import timedelta
from io import StringIO

import pytest

from phyxius.clock import Instant, Workers, carried_on, create_controlled_clock, result_of, run_in_thread
from phyxius.clock._threads import awaited_threads

LIMIT = timedelta(seconds=30)

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


# -- workers


class Resource:
    """Notes in which threads it was made, used and closed."""

    def __init__(self) -> None:
        self.made_in = threading.current_thread()
        self.closed_in: threading.Thread | None = None

    def close(self) -> None:
        self.closed_in = threading.current_thread()


@pytest.fixture
async def made() -> AsyncIterator[list[Resource]]:
    """The resources that a test's workers made; afterwards each is closed where it was made, and no thread is left."""
    before = set(threading.enumerate())
    resources: list[Resource] = []
    yield resources
    assert [each.closed_in for each in resources] == [each.made_in for each in resources]
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), f"{thread.name} is left"


def workers_of(made: list[Resource], most: int = 2) -> Workers[Resource]:
    def open_resource() -> Resource:
        resource = Resource()
        made.append(resource)
        return resource

    return Workers(open_resource, most=most, name="worker")


async def test_workers_answer_from_a_thread_of_their_own(made: list[Resource]) -> None:
    """The resource is made in a daemon thread, used there by call after call, and closed there."""
    workers = workers_of(made)
    used = [await workers.run(lambda resource: (resource, threading.current_thread())) for _ in range(3)]
    used.append(await run_in_thread(lambda: workers.run_blocking(lambda r: (r, threading.current_thread()))))
    (resource,) = made
    assert used == [(resource, resource.made_in)] * 4
    assert resource.made_in.daemon
    assert resource.made_in.name == "worker"
    assert awaited_threads() == set()
    await workers.close(LIMIT)


async def test_a_thread_does_not_wait_for_itself() -> None:
    """A finalizer may run in any thread, also in the only one that could do what it asks for."""
    workers = Workers(Resource, most=1, name="test")

    def finalize(_: Resource) -> None:
        with pytest.raises(RuntimeError, match="a finalizer called this in the very thread"):
            workers.run_blocking(lambda _: None)

    await workers.run(finalize)
    await workers.close(LIMIT)


async def test_workers_are_no_more_than_most(made: list[Resource]) -> None:
    """As many threads as `most` work at once; what is more waits for the next free one, and is served in order."""
    workers = workers_of(made, most=3)
    barrier, released = threading.Barrier(4), threading.Event()
    served: list[int] = []

    def hold(_: Resource) -> None:
        barrier.wait(30)
        assert released.wait(30)

    holding = [asyncio.ensure_future(workers.run(hold)) for _ in range(3)]
    waiting = [asyncio.ensure_future(workers.run(lambda _, n=n: served.append(n))) for n in range(5)]  # type: ignore[misc]
    await run_in_thread(lambda: barrier.wait(30))
    assert (len(made), served) == (3, [])
    released.set()
    await asyncio.gather(*holding, *waiting)
    assert (len(made), sorted(served)) == (3, list(range(5)))
    await workers.close(LIMIT)


async def test_a_free_worker_is_used_before_another_is_started(made: list[Resource]) -> None:
    """Calls one after the other share one thread, however many there may be."""
    workers = workers_of(made, most=8)
    for _ in range(5):
        await workers.run(lambda resource: None)
    assert len(made) == 1
    await workers.close(LIMIT)


@pytest.mark.parametrize(
    "error", [ValueError("no"), asyncio.CancelledError(), GeneratorExit(), BaseException("odd")], ids=repr
)
@pytest.mark.parametrize("blocking", [True, False])
async def test_what_a_workers_function_raises_is_raised(
    made: list[Resource], error: BaseException, blocking: bool
) -> None:
    """The very exception comes out, and the thread with its resource serves on."""
    workers = workers_of(made)

    def fail(_: Resource) -> None:
        raise error

    async def ask() -> None:
        return workers.run_blocking(fail) if blocking else await workers.run(fail)

    with pytest.raises(type(error)) as caught:
        await ask()
    assert caught.value is error
    assert await workers.run(lambda resource: resource) is made[0]
    assert len(made) == 1
    await workers.close(LIMIT)


async def test_a_resource_that_cannot_be_opened(made: list[Resource]) -> None:
    """The call raises what the opening raised, nothing is called, and the next call tries again in the same thread."""
    problems: list[BaseException] = [OSError("not there"), KeyError("still not")]
    threads: list[threading.Thread] = []

    def open_resource() -> Resource:
        threads.append(threading.current_thread())
        if problems:
            raise problems.pop(0)
        made.append(Resource())
        return made[0]

    workers = Workers(open_resource, most=1, name="worker")
    with pytest.raises(OSError, match="not there"):
        await workers.run(lambda _: pytest.fail("it was called without a resource"))
    with pytest.raises(KeyError, match="still not"):
        workers.run_blocking(lambda _: pytest.fail("it was called without a resource"))
    assert await workers.run(lambda resource: resource) is made[0]
    assert len(set(threads)) == 1
    await workers.close(LIMIT)


async def test_workers_that_never_opened_a_resource_close() -> None:
    """Neither workers without a thread nor a thread without a resource have anything to close."""

    def fail() -> Resource:
        raise OSError

    await Workers(Resource, most=1, name="worker").close(LIMIT)
    workers = Workers(fail, most=1, name="worker")
    with pytest.raises(OSError):  # noqa: PT011 - the very one
        await workers.run(lambda _: None)
    await workers.close(LIMIT)
    assert not [thread for thread in threading.enumerate() if thread.name == "worker"]


@pytest.mark.parametrize("begun", [True, False])
async def test_a_call_whose_caller_was_cancelled_runs_to_its_end(made: list[Resource], begun: bool) -> None:
    """The caller is free at once; what it asked for is done all the same, also if it still waited in line."""
    workers = workers_of(made, most=1)
    entered, released = threading.Event(), threading.Event()
    done: list[str] = []

    def hold(_: Resource) -> None:
        entered.set()
        assert released.wait(30)
        done.append("first")

    first = asyncio.ensure_future(workers.run(hold))
    second = asyncio.ensure_future(workers.run(lambda _: done.append("second")))
    await run_in_thread(lambda: entered.wait(30))
    cancelled = first if begun else second
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert done == []
    released.set()
    await workers.close(LIMIT)
    assert done == ["first", "second"]
    await asyncio.wait({first, second})


async def test_workers_see_a_copy_of_the_context(made: list[Resource]) -> None:
    """Each call sees the context variables of its own caller, and what it sets is seen by nobody else."""
    workers = workers_of(made, most=1)

    def work(_: Resource) -> str:
        seen = subject.get()
        subject.set("thread")
        return seen

    for name in ("ada", "bob"):
        subject.set(name)
        assert await workers.run(work) == name
        assert subject.get() == name
    assert workers.run_blocking(lambda _: subject.get()) == "nobody"
    await workers.close(LIMIT)


async def test_elapse_stands_still_while_a_worker_works(made: list[Resource]) -> None:
    """Time does not pass while a worker's answer is awaited, so that no limit falls because a machine is slow."""
    clock = create_controlled_clock()
    workers = workers_of(made)
    began = clock.now()
    seen: list[Instant] = []
    readings: list[Instant] = []

    async def ask() -> None:
        await workers.run(lambda _: readings.append(clock.now()))
        seen.append(clock.now())

    task = asyncio.ensure_future(ask())
    await clock.elapse(timedelta(days=1))
    await task
    assert readings == seen == [began]
    await workers.close(LIMIT)


async def test_closing_waits_for_what_has_begun(made: list[Resource]) -> None:
    """Calls that were made before the close are served, those after it refused."""
    workers = workers_of(made, most=1)
    entered, released = threading.Event(), threading.Event()
    done: list[int] = []

    def hold(_: Resource) -> None:
        entered.set()
        assert released.wait(30)
        done.append(0)

    calls = [asyncio.ensure_future(workers.run(hold))]
    calls += [asyncio.ensure_future(workers.run(lambda _, n=n: done.append(n))) for n in (1, 2)]  # type: ignore[misc]
    await run_in_thread(lambda: entered.wait(30))
    closing = asyncio.ensure_future(workers.close(LIMIT))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="this was closed"):
        await workers.run(lambda _: None)
    with pytest.raises(RuntimeError, match="this was closed"):
        workers.run_blocking(lambda _: None)
    assert not closing.done()
    released.set()
    await closing
    assert done == [0, 1, 2]
    await asyncio.gather(*calls)
    await workers.close(LIMIT)
    assert awaited_threads() == set()


async def test_closing_leaves_a_hung_thread_behind(made: list[Resource]) -> None:
    """A thread that is not done within the limit holds nobody up; it still ends tidily if it ever does."""
    workers = workers_of(made, most=1)
    entered, released = threading.Event(), threading.Event()

    def hang(_: Resource) -> None:
        entered.set()
        assert released.wait(30)

    call = asyncio.ensure_future(workers.run(hang))
    await run_in_thread(lambda: entered.wait(30))
    await workers.close(timedelta(milliseconds=1))
    (resource,) = made
    assert resource.made_in.is_alive()
    assert resource.closed_in is None
    released.set()
    await call
    await run_in_thread(lambda: resource.made_in.join(30))


async def test_a_worker_that_cannot_be_started_is_told(made: list[Resource], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had the caller learns it, and it changes nothing for the calls that follow."""
    workers = workers_of(made, most=2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: raising(RuntimeError("can't start new thread"))())
        with pytest.raises(RuntimeError, match="can't start"):
            await workers.run(lambda _: None)
    assert awaited_threads() == set()
    for _ in range(3):
        await workers.run(lambda _: None)
    assert len([thread for thread in threading.enumerate() if thread.name == "worker"]) == 1
    await workers.close(LIMIT)


async def test_an_idle_worker_keeps_nothing_alive(made: list[Resource]) -> None:
    """A thread that waits for its next call has let go of the last one, of its answer and of what it raised."""

    class Thing:
        def __call__(self, _: Resource) -> Thing:
            return self

        def fail(self, _: Resource) -> None:
            raise ValueError

    workers = workers_of(made, most=1)
    thing = Thing()
    reference = weakref.ref(thing)
    await workers.run(thing)
    with contextlib.suppress(ValueError):
        await workers.run(thing.fail)
    del thing
    async with asyncio.timeout(30):
        while reference() is not None:
            await asyncio.sleep(0)
            gc.collect()
    await workers.close(LIMIT)


def test_an_answer_after_the_loop_of_a_worker_was_closed_is_dropped() -> None:
    """A call that outlives the loop of its caller ends without a complaint, and its thread serves on."""
    opened = threading.Event()
    workers = Workers(Resource, most=1, name="worker")

    async def leave() -> None:
        waiter = asyncio.ensure_future(workers.run(lambda _: opened.wait(30)))
        await asyncio.sleep(0)
        waiter.cancel()

    asyncio.run(leave())
    opened.set()
    assert workers.run_blocking(lambda _: 1) == 1
    asyncio.run(workers.close(LIMIT))


def ran(program: str) -> str:
    """What a program prints; it must not complain."""
    answer = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert answer.stderr == ""
    return answer.stdout


def test_a_forked_child_has_no_workers() -> None:
    """In a forked child, whose threads are gone, a call is refused at once; in the parent they serve on."""
    program = """
        import asyncio, io, os, sys, warnings
        from datetime import timedelta
        from phyxius.clock import Workers

        warnings.simplefilter("ignore")

        def refused(call):
            try:
                call()
            except RuntimeError as error:
                return "forked" in str(error)

        async def main():
            workers = Workers(io.BytesIO, most=2, name="worker")
            await workers.run(lambda _: None)
            child = os.fork()
            if not child:
                fine = refused(lambda: workers.run_blocking(lambda _: None))
                fine = fine and refused(lambda: asyncio.run(workers.run(lambda _: None)))
                os._exit(0 if fine else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print(await workers.run(lambda _: "served"))
            await workers.close(timedelta(seconds=30))

        asyncio.run(main())
    """
    assert ran(program) == "served\n"


async def test_workers_of_another_process_are_refused(made: list[Resource]) -> None:
    """What tells a forked child is the number of its process."""
    workers = workers_of(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(RuntimeError, match="before the process was forked: open it in the child"):
            await workers.run(lambda _: None)
        with pytest.raises(RuntimeError, match="forked"):
            workers.run_blocking(lambda _: None)
    await workers.run(lambda _: None)
    await workers.close(LIMIT)


def test_a_hung_worker_does_not_hold_up_the_exit() -> None:
    """The interpreter exits although a worker never ends, nor was closed."""
    program = """
        import asyncio, io, threading
        from phyxius.clock import Workers

        async def main():
            entered = threading.Event()
            def hang(_):
                entered.set()
                threading.Event().wait()
            workers = Workers(io.BytesIO, most=1, name="worker")
            waiter = asyncio.ensure_future(workers.run(hang))
            while not entered.is_set():
                await asyncio.sleep(0)
            waiter.cancel()

        asyncio.run(main())
        print("done")
    """
    assert ran(program) == "done\n"


# -- coroutines that are carried on


async def test_a_coroutine_is_carried_on() -> None:
    """It answers what the coroutine returned or raised, and nothing is awaited afterwards."""

    async def work(error: Exception | None = None) -> str:
        assert len(awaited_threads()) == 1
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return subject.get()

    subject.set("ada")
    assert await carried_on(work()) == "ada"
    with pytest.raises(KeyError, match="mine"):
        await carried_on(work(KeyError("mine")))
    assert awaited_threads() == set()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("fails", [False, True])
async def test_who_leaves_does_not_stop_it(fails: bool) -> None:
    """It runs to its end all the same, and what it answers, or raises, is thrown away."""
    gate, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        ended.set()
        if fails:
            raise KeyError("nobody hears of it")

    task = asyncio.ensure_future(carried_on(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert awaited_threads() == set()
    gate.set()
    await asyncio.wait_for(ended.wait(), 30)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_time_stands_still_while_it_is_awaited() -> None:
    """The `elapse` of a controlled clock waits for the outside world where a coroutine is carried on."""
    clock = create_controlled_clock()
    seen: list[Instant] = []
    answered = asyncio.get_running_loop().create_future()

    async def outside() -> None:
        await asyncio.to_thread(lambda: None)
        answered.set_result(None)

    async def work() -> None:
        await answered
        seen.append(clock.now())

    began = clock.now()
    waiting = asyncio.ensure_future(carried_on(work()))
    elsewhere = asyncio.ensure_future(outside())
    await clock.elapse(timedelta(days=1))
    assert seen == [began]
    await asyncio.gather(waiting, elsewhere)


def test_an_event_loop_that_ends_ends_it() -> None:
    """It is a task like others: where all are cancelled, it is, and who waits hears of that."""
    heard: list[type[BaseException]] = []

    async def wait() -> None:
        try:
            await carried_on(asyncio.Event().wait())
        except BaseException as error:
            heard.append(type(error))
            raise

    async def main() -> None:
        for task in [asyncio.ensure_future(wait())]:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            (inner,) = asyncio.all_tasks() - {task, asyncio.current_task()}
            inner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert heard == [asyncio.CancelledError]


# -- the exit of the interpreter


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at exit, where some versions of Python start no thread any more."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fail)


async def test_where_no_thread_starts_any_more_it_runs_here(no_threads: None) -> None:
    """Whoever closes something at exit gets that done."""
    assert await run_in_thread(threading.current_thread) is threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await run_in_thread(lambda: 1 / 0)


async def test_another_reason_why_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no more of them is told of."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await run_in_thread(threading.current_thread)


async def test_the_threads_that_are_there_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that would have started another one do without; where there is none, they say so."""
    workers: Workers[StringIO] = Workers(StringIO, most=2, name="w")
    first = await workers.run(lambda _: threading.current_thread())
    gate = threading.Event()
    held = asyncio.ensure_future(workers.run(lambda _: gate.wait(30)))
    await asyncio.sleep(0)

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        waits = asyncio.ensure_future(workers.run(lambda _: threading.current_thread()))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="starts no thread any more"):
            await Workers(StringIO, most=1, name="none").run(lambda _: None)
        gate.set()
        assert await held
        assert await waits is first
    await workers.close(timedelta(seconds=30))


# -- result_of


class LimitError(TimeoutError):
    """The time limit of an application."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """A signal whose handler raises, as some limit the time of plain code."""

    def expire(*_: object) -> None:
        raise LimitError

    before = signal.signal(signal.SIGALRM, expire)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_signal_that_wakes_nobody_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread receives it, as if it had come between the last bytecode before the wait and the wait.

    What its handler raises comes out, also if it looks like what a wait raises.
    """
    answer: Future[str] = Future()
    waits, noticed = threading.Event(), threading.Event()
    wait = threading.Event.wait

    def wait_and_tell(event: threading.Event, limit: float | None = None) -> bool:
        waits.set()
        return wait(event, limit)

    def interrupt() -> None:
        wait(waits, 30)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
        wait(noticed, 10)
        answer.set_result("too late")

    thread = threading.Thread(target=interrupt)
    thread.start()
    monkeypatch.setattr(threading.Event, "wait", wait_and_tell)
    with pytest.raises(LimitError):
        result_of(answer)
    was_done = answer.done()
    noticed.set()
    thread.join()
    assert not was_done


def test_a_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lasts as long as there is no answer."""
    answer: Future[str] = Future()
    waits: list[object] = []

    def wait(event: threading.Event, limit: float | None = None) -> bool:
        waits.append(limit)
        if len(waits) == 3:
            answer.set_result("at last")
        return event.is_set()

    monkeypatch.setattr(threading.Event, "wait", wait)
    assert result_of(answer) == "at last"
    assert len(waits) == 3


@pytest.mark.parametrize(
    "error", [TimeoutError("its own"), CancelledError(), KeyError("x")], ids=lambda each: type(each).__name__
)
def test_an_answer_that_is_an_error(error: Exception) -> None:
    """It is raised."""
    answer: Future[str] = Future()
    answer.set_exception(error)
    with pytest.raises(type(error)) as raised:
        result_of(answer)
    assert raised.value is error


def test_an_answer_that_is_withdrawn() -> None:
    """There is none, then."""
    answer: Future[str] = Future()
    answer.cancel()
    with pytest.raises(CancelledError):
        result_of(answer)
