"""One event loop in the background, for all code of a process that has none."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from phyxius.blocking import _background as module
from phyxius.blocking import keep_open, opened, run
from phyxius.blocking._background import Background, Opened, _background
from tests.blocking.support import Interrupted, interrupting

LIMIT = timedelta(seconds=30)
request: contextvars.ContextVar[str] = contextvars.ContextVar("request")


async def where() -> tuple[threading.Thread, str]:
    await asyncio.sleep(0)
    return threading.current_thread(), request.get("none")


def program(text: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, which must not say anything on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    return done


# -- run


def test_all_runs_on_one_event_loop() -> None:
    """In a daemon thread, whichever thread asks, and with its context variables."""
    seen: list[tuple[threading.Thread, str]] = []

    def ask(name: str) -> None:
        request.set(name)
        seen.append(run(where()))

    threads = [threading.Thread(target=ask, args=[str(number)]) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    there = run(where())[0]
    assert there.daemon
    assert sorted(seen, key=lambda each: each[1]) == [(there, str(number)) for number in range(5)]


def test_what_it_raises_comes_out() -> None:
    """As it is."""
    error = LookupError("x")

    async def fail() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        run(fail())
    assert caught.value is error


async def test_an_event_loop_must_not_wait() -> None:
    """It would stand still, and the message says what to do instead."""
    with pytest.raises(RuntimeError, match="await the method of the Migration itself, or call this in another thread"):
        run(where())
    with pytest.raises(RuntimeError, match="another thread"), opened(resource([])):
        pass
    assert (await asyncio.to_thread(run, where()))[0] is not threading.current_thread()


def test_only_coroutines_run() -> None:
    """Else it could not be told whether it belongs to another event loop."""
    wrong: Any = where
    with pytest.raises(TypeError, match="a coroutine is wanted"):
        run(wrong)


INTERRUPTED = """
import asyncio
from phyxius.blocking import run

