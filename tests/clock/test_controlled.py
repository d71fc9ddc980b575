"""A clock that moves only when a test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import ControlledClock, create_controlled_clock, run_in_thread

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock(NOON)


class Log:
    """Notes what happened, and at which second of the clock."""

    def __init__(self, clock: ControlledClock) -> None:
        self.clock = clock
        self.began = clock.now()
        self.lines: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        now = self.clock.now()
        self.lines.append((what, now.ns_since(self.began) / 1e9))

    def noting(self, what: str) -> Callable[[], None]:
        return lambda: self.note(what)

    async def after(self, what: str, wait: Awaitable[None]) -> None:
        await wait
        self.note(what)


@pytest.fixture
def log(clock: ControlledClock) -> Log:
    return Log(clock)


async def start(*coroutines: Awaitable[object]) -> list[asyncio.Task[object]]:
    """Start tasks, and let each run until it waits."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def relay(length: int) -> None:
    """Go through so many tasks, one after the other."""
    if length:
        await asyncio.ensure_future(relay(length - 1))


def finished(task: asyncio.Future[object]) -> bool:
    return task.done() and not task.cancelled()


# -- reading and moving it


def test_it_starts_at_the_given_time_and_stands_still(clock: ControlledClock) -> None:
    """Time does not move by itself; without a time it starts at the epoch, far from the monotonic zero."""
    assert clock.now() == clock.now()
    assert clock.now().wall == NOON
    assert create_controlled_clock().now().wall_ns == 0
    assert create_controlled_clock().now().mono_ns != 0


@given(st.lists(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1000))))
def test_moving_is_exact_on_both_scales(durations: list[timedelta]) -> None:
    """However often the clock is moved, both scales move by exactly the sum."""
    clock = create_controlled_clock(NOON)
    began = clock.now()
    for duration in durations:
        clock.advance_by(duration)
    assert clock.now().wall - NOON == sum(durations, timedelta(0))
    assert clock.now().wall_ns - began.wall_ns == clock.now().ns_since(began)


def test_naive_datetimes_are_refused(clock: ControlledClock) -> None:
    """A datetime without a time zone is refused at the start and at a jump, and changes nothing."""
    naive = datetime(2024, 1, 1)  # noqa: DTZ001 - the point of the test
    for refusing in (create_controlled_clock, clock.jump_wall_time):
        with pytest.raises(ValueError, match="no time zone"):
            refusing(naive)
    assert clock.now().wall == NOON


async def test_time_never_runs_backwards(clock: ControlledClock) -> None:
    """A negative duration is refused, and the message names the way to set the wall back."""
    with pytest.raises(ValueError, match=r"use jump_wall_time\(\)"):
        clock.advance_by(-seconds(1))
    with pytest.raises(ValueError, match=r"use jump_wall_time\(\)"):
        await clock.elapse(-seconds(1))
    await clock.elapse(timedelta(0))  # a refused elapse is not under way
    assert clock.now().wall == NOON


# -- timers


def test_timers_fire_in_order_each_at_its_own_instant(clock: ControlledClock, log: Log) -> None:
    """One long step is the same as many short ones: each timer sees the instant at which it is due."""
    clock.interval(seconds(3), log.noting("c"))
    clock.interval(seconds(2), log.noting("b"))
    clock.advance_by(seconds(7))
    assert log.lines == [("b", 2), ("c", 3), ("b", 4), ("c", 6), ("b", 6)]
    assert clock.now().wall == NOON + seconds(7)


async def test_sleepers_of_one_instant_wake_in_the_order_in_which_they_fell_asleep(
    clock: ControlledClock, log: Log
) -> None:
    """Timers that are due together fire first come, first served."""
    await start(*(log.after(name, clock.sleep(seconds(1))) for name in "abc"))
    await clock.elapse(seconds(1))
    assert log.lines == [("a", 1), ("b", 1), ("c", 1)]


async def test_a_sleeper_wakes_no_earlier_than_due(clock: ControlledClock) -> None:
    """A microsecond short of it, the sleeper still sleeps."""
    (sleeper,) = await start(clock.sleep(seconds(1)))
    await clock.elapse(seconds(1) - timedelta(microseconds=1))
    assert not sleeper.done()
    await clock.elapse(timedelta(microseconds=1))
    assert finished(sleeper)


async def test_advance_by_wakes_without_giving_way(clock: ControlledClock, log: Log) -> None:
    """After `advance_by` the woken tasks run when the caller next gives way, at the time reached by then."""
    await start(log.after("woke", clock.sleep(seconds(1))))
    clock.advance_by(seconds(5))
    assert log.lines == []
    await asyncio.sleep(0)
    assert log.lines == [("woke", 5)]


