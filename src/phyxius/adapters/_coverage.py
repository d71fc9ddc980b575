"""What the rows of the recorders prove about a window: its gaps, and who witnesses its silence.

All functions here are pure. Times are nanoseconds since 1970 on the wall clock that the recorders share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

import attrs

from phyxius.clock import Instant
from phyxius.migration import Gap

GapKind = Literal["lost", "early", "clock"]


def is_audit(name: str | None) -> bool:
    """Whether a query asks for the audit of a migration by name."""
    return name is not None and name.startswith("migration.") and name.endswith(".advance")


@attrs.frozen
class RecorderRow:
    """One process that records, or did.

    Attributes:
        id: Its key.
        name: How people know it.
        stored_ns: Up to when all that it saw is stored.
        ended_ns: When it closed; while it is open the end of its lease, until which it is taken to be alive.
        closed: Whether it closed, with everything stored.
        audit_only: It runs no handlers, and has none to declare.
        answered: The last request to catch up that it has answered.
        declared: The names that it would record; True for those recorded durably.
    """

    id: int
    name: str
    stored_ns: int
    ended_ns: int
    closed: bool
    audit_only: bool
    answered: int
    declared: Mapping[str, bool] = attrs.field(factory=dict)

    def is_alive(self, now_ns: int) -> bool:
        """Whether it may still be recording."""
        return not self.closed and self.ended_ns >= now_ns

    def vouches(self, name: str | None) -> bool:
        """Whether it leaves no gap for events of this name, however it ends."""
        if self.audit_only:
            return not is_audit(name)
        return name is not None and self.declared.get(name, False)


@attrs.frozen(order=True)
class GapRow:
    """A stretch of time that a recorder could not record in full.

    Attributes:
        kind: `"lost"` spares the names that are recorded durably; `"early"`, from before they were, spares none, nor
            does `"clock"`: the time did not pass.
    """

    recorder: int
    since_ns: int
    until_ns: int
    kind: GapKind
    reason: str


def gaps_of(
    recorders: Iterable[RecorderRow],
    lost: Iterable[GapRow],
    *,
    name: str | None,
    since_ns: int,
    now_ns: int,
    covered_since_ns: int,
    answered: Collection[int],
    unfinished: Collection[int] = (),
) -> Iterator[Gap]:
    """The gaps of a window for events of a name.

    Args:
        recorders: All that lived in the window.
        lost: What they noted as lost.
        name: The name that is asked for, or None for all names.
        since_ns: Where the window begins.
        now_ns: Where it ends.
        covered_since_ns: Where the records begin.
        answered: The recorders that have stored all that they had seen when the question was put.
        unfinished: Living recorders with an open start of that name. That the call began is known; how it ended may be
            lost or on its way, so for those the start vouches for nothing.
    """
    by_id = {recorder.id: recorder for recorder in recorders}
    vouching = {id_ for id_, each in by_id.items() if each.vouches(name) and id_ not in unfinished}
    if covered_since_ns > since_ns:
        yield _gap(since_ns, covered_since_ns, now_ns, "the store holds nothing from before then", None)
    for each in lost:
        recorder = by_id.get(each.recorder)
        if each.kind != "lost" or each.recorder not in vouching:
            yield _gap(each.since_ns, each.until_ns, now_ns, each.reason, recorder.name if recorder else None)
    for recorder in by_id.values():
        if recorder.closed or recorder.id in vouching:
            continue
        if not recorder.is_alive(now_ns):
            reason = "it ended without closing, and what it had not stored by then is unknown"
            yield _gap(recorder.stored_ns, recorder.ended_ns, now_ns, reason, recorder.name)
        elif recorder.id not in answered:
            ends = Instant(wall_ns=recorder.ended_ns, mono_ns=None).wall.isoformat(timespec="seconds")
            reason = f"it did not say in time that all it saw is stored: it is busy, or dead unless heard of by {ends}"
            yield _gap(recorder.stored_ns, recorder.ended_ns, now_ns, reason, recorder.name, may_close=True)


def unwitnessed_by(recorders: Iterable[RecorderRow], name: str | None) -> tuple[bool, tuple[str, ...]]:
    """Whether the silence of a name has a witness, and who stands in its way.

    It has one if somebody recorded in the window, and everybody who did declares the name.
    """
    witnesses = [recorder for recorder in recorders if not recorder.audit_only]
    lacking = tuple(recorder.name for recorder in witnesses if name not in recorder.declared)
    return bool(witnesses) and name is not None and not lacking, lacking


def _gap(
    since_ns: int, until_ns: int, now_ns: int, reason: str, recorder: str | None, *, may_close: bool = False
) -> Gap:
    # A wall that was set back puts past gaps into the future, where nobody would look for them.
    since_ns = min(since_ns, now_ns - 1_000)
    until_ns = max(until_ns, since_ns + 1_000)
    return Gap(
        Instant(wall_ns=since_ns, mono_ns=None).wall,
        Instant(wall_ns=until_ns, mono_ns=None).wall_rounded_up,
        reason,
        recorder,
        may_close=may_close,
    )