async def work():
    print("runs", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("tidied up", flush=True)

try:
    run(work())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_cancels_what_runs() -> None:
    """And waits for it: what it tidies up is done by the time that the interrupt goes on."""
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().splitlines() == ["tidied up", "interrupted"]


@pytest.mark.parametrize("is_sent", [True, False])
def test_ctrl_c_cancels_what_has_not_begun(is_sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never will, whether it was sent to the event loop or not."""
    start, began = _background.start, list[str]()
    gate = threading.Event()

    def interrupted(job: Any) -> Any:
        if not began:
            began.append("sent")
            if is_sent:
                start(job)
            return Interrupted()
        gate.set()
        return start(job)

    async def busy() -> None:
        gate.wait(30)  # it holds up the event loop, so that the other one cannot begin

    async def work() -> None:
        began.append("began")

    start(busy())
    monkeypatch.setattr(_background, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert began == ["sent"]


# -- opened


@asynccontextmanager
async def resource(told: list[object], swallows: bool = False) -> AsyncIterator[str]:
    task = asyncio.current_task()
    told.append("entered")
    try:
        async with asyncio.timeout(30):  # which wants to be left in the task that entered it
            yield "value"
    except LookupError as error:
        told.append(error)
        if not swallows:
            raise
    finally:
        told.append("left" if asyncio.current_task() is task else "left elsewhere")


def test_what_is_open_lives_in_one_task() -> None:
    """As in an `async with`: what it holds may be a task's own."""
    told: list[object] = []
    with opened(resource(told)) as value:
        assert (value, told) == ("value", ["entered"])
    assert told == ["entered", "left"]


@pytest.mark.parametrize("swallows", [False, True])
def test_what_is_open_is_told_of_errors(swallows: bool) -> None:
    """It may swallow them, and else they go on as they are."""
    told: list[object] = []
    error, went_on = LookupError("x"), None
    try:
        with opened(resource(told, swallows)):
            raise error
    except LookupError as raised:
        went_on = raised
    assert went_on is (None if swallows else error)
    assert told == ["entered", error, "left"]


def test_what_cannot_be_opened() -> None:
    """The error comes out, and there is nothing to leave."""

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise LookupError("x")
        yield

    with pytest.raises(LookupError), opened(broken()):
        pass


def test_what_cannot_be_closed() -> None:
    """The error comes out."""

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise LookupError("x")

    with pytest.raises(LookupError), opened(broken()):
        pass


def test_ctrl_c_while_something_is_opened() -> None:
    """It is not open, then."""
    told, opening = list[str](), threading.Event()

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        opening.set()
        try:
            await asyncio.Event().wait()
        finally:
            told.append("left")
        yield

    with interrupting(opening), pytest.raises(KeyboardInterrupt), opened(slow()):
        pass
    assert told == ["left"]


def test_ctrl_c_while_something_is_opened_that_swallows_it() -> None:
    """It is left again."""
    told, opening = list[str](), threading.Event()

    @asynccontextmanager
    async def stubborn() -> AsyncIterator[None]:
        opening.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        told.append("open")
        yield
        told.append("left")

    with interrupting(opening), pytest.raises(KeyboardInterrupt), opened(stubborn()):
        told.append("used")
    assert told == ["open", "left"]


def test_ctrl_c_while_something_is_opened_that_fails_then(caplog: pytest.LogCaptureFixture) -> None:
    """Who was interrupted does not want to know."""
    opening = threading.Event()

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        opening.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError("x")
        yield

    with interrupting(opening), pytest.raises(KeyboardInterrupt), opened(failing()):
        pass
    gc.collect()
    assert caplog.records == []


# -- keep_open, and the end of a process


def test_what_is_kept_open(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It stays so until the end: then the last is closed first, and one that cannot be keeps no other open."""
    monkeypatch.setattr(module, "_background", background := Background())
    told: list[object] = []

    @asynccontextmanager
    async def broken() -> AsyncIterator[int]:
        yield 7
        raise OSError("it is gone")

    assert [keep_open(resource(told)), keep_open(broken())] == ["value", 7]
    assert told == ["entered"]
    background.close()
    assert told == ["entered", "left"]
    (record,) = caplog.records
    assert "could not be closed at exit" in record.message
    with pytest.raises(RuntimeError, match="the interpreter is about to exit"):
        run(where())
    background.close()


KEPT = """
import atexit
from contextlib import asynccontextmanager
from phyxius.blocking import keep_open, run

@asynccontextmanager
async def resource(name):
    yield name
    print("left", name, flush=True)
    if name == "broken":
        raise OSError("it is gone")

async def nothing():
    return 1

def late():
    try:
        run(nothing())
    except RuntimeError as error:
        print(error)


print([keep_open(resource(name)) for name in ("first", "second")])
"""


def test_what_is_kept_open_is_closed_at_exit() -> None:
    """The last one first."""
    assert program(KEPT).stdout.splitlines() == ["['first', 'second']", "left second", "left first"]
    assert program(f"{KEPT}\nraise SystemExit(3)").returncode == 3


def test_one_that_cannot_be_closed_keeps_no_other_open() -> None:
    """It is logged, and the rest goes on."""
    text = "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\n" + KEPT
    told = program(text + "keep_open(resource('broken'))").stdout.splitlines()
    assert told[1] == "left broken"
    assert "could not be closed at exit" in told[2]
    assert told[-3:] == ["OSError: it is gone", "left second", "left first"]


def test_nothing_runs_after_that() -> None:
    """What comes later is told so, and does not wait for ever."""
    text = "import atexit\natexit.register(lambda: late())\n" + KEPT
    assert program(text).stdout.splitlines()[-1] == "the interpreter is about to exit, and all that was open is closed"


FORKED = """
import os
import sys
from contextlib import asynccontextmanager
from phyxius.blocking import keep_open, opened, run

@asynccontextmanager
async def resource(name):
    yield name
    print("left", name, "as", who, flush=True)

async def answer():
    return who

who = "parent"
keep_open(resource("kept"))
with opened(resource("opened")):
    child = os.fork()
    if not child:
        who = "child"
        print(run(answer()), flush=True)
        keep_open(resource("of the child"))
    else:
        os.waitpid(child, 0)
        print(run(answer()), flush=True)
"""


def test_what_a_parent_has_open_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child begins anew; what it came by is neither left there nor collected, which would leave it half."""
    monkeypatch.setattr(module, "_background", background := Background())
    told: list[object] = []
    keep_open(resource(told))
    (kept,), portal, thread = background._open, background._portal, run(where())[0]
    background.renew()
    assert run(where())[0] is not thread
    background.close()
    assert told == ["entered"]
    portal.start(kept.leave(None)).result(30)
    assert told == ["entered", "left"]
    portal.close(where(), LIMIT)


async def test_what_is_collected_is_not_left() -> None:
    """There nothing can be awaited, and its event loop may be gone."""
    told: list[object] = []
    opened = Opened(resource(told))
    opened._leaving = asyncio.get_running_loop().create_future()
    life = opened._live(asyncio.get_running_loop().create_future())
    life.send(None)
    life.close()
    assert told == ["entered"]
    await opened.resource.__aexit__(None, None, None)


def test_to_leave_twice_changes_nothing() -> None:
    """As where the end of a block and the exit of the interpreter meet."""
    told: list[object] = []
    both = Opened(resource(told))
    with both:
        pass
    assert both.__exit__(None, None, None) is False
    assert told == ["entered", "left"]


AT_EXIT = """
import asyncio, atexit, socket, sys, threading
from contextlib import asynccontextmanager
from phyxius.blocking import opened, run

told = []
running = threading.Event()

@asynccontextmanager
async def resource():
    yield
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    print("left", flush=True)

async def work():
    running.set()
    await asyncio.sleep(0.05)
    print("worked", flush=True)

def serve():
    with opened(resource()):
        run(work())
        threading.Event().wait()

threading.Thread(target=serve, daemon=True).start()
running.wait()
"""


def test_what_runs_at_exit_ends_first() -> None:
    """Then what is open is left, also by a thread that never got to it, and names of hosts can still be resolved."""
    assert program(AT_EXIT).stdout.splitlines() == ["worked", "left"]


SIGNALLED = """
import asyncio, signal, sys
from phyxius.blocking import run

signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))

async def work():
    print("runs", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)

run(work())
"""


def test_a_signal_that_raises_cancels_what_runs() -> None:
    """As SIGTERM does in web servers, which have it raise SystemExit."""
    with subprocess.Popen([sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        assert process.stdout.read().splitlines() == ["cancelled"]
    assert process.returncode == 3


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_begins_anew() -> None:
    """What the parent has open stays open, and is the parent's; the child has an event loop of its own."""
    done = program(FORKED)
    assert done.stdout.splitlines() == [
        "child",
        "left of the child as child",
        "parent",
        "left opened as parent",
        "left kept as parent",
    ]
