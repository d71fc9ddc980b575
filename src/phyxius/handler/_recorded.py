"""Recording: a call becomes an event."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import logging
import os
import uuid
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar, cast

from typing_extensions import ParamSpec

from phyxius.handler._event import HandlerError, HandlerEvent, Outcome
from phyxius.handler._in_flight import InFlightCall
from phyxius.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")

_logger = logging.getLogger("phyxius.handler")
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

    Attributes:
        name: The name of the event that it will become.
    """

    def __init__(self, journal: Journal[Any], name: str, observed: Mapping[str, object]) -> None:
        self.name = name
        self._observed: dict[str, object] = dict(observed)
        self._journal = journal
        self._started_at = journal.clock.now()
        self._call = InFlightCall(name, self._started_at, observed=observed, invocation_id=_invocations.new_id())
        self._end = journal.begin(self._call)
        self._outer: Recording | None = None
        self._goes_on = False

    @property
    def observed(self) -> dict[str, object]:
        """What is learned while the call runs; fill it as you like."""
        return self._observed

    @observed.setter
    def observed(self, observed: Mapping[str, object]) -> None:
        # What is no mapping fails here: at the end of the call it would cost the event.
        self._observed = dict(observed)

    def keep_start(self) -> None:
        """Have the start stored, where its name is recorded durably; what that raises the call raises."""
        for keeper in self._journal.start_keepers:
            if keeper.wants(self._call):
                keeper.keep(self._call)

    async def keep_start_async(self) -> None:
        """The same without blocking the event loop."""
        for keeper in self._journal.start_keepers:
            if keeper.wants(self._call):
                await keeper.keep_async(self._call)

    def __enter__(self) -> Recording:
        """Make it the innermost recording of the current context."""
        self._outer = _innermost.get()
        _innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Append the event, unless the work goes on in an awaitable."""
        _innermost.set(self._outer)
        if self._goes_on:
            return
        if error is None:
            self.finish("success")
        else:
            self.finish("failure", HandlerError.of(error))

    def finish(self, outcome: Outcome, error: HandlerError | None = None) -> None:
        """Append the event. A journal that refuses it is logged, and knows that it lost something."""
        event = HandlerEvent(
            name=self.name,
            outcome=outcome,
            completed_at=self._journal.clock.now(),
            started_at=self._started_at,
            observed=self.observed,
            error=error,
            invocation_id=self._call.invocation_id,
        )
        try:
            self._journal.append(event)
        except (Exception, asyncio.CancelledError):
            _logger.exception("the journal refused the event of %r: a loss", self.name)
        finally:
            self._end()

    def go_on(self, answer: Awaitable[R]) -> Awaitable[R]:
        """Leave without an event: a plain function answered with an awaitable, and the work is in the awaiting."""
        self._goes_on = True
        if asyncio.isfuture(answer):  # it goes on by itself, and whoever called may want to cancel it
            answer.add_done_callback(self._finish_like)
            return answer

        async def end() -> R:
            self._goes_on = False
            with self:
                return await answer

        awaitable = end()
        weakref.finalize(awaitable, self._never_awaited, answer).atexit = False
        return awaitable

    def _finish_like(self, future: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self.finish("success")
        else:
            self.finish("failure", HandlerError.of(error))

    def _never_awaited(self, answer: Awaitable[object]) -> None:
        """End a call whose awaitable was dropped, or cancelled before its first step: it must not stay in flight."""
        if self._goes_on:
            if inspect.iscoroutine(answer):
                answer.close()
            self.finish("failure", HandlerError("RuntimeError", "what it answered with was never awaited"))


class recorded:  # noqa: N801 - it reads as a decorator
    """Record a call in the journal: a decorator for async and plain functions, and a context manager.

        @recorded(journal, "quote.read")
        async def read_quote(quote_id: str) -> Quote: ...

        with recorded(journal, "sqs.consume", observed={"queue_url": url}) as call:
            call.observed["messages"] = len(await receive(url))

    The name is declared at once. From before its body until after its event is appended the call counts as in
    flight. What it raises, a cancellation included, is recorded as a failure and raised on.

    Args:
        journal: Where the event goes.
        name: The name of the event.
        observed: What is known at the start; a `where` is asked about it while the call is in flight.

    Raises:
        ValueError: The name is empty.
        TypeError: The decorated function is a generator: it has no one end to record.
    """

    def __init__(self, journal: Journal[Any], name: str, observed: Mapping[str, object] | None = None) -> None:
        journal.declare(name)
        self._journal = journal
        self._name = name
        self._observed = dict(observed or {})
        self._entered: Recording | None = None

    def __enter__(self) -> Recording:
        """Begin the recording.

        Raises:
            RuntimeError: This object was entered already; make one per call.
        """
        if self._entered is not None:
            raise RuntimeError(f"this recorded({self._name!r}) was entered already; write one for each call")
        self._entered = self._begin()
        with contextlib.ExitStack() as stack:
            recording = stack.enter_context(self._entered)
            recording.keep_start()
            stack.pop_all()
        return recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the recording."""
        assert self._entered is not None
        self._entered.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Record each call of a function."""
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"recorded({self._name!r}) cannot record the generator {function!r}: it has no one end; "
                "write `with recorded(...)` around the work that counts"
            )

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._begin() as recording:
                    await recording.keep_start_async()
                    return await cast("Awaitable[Any]", function(*args, **kwargs))

            return cast("Callable[P, R]", call_async)

        @functools.wraps(function)
        def call_plain(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._begin() as recording:
                recording.keep_start()
                answer = function(*args, **kwargs)
                return cast("R", recording.go_on(answer)) if inspect.isawaitable(answer) else answer

        return call_plain

    def _begin(self) -> Recording:
        return Recording(self._journal, self._name, self._observed)


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
