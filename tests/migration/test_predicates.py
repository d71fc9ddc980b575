"""The ready-made claims about a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import Clock, Instant, create_controlled_clock
from phyxius.fp import Err, Ok
from phyxius.handler import HandlerError, HandlerEvent, InFlightCall
from phyxius.migration import (
    EvidenceFailure,
    JournalQuery,
    JournalWindow,
    SpecError,
    at_least,
    create_migration,
    define_migration,
    every_event,
    journal_window,
    no_events,
    rate_below,
)
from phyxius.testing import aged_journal, make_event, record_events

CLOCK: Clock = create_controlled_clock()
DAY = timedelta(days=1)
SO_FAR = InFlightCall("quote.read", CLOCK.now(), observed={"tenant": "a"}).observed
LOST = HandlerError("RecorderLost", "recorder api-7 ended while it ran")


def window_of(observed: Sequence[object], ago: timedelta = timedelta(0)) -> JournalWindow:
    """A window of a day that holds one event for each observation, all of them `ago`."""
    now = CLOCK.now()
    events = [make_event("quote.read", clock=CLOCK, ago=ago, observed={"o": each}) for each in observed]
    return JournalWindow(events, since=now.wall - DAY, until=now.wall, gaps=())


def observation(event: HandlerEvent) -> Any:
    return event.observed["o"]


def failure_of(answer: object) -> EvidenceFailure:
    assert type(answer) is Err
    assert type(answer.error) is EvidenceFailure
    return answer.error


def test_no_events() -> None:
    """Silence is `Ok`; the first event fails it, and the failure tells when the newest will have left."""
    assert no_events()(window_of([])) == Ok({"count": 0})
    failure = failure_of(no_events()(window_of([1, 2], ago=timedelta(hours=1))))
    newest = CLOCK.now().wall - timedelta(hours=1)
    assert "saw 2 events, the newest at" in failure.reason
    assert failure.details == {
        "count": 2,
        "newest": newest,
        "name": "quote.read",
        "observed": {"o": 2},
        "error": None,
        "correlation_id": None,
    }
    assert failure.retry_at == newest + DAY + timedelta(microseconds=1)


@pytest.mark.parametrize(
    "recorded_by,says",
    [
        ({"api-2": 1}, "saw 2 events, recorded by api-2, the newest"),
        ({"api-2": 1, "cron": 2}, "recorded by cron, api-2, the newest"),
        ({str(number): 9 - number for number in range(6)}, "recorded by 0, 1, 2, 3, 4, ..., the newest"),
    ],
)
def test_who_recorded_them_is_told(recorded_by: dict[str, int], says: str) -> None:
    """Where a store knows it: first those that recorded most."""
    failure = failure_of(no_events()(attrs.evolve(window_of([1, 2]), recorded_by=recorded_by)))
    assert says in failure.reason
    assert failure.details["recorded_by"] == recorded_by


@pytest.mark.parametrize(
    "end,says",
    [
        (
            {"observed": SO_FAR, "error": LOST},
            " (a call whose end nobody saw: recorder api-7 ended while it ran); find",
        ),
        ({"observed": SO_FAR}, "+00:00; find"),
        ({"observed": SO_FAR.known, "error": LOST}, "+00:00; find"),
    ],
)
def test_no_events_tells_what_became_of_the_newest(end: Any, says: str) -> None:
    """Its error, if it has one; and that a call's end nobody saw, where the recorder died before it."""
    newest = HandlerEvent("quote.read", "failure", CLOCK.now(), **end)
    now = CLOCK.now().wall
    failure = failure_of(no_events()(JournalWindow([newest], since=now - DAY, until=now, gaps=())))
    assert says in failure.reason
    assert (failure.details["error"], failure.details["observed"]) == (end.get("error"), {"tenant": "a"})


async def test_no_events_passes_when_it_says() -> None:
    """At `retry_at` the newest event has left the window, and a microsecond earlier it has not."""
    journal = aged_journal()
    clock: Any = journal.clock
    record_events(journal, "quote.read", ago=timedelta(hours=1))
    spec = define_migration(
        name="quotes", phases={"expand": {}, "flip": {"silent": journal_window("quote.read", DAY, no_events())}}
    )
    migration = create_migration(spec, journal=journal, single_process=True)
    retry_at = failure_of(Err((await migration.readiness()).verdicts["silent"])).retry_at
    assert retry_at is not None
    clock.advance_by(retry_at - clock.now().wall - timedelta(microseconds=1))
    assert not (await migration.readiness()).ready
    clock.advance_by(timedelta(microseconds=1))
    assert (await migration.readiness()).ready


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_no_events_overlooks_no_outcome(outcome: Any) -> None:
    """Silence about one outcome alone is no silence."""
    with pytest.raises(SpecError, match="a failed legacy call is a legacy call"):
        journal_window(JournalQuery("quote.read", outcome=outcome), DAY, no_events())


