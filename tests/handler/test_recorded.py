"""Recording: every call becomes one event, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import subprocess
import sys
import textwrap
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol, cast

import pytest

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.handler import HandlerError, HandlerEvent, InFlightCall, observe, recorded
from phyxius.journal import Journal

NAME = "quote.read"
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


@pytest.fixture
def journal(clock: ControlledClock) -> Journal[Any]:
    return Journal(clock=clock)


def events(journal: Journal[Any]) -> list[HandlerEvent]:
    return [entry.data for entry in journal]


def only(journal: Journal[Any]) -> HandlerEvent:
    (event,) = events(journal)
    assert not journal.in_flight
    return event


Run = Callable[[Journal[Any], Callable[[], None]], Awaitable[object]]


async def run_async(journal: Journal[Any], body: Callable[[], None]) -> object:
    @recorded(journal, NAME, observed={"tenant": "a"})
    async def read() -> str:
        await asyncio.sleep(0)
        body()
        return "answer"

    assert inspect.iscoroutinefunction(read)
    return await read()


async def run_plain(journal: Journal[Any], body: Callable[[], None]) -> object:
    @recorded(journal, NAME, observed={"tenant": "a"})
    def read() -> str:
        body()
        return "answer"

    return read()


async def run_awaitable(journal: Journal[Any], body: Callable[[], None]) -> object:
    async def work() -> str:
        await asyncio.sleep(0)
        body()
        return "answer"

    @recorded(journal, NAME, observed={"tenant": "a"})
    def read() -> Awaitable[str]:
        return work()

    return await read()


async def run_future(journal: Journal[Any], body: Callable[[], None]) -> object:
    async def work() -> str:
        await asyncio.sleep(0)
        body()
        return "answer"

    @recorded(journal, NAME, observed={"tenant": "a"})
    def read() -> asyncio.Task[str]:
        return asyncio.create_task(work())

    return await read()


async def run_block(journal: Journal[Any], body: Callable[[], None]) -> object:
    with recorded(journal, NAME, observed={"tenant": "a"}):
        body()
        return "answer"


ways = pytest.mark.parametrize("run", [run_async, run_plain, run_awaitable, run_future, run_block])


@ways
async def test_success(journal: Journal[Any], clock: ControlledClock, run: Run) -> None:
    """A call that answers leaves one success with its times and what it observed; the answer goes through."""

    def body() -> None:
        clock.advance_by(SECOND)
        observe(rows=3)

    assert await run(journal, body) == "answer"
    event = only(journal)
    assert (event.name, event.outcome, event.error, event.source) == (NAME, "success", None, "handler")
    assert event.observed == {"tenant": "a", "rows": 3}
    assert (event.completed_at, event.duration) == (clock.now(), SECOND)


@ways
@pytest.mark.parametrize("error", [KeyError("x"), asyncio.CancelledError("stop")])
async def test_failure(journal: Journal[Any], run: Run, error: BaseException) -> None:
    """A call that raises, or is cancelled, leaves one failure, and the exception goes on."""

    def body() -> None:
        raise error

    with pytest.raises(type(error)):
        await run(journal, body)
    event = only(journal)
    assert (event.outcome, event.error and event.error.type) == ("failure", type(error).__name__)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("run", [run_async, run_plain, run_awaitable, run_block])
def test_whatever_it_raises_goes_on(journal: Journal[Any], run: Run, error: type[BaseException]) -> None:
    """Not even an exception that ends the process escapes the record, or is held up by it."""

    def body() -> None:
        raise error

    with pytest.raises(error):
        drive(run(journal, body))
    assert only(journal).error == HandlerError(error.__name__, "")


def drive(awaitable: Awaitable[object]) -> None:
    """Run what never really waits, without an event loop."""
    steps = awaitable.__await__()
    while True:
        next(steps)


@ways
async def test_in_flight(journal: Journal[Any], run: Run) -> None:
    """From before the body until after the append the call is in flight; the event never comes too late."""
    seen: list[tuple[object, ...]] = []
    journal.subscribe(lambda entry: seen.append(journal.in_flight))
    await run(journal, lambda: seen.append((*journal.in_flight, len(journal))))
    ((in_body, length), (at_append,)) = seen
    assert length == 0
    assert in_body is at_append
    assert isinstance(in_body, InFlightCall)
    assert (in_body.name, in_body.observed["tenant"]) == (NAME, "a")
    assert only(journal)


async def test_cancelled_task(journal: Journal[Any]) -> None:
    """A handler whose task is cancelled while it waits leaves a failure, and the cancellation goes on."""

    @recorded(journal, NAME)
    async def read() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only(journal).error == HandlerError("CancelledError", "")


@pytest.mark.parametrize("stop", ["cancel", "drop"])
async def test_an_awaitable_that_nobody_awaits(journal: Journal[Any], stop: str) -> None:
    """A call whose awaitable was dropped, or cancelled before its first step, does not stay in flight for ever."""

    async def work() -> None:
        raise AssertionError

    answer: Any = recorded(journal, NAME)(lambda answer: answer)(work())
    assert len(journal.in_flight) == 1
    if stop == "cancel":
        task = asyncio.create_task(answer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task, answer
        await asyncio.sleep(0)  # the loop lets go of what it has just run
    else:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            del answer
    gc.collect()
    assert only(journal).outcome == "failure"


async def test_a_future_that_is_never_awaited(journal: Journal[Any]) -> None:
    """A task that a plain function starts and hands out is still that task, and its end is recorded."""
    gate = asyncio.Event()
    task = recorded(journal, NAME)(lambda: asyncio.create_task(gate.wait()))()
    assert isinstance(task, asyncio.Task)
    await asyncio.sleep(0)
    assert len(journal.in_flight) == 1
    gate.set()
    await asyncio.wait([task])
    assert only(journal).outcome == "success"


async def test_an_awaitable_object(journal: Journal[Any]) -> None:
    """An answer that is awaitable without being a coroutine is awaited as part of the call."""

    class Later:
        def __await__(self) -> Iterator[Any]:
            yield from asyncio.sleep(0).__await__()
            return "answer"

    waiting: Any = recorded(journal, NAME)(functools.partial(Later))()
    assert len(journal.in_flight) == 1
    assert await waiting == "answer"
    assert only(journal).outcome == "success"
    never: Any = recorded(journal, NAME)(functools.partial(Later))()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del never
    assert not journal.in_flight


@pytest.mark.parametrize("kind", ["decorator", "with"])
def test_it_declares(journal: Journal[Any], kind: str) -> None:
    """The name is declared before any call, so that silence has a witness; but not by what nobody uses."""
    recorder = recorded(journal, NAME)
    assert not journal.declared
    if kind == "decorator":
        recorder(len)
        assert not journal.in_flight
        assert journal.declared == {NAME}
    else:
        with recorder:
            assert journal.declared == {NAME}


def test_an_empty_name_is_refused(journal: Journal[Any]) -> None:
    """What no query could find is not recorded."""
    with pytest.raises(ValueError, match="must be a text that is not empty"):
        recorded(journal, "")


def overflowing(clock: ControlledClock) -> Journal[Any]:
    journal = Journal[Any](clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    journal.append("full")
    return journal


def no_more_ids(clock: ControlledClock) -> Journal[Any]:
    def fail() -> str:
        raise OSError("no ids")

    return Journal(clock=clock, id_generator=fail)


@pytest.mark.parametrize("make", [overflowing, no_more_ids])
@pytest.mark.parametrize("fails", [False, True])
@ways
async def test_a_failing_append(
    make: Callable[[ControlledClock], Journal[Any]],
    fails: bool,
    run: Run,
    clock: ControlledClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A journal that refuses the event changes nothing for the caller; it is a loss, and logged."""
    journal = make(clock)
    clock.advance_by(SECOND)

    def body() -> None:
        if fails:
            raise KeyError

    if fails:
        with pytest.raises(KeyError):
            await run(journal, body)
    else:
        assert await run(journal, body) == "answer"
    assert not journal.in_flight
    assert journal.complete_since.ns_since(clock.now()) > 0
    (record,) = [each for each in caplog.records if each.name == "phyxius.handler"]
    assert record.levelno == logging.ERROR
    assert NAME in record.getMessage()


