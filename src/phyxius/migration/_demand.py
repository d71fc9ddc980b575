"""What an evidence source asks for, in words."""

from __future__ import annotations

from typing import Any

from phyxius.migration._evidence import EvidenceSource, JournalWindowEvidence
from phyxius.migration._window import JournalQuery
from phyxius.migration._wording import described, span


def demand_of(source: EvidenceSource[Any]) -> str:
    """What a source demands, in one line, for a screen: `"quote.read_old" in the last 14 days: no events`.

    A check, a predicate or a `where` of one's own is told by the first line of its docstring, or by its name.
    """
    if not isinstance(source, JournalWindowEvidence):
        return described(source.check)
    allowed = [
        f"gaps of {span(source.max_gap)} in total allowed" if source.max_gap else "",
        "gaps allowed" if source.coverage == "partial" else "",
        "" if source.witness else "no witness needed",
    ]
    notes = ", ".join(filter(None, allowed))
    told = f"{_events(source.query)} in the last {span(source.window)}: {described(source.predicate)}"
    return f"{told} ({notes})" if notes else told


def _events(query: JournalQuery) -> str:
    events = "everything" if query.name is None else f'"{query.name}"'
    outcome = f"each {query.outcome} of " if query.outcome else ""
    where = f" where {described(query.where)}" if query.where else ""
    return f"{outcome}{events}{where}"
