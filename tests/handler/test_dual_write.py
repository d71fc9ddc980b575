"""Dual writes: the authoritative side first, and no failure of the second is silent."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import pickle
import sys
import threading
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.fp import err
from phyxius.handler import HandlerEvent, SecondaryWriteError, dual_write, observe, recorded
from phyxius.journal import Journal
from tests.handler.sides import Caller, Side, answers, as_async, raises
from tests.ids import shown

NAME = "quote.write.parity"
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


@pytest.fixture
def journal(clock: ControlledClock) -> Journal[Any]:
    return Journal(clock=clock)


def only(journal: Journal[Any]) -> HandlerEvent:
    (event,) = [entry.data for entry in journal if entry.data.name == NAME]
    assert not journal.in_flight
    return event


def parity(journal: Journal[Any]) -> object:
    return only(journal).observed["parity"]


async def call_async(journal: Journal[Any], first: Side, second: Side, **options: Any) -> object:
    """Both sides async."""
    return await dual_write(journal, NAME, authoritative=as_async(first), secondary=as_async(second), **options)()


async def call_mixed(journal: Journal[Any], first: Side, second: Side, **options: Any) -> object:
    """The authoritative side async, the secondary one plain, in a thread."""
    return await dual_write(journal, NAME, authoritative=as_async(first), secondary=second, **options)()


async def call_plain(journal: Journal[Any], first: Side, second: Side, **options: Any) -> object:
    """Both sides plain."""
    return dual_write(journal, NAME, authoritative=first, secondary=second, **options)()


all_ways = pytest.mark.parametrize("call", [call_async, call_mixed, call_plain])


@all_ways
async def test_both_write(journal: Journal[Any], call: Caller) -> None:
    """One after the other, the authoritative side first, whose answer the caller gets."""
    order: list[str] = []
    assert await call(journal, lambda: order.append("first") or 1, lambda: order.append("second") or 2) == 1
    assert order == ["first", "second"]
    event = only(journal)
    assert (event.outcome, event.error) == ("success", None)
    assert event.observed == {"compared": "writes", "parity": "matched", "timeout_seconds": 5.0}
    assert NAME in journal.declared


@all_ways
@pytest.mark.parametrize(
    "second, options, expected, why",
    [
        (raises(OSError("gone")), {}, "errored", "the secondary side raised (OSError)"),
        (raises(TimeoutError()), {}, "errored", "the secondary side raised (TimeoutError)"),
        (answers(2), {"compare": lambda a, b: a == b}, "mismatched", "what the two sides answered does not agree"),
        (answers(1), {"compare": lambda a, b: None}, "errored", "the comparison failed (TypeError)"),
        (answers(1), {"compare": lambda a, b: 1 / 0}, "errored", "the comparison failed (ZeroDivisionError)"),
    ],
    ids=shown,
)
@pytest.mark.parametrize("on_failure", ["raise", "carry_on"])
async def test_the_secondary_side_fails(
    journal: Journal[Any],
    call: Caller,
    second: Side,
    options: dict[str, Any],
    expected: str,
    why: str,
    on_failure: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is recorded, and raised, or logged and the caller gets his answer."""
    if on_failure == "raise":
        with pytest.raises(SecondaryWriteError) as caught:
            await call(journal, answers(1), second, **options)
        assert (caught.value.name, caught.value.why) == (NAME, why)
        assert not caplog.records
    else:
        assert await call(journal, answers(1), second, on_failure="carry_on", **options) == 1
        (record,) = caplog.records
        assert (record.levelno, why in record.message) == (logging.ERROR, True)
    event = only(journal)
    assert (event.outcome, event.observed["parity"]) == ("failure", expected)
    assert (event.error is not None) == (expected == "errored")


@all_ways
async def test_they_agree(journal: Journal[Any], call: Caller) -> None:
    """A comparator is asked with the answers, the authoritative one first."""
    assert await call(journal, answers(1), answers(2), compare=lambda a, b: (a, b) == (1, 2)) == 1
    assert parity(journal) == "matched"