def test_recording_inside_a_subscriber(journal: Journal[Any], clock: ControlledClock) -> None:
    """A recorded function that a subscriber calls works; its event is a loss, since no subscriber may append."""
    answers: list[object] = []
    journal.subscribe(lambda entry: answers.append(recorded(journal, NAME)(lambda: "answer")()))
    clock.advance_by(SECOND)
    journal.append("x")
    assert (answers, len(journal)) == (["answer"], 1)
    assert journal.complete_since.ns_since(clock.now()) > 0


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@contextlib.contextmanager
def session() -> Iterator[int]:
    yield 1


@contextlib.asynccontextmanager
async def async_session() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "function", [generator, async_generator, functools.partial(generator), staticmethod(generator)]
)
def test_generators_are_refused(journal: Journal[Any], function: Callable[[], object]) -> None:
    """A generator has no one end that could be recorded."""
    with pytest.raises(TypeError, match="with recorded"):
        recorded(journal, NAME)(function)


def test_entering_twice_is_refused(journal: Journal[Any]) -> None:
    """One object records one call, nested or one after the other; the first call is not disturbed."""
    once = recorded(journal, NAME)
    with once, pytest.raises(RuntimeError, match="entered already"):
        once.__enter__()
    with pytest.raises(RuntimeError, match="entered already"):
        once.__enter__()
    assert only(journal).outcome == "success"