async def test_tick_goes_to_the_next_timer_and_no_further(clock: ControlledClock, log: Log) -> None:
    """`tick` fires all that is due at the next instant, and says whether there was anything."""
    await start(*(log.after(name, clock.sleep(seconds(due))) for name, due in [("b", 2), ("a", 1), ("also a", 1)]))
    assert clock.tick()
    await asyncio.sleep(0)
    assert log.lines == [("a", 1), ("also a", 1)]
    assert clock.tick()
    assert not clock.tick()
    assert clock.now().wall == NOON + seconds(2)


async def test_pending_timers_counts_who_waits(clock: ControlledClock) -> None:
    """Sleepers and intervals count until they are woken or cancelled."""
    sleeper, _ = await start(clock.sleep(seconds(1)), clock.sleep_until(NOON + seconds(9)))
    beat = clock.interval(seconds(1), lambda: None)
    assert clock.pending_timers == 3
    sleeper.cancel()
    await asyncio.sleep(0)
    assert clock.pending_timers == 2
    beat.cancel()
    assert clock.pending_timers == 1
    await clock.elapse(seconds(9))
    assert clock.pending_timers == 0
    assert not clock.tick()


@given(st.lists(st.integers(1, 20), max_size=10), st.lists(st.integers(0, 9), max_size=10))
def test_sleepers_wake_as_sorting_says(dues: list[int], steps: list[int]) -> None:
    """However time is cut into steps, sleepers wake in the order of their dues and on time."""

    async def run() -> list[tuple[str, float]]:
        clock = create_controlled_clock()
        log = Log(clock)
        tasks = await start(*(log.after(str(index), clock.sleep(seconds(due))) for index, due in enumerate(dues)))
        for step in steps:
            await clock.elapse(seconds(step))
        for task in tasks:
            task.cancel()
        return log.lines

    expected = sorted((due, index) for index, due in enumerate(dues) if due <= sum(steps))
    assert asyncio.run(run()) == [(str(index), due) for due, index in expected]


# -- intervals


def test_an_interval_does_not_drift_and_ends_when_cancelled(clock: ControlledClock, log: Log) -> None:
    """Beats are whole periods apart, also if steps are odd, and none follows a cancellation."""
    beat = clock.interval(seconds(2), log.noting("beat"))
    for _ in range(5):
        clock.advance_by(seconds(1.3))
    beat.cancel()
    clock.advance_by(seconds(10))
    assert log.lines == [("beat", 2), ("beat", 4), ("beat", 6)]


def test_an_interval_may_cancel_itself(clock: ControlledClock, log: Log) -> None:
    """A callback that cancels its own interval is not called again."""

    def once() -> None:
        log.note("beat")
        beat.cancel()

    beat = clock.interval(seconds(1), once)
    clock.advance_by(seconds(5))
    assert log.lines == [("beat", 1)]
    assert clock.pending_timers == 0


def test_a_callback_that_raises_stops_the_move_at_its_instant(clock: ControlledClock) -> None:
    """What a callback raises comes out of the call that moved the clock, and the interval goes on."""
    answers = iter([ValueError("broken"), None, None])

    def beat() -> None:
        if error := next(answers):
            raise error

    clock.interval(seconds(1), beat)
    with pytest.raises(ValueError, match="broken"):
        clock.advance_by(seconds(3))
    assert clock.now().wall == NOON + seconds(1)
    clock.advance_by(seconds(2))
    assert list(answers) == []


def test_a_callback_may_move_the_clock(clock: ControlledClock, log: Log) -> None:
    """A move within a move never sets time back."""
    once = clock.interval(seconds(1), lambda: (once.cancel(), clock.advance_by(seconds(5))))
    clock.interval(seconds(2), log.noting("beat"))
    clock.advance_by(seconds(3))
    assert clock.now().wall == NOON + seconds(6)
    assert log.lines == [("beat", 2), ("beat", 4), ("beat", 6)]


# -- the wall


async def test_a_jump_moves_the_wall_alone(clock: ControlledClock) -> None:
    """An NTP step leaves the monotonic scale where it is, and wakes no sleeper."""
    before = clock.now()
    (sleeper,) = await start(clock.sleep(seconds(1)))
    for jump in (-seconds(3600), seconds(3600)):
        clock.jump_wall_time(NOON + jump)
        await clock.elapse(timedelta(0))
        assert clock.now().wall == NOON + jump
        assert clock.now().ns_since(before) == 0
        assert not sleeper.done()
    await clock.elapse(seconds(1))
    assert finished(sleeper)


