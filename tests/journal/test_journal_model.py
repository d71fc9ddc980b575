"""The journal against a model: a plain list, and a number that says since when nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from phyxius.clock import Clock, Instant, create_controlled_clock
from phyxius.journal import (
    Journal,
    JournalEntry,
    JournalNotice,
    JournalOverflowError,
    JournalReentrancyError,
)

NS = 1_000_000_000


@attrs.frozen
class Event:
    name: str
    completed_at: Instant


class Serializer:
    def dump(self, data: object, /) -> object:
        return [data.name, data.completed_at.wall_ns] if isinstance(data, Event) else data

    def load(self, value: Any, /) -> object:
        return restored(Event(value[0], Instant(wall_ns=value[1], mono_ns=None))) if type(value) is list else value


def restored(data: object) -> object:
    if not isinstance(data, Event):
        return data
    return Event(data.name, attrs.evolve(data.completed_at, mono_ns=None))


class Mirror:
    """A follower that holds what the journal holds, as far as it was told."""

    def __init__(self, clock: Clock) -> None:
        self.entries: list[JournalEntry[Any]] = []

    def added(self, entry: JournalEntry[Any], /) -> None:
        self.entries.append(entry)

    def dropped(self, entry: JournalEntry[Any], /) -> None:
        assert self.entries.pop(0) is entry

    def cleared(self) -> None:
        self.entries.clear()


payloads = st.integers() | st.tuples(st.sampled_from("abc"), st.integers(-20, 20), st.booleans())
bounds = st.just((None, "none")) | st.tuples(st.integers(1, 5), st.sampled_from(["drop_oldest", "error"]))


class JournalMachine(RuleBasedStateMachine):
    """Does to a journal what can be done, and to the model the same."""

    @initialize(bound=bounds)
    def create(self, bound: tuple[int | None, Any]) -> None:
        self.clock = create_controlled_clock()
        self.max_entries, self.overflow = bound
        self.notices: list[JournalNotice] = []
        self.told: list[JournalEntry[Any]] = []
        self.broken_id = False
        self.within: list[object] = []
        self.journal: Journal[Any] = Journal(
            clock=self.clock,
            max_entries=self.max_entries,
            overflow=self.overflow,
            serializer=Serializer(),
            id_generator=self.new_id,
            emit=self.notices.append,
        )
        self.watch()
        self.ids = 0
        self.held: list[JournalEntry[Any]] = []
        self.next = 0
        self.names: set[str] = set()
        self.complete_since = self.now

    def watch(self) -> None:
        self.journal.subscribe(self.subscriber)
        self.mirror = self.journal.follow(Mirror)

    def new_id(self) -> str:
        if self.broken_id:
            raise OSError("no id")
        self.ids += 1
        return f"id-{self.ids}"

    def subscriber(self, entry: JournalEntry[Any]) -> None:
        self.told.append(entry)
        if self.within:
            self.journal.append(self.within.pop())

    # -- the model of completeness, in nanoseconds of the monotonic clock

    @property
    def now(self) -> int:
        mono_ns = self.clock.now().mono_ns
        assert mono_ns is not None
        return mono_ns

    def completed(self, data: object, appended: Instant) -> int:
        at = data.completed_at if isinstance(data, Event) else appended
        return at.mono_ns if at.mono_ns is not None else self.now - (self.clock.now().wall_ns - at.wall_ns)

    def lose(self, until: int) -> None:
        self.complete_since = max(self.complete_since, until)

    def lose_append(self, data: object) -> None:
        self.lose(self.now + 1)
        self.lose(self.completed(data, self.clock.now()) + 1)

    def data(self, payload: Any) -> object:
        if isinstance(payload, int):
            return payload
        name, seconds, own = payload
        at = self.clock.now().shifted(seconds * NS)
        return Event(name, at if own else attrs.evolve(at, mono_ns=None))

    # -- what can be done

    @rule(milliseconds=st.integers(0, 10_000))
    def let_time_pass(self, milliseconds: int) -> None:
        self.clock.advance_by(timedelta(milliseconds=milliseconds))

    @rule(seconds=st.integers(-30, 30))
    def set_the_wall(self, seconds: int) -> None:
        self.clock.jump_wall_time(self.clock.now().wall + timedelta(seconds=seconds))

    @rule(payload=payloads)
    def append(self, payload: object) -> None:
        data = self.data(payload)
        if len(self.held) == self.max_entries:
            if self.overflow == "error":
                with pytest.raises(JournalOverflowError):
                    self.journal.append(data)
                self.lose_append(data)
                self.hears("append_refused")
                return
            oldest = self.held.pop(0)
            self.lose(self.completed(oldest.data, oldest.timestamp) + 1)
        entry = self.journal.append(data)
        assert (entry.sequence, entry.timestamp) == (self.next, self.clock.now())
        assert entry.data is data
        assert self.told.pop() is entry
        self.held.append(entry)
        self.next += 1
        if isinstance(data, Event):
            self.names.add(data.name)

    @precondition(lambda self: self.overflow != "error" or len(self.held) < self.max_entries)
    @rule(payload=payloads)
    def fail_to_make_an_id(self, payload: object) -> None:
        data = self.data(payload)
        self.broken_id = True
        self.journal._new_id = self.new_id
        with pytest.raises(OSError, match="no id"):
            self.journal.append(data)
        self.broken_id = False
        self.lose_append(data)

    @precondition(lambda self: self.overflow != "error" or len(self.held) < self.max_entries)
    @rule(outer=payloads, inner=payloads)
    def append_within_an_append(self, outer: object, inner: object) -> None:
        data = self.data(inner)
        self.within = [data]
        self.append(outer)
        self.lose_append(data)
        self.hears("append_refused", "subscriber_failed")

    @rule(names=st.sets(st.sampled_from("cde")))
    def declare(self, names: set[str]) -> None:
        self.journal.declare(*names)
        self.names |= names

    @rule()
    def clear(self) -> None:
        self.journal.clear()
        self.lose(self.now)
        for entry in self.held:
            self.lose(self.completed(entry.data, entry.timestamp) + 1)
        self.held.clear()

    @rule()
    def restore(self) -> None:
        text = self.journal.to_json()
        self.journal = Journal.from_json(text, clock=self.clock, serializer=Serializer())
        assert self.journal.to_json() == text
        self.journal._emit = self.notices.append
        self.watch()
        self.held = [
            attrs.evolve(entry, timestamp=attrs.evolve(entry.timestamp, mono_ns=None), data=restored(entry.data))
            for entry in self.held
        ]
        self.names = set()
        self.complete_since = self.now

    # -- what must hold

    def hears(self, *kinds: str) -> None:
        assert [notice.kind for notice in self.notices] == list(kinds)
        expected = JournalOverflowError if kinds == ("append_refused",) else JournalReentrancyError
        assert {type(notice.error) for notice in self.notices} == {expected}
        self.notices.clear()

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert list(self.journal) == self.held == self.mirror.entries
        assert len(self.journal) == len(self.held)
        assert self.journal.first() == (self.held[0] if self.held else None)
        assert self.journal.last() == (self.held[-1] if self.held else None)
        by_sequence = {entry.sequence: entry for entry in self.held}
        for sequence in range(-2, self.next + 2):
            assert self.journal.entry(sequence) == by_sequence.get(sequence)
        assert len({entry.id for entry in self.held}) == len(self.held)

    @invariant()
    def it_knows_what_the_model_knows(self) -> None:
        assert self.journal.complete_since.mono_ns == self.complete_since
        assert self.journal.declared == self.names
        snapshot = self.journal.snapshot()
        assert (list(snapshot.entries), snapshot.taken_at) == (self.held, self.clock.now())
        assert snapshot.complete_since == self.journal.complete_since

    @invariant()
    def nobody_heard_of_anything_else(self) -> None:
        assert self.notices == []
        assert self.told == []


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(settings.default, max_examples=150, stateful_step_count=40)