def test_observed_can_be_filled(journal: Journal[Any]) -> None:
    """What the block learns is in the event; each call starts from what the recorder was given."""
    given = {"queue": "q"}
    recorder = recorded(journal, NAME, observed=given)
    given["queue"] = "changed"
    with recorder as call:
        call.observed["messages"] = 1
        call.observed |= {"more": 2}
        with pytest.raises((TypeError, ValueError)):
            call.observed = 7
    late = call.observed
    late["messages"] = 9
    assert only(journal).observed == {"queue": "q", "messages": 1, "more": 2}

    @recorded(journal, NAME, observed={"tenant": "a"})
    def read(rows: int) -> None:
        observe(**{f"rows{rows}": rows})

    read(1)
    read(2)
    assert [event.observed for event in events(journal)[1:]] == [
        {"tenant": "a", "rows1": 1},
        {"tenant": "a", "rows2": 2},
    ]


def test_observe_reaches_the_innermost(journal: Journal[Any]) -> None:
    """`observe` adds to the recording that is innermost just then, and does nothing outside of any."""
    observe(lost=1)
    with recorded(journal, "outer"):
        observe(a=1)
        with contextlib.suppress(KeyError), recorded(journal, "inner"):
            observe(b=2)
            raise KeyError
        observe(c=3)
    observe(lost=2)
    assert [(event.name, event.observed) for event in events(journal)] == [
        ("inner", {"b": 2}),
        ("outer", {"a": 1, "c": 3}),
    ]


async def test_concurrent_tasks_do_not_mix(journal: Journal[Any]) -> None:
    """Each of many tasks observes for its own call, in whatever order they run."""
    barrier = asyncio.Barrier(5)

    @recorded(journal, NAME)
    async def read(number: int) -> None:
        observe(first=number)
        await barrier.wait()
        observe(second=number)

    await asyncio.gather(*map(read, range(5)))
    seen = {(event.observed["first"], event.observed["second"]) for event in events(journal)}
    assert seen == {(number, number) for number in range(5)}


async def test_a_task_started_inside_observes_for_the_call(journal: Journal[Any]) -> None:
    """A task, or a thread given the context, belongs to the call it was started in, as long as that lasts."""
    gate = asyncio.Event()

    async def child() -> None:
        observe(task=1)
        await gate.wait()
        observe(late=1)

    with recorded(journal, NAME):
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        await asyncio.to_thread(observe, thread=1)
    gate.set()
    await task
    assert only(journal).observed == {"task": 1, "thread": 1}


