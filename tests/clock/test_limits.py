"""Limits on the time that awaited code may take."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from phyxius.clock import ControlledClock, Limited, create_controlled_clock, gather_within, timeout, uninterrupted
from phyxius.clock._limits import Settled, _unfinished
from phyxius.fp import Err, Ok


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """After each test no task of the library is left, and no exception went unnoticed."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert told == []
    assert _unfinished == set()


async def hang() -> None:
    await asyncio.get_running_loop().create_future()


async def started(coroutine: Awaitable[object]) -> asyncio.Future[object]:
    """A task that has run until it waits."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    return task


async def cancelled(task: asyncio.Future[object]) -> bool:
    """Whether a task ends cancelled."""
    await asyncio.wait([task])
    return task.cancelled()


# -- timeout


async def test_a_body_within_its_time_is_left_alone(clock: ControlledClock) -> None:
    """A body that ends in time ends as if there were no limit, and the limit is lifted."""

    async def body() -> int:
        async with timeout(clock, seconds(2)):
            await clock.sleep(seconds(1))
        await clock.sleep(seconds(5))
        return 1

    task = await started(body())
    await clock.elapse(seconds(6))
    assert await task == 1
    assert clock.pending_timers == 0


async def test_a_body_over_its_time_is_cancelled(clock: ControlledClock) -> None:
    """The body is cancelled when its time is up, and `TimeoutError` comes out in place of that."""
    ends: list[int] = []

    async def body() -> None:
        async with timeout(clock, seconds(2)):
            try:
                await hang()
            finally:
                ends.append(clock.now().wall.second)

    task = await started(body())
    await clock.elapse(seconds(3))
    with pytest.raises(TimeoutError, match="not done within 0:00:02") as caught:
        await task
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert ends == [2]


async def test_the_limit_counts_from_the_entry(clock: ControlledClock) -> None:
    """Time that the body takes before it first waits counts, as it does for `asyncio.timeout`."""

    async def body() -> None:
        async with timeout(clock, seconds(2)):
            clock.advance_by(seconds(5))
            await hang()

    with pytest.raises(TimeoutError):
        await body()
    assert clock.now().wall.second == 5


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_that_is_not_positive_is_over_at_once(clock: ControlledClock, limit: int) -> None:
    """A body that waits has no time, and one that does not wait needs none."""
    with pytest.raises(TimeoutError):
        async with timeout(clock, seconds(limit)):
            await hang()
    async with timeout(clock, seconds(limit)):
        pass


@pytest.mark.parametrize("inner, outer, caught", [(1, 2, "inner"), (2, 1, "outer"), (1, 1, "outer")])
async def test_nested_limits_each_raise_their_own(clock: ControlledClock, inner: int, outer: int, caught: str) -> None:
    """The limit that is up raises at its own level; where both are, the cancellation reaches the outer one."""
    raised: list[str] = []

    async def body() -> None:
        try:
            async with timeout(clock, seconds(outer)):
                try:
                    async with timeout(clock, seconds(inner)):
                        await hang()
                except TimeoutError:
                    raised.append("inner")
                    raise
        except TimeoutError:
            raised.append("outer")

    task = await started(body())
    await clock.elapse(seconds(3))
    await task
    assert raised[0] == caught
    assert raised[-1] == "outer"


async def test_a_cancellation_from_outside_goes_on(clock: ControlledClock) -> None:
    """A body that is cancelled from outside raises `CancelledError`, limit or not."""

    async def body() -> None:
        async with timeout(clock, seconds(2)):
            await hang()

    task = await started(body())
    task.cancel()
    assert await cancelled(task)


async def test_a_cancellation_from_outside_wins_over_the_limit(clock: ControlledClock) -> None:
    """Where both fall together, the caller's cancellation is preserved."""

    async def body() -> None:
        async with timeout(clock, seconds(2)):
            await hang()

    task = await started(body())
    await clock.elapse(seconds(1))
    clock.advance_by(seconds(1))
    await asyncio.sleep(0)  # the limit has cancelled the body, which has not run yet
    task.cancel()
    assert await cancelled(task)


