"""What a phase store may do to an `advance()`, and what the answer is then: never a wrong one."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phyxius.clock import Instant
from phyxius.fp import Err, Ok, err, ok
from phyxius.migration import (
    AttemptFencedError,
    CasLost,
    Committed,
    Conflict,
    EvidenceSnapshot,
    MemoryPhaseStore,
    StoreErrored,
    WrongShapeError,
    schema_applied,
)
from tests.migration.support import (
    LIMIT,
    REALLY,
    Go,
    Lab,
    Rig,
    answering,
    build,
    checked,
    forever,
    no_tasks_left,
    raising,
    rounds,
    waiting,
)

DAY = timedelta(days=1)
AT = Instant(wall_ns=1, mono_ns=1)


class Abort(BaseException):
    """What is no `Exception`."""


ERRORS = [OSError("gone"), asyncio.CancelledError("pool"), Abort("stop"), TimeoutError(), StopIteration()]
errors = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


# -- current()


@errors
async def test_current_raises(error: BaseException) -> None:
    """A store that raises when it is asked for the phase: nothing is asked, nothing moves."""
    lab = build({"a": checked()}, store={"current": raising(error)})
    result = await lab.advance()
    assert isinstance(result.error, StoreErrored)
    assert (result.error.operation, result.error.committed) == ("current", "no")
    assert type(result.error.error) in (type(error), RuntimeError)
    assert lab.store.operations == ["current"]


@pytest.mark.parametrize(
    "answer",
    [MagicMock(spec=str), Mock(__class__=str), None, b"expand", 0, ["expand"], Ok("expand")],
    ids=["mock", "mock with class", "None", "bytes", "0", "list", "Ok"],
)
async def test_current_answers_with_no_text(answer: object) -> None:
    """What is no text is no phase, also if it says it were one."""
    lab = build({"a": checked()}, store={"current": answering(answer)})
    error = (await lab.advance()).error
    assert (error.operation, error.committed, type(error.error)) == ("current", "no", WrongShapeError)


@pytest.mark.parametrize("after", [False, True])
async def test_current_is_limited(after: bool) -> None:
    """A store that hangs when it is asked for the phase is given up on after `evidence_timeout`."""
    lab = build(store={"current": waiting(forever, after=after)})
    error = (await lab.advance(LIMIT)).error
    assert (error.operation, error.committed, type(error.error)) == ("current", "no", TimeoutError)
    assert lab.audit.duration == LIMIT
    assert await no_tasks_left()


# -- try_advance()


@errors
@pytest.mark.parametrize("after", [False, True])
async def test_try_advance_raises(error: BaseException, after: bool) -> None:
    """A store that raises while committing is asked what became of the attempt, and that is the answer."""
    lab = build({"a": checked(7)}, store={"try_advance": raising(error, after=after)})
    result = await lab.advance()
    assert lab.store.operations == ["current", "try_advance", "resolve"]
    assert lab.store.calls[2] == ("resolve", lab.audit.invocation_id)
    if after:
        assert result.value.evidence == {"a": 7}
        assert result.value.at == (await lab.store.inner.history())[0].at
        assert lab.store.phase == "flip"
        assert lab.audit.outcome == "success"
    else:
        assert (result.error.operation, result.error.committed) == ("try_advance", "no")
        assert type(result.error.error) in (type(error), RuntimeError)
        assert lab.store.phase == "expand"


def mock_of(committed: type) -> object:
    """A mock that says it were an outcome."""
    return MagicMock(spec=committed)


class SubOk(Ok[Any]):
    """No true `Ok`."""


class SubCommitted(Committed):
    """No true `Committed`."""


WRONG = {
    "True": True,
    "None": None,
    "Committed": Committed(AT),
    "Conflict": Conflict("flip"),
    "Ok(None)": ok(),
    "Ok(True)": ok(True),
    "Ok(Conflict)": ok(Conflict("flip")),
    "Ok(mock)": ok(mock_of(Committed)),
    "Ok(subclass)": ok(SubCommitted(AT)),
    "subclass of Ok": SubOk(Committed(AT)),
    "mock": MagicMock(),
    "mock of Ok": mock_of(Ok),
    "mock of Err": mock_of(Err),
    "Err(None)": err(None),
    "Err(text)": err("flip"),
    "Err(Committed)": err(Committed(AT)),
    "Err(mock)": err(mock_of(Conflict)),
    "Conflict(None)": err(Conflict(None)),
    "Conflict(bytes)": err(Conflict(b"flip")),
    "Conflict(mock)": err(Conflict(MagicMock(spec=str))),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("resolvable", [False, True])
async def test_try_advance_answers_nonsense(answer: object, after: bool, resolvable: bool) -> None:
    """A wrong shape says nothing about the commit, so the store is asked; if it cannot say, that is the answer."""
    rigs = {"try_advance": answering(answer, after=after), "resolve": REALLY if resolvable else None}
    lab = build(store=rigs)
    result = await lab.advance()
    assert lab.store.phase == ("flip" if after else "expand")
    if after and resolvable:
        assert isinstance(result, Ok)
        return
    assert (result.error.operation, result.error.committed) == ("try_advance", "no" if resolvable else "unknown")
    assert type(result.error.error) is WrongShapeError


LIES = {
    "Ok(Committed)": ok(Committed(AT)),
    "mock of Committed": mock_of(Committed),
    "subclass of Committed": SubCommitted(AT),
    "False": False,
    "empty": "",
}
RESOLVES: dict[str, tuple[Rig | None, str]] = {
    "missing": (None, "unknown"),
    "raises": (raising(OSError("again")), "unknown"),
    "raises CancelledError": (raising(asyncio.CancelledError()), "unknown"),
    "raises after": (raising(OSError("again"), after=True), "unknown"),
    "raises other": (raising(Abort()), "unknown"),
    "hangs": (waiting(forever), "unknown"),
    "hangs after": (waiting(forever, after=True), "unknown"),
    "answers None": (REALLY, "no"),
    **{
        f"answers {name}": (answering(value), "unknown")
        for name, value in {**WRONG, **LIES}.items()
        if name not in ("None", "Committed")
    },
}


@pytest.mark.parametrize("resolve, committed", RESOLVES.values(), ids=RESOLVES)
async def test_resolve(resolve: Rig | None, committed: str) -> None:
    """Only a plain None says "no"; whatever else goes wrong with `resolve` leaves the outcome unknown."""
    lab = build(store={"try_advance": raising(OSError("gone")), "resolve": resolve})
    error = (await lab.advance(LIMIT)).error
    assert (error.operation, error.committed, type(error.error)) == ("try_advance", committed, OSError)
    assert str(error.error) == "gone"
    assert ("unknown" in lab.refusal["message"]) == (committed == "unknown")
    assert ("did not move" in lab.refusal["message"]) == (committed == "no")


async def test_resolve_is_limited() -> None:
    """A `resolve` that hangs is given up on after `evidence_timeout`."""
    lab = build(store={"try_advance": raising(OSError()), "resolve": waiting(forever)})
    await lab.advance(LIMIT)
    assert lab.audit.duration == LIMIT
    assert await no_tasks_left()


@pytest.mark.parametrize("after", [False, True])
async def test_try_advance_is_not_limited(after: bool) -> None:
    """A commit that was begun is waited for as long as it takes."""
    released = asyncio.Event()
    lab = build(store={"try_advance": waiting(released.wait, after=after)})
    task = asyncio.ensure_future(lab.migration.advance())
    await lab.clock.elapse(DAY)
    assert not task.done()
    assert lab.audits == []
    released.set()
    assert isinstance(await task, Ok)
    assert lab.audit.duration == DAY


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("operation", ["current", "try_advance", "resolve"])
def test_an_interrupt_goes_through(interrupt: type[BaseException], operation: str) -> None:
    """`KeyboardInterrupt` and `SystemExit` out of a store end the program; the audit says what is known."""
    rigs = {"try_advance": raising(OSError())} | {operation: raising(interrupt())}
    lab = build(store=rigs)
    with pytest.raises(interrupt):
        asyncio.run(lab.migration.advance())
    assert lab.refusal["type"] == ("CANCELLED" if operation == "current" else "STORE_ERRORED")


def test_a_loop_that_closes_during_the_commit() -> None:
    """If the loop is closed while the store commits, the audit says that nobody knows."""
    lab = build(store={"try_advance": waiting(forever)})
    loop = asyncio.new_event_loop()
    tasks = {loop.create_task(lab.migration.advance())}
    loop.run_until_complete(rounds(20))
    tasks |= asyncio.all_tasks(loop)
    (commit,) = [task for task in tasks if "_transition" in repr(task)]
    commit.get_coro().close()  # as the collector does once nobody holds the loop
    assert lab.refusal["errors"]["try_advance"]["type"] == "GeneratorExit"
    assert "unknown" in lab.refusal["message"]
    commit.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    assert all(task.cancelled() or task.exception() for task in tasks)
    loop.close()
    assert len(lab.audits) == 1


def test_a_loop_that_closes_during_resolve() -> None:
    """If the loop is closed while the store is asked what became of the attempt, nobody knows either."""
    lab = build(store={"try_advance": raising(OSError("away")), "resolve": waiting(forever)})
    loop = asyncio.new_event_loop()
    tasks = {loop.create_task(lab.migration.advance())}
    loop.run_until_complete(rounds(20))
    tasks |= asyncio.all_tasks(loop)
    (commit,) = [task for task in tasks if "_transition" in repr(task)]
    commit.get_coro().close()
    assert "unknown" in lab.refusal["message"]
    commit.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    assert all(task.cancelled() or task.exception() for task in tasks)
    loop.close()
    assert len(lab.audits) == 1


# -- never a wrong answer


class Race:
    """A store under way: commits that hang until they are released, or land after their connection was lost."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.landing: list[asyncio.Future[None]] = []

    def late(self, error: BaseException) -> Rig:
        async def rig(go: Go) -> Any:
            self.landing.append(asyncio.ensure_future(land(go)))
            raise error

        async def land(go: Go) -> None:
            await self.released.wait()
            with contextlib.suppress(AttemptFencedError):
                await go()

        return rig

    def rig(self, kind: str, fault: Any, after: bool, held: bool) -> Rig | None:
        until = self.released.wait if held else forever
        return {
            "real": lambda: REALLY,
            "slow": lambda: waiting(rounds, after=after),
            "raise": lambda: raising(ERRORS[fault], after=after),
            "late": lambda: self.late(ERRORS[fault]),
            "wrong": lambda: answering([True, 7, b"flip", MagicMock(), ok()][fault], after=after),
            "hang": lambda: waiting(until, after=after),
            "missing": lambda: None,
        }[kind]()


