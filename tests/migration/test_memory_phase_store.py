"""A phase in memory."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import Enum

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, err, ok
from phyxius.migration import (
    AttemptFencedError,
    Committed,
    Conflict,
    EvidenceSnapshot,
    MemoryPhaseStore,
    Transition,
    create_memory_phase_store,
)


class Phase(str, Enum):  # noqa: UP042 - its str() is not its value
    EXPAND = "expand"


def snapshot(attempt: str) -> EvidenceSnapshot:
    return EvidenceSnapshot(attempt, {"source": attempt})


def make_store(initial: str = "expand") -> MemoryPhaseStore:
    return create_memory_phase_store(initial=initial, clock=create_controlled_clock())


async def test_it_moves_by_compare_and_set() -> None:
    """Only who expects the phase that is there moves it; the other is told which it is."""
    store = make_store()
    assert await store.current() == "expand"
    assert await store.try_advance("expand", "flip", snapshot("a")) == ok(Committed(store.clock.now()))
    assert await store.try_advance("expand", "flip", snapshot("b")) == err(Conflict("flip"))
    assert await store.current() == "flip"
    assert await store.resolve("b") is None


async def test_it_keeps_a_history() -> None:
    """The transitions are there, oldest first, with time and evidence, and no attempt that lost."""
    clock = create_controlled_clock()
    store = create_memory_phase_store(initial="expand", clock=clock)
    began = clock.now()
    await store.try_advance("expand", "flip", snapshot("a"))
    await store.try_advance("expand", "flip", snapshot("b"))
    clock.advance_by(timedelta(days=1))
    await store.try_advance("flip", "contract", snapshot("c"))
    assert await store.history() == (
        Transition("expand", "flip", began, "a", {"source": "a"}),
        Transition("flip", "contract", clock.now(), "c", {"source": "c"}),
    )


def test_threads_cannot_both_win() -> None:
    """Of many threads that try the same step exactly one commits, and the phase moves once."""
    store = make_store()

    def attempt(number: int) -> object:
        return asyncio.run(store.try_advance("expand", "flip", snapshot(str(number))))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(64)))
    assert [type(answer) for answer in answers].count(Ok) == 1
    assert [type(answer) for answer in answers].count(Err) == 63
    assert len(asyncio.run(store.history())) == 1


async def test_all_is_decided_under_the_lock() -> None:
    """The compare, the set and the fence are one step for other threads."""
    store = make_store()
    held: list[bool] = []

    class Probe(str):
        __slots__ = ()

        def __ne__(self, other: object) -> bool:
            held.append(store._lock.locked())
            return str.__ne__(self, other)

        def __hash__(self) -> int:
            held.append(store._lock.locked())
            return str.__hash__(self)

    await store.try_advance(Probe("expand"), "flip", snapshot(Probe("a")))
    await store.resolve(Probe("b"))
    assert len(held) >= 5
    assert all(held)


async def test_resolve_tells_what_became_of_an_attempt() -> None:
    """A committed attempt is answered with the time of its commit, as often as it is asked."""
    store = make_store()
    await store.try_advance("expand", "flip", snapshot("a"))
    at = store.clock.now()
    assert await store.resolve("a") == Committed(at)
    assert await store.resolve("a") == Committed(at)


async def test_resolve_is_a_fence() -> None:
    """An attempt that was resolved as not committed can never commit; others can."""
    store = make_store()
    assert await store.resolve("late") is None
    with pytest.raises(AttemptFencedError) as caught:
        await store.try_advance("expand", "flip", snapshot("late"))
    assert caught.value.attempt == "late"
    assert await store.current() == "expand"
    assert await store.history() == ()
    assert type(await store.try_advance("expand", "flip", snapshot("a"))) is Ok


async def test_a_lost_attempt_leaves_nothing() -> None:
    """A conflict is no transition, and `resolve` says so."""
    store = make_store("flip")
    assert await store.try_advance("expand", "flip", snapshot("a")) == err(Conflict("flip"))
    assert await store.resolve("a") is None
    assert await store.history() == ()


async def test_it_answers_with_an_exact_str() -> None:
    """An enum given as the initial phase is kept as its value, whatever its `str()` is."""
    current = await make_store(Phase.EXPAND).current()
    assert (type(current), current) == (str, "expand")


def test_it_is_of_one_process() -> None:
    """Its scope says that no other process sees it."""
    assert make_store().scope == "process"