async def test_a_cancellation_that_was_pending_at_the_entry_is_not_counted(clock: ControlledClock) -> None:
    """A limit entered during the clean-up of a cancelled task still raises `TimeoutError`, and keeps the count."""
    counts: list[int] = []

    async def body() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            with pytest.raises(TimeoutError):
                async with timeout(clock, seconds(1)):
                    await hang()
            current = asyncio.current_task()
            assert current is not None
            counts.append(current.cancelling())
            raise

    task = await started(body())
    task.cancel()
    await clock.elapse(seconds(1))
    assert await cancelled(task)
    assert counts == [1]


@pytest.mark.parametrize("swallow", [True, False])
async def test_a_body_that_answers_its_cancellation_otherwise_is_believed(
    clock: ControlledClock, swallow: bool
) -> None:
    """A body that swallows the cancellation has ended; one that raises something else raises that."""
    counts: list[int] = []

    async def body() -> str:
        try:
            async with timeout(clock, seconds(1)):
                try:
                    await hang()
                except asyncio.CancelledError:
                    if not swallow:
                        raise KeyError("own") from None
        finally:
            current = asyncio.current_task()
            assert current is not None
            counts.append(current.cancelling())
        return "ended"

    task = await started(body())
    await clock.elapse(seconds(1))
    if swallow:
        assert await task == "ended"
    else:
        with pytest.raises(KeyError, match="own"):
            await task
    assert counts == [0]


async def test_a_limit_can_be_used_again(clock: ControlledClock) -> None:
    """One that has expired once begins anew, and does not take the caller's cancellation for its own."""
    limit = timeout(clock, timedelta(0))
    with pytest.raises(TimeoutError):
        async with limit:
            await hang()

    async def body() -> None:
        limit._limit = seconds(1)
        async with limit:
            await hang()

    task = await started(body())
    task.cancel()
    assert await cancelled(task)


async def test_a_limit_needs_a_task(clock: ControlledClock) -> None:
    """Outside of a task there is nothing to cancel."""
    answer: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def enter() -> None:
        try:
            timeout(clock, seconds(1)).__aenter__().send(None)
        except RuntimeError as error:
            answer.set_result(error)

    asyncio.get_running_loop().call_soon(enter)
    assert "inside a task" in str(await answer)


# -- gather_within


class Calls:
    """Kinds of calls, and the end of each that was cancelled."""

    def __init__(self, clock: ControlledClock) -> None:
        self.clock = clock
        self.cancelled: list[tuple[str, int]] = []

    def after(self, duration: float, answer: object) -> Callable[[], Awaitable[object]]:
        async def call() -> object:
            try:
                await self.clock.sleep(seconds(duration))
            except asyncio.CancelledError:
                self.cancelled.append((str(answer), self.clock.now().wall.second))
                raise
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


@pytest.fixture
def calls(clock: ControlledClock) -> Calls:
    return Calls(clock)


async def gathered(
    clock: ControlledClock, elapse: float, **calls: tuple[Callable[[], Awaitable[object]], float]
) -> dict[str, Settled[object]]:
    """What a gathering answers that is done after a time."""
    limited = {name: Limited(function, seconds(limit)) for name, (function, limit) in calls.items()}
    task = await started(gather_within(clock, limited))
    await clock.elapse(seconds(elapse))
    assert task.done()
    return await task


def told(settled: dict[str, Settled[object]]) -> dict[str, tuple[object, int]]:
    """The value, or the kind of the error, and the second of each end."""
    ends: dict[str, tuple[object, int]] = {}
    for name, each in settled.items():
        match each.result:
            case Ok(value):
                ends[name] = (value, each.at.wall.second)
            case Err(error):
                ends[name] = (type(error), each.at.wall.second)
    return ends


