"""What a query asks of a journal, and the slice of the journal that answers it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, cast, overload

import attrs

from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.migration._errors import SpecError


def _aware(_: object, attribute: attrs.Attribute[datetime], moment: datetime) -> None:
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError(f"{attribute.name} must be an aware datetime, not {moment!r}")


@attrs.frozen
class Gap:
    """A stretch of time for which a journal cannot prove that nothing is missing.

    Attributes:
        since: Its begin, an aware datetime.
        until: Its end, an aware datetime.
        reason: Why, as an operator would say it.
        recorder: Who failed to record, where that is known.

    Raises:
        ValueError: A naive datetime, or an end before the begin.
    """

    since: datetime = attrs.field(validator=_aware)
    until: datetime = attrs.field(validator=_aware)
    reason: str
    recorder: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a gap that runs backwards."""
        if self.until < self.since:
            raise ValueError(f"a gap cannot end ({self.until}) before it begins ({self.since})")


@attrs.frozen
class JournalQuery:
    """Which events a window holds.

    Attributes:
        name: Only events of this name; None for all names, the library's own audit events excepted.
        outcome: Only `"success"` or only `"failure"`. Mind that a failed legacy call is a legacy call.
        where: Only events for which it answers true. It is asked about calls in flight too, for what is known
            at their start.
        limit: The newest so many; a window that this cut off is not complete.

    Raises:
        SpecError: A value that no query can serve.
    """

    name: str | None = None
    outcome: Literal["success", "failure"] | None = None
    where: Callable[[HandlerEvent], object] | None = None
    limit: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a query that could only answer by mistake."""
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise SpecError(f"a query's name must be a text that is not empty, not {self.name!r}")
        if self.outcome not in (None, "success", "failure"):
            raise SpecError(f'a query\'s outcome is "success", "failure" or None, not {self.outcome!r}')
        if self.where is not None and (not callable(self.where) or inspect.iscoroutinefunction(self.where)):
            raise SpecError(f"a query's where must be a plain function of one event, not {self.where!r}")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise SpecError(f"a query's limit must be a whole number from 1, not {self.limit!r}")

    def matches_call(self, call: InFlightCall) -> bool:
        """Whether a call in flight may become an event of this query; what cannot be known yet counts as yes."""
        if self.name is not None and call.name != self.name:
            return False
        if self.name is None and call.source == "migration":
            return False
        if self.where is None:
            return True
        try:
            return bool(self.where(cast("HandlerEvent", call)))
        except Exception:  # noqa: BLE001 - a foreign function that cannot say no has not said no
            return True


@attrs.frozen(eq=False)
class JournalWindow(Sequence[HandlerEvent]):
    """The events that one query found, oldest first, and what the journal knows about their completeness.

    Attributes:
        events: The events.
        since: Begin of the window, an aware datetime. What completed at it is in the window.
        until: End of the window, an aware datetime. Events stamped later are in it too.
        gaps: The stretches of time for which something may be missing.
        truncated: Whether the query's `limit` cut events off.
        witnessed: Whether every recorder that lived in the window declares the query's name.
        in_flight: The calls that may yet become events of this query.

    Raises:
        ValueError: A naive datetime.
    """

    events: Sequence[HandlerEvent] = attrs.field(converter=tuple[HandlerEvent, ...])
    since: datetime = attrs.field(kw_only=True, validator=_aware)
    until: datetime = attrs.field(kw_only=True, validator=_aware)
    gaps: Sequence[Gap] = attrs.field(kw_only=True, converter=tuple[Gap, ...])
    truncated: bool = attrs.field(kw_only=True, default=False)
    witnessed: bool = attrs.field(kw_only=True, default=False)
    in_flight: Sequence[InFlightCall] = attrs.field(kw_only=True, default=(), converter=tuple[InFlightCall, ...])

    @overload
    def __getitem__(self, index: int) -> HandlerEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[HandlerEvent]: ...
    def __getitem__(self, index: int | slice) -> HandlerEvent | Sequence[HandlerEvent]:
        """One event, or some."""
        return self.events[index]

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[HandlerEvent]:
        return iter(self.events)

    def __reversed__(self) -> Iterator[HandlerEvent]:
        return reversed(self.events)


@attrs.frozen
class Coverage:
    """The gaps of a window as they count: clipped to what was asked, and a short look back made a gap."""

    window: timedelta
    until: datetime
    gaps: tuple[Gap, ...]

    @classmethod
    def of(cls, window: JournalWindow, asked: timedelta) -> Coverage:
        """What is missing of the `asked` stretch up to the end of the window."""
        begin = window.until - asked
        gaps = list(window.gaps)
        if window.since > begin:
            gaps.append(Gap(begin, window.since, "the journal looked back no further"))
        clipped = (
            attrs.evolve(gap, since=max(gap.since, begin), until=min(gap.until, window.until))
            for gap in gaps
            if gap.until >= begin and gap.since <= window.until
        )
        real = (gap for gap in clipped if gap.since < gap.until)
        return cls(asked, window.until, tuple(sorted(real, key=lambda gap: gap.since)))

    def total(self) -> timedelta:
        """How much is missing; what several gaps cover counts once."""
        return sum((until - since for since, until in self._merged()), timedelta(0))

    def covered_at(self, max_gap: timedelta) -> datetime:
        """When no more than `max_gap` will be left in a window that ends then, if no new gap comes."""
        left = max_gap
        for since, until in reversed(self._merged()):
            if until - since > left:
                return until - left + self.window
            left -= until - since
        return self.until

    def _merged(self) -> list[tuple[datetime, datetime]]:
        merged: list[tuple[datetime, datetime]] = []
        for gap in self.gaps:
            if merged and gap.since <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], gap.until))
            else:
                merged.append((gap.since, gap.until))
        return merged