def test_threads_do_not_mix(journal: Journal[Any]) -> None:
    """Threads that record at once observe for their own calls; one without a recording observes nothing."""
    barrier = threading.Barrier(4)

    def read(number: int) -> None:
        observe(lost=number)
        with recorded(journal, NAME):
            barrier.wait(10)
            observe(number=number)
            barrier.wait(10)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(str(event.observed) for event in events(journal)) == [f"{{'number': {n}}}" for n in range(4)]
    assert not journal.in_flight


def test_metadata_stays(journal: Journal[Any]) -> None:
    """A decorated function is still known by its name, its doc and its signature."""

    def read(quote_id: str, *, fresh: bool = False) -> str:
        """Read it."""
        return f"{quote_id}{fresh}"

    wrapped = recorded(journal, NAME)(read)
    assert (wrapped.__name__, wrapped.__doc__) == ("read", "Read it.")
    assert inspect.signature(wrapped) == inspect.signature(read)
    assert wrapped("1", fresh=True) == "1True"


async def test_in_classes(journal: Journal[Any]) -> None:
    """Methods of every kind are recorded, on whichever side of `staticmethod` the decorator stands."""

    class Quotes:
        @recorded(journal, "method")
        def method(self, number: int) -> tuple[object, int]:
            return type(self), number

        @recorded(journal, "async")
        async def async_method(self, number: int) -> tuple[object, int]:
            return type(self), number

        @staticmethod
        @recorded(journal, "static")
        def inside(number: int) -> int:
            return number

        @recorded(journal, "static")
        @staticmethod
        async def outside(number: int) -> int:
            return number

        @classmethod
        @recorded(journal, "class")
        def class_inside(cls, number: int) -> tuple[object, int]:
            return cls, number

        @recorded(journal, "class")
        @classmethod
        def class_outside(cls, number: int) -> tuple[object, int]:
            return cls, number

        @property
        @recorded(journal, "property")
        def value(self) -> int:
            return 7

    quotes: Any = Quotes()
    assert quotes.method(1) == await quotes.async_method(1) == (Quotes, 1)
    assert quotes.inside(2) == await quotes.outside(2) == await Quotes.outside(2) == 2
    assert quotes.class_inside(3) == quotes.class_outside(3) == (Quotes, 3)
    assert quotes.value == 7
    names = ["method", "async", "static", "static", "static", "class", "class", "property"]
    assert [event.name for event in events(journal)] == names


async def test_a_class(journal: Journal[Any]) -> None:
    """Each public method that it has itself is recorded by its own name; it stays the class that it was."""

    class Base:
        def inherited(self) -> int:
            return 0

    @recorded(journal, "quotes", observed={"tenant": "a"})
    class Quotes(Base):
        limit = 7

        class Nested:
            def method(self) -> int:
                return 0

        def __init__(self, number: int) -> None:
            self.number = number

        def __call__(self) -> int:
            return self.number

        def read(self) -> int:
            return self._read()

        async def write(self) -> int:
            return self.number

        @staticmethod
        def static() -> int:
            return 1

        @classmethod
        async def other(cls) -> type:
            return cls

        @property
        def value(self) -> int:
            return self.number

        def _read(self) -> int:
            return self.number

    class More(Quotes):
        pass

    quotes, more = Quotes(3), More(4)
    assert (quotes(), quotes.read(), await quotes.write(), quotes.static(), await quotes.other()) == (
        3,
        3,
        3,
        1,
        Quotes,
    )
    assert (quotes.inherited(), quotes.value, Quotes.limit, quotes.Nested().method()) == (0, 3, 7, 0)
    assert (more.read(), await More.other()) == (4, More)
    names = ["quotes", "quotes.read", "quotes.write", "quotes.static", "quotes.other"]
    assert [event.name for event in events(journal)] == [*names, "quotes.read", "quotes.other"]
    assert {str(event.observed) for event in events(journal)} == {"{'tenant': 'a'}"}
    assert journal.declared == set(names)