async def test_all_calls_are_waited_for_each_within_its_own_limit(clock: ControlledClock, calls: Calls) -> None:
    """Answers, failures and time-outs stand side by side, each stamped with its own end."""
    settled = await gathered(
        clock,
        5,
        fast=(calls.after(1, "fast"), 2),
        failing=(calls.after(2, ValueError("no")), 9),
        late=(calls.after(4, "late"), 3),
        slow=(calls.after(5, "slow"), 6),
    )
    assert told(settled) == {
        "fast": ("fast", 1),
        "failing": (ValueError, 2),
        "late": (TimeoutError, 3),
        "slow": ("slow", 5),
    }
    assert calls.cancelled == [("late", 3)]
    assert str(settled["late"].result) == str(Err(TimeoutError("no answer within 0:00:03")))
    assert clock.pending_timers == 0


async def test_calls_run_at_once(clock: ControlledClock) -> None:
    """Each call is under way before the first has answered."""
    barrier = asyncio.Barrier(3)
    settled = await gathered(clock, 0, a=(barrier.wait, 1), b=(barrier.wait, 1), c=(barrier.wait, 2))
    assert sorted(str(each.result) for each in settled.values()) == [f"Ok(value={place})" for place in range(3)]


async def test_no_calls_need_no_time(clock: ControlledClock) -> None:
    """An empty gathering answers at once."""
    assert await gather_within(clock, {}) == {}


@pytest.mark.parametrize("taken, kept", [(1.999999, True), (2, False), (9, False)])
async def test_a_late_answer_is_late_though_no_timer_fired(
    clock: ControlledClock, calls: Calls, taken: float, kept: bool
) -> None:
    """A call that blocked the loop past its limit has timed out, and harms no other."""

    async def block() -> str:
        clock.advance_by(seconds(taken))
        return "blocked"

    settled = await gathered(clock, 0, before=(calls.after(0, "before"), 20), block=(block, 2))
    assert isinstance(settled["block"].result, Ok) is kept
    assert settled["block"].at.ns_since(clock.now()) == 0
    assert told(settled)["before"][0] == "before"


async def test_an_answer_in_time_counts_though_the_timer_fired_before_it_was_heard(clock: ControlledClock) -> None:
    """A call that ended before its limit is in time, even if the loop learns of both in one go."""

    async def answer() -> str:
        asyncio.get_running_loop().call_soon(clock.advance_by, seconds(5))
        return "in time"

    settled = await gathered(clock, 0, call=(answer, 2))
    assert told(settled) == {"call": ("in time", 0)}


async def test_a_late_failure_is_a_time_out(clock: ControlledClock) -> None:
    """What a call raises at or after its limit is no longer asked for."""

    async def fail() -> None:
        clock.advance_by(seconds(2))
        raise ValueError

    assert told(await gathered(clock, 0, call=(fail, 2))) == {"call": (TimeoutError, 2)}


async def test_limits_count_from_the_start_of_the_gathering(clock: ControlledClock) -> None:
    """A call that blocks the loop first uses up the time of those that hang, too."""

    async def block() -> None:
        clock.advance_by(seconds(3))

    assert told(await gathered(clock, 0, block=(block, 9), hang=(hang, 2))) == {
        "block": (None, 3),
        "hang": (TimeoutError, 3),
    }


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_that_is_not_positive_lets_nothing_pass(clock: ControlledClock, limit: int) -> None:
    """What ends at its limit is late, so no call can be in time for one that is over."""

    async def answer() -> int:
        return 1

    settled = await gathered(clock, 0, answer=(answer, limit), hang=(hang, limit))
    assert told(settled) == {"answer": (TimeoutError, 0), "hang": (TimeoutError, 0)}


async def test_a_call_that_swallows_its_cancellation_holds_nobody_up(clock: ControlledClock) -> None:
    """The gathering answers at the limit; what the call answers later is thrown away."""
    released = asyncio.Event()
    ended: list[str] = []

    async def swallow() -> str:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                ended.append("swallowed")
        ended.append("ended")
        return "too late"

    settled = await gathered(clock, 1, call=(swallow, 1))
    assert told(settled) == {"call": (TimeoutError, 1)}
    assert ended == ["swallowed"]
    released.set()
    await clock.elapse(timedelta(0))
    assert ended == ["swallowed", "ended"]
    assert told(settled) == {"call": (TimeoutError, 1)}


