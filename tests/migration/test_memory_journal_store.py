"""Queries over the journal of this process, and whether the window that they answer with can be believed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from phyxius.clock import ControlledClock, Instant, create_controlled_clock
from phyxius.handler import HandlerEvent, NotYetObservedError, event_serializer, recorded
from phyxius.journal import Journal, JournalOverflowError
from phyxius.migration import (
    EvidenceFailure,
    JournalQuery,
    JournalWindow,
    MemoryJournalStore,
    create_memory_journal_store,
    journal_window,
    no_events,
)
from phyxius.migration._event_index import EventIndex
from phyxius.migration._judge import Passed, judge_window
from phyxius.testing import aged_journal, record_events

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
US, HOUR, DAY = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=1)
READ = JournalQuery("quote.read")


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock(EPOCH)


@pytest.fixture
def journal(clock: ControlledClock) -> Journal[Any]:
    return Journal(clock=clock, serializer=event_serializer)


@pytest.fixture
def store(journal: Journal[Any], clock: ControlledClock) -> MemoryJournalStore:
    """A store over a journal that has been recording for thirty days."""
    clock.advance_by(30 * DAY)
    return create_memory_journal_store(journal=journal)


def put(journal: Journal[Any], name: str = "quote.read", *, ago: timedelta = 0 * US, **fields: Any) -> HandlerEvent:
    completed_at = journal.clock.now().shifted(-(ago // US) * 1_000)
    event = HandlerEvent(name, fields.pop("outcome", "success"), completed_at, **fields)
    journal.append(event)
    return event


async def proven(journal: Journal[Any], window: timedelta = DAY, **more: Any) -> bool:
    """Whether the silence of "quote.read" counts as a true Ok."""
    return type(await judged(journal, window, **more)) is Passed


async def judged(journal: Journal[Any], window: timedelta = DAY, **more: Any) -> Passed | EvidenceFailure:
    source = journal_window("quote.read", window, no_events(), **more)
    seen = await create_memory_journal_store(journal=journal).query(source.query, window)
    return judge_window(source, seen, source.predicate(seen))


# -- what is in a window


@pytest.mark.parametrize(
    "ago,inside",
    [(0 * US, True), (HOUR - US, True), (HOUR, True), (HOUR + US, False), (-US, True), (-400 * DAY, True)],
)
async def test_bounds_are_included_and_the_future_too(
    journal: Journal[Any], store: MemoryJournalStore, ago: timedelta, inside: bool
) -> None:
    """What completed at either bound is in the window, and so is what is stamped later than now."""
    put(journal, ago=ago)
    assert len(await store.query(READ, HOUR)) == int(inside)


async def test_the_bounds_of_a_window_are_told(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """They are the window before now; nothing else is claimed of a name that nobody declared."""
    window = await store.query(READ, HOUR)
    assert (window.until - window.since, window.until) == (HOUR, EPOCH + 30 * DAY)
    assert (window.gaps, window.truncated, window.witnessed, window.in_flight) == ((), False, False, ())


async def test_events_come_oldest_first(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """They are in the order of their completion, whatever the order, the name or the outcome they came in."""
    for ago, name, outcome in ((3, "a", "success"), (1, "b", "failure"), (2, "a", "failure"), (0, "a", "success")):
        put(journal, name, ago=ago * US, outcome=outcome)
    window = await store.query(JournalQuery(), HOUR)
    ages = [(window.until - event.completed_at.wall) // US for event in window]
    assert ages == [3, 2, 1, 0]


@pytest.mark.parametrize(
    "query,found",
    [
        (JournalQuery(), [0, 1, 2]),
        (READ, [0, 1]),
        (JournalQuery("quote.read", "failure"), [1]),
        (JournalQuery(outcome="success"), [0, 2]),
        (JournalQuery(where=lambda event: event.observed["n"] > 0), [1, 2]),
        (JournalQuery("quote.read", where=lambda event: event.observed["n"] > 0), [1]),
        (JournalQuery("quote.read", "success", lambda event: event.observed["n"] > 0), []),
        (JournalQuery("quote"), []),
        (JournalQuery("migration.quotes.advance"), [3]),
        (JournalQuery("migration.quotes.advance", "failure", lambda event: True), [3]),
        (JournalQuery(where=lambda event: event.source == "migration"), []),
    ],
)
async def test_a_query_finds_what_it_asks_for(
    journal: Journal[Any], store: MemoryJournalStore, query: JournalQuery, found: list[int]
) -> None:
    """By name, outcome and where; audit events only by their name."""
    put(journal, observed={"n": 0})
    put(journal, outcome="failure", observed={"n": 1})
    put(journal, "quote.write", observed={"n": 2})
    put(journal, "migration.quotes.advance", outcome="failure", source="migration", observed={"n": 3})
    assert sorted(event.observed["n"] for event in await store.query(query, HOUR)) == found


@pytest.mark.parametrize(
    "limit,found,truncated", [(1, [4], True), (4, [1, 2, 3, 4], True), (5, [0, 1, 2, 3, 4], False), (9, None, False)]
)
@pytest.mark.parametrize("where", [None, lambda event: True])
@pytest.mark.parametrize("name", [None, "quote.read"])
async def test_a_limit_keeps_the_newest(
    journal: Journal[Any], store: MemoryJournalStore, limit: int, found: Any, truncated: bool, where: Any, name: Any
) -> None:
    """It says that it cut others off, and only if there were any; audit events take no place."""
    for n in (0, 1, 4, 3, 2):
        put(journal, ago=(5 - n) * US, observed={"n": n})
    put(journal, "migration.quotes.advance", source="migration")
    window = await store.query(JournalQuery(name, where=where, limit=limit), HOUR)
    assert [event.observed["n"] for event in window] == (found or [0, 1, 2, 3, 4])
    assert window.truncated is truncated


async def test_a_where_that_raises_is_heard_of(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """It does not pass for an event that does not match."""
    put(journal)
    with pytest.raises(KeyError):
        await store.query(JournalQuery(where=lambda event: event.observed["tenant"] == "a"), HOUR)


# -- silence and its witness


@pytest.mark.parametrize(
    "query,declare,witnessed",
    [
        (READ, "quote.read", True),
        (READ, "quote.raed", False),
        (JournalQuery("quote.read", "failure"), "quote.read", True),
        (JournalQuery(), "quote.read", False),
    ],
)
async def test_a_declared_name_is_witnessed(
    journal: Journal[Any], store: MemoryJournalStore, query: JournalQuery, declare: str, witnessed: bool
) -> None:
    """Only the silence of a name that this process would record has a witness."""
    assert not (await store.query(query, HOUR)).witnessed
    journal.declare(declare)
    assert (await store.query(query, HOUR)).witnessed is witnessed


async def test_having_recorded_is_a_declaration(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """A name that was appended once, or has a recorder, is witnessed."""
    put(journal, ago=2 * HOUR)
    recorded(journal, "quote.write")(len)
    assert (await store.query(READ, HOUR)).witnessed
    assert (await store.query(JournalQuery("quote.write"), HOUR)).witnessed


async def test_silence_counts_once_it_is_witnessed(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """No events, no gap and a declared name are a true Ok; without the declaration it is refused."""
    assert not await proven(journal)
    assert await proven(journal, witness=False)
    journal.declare("quote.read")
    assert await proven(journal)


async def test_a_call_in_flight_is_seen(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """From before its body until its event is there, a legacy call keeps the silence from counting."""
    assert not (await store.query(READ, HOUR)).in_flight
    with recorded(journal, "quote.read", observed={"tenant": "a"}) as call:
        (seen,) = (await store.query(READ, HOUR)).in_flight
        assert (seen.name, seen.started_at, seen.observed["tenant"]) == ("quote.read", journal.clock.now(), "a")
        with pytest.raises(NotYetObservedError):
            seen.observed.get("later")
        assert "in flight" in getattr(await judged(journal), "reason", "")
        call.observed["later"] = True
        for where, matches in (
            (lambda event: event.observed["tenant"] == "a", True),
            (lambda event: event.observed["tenant"] == "b", False),
            (lambda event: event.observed.get("later"), True),
            (lambda event: "later" in event.observed, True),
        ):
            assert bool((await store.query(JournalQuery(where=where), HOUR)).in_flight) is matches
        for name, outcome, count in (("quote.read", "failure", 1), (None, "success", 1), ("quote.write", None, 0)):
            query = JournalQuery(name, outcome)  # type: ignore[arg-type]
            assert len((await store.query(query, HOUR)).in_flight) == count
    window = await store.query(READ, HOUR)
    assert (len(window), window.in_flight) == (1, ())


async def test_what_is_in_flight_in_a_foreign_form_is_not_shown(journal: Journal[Any]) -> None:
    """A window shows calls; whatever else a journal was told of could not be read by a predicate."""
    journal.begin("something")
    assert (await create_memory_journal_store(journal=journal).query(READ, HOUR)).in_flight == ()


# -- gaps, and when they are gone


def lose_nothing(journal: Journal[Any]) -> None:
    """The journal is as it was made."""


def clear(journal: Journal[Any]) -> None:
    journal.clear()


def refuse(journal: Journal[Any]) -> None:
    journal.subscribe(journal.append)
    put(journal, "other")


def append_no_event(journal: Journal[Any]) -> None:
    journal.append({"name": "other"})


@pytest.mark.parametrize(
    "lose,reason,late",
    [
        (lose_nothing, "the journal began then", 0 * US),
        (clear, "the journal was cleared then", 0 * US),
        (refuse, "the journal refused an append then", US),
        (append_no_event, "no proper HandlerEvent", US),
    ],
)
@pytest.mark.parametrize("max_gap", [0 * US, US, HOUR])
async def test_after_a_loss_the_journal_vouches_again(
    clock: ControlledClock,
    journal: Journal[Any],
    lose: Callable[[Journal[Any]], None],
    reason: str,
    late: timedelta,
    max_gap: timedelta,
) -> None:
    """The time before is a gap; exactly at `retry_at` the window has left it, and a microsecond before it has not."""
    journal.declare("quote.read")
    create_memory_journal_store(journal=journal)
    if lose is not lose_nothing:
        clock.advance_by(30 * DAY)
        assert await proven(journal)
        lose(journal)
    lost = clock.now().wall
    clock.advance_by(3 * HOUR)
    failure: Any = await judged(journal, max_gap=max_gap)
    assert reason in failure.reason
    assert failure.retry_at == lost + late + DAY - max_gap
    clock.advance_by(failure.retry_at - clock.now().wall - US)
    assert not await proven(journal, max_gap=max_gap)
    clock.advance_by(US)
    passed: Any = await judged(journal, max_gap=max_gap)
    assert type(passed) is Passed
    assert sum((gap.until - gap.since for gap in passed.tolerated), 0 * US) == max_gap


async def test_a_fresh_process_cannot_vouch(clock: ControlledClock, journal: Journal[Any]) -> None:
    """Fourteen days of silence take fourteen days."""
    journal.declare("quote.read")
    assert not await proven(journal, 14 * DAY)
    clock.advance_by(14 * DAY - US)
    assert not await proven(journal, 14 * DAY)
    clock.advance_by(US)
    assert await proven(journal, 14 * DAY)


def ring(clock: ControlledClock, policy: Any = "drop_oldest") -> Journal[Any]:
    journal: Journal[Any] = Journal(clock=clock, max_entries=2, overflow=policy)
    journal.declare("quote.read")
    clock.advance_by(30 * DAY)
    create_memory_journal_store(journal=journal)
    return journal


@pytest.mark.parametrize("ago", [0 * US, HOUR, -HOUR])
async def test_a_ring_vouches_as_far_back_as_it_reaches(clock: ControlledClock, ago: timedelta) -> None:
    """What it dropped leaves a gap up to its completion, be it out of order or in the future, and none after it."""
    journal = ring(clock)
    dropped = put(journal, "other", ago=ago)
    for _ in range(2):
        clock.advance_by(US)
        assert await proven(journal)
        put(journal, "other")
    failure: Any = await judged(journal)
    assert "dropped to make room" in failure.reason
    assert failure.retry_at == dropped.completed_at.wall + US + DAY
    clock.advance_by(failure.retry_at - clock.now().wall - US)
    assert not await proven(journal)
    clock.advance_by(US)
    assert await proven(journal)


async def test_a_ring_that_drops_an_old_completion_keeps_its_reach(clock: ControlledClock) -> None:
    """An older event that is dropped after a newer one does not bring the reach back."""
    journal = ring(clock)
    for ago in (HOUR, 3 * HOUR, 2 * HOUR, 0 * US):
        put(journal, "other", ago=ago)
    (gap,) = (await create_memory_journal_store(journal=journal).query(READ, DAY)).gaps
    assert gap.until == clock.now().wall - HOUR + US


async def test_a_full_journal_that_refuses_has_a_gap(clock: ControlledClock) -> None:
    """The refused event may have been the one: up to its completion nothing is proven."""
    journal = ring(clock, "error")
    put(journal, "other")
    put(journal, "other")
    assert await proven(journal)
    with pytest.raises(JournalOverflowError):
        put(journal)
    failure: Any = await judged(journal)
    assert "refused an append" in failure.reason
    assert failure.retry_at == clock.now().wall + US + DAY


async def test_a_restored_journal_proves_what_it_sees(clock: ControlledClock, journal: Journal[Any]) -> None:
    """Its events are found by their wall time; it declares nothing, and the time before it is a gap."""
    clock.advance_by(30 * DAY)
    put(journal, ago=2 * HOUR)
    assert journal.declared == {"quote.read"}
    there = create_controlled_clock(clock.now().wall + HOUR)
    restored: Journal[Any] = Journal.from_json(journal.to_json(), clock=there, serializer=event_serializer)
    store = create_memory_journal_store(journal=restored)
    assert [len(await store.query(READ, hours * HOUR)) for hours in (2, 3)] == [0, 1]
    window = await store.query(READ, 2 * HOUR)
    assert (window.witnessed, [(gap.since, gap.until) for gap in window.gaps]) == (
        False,
        [(window.since, there.now().wall)],
    )
    restored.declare("quote.read")
    there.advance_by(2 * HOUR - US)
    assert not await proven(restored, 2 * HOUR)
    there.advance_by(US)
    assert await proven(restored, 2 * HOUR)


# -- the wall is set


@pytest.mark.parametrize("jump", [-400 * DAY, -HOUR, -US, US, HOUR, 400 * DAY])
async def test_setting_the_wall_changes_no_age(
    clock: ControlledClock, journal: Journal[Any], store: MemoryJournalStore, jump: timedelta
) -> None:
    """A step of NTP hides no event and ages none; the bounds are reckoned back from the new now."""
    put(journal, ago=HOUR)
    put(journal, ago=HOUR + US)
    clock.jump_wall_time(clock.now().wall + jump)
    window = await store.query(READ, HOUR)
    assert len(window) == 1
    assert (window.since, window.until) == (clock.now().wall - HOUR, clock.now().wall)
    put(journal)
    assert len(await store.query(READ, US)) == 1


@pytest.mark.parametrize("jump", [-400 * DAY, -HOUR, HOUR, 400 * DAY])
async def test_setting_the_wall_fakes_no_coverage(
    clock: ControlledClock, journal: Journal[Any], jump: timedelta
) -> None:
    """The gap before the begin stays as long as it was, and is gone when so much time has really passed."""
    journal.declare("quote.read")
    clock.advance_by(HOUR)
    clock.jump_wall_time(clock.now().wall + jump)
    failure: Any = await judged(journal)
    (gap,) = (await create_memory_journal_store(journal=journal).query(READ, DAY)).gaps
    assert gap.until == clock.now().wall - HOUR
    assert failure.retry_at == clock.now().wall + DAY - HOUR
    clock.advance_by(DAY - HOUR - US)
    assert not await proven(journal)
    clock.advance_by(US)
    assert await proven(journal)


@pytest.mark.parametrize("jump", [-9 * DAY, 9 * DAY])
async def test_restored_events_are_placed_once(clock: ControlledClock, journal: Journal[Any], jump: timedelta) -> None:
    """After they were placed by their wall time, a step of the wall moves them no more."""
    put(journal)
    restored: Journal[Any] = Journal.from_json(journal.to_json(), clock=clock, serializer=event_serializer)
    store = create_memory_journal_store(journal=restored)
    clock.advance_by(HOUR)
    clock.jump_wall_time(clock.now().wall + jump)
    assert [len(await store.query(READ, each)) for each in (HOUR - US, HOUR)] == [0, 1]


async def test_setting_the_wall_makes_no_call_look_young(
    clock: ControlledClock, journal: Journal[Any], store: MemoryJournalStore
) -> None:
    """Since when a call is in flight is reckoned back from now, like the bounds of the window."""
    with recorded(journal, "quote.read", observed={"tenant": "a"}):
        clock.advance_by(HOUR)
        clock.jump_wall_time(clock.now().wall + 9 * DAY)
        (call,) = (await store.query(READ, HOUR)).in_flight
        assert (call.started_at.wall, call.observed["tenant"]) == (clock.now().wall - HOUR, "a")


# -- finer than a microsecond


class StoppedClock(ControlledClock):
    """A clock that reads what a test wrote, to the nanosecond."""

    reading = Instant(wall_ns=0, mono_ns=0)

    def now(self) -> Instant:
        return self.reading

    def set(self, ns: int) -> None:
        self.reading = Instant(wall_ns=10**18 + ns, mono_ns=ns)


@pytest.mark.parametrize("began", [0, 1, 500, 900, 999, 1_000, 1_001])
@pytest.mark.parametrize("phase", [0, 1, 499, 500, 501, 899, 900, 901, 999])
async def test_no_gap_is_rounded_away(began: int, phase: int) -> None:
    """A gap of a nanosecond is a gap; one that is over by a nanosecond is none."""
    clock = StoppedClock(EPOCH)
    clock.set(began)
    journal: Journal[Any] = Journal(clock=clock)
    journal.declare("quote.read")
    for now in range(100_000 + phase, 104_000 + phase, 1_000):
        clock.set(now)
        assert await proven(journal, 100 * US) == (now - 100_000 >= began)


async def test_bounds_are_rounded_outwards() -> None:
    """Between two microseconds, the window that is told is the one that was searched, and a little more."""
    clock = StoppedClock(EPOCH)
    clock.set(0)
    store = create_memory_journal_store(journal=Journal(clock=clock))
    clock.set(5_500)
    window, begin = await store.query(READ, 5 * US), Instant(wall_ns=10**18, mono_ns=0).wall
    assert (window.since, window.until) == (begin, begin + 6 * US)


# -- the store itself


async def test_stores_of_a_journal_share_an_index(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """The second store knows what the first one does, and the events are filed once."""
    event = put(journal)
    other = create_memory_journal_store(journal=journal)
    assert other._index is store._index is journal.follow(EventIndex)
    assert list(await other.query(READ, HOUR)) == [event]


async def test_what_was_there_before_is_indexed(journal: Journal[Any], clock: ControlledClock) -> None:
    """A store that comes late finds the events that the journal holds."""
    put(journal, ago=US)
    assert len(await create_memory_journal_store(journal=journal).query(READ, HOUR)) == 1


async def test_a_window_does_not_change_later(journal: Journal[Any], store: MemoryJournalStore) -> None:
    """It is a copy of one moment."""
    put(journal)
    window: JournalWindow = await store.query(READ, HOUR)
    put(journal)
    journal.clear()
    assert len(window) == 1


def test_it_sees_one_process(store: MemoryJournalStore, clock: ControlledClock) -> None:
    """Its scope says so, and its clock is the journal's."""
    assert (store.scope, store.clock) == ("process", clock)


