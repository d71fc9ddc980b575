"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from phyxius.clock import Portal, PortalClosedError

LIMIT = timedelta(seconds=30)


async def where(error: Exception | None = None) -> threading.Thread:
    await asyncio.sleep(0)
    if error is not None:
        raise error
    return threading.current_thread()


def test_it_runs_coroutines_elsewhere() -> None:
    """All in one daemon thread, which starts with the first, from whatever thread they are called."""
    portal = Portal("over there")
    first = portal.call(where())
    assert (first.name, first.daemon) == ("over there", True)
    assert first is not threading.current_thread()
    seen: list[threading.Thread] = []
    callers = [threading.Thread(target=lambda: seen.append(portal.call(where()))) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert seen == [first] * 5
    with pytest.raises(KeyError):
        portal.call(where(KeyError("x")))
    portal.close(where(), LIMIT)
    assert not first.is_alive()


def test_it_closes_what_never_began() -> None:
    """There is no thread, and the last coroutine is not run; one that began runs it, also if that fails."""
    Portal("over there").close(where(KeyError("it ran")), LIMIT)
    portal = Portal("over there")
    thread = portal.call(where())
    with pytest.raises(KeyError):
        portal.close(where(KeyError("it ran")), LIMIT)
    assert not thread.is_alive()


def test_it_does_not_wait_for_itself() -> None:
    """A finalizer that runs in its thread cannot wait for that thread."""
    portal = Portal("over there")

    async def finalize(work: Coroutine[Any, Any, Any]) -> None:
        portal.call(work)

    with pytest.raises(RuntimeError, match="finalizer"):
        portal.call(finalize(where()))
    portal.close(where(), LIMIT)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_process_does_not_end_the_thread(error: BaseException) -> None:
    """Whoever asked is told; others, who wait for the same thread, go on."""
    portal = Portal("over there")

    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        portal.call(fail())
    assert caught.value is error
    assert portal.call(where()).name == "over there"
    portal.close(where(), LIMIT)


def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told, and nobody waits for it later."""
    portal = Portal("over there")

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    work = where()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            portal.call(work)
    work.close()
    assert portal.call(where()).name == "over there"
    portal.close(where(), LIMIT)


def test_its_executor_outlives_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at the exit of the interpreter names of hosts can be resolved."""
    portal = Portal("over there")

    async def ask(work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    assert portal.call(ask(threading.current_thread)).daemon
    with pytest.raises(ZeroDivisionError):
        portal.call(ask(lambda: 1 / 0))

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert portal.call(ask(threading.current_thread)).name == "over there"
    portal.close(where(), LIMIT)


def test_nobody_waits_for_ever() -> None:
    """What runs when it is closed ends first, or is cancelled in time; who calls it later is told."""
    portal = Portal("over there")
    began, gate = threading.Event(), asyncio.Event()
    ended: list[BaseException | str] = []

    async def work(waits: bool) -> str:
        began.set()
        await (gate.wait() if waits else asyncio.sleep(0))
        return "done"

    def call(waits: bool) -> None:
        try:
            ended.append(portal.call(work(waits)))
        except BaseException as error:  # noqa: BLE001 - it is looked at
            ended.append(error)

    callers = [threading.Thread(target=call, args=(waits,)) for waits in (False, True)]
    for caller in callers:
        began.clear()
        caller.start()
        assert began.wait(30)
    portal.close(where(), timedelta(milliseconds=10))
    for caller in callers:
        caller.join(30)
    assert ended[0] == "done"
    assert isinstance(ended[1], concurrent.futures.CancelledError)
    with pytest.raises(PortalClosedError):
        portal.call(where())
