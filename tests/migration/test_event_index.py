"""The index over a journal's events, against a list that is searched from end to end."""

from __future__ import annotations

import gc
import math
import sys
import weakref
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import FrameType
from typing import Any
from unittest.mock import MagicMock

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from phyxius.clock import Instant, create_controlled_clock
from phyxius.handler import HandlerEvent, event_serializer
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, JournalWindow, MemoryJournalStore, create_memory_journal_store
from phyxius.migration._event_index import EventIndex, Series

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("quote.read", "quote.write", "migration.quotes.advance")
names, outcomes = st.sampled_from(NAMES), st.sampled_from(["success", "failure"])


class Name(str, Enum):  # noqa: UP042 - its str() is not its value
    READ = "quote.read"


class Odd(str):
    """A text that no dict can find by its value."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return self is other


class EventToo(HandlerEvent):
    """An event of a kind of its own."""


def make_event(number: int, name: str, outcome: Any, completed_at: Instant) -> HandlerEvent:
    source = "migration" if name.startswith("migration.") else "handler"
    return HandlerEvent(name, outcome, completed_at, source=source, observed={"number": number})


@attrs.define
class Fact:
    """What the model knows of an event: where it lies in time, and whether the journal still holds it."""

    number: int
    event: HandlerEvent
    mono_ns: int
    held: bool = True


class IndexMachine(RuleBasedStateMachine):
    """Does with a journal what can be done with one, and asks its store.

    Two things are checked. What a query finds is what a search of all that is held would find. And whatever
    ever happened, the store either finds, or has a gap there: the promise that a true `Ok` rests on.
    """

    @initialize(bound=st.none() | st.integers(1, 6))
    def begin(self, bound: int | None) -> None:
        self.clock = create_controlled_clock(EPOCH)
        self.journal: Journal[Any] = Journal(
            clock=self.clock,
            max_entries=bound,
            overflow="drop_oldest" if bound else "none",
            serializer=event_serializer,
        )
        self.bound = bound
        self.facts: list[Fact] = []
        self.numbers = 0
        self.held: list[Fact | None] = []
        self.store = create_memory_journal_store(journal=self.journal)

    @property
    def mono_ns(self) -> int:
        mono_ns = self.clock.now().mono_ns
        assert mono_ns is not None
        return mono_ns

    def took(self, fact: Fact | None) -> None:
        if self.bound is not None and len(self.held) == self.bound:
            dropped = self.held.pop(0)
            if dropped is not None:
                dropped.held = False
        self.held.append(fact)

    @rule(name=names, outcome=outcomes, ns=st.integers(-30_500, 8_500), foreign=st.integers(0, 4))
    def append(self, name: str, outcome: str, ns: int, foreign: int) -> None:
        """Append an event, in order or not, or one that another process stamped, which has no monotonic time."""
        completed_at = self.clock.now().shifted(ns)
        if not foreign:
            completed_at = attrs.evolve(completed_at, mono_ns=None)
        event = make_event(self.numbers, name, outcome, completed_at)
        fact = Fact(self.numbers, event, self.mono_ns + ns)
        self.numbers += 1
        self.journal.append(event)
        self.facts.append(fact)
        self.took(fact)

    @rule()
    def append_what_is_no_event(self) -> None:
        """Append an event without a proper name; a query without a name would want it."""
        event: Any = make_event(-1, "quote.read", "success", self.clock.now())
        self.journal.append(attrs.evolve(event, name=7))
        self.facts.append(Fact(-1, event, self.mono_ns, held=False))
        self.took(None)

    @rule(microseconds=st.integers(1, 20))
    def time_passes(self, microseconds: int) -> None:
        self.clock.advance_by(timedelta(microseconds=microseconds))

    @rule(microseconds=st.integers(-40, 40))
    def the_wall_is_set(self, microseconds: int) -> None:
        self.clock.jump_wall_time(self.clock.now().wall + timedelta(microseconds=microseconds))

    @rule()
    def clear(self) -> None:
        self.journal.clear()
        for fact in self.facts:
            fact.held = False
        self.held = []

    @rule()
    def restore(self) -> None:
        """Start anew from the text: what is held is placed by its wall time, and all else is before the restore."""
        self.clock.advance_by(timedelta(microseconds=1))
        self.journal = Journal.from_json(self.journal.to_json(), clock=self.clock, serializer=event_serializer)
        self.store = create_memory_journal_store(journal=self.journal)
        now = self.clock.now()
        for fact in self.facts:
            fact.mono_ns = min(fact.mono_ns, self.mono_ns - 1)
            if fact.held:
                fact.mono_ns = self.mono_ns - (now.wall_ns - fact.event.completed_at.wall_ns)

    def ask(self, query: JournalQuery, microseconds: int) -> JournalWindow:
        with pytest.raises(StopIteration) as answer:  # it never waits, and a loop for each would take its time
            self.store.query(query, timedelta(microseconds=microseconds)).send(None)
        window: JournalWindow = answer.value.value
        return window

    @rule(
        name=st.none() | names | st.just("no.such"),
        outcome=st.none() | outcomes,
        even=st.booleans(),
        limit=st.none() | st.integers(1, 4),
        microseconds=st.integers(1, 60),
    )
    def query(self, name: str | None, outcome: Any, even: bool, limit: int | None, microseconds: int) -> None:
        where = (lambda event: event.observed["number"] % 2 == 0) if even else None
        window = self.ask(JournalQuery(name, outcome, where, limit), microseconds)
        since_ns = self.mono_ns - microseconds * 1_000
        wanted = [
            fact
            for fact in sorted(self.facts, key=lambda fact: fact.mono_ns)
            if fact.held
            and fact.mono_ns >= since_ns
            and (fact.event.name == name if name else fact.event.source != "migration")
            and outcome in (None, fact.event.outcome)
            and (not even or fact.number % 2 == 0)
        ]
        found = [event.observed["number"] for event in window]
        assert window.truncated == (limit is not None and len(wanted) > limit)
        places = {fact.number: fact.mono_ns for fact in wanted}
        kept = wanted[-(limit or len(wanted)) :] if wanted else []
        assert [places[number] for number in found] == [fact.mono_ns for fact in kept]  # type: ignore[index]
        assert len(set(found)) == len(found)

    @invariant()
    def nothing_is_missing_without_a_gap(self) -> None:
        microseconds = 200
        found: set[object] = set()
        for name in (None, NAMES[2]):
            window = self.ask(JournalQuery(name), microseconds)
            found |= {event.observed["number"] for event in window}
        for fact in self.facts:
            ago_ns = self.mono_ns - fact.mono_ns
            age = timedelta(microseconds=math.ceil(ago_ns / 1_000))
            if ago_ns <= microseconds * 1_000 and not (fact.held and fact.number in found):
                assert any(gap.since <= window.until - age < gap.until for gap in window.gaps), fact


IndexMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestIndex = IndexMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), max_size=80), st.integers(0, 20))
@example([(5, 0), (6, 0), (7, 0), (8, 0), (0, 4), (1, 0), (0, 4), (0, 0)], 0)
@example([(5, 0), (5, 0), (1, 3)], 0)
def test_a_series_is_a_sorted_list(steps: list[tuple[int, int]], since: int) -> None:
    """Whatever is added and removed in whatever order, a series holds the rest, sorted by time."""
    series, held = Series(), []
    for mono_ns, step in steps:
        if held and step > 2:  # remove: the oldest, or any
            held.sort(key=lambda each: each[0])
            series.remove(*held.pop(0 if step == 4 else mono_ns % len(held)))
        else:
            held.append((mono_ns, make_event(0, "quote.read", "success", Instant(wall_ns=0, mono_ns=mono_ns))))
            series.add(*held[-1])
        assert len(series) == len(held)
    times, events = series.since(since)
    assert times == sorted(mono_ns for mono_ns, _ in held if mono_ns >= since)
    assert {id(event) for event in events} == {id(event) for mono_ns, event in held if mono_ns >= since}
    assert [event.completed_at.mono_ns for event in events] == times


def filled(count: int, **bounds: Any) -> tuple[Journal[Any], MemoryJournalStore]:
    journal: Journal[Any] = Journal(clock=create_controlled_clock(EPOCH), **bounds)
    store = create_memory_journal_store(journal=journal)
    for number in range(count):
        journal.append(make_event(number, "quote.read", "success", journal.clock.now().shifted(number)))
    return journal, store


@pytest.mark.parametrize("let_go", ["drop", "clear"])
def test_what_is_dropped_is_let_go(let_go: str) -> None:
    """Neither the journal nor the index keeps an event alive that the journal has dropped."""
    journal, _ = filled(10, max_entries=8, overflow="drop_oldest")
    watched = [weakref.ref(entry.data) for entry in journal]
    if let_go == "clear":
        journal.clear()
    else:
        for number in range(5):
            journal.append(make_event(number, "quote.read", "success", journal.clock.now()))
    gc.collect()
    assert [ref() is None for ref in watched] == [True] * 5 + [let_go == "clear"] * 3


def test_a_ring_does_not_grow() -> None:
    """The index takes no more room than a few times what the journal holds, however much went through it."""
    journal, _ = filled(1_000, max_entries=8, overflow="drop_oldest")
    (series,) = journal.follow(EventIndex)._series["quote.read"].values()
    assert len(series._times) == len(series._events) <= 2 * 8 + 1


def test_names_without_events_are_forgotten() -> None:
    """A name that lasts no longer than its events costs nothing after them."""
    journal, _ = filled(0, max_entries=1, overflow="drop_oldest")
    for number in range(5):
        journal.append(make_event(number, f"once.{number}", "success", journal.clock.now()))
    assert list(journal.follow(EventIndex)._series) == ["once.4"]


class Counted(list[int]):
    """A list that counts how many of its elements are read."""

    touched = 0

    def __getitem__(self, index: Any) -> Any:
        taken = super().__getitem__(index)
        Counted.touched += len(taken) if isinstance(index, slice) else 1
        return taken


async def count_work(store: MemoryJournalStore, index: EventIndex, name: str | None) -> tuple[int, int]:
    """The calls that a silent query makes, those of a bisection excepted, and the times that it reads."""
    (series,) = index._series["quote.read"].values()
    series._times, series._events = Counted(series._times), Counted(series._events)  # type: ignore[assignment,arg-type]
    Counted.touched = calls = 0

    def count_call(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call") and frame.f_code is not Counted.__getitem__.__code__

    gc.disable()  # what it calls back would be counted
    sys.setprofile(count_call)
    try:
        window = await store.query(JournalQuery(name), timedelta(hours=1))
    finally:
        sys.setprofile(None)
        gc.enable()
    assert len(window) == 0
    return calls, Counted.touched


async def test_a_silent_query_does_not_look_at_all_events() -> None:
    """Its work is the same for a thousand events as for a hundred thousand, but for the steps of a bisection."""
    work = []
    for count in (1_000, 100_000):
        journal, store = filled(count)
        journal.clock.advance_by(timedelta(days=1))  # type: ignore[attr-defined]
        work.append([await count_work(store, journal.follow(EventIndex), name) for name in ("quote.read", None)])
    for (few_calls, _), (many_calls, touched) in zip(*work, strict=True):
        assert many_calls == few_calls
        assert touched <= math.ceil(math.log2(100_000)) + 1


def spoilt(event: HandlerEvent, **fields: Any) -> HandlerEvent:
    """An event whose fields were not what they are declared to be."""
    for field, value in fields.items():
        object.__setattr__(event, field, value)
    return event


def imitation(event: HandlerEvent) -> MagicMock:
    """A mock with all that an event has."""
    mock = MagicMock(spec=HandlerEvent)
    mock.configure_mock(**attrs.asdict(event, recurse=False))
    return mock


def fresh(journal: Journal[Any]) -> HandlerEvent:
    return make_event(1, "quote.read", "success", journal.clock.now())


@pytest.mark.parametrize(
    "make",
    [
        lambda journal: {"name": "quote.read"},
        lambda journal: "quote.read",
        lambda journal: None,
        lambda journal: spoilt(fresh(journal), name=7),
        lambda journal: spoilt(fresh(journal), name=["quote.read"]),
        lambda journal: spoilt(fresh(journal), completed_at=journal.clock.now().wall),
        lambda journal: spoilt(fresh(journal), completed_at=Instant(wall_ns=0, mono_ns=math.nan)),  # type: ignore[arg-type]
        lambda journal: spoilt(fresh(journal), completed_at=Instant(wall_ns=0, mono_ns=-math.inf)),  # type: ignore[arg-type]
        lambda journal: spoilt(fresh(journal), completed_at=Instant(wall_ns=0, mono_ns=True)),
        lambda journal: spoilt(fresh(journal), completed_at=Instant(wall_ns=math.nan, mono_ns=None)),  # type: ignore[arg-type]
        lambda journal: imitation(fresh(journal)),
    ],
)
async def test_what_no_query_can_find_is_a_loss(make: Any) -> None:
    """A window that reaches back to such an entry has a gap there, and one that does not has none."""
    journal, store = filled(0)
    journal.clock.advance_by(timedelta(days=1))  # type: ignore[attr-defined]
    journal.append(make(journal))
    appended = journal.clock.now().wall
    journal.clock.advance_by(timedelta(hours=1))  # type: ignore[attr-defined]
    window = await store.query(JournalQuery("quote.read"), timedelta(hours=1))
    (gap,) = window.gaps
    assert len(window) == 0
    assert (gap.until, "no proper HandlerEvent" in gap.reason) == (appended + timedelta(microseconds=1), True)
    journal.clock.advance_by(timedelta(microseconds=1))  # type: ignore[attr-defined]
    assert not (await store.query(JournalQuery("quote.read"), timedelta(hours=1))).gaps


async def test_a_later_loss_is_not_forgotten_over_an_earlier_one() -> None:
    """What is dropped after a loss, and lay before it, does not make the gap shorter."""
    journal, store = filled(0, max_entries=2, overflow="drop_oldest")
    clock: Any = journal.clock
    clock.advance_by(timedelta(days=1))
    journal.append(make_event(0, "quote.read", "success", attrs.evolve(clock.now().shifted(-(10**12)), mono_ns=None)))
    journal.append({"name": "quote.read"})
    clock.advance_by(timedelta(minutes=1))
    journal.append(fresh(journal))
    window = await store.query(JournalQuery("quote.read"), timedelta(hours=1))
    assert max(gap.until for gap in window.gaps) == window.until - timedelta(minutes=1) + timedelta(microseconds=1)


async def test_a_broken_time_hides_no_other_event() -> None:
    """What has no order is not sorted in among the events that have one."""
    journal, store = filled(0)
    for mono_ns in (1, math.nan, 2, math.nan, 3):
        journal.append(spoilt(fresh(journal), completed_at=journal.clock.now().shifted(0)))
        if mono_ns != mono_ns:
            broken = Instant(wall_ns=0, mono_ns=math.nan)  # type: ignore[arg-type]
            journal.append(spoilt(fresh(journal), completed_at=broken))
    assert len(await store.query(JournalQuery("quote.read"), timedelta(seconds=1))) == 5


@pytest.mark.parametrize("name", [Name.READ, Odd("quote.read")])
async def test_a_name_is_found_by_its_text(name: str) -> None:
    """An event whose name is a kind of text of its own is filed, found and dropped under the text."""
    journal, store = filled(0, max_entries=2, overflow="drop_oldest")
    journal.append(make_event(0, name, "success", journal.clock.now()))
    for query in (JournalQuery("quote.read"), JournalQuery(name), JournalQuery()):
        assert len(await store.query(query, timedelta(seconds=1))) == 1
    for number in range(1, 3):
        journal.append(make_event(number, "quote.read", "success", journal.clock.now()))
    assert len(await store.query(JournalQuery("quote.read"), timedelta(seconds=1))) == 2


async def test_an_event_of_a_kind_of_its_own_is_an_event() -> None:
    """A subclass of `HandlerEvent` is filed like one."""
    journal, store = filled(0)
    journal.append(EventToo("quote.read", "success", journal.clock.now()))
    assert len(await store.query(JournalQuery("quote.read"), timedelta(seconds=1))) == 1


@pytest.mark.parametrize("let_go", ["drop", "clear"])
async def test_setting_the_wall_fakes_no_coverage(let_go: str) -> None:
    """The place of an event without monotonic time is lost with it, wherever the wall says that it lay."""
    journal, store = filled(0, max_entries=1, overflow="drop_oldest")
    clock: Any = journal.clock
    clock.advance_by(timedelta(days=1))
    journal.append(make_event(0, "quote.read", "success", attrs.evolve(clock.now().shifted(9_000), mono_ns=None)))
    clock.jump_wall_time(clock.now().wall + timedelta(days=9))
    if let_go == "clear":
        journal.clear()
    else:
        journal.append(make_event(1, "quote.write", "success", clock.now()))
    window = await store.query(JournalQuery("quote.read"), timedelta(hours=1))
    assert len(window) == 0
    assert max(gap.until for gap in window.gaps) == window.until + timedelta(microseconds=10)