async def test_a_where_that_answers_with_an_awaitable_is_an_error() -> None:
    """An unawaited coroutine would count as true, and so admit any event."""

    async def no(_: HandlerEvent) -> bool:
        return False

    journal = aged_journal()
    record_events(journal, "quote.read")
    store = create_memory_journal_store(journal=journal)
    with pytest.raises(TypeError, match="awaitable"):
        await store.query(JournalQuery("quote.read", where=lambda event: no(event)), timedelta(days=1))  # noqa: PLW0108 - an async one is refused earlier
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(TypeError, match="awaitable"):
        await store.query(JournalQuery("quote.read", where=lambda _: future), timedelta(days=1))
    assert len(await store.query(JournalQuery("quote.read", where=lambda event: event.name), timedelta(days=1))) == 1


async def test_a_call_that_ends_during_the_query_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer can end a call in the middle of a query, in the same thread: it is in flight, or an event."""
    journal = aged_journal()
    store = create_memory_journal_store(journal=journal)
    call = recorded(journal, "quote.read")
    call.__enter__()
    look = EventIndex.since

    def look_and_be_interrupted(self: EventIndex, *args: Any) -> list[HandlerEvent]:
        found = look(self, *args)
        call.__exit__(None, None, None)
        return found

    monkeypatch.setattr(EventIndex, "since", look_and_be_interrupted)
    window = await store.query(JournalQuery("quote.read"), timedelta(days=1))
    assert len(window) + len(window.in_flight) == 1


async def test_a_limit_can_be_huge() -> None:
    """The largest limit is no limit."""
    journal = aged_journal()
    record_events(journal, "quote.read", 3)
    store = create_memory_journal_store(journal=journal)
    query = JournalQuery("quote.read", where=lambda _: True, limit=sys.maxsize)
    assert len(await store.query(query, timedelta(days=1))) == 3