def test_a_class_declares_no_name_that_it_never_records(journal: Journal[Any]) -> None:
    """Else a query for the name of the class would have a witness, and never an event."""

    @recorded(journal, "quotes")
    class Quotes:
        def read(self) -> int:
            return 0

    assert Quotes().read() == 0
    assert journal.declared == {"quotes.read"}


def test_a_class_that_cannot_be_recorded(journal: Journal[Any]) -> None:
    """Without a method, or with a generator, which is named; then none of its methods is changed."""

    class Nothing:
        limit = 7

    class Streams:
        def read(self) -> int:
            return 0

        def stream(self) -> Iterator[int]:
            yield 1

    with pytest.raises(TypeError, match="no public method"):
        recorded(journal, "quotes")(Nothing)
    untouched = Streams.read
    with pytest.raises(TypeError, match=r"recorded\('quotes.stream'\) cannot record the generator"):
        recorded(journal, "quotes")(Streams)
    assert Streams.read is untouched


def test_an_interface_cannot_be_recorded(journal: Journal[Any]) -> None:
    """Its name would be declared, and what implements it would record nothing."""

    class Quotes(Protocol):
        def read(self) -> int: ...

    class Abstract(ABC):
        @abstractmethod
        def read(self) -> int: ...

        def write(self) -> int:
            return 0

    for interface in (Quotes, Abstract):
        with pytest.raises(TypeError, match="decorate the classes that implement it"):
            recorded(journal, "quotes")(interface)
    assert not journal.declared


@pytest.mark.parametrize("function", [session, async_session])
def test_a_context_manager_is_refused(journal: Journal[Any], function: Any) -> None:
    """Its body runs after the call has ended."""
    with pytest.raises(TypeError, match="answered with a context manager"):
        recorded(journal, NAME)(function)()
    assert only(journal).outcome == "failure"


def test_an_answer_is_asked_for_nothing(journal: Journal[Any]) -> None:
    """It is foreign: what it has may be lazy, and raise."""

    class Row:
        @property
        def gen(self) -> object:
            raise OSError("detached")

    class Keeps:
        gen = generator()

    for answer in (Row(), Keeps()):
        assert recorded(journal, NAME)(lambda answer=answer: answer)() is answer
    assert [event.outcome for event in events(journal)] == ["success"] * 2


def test_a_long_message_is_cut(journal: Journal[Any]) -> None:
    """At 500 characters."""
    with pytest.raises(ValueError, match="x"), recorded(journal, NAME):
        raise ValueError("x" * 1_000)
    assert only(journal).error == HandlerError("ValueError", "x" * 499 + "…")


def test_what_cannot_be_called(journal: Journal[Any]) -> None:
    """It is found when it is decorated."""
    for wrong in (property(lambda self: 7), functools.cached_property(lambda self: 7), None):
        with pytest.raises(TypeError, match="needs what can be called"):
            recorded(journal, NAME)(cast("Any", wrong))
    assert not journal.declared


async def test_an_answer_that_is_a_generator(journal: Journal[Any]) -> None:
    """Its work begins when the call has ended, so nobody would see it: it is refused, and recorded as a failure."""

    async def stream() -> Any:
        return async_generator()

    for function in (generator, async_generator):
        with pytest.raises(TypeError, match="answered with a generator"):
            recorded(journal, NAME)(lambda function=function: function())()
    with pytest.raises(TypeError, match="answered with a generator"):
        await recorded(journal, NAME)(stream)()
    with pytest.raises(TypeError, match="answered with a generator"):
        await recorded(journal, NAME)(lambda *_: stream())()
    assert [event.outcome for event in events(journal)] == ["failure"] * 4
    assert not journal.in_flight
    assert recorded(journal, NAME)(lambda: iter([1]))()


def test_what_is_pinned(journal: Journal[Any]) -> None:
    """It is known of the call while it is in flight, and nothing that is observed later changes it."""
    journal.declare(NAME)
    with recorded(journal, NAME, {"tenant": "a"}) as call:
        in_flight: Any = journal.in_flight[0]
        call.observed["learned"] = 1
        call.pin(phase="expand")
        assert in_flight.observed.known == {"tenant": "a", "phase": "expand"}
        observe(phase="flip")
        call.observed = {"other": 2}
    assert only(journal).observed == {"other": 2, "phase": "expand"}


