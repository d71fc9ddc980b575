"""Writing to both sides."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import attrs
from typing_extensions import ParamSpec

from phyxius.clock import uninterrupted
from phyxius.fp import Err, Ok
from phyxius.handler._event import HandlerError, represented
from phyxius.handler._parity import Comparator, Comparison, Parity
from phyxius.handler._recording import Recording, is_generator
from phyxius.handler._sides import Attempt, Outcome, check_sides, in_time, is_async, run_within
from phyxius.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")
_logger = logging.getLogger("phyxius.handler")
_REFUSED = Comparison(
    Parity.ERRORED, "what the authoritative side answered is no sign that it has written, and it may have all the same"
)


@attrs.define(eq=False, slots=False)
class SecondaryWriteError(Exception):
    """The authoritative side has written, and the secondary side has not, or differently, or too late.

    What the secondary side raised is its `__cause__`.

    Attributes:
        name: The name that the writes are recorded under.
        why: What the secondary side did instead.
    """

    name: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.name}: the authoritative side has written, but {self.why}, so the two may differ now; "
            "roll back what they share, or write it again"
        )


def dual_write(
    journal: Journal[Any],
    name: str,
    *,
    authoritative: Callable[P, R],
    secondary: Callable[P, object],
    on_failure: Literal["raise", "carry_on"] = "raise",
    compare: Callable[[Any, Any], bool] | None = None,
    rejections: tuple[type[Exception], ...] = (),
    timeout: timedelta = timedelta(seconds=5),
) -> Callable[P, R]:
    """Write to the authoritative side, then to the secondary one, and record whether both did.

    The caller gets what the authoritative side answers or raises. Where that raises, or answers with an `Err`, the
    secondary side is not called, and the call counts as failed; a secondary side that answers with one has failed too.
    Each call becomes one event of `name`, whose `observed["parity"]` is a `Parity`. It takes over what the recordings
    around it observe, and `observe()` inside either side adds to it. The evidence that reads these events is
    `write_parity`.

    Once the authoritative side has written, a cancellation waits until the secondary side has ended. An async secondary
    side runs in a task of its own for that. If `name` is recorded durably, not even a killed process can hide that the
    second write is missing.

    Args:
        journal: Where the calls go.
        name: The name of their events, declared at once.
        authoritative: The side that decides, async or plain. If it is plain, so is the returned function, and both
            sides run in the thread that calls it.
        secondary: The other side, called with the same arguments. It may be async only if `authoritative` is; a plain
            one beside an async one runs in a thread.
        on_failure: What becomes of a call whose secondary side raised, was late, or does not compare: it raises
            `SecondaryWriteError`, so that a transaction around both rolls back, or it carries on, and logs the error.
        compare: Whether what the two sides answered agrees, such as the rows that they wrote. Without it it is enough
            that both answered. One that raises or does not answer exactly True or False is a failure.
        rejections: What the authoritative side raises when it has written nothing, such as an error of validation. Any
            other exception may come after the write, as a lost connection does, and counts as a failed call.
        timeout: How long the secondary side may take. An async one is cancelled then; a plain one is late afterwards.

    Returns:
        A function with the signature of `authoritative`.

    Raises:
        ValueError: `timeout` is not positive, or `on_failure` is neither of the two.
        TypeError: `secondary` is async and `authoritative` is not, a side is a generator, `compare` is async, or
            `rejections` are no classes of exceptions.
    """
    sides = ("authoritative", "secondary")
    check_sides(authoritative, secondary, names=sides, comparators=(compare,), timeout=timeout)
    if on_failure not in ("raise", "carry_on"):
        raise ValueError(f'on_failure must be "raise" or "carry_on", not {on_failure!r}')
    if not isinstance(rejections, tuple) or not all(_is_exception(each) for each in rejections):
        raise TypeError(f"rejections must be a tuple of classes of exceptions, not {rejections!r}")
    if any(map(is_generator, (authoritative, secondary))):
        raise TypeError("a side is a generator, which writes when it is iterated, or never; write it as a function")
    journal.declare(name)
    comparator = Comparator(compare or _both_answered, trial="secondary")
    writes = _Writes(journal, name, secondary, comparator, on_failure, rejections, timeout)
    if is_async(authoritative):
        return cast("Callable[P, R]", _write_async(writes, cast("Callable[P, Any]", authoritative)))
    return _write_plain(writes, authoritative)


@attrs.frozen
class _Writes:
    journal: Journal[Any]
    name: str
    secondary: Callable[..., Any]
    comparator: Comparator
    on_failure: str
    rejections: tuple[type[Exception], ...]
    timeout: timedelta

    @contextmanager
    def begin(self) -> Iterator[_Write]:
        own = {"compared": "writes", "timeout_seconds": self.timeout.total_seconds()}
        attempt = Attempt(self.journal, self.name, own)
        write = _Write(attempt.recording)
        attempt.recording.__enter__()
        try:
            yield write
        finally:
            attempt.recording.leave()
            attempt.end(write.comparison)

    @contextmanager
    def first(self, write: _Write) -> Iterator[None]:
        """Around the authoritative side, and nothing else: what that raises may be a rejection."""
        # That has no limit. A start that is stored says otherwise: elsewhere nobody will hear when the second begins.
        write.recording.pin(timeout_seconds=None)
        write.comparison = Comparison(Parity.ERRORED, "the authoritative side may have written, and nobody knows")
        try:
            yield
        except self.rejections as error:
            why = "the authoritative side wrote nothing"
            write.comparison = Comparison(Parity.NOT_COMPARED, why, HandlerError.of(error, longest=None))
            raise
        except BaseException as error:
            why = "the authoritative side raised, and may have written all the same"
            write.comparison = Comparison(Parity.ERRORED, why, HandlerError.of(error, longest=None))
            raise

    def ends_with(self, write: _Write, answer: object) -> bool:
        """Whether the call ends with what the authoritative side answered; else the secondary side comes next.

        Raises:
            TypeError: That side has not done its work yet.
        """
        write.comparison = _REFUSED
        write.recording.checked(answer)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError("the authoritative side answered with an awaitable; write it as an `async def`")
        if isinstance(answer, Err):
            return True
        write.comparison = Comparison(Parity.ERRORED, "the secondary side did not come to its end")
        write.recording.pin(timeout_seconds=write.recording.elapsed + self.timeout.total_seconds())
        return False

    def settle(self, write: _Write, answer: object, outcome: Outcome) -> None:
        """Judge the call, and raise or log what the secondary side failed in."""
        comparison = write.comparison = self.comparator.judge(Ok(answer), _done(write.recording, outcome))
        if comparison.parity is Parity.MATCHED:
            return
        why = comparison.why or "what the two sides answered does not agree"
        error = SecondaryWriteError(self.name, f"{why} ({comparison.error.type})" if comparison.error else why)
        cause = outcome.error if isinstance(outcome, Err) else None
        if self.on_failure == "raise":
            raise error from cause
        # A traceback would show what the hook of the journal hides.
        _logger.error("%s", error, exc_info=cause if self.journal.redact is None else None)


@attrs.define
class _Write:
    """One call, and how it stands by now."""

    recording: Recording
    comparison: Comparison = Comparison(Parity.NOT_COMPARED, "its start could not be stored, so nothing was written")


class _AnsweredErrError(Exception):
    """A side answered with an `Err`, which is no write."""


def _done(recording: Recording, outcome: Outcome) -> Outcome:
    """What a side answered, unless that is no sign that it has written."""
    if isinstance(outcome, Err):
        return outcome
    try:
        if isinstance(recording.checked(outcome.value), Err):
            raise _AnsweredErrError(f"it answered with {represented(outcome.value)}")
    except (TypeError, _AnsweredErrError) as error:
        return Err(error)
    return outcome


def _write_async(writes: _Writes, authoritative: Callable[P, Any]) -> Callable[P, Any]:
    @functools.wraps(authoritative)
    async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        with writes.begin() as write:
            await write.recording.keep_start_async()
            with writes.first(write):
                answer = await authoritative(*args, **kwargs)
            if writes.ends_with(write, answer):
                return answer

            async def second() -> None:
                side = functools.partial(writes.secondary, *args, **kwargs)
                clock, in_loop = writes.journal.clock, is_async(writes.secondary)
                writes.settle(write, answer, await run_within(clock, writes.timeout, side, is_async=in_loop))

            await uninterrupted(second())
            return answer

    return call


def _write_plain(writes: _Writes, authoritative: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(authoritative)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        clock = writes.journal.clock
        with writes.begin() as write:
            write.recording.keep_start()
            with writes.first(write):
                answer = authoritative(*args, **kwargs)
            if writes.ends_with(write, answer):
                return answer
            began = clock.now()
            outcome: Outcome
            try:
                outcome = Ok(writes.secondary(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - it is raised as a cause, or logged
                outcome = Err(error)
            writes.settle(write, answer, in_time(outcome, writes.timeout, began, clock.now()))
            return answer

    return call


def _both_answered(_first: object, _second: object) -> bool:
    return True


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
