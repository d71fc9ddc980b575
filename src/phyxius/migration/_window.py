"""What a query asks of a journal, and the slice of the journal that answers it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, cast, overload

import attrs

from phyxius.clock import Instant
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.migration._errors import SpecError


def _utc(moment: datetime) -> datetime:
    # Within a zone that has summer time, Python subtracts and compares what the clocks on the wall showed.
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError(f"an aware datetime is wanted, not {moment!r}")
    return moment.astimezone(UTC)


def _exact(name: str | None) -> str | None:
    return str.__str__(name) if name is not None and issubclass(type(name), str) else name


@attrs.frozen
class Gap:
    """A stretch of time for which a journal cannot prove that nothing is missing.

    Attributes:
        since: Its begin, an aware datetime; kept in UTC.
        until: Its end, an aware datetime; kept in UTC.
        reason: Why, as an operator would say it.
        recorder: Who failed to record, where that is known.
        may_close: Whether it may close while it is in the window, as when its recorder is only late.

    Raises:
        ValueError: A naive datetime, or an end before the begin.
    """

    since: datetime = attrs.field(converter=_utc)
    until: datetime = attrs.field(converter=_utc)
    reason: str
    recorder: str | None = None
    may_close: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse a gap that runs backwards."""
        if self.until < self.since:
            raise ValueError(f"a gap cannot end ({self.until}) before it begins ({self.since})")


def is_plain_function(function: object) -> bool:
    """Whether it can be called, and is not async: a coroutine would count as true."""
    return callable(function) and not any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


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

    name: str | None = attrs.field(default=None, converter=_exact)
    outcome: Literal["success", "failure"] | None = None
    where: Callable[[HandlerEvent], object] | None = None
    limit: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a query that could only answer by mistake."""
        if self.name is not None and (type(self.name) is not str or not self.name):
            raise SpecError(f"a query's name must be a text that is not empty, not {self.name!r}")
        if self.outcome not in (None, "success", "failure"):
            raise SpecError(f'a query\'s outcome is "success", "failure" or None, not {self.outcome!r}')
        if self.where is not None and not is_plain_function(self.where):
            raise SpecError(f"a query's where must be a plain function of one event, not {self.where!r}")
        if self.limit is not None and (type(self.limit) is not int or self.limit < 1):
            raise SpecError(f"a query's limit must be a whole number from 1, not {self.limit!r}")

    def admits(self, event: HandlerEvent) -> bool:
        """What `where` says of an event.

        Raises:
            TypeError: It answered with an awaitable, which would count as true.
            Exception: Whatever `where` raised.
        """
        answer = self.where is None or self.where(event)
        if answer is True or answer is False:
            return answer
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError("a query's where must be a plain function, and answered with an awaitable")
        return bool(answer)

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
        since: Begin of the window, an aware datetime; kept in UTC. What completed at it is in the window.
        until: End of the window, an aware datetime; kept in UTC. Events stamped later are in it too.
        gaps: The stretches of time for which something may be missing.
        truncated: Whether the query's `limit` cut events off.
        witnessed: Whether every recorder that lived in the window declares the query's name.
        in_flight: The calls that may yet become events of this query.
        unwitnessed_by: The names of recorders of the window that do not declare the query's name.
        recorded_by: How many of the events each recorder recorded, where that is known.
        asked_at: When the store was asked, an aware datetime, by the clock that stamps its events; None if that is the
            clock of the migration. A window that ends before then has a gap at its end.

    Raises:
        ValueError: A naive datetime.
    """

    events: Sequence[HandlerEvent] = attrs.field(converter=tuple[HandlerEvent, ...])
    since: datetime = attrs.field(kw_only=True, converter=_utc)
    until: datetime = attrs.field(kw_only=True, converter=_utc)
    gaps: Sequence[Gap] = attrs.field(kw_only=True, converter=tuple[Gap, ...])
    truncated: bool = attrs.field(kw_only=True, default=False)
    witnessed: bool = attrs.field(kw_only=True, default=False)
    in_flight: Sequence[InFlightCall] = attrs.field(kw_only=True, default=(), converter=tuple[InFlightCall, ...])
    unwitnessed_by: Sequence[str] = attrs.field(kw_only=True, default=(), converter=tuple[str, ...])
    recorded_by: Mapping[str, int] = attrs.field(kw_only=True, factory=dict)
    asked_at: datetime | None = attrs.field(kw_only=True, default=None, converter=attrs.converters.optional(_utc))

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

    def up_to_now(self, asked: Instant, answered: Instant) -> JournalWindow:
        """The window with the end that it should have, whatever the store says: when it was asked, or while it was.

        One that ended earlier has a gap from there, and one that would end later begins too late for that.
        """
        earliest, latest = asked.wall, answered.wall_rounded_up
        if self.asked_at is not None:
            earliest = self.asked_at
            latest = earliest + timedelta(microseconds=1 + answered.ns_since(asked) // 1_000)
        if self.until > latest:
            return attrs.evolve(self, until=latest)
        if self.until >= earliest:
            return self
        gap = Gap(self.until, earliest, "the store answered for no later time", may_close=True)
        return attrs.evolve(self, until=earliest, gaps=(*self.gaps, gap))


@attrs.frozen
class Coverage:
    """What is missing of the `window` that ends at `until`."""

    window: timedelta
    until: datetime
    _lasting: tuple[Gap, ...]  # a gap may go on after the window, as that of a lease that has not ended

    @classmethod
    def of(cls, window: JournalWindow, asked: timedelta) -> Coverage:
        """What is missing of the `asked` stretch up to the end of the window; a short look back is a gap too."""
        begin = window.until - asked
        gaps = list(window.gaps)
        if window.since > begin:
            gaps.append(Gap(begin, window.since, "the journal looked back no further"))
        lasting = (
            attrs.evolve(gap, since=max(gap.since, begin))
            for gap in gaps
            if max(gap.since, begin) < min(gap.until, window.until)
        )
        return cls(asked, window.until, tuple(sorted(lasting, key=lambda gap: gap.since)))

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The gaps, clipped to the window."""
        return tuple(attrs.evolve(gap, until=min(gap.until, self.until)) for gap in self._lasting)

    def total(self) -> timedelta:
        """How much is missing; what several gaps cover counts once."""
        return sum((until - since for since, until in _merged(self.gaps)), timedelta(0))

    def covered_at(self, max_gap: timedelta) -> datetime:
        """When no more than `max_gap` of what is missing will be left, in a window that ends then, at the earliest."""
        left = max_gap
        for since, until in reversed(_merged(tuple(gap for gap in self._lasting if not gap.may_close))):
            if until - since > left:
                return until - left + self.window
            left -= until - since
        return self.until


def _merged(gaps: tuple[Gap, ...]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for gap in gaps:
        if merged and gap.since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], gap.until))
        else:
            merged.append((gap.since, gap.until))
    return merged