async def test_any_callable(journal: Journal[Any]) -> None:
    """A partial and an object that can be called are recorded like functions."""

    class Reader:
        async def __call__(self, number: int) -> int:
            return number

    assert await recorded(journal, NAME)(functools.partial(Reader().__call__, 1))() == 1
    assert await recorded(journal, NAME)(Reader())(2) == 2
    assert recorded(journal, NAME)(functools.partial(int, "3"))() == 3
    assert [event.outcome for event in events(journal)] == ["success"] * 3


def test_recursion(journal: Journal[Any]) -> None:
    """A recorded function that calls itself leaves one event for each call, the innermost first."""

    @recorded(journal, NAME)
    def count(number: int) -> None:
        observe(number=number, in_flight=len(journal.in_flight))
        if number:
            count(number - 1)

    count(2)
    assert [(event.observed["number"], event.observed["in_flight"]) for event in events(journal)] == [
        (0, 3),
        (1, 2),
        (2, 1),
    ]


def test_a_clock_that_is_set_back(journal: Journal[Any], clock: ControlledClock) -> None:
    """A step of the wall clock during the call neither breaks it nor makes its duration negative."""
    with recorded(journal, NAME):
        clock.advance_by(SECOND)
        clock.jump_wall_time(clock.now().wall - timedelta(hours=1))
    assert only(journal).duration == SECOND


# -- starts that are kept before the body runs


