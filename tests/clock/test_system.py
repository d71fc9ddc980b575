"""The operating system's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from phyxius.clock import SystemClock, create_system_clock

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_there_is_one_system_clock() -> None:
    """The factory gives one and the same object, since there is one time."""
    assert create_system_clock() is create_system_clock()
    assert isinstance(create_system_clock(), SystemClock)


def test_now_lies_between_two_readings_of_the_system() -> None:
    """Both scales are those of the operating system."""
    before = time.time_ns(), time.monotonic_ns()
    now = create_system_clock().now()
    after = time.time_ns(), time.monotonic_ns()
    assert before[0] <= now.wall_ns <= after[0]
    assert now.mono_ns is not None
    assert before[1] <= now.mono_ns <= after[1]


async def test_a_sleep_lasts_on_the_monotonic_clock() -> None:
    """A sleeper is not woken before its time."""
    clock = create_system_clock()
    began = clock.now()
    await clock.sleep(timedelta(microseconds=200))
    assert clock.now().ns_since(began) >= 200_000


class Waits:
    """Stands in for `asyncio.sleep`, and for the wall clock that the waits move."""

    def __init__(self, *walls: float) -> None:
        self.walls = list(walls)
        self.durations: list[float] = []

    def time_ns(self) -> int:
        return round(self.walls[0] * 1e9)

    async def sleep(self, duration: float) -> None:
        self.durations.append(duration)
        self.walls.pop(0)


@pytest.mark.parametrize(
    "deadline, walls, durations",
    [
        (10, [0, 10], [10]),
        (75, [0, 30, 60, 75], [30, 30, 15]),  # a long wait looks at the wall now and then
        (90, [0, 100], [30]),  # the wall was set forward
        (10, [0, 9, 10], [10, 1]),  # the wall was set back, or the loop woke early
    ],
)
async def test_waiting_for_the_wall_looks_at_it_again(
    monkeypatch: pytest.MonkeyPatch, deadline: int, walls: list[float], durations: list[float]
) -> None:
    """`sleep_until` returns once the wall reads the deadline, however the wall was set meanwhile."""
    waits = Waits(*walls)
    monkeypatch.setattr("phyxius.clock._system.time", waits)
    monkeypatch.setattr("phyxius.clock._system.asyncio", waits)
    await create_system_clock().sleep_until(EPOCH + timedelta(seconds=deadline))
    assert waits.durations == durations


class Beats:
    """Holds what an interval asked of the loop, under a time that the test sets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.handles: list[asyncio.TimerHandle] = []
        self._loop = loop
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_at", self._call_at)

    def _call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), self._loop)
        self.handles.append(handle)
        return handle

    @property
    def due(self) -> list[float]:
        return [handle.when() for handle in self.handles]

    def fire(self, at: float) -> None:
        self.now = at
        handle = self.handles.pop(0)
        if not handle.cancelled():
            handle._run()


@pytest.fixture
async def beats(monkeypatch: pytest.MonkeyPatch) -> Beats:
    return Beats(asyncio.get_running_loop(), monkeypatch)


async def test_an_interval_does_not_drift(beats: Beats) -> None:
    """Each beat is due a whole number of periods after the start, however late the last one came."""
    calls: list[float] = []
    create_system_clock().interval(timedelta(seconds=10), lambda: calls.append(beats.now))
    assert beats.due == [110]
    beats.fire(at=113.5)
    assert beats.due == [120]
    beats.fire(at=120)
    assert beats.due == [130]
    assert calls == [113.5, 120]


async def test_beats_that_a_blocked_loop_missed_are_left_out(beats: Beats) -> None:
    """After a blockade the interval calls once, and goes on with the next beat in the future."""
    calls: list[float] = []
    create_system_clock().interval(timedelta(seconds=10), lambda: calls.append(beats.now))
    beats.fire(at=147)
    assert calls == [147]
    assert beats.due == [150]


async def test_an_interval_is_cancelled_before_or_within_a_beat(beats: Beats) -> None:
    """No beat follows a cancellation, not even one that the callback itself asks for."""
    calls: Iterator[int] = iter(range(5))
    early = create_system_clock().interval(timedelta(seconds=10), lambda: next(calls))
    early.cancel()
    beats.fire(at=110)
    assert (next(calls), beats.due) == (0, [])

    def stop() -> None:
        within.cancel()

    within = create_system_clock().interval(timedelta(seconds=10), stop)
    beats.fire(at=120)
    assert [handle.cancelled() for handle in beats.handles] == [True]


async def test_a_callback_that_raises_is_reported_and_stops_nothing(beats: Beats) -> None:
    """The loop's exception handler is told, and the next beat is due all the same."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    broken = ValueError("broken")

    def beat() -> None:
        raise broken

    create_system_clock().interval(timedelta(seconds=10), beat)
    beats.fire(at=110)
    assert told == [broken]
    assert beats.due == [120]


def test_an_interval_needs_a_running_loop() -> None:
    """Without an event loop there is nobody to call back."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        create_system_clock().interval(timedelta(seconds=1), lambda: None)