def faults(*kinds: str) -> st.SearchStrategy[tuple[str, int, bool]]:
    """How one operation of the store behaves."""
    usual = ("real", "slow", "raise", "wrong", "hang")
    return st.tuples(st.sampled_from((*usual, *kinds)), st.integers(0, 4), st.booleans())


REAL = ("real", 0, False)


class Unasking(MemoryPhaseStore):
    """A store that does not ask whether the evidence still stands, so that the fence alone keeps a late step out."""

    async def try_advance(self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /) -> Any:
        return await super().try_advance(from_phase, to_phase, EvidenceSnapshot(evidence.attempt, evidence.payloads))


async def outcome(current: Any, try_advance: Any, resolve: Any, rivals: str) -> tuple[Lab, Any, bool, bool]:
    """One call over such a store: its answer, and whether it moved the migration, at once and in the end."""

    async def rival() -> Any:
        if rivals == "rival":
            await lab.store.inner.try_advance("expand", "flip", EvidenceSnapshot("rival", {}))
        return ok()

    async def moved() -> bool:
        return lab.audit.invocation_id in {each.attempt for each in await lab.store.inner.history()}

    race = Race()
    lab = build({"a": schema_applied(rival)})
    lab.store.inner = Unasking("expand", lab.clock)
    lab.store.rig("current", race.rig(*current, False) or REALLY)
    lab.store.rig("try_advance", race.rig(*try_advance, True) or REALLY)
    rig = race.rig(*resolve, False)
    if rig is None:
        del lab.store.resolve
    else:
        lab.store.rig("resolve", rig)
    task = asyncio.ensure_future(lab.migration.advance())
    await lab.clock.elapse(3 * LIMIT)
    if try_advance[0] == "hang" and "try_advance" in lab.store.operations:
        assert not task.done()
        race.released.set()
        await lab.clock.elapse(3 * LIMIT)
    assert task.done()
    at_once = await moved()
    race.released.set()
    await asyncio.gather(*race.landing)
    return lab, task.result(), at_once, await moved()


