"""Evidence that both sides of a dual write have written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import JournalWindowEvidence
from phyxius.migration._parity_window import Cohort, Wording, in_parity
from phyxius.migration._predicates import check_count

_WORDING = Wording("writes", "write", "writes", "mend what failed, write again what the secondary side lacks")


def write_parity(
    name: str,
    *,
    window: timedelta,
    max_mismatch_rate: float = 0.0,
    min_writes: int = 1_000,
    by: str | Cohort | None = None,
) -> JournalWindowEvidence[dict[str, Any]]:
    """Evidence from `dual_write`: both sides have written.

    Of at least `min_writes` of the window on which both sides answered, the share that failed must not exceed
    `max_mismatch_rate`. A write has failed if the secondary side raised, was late or does not compare, if the
    authoritative side raised what is no rejection, if its process was killed, or if it is in flight longer than its
    timeout. A rejected one counts for nothing.

    It tells of the writes in its window. What went wrong before then, and two writes to one row that the sides took in
    another order, it cannot see: put a comparison of the data beside it, such as `no_rows`.

    Args:
        name: The name that `dual_write` records under.
        window: How far back to look.
        max_mismatch_rate: The share, from 0 to 1, that may have failed.
        min_writes: How many writes are needed; with `by`, in each cohort.
        by: What cohort a write belongs to, as for `shadow_parity`: each must pass by itself.

    Returns:
        Evidence whose payload tells the counts.

    Raises:
        SpecError: No name, a rate outside 0 to 1, a count below 1, or a `by` that is neither.
    """
    if not isinstance(name, str):
        raise SpecError(f"write_parity needs the name that dual_write() records under, not {name!r}")
    check_count(min_writes, "min_writes")
    return in_parity(name, window, max_mismatch_rate, min_writes, by, _WORDING)
