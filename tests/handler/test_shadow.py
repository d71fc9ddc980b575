"""Shadowing: the caller never notices, and every attempt is counted."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.handler import HandlerEvent, InFlightCall, observe, recorded, shadow
from phyxius.journal import Journal
from tests.handler.sides import Caller, Side, answers, as_async, raises

NAME = "quote.read.parity"
ZERO = timedelta(0)
SECOND = timedelta(seconds=1)
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


@pytest.fixture
def journal(clock: ControlledClock) -> Iterator[Journal[Any]]:
    yield Journal(clock=clock)
    join()


def join() -> None:
    """Wait for the comparisons of plain functions, each of which has a thread of that name."""
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(10)
            assert not thread.is_alive()


def attempts(journal: Journal[Any]) -> list[HandlerEvent]:
    return [entry.data for entry in journal if entry.data.name == NAME]


def only(journal: Journal[Any]) -> HandlerEvent:
    (event,) = attempts(journal)
    assert not journal.in_flight
    return event


def parity(journal: Journal[Any]) -> object:
    return only(journal).observed["parity"]


async def call_async(journal: Journal[Any], old: Side, new: Side, **options: Any) -> object:
    """Both sides async."""
    return await shadow(journal, NAME, old=as_async(old), new=as_async(new), **options)()


async def call_mixed(journal: Journal[Any], old: Side, new: Side, **options: Any) -> object:
    """The old side async, the new one plain, in a thread."""
    return await shadow(journal, NAME, old=as_async(old), new=new, **options)()


async def call_plain(journal: Journal[Any], old: Side, new: Side, **options: Any) -> object:
    """Both sides plain."""
    return shadow(journal, NAME, old=old, new=new, **options)()


async def settle(journal: Journal[Any]) -> None:
    clock: Any = journal.clock
    await clock.elapse(ZERO)
    join()


all_ways = pytest.mark.parametrize("call", [call_async, call_mixed, call_plain])


@all_ways
@pytest.mark.parametrize(
    "new, options, expected, outcome",
    [
        (answers(1), {}, "matched", "success"),
        (answers(2), {}, "mismatched", "failure"),
        (answers(2), {"ignore": lambda old, new: (old, new) == (1, 2)}, "ignored", "success"),
        (answers(2), {"compare": lambda old, new: (old, new) == (1, 2)}, "matched", "success"),
        (answers(1), {"compare": lambda old, new: None}, "errored", "failure"),
        (answers(1), {"compare": lambda old, new: old.missing}, "errored", "failure"),
        (answers(1), {"compare": lambda old, new: raises(SystemExit(3))()}, "errored", "failure"),
        (raises(KeyError("x")), {}, "errored", "failure"),
        (raises(SystemExit(3)), {}, "errored", "failure"),
        (raises(asyncio.CancelledError()), {}, "errored", "failure"),
        (raises(GeneratorExit()), {}, "errored", "failure"),
    ],
)
async def test_old_answers(
    journal: Journal[Any], call: Caller, new: Side, options: Any, expected: str, outcome: str
) -> None:
    """Whatever the new side and the comparator do, the caller gets the old answer and the attempt is counted once."""
    assert await call(journal, answers(1), new, **options) == 1
    await settle(journal)
    event = only(journal)
    assert (event.observed["parity"], event.outcome) == (expected, outcome)
    assert (event.error is not None, "why" in event.observed) == ((expected == "errored",) * 2)


@all_ways
@pytest.mark.parametrize(
    "new, expected, error",
    [
        (answers(1), "mismatched", "LookupError"),
        (raises(LookupError("other")), "not_compared", "LookupError"),
        (raises(KeyError()), "errored", "KeyError"),
        (raises(SystemExit()), "errored", None),
    ],
)
async def test_old_raises(journal: Journal[Any], call: Caller, new: Side, expected: str, error: str | None) -> None:
    """The caller gets the very exception of the old side; where both raise alike there is nothing to compare."""
    mine = LookupError("mine")
    with pytest.raises(LookupError) as raised:
        await call(journal, raises(mine), new)
    assert raised.value is mine
    await settle(journal)
    event = only(journal)
    assert event.observed["parity"] == expected
    assert event.error
    assert event.error.type == (error or event.error.type)


@all_ways
async def test_the_caller_does_not_wait(journal: Journal[Any], call: Caller) -> None:
    """The old answer is there before the new side has so much as answered; meanwhile the attempt is in flight."""
    gate = asyncio.Event() if call is call_async else threading.Event()
    if call is call_async:
        assert await shadow(journal, NAME, old=as_async(answers(True)), new=gate.wait)() is True
    else:
        assert await call(journal, answers(True), functools.partial(gate.wait, 10)) is True
    assert not attempts(journal)
    (attempt,) = journal.in_flight
    assert isinstance(attempt, InFlightCall)
    assert (attempt.name, attempt.observed["timeout_seconds"], attempt.observed["sample"]) == (NAME, 5.0, 1.0)
    gate.set()
    await settle(journal)
    assert parity(journal) == "matched"


async def test_new_hangs(journal: Journal[Any], clock: ControlledClock) -> None:
    """A new side that hangs is errored at the limit, and cancelled."""
    ended: list[BaseException] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise

    assert await shadow(journal, NAME, old=as_async(answers(1)), new=hangs, timeout=SECOND)() == 1
    await clock.elapse(SECOND - timedelta(microseconds=1))
    assert len(journal.in_flight) == 1
    await clock.elapse(timedelta(microseconds=1))
    assert (parity(journal), only(journal).duration) == ("errored", SECOND)
    assert (only(journal).observed["why"], len(ended)) == ("the new side was late", 1)


async def test_new_swallows_its_cancellation(journal: Journal[Any], clock: ControlledClock) -> None:
    """A new side that goes on after its cancellation holds nobody up, and its late answer does not count."""
    gate = asyncio.Event()

    async def stubborn() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await gate.wait()
            observe(late=True)
        return 1

    assert await shadow(journal, NAME, old=as_async(answers(1)), new=stubborn, timeout=SECOND)() == 1
    await clock.elapse(SECOND)
    assert parity(journal) == "errored"
    gate.set()
    await clock.elapse(ZERO)
    assert "late" not in only(journal).observed


@pytest.mark.parametrize("late", [False, True])
@all_ways
async def test_late_without_a_timer(journal: Journal[Any], clock: ControlledClock, call: Caller, late: bool) -> None:
    """What ends at its limit is late, even if the new side blocked the loop so that no timer fired."""
    took = SECOND if late else SECOND - timedelta(microseconds=1)
    assert await call(journal, answers(1), lambda: clock.advance_by(took) or 1, timeout=SECOND) == 1
    await settle(journal)
    assert parity(journal) == ("errored" if late else "matched")


async def test_an_old_time_out_does_not_excuse_a_late_new_side(journal: Journal[Any], clock: ControlledClock) -> None:
    """An old side that raises a TimeoutError of its own did not raise alike with a new side that was late."""
    with pytest.raises(TimeoutError):
        await shadow(journal, NAME, old=as_async(raises(TimeoutError())), new=asyncio.Event().wait, timeout=SECOND)()
    await clock.elapse(SECOND)
    assert parity(journal) == "errored"


async def test_old_is_slow(journal: Journal[Any], clock: ControlledClock) -> None:
    """The limit is the new side's alone: an old side that takes long is waited for, and compared."""

    async def old() -> int:
        await clock.sleep(10 * SECOND)
        return 1

    task = asyncio.create_task(shadow(journal, NAME, old=old, new=as_async(answers(1)), timeout=SECOND)())
    await clock.elapse(5 * SECOND)
    assert len(journal.in_flight) == 1
    await clock.elapse(5 * SECOND)
    assert await task == 1
    assert parity(journal) == "matched"


