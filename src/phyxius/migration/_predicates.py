"""Claims about a window, ready made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs

from phyxius.fp import err, ok
from phyxius.handler import HandlerEvent, ObservedSoFar, PartlyKnown
from phyxius.migration._errors import SpecError
from phyxius.migration._failure import Evidence, EvidenceFailure, Predicate
from phyxius.migration._window import JournalWindow, is_plain_function
from phyxius.migration._wording import counted, described

Test = Callable[[HandlerEvent], bool]


@attrs.frozen
class NoEvents:
    """The claim that nothing happened; a class, so that `journal_window` knows it."""

    def __str__(self) -> str:
        return "no events"

    def __call__(self, window: JournalWindow) -> Evidence[dict[str, int]]:
        """Judge a window."""
        if not len(window):
            return ok({"count": 0})
        newest = window[-1]
        leaves = newest.completed_at.wall_rounded_up + (window.until - window.since) + timedelta(microseconds=1)
        return err(
            EvidenceFailure(
                f"saw {counted(len(window), 'event')}{_recorded_by(window)}, the newest at "
                f"{newest.completed_at.wall.isoformat()}{_unfinished(newest)}; "
                "find who still causes them, then wait until they have left the window",
                {
                    "count": len(window),
                    "newest": newest.completed_at.wall,
                    "name": newest.name,
                    "observed": known(newest),
                    "error": newest.error,
                    "correlation_id": newest.correlation_id,
                    **({"recorded_by": dict(window.recorded_by)} if window.recorded_by else {}),
                },
                retry_at=leaves,
            )
        )


def no_events() -> Predicate[dict[str, int]]:
    """Nothing happened in the window.

    Its `Ok` over the empty window still needs a witness and a journal without gaps: see `journal_window`.

    Returns:
        A predicate, which learns the count of 0; its failure tells the count, which recorders it was, where that is
        known, and of the newest event when it completed, what it observed, and when it leaves the window.
    """
    return NoEvents()


def every_event(test: Test) -> Predicate[dict[str, int]]:
    """Something happened in the window, and `test` is true of every event; an empty window fails.

    Args:
        test: Must answer exactly True or False; anything else makes the source errored.

    Raises:
        SpecError: `test` is no plain function.
    """
    _check_test(test, "every_event")

    def judge(window: JournalWindow) -> Evidence[dict[str, int]]:
        if not len(window):
            return err("no event in the window, and of none nothing can be said; wait until there are some")
        wrong = [event for event in window if not _answer(test, event)]
        if not wrong:
            return ok({"count": len(window)})
        newest = wrong[-1]
        return err(
            EvidenceFailure(
                f"{len(wrong):,} of {counted(len(window), 'event')} fail the test, the newest at "
                f"{newest.completed_at.wall.isoformat()}; mend what causes them",
                {"failing": len(wrong), "count": len(window), "observed": known(newest)},
            )
        )

    judge.__doc__ = f'events, of which each passes "{described(test)}"'
    return judge


def rate_below(test: Test, threshold: float, *, min_events: int) -> Predicate[dict[str, float]]:
    """Of at least `min_events` events, the share for which `test` is true lies below `threshold`.

    Args:
        test: Must answer exactly True or False; anything else makes the source errored.
        threshold: The share, from 0 to 1, that must not be reached.
        min_events: With fewer events there is nothing to judge, and it fails.

    Raises:
        SpecError: A threshold outside 0 to 1, a `min_events` below 1, or a `test` that is no plain function.
    """
    _check_test(test, "rate_below")
    check_share(threshold, "threshold")
    check_count(min_events, "min_events")

    def judge(window: JournalWindow) -> Evidence[dict[str, float]]:
        if len(window) < min_events:
            return err(
                EvidenceFailure(
                    f"{counted(len(window), 'event')} are too few to judge a rate; {min_events:,} needed",
                    {"count": len(window), "min_events": min_events},
                )
            )
        hits = sum(_answer(test, event) for event in window)
        learned: dict[str, float] = {"rate": hits / len(window), "count": len(window), "threshold": threshold}
        if learned["rate"] < threshold:
            return ok(learned)
        return err(
            EvidenceFailure(
                f"the rate is {learned['rate']:.4g}, not below {threshold:g} ({hits} of {len(window)})",
                learned,
            )
        )

    judge.__doc__ = f'at least {counted(min_events, "event")}, a share below {threshold:g} of them "{described(test)}"'
    return judge


def at_least(n: int) -> Predicate[dict[str, int]]:
    """At least `n` events happened. More events could not overturn it, so `coverage="partial"` suits it.

    Raises:
        SpecError: `n` is below 1.
    """
    check_count(n, "at_least(n)")

    def judge(window: JournalWindow) -> Evidence[dict[str, int]]:
        if len(window) >= n:
            return ok({"count": len(window)})
        return err(
            EvidenceFailure(f"saw {counted(len(window), 'event')}; {n:,} needed", {"count": len(window), "needed": n})
        )

    judge.__doc__ = f"at least {counted(n, 'event')}"
    return judge


def check_share(share: float, what: str) -> None:
    """Refuse what is no share between 0 and 1, NaN included."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise SpecError(f"{what} must be a number from 0 to 1, not {share!r}")


def check_count(count: int, what: str) -> None:
    """Refuse what is no positive whole number."""
    if type(count) is not int or count < 1:
        raise SpecError(f"{what} must be a whole number from 1, not {count!r}")


def _check_test(test: Any, what: str) -> None:
    if not is_plain_function(test):
        raise SpecError(f"{what} needs a plain function of one event, not {test!r}")


def _answer(test: Test, event: HandlerEvent) -> bool:
    answer = test(event)
    if type(answer) is not bool:
        raise TypeError(f"the test must answer True or False, not {type(answer).__name__}")
    return answer


def _recorded_by(window: JournalWindow) -> str:
    """Says which processes to look at, first those that recorded most."""
    names = sorted(window.recorded_by, key=lambda name: -window.recorded_by[name])
    return f", recorded by {', '.join(names[:5])}{', ...' if names[5:] else ''}" if names else ""


def _unfinished(event: HandlerEvent) -> str:
    """Says of a call whose end nobody saw that it is one."""
    if isinstance(event.observed, ObservedSoFar) and event.error is not None:
        return f" (a call whose end nobody saw: {event.error.message})"
    return ""


def known(event: HandlerEvent) -> dict[str, object]:
    """What is known of what an event observed."""
    observed = event.observed
    return dict(observed.known if isinstance(observed, PartlyKnown) else observed)
