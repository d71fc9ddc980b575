"""A call that is being recorded."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import os
import uuid
import weakref
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from types import AsyncGeneratorType, GeneratorType, MappingProxyType, TracebackType
from typing import Any, TypeVar, cast

from phyxius.handler._correlation import current_correlation_id
from phyxius.handler._event import HandlerError, HandlerEvent, Outcome
from phyxius.handler._in_flight import InFlightCall, ObservedSoFar
from phyxius.handler._redaction import redacted_error, redacted_observed
from phyxius.journal import Journal

R = TypeVar("R")

# What `contextmanager` and `asynccontextmanager` make; the answer itself is foreign, and asked for nothing.
_CONTEXT_MANAGERS = (contextlib._GeneratorContextManager, contextlib._AsyncGeneratorContextManager)
_NOT_BEGUN = (GeneratorType, AsyncGeneratorType, *_CONTEXT_MANAGERS)

_logger = logging.getLogger("phyxius.handler")
_NOTHING: Mapping[str, object] = MappingProxyType({})
_innermost: ContextVar[Recording | None] = ContextVar("phyxius_recording", default=None)


class _Invocations:
    """Names calls, uniquely over all processes, for much less than a random id for each would cost."""

    def __init__(self) -> None:
        self.begin_anew()
        if hasattr(os, "register_at_fork"):  # pragma: no branch - there is no fork elsewhere
            os.register_at_fork(after_in_child=self.begin_anew)

    def begin_anew(self) -> None:
        self._prefix, self._numbers = uuid.uuid4().hex[:16], itertools.count()

    def new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


_invocations = _Invocations()


class Recording:
    """A call that is being recorded.

    Args:
        journal: Where its event goes.
        name: The name of that.
        observed: What is known at its start.
        pinned: What is known at its start, will not change, and is no secret.
        foreseen: What is known while it is in flight alone, and is no secret.

    Attributes:
        name: The name of the event that it will become.
    """

    def __init__(
        self,
        journal: Journal[Any],
        name: str,
        observed: Mapping[str, object] = _NOTHING,
        *,
        pinned: Mapping[str, object] = _NOTHING,
        foreseen: Mapping[str, object] = _NOTHING,
    ) -> None:
        self.name = name
        self._observed: dict[str, object] = dict(observed)
        self._pinned: dict[str, object] = dict(pinned)
        self._journal = journal
        self._started_at = journal.clock.now()
        self._call = InFlightCall(
            name,
            self._started_at,
            observed=ObservedSoFar(redacted_observed(journal.redact, observed, {**pinned, **foreseen})),
            invocation_id=_invocations.new_id(),
            correlation_id=current_correlation_id(),
        )
        self._end = journal.begin(self._call)
        self._outer: Recording | None = None
        self._goes_on = self._ended = False

    @property
    def observed(self) -> dict[str, object]:
        """What is learned while the call runs; fill it as you like."""
        return self._observed

    @observed.setter
    def observed(self, observed: Mapping[str, object]) -> None:
        # What is no mapping fails here: at the end of the call it would cost the event.
        self._observed = dict(observed)

    def pin(self, **fields: object) -> None:
        """Observe what will not change any more, and is no secret: a `where` finds it while the call is in flight."""
        self._pinned |= fields
        self._call.observed.learn(fields)

    def known_around(self) -> tuple[dict[str, object], dict[str, object]]:
        """What is observed, and what is pinned, by this recording and by those around it."""
        chain: dict[int, Recording] = {}
        each: Recording | None = self
        while each is not None and id(each) not in chain:
            chain[id(each)] = each
            each = each._outer
        observed: dict[str, object] = {}
        pinned: dict[str, object] = {}
        for each in reversed(chain.values()):
            observed |= each._observed
            pinned |= each._pinned
        return observed, pinned

    @property
    def elapsed(self) -> float:
        """For how many seconds it has been running."""
        return self._journal.clock.now().ns_since(self._started_at) / 10**9

    def keep_start(self) -> bool:
        """Have the start stored, where its name is recorded durably; what that raises the call raises.

        Returns:
            Whether somebody has stored it.
        """
        kept = False
        for keeper in self._journal.start_keepers:
            if keeper.wants(self._call):
                keeper.keep(self._call)
                kept = True
        return kept

    async def keep_start_async(self) -> bool:
        """The same without blocking the event loop; whether somebody has stored it."""
        kept = False
        for keeper in self._journal.start_keepers:
            if keeper.wants(self._call):
                await keeper.keep_async(self._call)
                kept = True
        return kept

    def __enter__(self) -> Recording:
        """Make it the innermost recording of the current context."""
        outer = _innermost.get()
        while outer is not None and (outer is self or outer._ended):  # a task may outlive the call that began it
            outer = outer._outer
        self._outer = outer
        _innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Append the event, unless the work goes on in an awaitable."""
        self.leave()
        if self._goes_on:
            return
        if error is None:
            self.finish("success")
        else:
            self.finish("failure", HandlerError.of(error, longest=None))

    def abandon(self) -> None:
        """End it without an event: the call was not made."""
        self._ended = True
        self._end()

    def leave(self) -> None:
        """Let the recording around it be the innermost one again."""
        _innermost.set(self._outer)

    def finish(self, outcome: Outcome, error: HandlerError | None = None) -> None:
        """Append the event. A journal that refuses it is logged, and knows that it lost something.

        Whatever breaks this off, such as a signal handler that raises, leaves the call in flight or makes it a loss.
        """
        self._ended = True
        appended = False
        event = HandlerEvent(
            name=self.name,
            outcome=outcome,
            completed_at=self._journal.clock.now(),
            started_at=self._started_at,
            observed=redacted_observed(self._journal.redact, self._observed, self._pinned),
            error=redacted_error(self._journal.redact, error),
            invocation_id=self._call.invocation_id,
            correlation_id=self._call.correlation_id,
        )
        try:
            self._journal.append(event)
            appended = True
        except (Exception, asyncio.CancelledError):
            _logger.exception("the journal refused the event of %r: a loss", self.name)
        finally:
            if not appended:
                self._journal.lose(event)
            self._end()

    def answered(self, answer: R) -> R:
        """The answer of a call; where it is an awaitable, the call ends with that.

        Raises:
            TypeError: As `checked`.
        """
        return cast("R", self._go_on(answer)) if inspect.isawaitable(answer) else self.checked(answer)

    def checked(self, answer: R) -> R:
        """The answer of a call that has ended.

        Raises:
            TypeError: It is a generator, or a context manager made of one: the work has not begun yet, and nobody
                would record it.
        """
        if isinstance(answer, _NOT_BEGUN):
            what = "a context manager" if isinstance(answer, _CONTEXT_MANAGERS) else "a generator"
            raise TypeError(
                f"the call recorded as {self.name!r} answered with {what}, whose work has not begun yet; "
                "write `with recorded(...)` around the work that counts"
            )
        return answer

    def _go_on(self, answer: Awaitable[R]) -> Awaitable[R]:
        """Leave without an event: a plain function answered with an awaitable, and the work is in the awaiting."""
        self._goes_on = True
        if asyncio.isfuture(answer):  # it goes on by itself, and whoever called may want to cancel it
            answer.add_done_callback(self._finish_like)
            return answer

        async def end() -> R:
            self._goes_on = False
            with self:
                return self.checked(await answer)

        awaitable = end()
        weakref.finalize(awaitable, self._never_awaited, answer).atexit = False
        return awaitable

    def _finish_like(self, future: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self.finish("success")
        else:
            self.finish("failure", HandlerError.of(error, longest=None))

    def _never_awaited(self, answer: Awaitable[object]) -> None:
        """End a call whose awaitable was dropped, or cancelled before its first step: it must not stay in flight."""
        if self._goes_on:
            if inspect.iscoroutine(answer):
                answer.close()
            self.finish("failure", HandlerError("RuntimeError", "what it answered with was never awaited"))


def is_generator(function: object) -> bool:
    """Whether a call of it does nothing yet."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def current_recording() -> Recording | None:
    """The innermost recording of this context."""
    return _innermost.get()


def observe(**fields: object) -> None:
    """Add to what the innermost recording of this context observes; outside of one it does nothing.

    So a function deep in a call can note what the event should tell, and still runs where nothing is recorded.
    """
    recording = _innermost.get()
    if recording is not None:
        recording.observed.update(fields)
