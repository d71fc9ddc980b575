"""What a query asks, and the slice of a journal that answers it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from unittest.mock import AsyncMock, MagicMock
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phyxius.clock import Instant, create_controlled_clock
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.migration import Gap, JournalQuery, JournalWindow, SpecError
from phyxius.migration._window import Coverage

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001
NOW = create_controlled_clock(EPOCH).now()
BERLIN = ZoneInfo("Europe/Berlin")


class Name(str, Enum):  # noqa: UP042 - its str() is not its value
    READ = "quote.read"


def at(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def us(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)


def gap(since: int, until: int) -> Gap:
    return Gap(at(since), at(until), "lost")


def window_of(*gaps: Gap, since: int = 0, until: int = 100, **more: Any) -> JournalWindow:
    return JournalWindow(more.pop("events", []), since=at(since), until=at(until), gaps=gaps, **more)


async def ask_async(event: HandlerEvent) -> bool:
    return True


class AsyncWhere:
    async def __call__(self, event: HandlerEvent) -> bool:
        return True


# -- gaps and windows as values


@pytest.mark.parametrize("bad", [NAIVE, None, "2024-01-01", 0])
@pytest.mark.parametrize(
    "make",
    [
        lambda bad: Gap(bad, EPOCH, "lost"),
        lambda bad: Gap(EPOCH, bad, "lost"),
        lambda bad: JournalWindow([], since=bad, until=EPOCH, gaps=[]),
        lambda bad: JournalWindow([], since=EPOCH, until=bad, gaps=[]),
        lambda bad: JournalWindow([], since=EPOCH, until=EPOCH, gaps=[], asked_at=bad or NAIVE),
    ],
)
def test_times_are_aware(make: Callable[[Any], object], bad: object) -> None:
    """A bound that names no instant is refused."""
    with pytest.raises(ValueError, match="an aware datetime is wanted"):
        make(bad)


def test_a_gap_does_not_run_backwards() -> None:
    """An end before the begin is refused; a gap of no length is one."""
    assert gap(5, 5).since == at(5)
    with pytest.raises(ValueError, match="cannot end"):
        gap(5, 4)


def test_summer_time_hides_no_gap() -> None:
    """An hour that the clocks on the wall show twice counts as the hour that it is, in a gap as in a window."""
    first, second = (datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1))
    lost = Gap(first, second, "lost")
    window = JournalWindow([], since=EPOCH, until=datetime(2024, 10, 28, tzinfo=BERLIN), gaps=[lost])
    assert Coverage.of(window, timedelta(days=2)).total() == timedelta(hours=1)
    with pytest.raises(ValueError, match="cannot end"):
        Gap(second, first, "lost")


def test_the_asked_stretch_is_as_long_as_asked() -> None:
    """Across the end of summer time a day before is 24 hours before, not the same time on the wall."""
    until = datetime(2024, 10, 27, 12, tzinfo=BERLIN)
    window = JournalWindow([], since=datetime(2024, 10, 26, 12, tzinfo=BERLIN), until=until, gaps=[])
    assert Coverage.of(window, timedelta(days=1)).total() == timedelta(0)
    assert Coverage.of(window, timedelta(hours=25)).total() == timedelta(0)
    assert Coverage.of(window, timedelta(hours=26)).total() == timedelta(hours=1)


def test_a_window_is_a_sequence_of_its_events() -> None:
    """It has a length, an order, members and slices, and copies what it is given."""
    events = [HandlerEvent("quote.read", "success", NOW.shifted(n)) for n in range(3)]
    window = window_of(events=list(events))
    assert (len(window), list(window), list(reversed(window))) == (3, events, events[::-1])
    assert (window[-1], tuple(window[1:])) == (events[2], tuple(events[1:]))
    assert events[1] in window
    assert type(window.events) is type(window.gaps) is type(window.in_flight) is tuple


def test_a_window_copies_the_names_of_who_does_not_witness() -> None:
    """What the store changes later does not reach the window."""
    names = ["api-7", "api-8"]
    window = window_of(unwitnessed_by=names)
    names.clear()
    assert window.unwitnessed_by == ("api-7", "api-8")


def test_a_window_claims_nothing_by_itself() -> None:
    """Who does not say that it is witnessed has no witness; the gaps cannot be left out."""
    window = window_of()
    assert (window.truncated, window.witnessed, window.in_flight) == (False, False, ())
    assert window.unwitnessed_by == ()
    with pytest.raises(TypeError, match="gaps"):
        JournalWindow([], since=EPOCH, until=EPOCH)  # type: ignore[call-arg]


def instant(microseconds: int) -> Instant:
    return NOW.shifted(us(microseconds))


@pytest.mark.parametrize("until, gaps", [(100, []), (103, []), (99, [(99, 100)]), (20, [(20, 100)])])
def test_a_window_ends_when_it_was_asked_for(until: int, gaps: list[tuple[int, int]]) -> None:
    """Or while it was; where it ends earlier, what it does not reach is a gap, which another answer may not have."""
    window = window_of(until=until).up_to_now(instant(100), instant(103))
    assert window.until == max(at(100), at(until))
    assert [(each.since, each.until) for each in window.gaps] == [(at(since), at(end)) for since, end in gaps]
    assert all(each.may_close for each in window.gaps)


def test_a_window_that_ends_later_than_now_does_not_reach_back_far_enough() -> None:
    """What lies ahead proves nothing of what was asked about."""
    window = window_of(since=3, until=103).up_to_now(instant(100), instant(100))
    assert window.until == at(100)
    assert Coverage.of(window, us(100)).total() == us(3)


@pytest.mark.parametrize("until, missing", [(1_000, 0), (1_005, 0), (999, 1), (1_010, 3)])
def test_a_window_by_another_clock(until: int, missing: int) -> None:
    """Its end is held against what that clock showed, however far apart the two are, and how long it took."""
    window = window_of(since=until - 100, until=until, asked_at=at(1_000)).up_to_now(instant(10), instant(16))
    assert Coverage.of(window, us(100)).total() == us(missing)


# -- queries


@pytest.mark.parametrize(
    "bad,says",
    [
        *(({"name": name}, "a text that is not empty") for name in ("", 7, b"quote.read", MagicMock(spec=str))),
        *(({"outcome": outcome}, '"success", "failure" or None') for outcome in ("ok", "", 0, True)),
        *(({"where": where}, "a plain function") for where in (7, ask_async, AsyncWhere(), AsyncMock())),
        *(({"limit": limit}, "a whole number from 1") for limit in (0, -1, 1.0, True, "1")),
    ],
)
def test_a_query_that_could_only_answer_by_mistake_is_refused(bad: dict[str, Any], says: str) -> None:
    """An empty name, an unknown outcome, an async where (it would always be true), a limit below 1: SpecError."""
    with pytest.raises(SpecError, match=says):
        JournalQuery(**bad)


def test_a_name_is_kept_as_an_exact_str() -> None:
    """An enum member asks for its value."""
    name = JournalQuery(Name.READ).name
    assert (type(name), name) == (str, "quote.read")


def raises(error: Exception) -> Callable[[Any], object]:
    def where(event: object) -> object:
        raise error

    return where


@pytest.mark.parametrize(
    "query,matches",
    [
        (JournalQuery(), True),
        (JournalQuery("quote.read"), True),
        (JournalQuery("quote.write"), False),
        (JournalQuery("quote.read", outcome="success"), True),
        (JournalQuery("quote.read", outcome="failure"), True),
        (JournalQuery("quote.read", limit=1), True),
        (JournalQuery(where=lambda call: call.observed["tenant"] == "a"), True),
        (JournalQuery(where=lambda call: call.observed["tenant"] == "b"), False),
        (JournalQuery("quote.write", where=lambda call: True), False),
        (JournalQuery(where=lambda call: call.observed["later"]), True),
        (JournalQuery(where=lambda call: call.observed.get("later")), True),
        (JournalQuery(where=lambda call: call.observed.get("later", False)), True),
        (JournalQuery(where=lambda call: "later" in call.observed), True),
        (JournalQuery(where=lambda call: "tenant" not in call.observed), False),
        (JournalQuery(where=lambda call: dict(call.observed) == {}), True),
        (JournalQuery(where=lambda call: call.observed == {}), True),
        (JournalQuery(where=lambda call: not call.observed), True),
        (JournalQuery(where=lambda call: call.outcome == "nothing"), True),
        (JournalQuery(where=lambda call: call.error is not None), True),
        (JournalQuery(where=lambda call: call.attempts > 99), True),
        (JournalQuery(where=lambda call: call.duration > timedelta(days=9)), True),
        (JournalQuery(where=lambda call: call.completed_at is None), True),
        (JournalQuery(where=lambda call: call.correlation_id == "else"), False),
        (JournalQuery(where=raises(KeyError("tenant"))), True),
        (JournalQuery(where=raises(ZeroDivisionError())), True),
        (JournalQuery(where=lambda call: 0), False),
    ],
)
def test_a_call_in_flight_matches_unless_it_surely_does_not(query: JournalQuery, matches: bool) -> None:
    """Name and where exclude a call, an outcome never does, and what cannot be known yet counts as a match."""
    assert query.matches_call(InFlightCall("quote.read", NOW, observed={"tenant": "a"})) is matches


def test_a_try_for_the_key_does_not_exclude_a_call() -> None:
    """A where that takes a missing key for a no has not said no of a call in flight."""

    def where(call: Any) -> bool:
        try:
            return bool(call.observed["later"])
        except LookupError:
            return False

    assert JournalQuery(where=where).matches_call(InFlightCall("quote.read", NOW))


@pytest.mark.parametrize("name,matches", [(None, False), ("migration.quotes.advance", True)])
def test_the_librarys_own_calls_match_by_name_only(name: str | None, matches: bool) -> None:
    """A query without a name never sees what has the source "migration", in flight neither."""
    call = InFlightCall("migration.quotes.advance", NOW, source="migration")
    assert JournalQuery(name).matches_call(call) is matches


# -- coverage


@pytest.mark.parametrize(
    "gaps,since,clipped",
    [
        ([], 0, []),
        ([], -50, []),
        ([], 10, [(0, 10)]),
        ([(-20, 10)], 0, [(0, 10)]),
        ([(95, 120)], 0, [(95, 100)]),
        ([(-20, 120)], 0, [(0, 100)]),
        ([(-20, 0), (100, 120), (-9, -5), (105, 110)], 0, []),
        ([(-20, 5)], -50, [(0, 5)]),
        ([(50, 50)], 0, []),
        ([(60, 70), (10, 20)], 0, [(10, 20), (60, 70)]),
        ([(5, 15)], 10, [(0, 10), (5, 15)]),
        ([], 120, [(0, 100)]),
    ],
)
def test_gaps_are_clipped_to_what_was_asked(
    gaps: list[tuple[int, int]], since: int, clipped: list[tuple[int, int]]
) -> None:
    """What lies outside does not count, a short look back is a gap, and they come in the order of time."""
    coverage = Coverage.of(window_of(*(gap(*each) for each in gaps), since=since), us(100))
    assert [(each.since, each.until) for each in coverage.gaps] == [(at(a), at(b)) for a, b in clipped]


def test_a_clipped_gap_keeps_its_reason_and_recorder() -> None:
    """Clipping changes the bounds alone, and a short look back says what it is."""
    lost = Gap(at(-5), at(5), "it crashed", "api-7")
    first, second = Coverage.of(window_of(lost, since=3), us(100)).gaps
    assert {(each.reason, each.recorder) for each in (first, second)} == {
        ("it crashed", "api-7"),
        ("the journal looked back no further", None),
    }


@pytest.mark.parametrize(
    "gaps,total",
    [
        ([(10, 20), (10, 20)], 10),
        ([(10, 20), (15, 25)], 15),
        ([(10, 30), (15, 20)], 20),
        ([(10, 30), (15, 20), (29, 31)], 21),
        ([(10, 20), (20, 30)], 20),
        ([(10, 20), (30, 40)], 20),
    ],
)
def test_what_several_gaps_cover_counts_once(gaps: list[tuple[int, int]], total: int) -> None:
    """Overlapping, nested and touching gaps count as their union."""
    assert Coverage.of(window_of(*(gap(*each) for each in gaps)), us(100)).total() == us(total)


def naive_missing(gaps: list[tuple[int, int]], since: int, until: int) -> int:
    return sum(any(begin <= tick < end for begin, end in gaps) for tick in range(since, until))


spans = st.tuples(st.integers(-20, 55), st.integers(0, 25)).map(lambda span: (span[0], span[0] + span[1]))


@given(
    gaps=st.lists(spans, max_size=6), length=st.integers(1, 40), max_gap=st.integers(0, 39), looked=st.integers(0, 45)
)
@example(gaps=[(0, 5), (45, 70)], length=50, max_gap=8, looked=50)
@example(gaps=[(0, 5), (30, 35)], length=50, max_gap=5, looked=50)
def test_covered_at_is_the_earliest_time(gaps: list[tuple[int, int]], length: int, max_gap: int, looked: int) -> None:
    """At `covered_at`, and at no microsecond before it, no more than `max_gap` of the known gaps is left."""
    now = 50
    coverage = Coverage.of(window_of(*(gap(*each) for each in gaps), since=now - looked, until=now), us(length))
    short = [(now - length, now - looked)] if looked < length else []
    known = [each for each in gaps if each[0] < now] + short
    assert coverage.total() == us(naive_missing(known, now - length, now))
    if coverage.total() > us(max_gap):
        ends = range(now, 200)
        earliest = next(end for end in ends if naive_missing(known, end - length, end) <= max_gap)
        assert coverage.covered_at(us(max_gap)) == at(earliest)


def test_without_gaps_it_is_covered_now() -> None:
    """Nothing is waited for where nothing is missing."""
    assert Coverage.of(window_of(), us(100)).covered_at(us(0)) == at(100)


def test_a_gap_that_is_not_over_is_waited_for() -> None:
    """A gap that goes on after the window (a lease that has not ended) counts whole for the time to retry at."""
    coverage = Coverage.of(window_of(gap(90, 130)), us(100))
    assert (coverage.total(), coverage.covered_at(us(0)), coverage.covered_at(us(4))) == (us(10), at(230), at(226))
