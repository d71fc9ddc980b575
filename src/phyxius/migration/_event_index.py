"""The index over a journal's events that makes a question about a window cheap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, cast

from phyxius.clock import Clock, Instant
from phyxius.handler import HandlerEvent
from phyxius.journal import JournalEntry


class EventIndex:
    """Follows a journal and keeps its events by name, outcome and time of completion.

    Attributes:
        lost_until: Up to when an entry may be missing here that is not missing in the journal. One that is no
            proper event cannot be found by any query. One without monotonic time the journal lets go by its wall
            time, and the wall may have been set since it was placed here.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._series: dict[str, dict[str, Series]] = {}
        self._placed: dict[int, int] = {}
        self.lost_until: Instant | None = None

    def added(self, entry: JournalEntry[Any], /) -> None:
        """File an event."""
        event = entry.data
        if not _is_event(event):
            self._lose(_mono(self._clock.now()))
            return
        mono_ns = event.completed_at.mono_ns
        if mono_ns is None:  # restored: placed by its wall time, once, since the wall can be set
            now = self._clock.now()
            mono_ns = _mono(now) - now.ns_since(event.completed_at)
            self._placed[entry.sequence] = mono_ns
        outcomes = self._series.setdefault(event.name, {})
        if event.outcome not in outcomes:
            outcomes[event.outcome] = Series()
        outcomes[event.outcome].add(mono_ns, event)

    def dropped(self, entry: JournalEntry[Any], /) -> None:
        """Let an event go."""
        event = entry.data
        if not _is_event(event):
            return
        mono_ns = event.completed_at.mono_ns
        if mono_ns is None:
            mono_ns = self._placed.pop(entry.sequence)
            self._lose(mono_ns)
        outcomes = self._series[event.name]
        outcomes[event.outcome].remove(mono_ns, event)
        if not len(outcomes[event.outcome]):
            del outcomes[event.outcome]
        if not outcomes:
            del self._series[event.name]

    def cleared(self) -> None:
        """Let all events go."""
        if self._placed:
            self._lose(max(self._placed.values()))
        self._series.clear()
        self._placed.clear()

    def _lose(self, mono_ns: int) -> None:
        now = self._clock.now()
        until = now.shifted(mono_ns + 1 - _mono(now))
        if self.lost_until is None or until.ns_since(self.lost_until) > 0:
            self.lost_until = until

    def since(self, mono_ns: int, name: str | None, outcome: str | None) -> list[HandlerEvent]:
        """The events that completed at or after an instant, oldest first."""
        found = [series.since(mono_ns) for series in self._matching(name, outcome)]
        found = [part for part in found if part[0]]
        if len(found) <= 1:
            return found[0][1] if found else []
        # The parts are sorted, and sorting recognizes that.
        merged = [pair for times, events in found for pair in zip(times, events, strict=True)]
        merged.sort(key=lambda pair: pair[0])
        return [event for _, event in merged]

    def _matching(self, name: str | None, outcome: str | None) -> Iterator[Series]:
        names = self._series.values() if name is None else [self._series.get(name, {})]
        for outcomes in names:
            for each, series in outcomes.items():
                if outcome is None or each == outcome:
                    yield series


class Series:
    """Events in the order of their completion."""

    __slots__ = ("_events", "_head", "_times")

    def __init__(self) -> None:
        self._times: list[int] = []
        self._events: list[HandlerEvent | None] = []
        self._head = 0  # what lies before it was removed, and is cut off now and then

    def __len__(self) -> int:
        return len(self._times) - self._head

    def add(self, mono_ns: int, event: HandlerEvent) -> None:
        """Insert an event, at the end unless it completed before others."""
        if not len(self) or mono_ns >= self._times[-1]:
            self._times.append(mono_ns)
            self._events.append(event)
            return
        position = bisect_right(self._times, mono_ns, self._head)
        self._times.insert(position, mono_ns)
        self._events.insert(position, event)

    def remove(self, mono_ns: int, event: HandlerEvent) -> None:
        """Remove an event, which is most often the oldest."""
        position = bisect_left(self._times, mono_ns, self._head)
        while self._events[position] is not event:
            position += 1
        if position != self._head:
            del self._times[position], self._events[position]
            return
        self._events[position] = None
        self._head += 1
        if self._head * 2 > len(self._times):
            del self._times[: self._head], self._events[: self._head]
            self._head = 0

    def since(self, mono_ns: int) -> tuple[list[int], list[HandlerEvent]]:
        """Times and events at or after an instant."""
        position = bisect_left(self._times, mono_ns, self._head)
        return self._times[position:], cast("list[HandlerEvent]", self._events[position:])


def _is_event(data: Any) -> bool:
    # No mock passes, and no time without an order (NaN), which would hide the events beside it.
    return (
        issubclass(type(data), HandlerEvent)
        and issubclass(type(data.name), str)
        and issubclass(type(at := data.completed_at), Instant)
        and type(at.wall_ns) is int
        and (at.mono_ns is None or type(at.mono_ns) is int)
    )


def _mono(now: Instant) -> int:
    assert now.mono_ns is not None
    return now.mono_ns
