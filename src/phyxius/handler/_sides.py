"""Two sides of one call, of which one is on trial."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from phyxius.clock import Clock, Instant, Limited, gather_within, run_in_thread
from phyxius.fp import Err, Ok, Result
from phyxius.handler._parity import Comparison, LateError, Parity
from phyxius.handler._recording import Recording, current_recording
from phyxius.journal import Journal

Outcome: TypeAlias = Result[object, BaseException]

_OF_AN_ATTEMPT = ("compared", "parity", "why", "sample", "timeout_seconds")


class Attempt:
    """One call of both sides, which becomes an event; it takes over what the recordings around it observe.

    Args:
        journal: Where the event goes.
        name: The name of the event.
        own: What it observes itself; neither a side nor a hook can change that.
    """

    def __init__(self, journal: Journal[Any], name: str, own: Mapping[str, object]) -> None:
        self._enclosing = current_recording()
        self._own = own
        observed, pinned = self._around()
        self.recording = Recording(journal, name, observed, pinned={**pinned, **own})
        self.recording.observed = {}  # what it took over may be more by its end

    def end(self, comparison: Comparison) -> None:
        """Append the event, which tells how the sides compare."""
        observed, pinned = self._around()
        self.recording.observed = {**observed, **self.recording.observed}
        why = {} if comparison.why is None else {"why": comparison.why}
        self.recording.pin(**{**pinned, **self._own, "parity": comparison.parity.value, **why})
        fine = comparison.parity in (Parity.MATCHED, Parity.IGNORED)
        self.recording.finish("success" if fine else "failure", comparison.error)

    def _around(self) -> tuple[dict[str, object], dict[str, object]]:
        """What is taken over; what an attempt says of itself is not, be it of one that this one began in."""
        if self._enclosing is None:
            return {}, {}
        observed, pinned = self._enclosing.known_around()
        for field in _OF_AN_ATTEMPT:
            observed.pop(field, None)
            pinned.pop(field, None)
        return observed, pinned


async def run_within(clock: Clock, limit: timedelta, side: Callable[[], Any], *, is_async: bool) -> Outcome:
    """Run a side, a plain one in a thread, and tell how it ended; what takes longer than the limit was late."""

    async def run() -> object:
        try:
            return await (side() if is_async else run_in_thread(side))
        except SystemExit as error:  # it would take the event loop, and so the caller, with it
            raise RuntimeError(f"this side called sys.exit({error.code!r})") from error

    began = clock.now()
    settled = (await gather_within(clock, {"side": Limited(run, limit)}))["side"]
    return in_time(settled.result, limit, began, settled.at)


def in_time(outcome: Outcome, limit: timedelta, began: Instant, ended: Instant) -> Outcome:
    """The outcome, unless it came at or after the limit."""
    if ended.ns_since(began.shifted(limit)) < 0:
        return outcome
    return Err(LateError(f"no answer within {limit}"))


def answered(answer: Ok[Any] | None) -> Outcome:
    """What a side answered, or the exception that is being handled."""
    if answer is not None:
        return answer
    error = sys.exception()
    assert error is not None
    return Err(error)


def check_sides(
    deciding: Callable[..., object],
    trial: Callable[..., object],
    *,
    names: tuple[str, str],
    comparators: Iterable[Callable[..., object] | None],
    timeout: timedelta,
) -> None:
    """Refuse two sides that cannot be run together.

    Raises:
        ValueError: The limit is not positive.
        TypeError: The side on trial is async and the other one is not, or a comparator is async.
    """
    if timeout <= timedelta(0):
        raise ValueError(f"timeout must be positive, not {timeout!r}")
    for comparator in comparators:
        if comparator is not None and is_async(comparator):
            raise TypeError(f"a comparator is a plain function; {comparator!r} is async")
    if is_async(trial) and not is_async(deciding):
        raise TypeError(f"the {names[0]} side is plain and the {names[1]} one async: a plain caller cannot wait for it")


def is_async(function: Callable[..., object]) -> bool:
    """Whether a call of it has to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )
