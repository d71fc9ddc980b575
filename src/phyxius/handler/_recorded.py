"""Recording: a call becomes an event."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, TracebackType
from typing import Any, TypeVar, cast, overload

from typing_extensions import ParamSpec

from phyxius.handler._recording import Recording, is_generator
from phyxius.journal import Journal

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type[Any])

_METHODS = (FunctionType, staticmethod, classmethod)


class recorded:  # noqa: N801 - it reads as a decorator
    """Record a call in the journal: a decorator for async and plain functions, and a context manager.

        @recorded(journal, "quote.read")
        async def read_quote(quote_id: str) -> Quote: ...

        with recorded(journal, "sqs.consume", observed={"queue_url": url}) as call:
            call.observed["messages"] = len(await receive(url))

    The name is declared when a function is decorated, or the block entered; from before the body until after its event
    is appended the call counts as in flight. What it raises, a cancellation included, is recorded as a failure and
    raised on. Methods are functions, beside `staticmethod` and `classmethod` on either side. Of a class each public
    method that it has itself is recorded by its own name, as "quotes.read", and `__call__` under the name alone.

    Args:
        journal: Where the event goes.
        name: The name of the event.
        observed: What is known at the start; a `where` is asked about it while the call is in flight.

    Raises:
        ValueError: The name is empty.
        TypeError: What is decorated is a generator, which has no one end to record, or cannot be called; or it is a
            class without a method to record, or with an abstract one, since methods that override are not recorded. A
            function that answers with a generator, or a context manager made of one, raises it when it is called.
    """

    def __init__(self, journal: Journal[Any], name: str, observed: Mapping[str, object] | None = None) -> None:
        _check_name(name)
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
        self._journal.declare(self._name)
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

    @overload
    def __call__(self, function: C) -> C: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Record each call of a function, or of the methods of a class."""
        if isinstance(function, type):
            return self._record_methods(function)
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[..., Any]", type(function)(self(function.__func__)))
        _check_recordable(self._name, function)
        self._journal.declare(self._name)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with self._begin() as recording:
                    await recording.keep_start_async()
                    return recording.checked(await function(*args, **kwargs))

            return call_async

        @functools.wraps(function)
        def call_plain(*args: Any, **kwargs: Any) -> Any:
            with self._begin() as recording:
                recording.keep_start()
                return recording.answered(function(*args, **kwargs))

        return call_plain

    def _record_methods(self, kind: C) -> C:
        methods = {
            attribute: method
            for attribute, method in vars(kind).items()
            if isinstance(method, _METHODS) and (attribute == "__call__" or not attribute.startswith("_"))
        }
        if not methods:
            raise TypeError(f"recorded({self._name!r}) finds no public method that {kind!r} has itself")
        for attribute, each in methods.items():
            _check_recordable(f"{self._name}.{attribute}", getattr(each, "__func__", each))
            if getattr(kind, "_is_protocol", False) or getattr(each, "__isabstractmethod__", False):
                raise TypeError(
                    f"recorded({self._name!r}) cannot record {kind!r}: what implements it has methods of its own, "
                    "which nobody would record; decorate the classes that implement it"
                )
        recorders = {
            attribute: recorded(
                self._journal, self._name if attribute == "__call__" else f"{self._name}.{attribute}", self._observed
            )(cast("Callable[..., Any]", method))
            for attribute, method in methods.items()
        }
        for attribute, method in recorders.items():
            setattr(kind, attribute, method)
        return kind

    def _begin(self) -> Recording:
        return Recording(self._journal, self._name, self._observed)


def _check_name(name: object) -> None:
    """Refuse what names no event.

    Raises:
        ValueError: It is empty, or no text.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of an event must be a text that is not empty, not {name!r}")


def _check_recordable(name: str, function: object) -> None:
    """Refuse what cannot be recorded as one call.

    Raises:
        TypeError: It is a generator, or cannot be called.
    """
    if not callable(function):
        raise TypeError(
            f"recorded({name!r}) needs what can be called, not {function!r}; of a property decorate the getter"
        )
    if is_generator(function):
        raise TypeError(
            f"recorded({name!r}) cannot record the generator {function!r}: it has no one end; "
            "write `with recorded(...)` around the work that counts"
        )
