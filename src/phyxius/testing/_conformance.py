"""What a phase store must hold to, as checks that any test suite can run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from phyxius.fp import Err, Ok
from phyxius.migration import (
    AttemptFencedError,
    Committed,
    Conflict,
    EvidenceOvertakenError,
    EvidenceSnapshot,
    PhaseStore,
)

CONFORMANCE_PHASES = ("expand", "dual_write", "flip", "contract")
"""The phases of the store that a check is given; it stands at the first."""

MakePhaseStore = Callable[[], Awaitable[PhaseStore]]


class ConformanceError(AssertionError):
    """A store breaks a rule; the message says which, and what was seen."""


def require(holds: bool, rule: str, seen: object) -> None:
    """Raise unless a rule holds."""
    if not holds:
        raise ConformanceError(f"{rule}; seen: {seen!r}")


def _snapshot(attempt: str, **payloads: object) -> EvidenceSnapshot:
    return EvidenceSnapshot(attempt, payloads)


async def _leaves_nothing(store: PhaseStore, refused: str) -> None:
    """What was refused to a store that stands at its first phase is as if it had never been tried."""
    require(await store.current() == "expand", f"{refused} moves nothing", await store.current())
    answer = await store.try_advance("expand", "dual_write", _snapshot("a2"))
    require(type(answer) is Ok, f"{refused} does not stand in the way of the next attempt", answer)


async def starts_at_the_first_phase(make: MakePhaseStore) -> None:
    """A new store answers with the first phase, as an exact `str`."""
    store = await make()
    phase = await store.current()
    require(type(phase) is str and phase == "expand", "current() answers with the exact str of the first phase", phase)


async def commits_and_answers_with_an_instant(make: MakePhaseStore) -> None:
    """A transition from the current phase commits, and the phase is the new one."""
    store = await make()
    answer = await store.try_advance("expand", "dual_write", _snapshot("a1", ready={"revision": "0042"}))
    require(type(answer) is Ok and type(answer.value) is Committed, "a commit answers Ok(Committed(at))", answer)
    require(await store.current() == "dual_write", "after a commit current() is the new phase", await store.current())


async def refuses_a_stale_compare(make: MakePhaseStore) -> None:
    """A transition from another phase than the current one is a conflict that moves nothing."""
    store = await make()
    answer = await store.try_advance("dual_write", "flip", _snapshot("a1"))
    require(answer == Err(Conflict("expand")), "a stale compare answers Err(Conflict(actual))", answer)
    await _leaves_nothing(store, "a conflict")


async def has_one_winner(make: MakePhaseStore) -> None:
    """Of many callers at once exactly one commits, and the others are told where the phase is."""
    store = await make()
    answers = await asyncio.gather(
        *(store.try_advance("expand", "dual_write", _snapshot(f"a{number}")) for number in range(8))
    )
    won = [answer for answer in answers if type(answer) is Ok]
    lost = [answer for answer in answers if answer == Err(Conflict("dual_write"))]
    require((len(won), len(lost)) == (1, 7), "of eight callers one commits and seven see a conflict", answers)


async def asks_last_whether_the_evidence_stands(make: MakePhaseStore) -> None:
    """It calls `check_standing` of the evidence, and commits nothing if that raises."""
    store = await make()

    def check_standing() -> None:
        raise EvidenceOvertakenError(timedelta(seconds=2), timedelta(seconds=1))

    try:
        answer = await store.try_advance("expand", "dual_write", EvidenceSnapshot("a1", {}, check_standing))
    except EvidenceOvertakenError:
        pass
    else:
        raise ConformanceError(f"what check_standing() raises goes through, and nothing is committed; seen: {answer!r}")
    await _leaves_nothing(store, "evidence that is too old")


async def keeps_its_history(make: MakePhaseStore) -> None:
    """`history()`, where offered, tells each transition once, in order, with its evidence as it was."""
    store = await make()
    history = _offered(store, "history")
    if history is None:
        return
    payload: dict[str, object] = {"count": 1, "text": "ü", "none": None, "nested": [1.5, {"deep": True}]}
    await store.try_advance("expand", "dual_write", EvidenceSnapshot("a1", {"ready": payload}))
    payload["count"] = 2
    await store.try_advance("expand", "dual_write", _snapshot("a2"))
    await store.try_advance("dual_write", "flip", _snapshot("a3"))
    told = [(each.from_phase, each.to_phase, each.attempt, dict(each.evidence)) for each in await history()]
    expected = [
        ("expand", "dual_write", "a1", {"ready": {**payload, "count": 1}}),
        ("dual_write", "flip", "a3", {}),
    ]
    require(told == expected, "history() tells what was committed, with the evidence as it was then", told)


async def resolves_a_committed_attempt(make: MakePhaseStore) -> None:
    """`resolve`, where offered, answers with the commit of an attempt, also after the phase moved on."""
    store = await make()
    resolve = _offered(store, "resolve")
    if resolve is None:
        return
    answer = await store.try_advance("expand", "dual_write", _snapshot("a1"))
    await store.try_advance("dual_write", "flip", _snapshot("a2"))
    resolved = await resolve("a1")
    same = type(answer) is Ok and type(resolved) is Committed and resolved.at.wall_ns == answer.value.at.wall_ns
    require(same, "resolve() of a commit answers with that Committed", (answer, resolved))


async def fences_an_attempt_that_never_committed(make: MakePhaseStore) -> None:
    """After `resolve` has answered None, that attempt can never commit, and others can."""
    store = await make()
    resolve = _offered(store, "resolve")
    if resolve is None:
        return
    for _ in range(2):
        resolved = await resolve("a1")
        require(resolved is None, "resolve() of an attempt that never committed answers None, each time", resolved)
    try:
        answer = await store.try_advance("expand", "dual_write", _snapshot("a1"))
    except AttemptFencedError:
        pass
    else:
        raise ConformanceError(f"a fenced attempt must raise AttemptFencedError; seen: {answer!r}")
    await _leaves_nothing(store, "a fenced attempt")


async def decides_between_commit_and_fence(make: MakePhaseStore) -> None:
    """When an attempt is resolved while it commits, both answers agree."""
    for resolve_first in (True, False):
        store = await make()
        resolve = _offered(store, "resolve")
        if resolve is None:
            return
        calls: list[Awaitable[Any]] = [resolve("a1"), store.try_advance("expand", "dual_write", _snapshot("a1"))]
        if not resolve_first:
            calls.reverse()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if not resolve_first:
            answers.reverse()
        resolved, answer = answers
        fenced = resolved is None and isinstance(answer, AttemptFencedError)
        committed = type(resolved) is Committed and type(answer) is Ok
        require(fenced or committed, "resolve() and try_advance() of one attempt agree", answers)
        phase = await store.current()
        require(phase == ("expand" if fenced else "dual_write"), "the phase is what both say", (answers, phase))


async def tells_the_truth_after_a_cancellation(make: MakePhaseStore) -> None:
    """Cancelled at any point, a transition has happened or not, `resolve` says which, and the store works on."""
    for steps in range(25):
        store = await make()
        task = asyncio.ensure_future(store.try_advance("expand", "dual_write", _snapshot("a1")))
        for _ in range(steps):
            await asyncio.sleep(0)
        ended = task.done()
        task.cancel()
        await asyncio.wait({task})
        resolve = _offered(store, "resolve")
        committed = None if resolve is None else await resolve("a1")
        phase = await store.current()
        if resolve is not None:
            told = phase == ("expand" if committed is None else "dual_write")
            require(told, "after a cancellation resolve() and current() agree", (steps, committed, phase))
        if not task.cancelled():
            require(phase == "dual_write", "an answer that came in spite of a cancellation is true", (steps, phase))
        following = CONFORMANCE_PHASES[CONFORMANCE_PHASES.index(phase) + 1]
        answer = await store.try_advance(phase, following, _snapshot("a2"))
        require(type(answer) is Ok, "after a cancellation the store works on", (steps, answer))
        if ended:
            return


async def keeps_the_phase_when_reopened(make: MakePhaseStore) -> None:
    """Where stores can be reopened the phase survives, and the next step goes on from it."""
    store = await make()
    reopen = _reopening(make)
    if reopen is None:
        return
    await store.try_advance("expand", "dual_write", _snapshot("a1"))
    store = await reopen(store)
    require(await store.current() == "dual_write", "the phase survives", await store.current())
    answer = await store.try_advance("expand", "dual_write", _snapshot("a2"))
    require(answer == Err(Conflict("dual_write")), "a step that was taken is not taken again", answer)
    answer = await store.try_advance("dual_write", "flip", _snapshot("a3"))
    require(type(answer) is Ok, "a reopened store moves on from where it was", answer)


async def keeps_its_history_when_reopened(make: MakePhaseStore) -> None:
    """Where stores can be reopened `history()`, where offered, tells the same after it, and goes on."""
    store = await make()
    reopen = _reopening(make)
    if reopen is None or _offered(store, "history") is None:
        return
    await store.try_advance("expand", "dual_write", _snapshot("a1", ready={"count": 1, "nested": [None, "ü"]}))
    await store.try_advance("dual_write", "flip", _snapshot("a2"))
    before = await _told(store)
    store = await reopen(store)
    after = await _told(store)
    require(after == before and len(after) == 2, "the history survives", (before, after))
    await store.try_advance("flip", "contract", _snapshot("a3"))
    after = await _told(store)
    require([each[2] for each in after] == ["a1", "a2", "a3"], "a reopened store adds to its history", after)


async def resolves_attempts_from_before_it_was_reopened(make: MakePhaseStore) -> None:
    """Where stores can be reopened `resolve`, where offered, still knows the commits, and the fences still hold."""
    store = await make()
    reopen = _reopening(make)
    resolve = _offered(store, "resolve")
    if reopen is None or resolve is None:
        return
    answer = await store.try_advance("expand", "dual_write", _snapshot("a1"))
    fenced = await resolve("a2")
    store = await reopen(store)
    resolved = await _offered_at_all(store, "resolve")("a1")
    same = type(answer) is Ok and type(resolved) is Committed and resolved.at.wall_ns == answer.value.at.wall_ns
    require(same, "a commit is known to a reopened store", (answer, resolved))
    try:
        late = await store.try_advance("dual_write", "flip", _snapshot("a2"))
    except AttemptFencedError:
        return
    raise ConformanceError(f"an attempt that was fenced stays fenced; seen: {(fenced, late)!r}")


phase_store_checks: tuple[Callable[[MakePhaseStore], Awaitable[None]], ...] = (
    starts_at_the_first_phase,
    commits_and_answers_with_an_instant,
    refuses_a_stale_compare,
    has_one_winner,
    asks_last_whether_the_evidence_stands,
    keeps_its_history,
    resolves_a_committed_attempt,
    fences_an_attempt_that_never_committed,
    decides_between_commit_and_fence,
    tells_the_truth_after_a_cancellation,
    keeps_the_phase_when_reopened,
    keeps_its_history_when_reopened,
    resolves_attempts_from_before_it_was_reopened,
)
"""Each takes an async function that makes a new, empty store over `CONFORMANCE_PHASES`.

Each call of that function must make a store of its own, with nothing in it. Whether the phase outlives the process
shows if the function has an attribute `reopen`, an async function that lets go of such a store, opens the same again
as another process would, and returns that; an object with the methods `__call__` and `reopen` will do.

A check of what is not offered (`resolve`, `history`, `reopen`) passes.
"""


def _offered(store: PhaseStore, operation: str) -> Callable[..., Awaitable[Any]] | None:
    return getattr(store, operation, None)


def _offered_at_all(store: PhaseStore, operation: str) -> Callable[..., Awaitable[Any]]:
    offered = _offered(store, operation)
    if offered is None:
        raise ConformanceError(f"a reopened store offers what it offered before; seen: no {operation}()")
    return offered


def _reopening(make: MakePhaseStore) -> Callable[[PhaseStore], Awaitable[PhaseStore]] | None:
    return getattr(make, "reopen", None)


async def _told(store: PhaseStore) -> list[tuple[object, ...]]:
    history = await _offered_at_all(store, "history")()
    return [(each.from_phase, each.to_phase, each.attempt, each.at.wall_ns, dict(each.evidence)) for each in history]
