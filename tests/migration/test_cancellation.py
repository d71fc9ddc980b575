"""Cancellation at every await: before the compare-and-set nothing moves, after it nothing is torn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from phyxius.clock import _limits as limits_module
from phyxius.clock import uninterrupted
from phyxius.fp import Err, Ok, err, ok
from phyxius.migration import MemoryJournalStore, StoreErrored, attestation, journal_window, schema_applied
from phyxius.migration import _advance as advance_module
from tests.migration.support import (
    LIMIT,
    REALLY,
    SECOND,
    Go,
    Lab,
    Rig,
    answering,
    build,
    checked,
    forever,
    no_tasks_left,
    quiet,
    raising,
    rounds,
    waiting,
)

MOST = 80


class SlowJournalStore(MemoryJournalStore):
    """A journal store that suspends."""

    async def query(self, *args: Any) -> Any:
        await rounds()
        return await super().query(*args)


def suspending(*, try_advance: Rig | None = None, resolve: Rig | None = REALLY) -> Lab:
    """A migration whose every await really suspends, a few times."""

    async def check() -> Any:
        await rounds()
        return ok()

    async def run_sync(plain: Callable[[], Any]) -> Any:
        await rounds()
        return plain()

    async def around(go: Go) -> Any:
        await rounds()
        answer = await go()
        await rounds()
        return answer

    lab = build(
        {"async": schema_applied(check), "plain": attestation(ok), "quiet": quiet()},
        store={"current": around, "try_advance": try_advance or around, "resolve": resolve},
        run_sync=run_sync,
    )
    store = SlowJournalStore(lab.journal)
    object.__setattr__(lab.migration._runtime.inquirer, "journal_store", store)
    return lab


def failing(after: bool) -> Rig:
    """Fail, slowly, before or after the commit."""

    async def rig(go: Go) -> Any:
        await rounds()
        if after:
            await go()
        await rounds()
        raise OSError("gone")

    return rig


Outcome = tuple[bool, str, bool]


async def cancelled_at(lab: Lab, *moments: int) -> Outcome:
    """Cancel after so many turns of the loop, each counted from the one before: what was it, and is it consistent?"""
    task = asyncio.ensure_future(lab.migration.advance())
    cancelled = False
    for turns in moments:
        await rounds(turns)
        cancelled |= task.cancel()
    await asyncio.wait({task})
    assert task.cancelled() == cancelled
    assert await no_tasks_left()
    assert not limits_module._unfinished
    assert not lab.clock.pending_timers
    return cancelled, verdict(lab), lab.store.phase == "flip"


def verdict(lab: Lab) -> str:
    """What the one audit event says: success, or the refusal."""
    return "SUCCESS" if lab.audit.outcome == "success" else lab.refusal["type"]


def outcomes_of(seen: list[Outcome]) -> list[Outcome]:
    """The different outcomes, in the order in which they came first."""
    return list(dict.fromkeys(seen))


MOVED, STOPPED, DONE = (True, "SUCCESS", True), (True, "CANCELLED", False), (False, "SUCCESS", True)
FAILED, FINISHED = (True, "STORE_ERRORED", False), (False, "STORE_ERRORED", False)


@pytest.mark.parametrize(
    "make, expected",
    [
        (suspending, [STOPPED, MOVED, DONE]),
        (lambda: suspending(try_advance=failing(after=True)), [STOPPED, MOVED, DONE]),
        (lambda: suspending(try_advance=failing(after=False)), [STOPPED, FAILED, FINISHED]),
        (
            lambda: suspending(try_advance=failing(after=False), resolve=waiting(rounds)),
            [STOPPED, FAILED, FINISHED],
        ),
        (lambda: suspending(try_advance=failing(after=True), resolve=waiting(rounds)), [STOPPED, MOVED, DONE]),
    ],
    ids=["commits", "fails after", "fails before", "fails before, slow", "fails after, slow"],
)
async def test_at_every_await(make: Callable[[], Lab], expected: list[Outcome]) -> None:
    """Cancelled at any turn: first nothing moves, from the commit on it completes and is audited as what it was."""
    seen = [await cancelled_at(make(), turns) for turns in range(1, MOST)]
    assert outcomes_of(seen) == expected
    assert all(seen.count(outcome) > 3 for outcome in expected)


@pytest.mark.parametrize("second", [0, 1, 2, 5])
async def test_twice_at_every_await(second: int) -> None:
    """A second cancellation tears nothing either."""
    seen = [await cancelled_at(suspending(), first, second) for first in range(1, MOST)]
    assert outcomes_of(seen)[:2] == [STOPPED, MOVED]
    seen = [
        await cancelled_at(suspending(try_advance=failing(after=True)), first, second, second, second)
        for first in range(1, MOST)
    ]
    assert outcomes_of(seen)[:2] == [STOPPED, MOVED]


async def test_before_the_first_step() -> None:
    """A call that is cancelled before it began was no call."""
    lab = suspending()
    task = asyncio.ensure_future(lab.migration.advance())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.store.calls == lab.audits == []


async def test_the_checks_are_cancelled() -> None:
    """When a call is cancelled its checks are too, and their clean-up runs."""
    ended: list[str] = []

    async def check() -> Any:
        try:
            await forever()
        finally:
            await rounds()
            ended.append("cleaned up")

    lab = build({"a": schema_applied(check), "b": journal_window("x", SECOND, lambda window: ok())})
    task = asyncio.ensure_future(lab.migration.advance())
    await lab.clock.elapse(SECOND)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await no_tasks_left()
    assert ended == ["cleaned up"]


async def test_a_stubborn_check_does_not_hold_up_the_cancellation() -> None:
    """A check that swallows its cancellation does not keep the caller from being cancelled."""
    release = asyncio.Event()

    async def check() -> Any:
        with suppress(asyncio.CancelledError):
            await forever()
        await release.wait()
        return ok()

    lab = build({"a": schema_applied(check)})
    task = asyncio.ensure_future(lab.migration.advance())
    await lab.clock.elapse(SECOND)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    release.set()
    assert await no_tasks_left()
    assert (verdict(lab), lab.store.phase) == ("CANCELLED", "expand")


async def test_a_commit_is_waited_for() -> None:
    """A cancelled caller goes on waiting for the commit, however often it is cancelled, and then is cancelled."""
    released = asyncio.Event()
    lab = build(store={"try_advance": waiting(released.wait)})
    task = asyncio.ensure_future(lab.migration.advance())
    for _ in range(5):
        await lab.clock.elapse(LIMIT)
        assert task.cancel("enough")
    await lab.clock.elapse(LIMIT)
    assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert (verdict(lab), lab.store.phase) == ("SUCCESS", "flip")


@pytest.mark.parametrize("stage", ["evidence", "commit"])
async def test_under_a_timeout(stage: str) -> None:
    """`asyncio.timeout` around a call ends as always: with `TimeoutError`, after the commit if that had begun."""
    released = asyncio.Event()

    async def check() -> Any:
        await (forever() if stage == "evidence" else rounds())
        return ok()

    async def fall(limit: asyncio.Timeout) -> None:
        await rounds(20)
        limit.reschedule(0)
        await rounds(5)
        assert call.done() == (stage == "evidence")
        released.set()

    lab = build({"a": schema_applied(check)}, store={"try_advance": waiting(released.wait)})

    async def bounded() -> None:
        async with asyncio.timeout(None) as limit:
            falling.append(asyncio.ensure_future(fall(limit)))
            await lab.migration.advance()

    falling: list[asyncio.Future[None]] = []
    call = asyncio.ensure_future(bounded())
    with pytest.raises(TimeoutError):
        await call
    await falling[0]
    assert (verdict(lab), lab.store.phase) == (("CANCELLED", "expand") if stage == "evidence" else ("SUCCESS", "flip"))


async def test_closed_without_being_awaited_to_the_end() -> None:
    """A coroutine that is closed in the middle is audited as cancelled, and nothing moves."""
    lab = build({"hung": schema_applied(forever)})
    call = lab.migration.advance()
    call.send(None)
    call.close()
    assert await no_tasks_left()
    assert (verdict(lab), lab.store.phase) == ("CANCELLED", "expand")


async def test_closed_during_the_commit() -> None:
    """A coroutine that is closed while it waits for its commit does not stop that: the task is the library's."""
    reached = asyncio.Event()

    async def slow(go: Go) -> Any:
        reached.set()
        await rounds()
        return await go()

    lab = build(store={"current": REALLY, "try_advance": slow})
    call = lab.migration.advance()

    async def by_hand() -> None:
        waiter: Any = call.send(None)
        while not reached.is_set():
            while not waiter.done():
                await rounds(1)
            waiter._asyncio_future_blocking = False
            waiter = call.send(None)
            await rounds(2)
        call.close()

    await by_hand()
    assert await no_tasks_left()
    assert (verdict(lab), lab.store.phase) == ("SUCCESS", "flip")


