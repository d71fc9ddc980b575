"""How evidence is said to be there, or missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import TypeAlias, TypeVar

import attrs

from phyxius.fp import Err, Ok
from phyxius.migration._window import JournalWindow

T = TypeVar("T")


def _copy(details: Mapping[str, object]) -> Mapping[str, object]:
    return dict(details)


@attrs.frozen
class EvidenceFailure:
    """Why a source is not `Ok`: no fault, but a condition that does not hold (yet).

    Attributes:
        reason: One line that names the blocker and, where it can, the remedy.
        details: What was observed; it goes into the audit.
        retry_at: The earliest time at which it can pass, an aware datetime, where that is known.

    Raises:
        TypeError: `reason` is no text, or `retry_at` no datetime.
        ValueError: `retry_at` has no time zone.
    """

    reason: str
    details: Mapping[str, object] = attrs.field(factory=dict, converter=_copy)
    retry_at: datetime | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what no one could read, and a naive time, which could not be compared with others."""
        if not issubclass(type(self.reason), str):
            raise TypeError(f"the reason of a failure must be a text, not {type(self.reason).__name__}")
        object.__setattr__(self, "reason", str.__str__(self.reason))
        if self.retry_at is None:
            return
        if not issubclass(type(self.retry_at), datetime):
            raise TypeError(f"retry_at must be a datetime, not {type(self.retry_at).__name__}")
        if self.retry_at.utcoffset() is None:
            raise ValueError(f"retry_at {self.retry_at!r} has no time zone; write datetime(..., tzinfo=UTC)")


def ready_at(blockers: Iterable[object]) -> datetime | None:
    """The earliest time at which all that blocks can pass, where every blocker knows its own."""
    times = [blocker.retry_at if isinstance(blocker, EvidenceFailure) else None for blocker in blockers]
    known = [time for time in times if time is not None]
    return max(known) if known and len(known) == len(times) else None


Evidence: TypeAlias = Ok[T] | Err[EvidenceFailure | str]
"""What a check or a predicate answers; `err("text")` is short for an `EvidenceFailure` with that reason."""

Check: TypeAlias = Callable[[], Evidence[T] | Awaitable[Evidence[T]]]
"""An `async def`, or a plain function, that takes nothing and answers with `Evidence`."""

Predicate: TypeAlias = Callable[[JournalWindow], Evidence[T]]
"""A plain function that makes its claim about a window."""


@attrs.define(eq=False, slots=False)
class EvidenceWithdrawnError(Exception):
    """Evidence that a store can check for itself stopped holding before the commit, so it has committed nothing.

    Attributes:
        failures: The sources that do not hold any more, and why.
    """

    failures: Mapping[str, EvidenceFailure]

    def __str__(self) -> str:
        return "; ".join(f"{source}: {failure.reason}" for source, failure in self.failures.items())