async def test_the_caller_is_cancelled(journal: Journal[Any], clock: ControlledClock) -> None:
    """A cancelled caller cancels the old side alone; the new one runs to its end, and nothing is compared."""
    gate, cancelled, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def old() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def new() -> None:
        await gate.wait()
        finished.set()

    task = asyncio.create_task(shadow(journal, NAME, old=old, new=new)())
    await clock.elapse(ZERO)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
    assert len(journal.in_flight) == 1
    gate.set()
    await clock.elapse(ZERO)
    assert finished.is_set()
    assert parity(journal) == "not_compared"


@pytest.mark.parametrize("plain", [False, True])
async def test_a_call_that_the_new_side_does_not_take(journal: Journal[Any], plain: bool) -> None:
    """A new side that raises as soon as it is called, since its signature is another, touches nobody."""
    new: Any = answers(1) if plain else as_async(answers(1))
    assert await shadow(journal, NAME, old=coroutine_function, new=new)(7) == 7
    await settle(journal)
    assert only(journal).error
    assert parity(journal) == "errored"


async def test_arguments_and_metadata(journal: Journal[Any]) -> None:
    """Both sides get the arguments, and the shadowed function looks like the old one."""

    async def read(quote_id: int, *, factor: int = 1) -> int:
        """Read it."""
        return quote_id * factor

    def double(quote_id: int, *, factor: int = 1) -> int:
        return quote_id * factor * 2

    shadowed = shadow(journal, NAME, old=read, new=double)
    assert (inspect.signature(shadowed), shadowed.__doc__) == (inspect.signature(read), "Read it.")
    assert inspect.iscoroutinefunction(shadowed)
    assert await shadowed(3, factor=4) == 12
    await settle(journal)
    assert parity(journal) == "mismatched"
    plain = shadow(journal, NAME, old=double, new=double)
    assert not inspect.iscoroutinefunction(plain)
    assert plain(3, factor=4) == 24


