"""What the rows of the recorders prove about a window."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters._coverage import GapRow, RecorderRow, gaps_of, is_audit, unwitnessed_by
from phyxius.migration import Gap

US = 1_000
NOW = 1_000 * US
OLD = "quote.read_old"
AUDIT = "migration.quotes.advance"


def recorder(id: int = 1, **fields: Any) -> RecorderRow:
    """One that closed after 500 microseconds, unless said otherwise."""
    given = {
        "id": id,
        "name": f"api-{id}",
        "stored_ns": 500 * US,
        "ended_ns": 500 * US,
        "closed": True,
        "audit_only": False,
        "answered": 0,
    }
    return RecorderRow(**given | fields)


def alive(id: int = 1, **fields: Any) -> RecorderRow:
    return recorder(id, **{"closed": False, "stored_ns": 900 * US, "ended_ns": 1_030 * US} | fields)


def dead(id: int = 1, **fields: Any) -> RecorderRow:
    return recorder(id, **{"closed": False, "stored_ns": 400 * US, "ended_ns": 430 * US} | fields)


def lost(recorder: int = 1, kind: Any = "lost") -> GapRow:
    return GapRow(recorder, 200 * US, 300 * US, kind, "it fell behind")


def gaps(
    recorders: Iterable[RecorderRow],
    rows: Iterable[GapRow] = (),
    name: str | None = OLD,
    answered: Iterable[int] = (),
    covered_since: int = 0,
    unfinished: Iterable[int] = (),
) -> list[tuple[int, int, str | None]]:
    """Begin and end in microseconds, and the recorder."""
    found = gaps_of(
        recorders,
        rows,
        name=name,
        since_ns=100 * US,
        now_ns=NOW,
        covered_since_ns=covered_since * US,
        answered=set(answered),
        unfinished=set(unfinished),
    )
    return [(us(gap.since), us(gap.until), gap.recorder) for gap in found]


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# -- who is what


def test_who_is_alive() -> None:
    """Who has not closed, up to and with the end of the lease."""
    assert alive(ended_ns=NOW).is_alive(NOW)
    assert not alive(ended_ns=NOW - 1).is_alive(NOW)
    assert not recorder(ended_ns=NOW).is_alive(NOW)


def test_who_vouches() -> None:
    """Durable names have no gap; who runs no handlers can have missed none of their events, but audits."""
    row = recorder(declared={OLD: True, "other": False})
    assert row.vouches(OLD)
    assert not any(row.vouches(name) for name in ("other", "unknown", None))
    row = recorder(audit_only=True)
    assert all(row.vouches(name) for name in (OLD, None, "migration", "migration.quotes", "quotes.advance"))
    assert not row.vouches(AUDIT)


def test_what_is_an_audit() -> None:
    """The event of a migration's `advance()`; a handler may have a name that begins or ends like it."""
    assert is_audit(AUDIT)
    names = (None, "migration.read_old", "old.advance", "migration.quotes.advance.old", "")
    assert not any(is_audit(name) for name in names)


# -- gaps


def test_a_closed_recorder_leaves_no_gap() -> None:
    """Nor does the time before and after it: while nobody records, nothing runs."""
    assert gaps([recorder(), recorder(2)]) == []
    assert gaps([]) == []


def test_a_living_recorder_leaves_a_gap_unless_it_answered() -> None:
    """Since when all was stored, up to now at least, as its batches may be on their way."""
    assert gaps([alive()], answered=[1]) == []
    assert gaps([alive()], answered=[2]) == [(900, 1_030, "api-1")]
    assert gaps([alive(ended_ns=NOW)]) == [(900, 1_000, "api-1")]


def test_a_dead_recorder_leaves_a_gap_up_to_the_end_of_its_lease() -> None:
    """Whatever it answered while it lived."""
    assert gaps([dead()]) == gaps([dead()], answered=[1]) == [(400, 430, "api-1")]


