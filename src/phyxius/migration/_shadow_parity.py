"""Evidence that a new path agrees with the old one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import attrs

from phyxius.fp import err, ok
from phyxius.handler import HandlerEvent, InFlightCall, Parity
from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import JournalWindowEvidence, journal_window
from phyxius.migration._failure import Evidence, EvidenceFailure
from phyxius.migration._predicates import check_count, check_share
from phyxius.migration._window import JournalWindow

Cohort = Callable[[HandlerEvent], object]


def shadow_parity(
    name: str,
    *,
    window: timedelta,
    max_mismatch_rate: float = 0.0,
    min_comparisons: int = 1_000,
    by: str | Cohort | None = None,
) -> JournalWindowEvidence[dict[str, Any]]:
    """Evidence from `shadow`: the new path agrees with the old one.

    Of at least `min_comparisons` that matched or mismatched in the window, the share that did not match must not
    exceed `max_mismatch_rate`. An errored attempt counts as one that did not match, and so does one that is in
    flight longer than its timeout; an ignored one, and one that could not be compared, count for nothing.

    Args:
        name: The name that `shadow` records under.
        window: How far back to look.
        max_mismatch_rate: The share, from 0 to 1, that may disagree.
        min_comparisons: How many comparisons are needed; with `by`, in each cohort.
        by: What cohort an attempt belongs to: a key of `observed`, or a function of the event. Each cohort must
            pass by itself, since an average hides the one tenant for whom everything fails. An attempt without
            the key belongs to the cohort of those without.

    Returns:
        Evidence whose payload tells the counts.

    Raises:
        SpecError: A rate outside 0 to 1, or a count below 1.
    """
    check_share(max_mismatch_rate, "max_mismatch_rate")
    check_count(min_comparisons, "min_comparisons")
    if by is not None and not isinstance(by, str) and not callable(by):
        raise SpecError(f"by must be a key of observed or a function of the event, not {by!r}")
    return journal_window(name, window, _InParity(float(max_mismatch_rate), min_comparisons, by))


@attrs.frozen
class _InParity:
    max_mismatch_rate: float
    min_comparisons: int
    by: str | Cohort | None

    def __call__(self, window: JournalWindow) -> Evidence[dict[str, Any]]:
        cohorts: dict[str, Counter[str]] = {}
        for event in window:
            cohorts.setdefault(self._cohort(event), Counter())[_parity(event)] += 1
        overdue = sum(_is_overdue(call, window) for call in window.in_flight)
        total = sum(cohorts.values(), Counter({Parity.ERRORED.value: overdue}))
        learned: dict[str, Any] = {"counts": _counts(total), "sample": _lowest_sample(window)}
        if self.by is not None:
            learned["cohorts"] = {name: _counts(counts) for name, counts in sorted(cohorts.items())[:100]}
        judged = {"": total} if self.by is None else {**cohorts, "": total}
        for name, counts in judged.items():
            problem = self._problem(counts)
            if problem is not None:
                where = f"cohort {name}: " if name else ""
                return err(EvidenceFailure(where + problem, learned))
        return ok(learned)

    def _cohort(self, event: HandlerEvent) -> str:
        if self.by is None:
            return ""
        if callable(self.by):
            return repr(self.by(event))
        if self.by not in event.observed:
            return f"(without {self.by})"
        return repr(event.observed[self.by])

    def _problem(self, counts: Mapping[str, int]) -> str | None:
        compared = counts.get(Parity.MATCHED, 0) + counts.get(Parity.MISMATCHED, 0)
        against = counts.get(Parity.MISMATCHED, 0) + counts.get(Parity.ERRORED, 0)
        if against > self.max_mismatch_rate * (compared + counts.get(Parity.ERRORED, 0)):
            return (
                f"{counts.get(Parity.MISMATCHED, 0)} mismatched and {counts.get(Parity.ERRORED, 0)} errored beside "
                f"{counts.get(Parity.MATCHED, 0)} matched attempts; a share of {self.max_mismatch_rate:g} is allowed: "
                "look at their events, and mend the new path"
            )
        if compared < self.min_comparisons:
            return f"{compared} comparisons are too few; {self.min_comparisons} are needed: wait for more traffic"
        return None


def _parity(event: HandlerEvent) -> str:
    value = event.observed.get("parity")
    return value if isinstance(value, str) and value in set(Parity) else Parity.ERRORED.value


def _is_overdue(call: InFlightCall, window: JournalWindow) -> bool:
    seconds = call.observed["timeout_seconds"]
    return isinstance(seconds, float) and window.until - call.started_at.wall > timedelta(seconds=seconds)


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {parity.value: counts.get(parity, 0) for parity in Parity}


def _lowest_sample(window: JournalWindow) -> object:
    return min((rate for event in window if isinstance(rate := event.observed.get("sample"), float)), default=None)
