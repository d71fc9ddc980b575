"""Evidence that a new path agrees with the old one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import JournalWindowEvidence
from phyxius.migration._parity_window import Cohort, Wording, in_parity
from phyxius.migration._predicates import check_count

_WORDING = Wording("reads", "comparison", "attempts", "mend the new path")


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
    check_count(min_comparisons, "min_comparisons")
    return in_parity(name, window, max_mismatch_rate, min_comparisons, by, _WORDING)