def test_it_declares(journal: Journal[Any]) -> None:
    """The name of the attempts is declared before the first of them."""
    shadow(journal, NAME, old=len, new=len)
    assert journal.declared == {NAME}


@all_ways
@pytest.mark.parametrize("sample, least, most", [(0, 0, 0), (1, 200, 200), (0.25, 1, 199)])
async def test_sampling(journal: Journal[Any], call: Caller, sample: float, least: int, most: int) -> None:
    """The share that is asked for is compared and tells its rate; all calls are answered."""
    random.seed(7)
    expected = sum(random.random() < sample for _ in range(200))
    random.seed(7)
    ran = Counter[str]()
    for _ in range(200):
        assert await call(journal, lambda: ran.update(["old"]), lambda: ran.update(["new"]), sample=sample) is None
    await settle(journal)
    assert least <= expected <= most
    assert len(attempts(journal)) == expected
    assert ran == Counter({"old": 200, "new": expected})
    assert {type(event.observed["sample"]) for event in attempts(journal)} <= {float}
    assert {event.observed["sample"] for event in attempts(journal)} <= {sample}


@pytest.mark.parametrize("call", [call_async, call_mixed, call_plain])
async def test_who_observes_what(journal: Journal[Any], call: Caller) -> None:
    """The attempt takes over what the enclosing call observed, and has what the new side observes to itself."""

    def old() -> None:
        observe(rows=1, side="old")

    def new() -> None:
        observe(new_rows=2, side="new")

    with recorded(journal, "quote.read", observed={"tenant": "a", "stage": "before"}) as enclosing:
        await call(journal, old, new)
        enclosing.observed["stage"] = "after"
        await settle(journal)
    event = only(journal)
    assert event.observed.items() >= {"tenant": "a", "rows": 1, "new_rows": 2, "side": "new"}.items()
    (outer,) = [entry.data for entry in journal if entry.data.name == "quote.read"]
    assert outer.observed == {"tenant": "a", "stage": "after", "rows": 1, "side": "old"}


async def test_an_attempt_in_flight_tells_the_tenant(journal: Journal[Any], clock: ControlledClock) -> None:
    """What the enclosing call knew at the start is known of the attempt in flight too; the end has the last word."""
    gate = asyncio.Event()
    shadowed = shadow(journal, NAME, old=as_async(answers(1)), new=gate.wait, compare=lambda old, new: new)
    with recorded(journal, "quote.read", observed={"tenant": "a"}) as enclosing:
        await shadowed()
        attempt: Any = journal.in_flight[1]
        assert attempt.observed["tenant"] == "a"
        enclosing.observed["tenant"] = "b"
        gate.set()
        await clock.elapse(ZERO)
    assert attempts(journal)[0].observed["tenant"] == "b"


async def test_the_new_side_cannot_forge_its_verdict(journal: Journal[Any]) -> None:
    """Neither side can write the verdict by observing it."""

    def forge() -> int:
        observe(parity="matched")
        return 2

    with recorded(journal, "quote.read"):
        await call_mixed(journal, lambda: observe(parity="matched"), forge)
        await settle(journal)
    assert attempts(journal)[0].observed["parity"] == "mismatched"


async def test_contexts_of_concurrent_calls_do_not_mix(journal: Journal[Any], clock: ControlledClock) -> None:
    """Of many calls at once each attempt takes over what its own caller observed."""
    barrier = asyncio.Barrier(10)

    async def old(number: int) -> int:
        await barrier.wait()
        return number

    async def new(number: int) -> int:
        await asyncio.sleep(0)
        observe(seen=number)
        return number

    shadowed = shadow(journal, NAME, old=old, new=new)

    @recorded(journal, "quote.read")
    async def handle(number: int) -> int:
        observe(number=number)
        return await shadowed(number)

    assert await asyncio.gather(*map(handle, range(10))) == list(range(10))
    await clock.elapse(ZERO)
    seen = sorted((event.observed["number"], event.observed["seen"]) for event in attempts(journal))
    assert seen == [(number, number) for number in range(10)]