@pytest.mark.parametrize("row", [alive(declared={OLD: True}), dead(declared={OLD: True}), dead(audit_only=True)])
def test_who_vouches_leaves_no_gap(row: RecorderRow) -> None:
    """Neither alive nor dead, nor by what it noted as lost; but for other names it does."""
    assert gaps([row], [lost()]) == []
    assert gaps([row], [lost()], name=AUDIT) != []


def test_who_has_a_call_without_an_end_does_not_vouch() -> None:
    """That it began is known, and not how it ended: its event may be what was lost, or what is on its way."""
    row = alive(declared={OLD: True})
    assert gaps([row, recorder(2, declared={OLD: True})], [lost()], unfinished=[1]) == [
        (200, 300, "api-1"),
        (900, 1_030, "api-1"),
    ]
    assert gaps([row], [lost()], unfinished=[1], answered=[1]) == [(200, 300, "api-1")]
    assert gaps([row], [lost()], unfinished=[2]) == []


def test_what_was_lost_is_a_gap() -> None:
    """Also of a recorder that closed, and of one that nobody knows any more."""
    assert gaps([recorder()], [lost()]) == [(200, 300, "api-1")]
    assert gaps([], [lost()]) == [(200, 300, None)]


@pytest.mark.parametrize("kind", ["clock", "early"])
def test_some_gaps_spare_nobody(kind: str) -> None:
    """Where the time did not pass nothing was seen, durable or not; and a pledge covers nothing before it is stored."""
    assert gaps([recorder(declared={OLD: True})], [lost(kind=kind)]) == [(200, 300, "api-1")]
    assert gaps([recorder(audit_only=True)], [lost(kind=kind)]) == [(200, 300, "api-1")]


def test_the_time_before_the_file_is_a_gap() -> None:
    """Unless the window begins later."""
    assert gaps([], covered_since=150) == [(100, 150, None)]
    assert gaps([], covered_since=100) == []


def test_all_names_have_every_gap() -> None:
    """A query without a name asks about the least that anybody recorded."""
    assert gaps([dead(declared={OLD: True})], [lost()], name=None) == [(200, 300, "api-1"), (400, 430, "api-1")]


def test_reasons_are_told() -> None:
    """Each gap says why."""
    rows = [alive(1), dead(2), recorder(3)]
    dead_unless = "dead unless heard of by 1970-01-01T00:00:00+00:00"
    found = list(gaps_of(rows, [lost(3)], name=OLD, since_ns=0, now_ns=NOW, covered_since_ns=1, answered=()))
    assert [(gap.recorder, gap.reason) for gap in found] == [
        (None, "the store holds nothing from before then"),
        ("api-3", "it fell behind"),
        ("api-1", f"it did not say in time that all it saw is stored: it is busy, or {dead_unless}"),
        ("api-2", "it ended without closing, and what it had not stored by then is unknown"),
    ]


def test_bounds_are_rounded_outwards() -> None:
    """To the microsecond; a gap of no length is still one."""
    (gap,) = gaps_of(
        [], [GapRow(1, 1_500, 1_500, "lost", "")], name=OLD, since_ns=0, now_ns=NOW, covered_since_ns=0, answered=()
    )
    assert gap.since < gap.until
    assert (us(gap.since), us(gap.until)) == (1, 3)


times = st.integers(-2_000 * US, 4_000 * US)
rows = st.builds(
    RecorderRow,
    id=st.integers(1, 4),
    name=st.sampled_from("abcd"),
    stored_ns=times,
    ended_ns=times,
    closed=st.booleans(),
    audit_only=st.booleans(),
    answered=st.just(0),
    declared=st.dictionaries(st.sampled_from([OLD, "other"]), st.booleans()),
)
losses = st.builds(GapRow, st.integers(1, 5), times, times, st.sampled_from(["lost", "clock"]), st.just("lost"))
names = st.sampled_from([OLD, "other", AUDIT, None])
fleets = st.lists(rows, max_size=4, unique_by=lambda row: row.id)