async def test_a_jump_wakes_who_waits_for_the_wall(clock: ControlledClock, log: Log) -> None:
    """Whoever waits for a wall time that the jump has passed is woken, in order; others wait for the rest."""
    await start(
        log.after("late", clock.sleep_until(NOON + seconds(100))),
        log.after("reached", clock.sleep_until(NOON + seconds(60))),
        log.after("slept", clock.sleep(seconds(20))),
    )
    clock.jump_wall_time(NOON + seconds(60))
    await asyncio.sleep(0)
    assert log.lines == [("reached", 0)]
    await clock.elapse(seconds(50))
    assert log.lines == [("reached", 0), ("slept", 20), ("late", 40)]


async def test_a_wall_set_back_makes_a_deadline_later(clock: ControlledClock, log: Log) -> None:
    """`sleep_until` waits until the wall reads its time, not for the distance that it once had."""
    await start(log.after("woke", clock.sleep_until(NOON + seconds(10))))
    clock.jump_wall_time(NOON - seconds(30))
    await clock.elapse(seconds(60))
    assert log.lines == [("woke", 40)]


# -- elapse


async def test_elapse_runs_what_is_ready_before_time_moves(clock: ControlledClock, log: Log) -> None:
    """A task that was only just created falls asleep at the start, not at the end, of what elapses."""
    sleeper = asyncio.ensure_future(log.after("woke", clock.sleep(seconds(2))))
    await clock.elapse(seconds(3))
    assert finished(sleeper)
    assert log.lines == [("woke", 2)]


async def test_elapse_counts_the_timers_that_woken_tasks_start(clock: ControlledClock, log: Log) -> None:
    """Woken tasks run at their own instant, so that one that sleeps again wakes within the same `elapse`."""

    async def repeat() -> None:
        for _ in range(3):
            await log.after("woke", clock.sleep(seconds(2)))

    await start(repeat(), log.after("other", clock.sleep(seconds(3))))
    await clock.elapse(seconds(5))
    assert log.lines == [("woke", 2), ("other", 3), ("woke", 4)]
    assert clock.now().wall == NOON + seconds(5)


async def test_elapse_lets_long_chains_of_tasks_run(clock: ControlledClock, log: Log) -> None:
    """Everything that a woken task sets off without waiting happens at its instant."""

    async def chain() -> None:
        await clock.sleep(seconds(1))
        await relay(50)
        log.note("end")

    await start(chain(), clock.sleep(seconds(2)))
    await clock.elapse(seconds(3))
    assert log.lines == [("end", 1)]


async def test_elapse_gets_past_a_task_that_polls(clock: ControlledClock) -> None:
    """A task that never waits does not hold up time for ever."""
    stop = False

    async def poll() -> None:
        while not stop:  # noqa: ASYNC110 - the point of the test
            await asyncio.sleep(0)

    (poller,) = await start(poll())
    await clock.elapse(seconds(1))
    assert clock.now().wall == NOON + seconds(1)
    stop = True
    await poller


async def test_two_elapses_at_once_are_refused(clock: ControlledClock) -> None:
    """Two movers would each run through the other's instants; one that was cancelled is out of the way."""

    async def meddle() -> None:
        await clock.sleep(seconds(1))
        await clock.elapse(seconds(1))

    (meddler,) = await start(meddle())
    await clock.elapse(seconds(2))
    with pytest.raises(RuntimeError, match="another elapse"):
        await meddler

    (cancelled,) = await start(clock.elapse(seconds(1)))
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await clock.elapse(seconds(1))
    assert clock.now().wall == NOON + seconds(3)