@all_ways
async def test_context_variables(journal: Journal[Any], call: Caller) -> None:
    """The new side sees the caller's context variables, and what it sets stays with it."""

    def new() -> str:
        before = variable.get()
        variable.set("new")
        return before

    token = variable.set("caller")
    await call(journal, variable.get, new)
    await settle(journal)
    assert (parity(journal), variable.get()) == ("matched", "caller")
    variable.reset(token)


def test_the_loop_shuts_down(clock: ControlledClock) -> None:
    """A comparison that `asyncio.run` cuts off at its end leaves one event, and nothing in flight."""
    journal = Journal[Any](clock=clock)

    async def main() -> object:
        return await shadow(journal, NAME, old=as_async(answers(1)), new=asyncio.Event().wait)()

    assert asyncio.run(main()) == 1
    assert (parity(journal), only(journal).outcome) == ("not_compared", "failure")


def test_ctrl_c_inside_a_comparator(clock: ControlledClock) -> None:
    """A KeyboardInterrupt goes through the loop, and the attempt is still counted, against the new side."""
    journal = Journal[Any](clock=clock)

    async def main() -> None:
        await call_async(journal, answers(1), answers(1), compare=lambda old, new: raises(KeyboardInterrupt())())
        await clock.elapse(ZERO)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert parity(journal) == "errored"


def test_plain_without_a_loop(journal: Journal[Any], clock: ControlledClock) -> None:
    """A plain old side needs no event loop; a hung new one stays in flight and, once it ends, was late."""
    gate, new_threads = threading.Event(), list[threading.Thread]()

    def new() -> int:
        new_threads.append(threading.current_thread())
        assert gate.wait(10)
        return 1

    shadowed = shadow(journal, NAME, old=lambda: 1, new=new, timeout=SECOND)
    assert shadowed() == 1
    clock.advance_by(SECOND)
    assert (len(journal.in_flight), attempts(journal)) == (1, [])
    gate.set()
    join()
    assert new_threads[0].daemon
    assert (parity(journal), only(journal).observed["why"]) == ("errored", "the new side was late")


def test_plain_old_is_slow(journal: Journal[Any]) -> None:
    """The verdict waits for a plain old side that takes longer than the new one."""
    answered = threading.Event()

    def new() -> int:
        answered.set()
        return 1

    def old() -> int:
        assert answered.wait(10)
        assert not attempts(journal)
        return 1

    assert shadow(journal, NAME, old=old, new=new)() == 1
    join()
    assert parity(journal) == "matched"


