"""Events without running the handlers that cause them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from phyxius.clock import Clock
from phyxius.handler import HandlerError, HandlerEvent
from phyxius.journal import Journal

_ZERO = timedelta(0)


def make_event(
    name: str,
    *,
    clock: Clock,
    outcome: Literal["success", "failure"] = "success",
    ago: timedelta = _ZERO,
    duration: timedelta = _ZERO,
    observed: Mapping[str, object] | None = None,
    source: str = "handler",
    error: HandlerError | None = None,
    correlation_id: str | None = None,
) -> HandlerEvent:
    """An event as `recorded` would have left it.

    Args:
        name: The event's name.
        clock: Says what now is.
        outcome: How the call ended.
        ago: How long ago it completed; negative for an event that is stamped in the future.
        duration: How long it took.
        observed: What it observed.
        source: What kind of code ran.
        error: What it raised.
        correlation_id: What the call belonged to.
    """
    completed_at = clock.now().shifted(-ago)
    return HandlerEvent(
        name=name,
        outcome=outcome,
        completed_at=completed_at,
        started_at=completed_at.shifted(-duration),
        source=source,
        observed=observed or {},
        error=error,
        correlation_id=correlation_id,
    )


def record_events(
    journal: Journal[Any],
    name: str,
    count: int = 1,
    *,
    outcome: Literal["success", "failure"] = "success",
    ago: timedelta = _ZERO,
    observed: Mapping[str, object] | None = None,
) -> list[HandlerEvent]:
    """Append `count` events of a name that completed `ago`, and return them.

    Mind that a journal can only hold what happened since it began, if it is to be believed: `aged_journal`.
    """
    events = [make_event(name, clock=journal.clock, outcome=outcome, ago=ago, observed=observed) for _ in range(count)]
    for event in events:
        journal.append(event)
    return events
