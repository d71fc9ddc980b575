"""Running a new path beside the old one."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from datetime import timedelta
from typing import Any, TypeVar, cast

import attrs
from typing_extensions import ParamSpec

from phyxius.clock import Instant, Limited, gather_within, run_in_thread
from phyxius.fp import Err, Ok, Result
from phyxius.handler._parity import Comparator, Comparison, LateError, Parity, comparison_failed
from phyxius.handler._recorded import Recording, current_recording
from phyxius.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")
Outcome = Result[object, BaseException]


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
    if timeout <= timedelta(0):
        raise ValueError(f"timeout must be positive, not {timeout!r}")
    for comparator in (compare, ignore):
        if comparator is not None and _is_async(comparator):
            raise TypeError(f"a comparator is a plain function; {comparator!r} is async")
    if _is_async(new) and not _is_async(old):
        raise TypeError("the old side is plain and the new one async: a plain caller cannot wait for it")
    journal.declare(name)
    trial = _Trial(journal, name, new, Comparator(compare, ignore), float(sample), timeout)
    if _is_async(old):
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

    def begin(self, enclosing: Recording | None) -> Recording:
        own = {"sample": self.sample, "timeout_seconds": self.timeout.total_seconds()}
        attempt = Recording(self.journal, self.name, {**_observed(enclosing), **own})
        attempt.observed = own  # the rest is taken over at the end, when it may tell more
        return attempt

    def in_time(self, outcome: Outcome, began: Instant, ended: Instant) -> Outcome:
        if ended.ns_since(began.shifted(self.timeout)) < 0:
            return outcome
        return Err(LateError(f"no answer within {self.timeout}"))

    def end(self, attempt: Recording, enclosing: Recording | None, comparison: Comparison) -> None:
        attempt.observed = {**_observed(enclosing), **attempt.observed}
        attempt.observed["parity"] = comparison.parity.value
        if comparison.why is not None:
            attempt.observed["why"] = comparison.why
        fine = comparison.parity in (Parity.MATCHED, Parity.IGNORED)
        attempt.finish("success" if fine else "failure", comparison.error)


def _shadow_async(trial: _Trial, old: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(old)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not trial.is_sampled():
            return await old(*args, **kwargs)
        enclosing = current_recording()
        attempt = trial.begin(enclosing)
        old_ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run_new = functools.partial(trial.new, *args, **kwargs)
        task = asyncio.get_running_loop().create_task(_compare(trial, attempt, run_new, old_ended))
        _comparisons.add(task)

        def done(task: asyncio.Task[Comparison]) -> None:
            _comparisons.discard(task)
            trial.end(attempt, enclosing, _verdict(task))

        task.add_done_callback(done)
        answer: Ok[R] | None = None
        try:
            answer = Ok(await old(*args, **kwargs))
            return answer.value
        finally:
            if not old_ended.done():
                old_ended.set_result(answer or _raised())

    return call


async def _compare(
    trial: _Trial, attempt: Recording, run_new: Callable[[], Any], old_ended: asyncio.Future[Outcome]
) -> Comparison:
    async def run() -> object:
        attempt.__enter__()  # in this task's own context
        try:
            return await (run_new() if _is_async(trial.new) else run_in_thread(run_new))
        except SystemExit as error:  # it would take the event loop, and so the caller, with it
            raise RuntimeError(f"the new side called sys.exit({error.code!r})") from error

    began = trial.journal.clock.now()
    settled = (await gather_within(trial.journal.clock, {"new": Limited(run, trial.timeout)}))["new"]
    return trial.comparator.judge(await old_ended, trial.in_time(settled.result, began, settled.at))


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
        enclosing = current_recording()
        attempt = trial.begin(enclosing)
        began, old_outcome, old_ended = trial.journal.clock.now(), list[Outcome](), threading.Event()

        def compare() -> None:
            new_outcome = _run_plain(attempt, functools.partial(trial.new, *args, **kwargs))
            new_outcome = trial.in_time(new_outcome, began, trial.journal.clock.now())
            old_ended.wait()
            trial.end(attempt, enclosing, trial.comparator.judge(old_outcome[0], new_outcome))

        try:
            threading.Thread(target=copy_context().run, args=(compare,), name=trial.name, daemon=True).start()
        except RuntimeError:  # no thread can be had
            trial.end(attempt, enclosing, Comparison(Parity.NOT_COMPARED, "no thread could be started"))
            return old(*args, **kwargs)
        answer: Ok[R] | None = None
        try:
            answer = Ok(old(*args, **kwargs))
            return answer.value
        finally:
            old_outcome.append(answer or _raised())
            old_ended.set()

    return call


def _run_plain(attempt: Recording, run_new: Callable[[], object]) -> Outcome:
    attempt.__enter__()  # in this thread's own context
    try:
        return Ok(run_new())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not reach anyone but the record
        return Err(error)


def _observed(enclosing: Recording | None) -> Mapping[str, object]:
    return {} if enclosing is None else enclosing.observed


def _raised() -> Err[BaseException]:
    error = sys.exception()
    assert error is not None
    return Err(error)


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )
