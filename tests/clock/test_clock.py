"""What both clocks promise alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from phyxius.clock import Clock, create_controlled_clock, create_system_clock

SECOND = timedelta(seconds=1)


@pytest.fixture(params=[create_system_clock, create_controlled_clock])
def clock(request: pytest.FixtureRequest) -> Clock:
    make: Callable[[], Clock] = request.param
    return make()


def test_now_reads_both_scales(clock: Clock) -> None:
    """A reading has a wall time and a monotonic time."""
    assert isinstance(clock.now().mono_ns, int)
    assert clock.now().wall.tzinfo is UTC


@pytest.mark.parametrize("duration", [timedelta(0), -SECOND, timedelta.min])
async def test_a_sleep_that_is_not_positive_returns_at_once(clock: Clock, duration: timedelta) -> None:
    """Zero and negative durations have passed already."""
    await clock.sleep(duration)


async def test_a_deadline_that_is_past_returns_at_once(clock: Clock) -> None:
    """A wall time that the clock has reached needs no waiting."""
    await clock.sleep_until(clock.now().wall)
    await clock.sleep_until(datetime(1969, 1, 1, tzinfo=UTC))


async def test_a_naive_deadline_is_refused(clock: Clock) -> None:
    """A deadline without a time zone names no instant."""
    with pytest.raises(ValueError, match="no time zone"):
        await clock.sleep_until(datetime(2100, 1, 1))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize("period", [timedelta(0), -SECOND])
async def test_an_interval_needs_a_positive_period(clock: Clock, period: timedelta) -> None:
    """A period that is not positive would never let time move on."""
    with pytest.raises(ValueError, match="must be positive"):
        clock.interval(period, lambda: None)


async def test_an_interval_calls_plain_functions_only(clock: Clock) -> None:
    """A coroutine function is refused, since nobody would await what it makes."""

    async def beat(_: int = 0) -> None:
        """Never runs."""

    for callback in (beat, partial(beat, 1)):
        with pytest.raises(TypeError, match="plain function"):
            clock.interval(SECOND, callback)


async def test_an_interval_can_be_cancelled_twice(clock: Clock) -> None:
    """A second cancellation does nothing."""
    handle = clock.interval(SECOND, lambda: None)
    handle.cancel()
    handle.cancel()