def test_every_event() -> None:
    """All events must pass, and there must be some."""
    judge = every_event(observation)
    assert judge(window_of([True, True])) == Ok({"count": 2})
    assert type(judge(window_of([]))) is Err
    failure = failure_of(judge(window_of([False, True, False, True])))
    assert failure.reason.startswith("2 of 4 events fail the test, the newest at 1970-01-01T")
    assert failure.details == {"failing": 2, "count": 4, "observed": {"o": False}}


def test_rate_below() -> None:
    """The rate must lie below the threshold, among enough events."""
    judge = rate_below(observation, 0.5, min_events=4)
    assert judge(window_of([True, False, False, False])) == Ok({"rate": 0.25, "count": 4, "threshold": 0.5})
    failure = failure_of(judge(window_of([True, True, False, False])))
    assert failure.reason == "the rate is 0.5, not below 0.5 (2 of 4)"
    few = failure_of(judge(window_of([False] * 3)))
    assert few.details == {"count": 3, "min_events": 4}
    assert type(judge(window_of([]))) is Err


@pytest.mark.parametrize("threshold, passes", [(0, False), (0.0, False), (1, True), (1.0, True)])
def test_the_ends_of_the_scale(threshold: float, passes: bool) -> None:
    """No rate lies below 0; every rate but that of all events lies below 1."""
    judge = rate_below(observation, threshold, min_events=1)
    assert isinstance(judge(window_of([False])), Ok) == passes
    assert isinstance(judge(window_of([False, True])), Ok) == passes
    assert type(judge(window_of([True]))) is Err


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 100), st.integers(1, 20))
def test_rate_below_against_a_model(observed: list[bool], percent: int, min_events: int) -> None:
    """It agrees with exact arithmetic over the share that was written down."""
    expected = len(observed) >= min_events and Fraction(sum(observed), len(observed)) < Fraction(percent, 100)
    answer = rate_below(observation, percent / 100, min_events=min_events)(window_of(observed))
    assert (type(answer) is Ok) == expected


def test_at_least() -> None:
    """Enough events pass, one too few does not."""
    assert at_least(2)(window_of([1, 2])) == Ok({"count": 2})
    failure = failure_of(at_least(2)(window_of([1])))
    assert (failure.reason, failure.details) == ("saw 1 event; 2 needed", {"count": 1, "needed": 2})
    assert type(at_least(1)(window_of([]))) is Err


@pytest.mark.parametrize("answer", [None, 0, 1, 0.0, "yes", [], NotImplemented])
@pytest.mark.parametrize("make", [every_event, lambda test: rate_below(test, 0.5, min_events=1)])
def test_an_answer_that_is_no_bool(make: Callable[[Any], Any], answer: object) -> None:
    """A test that answers neither True nor False is broken, not false and not true."""
    with pytest.raises(TypeError, match="must answer True or False"):
        make(observation)(window_of([answer]))


async def async_test(event: HandlerEvent) -> bool:
    return True


class AsyncTest:
    async def __call__(self, event: HandlerEvent) -> bool:
        return True


NO_SHARES: list[Any] = [float("nan"), -0.1, 1.1, float("inf"), True, "0.1", None]


@pytest.mark.parametrize(
    "make",
    [
        *(lambda share=share: rate_below(observation, share, min_events=1) for share in NO_SHARES),
        *(lambda count=count: rate_below(observation, 0.1, min_events=count) for count in (0, -1, 1.0, True, None)),
        *(lambda count=count: at_least(count) for count in (0, -1, 1.5, True, None)),
        *(lambda test=test: every_event(test) for test in (None, 7, async_test, AsyncTest())),
        *(lambda test=test: rate_below(test, 0.1, min_events=1) for test in (None, 7, async_test, AsyncTest())),
    ],
)
def test_misuse_is_a_spec_error(make: Callable[[], object]) -> None:
    """What could only judge by mistake is refused where it is written."""
    with pytest.raises(SpecError):
        make()


def test_future_events_count() -> None:
    """An event that is stamped in the future, by a clock that went wrong, is in the window and fails silence."""
    future = HandlerEvent("quote.read", "success", Instant(wall_ns=CLOCK.now().wall_ns + 10**15, mono_ns=None))
    window = JournalWindow([future], since=CLOCK.now().wall - DAY, until=CLOCK.now().wall, gaps=())
    assert failure_of(no_events()(window)).retry_at == future.completed_at.wall + DAY + timedelta(microseconds=1)
