"""Queries over the journal of this process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import attrs

from phyxius.clock import Clock, Instant
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.journal import Journal
from phyxius.migration._errors import SpecError
from phyxius.migration._event_index import EventIndex
from phyxius.migration._window import Gap, JournalQuery, JournalWindow


class MemoryJournalStore:
    """A `JournalStore` over the journal in memory; made by `create_memory_journal_store`.

    It sees what this process did and nothing else, which its `scope` says.
    """

    scope: Literal["process"] = "process"

    def __init__(self, journal: Journal[Any]) -> None:
        self._journal = journal
        self._index = journal.follow(EventIndex)

    @property
    def clock(self) -> Clock:
        """The clock that ages are measured on."""
        return self._journal.clock

    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        """The matching events of the last `window` on the monotonic clock, and what may be missing."""
        journal = self._journal
        with journal.paused():
            now = journal.clock.now()
            since = now.shifted(-window)
            assert since.mono_ns is not None
            # In this order: a finalizer may end a call at any point, in this very thread, and its event then
            # appears. What was in flight may be seen twice, and is never missed.
            in_flight = journal.in_flight
            events = self._index.since(since.mono_ns, query.name, query.outcome)
            gaps = self._gaps(since, now)
            witnessed = query.name is not None and query.name in journal.declared
        found, truncated = _select(query, events)
        return JournalWindow(
            found,
            since=since.wall,
            until=now.wall_rounded_up,
            gaps=gaps,
            truncated=truncated,
            witnessed=witnessed,
            in_flight=[
                # reckoned back from now, as the window is: a wall that was set must not make a call look young
                attrs.evolve(call, started_at=now.shifted(-now.ns_since(call.started_at)))
                for call in in_flight
                if isinstance(call, InFlightCall) and query.matches_call(call)
            ],
        )

    def _gaps(self, since: Instant, now: Instant) -> list[Gap]:
        journal, lost = self._journal, self._index.lost_until
        gaps: list[Gap] = []
        for until, reason in (
            (journal.complete_since, journal.complete_since_reason),
            (lost, "an entry from before then is out of reach: no proper HandlerEvent, or one of another process"),
        ):
            if until is not None and until.ns_since(since) > 0:
                age = timedelta(microseconds=now.ns_since(until) // 1_000)
                gaps.append(Gap(since.wall, now.wall_rounded_up - age, reason))
        return gaps


def create_memory_journal_store(*, journal: Journal[Any], clock: Clock | None = None) -> MemoryJournalStore:
    """A journal store over a journal in memory. Stores of one journal share one index, made at the first call.

    Args:
        journal: The journal of this process.
        clock: The journal's clock; it may be left out, and no other is right.

    Raises:
        SpecError: `clock` is another one than the journal's.
    """
    if clock is not None and clock is not journal.clock:
        raise SpecError("the journal has another clock than the one given; use one clock for everything")
    return MemoryJournalStore(journal)


def _select(query: JournalQuery, events: list[HandlerEvent]) -> tuple[Sequence[HandlerEvent], bool]:
    limit = query.limit
    if query.name is None:
        events = [event for event in events if event.source != "migration"]
    if query.where is not None:
        admitted = filter(query.admits, reversed(events))
        events = list(admitted if limit is None else itertools.islice(admitted, min(limit, len(events)) + 1))[::-1]
    return (events, False) if limit is None or len(events) <= limit else (events[-limit:], True)