def test_plain_threads_at_once(journal: Journal[Any]) -> None:
    """Attempts of many threads are each counted once."""
    barrier = threading.Barrier(8)

    def old(number: int) -> int:
        barrier.wait(10)
        return number

    shadowed = shadow(journal, NAME, old=old, new=lambda number: number % 2)
    threads = [threading.Thread(target=shadowed, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    join()
    counts = Counter(event.observed["parity"] for event in attempts(journal))
    assert counts == {"matched": 2, "mismatched": 6}
    assert not journal.in_flight


@pytest.mark.parametrize("fails", [False, True])
def test_no_thread_can_be_started(journal: Journal[Any], monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Where no thread can be had the old side runs alone, and the attempt counts for nothing."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    shadowed = shadow(journal, NAME, old=raises(KeyError()) if fails else answers(1), new=answers(1))
    if fails:
        with pytest.raises(KeyError):
            shadowed()
    else:
        assert shadowed() == 1
    assert parity(journal) == "not_compared"


async def test_no_thread_for_a_plain_new_side(journal: Journal[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An async old side is answered too where its plain shadow gets no thread."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await call_mixed(journal, answers(1), answers(1)) == 1
    await settle(journal)
    assert parity(journal) == "errored"


class AsyncCallable:
    async def __call__(self) -> int:
        return 1


class Constructed(AsyncCallable):
    """A class whose instances are async; calling the class itself is not."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    __hash__ = None


async def coroutine_function(number: int = 1) -> int:
    return number


async def never_compares(old: object, new: object) -> bool:
    raise AssertionError


@pytest.mark.parametrize(
    "options, error",
    [
        ({"sample": -0.1}, ValueError),
        ({"sample": 1.1}, ValueError),
        ({"sample": float("nan")}, ValueError),
        ({"timeout": ZERO}, ValueError),
        ({"timeout": -SECOND}, ValueError),
        ({"compare": never_compares}, TypeError),
        ({"ignore": never_compares}, TypeError),
        ({"ignore": functools.partial(never_compares, 1)}, TypeError),
        ({"new": coroutine_function}, TypeError),
        ({"new": AsyncCallable()}, TypeError),
        ({"new": AsyncCallable().__call__}, TypeError),
    ],
)
def test_misuse_is_refused(journal: Journal[Any], options: dict[str, Any], error: type[Exception]) -> None:
    """What could never compare is refused where it is written, and declares nothing."""
    with pytest.raises(error):
        shadow(journal, NAME, **{"old": len, "new": len, **options})
    assert not journal.declared


@pytest.mark.parametrize("new", [AsyncCallable(), functools.partial(coroutine_function)])
async def test_async_callables(journal: Journal[Any], new: Any) -> None:
    """An object whose call is async is async, on either side."""
    assert await shadow(journal, NAME, old=new, new=new)() == 1
    await settle(journal)
    assert parity(journal) == "matched"


def test_a_class_is_plain(journal: Journal[Any]) -> None:
    """A class is called to make an instance, which is plain even if its instances are async."""
    assert isinstance(shadow(journal, NAME, old=Constructed, new=Constructed)(), Constructed)
    join()
    assert parity(journal) == "matched"


@pytest.mark.parametrize("old_is_async", [False, True])
async def test_lambdas_that_return_coroutines(journal: Journal[Any], old_is_async: bool) -> None:
    """A coroutine is no answer to compare: the caller still gets his, and the event says what to write."""

    def forwards(number: int) -> Awaitable[int]:
        return coroutine_function(number)

    old = coroutine_function if old_is_async else forwards
    assert await shadow(journal, NAME, old=old, new=forwards)(1) == 1
    await settle(journal)
    event = only(journal)
    assert event.observed["parity"] == "errored"
    assert event.error
    assert "async def" in event.error.message


@all_ways
async def test_a_failing_append(clock: ControlledClock, call: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """A journal that refuses the attempt changes nothing for the caller, and is a loss."""
    journal = Journal[Any](clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    journal.append("full")
    clock.advance_by(SECOND)
    assert await call(journal, answers(1), answers(1)) == 1
    await settle(journal)
    assert not journal.in_flight
    assert journal.complete_since.ns_since(clock.now()) > 0
    assert NAME in caplog.text


async def test_nested(journal: Journal[Any], clock: ControlledClock) -> None:
    """A shadow inside the new side of another leaves an attempt of its own, which belongs to the outer attempt."""
    inner = shadow(journal, "inner", old=as_async(answers(1)), new=as_async(answers(2)))

    async def new() -> object:
        observe(tenant="a")
        return await inner()

    await shadow(journal, NAME, old=as_async(answers(1)), new=new)()
    await clock.elapse(ZERO)
    found = {entry.data.name: entry.data.observed for entry in journal}
    assert found["inner"].items() >= {"parity": "mismatched", "tenant": "a"}.items()
    assert found[NAME].items() >= {"parity": "matched", "tenant": "a"}.items()
    assert len(journal) == 2


async def test_tasks_that_begin_each_other(journal: Journal[Any], clock: ControlledClock) -> None:
    """However many there were before: what has ended is no enclosing call any more, and is not kept."""
    tasks: list[asyncio.Task[None]] = []
    read = shadow(journal, NAME, old=coroutine_function, new=coroutine_function)

    @recorded(journal, "tick")
    async def tick(left: int) -> None:
        observe(**({"tenant": "a"} if left == 1_100 else {}))
        await read(left)
        if left:
            tasks.append(asyncio.create_task(tick(left - 1)))

    await tick(1_100)
    for task in tasks:
        await task
    await clock.elapse(ZERO)
    assert len(attempts(journal)) == 1_101
    assert "tenant" not in attempts(journal)[-1].observed


async def test_an_answer_that_is_awaited_inside_of_its_own_call(journal: Journal[Any], clock: ControlledClock) -> None:
    """It is no call around itself."""
    read = shadow(journal, NAME, old=coroutine_function, new=coroutine_function)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await (await asked)

    async def answer() -> None:
        await read(1)

    workers: list[asyncio.Task[None]] = []

    @recorded(journal, "call")
    def call() -> Awaitable[None]:
        workers.append(asyncio.create_task(work()))
        return answer()

    asked.set_result(call())
    await workers[0]
    await clock.elapse(ZERO)
    assert parity(journal) == "matched"