@given(fleets, st.lists(losses, max_size=4), names, times, times, st.sets(st.integers(1, 4)))
def test_every_gap_shows_in_a_window_up_to_now(
    recorders: list[RecorderRow], lost: list[GapRow], name: str | None, since: int, covered: int, answered: set[int]
) -> None:
    """Whatever a wall that was set did to the times: each gap ends after it begins, and begins before now.

    So one that was noted before the wall was set back does not hide in the future.
    """
    found = list(
        gaps_of(recorders, lost, name=name, since_ns=since, now_ns=NOW, covered_since_ns=covered, answered=answered)
    )
    for gap in found:
        assert gap.since < gap.until
        assert us(gap.since) < 1_000
    assert len(found) == naive_count(recorders, lost, name, answered) + (covered > since)


def naive_count(recorders: list[RecorderRow], lost: list[GapRow], name: str | None, answered: set[int]) -> int:
    """How many gaps there are, told name by name."""

    def spared(row: RecorderRow) -> bool:
        if row.audit_only:
            return name != AUDIT
        return name is not None and row.declared.get(name) is True

    count = 0
    for gap in lost:
        owner = [row for row in recorders if row.id == gap.recorder]
        count += not (gap.kind == "lost" and owner and spared(owner[0]))
    for row in recorders:
        if row.closed or spared(row):
            continue
        died = row.ended_ns < NOW
        count += died or row.id not in answered
    return count


@given(fleets, st.lists(losses, max_size=4), names, st.data())
def test_time_that_nobody_vouches_for_is_covered(
    recorders: list[RecorderRow], lost: list[GapRow], name: str | None, data: st.DataObject
) -> None:
    """Each moment up to now at which a recorder without a vouch was neither stored nor closed lies in a gap."""
    found = list(gaps_of(recorders, lost, name=name, since_ns=0, now_ns=NOW, covered_since_ns=0, answered=()))
    for row in recorders:
        if not row.closed and not row.vouches(name) and row.stored_ns < min(row.ended_ns, NOW):
            moment = data.draw(st.integers(row.stored_ns, min(row.ended_ns, NOW) - 1)) // US
            assert any(us(gap.since) <= moment < us(gap.until) for gap in found)


# -- witnesses


def test_silence_has_a_witness_if_all_declare_it() -> None:
    """And if there is somebody at all."""
    declares = recorder(declared={OLD: False})
    assert unwitnessed_by([declares, recorder(2, declared={OLD: True})], OLD) == (True, ())
    assert unwitnessed_by([declares, recorder(2), recorder(3, declared={"other": True})], OLD) == (
        False,
        ("api-2", "api-3"),
    )
    assert unwitnessed_by([], OLD) == (False, ())


def test_who_runs_no_handlers_is_no_witness() -> None:
    """A command-line tool neither stands in the way nor suffices."""
    tool = recorder(2, audit_only=True)
    assert unwitnessed_by([tool], OLD) == (False, ())
    assert unwitnessed_by([tool, recorder(declared={OLD: True})], OLD) == (True, ())


@given(fleets, names)
def test_the_witness_and_who_lacks_agree(recorders: list[RecorderRow], name: str | None) -> None:
    """It is witnessed exactly if somebody could be asked and nobody is named; a query without a name never."""
    witnessed, lacking = unwitnessed_by(recorders, name)
    asked = [row for row in recorders if not row.audit_only]
    assert witnessed is (name is not None and asked != [] and all(name in row.declared for row in asked))
    assert witnessed is False or lacking == ()
    assert list(lacking) == [row.name for row in asked if name not in row.declared]


def test_rows_are_values() -> None:
    """They can be compared, and changed only by making another."""
    assert alive() == attrs.evolve(alive(), answered=0)
    assert isinstance(
        next(gaps_of([dead()], [], name=OLD, since_ns=0, now_ns=NOW, covered_since_ns=0, answered=())), Gap
    )
