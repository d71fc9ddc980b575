"""Running a new path beside the old one."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from datetime import timedelta
from typing import Any, TypeVar, cast

import attrs
from typing_extensions import ParamSpec

from phyxius.fp import Err, Ok
from phyxius.handler._parity import Comparator, Comparison, Parity, comparison_failed
from phyxius.handler._sides import Attempt, Outcome, answered, check_sides, in_time, is_async, run_within
from phyxius.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")

# The event loop holds tasks weakly.
_comparisons: set[asyncio.Task[Comparison]] = set()


def shadow(
    journal: Journal[Any],
    name: str,
    *,
    old: Callable[P, R],
    new: Callable[P, object],
    compare: Callable[[Any, Any], bool] | None = None,
    ignore: Callable[[Any, Any], bool] | None = None,
    sample: float = 1.0,
    timeout: timedelta = timedelta(seconds=5),
) -> Callable[P, R]:
    """Run the new path beside the old one, answer as the old one does, and record how they compare.

    The caller gets the old side's result or exception as soon as it is there; failure, slowness and
    cancellation of the new side never reach it. Each attempt becomes one event of `name`, whose
    `observed["parity"]` is a `Parity` and `observed["sample"]` the rate of sampling. It takes over what the
    enclosing recording observed (a tenant, say), and `observe()` inside the new side adds to it. The evidence
    that reads these events is `shadow_parity`.

    Both sides are called with the same arguments and must not change them; nor may the caller change the
    answer before the comparison is done. The technique is that of GitHub's Scientist.

    Args:
        journal: Where the attempts go.
        name: The name of their events, declared at once.
        old: The side that answers, async or plain. If it is plain, so is the returned function.
        new: The side on trial; a plain one runs in a thread. It may be async only if `old` is.
        compare: Whether two answers agree, `==` unless given. One that raises or does not answer exactly True
            or False makes the attempt an errored one.
        ignore: Whether a disagreement is a known one; asked only where the answers disagree.
        sample: The share of calls that are compared, from 0 to 1; the others run the old side alone.
        timeout: How long the new side may take; a late answer counts as errored.

    Returns:
        A function with the signature of `old`.

    Raises:
        ValueError: `sample` is not between 0 and 1, or `timeout` is not positive.
        TypeError: `new` is async and `old` is not, or a comparator is async.
    """
    if not 0 <= sample <= 1:  # NaN is refused too
        raise ValueError(f"sample must lie between 0 and 1, not {sample!r}")
    check_sides(old, new, names=("old", "new"), comparators=(compare, ignore), timeout=timeout)
    journal.declare(name)
    trial = _Trial(journal, name, new, Comparator(compare, ignore), float(sample), timeout)
    if is_async(old):
        return cast("Callable[P, R]", _shadow_async(trial, cast("Callable[P, Coroutine[Any, Any, object]]", old)))
    return _shadow_plain(trial, old)


@attrs.frozen
class _Trial:
    journal: Journal[Any]
    name: str
    new: Callable[..., Any]
    comparator: Comparator
    sample: float
    timeout: timedelta

    def is_sampled(self) -> bool:
        return self.sample >= 1.0 or random.random() < self.sample  # noqa: S311 - no secret

    def begin(self) -> Attempt:
        own = {"compared": "reads", "sample": self.sample, "timeout_seconds": self.timeout.total_seconds()}
        return Attempt(self.journal, self.name, own)


def _shadow_async(trial: _Trial, old: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(old)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not trial.is_sampled():
            return await old(*args, **kwargs)
        attempt = trial.begin()
        old_ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run_new = functools.partial(trial.new, *args, **kwargs)
        task = asyncio.get_running_loop().create_task(_compare(trial, attempt, run_new, old_ended))
        _comparisons.add(task)

        def done(task: asyncio.Task[Comparison]) -> None:
            _comparisons.discard(task)
            attempt.end(_verdict(task))

        task.add_done_callback(done)
        answer: Ok[R] | None = None
        try:
            answer = Ok(await old(*args, **kwargs))
            return answer.value
        finally:
            if not old_ended.done():
                old_ended.set_result(answered(answer))

    return call


async def _compare(
    trial: _Trial, attempt: Attempt, run_new: Callable[[], Any], old_ended: asyncio.Future[Outcome]
) -> Comparison:
    attempt.recording.__enter__()  # in this task's own context
    clock = trial.journal.clock
    new = await run_within(clock, trial.timeout, run_new, is_async=is_async(trial.new))
    return trial.comparator.judge(await old_ended, new)


def _verdict(task: asyncio.Task[Comparison]) -> Comparison:
    if task.cancelled():
        return Comparison(Parity.NOT_COMPARED, "the comparison was cancelled")
    error = task.exception()
    return task.result() if error is None else comparison_failed(error)


def _shadow_plain(trial: _Trial, old: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(old)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not trial.is_sampled():
            return old(*args, **kwargs)
        attempt = trial.begin()
        began, old_outcome, old_ended = trial.journal.clock.now(), list[Outcome](), threading.Event()

        def compare() -> None:
            new_outcome = _run_plain(attempt, functools.partial(trial.new, *args, **kwargs))
            new_outcome = in_time(new_outcome, trial.timeout, began, trial.journal.clock.now())
            old_ended.wait()
            attempt.end(trial.comparator.judge(old_outcome[0], new_outcome))

        try:
            threading.Thread(target=copy_context().run, args=(compare,), name=trial.name, daemon=True).start()
        except RuntimeError:  # no thread can be had
            attempt.end(Comparison(Parity.NOT_COMPARED, "no thread could be started"))
            return old(*args, **kwargs)
        answer: Ok[R] | None = None
        try:
            answer = Ok(old(*args, **kwargs))
            return answer.value
        finally:
            old_outcome.append(answered(answer))
            old_ended.set()

    return call


def _run_plain(attempt: Attempt, run_new: Callable[[], object]) -> Outcome:
    attempt.recording.__enter__()  # in this thread's own context
    try:
        return Ok(run_new())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not reach anyone but the record
        return Err(error)