@all_ways
async def test_what_the_secondary_side_raised_is_the_cause(journal: Journal[Any], call: Caller) -> None:
    """So a traceback tells both."""
    error = OSError("gone")
    with pytest.raises(SecondaryWriteError, match="may differ now") as caught:
        await call(journal, answers(1), raises(error))
    assert caught.value.__cause__ is error
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.name, copy.why, str(copy)) == (caught.value.name, caught.value.why, str(caught.value))


@all_ways
@pytest.mark.parametrize(
    "error, expected",
    [(ValueError("no"), "not_compared"), (UnicodeError("no"), "not_compared"), (OSError("lost"), "errored")],
    ids=shown,
)
async def test_the_authoritative_side_raises(
    journal: Journal[Any], call: Caller, error: Exception, expected: str
) -> None:
    """The other one is not called; only by a rejection is it known that nothing was written."""
    with pytest.raises(type(error)) as caught:
        await call(journal, raises(error), lambda: pytest.fail("it was called"), rejections=(ValueError,))
    assert caught.value is error
    event = only(journal)
    assert (event.outcome, event.observed["parity"]) == ("failure", expected)
    assert event.error is not None
    assert event.error.type == type(error).__name__


@pytest.mark.parametrize("where", ["first", "second"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_plain_side_that_ends_the_process(journal: Journal[Any], where: str, error: type[BaseException]) -> None:
    """It does, and the write counts as failed."""
    ending, fine = raises(error()), answers(1)
    first, second = (ending, fine) if where == "first" else (fine, ending)
    with pytest.raises(error):
        dual_write(journal, NAME, authoritative=first, secondary=second, on_failure="carry_on")()
    assert parity(journal) == "errored"


async def test_an_async_side_that_calls_sys_exit(journal: Journal[Any]) -> None:
    """Of the secondary side that is a failure as any other: it must not take the event loop with it."""
    with pytest.raises(SecondaryWriteError, match="RuntimeError"):
        await call_async(journal, answers(1), raises(SystemExit(3)))


async def test_a_late_async_side(journal: Journal[Any], clock: ControlledClock) -> None:
    """It is cancelled at its limit."""
    ended: list[str] = []

    async def second() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    write = dual_write(journal, NAME, authoritative=as_async(answers(1)), secondary=second, timeout=SECOND)
    task = asyncio.create_task(write())  # type: ignore[arg-type]
    await clock.elapse(SECOND)
    with pytest.raises(SecondaryWriteError, match="the secondary side was late"):
        await task
    assert (ended, parity(journal)) == (["cancelled"], "errored")


@pytest.mark.parametrize("late", [False, True])
def test_a_late_plain_side(journal: Journal[Any], clock: ControlledClock, late: bool) -> None:
    """It cannot be stopped, and counts as failed if it took as long as its limit, or longer."""
    took = SECOND if late else SECOND - timedelta(microseconds=1)
    write = dual_write(
        journal,
        NAME,
        authoritative=lambda: clock.advance_by(5 * SECOND),
        secondary=lambda: clock.advance_by(took),
        on_failure="carry_on",
        timeout=SECOND,
    )
    write()
    assert parity(journal) == ("errored" if late else "matched")


@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_while_the_secondary_side_writes(
    journal: Journal[Any], clock: ControlledClock, fails: bool
) -> None:
    """It runs to its end, is recorded as it ended, and only then the cancellation goes on."""
    gate, finished = asyncio.Event(), asyncio.Event()

    async def second() -> None:
        await gate.wait()
        finished.set()
        if fails:
            raise OSError("gone")

    write: Any = dual_write(journal, NAME, authoritative=as_async(answers(1)), secondary=second)
    task = asyncio.create_task(write())
    await clock.elapse(timedelta(0))
    for _ in range(3):
        task.cancel()
        await clock.elapse(timedelta(0))
    assert not task.done()
    assert len(journal.in_flight) == 1
    gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert finished.is_set()
    assert isinstance(caught.value.__cause__, SecondaryWriteError) is fails
    assert parity(journal) == ("errored" if fails else "matched")


async def test_cancelled_while_the_authoritative_side_writes(journal: Journal[Any], clock: ControlledClock) -> None:
    """It is cancelled, the other is not called, and the write counts as failed: it may have been there already."""

    async def first() -> None:
        await asyncio.Event().wait()

    write: Any = dual_write(journal, NAME, authoritative=first, secondary=lambda: pytest.fail("it was called"))
    task = asyncio.create_task(write())
    await clock.elapse(timedelta(0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parity(journal) == "errored"


async def test_the_loop_ends_between_the_sides(journal: Journal[Any], clock: ControlledClock) -> None:
    """Whatever happens there, what was not written to the end is no match."""

    async def second() -> None:
        raise asyncio.CancelledError

    write: Any = dual_write(journal, NAME, authoritative=as_async(answers(1)), secondary=second)
    with pytest.raises(SecondaryWriteError, match="CancelledError"):
        await write()
    assert parity(journal) == "errored"


@all_ways
async def test_who_observes_what(journal: Journal[Any], call: Caller) -> None:
    """The event tells what the recording around it observes, and what both sides do."""

    @recorded(journal, "quote.save")
    async def save() -> None:
        observe(tenant="a")

        def first() -> int:
            observe(rows=1)
            return 1

        def second() -> int:
            observe(parity="matched", copied=True)
            raise OSError

        await call(journal, first, second, on_failure="carry_on")
        observe(after=True)

    await save()
    observed = dict(only(journal).observed)
    assert observed.pop("why") == "the secondary side raised"
    own = {"compared": "writes", "parity": "errored", "timeout_seconds": 5.0}
    assert observed == {"tenant": "a", "rows": 1, "copied": True, **own}
    assert journal.last().data.observed == {"tenant": "a", "after": True}  # type: ignore[union-attr]


async def test_a_start_that_is_kept(journal: Journal[Any]) -> None:
    """It is stored before anything is written; if it cannot be, nothing is, and the write counts for nothing."""

    class OneAlone:
        kept = 0

        def wants(self, call: object, /) -> bool:
            return True

        def keep(self, call: object, /) -> None:
            if self.kept:
                raise OSError("disk full")
            self.kept += 1

        async def keep_async(self, call: object, /) -> None:
            self.keep(call)

    for call in (call_async, call_plain):
        journal.clear()
        keeper = OneAlone()
        leave = journal.keep_starts(keeper)

        def first(keeper: OneAlone = keeper) -> int:
            return keeper.kept

        assert await call(journal, first, answers(1)) == 1
        with pytest.raises(OSError, match="disk full"):
            await call(journal, lambda: pytest.fail("it was called"), answers(1))
        assert [entry.data.observed["parity"] for entry in journal] == ["matched", "not_compared"]
        leave()


class Keeper:
    """Keeps what is known of the starts of calls."""

    def __init__(self) -> None:
        self.starts: list[dict[str, object]] = []

    def wants(self, call: object, /) -> bool:
        return True

    def keep(self, call: Any, /) -> None:
        self.starts.append(dict(call.observed.known))

    async def keep_async(self, call: object, /) -> None:
        self.keep(call)


@all_ways
async def test_a_stored_start_has_a_limit(journal: Journal[Any], call: Caller) -> None:
    """Other processes know of a call no more than that, and one whose second side hangs must speak against there."""
    keeper = Keeper()
    journal.keep_starts(keeper)
    limits: list[object] = []

    def note() -> int:
        in_flight: Any = journal.in_flight[0]
        limits.append(in_flight.observed["timeout_seconds"])
        return 1

    await call(journal, note, note)
    assert keeper.starts == [{"compared": "writes", "timeout_seconds": 5.0}]
    assert limits == [None, 5.0], "the first side has none, and the second one its own"
    assert only(journal).observed["timeout_seconds"] == 5.0


async def test_an_attempt_takes_over_no_verdict(journal: Journal[Any]) -> None:
    """Neither of one that it began in, and has ended, nor what a handler calls so: it may be killed before its own."""
    keeper = Keeper()
    journal.keep_starts(keeper)
    gate, tasks = asyncio.Event(), []

    async def later() -> None:
        await gate.wait()
        await call_async(journal, answers(1), answers(1))

    async def first() -> None:
        tasks.append(asyncio.create_task(later()))

    with recorded(journal, "quote.save", {"parity": "matched", "tenant": "a"}):
        write: Any = dual_write(journal, NAME, authoritative=first, secondary=lambda: 1 / 0, on_failure="carry_on")
        await write()
    gate.set()
    await asyncio.gather(*tasks)
    starts = [start for start in keeper.starts if "compared" in start]
    assert starts == [{"tenant": "a", "compared": "writes", "timeout_seconds": 5.0}] * 2
    events = [entry.data.observed for entry in journal if entry.data.name == NAME]
    assert [(observed["parity"], observed.get("why")) for observed in events] == [
        ("errored", "the secondary side raised"),
        ("matched", None),
    ]


@all_ways
async def test_only_what_the_side_itself_raises_is_a_rejection(journal: Journal[Any], call: Caller) -> None:
    """That it answered with a generator is found afterwards, when it may have written."""
    with pytest.raises(TypeError, match="answered with a generator"):
        await call(journal, lambda: (row for row in [1]), answers(1), rejections=(TypeError,))
    assert parity(journal) == "errored"


@all_ways
async def test_an_err_that_cannot_be_represented(journal: Journal[Any], call: Caller) -> None:
    """It is a failure as any other, and does not reach the caller who wants to carry on."""

    class Odd:
        def __repr__(self) -> str:
            raise OSError("no")

    assert await call(journal, answers(1), answers(err(Odd())), on_failure="carry_on") == 1
    assert parity(journal) == "errored"


async def test_arguments_and_metadata(journal: Journal[Any]) -> None:
    """Both sides get the arguments, and the function looks like the authoritative one."""
    seen: list[tuple[int, int]] = []

    async def write_old(number: int, *, factor: int = 1) -> int:
        """Write it."""
        return number * factor

    def write_new(number: int, *, factor: int = 1) -> None:
        seen.append((number, factor))

    write = dual_write(journal, NAME, authoritative=write_old, secondary=write_new)
    assert (inspect.signature(write), write.__doc__) == (inspect.signature(write_old), "Write it.")
    assert inspect.iscoroutinefunction(write)
    assert await write(3, factor=4) == 12
    assert seen == [(3, 4)]


def test_a_plain_side_that_answers_with_an_awaitable(journal: Journal[Any]) -> None:
    """Nobody would await it, so nothing would be written."""

    async def later() -> int:
        return 1

    async def never() -> None:
        pytest.fail("it ran")

    class Later:
        def __await__(self) -> Any:
            return later().__await__()

    for answer in (later, Later):
        with pytest.raises(TypeError, match="write it as an `async def`"):
            dual_write(journal, NAME, authoritative=lambda answer=answer: answer(), secondary=answers(1))()
        assert parity(journal) == "errored"
        journal.clear()
    with pytest.raises(SecondaryWriteError, match="the comparison failed"):
        dual_write(journal, NAME, authoritative=answers(1), secondary=lambda: never())()  # noqa: PLW0108
    assert parity(journal) == "errored"


@all_ways
async def test_an_answer_that_is_no_write(journal: Journal[Any], call: Caller) -> None:
    """A generator does nothing until it is iterated, and an `Err` says that nothing was done."""

    def generator() -> Any:
        yield 1

    for second in (answers(err("no")), lambda: generator()):  # noqa: PLW0108
        with pytest.raises(SecondaryWriteError, match="the secondary side raised"):
            await call(journal, answers(1), second)
        assert parity(journal) == "errored"
        journal.clear()
    refused = err("no")
    assert await call(journal, answers(refused), lambda: pytest.fail("it was called")) is refused
    assert parity(journal) == "errored"
    journal.clear()
    with pytest.raises(TypeError, match="answered with a generator"):
        await call(journal, lambda: generator(), answers(1))  # noqa: PLW0108
    assert parity(journal) == "errored"


def test_an_interrupt_just_after_the_first_write(journal: Journal[Any]) -> None:
    """Wherever it comes, the write counts as failed."""

    def first() -> int:
        sys.settrace(interrupt)
        return 1

    def interrupt(frame: Any, event: str, arg: object) -> Any:
        if frame.f_code.co_name == "__exit__":
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    def write() -> None:
        with pytest.raises(KeyboardInterrupt):
            dual_write(journal, NAME, authoritative=first, secondary=answers(1))()

    thread = threading.Thread(target=write)  # what traces is that of a thread
    thread.start()
    thread.join()
    assert parity(journal) == "errored"


async def test_the_log_tells_nothing_that_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the message nor the traceback."""
    journal = Journal[Any](clock=create_controlled_clock(), redact=lambda key, value: "***")
    assert await call_plain(journal, answers(1), raises(ValueError("a secret")), on_failure="carry_on") == 1
    assert "the secondary side raised (ValueError)" in caplog.text
    assert "a secret" not in caplog.text
    assert parity(journal) == "errored"


async def coroutine_function(*_: object) -> bool:
    return True


def generator_function(*_: object) -> Any:
    yield 1


@pytest.mark.parametrize(
    "options, error",
    [
        ({"timeout": timedelta(0)}, ValueError),
        ({"on_failure": "ignore"}, ValueError),
        ({"compare": coroutine_function}, TypeError),
        ({"secondary": coroutine_function}, TypeError),
        ({"rejections": [ValueError]}, TypeError),
        ({"secondary": generator_function}, TypeError),
        ({"authoritative": generator_function}, TypeError),
        ({"rejections": (ValueError("no"),)}, TypeError),
        ({"rejections": (asyncio.CancelledError,)}, TypeError),
    ],
    ids=shown,
)
def test_misuse_is_refused(journal: Journal[Any], options: dict[str, Any], error: type[Exception]) -> None:
    """It is found when the function is made, before the name is declared."""
    with pytest.raises(error):
        dual_write(journal, NAME, **{"authoritative": len, "secondary": len, **options})
    assert not journal.declared


class Table(dict[int, int]):
    """A table that fails on cue: before it writes, after it, or not at all."""

    failing = "no"

    def write(self, number: int, value: int) -> int:
        if self.failing == "before":
            raise OSError("before")
        self[number] = value
        if self.failing == "after":
            raise OSError("after")
        return value


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), *[st.sampled_from(["no", "before", "after"])] * 2), max_size=20
    )
)
def test_while_all_writes_match_the_tables_are_equal(writes: list[tuple[int, int, str, str]]) -> None:
    """What the parity promises, whichever side fails when."""
    journal = Journal[Any](clock=create_controlled_clock())
    old, new = Table(), Table()
    write = dual_write(journal, NAME, authoritative=old.write, secondary=new.write)
    for number, value, old.failing, new.failing in writes:
        expected = OSError if old.failing != "no" else SecondaryWriteError if new.failing != "no" else None
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            write(number, value)
    parities = {entry.data.observed["parity"] for entry in journal}
    assert len(journal) == len(writes)
    if parities <= {"matched", "not_compared"}:
        assert old == new
