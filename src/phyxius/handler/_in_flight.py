"""Calls that have begun and not ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import attrs

from phyxius.clock import Instant
from phyxius.handler._in_part import PartlyKnown, known_of


@attrs.define(eq=False, slots=False)
class NotYetObservedError(Exception):
    """A call in flight was asked for what only its end will tell.

    It is no LookupError, so that an `except KeyError` in a `where` does not take "not yet" for "not".
    """

    what: str

    def __str__(self) -> str:
        return f"the call is in flight: {self.what} is not known yet"


class ObservedSoFar(PartlyKnown):
    """What was observed at the start of a call. Whatever else is asked of it raises: it may yet come."""

    def learn(self, fields: Mapping[str, object]) -> None:
        """Add what is known by now; other threads may be reading."""
        self._observed = {**self._observed, **known_of(fields)}

    def __eq__(self, other: object) -> bool:
        self._incomplete()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ObservedSoFar({self._observed!r})"

    def _check(self, key: object) -> None:
        if key not in self._observed:
            raise NotYetObservedError(f"observed[{key!r}]")

    def _incomplete(self) -> NoReturn:
        raise NotYetObservedError("all that it observes")


def _so_far(observed: Mapping[str, object]) -> ObservedSoFar:
    return observed if isinstance(observed, ObservedSoFar) else ObservedSoFar(observed)


@attrs.frozen(eq=False)
class InFlightCall:
    """A call in flight, in the shape of the `HandlerEvent` that it will become.

    What only its end will tell raises `NotYetObservedError`, also through `observed.get` and `in`.

    Attributes:
        name: What runs.
        started_at: Since when.
        source: What kind of code runs.
        observed: What was observed at its start.
        invocation_id: Names this call.
        correlation_id: Names what the call belongs to.
        recorder: The process that it runs in, as a shared journal knows it; None if it is this one.
    """

    name: str
    started_at: Instant
    source: str = "handler"
    observed: ObservedSoFar = attrs.field(factory=lambda: ObservedSoFar({}), converter=_so_far)
    invocation_id: str | None = None
    correlation_id: str | None = None
    recorder: str | None = attrs.field(default=None, kw_only=True)

    @property
    def outcome(self) -> NoReturn:
        """Not known yet."""
        raise NotYetObservedError("its outcome")

    @property
    def completed_at(self) -> NoReturn:
        """Not known yet."""
        raise NotYetObservedError("its completion")

    @property
    def duration(self) -> NoReturn:
        """Not known yet."""
        raise NotYetObservedError("its duration")

    @property
    def attempts(self) -> NoReturn:
        """Not known yet."""
        raise NotYetObservedError("how many attempts it takes")

    @property
    def error(self) -> NoReturn:
        """Not known yet."""
        raise NotYetObservedError("its error")
