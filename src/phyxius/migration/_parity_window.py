"""Whether enough of what was compared in a window ended well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import attrs

from phyxius.fp import err, ok
from phyxius.handler import HandlerEvent, InFlightCall, NotStoredError, NotYetObservedError, Parity
from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import JournalWindowEvidence, journal_window
from phyxius.migration._failure import Evidence, EvidenceFailure
from phyxius.migration._predicates import check_share, known
from phyxius.migration._window import JournalQuery, JournalWindow, is_plain_function
from phyxius.migration._wording import counted, described

Cohort = Callable[[HandlerEvent], object]

# What one source learns must fit into 16 KiB.
_MOST_COHORTS = 50
_LONGEST_COHORT = 40


@attrs.frozen
class Wording:
    """What is compared, how people call one of it, and several, and what they should do where they disagree."""

    kind: str
    comparison: str
    attempts: str
    remedy: str


def in_parity(
    name: str, window: timedelta, max_rate: float, least: int, by: str | Cohort | None, wording: Wording
) -> JournalWindowEvidence[dict[str, Any]]:
    """Evidence that enough of some attempts ended well, of all of them and in each cohort.

    Raises:
        SpecError: A rate outside 0 to 1, or a `by` that is neither a key nor a plain function.
    """
    check_share(max_rate, "max_mismatch_rate")
    if by is not None and not isinstance(by, str) and not is_plain_function(by):
        raise SpecError(f"by must be a key of observed or a plain function of the event, not {by!r}")
    return journal_window(JournalQuery(name=name), window, _InParity(name, float(max_rate), least, by, wording))


@attrs.frozen
class _InParity:
    name: str
    max_mismatch_rate: float
    min_comparisons: int
    by: str | Cohort | None
    wording: Wording

    def __str__(self) -> str:
        least = counted(self.min_comparisons, self.wording.comparison)
        cohorts = f" in each cohort by {self.by if isinstance(self.by, str) else described(self.by)}" if self.by else ""
        return f"at least {least}{cohorts}, {self._allowed} of them different or failed"

    def __call__(self, window: JournalWindow) -> Evidence[dict[str, Any]]:
        cohorts: dict[str, Counter[str]] = {}
        for event in window:
            cohorts.setdefault(self._cohort(event), Counter())[_parity(event)] += 1
        overdue = [call for call in window.in_flight if _is_overdue(call, window)]
        for call in overdue:
            cohorts.setdefault(self._cohort(cast("HandlerEvent", call)), Counter())[Parity.ERRORED] += 1
        total = sum(cohorts.values(), Counter[str]())
        learned: dict[str, Any] = {"counts": _counts(total), "overdue": len(overdue)}
        if (sample := _lowest_sample(window)) is not None:
            learned["sample"] = sample
        problems = [self._wrong_name(window), self._problem(total, overdue)]
        if isinstance(self.by, str) and cohorts.keys() <= {self._nowhere, "None"}:
            problems.append(
                f'no attempt observed "{self.by}", so there are no cohorts to judge: mend the key if it is misspelt, '
                "or observe() it in the recording around the call"
            )
        if self.by is not None:
            shown = sorted(cohorts.items())[:_MOST_COHORTS]
            learned |= {"cohort_count": len(cohorts), "cohorts": {_cut(name): _counts(each) for name, each in shown}}
            of_each = [self._problem(each, overdue, f"cohort {_cut(name)}: ") for name, each in cohorts.items()]
            problems = of_each + problems
        for problem in problems:
            if problem is not None:
                details = learned | _newest_that_failed(window)
                return err(EvidenceFailure(problem, details, retry_at=self._retry_at(window, total, overdue)))
        return ok(learned)

    def _wrong_name(self, window: JournalWindow) -> str | None:
        """What is wrong with the name, if those who record do not use it, or use it for something else."""
        if not len(window) and not window.witnessed:
            return (
                f'there is nothing named "{self.name}", and no recorder was there that would record it, or not every '
                "one: mend the name if it is misspelt"
            )
        others = [event for event in window if _observed(event, "compared") not in (self.wording.kind, None)]
        if not others:
            return None
        return (
            f'{counted(len(others), "event")} named "{self.name}" compare {_observed(others[-1], "compared")}, and not '
            f"{self.wording.kind}: give each a name of its own"
        )

    def _retry_at(self, window: JournalWindow, total: Mapping[str, int], overdue: Sequence[object]) -> datetime | None:
        """When what speaks against has left the window, where that is what it takes."""
        failed = _failed(window)
        if not failed or overdue or self.max_mismatch_rate > 0 or not total[Parity.MATCHED]:
            return None
        return failed[-1].completed_at.wall_rounded_up + (window.until - window.since) + timedelta(microseconds=1)

    def _cohort(self, event: HandlerEvent) -> str:
        if self.by is None:
            return ""
        try:
            if callable(self.by):
                return repr(self.by(event))
            return repr(event.observed[self.by]) if self.by in event.observed else self._nowhere
        except NotYetObservedError:
            return "(in flight or lost, so not known)"

    @property
    def _allowed(self) -> str:
        return f"at most a share of {self.max_mismatch_rate:g}" if self.max_mismatch_rate else "none"

    @property
    def _nowhere(self) -> str:
        return f"(without {self.by})"

    def _problem(self, counts: Mapping[str, int], overdue: Sequence[object], where: str = "") -> str | None:
        matched, mismatched, errored = (counts[each] for each in (Parity.MATCHED, Parity.MISMATCHED, Parity.ERRORED))
        judged = matched + mismatched + errored
        if judged and (mismatched + errored) / judged > self.max_mismatch_rate:
            calls = " (and at the calls in flight beyond their timeout)" if overdue else ""
            return (
                f"{where}{mismatched:,} mismatched and {errored:,} errored beside {matched:,} matched "
                f"{self.wording.attempts}; {self._allowed} is allowed: look at their events{calls}, "
                f"{self.wording.remedy}, then wait until they have left the window"
            )
        compared = matched + mismatched
        if compared < self.min_comparisons:
            so_far = counted(compared, self.wording.comparison)
            return f"{where}{so_far} so far; {self.min_comparisons:,} needed: wait for more traffic"
        return None


def _parity(event: HandlerEvent) -> str:
    value = _observed(event, "parity")
    return value if isinstance(value, str) and value in set(Parity) else Parity.ERRORED.value


def _newest_that_failed(window: JournalWindow) -> dict[str, Any]:
    """What there is to know of the newest event that speaks against: where to begin to look."""
    failed = _failed(window)
    if not failed:
        return {}
    event = failed[-1]
    tells: dict[str, Any] = {"at": event.completed_at.wall, "observed": known(event), "error": event.error}
    return {"newest": {**tells, "correlation_id": event.correlation_id}}


def _failed(window: JournalWindow) -> list[HandlerEvent]:
    return [event for event in window if _parity(event) in (Parity.MISMATCHED, Parity.ERRORED)]


def _is_overdue(call: InFlightCall, window: JournalWindow) -> bool:
    try:
        seconds = call.observed["timeout_seconds"]
    except NotYetObservedError:
        return True  # no attempt of `shadow`: once it has ended it counts as errored too
    if seconds is None:
        return False  # it waits for something that has no limit
    elapsed = (window.until - call.started_at.wall).total_seconds()
    return not isinstance(seconds, int | float) or not elapsed <= seconds  # NaN allows nothing


def _cut(cohort: str) -> str:
    return cohort if len(cohort) <= _LONGEST_COHORT else cohort[: _LONGEST_COHORT - 1] + "…"


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {parity.value: counts.get(parity, 0) for parity in Parity}


def _lowest_sample(window: JournalWindow) -> float | None:
    return min((rate for event in window if isinstance(rate := _observed(event, "sample"), float)), default=None)


def _observed(event: HandlerEvent, key: str) -> object:
    """What an event observed; None also if nobody will ever know, as of one whose process was killed."""
    try:
        return event.observed.get(key)
    except (NotYetObservedError, NotStoredError):
        return None
