"""A limit on how long a server may take to answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from phyxius.adapters.sqlalchemy._watchdog import Watchdog

SOON, LATE = timedelta(milliseconds=1), timedelta(seconds=30)


async def test_it_cancels_what_hangs() -> None:
    """Whoever is not fed in time ends with a TimeoutError, and its task is not cancelled beyond that."""
    with pytest.raises(TimeoutError, match="no answer within"):
        async with Watchdog(SOON):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_it_lets_go_what_is_done() -> None:
    """What ends in time ends as it is, with its answer or its error, and nothing barks later."""
    async with Watchdog(LATE) as watchdog:
        watchdog.feed()
    assert watchdog._timer is None
    with pytest.raises(KeyError):
        async with Watchdog(LATE):
            raise KeyError


async def test_it_rests() -> None:
    """While it rests time does not count; fed again, it does."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(0.05, passed.set_result, None)
    async with Watchdog(SOON) as watchdog:
        watchdog.rest()
        await passed

    async def rested() -> None:
        async with Watchdog(SOON) as watchdog:
            watchdog.rest()
            watchdog.feed()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await rested()


async def test_a_cancellation_of_somebody_else_goes_on() -> None:
    """It is no time-out."""

    async def watched() -> None:
        async with Watchdog(LATE):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(watched())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_ends_although_it_was_bitten_has_ended() -> None:
    """A body that swallows the cancellation and ends has its answer, and its task goes on as if nothing had been."""
    task = asyncio.current_task()
    assert task is not None
    async with Watchdog(SOON) as watchdog:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
    assert watchdog._timer is None
    assert not task.cancelling()


async def test_it_does_not_let_go() -> None:
    """A body that swallows the cancellation and waits on is cancelled again, whatever it is fed."""

    async def hangs() -> None:
        async with Watchdog(SOON) as watchdog:
            for _ in range(3):
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                watchdog.rest()
                watchdog.feed()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match="no answer within"):
        await asyncio.wait_for(hangs(), 30)
