"""Asking all the sources of a step: what counts, when it counts, and what a source cannot do to the others."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock

import attrs
import pytest

from phyxius.fp import Err, Ok, err, ok
from phyxius.handler import HandlerEvent
from phyxius.journal import PayloadError
from phyxius.migration import (
    CheckCancelledError,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    EvidenceOvertakenError,
    JournalWindow,
    MemoryJournalStore,
    SourceAnswer,
    WrongShapeError,
    at_least,
    attestation,
    current_attempt,
    journal_window,
    schema_applied,
)
from tests.migration.support import (
    LIMIT,
    QUIET,
    SECOND,
    Lab,
    build,
    checked,
    forever,
    no_tasks_left,
    quiet,
    rounds,
    waiting,
)

DAY = timedelta(days=1)


class SubOk(Ok[Any]):
    """No true `Ok`."""


class SubErr(Err[Any]):
    """No true `Err`."""


@attrs.frozen
class SubFailure(EvidenceFailure):
    """No true `EvidenceFailure`."""


class Abort(BaseException):
    """What is no `Exception`."""


async def coroutine() -> Any:
    """Nobody awaits it."""
    return ok()


WRONG: dict[str, Callable[[], object]] = {
    "True": lambda: True,
    "None": lambda: None,
    "text": lambda: "ok",
    "the class": lambda: Ok,
    "the factory": lambda: ok,
    "tuple": lambda: (ok(),),
    "mock": MagicMock,
    "mock of Ok": lambda: MagicMock(spec=Ok),
    "mock with class": lambda: Mock(__class__=Ok, value=None),
    "subclass": lambda: SubOk(None),
    "subclass of Err": lambda: SubErr("no"),
    "coroutine": coroutine,
    "Err(42)": lambda: err(42),
    "Err(None)": lambda: err(None),
    "Err(exception)": lambda: err(ValueError()),
    "Err(mapping)": lambda: err({"reason": "no"}),
    "Err(subclass)": lambda: err(SubFailure("no")),
    "Err(Ok)": lambda: err(ok()),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("kind", ["async", "plain", "predicate"])
async def test_only_the_exact_ok_counts(answer: Callable[[], object], kind: str) -> None:
    """Whatever is neither the exact `Ok` nor an `Err` with a reason is errored, and nothing moves."""

    async def check() -> Any:
        return answer()

    sources: dict[str, Any] = {
        "async": schema_applied(check),
        "plain": attestation(lambda: wrapped(answer)),
        "predicate": journal_window(query=QUIET, window=DAY, predicate=lambda window: answer()),
    }
    lab = build({"good": checked(), "bad": sources[kind]})
    result = await lab.advance()
    assert isinstance(result.error, EvidenceErrored)
    assert {name: type(error) for name, error in result.error.errors.items()} == {"bad": WrongShapeError}
    assert "ok(payload)" in str(result.error.errors["bad"])
    assert lab.store.operations == ["current"]
    assert lab.refusal["errors"]["bad"]["type"] == "WrongShapeError"


async def wrapped(answer: Callable[[], Any]) -> Any:
    """Answer as a plain check does that returns an awaitable: a coroutine within stays un-awaited."""
    return answer()


async def test_wrong_shapes_say_what_came() -> None:
    """The error names the shape, and a coroutine that was not awaited is called just that."""
    lab = build({"a": schema_applied(lambda: wrapped(coroutine)), "b": schema_applied(lambda: None)})
    errors = (await lab.advance()).error.errors
    assert "a coroutine that nobody awaited came" in str(errors["a"])
    assert str(errors["b"]).startswith("None came")


@pytest.mark.parametrize("raised", [ValueError("x"), StopIteration(), TimeoutError(), ExceptionGroup("g", [OSError()])])
@pytest.mark.parametrize("plain", [False, True])
async def test_a_raise_is_errored(raised: Exception, plain: bool) -> None:
    """What a check raises is the error of its source."""

    async def check() -> Any:
        raise raised

    def plain_check() -> Any:
        raise raised

    lab = build({"bad": schema_applied(plain_check if plain else check)})
    result = await lab.advance()
    assert isinstance(result.error, EvidenceErrored)
    error = result.error.errors["bad"]
    assert error is raised or (isinstance(raised, StopIteration) and isinstance(error, RuntimeError))
    assert lab.store.phase == "expand"


@pytest.mark.parametrize("raised", [asyncio.CancelledError("mine"), Abort("stop"), GeneratorExit()])
@pytest.mark.parametrize("kind", ["async", "plain", "predicate", "run_sync"])
async def test_what_is_no_exception_is_errored(raised: BaseException, kind: str) -> None:
    """A check that raises what is no `Exception` is errored as `CheckCancelledError`, which names it."""

    def fail(*_: object) -> Any:
        raise raised

    async def check() -> Any:
        fail()

    sources: dict[str, Any] = {
        "async": schema_applied(check),
        "plain": schema_applied(fail),
        "predicate": journal_window(query=QUIET, window=DAY, predicate=fail),
        "run_sync": schema_applied(ok),
    }
    options = {"run_sync": fail} if kind == "run_sync" else {}
    lab = build({"good": checked(), "bad": sources[kind]}, **options)
    result = await lab.advance()
    assert isinstance(result.error, EvidenceErrored)
    error = result.error.errors["bad"]
    assert type(error) is CheckCancelledError
    assert type(raised).__name__ in str(error)
    assert type(error.__cause__) is type(raised)
    assert lab.refusal["errors"]["bad"]["type"] == "CheckCancelledError"
    assert lab.store.phase == "expand"


async def test_a_check_that_cancels_itself() -> None:
    """A check that cancels the task it runs in harms itself alone."""

    async def check() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await rounds(1)

    lab = build({"bad": schema_applied(check)})
    assert type((await lab.advance()).error.errors["bad"]) is CheckCancelledError


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("plain", [False, True])
def test_an_interrupt_goes_through(raised: type[BaseException], plain: bool) -> None:
    """`KeyboardInterrupt` and `SystemExit` end the program, are audited as a cancellation, and nothing moves."""

    def fail() -> Any:
        raise raised

    async def check() -> Any:
        fail()

    lab = build({"good": checked(), "bad": schema_applied(fail if plain else check)})
    with pytest.raises(raised):
        asyncio.run(lab.migration.advance())
    assert lab.refusal["type"] == "CANCELLED"
    assert lab.store.phase == "expand"


@pytest.mark.parametrize(
    "payload", [float("nan"), b"x", {1: 2}, "x" * 17_000, object(), "\x00", pytest.param(10**5_000, id="huge")]
)
async def test_a_payload_that_cannot_be_written(payload: object) -> None:
    """A payload that is not JSON, or too large, fails its source before anything is committed."""
    lab = build({"a": checked(payload)})
    assert type((await lab.advance()).error.errors["a"]) in (PayloadError, ValueError)
    assert lab.store.operations == ["current"]


# -- all at once, each under its own limit


async def test_all_at_once() -> None:
    """Every source starts before any has ended: they wait for each other here, and none times out."""
    barrier = asyncio.Barrier(3)

    async def check() -> Any:
        await barrier.wait()
        return ok()

    lab = build({"a": schema_applied(check), "b": attestation(check)}, first={"c": schema_applied(check)})
    result = await lab.advance()
    assert set(result.value.evidence) == {"a", "b", "c"}


async def test_forty_plain_checks_at_once() -> None:
    """Forty plain checks do not wait for each other, and none runs on the loop or in its default executor."""
    barrier = threading.Barrier(40)

    class Forbidden(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the default executor was used")

    asyncio.get_running_loop().set_default_executor(Forbidden())
    threads: set[threading.Thread] = set()

    def check() -> Any:
        barrier.wait(60)
        threads.add(threading.current_thread())
        return ok()

    lab = build({str(number): schema_applied(check) for number in range(40)})
    assert isinstance(await lab.advance(), Ok)
    assert len(threads) == 40
    assert all(thread.daemon for thread in threads)
    assert threading.current_thread() not in threads


async def test_own_limits_on_the_injected_clock() -> None:
    """Each source has its own limit, on the clock of the migration; the others have the migration's."""
    ended: dict[str, timedelta] = {}
    began = build().clock.now()

    def hanging(name: str) -> Any:
        async def check() -> Any:
            try:
                await forever()
            finally:
                ended[name] = timedelta(microseconds=lab.clock.now().ns_since(began) // 1_000)

        return check

    lab = build(
        {
            "short": schema_applied(hanging("short"), timeout=2 * SECOND),
            "usual": attestation(hanging("usual")),
            "long": journal_window(query=QUIET, window=DAY, predicate=lambda window: ok(), timeout=90 * SECOND),
        },
        journal_store=Hanging(hanging("long")),
    )
    result = await lab.advance(91 * SECOND)
    assert {name: type(error) for name, error in result.error.errors.items()} == dict.fromkeys(
        ("short", "usual", "long"), TimeoutError
    )
    assert ended == {"short": 2 * SECOND, "usual": LIMIT, "long": 90 * SECOND}
    assert lab.audit.duration == 90 * SECOND
    assert await no_tasks_left()


class Hanging:
    """A journal store that asks something else first."""

    def __init__(self, query: Callable[[], Any]) -> None:
        self._query = query

    async def query(self, query: Any, window: timedelta, /) -> JournalWindow:
        return await self._query()


@pytest.mark.parametrize("late", [timedelta(0), timedelta(microseconds=1), DAY])
async def test_a_late_ok_without_a_timer(late: timedelta) -> None:
    """A check that ends at its limit or later has timed out, though it never let a timer fire."""

    async def check() -> Any:
        lab.clock.advance_by(LIMIT + late)
        return ok()

    lab = build({"late": schema_applied(check)})
    assert type((await lab.advance()).error.errors["late"]) is TimeoutError
    assert lab.store.phase == "expand"


async def test_an_ok_just_in_time() -> None:
    """A check that ends just before its limit has not timed out, though the loop sees that later."""

    async def check() -> Any:
        lab.clock.advance_by(LIMIT - timedelta(microseconds=1))
        return ok()

    async def block() -> Any:
        lab.clock.advance_by(DAY)
        return ok()

    lab = build({"just": schema_applied(check), "block": schema_applied(block, timeout=2 * DAY)})
    assert isinstance(await lab.advance(), Ok)


async def test_a_blocked_loop_saves_nobody() -> None:
    """A check that blocks the loop past another's limit does not let the other's late `Ok` pass."""
    ready = asyncio.Event()

    async def block() -> Any:
        await rounds()
        lab.clock.advance_by(LIMIT)
        ready.set()
        return ok()

    async def other() -> Any:
        await ready.wait()
        return ok()

    lab = build({"other": attestation(other), "block": schema_applied(block, timeout=DAY)})
    result = await lab.advance()
    assert result.error.errors.keys() == {"other"}
    assert type(result.error.errors["other"]) is TimeoutError


async def test_a_late_predicate() -> None:
    """The limit of a journal window includes its predicate."""

    def predicate(window: JournalWindow) -> Any:
        lab.clock.advance_by(LIMIT)
        return ok()

    lab = build({"slow": journal_window(query=QUIET, window=DAY, predicate=predicate)})
    assert type((await lab.advance()).error.errors["slow"]) is TimeoutError


@pytest.mark.parametrize("ends", [True, False])
async def test_a_swallowed_cancellation(ends: bool) -> None:
    """A check that swallows its cancellation, be it to answer `Ok` at last, neither passes nor holds anybody up."""
    release = asyncio.Event()

    async def check() -> Any:
        while True:
            try:
                await (forever() if not release.is_set() else rounds(1))
            except asyncio.CancelledError:
                if ends:
                    return ok("late")
                await release.wait()
            else:
                return ok("released")

    lab = build({"stubborn": schema_applied(check)})
    result = await lab.advance(LIMIT)
    assert type(result.error.errors["stubborn"]) is TimeoutError
    release.set()
    assert await no_tasks_left()
    assert lab.store.phase == "expand"
    assert len(lab.audits) == 1


async def test_a_hung_plain_check() -> None:
    """A plain check that hangs times out like any other, and its late answer is thrown away."""
    release = threading.Event()
    ended = threading.Event()

    def check() -> Any:
        release.wait(60)
        ended.set()
        return ok()

    lab = build({"hung": schema_applied(check)})
    result = await lab.advance(LIMIT, threads=False)
    assert type(result.error.errors["hung"]) is TimeoutError
    release.set()
    assert ended.wait(60)
    await rounds()
    assert lab.store.phase == "expand"


def test_a_hung_plain_check_does_not_hold_up_exit() -> None:
    """The interpreter ends although the thread of a check hangs for ever."""
    script = """
    import asyncio, threading
    from datetime import timedelta
    from phyxius import Journal, create_controlled_clock, create_migration, define_migration, schema_applied

    async def main():
        clock = create_controlled_clock()
        hung = schema_applied(lambda: threading.Event().wait())
        spec = define_migration(name="m", phases={"a": {}, "b": {"hung": hung}})
        task = asyncio.ensure_future(create_migration(spec, journal=Journal(clock=clock)).advance())
        await clock.elapse(timedelta(minutes=1), wait_for_threads=False)
        print((await task).error.type)

    asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("EVIDENCE_ERRORED", "", 0)


# -- how checks are run

flag: ContextVar[str] = ContextVar("flag")


@pytest.mark.parametrize("kind", ["async", "plain", "awaitable", "predicate"])
async def test_context(kind: str) -> None:
    """A check, wherever it runs, has the caller's context variables and knows its attempt."""
    seen: list[Any] = []

    def look(*_: object) -> Any:
        seen.append((flag.get(), current_attempt()))
        return ok()

    async def check() -> Any:
        return look()

    sources: dict[str, Any] = {
        "async": schema_applied(check),
        "plain": schema_applied(look),
        "awaitable": schema_applied(lambda: check()),  # noqa: PLW0108 - a plain function is meant
        "predicate": journal_window(query=QUIET, window=DAY, predicate=look),
    }
    lab = build({"one": sources[kind], "two": checked()})
    token = flag.set("set")
    assert isinstance(await lab.advance(), Ok)
    flag.reset(token)
    ((value, attempt),) = seen
    assert value == "set"
    assert attrs.astuple(attempt) == ("quotes", "expand", "flip", "one", lab.audit.invocation_id)
    with pytest.raises(LookupError):
        current_attempt()


async def test_attempts_differ() -> None:
    """Each call of `advance()` has an attempt id of its own."""
    seen: list[str] = []

    async def check() -> Any:
        seen.append(current_attempt().id)
        return err("no")

    lab = build({"a": schema_applied(check)})
    for _ in range(3):
        await lab.advance()
    assert len(set(seen)) == 3


class Callable_:  # noqa: N801
    """An object with an async `__call__`."""

    async def __call__(self) -> Any:
        return ok(threading.current_thread() is threading.main_thread())


async def on_loop() -> Any:
    """Answer whether it runs on the loop."""
    return ok(threading.current_thread() is threading.main_thread())


def elsewhere() -> Any:
    """Answer whether it runs on the loop."""
    return ok(threading.current_thread() is threading.main_thread())


class Awaitable_:  # noqa: N801
    """Something that can be awaited, and is no coroutine."""

    def __await__(self) -> Iterator[Any]:
        yield from rounds(1).__await__()
        return ok(True)


@pytest.mark.parametrize(
    "check, here",
    [
        (on_loop, True),
        (functools.partial(on_loop), True),
        (AsyncMock(return_value=ok(True)), True),
        (Callable_(), True),
        (lambda: on_loop(), True),  # noqa: PLW0108 - a plain function is meant
        (Awaitable_, True),
        (elsewhere, False),
        (functools.partial(elsewhere), False),
    ],
)
async def test_where_a_check_runs(check: Any, here: bool) -> None:
    """An async check, and what a plain one returns to be awaited, runs on the loop; a plain one in a thread."""
    lab = build({"a": schema_applied(check)})
    assert (await lab.advance()).value.evidence == {"a": here}


async def test_run_sync() -> None:
    """`run_sync` replaces the thread for plain checks, and is not asked about async ones."""
    ran: list[object] = []

    async def in_place(check: Callable[[], Any]) -> Any:
        ran.append(check)
        return check()

    lab = build({"plain": schema_applied(elsewhere), "async": schema_applied(on_loop)}, run_sync=in_place)
    assert (await lab.advance()).value.evidence == {"plain": True, "async": True}
    assert [getattr(check, "__wrapped__", None) for check in ran] == [elsewhere]


@pytest.mark.parametrize("run_sync", [lambda check: None, lambda check: check(), AsyncMock(return_value=True)])
async def test_a_wrong_run_sync(run_sync: Any) -> None:
    """A `run_sync` that is not async, or answers by itself, passes nobody."""
    lab = build({"plain": schema_applied(elsewhere)}, run_sync=run_sync)
    assert isinstance((await lab.advance()).error, EvidenceErrored)
    assert lab.store.phase == "expand"


@pytest.mark.parametrize("answer", [None, [], True, MagicMock(spec=JournalWindow), ok([])])
async def test_a_wrong_journal_store(answer: object) -> None:
    """A journal store that answers with no `JournalWindow` is errored, and its predicate is not asked."""
    lab = build(
        {"a": journal_window(query=QUIET, window=DAY, predicate=lambda window: ok())},
        journal_store=Hanging(AsyncMock(return_value=answer)),
    )
    assert type((await lab.advance()).error.errors["a"]) is WrongShapeError


def use(lab: Lab, store: MemoryJournalStore) -> None:
    """Have the evidence asked of another store."""
    inquirer = attrs.evolve(lab.migration._runtime.inquirer, journal_store=store)
    lab.migration._runtime = attrs.evolve(lab.migration._runtime, inquirer=inquirer)


class Off(MemoryJournalStore):
    """Answers for another time than now, and vouches for that."""

    def __init__(self, lab: Lab, by: timedelta) -> None:
        super().__init__(lab.journal)
        self.by = by

    async def query(self, query: Any, window: timedelta, /) -> JournalWindow:
        found = await super().query(query, window)
        return attrs.evolve(found, since=found.since + self.by, until=found.until + self.by)


@pytest.mark.parametrize("hours, reason", [(-3, "the store answered for no later time"), (3, "looked back no further")])
async def test_a_store_that_answers_for_another_time(hours: int, reason: str) -> None:
    """What its window lacks up to now, or back from now, is a gap; `max_gap` may tolerate it."""
    by = timedelta(hours=hours)
    lab = build({"quiet": quiet()})
    use(lab, Off(lab, by))
    failure = (await lab.advance()).error.failures["quiet"]
    assert "3 hours of 14 days missing" in failure.reason
    assert reason in failure.reason
    lab = build({"quiet": quiet(max_gap=abs(by))})
    use(lab, Off(lab, by))
    assert type(await lab.advance()) is Ok


# -- stores that get another journal


class Elsewhere(MemoryJournalStore):
    """Tells whether it gets a journal."""

    def check_journal(self, journal: object, /) -> None:
        if journal is not self._journal:
            raise LookupError("that journal does not get here")


async def test_a_journal_that_does_not_reach_the_store() -> None:
    """The silence of a store that does not get what the migration's journal records proves nothing."""
    lab, other = build({"quiet": quiet()}), build()
    use(lab, Elsewhere(other.journal))
    errored = (await lab.advance()).error
    assert str(errored.errors["quiet"]) == "that journal does not get here"
    use(lab, Elsewhere(lab.journal))
    assert type(await lab.advance()) is Ok


# -- windows that have become old


class Counting(MemoryJournalStore):
    """Counts the queries by name, and may be slow."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.journal)
        self.asked: list[str | None] = []
        self.delays: dict[tuple[str, int], timedelta] = {}

    async def query(self, query: Any, window: timedelta, /) -> JournalWindow:
        self.asked.append(query.name)
        round_ = self.asked.count(query.name)
        delay = self.delays.get((query.name, round_))
        if delay is not None:
            await self.clock.sleep(delay)
        return await super().query(query, window)


def judged_again(slow: Any, **windows: Any) -> tuple[Lab, Counting]:
    """A migration with a slow source beside windows, in which queries are counted."""
    sources = {"slow": slow, **windows}
    lab = build(sources)
    store = Counting(lab)
    use(lab, store)
    return lab, store


def taking(lab: Callable[[], Lab], duration: timedelta, answer: Any = None) -> Any:
    """Evidence that takes its time."""

    async def check() -> Any:
        await lab().clock.sleep(duration)
        return ok() if answer is None else answer

    return schema_applied(check)


MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize("took, times", [(SECOND, 1), (SECOND + MICROSECOND, 2), (LIMIT - MICROSECOND, 2)])
async def test_a_window_that_waited_is_judged_again(took: timedelta, times: int) -> None:
    """A window whose answer is more than a second old because others took longer is asked once more, not others."""
    lab, store = judged_again(taking(lambda: lab, took), quiet=quiet())
    assert isinstance(await lab.advance(LIMIT), Ok)
    assert store.asked == [QUIET] * times


async def test_exactly_the_stale_windows() -> None:
    """Of several windows exactly those are judged again that were asked long ago and can be had fresher."""
    lab, store = judged_again(taking(lambda: lab, 5 * SECOND), quiet=quiet(), slow_window=quiet_of("busy"))
    lab.journal.declare("busy")
    store.delays |= dict.fromkeys([("busy", 1), ("busy", 2)], 4 * SECOND)
    assert isinstance(await lab.advance(LIMIT), Ok)
    # In the second round one took four seconds, by which the other was old; that it takes so long nobody can change.
    assert sorted(map(str, store.asked)) == ["busy", "busy", QUIET, QUIET, QUIET]


async def test_an_answer_that_was_heard_of_late() -> None:
    """One that came while the event loop stood still is as old as its question, whenever it was heard of."""
    lab, store = judged_again(schema_applied(ok), quiet=quiet())
    store.delays[QUIET, 1] = 3 * SECOND
    assert isinstance(await lab.advance(LIMIT), Ok)
    assert store.asked == [QUIET, QUIET]


async def test_two_that_keep_each_other_waiting() -> None:
    """There is an end to it."""
    lab, store = judged_again(schema_applied(ok), quiet=quiet(), other=quiet_of("busy"))
    lab.journal.declare("busy")
    store.delays = {
        (name, n): (3 if (n + i) % 2 else 6) * SECOND for n in range(1, 9) for i, name in enumerate([QUIET, "busy"])
    }
    assert isinstance(await lab.advance(LIMIT), Ok)
    assert max(map(store.asked.count, [QUIET, "busy"])) <= 4


async def test_checks_are_not_asked_again() -> None:
    """A check that waited for others is asked once: only a journal window is judged again."""
    asked: list[int] = []

    def check() -> Any:
        asked.append(1)
        return ok()

    lab, store = judged_again(taking(lambda: lab, 5 * SECOND), quiet=quiet(), signed=attestation(check))
    assert isinstance(await lab.advance(LIMIT), Ok)
    assert (len(asked), store.asked) == (1, [QUIET, QUIET])


def quiet_of(name: str) -> Any:
    """Evidence that a name is silent, within less time than the journal is old."""
    return journal_window(query=name, window=DAY, predicate=lambda window: ok(len(window)))


async def test_the_second_judgement_counts() -> None:
    """An event that came while others took their time closes the gate."""

    async def check() -> Any:
        await lab.clock.sleep(2 * SECOND)
        lab.journal.append(HandlerEvent(name=QUIET, outcome="success", completed_at=lab.clock.now()))
        return ok()

    lab, _ = judged_again(schema_applied(check), quiet=quiet())
    result = await lab.advance(LIMIT)
    assert isinstance(result.error, EvidenceFailed)
    assert result.error.failures.keys() == {"quiet"}
    assert lab.store.phase == "expand"
    assert lab.refusal["failures"].keys() == {"quiet"}


async def test_the_second_judgement_is_told() -> None:
    """What is stored, audited and returned is what the second judgement learned."""

    async def check() -> Any:
        await lab.clock.sleep(2 * SECOND)
        lab.journal.append(HandlerEvent(name="new", outcome="success", completed_at=lab.clock.now()))
        return ok()

    lab, _ = judged_again(schema_applied(check), many=journal_window(query="new", window=DAY, predicate=at_least(1)))
    lab.journal.append(HandlerEvent(name="new", outcome="success", completed_at=lab.clock.now()))
    result = await lab.advance(LIMIT)
    (transition,) = await lab.store.inner.history()
    assert result.value.evidence["many"] == transition.evidence["many"] == {"count": 2}
    assert lab.audit.observed["snapshot"] == {"slow": None, "many": {"count": 2}}


async def test_the_second_judgement_has_a_limit() -> None:
    """The second judgement is under the source's own limit again, counted from its own start."""
    lab, store = judged_again(taking(lambda: lab, 9 * SECOND), quiet=quiet(timeout=4 * SECOND))
    store.delays[QUIET, 2] = 3 * SECOND
    assert isinstance(await lab.advance(LIMIT), Ok)
    lab, store = judged_again(taking(lambda: lab, 9 * SECOND), quiet=quiet(timeout=4 * SECOND))
    store.delays[QUIET, 2] = DAY
    result = await lab.advance(LIMIT)
    assert type(result.error.errors["quiet"]) is TimeoutError
    assert lab.audit.duration == 13 * SECOND


@pytest.mark.parametrize("answer", [err("no"), True])
async def test_no_second_judgement_without_need(answer: Any) -> None:
    """If another source failed, nothing is judged again: the answer is no anyway."""
    lab, store = judged_again(taking(lambda: lab, 5 * SECOND, answer), quiet=quiet())
    assert isinstance(await lab.advance(LIMIT), Err)
    assert store.asked == [QUIET]


# -- whoever watches


@pytest.mark.parametrize("call", ["advance", "readiness"])
async def test_answers_are_told_as_they_come(call: str) -> None:
    """Each answer is told when it is there, with what it took, while others are still awaited; a late one as late."""

    async def in_a_second() -> Any:
        await lab.clock.sleep(SECOND)
        return err("not yet")

    lab = build({"hangs": schema_applied(forever), "slow": schema_applied(in_a_second), "quiet": quiet()})
    told: list[SourceAnswer] = []
    task = asyncio.ensure_future(getattr(lab.migration, call)(on_answer=told.append))
    await lab.clock.elapse(timedelta(0))
    assert [(each.source, each.verdict) for each in told] == [("quiet", Ok({"count": 0}))]
    assert told[0].coverage is not None
    assert told[0].coverage.total() == timedelta(0)
    await lab.clock.elapse(SECOND)
    assert [(each.source, each.verdict, each.took, each.coverage) for each in told[1:]] == [
        ("slow", EvidenceFailure("not yet"), SECOND, None)
    ]
    assert not task.done()
    await lab.clock.elapse(LIMIT)
    await task
    assert [(each.source, type(each.verdict), each.took) for each in told[2:]] == [("hangs", TimeoutError, LIMIT)]


async def test_what_is_judged_twice_is_told_twice() -> None:
    """A window that is asked once more, since others took long, is told of once more."""

    async def in_a_while() -> Any:
        await lab.clock.sleep(2 * SECOND)
        return ok()

    lab = build({"quiet": quiet(), "slow": schema_applied(in_a_while)})
    told: list[str] = []
    task = asyncio.ensure_future(lab.migration.advance(on_answer=lambda answer: told.append(answer.source)))
    await lab.clock.elapse(2 * SECOND)
    assert isinstance(await task, Ok)
    assert told == ["quiet", "slow", "quiet"]


async def test_one_that_watches_and_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What `on_answer` raises is logged; it can neither stop a step nor cause one."""

    def on_answer(answer: SourceAnswer) -> None:
        raise RuntimeError("the screen is gone")

    lab = build({"a": checked(1), "quiet": quiet()})
    assert isinstance(await lab.migration.advance(on_answer=on_answer), Ok)
    assert len(caplog.records) == 2
    lab = build({"a": schema_applied(lambda: err("no"))})
    refused = await lab.migration.advance(on_answer=on_answer)
    assert isinstance(refused, Err)
    assert lab.store.operations == ["current"]


# -- between the answers and the commit

STANDS = timedelta(seconds=5)


def stand_still(lab: Lab, how: str, duration: timedelta) -> None:
    """Time goes by, and nobody is asked: the event loop stands still, or the machine is suspended."""
    moment = lab.clock.now().wall + duration
    lab.clock.advance_by(duration) if how == "advance_by" else lab.clock.jump_wall_time(moment)


def overtaken(result: Any, lab: Lab, idle: str) -> None:
    assert isinstance(result, Err)
    assert isinstance(result.error, EvidenceErrored)
    assert {type(error) for error in result.error.errors.values()} == {EvidenceOvertakenError}
    assert f"nobody was asked for {idle} before the step, and 5 seconds is the most" in result.error.message
    assert lab.store.phase == "expand"
    assert {each["type"] for each in lab.refusal["errors"].values()} == {"EvidenceOvertakenError"}


@pytest.mark.parametrize("how", ["advance_by", "jump_wall_time"])
@pytest.mark.parametrize("stood, idle", [(STANDS, None), (STANDS + SECOND, "6 seconds"), (DAY, "1 day")])
async def test_an_event_loop_that_stood_still(stood: timedelta, idle: str | None, how: str) -> None:
    """What was seen before that is no evidence any more; on a suspended machine too."""
    lab = build({"schema": checked(), "slow": schema_applied(lambda: later(lab))})
    told: list[str] = []

    def after_the_last(answer: SourceAnswer) -> None:
        told.append(answer.source)
        if len(told) == 2:
            stand_still(lab, how, stood)

    task = asyncio.ensure_future(lab.migration.advance(on_answer=after_the_last))
    await lab.clock.elapse(2 * SECOND)  # which is no time that nobody was asked in
    if idle is None:
        assert isinstance(await task, Ok)
    else:
        overtaken(await task, lab, idle)
        assert lab.store.operations == ["current"]


async def later(lab: Lab) -> Any:
    await lab.clock.sleep(2 * SECOND)
    return ok()


@pytest.mark.parametrize("when", [1, 3], ids=["before the second judgement", "after it"])
async def test_it_stood_still_where_windows_are_judged_twice(when: int) -> None:
    """Other sources are not asked again, and have to stand until then."""
    lab = build({"window": quiet(), "schema": schema_applied(lambda: later(lab))})
    told: list[str] = []

    def tell(answer: SourceAnswer) -> None:
        told.append(answer.source)
        if len(told) == when + (when == 1):
            stand_still(lab, "advance_by", STANDS + SECOND)

    task = asyncio.ensure_future(lab.migration.advance(on_answer=tell))
    await lab.clock.elapse(2 * SECOND)
    overtaken(await task, lab, "6 seconds")
    assert told == ["window", "schema", "window", *(["window"] if when == 3 else [])]


async def test_a_second_judgement_that_takes_its_time() -> None:
    """Then somebody is asked, so nobody stands still."""
    lab = build({"window": quiet(), "schema": schema_applied(lambda: later(lab))})
    runtime = lab.migration._runtime
    store = runtime.inquirer.journal_store
    queries: list[object] = []

    class Slow:
        async def query(self, *args: Any) -> JournalWindow:
            queries.append(args)
            if len(queries) == 2:
                await lab.clock.sleep(STANDS + SECOND)
            return await store.query(*args)

    inquirer = attrs.evolve(runtime.inquirer, journal_store=Slow())
    lab.migration._runtime = attrs.evolve(runtime, inquirer=inquirer)
    assert isinstance(await lab.advance(2 * SECOND + STANDS + SECOND), Ok)
    assert len(queries) == 2


async def test_an_answer_that_nobody_heard_for_long() -> None:
    """A plain check answers in its thread, while the event loop stands still; that is no time of asking."""

    async def in_place(check: Callable[[], Any]) -> Any:
        answer = check()
        await rounds(1 if answer == ok("first") else 5)
        return answer

    sources = {"a": schema_applied(lambda: ok("first")), "b": schema_applied(lambda: ok("second"))}
    lab = build(sources, run_sync=in_place)
    told: list[str] = []

    def tell(answer: SourceAnswer) -> None:
        told.append(answer.source)
        if len(told) == 1:
            lab.clock.advance_by(20 * SECOND)

    overtaken(await lab.migration.advance(on_answer=tell), lab, "20 seconds")
    assert told == ["a", "b"]


async def test_a_store_that_waits_before_it_commits() -> None:
    """It asks last whether the evidence stands, since it may have waited for a lock."""
    lab = build({"schema": checked()}, store={"try_advance": waiting(lambda: lab.clock.sleep(STANDS + SECOND))})
    overtaken(await lab.advance(STANDS + SECOND), lab, "6 seconds")
    assert lab.store.operations == ["current", "try_advance"]


async def test_a_step_without_evidence_is_not_overtaken() -> None:
    """It relies on nothing."""
    lab = build(store={"try_advance": waiting(lambda: lab.clock.sleep(DAY))})
    assert isinstance(await lab.advance(DAY), Ok)