async def test_the_late_failure_of_an_abandoned_call_goes_unnoticed(clock: ControlledClock) -> None:
    """A call that fails while it is cancelled troubles nobody; the loop's exception handler hears nothing."""

    async def fail() -> None:
        try:
            await hang()
        finally:
            raise ValueError("while cancelled")

    assert told(await gathered(clock, 1, call=(fail, 1))) == {"call": (TimeoutError, 1)}


async def test_the_clean_up_of_a_late_call_is_not_interrupted(clock: ControlledClock, calls: Calls) -> None:
    """A call is cancelled once: the end of the gathering does not break into what it still has to put away."""
    cleaned: list[int] = []

    async def untidy() -> None:
        try:
            await hang()
        finally:
            await clock.sleep(seconds(5))
            cleaned.append(clock.now().wall.second)

    settled = await gathered(clock, 7, untidy=(untidy, 1), other=(calls.after(2, "other"), 3))
    assert told(settled) == {"untidy": (TimeoutError, 1), "other": ("other", 2)}
    assert cleaned == [6]


class Odd(BaseException):
    """What is neither an `Exception` nor a reason to stop the program."""


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), Odd()], ids=repr)
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_a_call_raises_is_its_own(clock: ControlledClock, error: BaseException, at_once: bool) -> None:
    """An exception is the `Err` of its call alone, be it a `CancelledError` that the call made itself."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    def fail_plainly() -> Awaitable[None]:
        raise error

    settled = await gathered(clock, 0, failing=(fail_plainly if at_once else fail, 1), other=(good, 1))
    assert told(settled) == {"failing": (type(error), 0), "other": (1, 0)}


async def good() -> int:
    await asyncio.sleep(0)
    return 1


async def test_a_function_that_gives_nothing_to_await_fails(clock: ControlledClock) -> None:
    """A call that is no coroutine is the `TypeError` of awaiting it."""
    assert told(await gathered(clock, 0, plain=(lambda: 1, 1))) == {"plain": (TypeError, 0)}  # type: ignore[dict-item]


async def test_cancelling_the_gathering_cancels_its_calls(clock: ControlledClock, calls: Calls) -> None:
    """The cancellation goes on, and every call is cancelled with it."""
    limited = {name: Limited(calls.after(9, name), seconds(limit)) for name, limit in [("a", 5), ("b", 7)]}
    task = await started(gather_within(clock, limited))
    await clock.elapse(seconds(1))
    task.cancel()
    assert await cancelled(task)
    await asyncio.sleep(0)
    assert sorted(calls.cancelled) == [("a", 1), ("b", 1)]
    assert clock.pending_timers == 0


async def test_whoever_watches_holds_nobody_up(clock: ControlledClock, caplog: pytest.LogCaptureFixture) -> None:
    """One that leaves with the interpreter, as behind a pipe that nobody reads, ends the watching alone."""

    def leave(name: str, settled: object) -> None:
        raise ValueError(name)

    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    settled = await gather_within(clock, {"a": Limited(good, seconds(1))}, leave)
    assert told(settled) == {"a": (1, 0)}
    assert [str(error["exception"]) for error in errors] == ["a"]


async def test_what_is_cancelled_is_no_answer(clock: ControlledClock) -> None:
    """Whoever watches is not told of it."""
    answers: list[str] = []

    def watch(name: str, settled: object) -> None:
        answers.append(name)

    task = await started(gather_within(clock, {"a": Limited(hang, seconds(1))}, watch))
    task.cancel()
    assert await cancelled(task)
    await asyncio.sleep(0)
    assert answers == []


async def test_a_gathering_cancelled_at_its_start_starts_nothing(clock: ControlledClock) -> None:
    """Calls whose tasks have not begun never do."""

    async def never() -> None:
        raise AssertionError("it was started")

    task = await started(gather_within(clock, {"call": Limited(never, seconds(1))}))
    task.cancel()
    assert await cancelled(task)


async def test_a_gathering_cancelled_as_it_ends_is_cancelled(clock: ControlledClock) -> None:
    """A cancellation that meets the last answer is not lost."""
    task: asyncio.Future[object]

    async def cancel_the_gathering() -> None:
        task.cancel()

    task = asyncio.ensure_future(gather_within(clock, {"call": Limited(cancel_the_gathering, seconds(1))}))
    assert await cancelled(task)


async def test_a_clock_that_cannot_wait_lets_nothing_pass(clock: ControlledClock, calls: Calls) -> None:
    """Where the limit cannot be kept, its error is the outcome of the calls that are still under way."""

    class Broken(ControlledClock):
        async def sleep(self, duration: timedelta, /) -> None:
            raise OSError("no timer")

    broken = Broken(clock.now().wall)
    settled = await gathered(broken, 0, answered=(good, 1), hanging=(hang, 1), other=(calls.after(9, "x"), 2))
    assert told(settled) == {"answered": (1, 0), "hanging": (OSError, 0), "other": (OSError, 0)}
    assert calls.cancelled == [("x", 0)]


def test_thrown_away_after_its_loop() -> None:
    """A gathering whose loop was closed under it ends without another error."""

    async def hang() -> None:
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    gathering = gather_within(create_controlled_clock(), {"a": Limited(hang, timedelta(seconds=1))})
    task = loop.create_task(gathering)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    loop.set_exception_handler(lambda *_: None)
    gathering.close()
    assert not task.done()


# -- uninterrupted


async def test_uninterrupted_work_answers() -> None:
    """What the coroutine returned comes out of the wait; it ran in a task of its own."""

    async def work() -> object:
        await asyncio.sleep(0)
        return asyncio.current_task()

    task = await uninterrupted(work())
    assert isinstance(task, asyncio.Task)
    assert task is not asyncio.current_task()


@pytest.mark.parametrize("error", [ValueError("no"), Odd(), asyncio.CancelledError("its own")], ids=repr)
async def test_what_uninterrupted_work_raises_is_raised(error: BaseException) -> None:
    """Its exception comes out, a cancellation that it made itself included."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(type(error)) as caught:
        await uninterrupted(fail())
    assert isinstance(error, asyncio.CancelledError) or caught.value is error


