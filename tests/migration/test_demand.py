"""What a source demands, in words."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import pytest

from phyxius.fp import ok
from phyxius.migration import (
    EvidenceSource,
    JournalQuery,
    JournalWindow,
    MemoryJournalStore,
    at_least,
    attestation,
    demand_of,
    every_event,
    journal_window,
    no_events,
    phase_reached,
    ran_under,
    rate_below,
    schema_applied,
    shadow_parity,
    write_parity,
)
from tests.migration.support import build

DAY = timedelta(days=1)


def no_errors(window: JournalWindow) -> Any:
    """Nothing failed, as far as we know.

    This is not for a screen.
    """


def is_slow(event: object) -> bool:
    return True


class Ready:
    """The queue is drained."""

    def __call__(self) -> Any:
        return ok()


class Unsayable:
    def __call__(self) -> Any:
        return ok()

    def __str__(self) -> str:
        raise OSError


def slow_and_long(event: object) -> bool:
    return True


slow_and_long.__doc__ = "x" * 300

DEMANDS: dict[str, EvidenceSource[Any]] = {
    '"a" in the last 14 days: no events': journal_window("a", 14 * DAY, no_events()),
    "everything in the last 1 day 6 hours: no events (no witness needed)": journal_window(
        JournalQuery(), DAY + timedelta(hours=6), no_events(), witness=False
    ),
    '"a" where they ran under "expand", "flip" in the last 1 day: no events': journal_window(
        JournalQuery("a", where=ran_under("expand", "flip")), DAY, no_events()
    ),
    'each success of "a" in the last 1 day: at least 3 events (gaps allowed)': journal_window(
        JournalQuery("a", outcome="success"), DAY, at_least(3), coverage="partial"
    ),
    '"a" in the last 1 day: events, of which each passes "is slow" (gaps of 1 hour in total allowed)': (
        journal_window("a", DAY, every_event(is_slow), max_gap=timedelta(hours=1))
    ),
    '"a" in the last 1 day: at least 1,000 events, a share below 0.01 of them "is slow"': journal_window(
        "a", DAY, rate_below(is_slow, 0.01, min_events=1_000)
    ),
    '"a" in the last 1 day: Nothing failed, as far as we know': journal_window("a", DAY, no_errors),
    '"a" where <lambda> in the last 1 day: no events': journal_window(
        JournalQuery("a", where=lambda event: True), DAY, no_events()
    ),
    '"p" in the last 7 days: at least 1,000 comparisons, none of them different or failed': shadow_parity(
        "p", window=7 * DAY
    ),
    '"p" in the last 7 days: at least 10 comparisons in each cohort by tenant, '
    "at most a share of 0.01 of them different or failed": shadow_parity(
        "p", window=7 * DAY, by="tenant", max_mismatch_rate=0.01, min_comparisons=10
    ),
    '"w" in the last 7 days: at least 1 write in each cohort by is slow, none of them different or failed': (
        write_parity("w", window=7 * DAY, by=is_slow, min_writes=1)
    ),
    'migration "quotes" is at "flip", or past it': phase_reached(build().migration, "flip"),
    "The queue is drained": schema_applied(Ready()),
    "is slow": attestation(functools.partial(is_slow, None)),  # type: ignore[arg-type]
    "Unsayable": schema_applied(Unsayable()),
    "x" * 199 + "…": schema_applied(functools.partial(slow_and_long, None)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("demand, source", DEMANDS.items(), ids=range(len(DEMANDS)))
def test_it_reads_as_a_sentence(demand: str, source: EvidenceSource[Any]) -> None:
    """Library predicates say what they claim; one's own are told by docstring or name, and never raise."""
    assert demand_of(source) == demand


def test_the_stores_of_a_migration_are_there() -> None:
    """A tool that has a migration has its stores."""
    lab = build()
    assert lab.migration.phase_store is lab.store
    assert isinstance(lab.migration.journal_store, MemoryJournalStore)
