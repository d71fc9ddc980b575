"""Evidence that a new path agrees with the old one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

import attrs

from phyxius.fp import err, ok
from phyxius.handler import HandlerEvent, InFlightCall, NotYetObservedError, Parity
from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import JournalWindowEvidence, journal_window
from phyxius.migration._failure import Evidence, EvidenceFailure
from phyxius.migration._predicates import check_count, check_share
from phyxius.migration._window import JournalQuery, JournalWindow, is_plain_function
from phyxius.migration._wording import counted

Cohort = Callable[[HandlerEvent], object]

# What one source learns must fit into 16 KiB.
_MOST_COHORTS = 50
_LONGEST_COHORT = 40


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
        by: What cohort an attempt belongs to: a key of `observed`, or a function of the event; cohorts are told
            apart by its `repr`. Each must pass by itself, since an average hides the one tenant for whom everything
            fails. The attempts without the key are a cohort too; if there is no other, nothing passes. Calls in
            flight beyond their timeout, of which the cohort is not known yet, are one as well: while there is one,
            nothing passes.

    Returns:
        Evidence whose payload tells the counts.

    Raises:
        SpecError: No name, a rate outside 0 to 1, a count below 1, or a `by` that is neither.
    """
    if not isinstance(name, str):
        raise SpecError(f"shadow_parity needs the name that shadow() records under, not {name!r}")
    check_share(max_mismatch_rate, "max_mismatch_rate")
    check_count(min_comparisons, "min_comparisons")
    if by is not None and not isinstance(by, str) and not is_plain_function(by):
        raise SpecError(f"by must be a key of observed or a plain function of the event, not {by!r}")
    return journal_window(JournalQuery(name=name), window, _InParity(float(max_mismatch_rate), min_comparisons, by))


@attrs.frozen
class _InParity:
    max_mismatch_rate: float
    min_comparisons: int
    by: str | Cohort | None

    def __call__(self, window: JournalWindow) -> Evidence[dict[str, Any]]:
        cohorts: dict[str, Counter[str]] = {}
        for event in window:
            cohorts.setdefault(self._cohort(event), Counter())[_parity(event)] += 1
        overdue = [call for call in window.in_flight if _is_overdue(call, window)]
        for call in overdue:
            cohorts.setdefault(self._cohort(cast("HandlerEvent", call)), Counter())[Parity.ERRORED] += 1
        total = sum(cohorts.values(), Counter[str]())
        learned: dict[str, Any] = {"counts": _counts(total), "overdue": len(overdue), "sample": _lowest_sample(window)}
        problems = [self._problem(total)]
        if isinstance(self.by, str) and cohorts.keys() <= {self._nowhere, "None"}:
            problems.append(
                f'no attempt observed "{self.by}", so there are no cohorts to judge: mend the key if it is misspelt, '
                "or observe() it in the recording around the call"
            )
        if self.by is not None:
            shown = sorted(cohorts.items())[:_MOST_COHORTS]
            learned |= {"cohort_count": len(cohorts), "cohorts": {_cut(name): _counts(each) for name, each in shown}}
            problems = [self._problem(each, f"cohort {_cut(name)}: ") for name, each in cohorts.items()] + problems
        for problem in problems:
            if problem is not None:
                return err(EvidenceFailure(problem, learned))
        return ok(learned)

    def _cohort(self, event: HandlerEvent) -> str:
        if self.by is None:
            return ""
        try:
            if callable(self.by):
                return repr(self.by(event))
            return repr(event.observed[self.by]) if self.by in event.observed else self._nowhere
        except NotYetObservedError:
            return "(in flight, not known yet)"

    @property
    def _nowhere(self) -> str:
        return f"(without {self.by})"

    def _problem(self, counts: Mapping[str, int], where: str = "") -> str | None:
        matched, mismatched, errored = (counts[each] for each in (Parity.MATCHED, Parity.MISMATCHED, Parity.ERRORED))
        judged = matched + mismatched + errored
        if judged and (mismatched + errored) / judged > self.max_mismatch_rate:
            return (
                f"{where}{mismatched:,} mismatched and {errored:,} errored beside {matched:,} matched attempts; "
                f"a share of {self.max_mismatch_rate:g} is allowed: look at their events "
                "(and at the calls in flight beyond their timeout), and mend the new path"
            )
        if matched + mismatched < self.min_comparisons:
            return (
                f"{where}{counted(matched + mismatched, 'comparison')} so far; {self.min_comparisons:,} needed: "
                "wait for more traffic"
            )
        return None


def _parity(event: HandlerEvent) -> str:
    value = event.observed.get("parity")
    return value if isinstance(value, str) and value in set(Parity) else Parity.ERRORED.value


def _is_overdue(call: InFlightCall, window: JournalWindow) -> bool:
    try:
        seconds = call.observed["timeout_seconds"]
    except NotYetObservedError:
        return True  # no attempt of `shadow`: once it has ended it counts as errored too
    elapsed = (window.until - call.started_at.wall).total_seconds()
    return not isinstance(seconds, int | float) or not elapsed <= seconds  # NaN allows nothing


def _cut(cohort: str) -> str:
    return cohort if len(cohort) <= _LONGEST_COHORT else cohort[: _LONGEST_COHORT - 1] + "…"


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {parity.value: counts.get(parity, 0) for parity in Parity}


def _lowest_sample(window: JournalWindow) -> object:
    return min((rate for event in window if isinstance(rate := event.observed.get("sample"), float)), default=None)