# -- the loop is shut down


def shut_down_at(lab: Lab, turns: int) -> None:
    """Run a program that ends in the middle of a call, so that asyncio cancels every task there is."""

    async def main() -> None:
        call = asyncio.ensure_future(lab.migration.advance())
        await rounds(turns)
        lab.journal.declare("main ended")
        del call

    asyncio.run(main())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("resolve", [REALLY, waiting(rounds), None], ids=["resolves", "resolves slowly", "cannot"])
def test_shut_down_at_every_await(after: bool, resolve: Rig | None) -> None:
    """A program that ends at any turn of the loop leaves one true audit event, and never a half step."""
    seen = []
    for turns in range(2, MOST):
        lab = suspending(try_advance=waiting(rounds, after=after), resolve=resolve)
        shut_down_at(lab, turns)
        moved, told = lab.store.phase == "flip", verdict(lab)
        if told == "STORE_ERRORED":
            committed = "unknown" in lab.refusal["message"]
            told = f"{told} {'unknown' if committed else 'no'}"
        seen.append((told, moved))
    outcomes = list(dict.fromkeys(seen))
    allowed = {("CANCELLED", False), ("SUCCESS", True), ("STORE_ERRORED no", False)}
    if resolve is None:
        allowed = {("CANCELLED", False), ("SUCCESS", True), ("STORE_ERRORED unknown", after)}
    assert set(outcomes) <= allowed
    assert outcomes[0] == ("CANCELLED", False)
    assert outcomes[-1] == ("SUCCESS", True)
    if not after or resolve is None:
        assert len(outcomes) == 3