class Keeper:
    """Keeps the starts of the calls it wants, and notes how it was asked."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted
        self.asked: list[InFlightCall] = []
        self.kept: list[tuple[str, InFlightCall]] = []
        self.on_keep: Callable[[], Any] = lambda: None
        self.gate: asyncio.Event | None = None

    def wants(self, call: Any, /) -> bool:
        self.asked.append(call)
        return self.wanted

    def keep(self, call: Any, /) -> None:
        self.on_keep()
        self.kept.append(("blocking", call))

    async def keep_async(self, call: Any, /) -> None:
        self.on_keep()
        if self.gate is not None:
            await self.gate.wait()
        self.kept.append(("async", call))


@ways
async def test_a_start_is_kept_before_the_body(journal: Journal[Any], run: Run) -> None:
    """When the body runs its start is kept already: awaited for an async function, blocking for the rest."""
    first, second = Keeper(), Keeper()
    journal.keep_starts(first)
    journal.keep_starts(second)
    kept_by_then: list[tuple[str, InFlightCall]] = []
    in_flight_at_keep: list[object] = []
    first.on_keep = lambda: in_flight_at_keep.extend(journal.in_flight)
    await run(journal, lambda: kept_by_then.extend(first.kept + second.kept))
    kinds, calls = zip(*kept_by_then, strict=True)
    assert set(kinds) == {"async" if run is run_async else "blocking"}
    assert len(calls) == 2
    assert calls[0] is calls[1] is in_flight_at_keep[0] is first.asked[0]
    assert (calls[0].name, calls[0].observed["tenant"]) == (NAME, "a")
    assert calls[0].invocation_id == only(journal).invocation_id


@ways
async def test_a_keeper_that_does_not_want_a_call_is_not_asked_to_keep_it(journal: Journal[Any], run: Run) -> None:
    """It is asked once whether it wants the call, and that is all; one that left is not even asked."""
    keeper, gone = Keeper(wanted=False), Keeper()
    journal.keep_starts(keeper)
    journal.keep_starts(gone)()
    assert await run(journal, lambda: None) == "answer"
    assert (len(keeper.asked), keeper.kept, gone.asked) == (1, [], [])


@ways
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("at", ["wants", "keep"])
async def test_a_start_that_cannot_be_kept(journal: Journal[Any], run: Run, error: BaseException, at: str) -> None:
    """The body does not run; the call raises, is recorded as a failure, and nothing stays in flight."""
    keeper, never = Keeper(), Keeper()

    def fail(*_: object) -> bool:
        raise error

    if at == "wants":
        keeper.wants = fail  # type: ignore[method-assign]
    else:
        keeper.on_keep = fail
    journal.keep_starts(keeper)
    journal.keep_starts(never)
    with pytest.raises(type(error)) as raised:
        await run(journal, lambda: pytest.fail("the body ran"))
    assert raised.value is error
    event = only(journal)
    assert (event.outcome, event.error) == ("failure", HandlerError.of(error))
    assert never.kept == []
    observe(lost=1)
    assert event.observed == {"tenant": "a"}


async def test_cancelled_while_its_start_is_kept(journal: Journal[Any]) -> None:
    """The body does not run, the cancellation goes on, and a failure is recorded."""
    keeper = Keeper()
    keeper.gate = asyncio.Event()
    journal.keep_starts(keeper)

    @recorded(journal, NAME)
    async def read() -> None:
        pytest.fail("the body ran")

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    assert len(journal.in_flight) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert keeper.kept == []
    assert only(journal).error == HandlerError("CancelledError", "")


async def test_other_tasks_run_while_a_start_is_kept(journal: Journal[Any]) -> None:
    """Keeping the start of an async call does not hold up the loop."""
    keeper = Keeper()
    keeper.gate = asyncio.Event()
    journal.keep_starts(keeper)
    task = asyncio.create_task(cast("Any", run_async(journal, lambda: None)))
    await asyncio.sleep(0)
    assert (len(journal.in_flight), keeper.kept, len(journal)) == (1, [], 0)
    keeper.gate.set()
    assert await task == "answer"
    assert only(journal).outcome == "success"


async def test_a_block_whose_start_cannot_be_kept_is_used_up(journal: Journal[Any]) -> None:
    """What was entered in vain leaves the innermost recording as it was, and cannot be entered again."""
    keeper = Keeper()

    def fail() -> None:
        raise OSError

    once = recorded(journal, NAME)
    with recorded(journal, "outer"):
        keeper.on_keep = fail
        end = journal.keep_starts(keeper)
        with pytest.raises(OSError):  # noqa: PT011, SIM117 - the very one
            with once:
                pytest.fail("the body ran")
        end()
        observe(outer=1)
        with pytest.raises(RuntimeError, match="entered already"):
            once.__enter__()
    assert [(event.name, event.observed) for event in events(journal)] == [(NAME, {}), ("outer", {"outer": 1})]
    assert not journal.in_flight


# -- the ids of calls


@ways
async def test_a_call_and_its_event_have_one_id(journal: Journal[Any], run: Run) -> None:
    """The id of a call in flight is that of its event, and no two calls share one."""
    seen: list[str | None] = []
    for _ in range(20):
        await run(journal, lambda: seen.extend(cast("Any", call).invocation_id for call in journal.in_flight))
    assert all(seen)
    assert [event.invocation_id for event in events(journal)] == seen
    assert len(set(seen)) == 20


def test_ids_are_unique_among_threads(journal: Journal[Any]) -> None:
    """Calls that begin at once in many threads have ids of their own."""
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(30)
        for _ in range(200):
            with recorded(journal, NAME):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({event.invocation_id for event in events(journal)}) == 1_600


def test_a_forked_child_repeats_no_id() -> None:
    """Parent and children name their calls differently, also those that begin after the fork."""
    program = """
        import os, warnings
        from phyxius.clock import create_system_clock
        from phyxius.handler import recorded
        from phyxius.journal import Journal

        warnings.simplefilter("ignore")
        journal = Journal(clock=create_system_clock())

        def ids(count):
            for _ in range(count):
                with recorded(journal, "quote.read"):
                    pass
            return [entry.data.invocation_id for entry in journal][-count:]

        seen = ids(3)
        for _ in range(2):
            read, write = os.pipe()
            child = os.fork()
            if not child:
                os.write(write, " ".join(ids(3)).encode())
                os._exit(0)
            os.waitpid(child, 0)
            os.close(write)
            with open(read) as pipe:
                seen += pipe.read().split()
        seen += ids(3)
        print(len(seen), len(set(seen)))
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.split() == ["12", "12"]
