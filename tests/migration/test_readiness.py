"""What `advance()` would find: the same evaluation, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from phyxius.fp import Ok, err, ok
from phyxius.migration import (
    CheckCancelledError,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    Readiness,
    SpecChangedError,
    UnknownPhaseError,
    WrongShapeError,
    at_least,
    current_attempt,
    journal_window,
    schema_applied,
)
from tests.migration.support import (
    LIMIT,
    PHASES,
    Lab,
    answering,
    build,
    checked,
    forever,
    no_tasks_left,
    quiet,
    raising,
    waiting,
)

SOON, LATER = datetime(2031, 1, 1, tzinfo=UTC), datetime(2032, 1, 1, tzinfo=UTC)


def failing(retry_at: datetime | None = None) -> Any:
    """Evidence that says no, and maybe until when."""
    return schema_applied(lambda: err(EvidenceFailure("no", retry_at=retry_at)))


def broken(error: BaseException) -> Any:
    """Evidence that raises."""

    async def check() -> Any:
        raise error

    return schema_applied(check)


async def readiness(lab: Lab, elapse: timedelta = timedelta(0)) -> Readiness[Any]:
    """Ask, and let time pass."""
    task = asyncio.ensure_future(lab.migration.readiness())
    await lab.clock.elapse(elapse)
    return await task


async def test_ready() -> None:
    """With all sources `Ok` it is ready, and tells what each learned, as JSON values."""
    lab = build({"a": checked((1, 2)), "quiet": quiet()}, first={"first": checked()})
    found = await readiness(lab)
    verdicts = {"a": Ok([1, 2]), "quiet": Ok({"count": 0}), "first": Ok(None)}
    assert attrs.evolve(found, coverage={}) == Readiness("expand", "flip", verdicts, ready=True, ready_at=None)
    assert found.coverage["quiet"].total() == timedelta(0)
    assert found.coverage.keys() == {"quiet"}


async def test_it_moves_nothing_and_leaves_nothing() -> None:
    """It writes no audit event and asks the store for nothing but the phase, each time anew."""
    asked: list[str] = []

    def check() -> Any:
        asked.append(current_attempt().id)
        return ok()

    lab = build({"a": schema_applied(check)})
    for _ in range(3):
        assert (await readiness(lab)).ready
    assert len(set(asked)) == 3
    assert lab.store.operations == ["current"] * 3
    assert len(lab.journal) == 0


async def test_no_advance_relies_on_it() -> None:
    """A source that was `Ok` for `readiness()` is asked again by `advance()`."""
    answers = iter([ok(), err("no longer")])
    lab = build({"a": schema_applied(lambda: next(answers))})
    assert (await readiness(lab)).ready
    assert isinstance((await lab.advance()).error, EvidenceFailed)


@pytest.mark.parametrize(
    "sources, ready_at",
    [
        ([failing(SOON)], SOON),
        ([failing(SOON), failing(LATER), checked()], LATER),
        ([failing(SOON), failing()], None),
        ([failing(SOON), broken(OSError())], None),
        ([failing()], None),
    ],
)
async def test_ready_at(sources: list[Any], ready_at: datetime | None) -> None:
    """It can be ready at the latest time that a blocker names, if every blocker names one."""
    found = await readiness(build({str(number): source for number, source in enumerate(sources)}))
    assert (found.ready, found.ready_at) == (False, ready_at)


async def test_ready_at_of_a_young_journal() -> None:
    """A journal that is too young names when it can vouch; then, and not before, it is ready."""
    lab = build({"quiet": quiet(timedelta(days=40))})
    found = await readiness(lab)
    assert found.ready_at == lab.clock.now().wall + timedelta(days=10)
    lab.clock.advance_by(timedelta(days=10) - timedelta(microseconds=1))
    assert not (await readiness(lab)).ready
    lab.clock.advance_by(timedelta(microseconds=1))
    assert (await readiness(lab)).ready
    assert isinstance(await lab.advance(), Ok)


async def test_the_coverage_of_a_young_journal() -> None:
    """What the journal can vouch for is told beside the verdict, whatever that is."""
    lab = build({"quiet": quiet(timedelta(days=40)), "seen": journal_window("seen", timedelta(days=7), at_least(3))})
    found = await readiness(lab)
    young, seen = found.coverage["quiet"], found.coverage["seen"]
    assert (young.window, young.total()) == (timedelta(days=40), timedelta(days=10))
    assert young.until == lab.clock.now().wall
    assert [(gap.since, gap.until) for gap in young.gaps] == [
        (young.until - timedelta(days=40), young.until - timedelta(days=30))
    ]
    assert (seen.total(), type(found.verdicts["seen"])) == (timedelta(0), EvidenceFailure)


async def test_verdicts_agree_with_the_refusal() -> None:
    """The verdicts are those of `advance()`: failures, errors, time-outs and wrong shapes."""
    sources = {
        "no": failing(),
        "raises": broken(OSError("gone")),
        "cancels": broken(asyncio.CancelledError()),
        "hangs": schema_applied(forever),
        "wrong": schema_applied(lambda: True),
        "ok": checked(1),
    }
    lab = build(sources)
    found = await readiness(lab, LIMIT)
    assert {name: type(verdict) for name, verdict in found.verdicts.items()} == {
        "no": EvidenceFailure,
        "raises": OSError,
        "cancels": CheckCancelledError,
        "hangs": TimeoutError,
        "wrong": WrongShapeError,
        "ok": Ok,
    }
    assert list(found.verdicts) == list(sources)
    refusal = (await lab.advance(LIMIT)).error
    assert isinstance(refusal, EvidenceErrored)
    assert set(refusal.errors) | set(refusal.failures) == set(sources) - {"ok"}
    assert {name: type(error) for name, error in refusal.errors.items()} == {
        name: type(verdict) for name, verdict in found.verdicts.items() if isinstance(verdict, Exception)
    }
    assert await no_tasks_left()


async def test_at_the_final_phase() -> None:
    """At the final phase there is nothing to be ready for."""
    lab = build()
    lab.store.inner._phase = "contract"
    assert await readiness(lab) == Readiness("contract", None, {}, ready=False, ready_at=None)


@pytest.mark.parametrize(
    "error, make",
    [
        (UnknownPhaseError, lambda: answering("drop")),
        (WrongShapeError, lambda: answering(None)),
        (OSError, lambda: raising(OSError("gone"))),
        (SpecChangedError, lambda: raising(SpecChangedError(("a",), PHASES))),
        (TimeoutError, lambda: waiting(forever)),
    ],
)
async def test_a_store_that_fails(error: type[Exception], make: Callable[[], Any]) -> None:
    """An unknown phase, and whatever goes wrong in the store, is raised; nothing is asked."""
    lab = build({"a": schema_applied(lambda: pytest.fail("asked"))}, store={"current": make()})
    with pytest.raises(error):
        await readiness(lab, LIMIT)


async def test_it_can_be_cancelled() -> None:
    """It is an ordinary await; cancelled, it stops its checks and leaves no trace."""
    lab = build({"hangs": schema_applied(forever)})
    task = asyncio.ensure_future(lab.migration.readiness())
    await lab.clock.elapse(LIMIT / 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await no_tasks_left()
    assert lab.audits == []