def test_shut_down_before_the_commit_began() -> None:
    """A commit whose task never had its first step is a cancellation: nothing was asked of the store."""
    stopped = 0
    for turns in range(2, MOST):
        lab = suspending()
        created: list[object] = []
        original = advance_module.AdvanceCall._transition

        async def noted(call: Any, step: Any, original: Any = original, created: Any = created) -> Any:
            created.append("ran")
            return await original(call, step)

        commits: list[Any] = []

        async def noting(work: Any, commits: Any = commits) -> Any:
            commits.append(work)
            return await uninterrupted(work)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(advance_module.AdvanceCall, "_transition", noted)
            patch.setattr(advance_module, "uninterrupted", noting)
            shut_down_at(lab, turns)
        if commits and not created:
            stopped += 1
            assert (verdict(lab), lab.store.phase) == ("CANCELLED", "expand")
            assert "try_advance" not in lab.store.operations
        assert len(lab.audits) == 1
    assert stopped == 1


@pytest.mark.parametrize("hangs", [waiting(forever), waiting(forever, after=True)])
def test_shut_down_during_resolve(hangs: Rig) -> None:
    """A program that ends while the store is asked what became of the attempt is told that nobody knows."""
    lab = build(store={"try_advance": raising(OSError("gone"), after=True), "resolve": hangs})
    shut_down_at(lab, 40)
    assert lab.store.operations == ["current", "try_advance", "resolve"]
    assert "unknown" in lab.refusal["message"]
    assert lab.refusal["errors"] == {"try_advance": {"type": "OSError", "message": "gone"}}


def test_a_commit_that_swallows_the_shut_down() -> None:
    """A store that commits although it was cancelled has committed."""

    async def stubborn(go: Go) -> Any:
        with suppress(asyncio.CancelledError):
            await forever()
        return await go()

    lab = build({"a": checked(1)}, store={"try_advance": stubborn})
    shut_down_at(lab, 40)
    assert (verdict(lab), lab.store.phase) == ("SUCCESS", "flip")


async def test_a_refusal_is_no_cancellation() -> None:
    """A caller that is cancelled after the commit lost learns of the cancellation; the audit tells what happened."""
    released = asyncio.Event()

    async def rig(go: Go) -> Any:
        await released.wait()
        return await go()

    lab = build(store={"try_advance": rig})
    task = asyncio.ensure_future(lab.migration.advance())
    await lab.clock.elapse(SECOND)
    lab.store.inner._phase = "contract"
    task.cancel()
    released.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert verdict(lab) == "CAS_LOST"


async def test_a_gathering_of_calls() -> None:
    """In a task group whose other member fails, a call is cancelled like anything else, or completes."""

    async def fail() -> None:
        await rounds(20)
        raise OSError

    lab = build({"a": schema_applied(forever)})

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(lab.migration.advance())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await together()
    assert verdict(lab) == "CANCELLED"


async def test_shielded() -> None:
    """A call under `asyncio.shield` is not cancelled with its caller, and answers in its own time."""
    lab = build({"a": schema_applied(lambda: err("no"))}, store={"current": waiting(rounds)})
    call = asyncio.ensure_future(lab.migration.advance())
    waiter = asyncio.ensure_future(wait_for(asyncio.shield(call)))
    await rounds(2)
    waiter.cancel()
    await asyncio.wait({waiter})
    assert waiter.cancelled()
    assert isinstance(await call, Err)


async def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait."""
    return await awaitable


async def test_cancelled_error_of_the_store_is_no_cancellation() -> None:
    """A `CancelledError` that the store makes up cancels nobody, at any stage."""
    for rigs, kind in (
        ({"current": raising(asyncio.CancelledError())}, StoreErrored),
        ({"try_advance": raising(asyncio.CancelledError())}, StoreErrored),
        ({"try_advance": raising(OSError(), after=True), "resolve": raising(asyncio.CancelledError())}, StoreErrored),
    ):
        result = await build(store=rigs).advance()
        assert isinstance(result.error, kind)
    assert isinstance(await build(store={"try_advance": answering(None, after=True)}).advance(), Ok)