@settings(max_examples=400)
@given(faults(), faults("late"), faults("missing"), st.sampled_from(["alone", "rival"]))
@example(REAL, ("raise", 0, True), REAL, "alone")
@example(REAL, ("late", 0, False), REAL, "alone")
@example(REAL, ("late", 1, False), ("raise", 0, True), "alone")
@example(REAL, ("wrong", 0, True), REAL, "alone")
@example(REAL, ("late", 0, False), ("missing", 0, False), "alone")
def test_never_a_wrong_answer(current: Any, try_advance: Any, resolve: Any, rivals: str) -> None:
    """`Ok` means that this call moved it, "no" that it never did nor will, and any refusal that it did not."""
    lab, result, at_once, ever = asyncio.run(outcome(current, try_advance, resolve, rivals))
    assert lab.audit.outcome == ("success" if isinstance(result, Ok) else "failure")
    if isinstance(result, Ok):
        assert at_once
    elif isinstance(result.error, StoreErrored) and result.error.committed == "unknown":
        assert try_advance[0] != "real"
        assert resolve[0] != "real"
    else:
        assert not ever
        assert isinstance(result.error, StoreErrored if rivals == "alone" else StoreErrored | CasLost)
    if rivals == "rival":
        assert not ever


async def test_the_fence() -> None:
    """After "no" the attempt can never commit, even when its compare-and-set arrives late."""
    lab, result, at_once, ever = await outcome(REAL, ("late", 0, False), REAL, "alone")
    assert (result.error.committed, at_once, ever) == ("no", False, False)
    lab, result, at_once, ever = await outcome(REAL, ("late", 0, False), ("missing", 0, False), "alone")
    assert (result.error.committed, at_once, ever) == ("unknown", False, True)
    assert lab.store.phase == "flip"


async def test_after_no_the_next_attempt_may_commit() -> None:
    """A fenced attempt does not stand in the way of the next one."""
    lab = build(store={"try_advance": raising(OSError())})
    assert (await lab.advance()).error.committed == "no"
    lab.store.rig("try_advance", REALLY)
    assert isinstance(await lab.advance(), Ok)


@pytest.mark.parametrize("at", [None, 1, "now"])
def test_committed_needs_an_instant(at: Any) -> None:
    """`Committed` cannot be made without an instant."""
    with pytest.raises(TypeError):
        Committed(at)