@pytest.mark.parametrize("error", [None, ValueError("no"), asyncio.CancelledError("its own")], ids=repr)
@pytest.mark.parametrize("times", [1, 2, 5])
async def test_uninterrupted_work_ends_before_the_cancellation_goes_on(error: BaseException | None, times: int) -> None:
    """However often the wait is cancelled, the work runs to its end; then the cancellation goes on, with its cause."""
    gate, ended = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        await gate.wait()
        ended.set()
        if error is not None:
            raise error
        return 1

    task = await started(uninterrupted(work()))
    for number in range(times):
        task.cancel(f"cancel {number}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    assert not ended.is_set()
    gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert ended.is_set()
    assert caught.value.__cause__ is (error if isinstance(error, ValueError) else None)
    assert task.cancelled()


async def test_uninterrupted_work_that_ends_with_its_cancellation_is_cancelled() -> None:
    """A cancellation that meets the very end of the work is not lost, nor is the work."""
    ended: list[int] = []
    task: asyncio.Future[None]

    async def work() -> None:
        task.cancel()
        ended.append(1)

    task = asyncio.ensure_future(uninterrupted(work()))
    assert await cancelled(task)
    assert ended == [1]


def test_uninterrupted_work_is_stopped_by_the_end_of_its_loop() -> None:
    """Where the loop itself shuts down and cancels the work too, the wait ends with it."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            ended.append("stopped")
            raise

    async def main() -> None:
        task = asyncio.ensure_future(uninterrupted(work()))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(main())
    assert ended == ["stopped"]