async def test_a_raising_callback_comes_out_of_elapse(clock: ControlledClock) -> None:
    """`elapse` raises what a callback raised, and can be called again."""
    beat = clock.interval(seconds(1), lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await clock.elapse(seconds(5))
    beat.cancel()
    await clock.elapse(seconds(1))
    assert clock.now().wall == NOON + seconds(2)


# -- elapse and threads


class Gate:
    """A function for a thread that says that it runs, and waits to be let through."""

    def __init__(self, clock: ControlledClock) -> None:
        self.clock = clock
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> datetime:
        self.entered.set()
        assert self.opened.wait(10)
        return self.clock.now().wall


async def test_time_stands_still_while_an_awaited_thread_runs(clock: ControlledClock, log: Log) -> None:
    """A thread answers at the instant at which it was asked, though time would have moved on without it."""
    gate = Gate(clock)

    async def work() -> datetime:
        await clock.sleep(seconds(2))
        answer = await run_in_thread(gate)
        await relay(50)
        await log.after("worked", clock.sleep(seconds(1)))
        return answer

    async def open_the_gate() -> None:
        await asyncio.get_running_loop().run_in_executor(None, gate.entered.wait, 10)
        for _ in range(2_000):  # more rounds of the loop than a task may hold up time
            await asyncio.sleep(0)
        log.note("opened")
        gate.opened.set()

    worker, _, _ = await start(work(), open_the_gate(), log.after("bystander", clock.sleep(seconds(9))))
    await clock.elapse(seconds(10))
    assert finished(worker)
    assert await worker == NOON + seconds(2)
    assert log.lines == [("opened", 2), ("worked", 3), ("bystander", 9)]


async def test_time_waits_for_each_of_several_threads(clock: ControlledClock) -> None:
    """Threads that follow one another, and threads side by side, all answer before time moves."""

    async def work() -> list[datetime]:
        gates = [Gate(clock), Gate(clock)]
        for gate in gates:
            gate.opened.set()
        first = await asyncio.gather(*(run_in_thread(gate) for gate in gates))
        return [*first, await run_in_thread(gates[0])]

    (worker,) = await start(work())
    await clock.elapse(seconds(1))
    assert await worker == [NOON] * 3


async def test_time_can_outrun_a_thread(clock: ControlledClock) -> None:
    """With `wait_for_threads=False` time moves though a thread hangs."""
    gate = Gate(clock)
    (worker,) = await start(run_in_thread(gate))
    await clock.elapse(seconds(5), wait_for_threads=False)
    assert not worker.done()
    gate.opened.set()
    assert await worker == NOON + seconds(5)


async def test_an_abandoned_thread_holds_time_no_longer(clock: ControlledClock) -> None:
    """Once nobody awaits its answer, a hung thread is no reason for time to stand still."""
    gate = Gate(clock)
    (worker,) = await start(run_in_thread(gate))
    worker.cancel()
    await clock.elapse(seconds(5))
    assert worker.cancelled()
    assert clock.now().wall == NOON + seconds(5)
    gate.opened.set()


async def test_a_thread_that_is_given_up_meanwhile_lets_time_go_on(clock: ControlledClock) -> None:
    """An `elapse` that already waits for a thread goes on when the wait for it is cancelled."""
    gate = Gate(clock)
    (worker,) = await start(run_in_thread(gate))
    (mover,) = await start(clock.elapse(seconds(5)))
    assert clock.now().wall == NOON
    worker.cancel()
    await mover
    assert clock.now().wall == NOON + seconds(5)
    gate.opened.set()


# -- threads and loops that come and go


def in_thread(function: Callable[[], object]) -> None:
    """Run a function in another thread, wait for its end, and raise what it raised."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(function).result(10)


async def test_a_sleeper_is_woken_from_another_thread(clock: ControlledClock) -> None:
    """The clock may be moved from any thread, and the sleeper's own loop is told, even if it waits for I/O."""
    asyncio.get_running_loop().set_debug(True)  # it then refuses what is not safe to do from another thread
    (sleeper,) = await start(clock.sleep(seconds(1)))
    in_thread(lambda: clock.advance_by(seconds(1)))
    await asyncio.wait_for(sleeper, 10)
    assert clock.now().wall == NOON + seconds(1)


async def test_a_wake_up_that_comes_too_late_is_none(clock: ControlledClock) -> None:
    """A sleeper that was cancelled before its wake-up from another thread arrived stays cancelled, quietly."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    (sleeper,) = await start(clock.sleep(seconds(1)))
    in_thread(lambda: clock.advance_by(seconds(1)))
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert sleeper.cancelled()
    assert told == []


async def test_timers_can_be_started_from_many_threads(clock: ControlledClock) -> None:
    """No timer is lost when threads start them at once."""
    barrier = threading.Barrier(8)

    def start_some() -> None:
        barrier.wait(10)
        for _ in range(50):
            clock.interval(seconds(1), lambda: None)

    threads = [threading.Thread(target=start_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert clock.pending_timers == 400


def test_sleepers_of_a_closed_loop_are_passed_over(clock: ControlledClock) -> None:
    """Moving the clock after a loop was closed neither raises nor wakes anyone."""
    loop = asyncio.new_event_loop()
    sleeper = loop.create_task(clock.sleep(seconds(1)))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    in_thread(lambda: clock.advance_by(seconds(1)))
    loop_of_this_thread = asyncio.new_event_loop()
    again = loop_of_this_thread.create_task(clock.sleep(seconds(1)))
    loop_of_this_thread.run_until_complete(asyncio.sleep(0))
    loop_of_this_thread.close()
    clock.advance_by(seconds(1))
    assert clock.pending_timers == 0
    for task in (sleeper, again):
        assert not task.done()
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_another_loop_gets_a_fixed_number_of_rounds(
    clock: ControlledClock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loop that does not show what is ready (uvloop), woken tasks still run before time moves on."""
    await start(log.after("woke", clock.sleep(seconds(1))), clock.sleep(seconds(2)))
    opaque = SimpleNamespace(sleep=asyncio.sleep, get_running_loop=object)
    monkeypatch.setattr("phyxius.clock._controlled.asyncio", opaque)
    await clock.elapse(seconds(3))
    assert log.lines == [("woke", 1)]
