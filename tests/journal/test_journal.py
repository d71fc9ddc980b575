"""The journal itself."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest

from phyxius.clock import Clock, ControlledClock, Instant, create_controlled_clock
from phyxius.journal import (
    Journal,
    JournalEntry,
    JournalNotice,
    JournalOverflowError,
    JournalReentrancyError,
)
from phyxius.journal._journal import _mend_after_fork

SECOND = timedelta(seconds=1)
NS = 1_000_000_000


@attrs.frozen
class Event:
    """Of its data the journal reads these two, and nothing else."""

    name: object = "event"
    completed_at: object = None


class Unreadable:
    """Data of which one attribute cannot be read."""

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute

    def __getattr__(self, attribute: str) -> object:
        if attribute == self.attribute:
            raise OSError(f"{attribute} cannot be read")
        raise AttributeError(attribute)


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


@pytest.fixture
def journal(clock: ControlledClock) -> Journal[Any]:
    return Journal(clock=clock)


@pytest.fixture
def notices() -> list[JournalNotice]:
    return []


def data_of(journal: Journal[Any]) -> list[object]:
    return [entry.data for entry in journal]


def elsewhere(function: Callable[[], object]) -> list[object]:
    """What a function returns when another thread runs it; pytest reports what it raises."""
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the other thread hangs"
    return answers


def is_free(journal: Journal[Any]) -> bool:
    """Whether another thread could use the journal now."""
    free = elsewhere(lambda: journal._lock.acquire(blocking=False) and (journal._lock.release() or True))
    return free == [True]


# -- what it holds


def test_an_append_answers_with_the_entry(journal: Journal[Any], clock: ControlledClock) -> None:
    """An entry has the next sequence number, the clock's time, an id of its own, and the data as it is."""
    data: list[object] = []
    first = journal.append(data)
    clock.advance_by(SECOND)
    second = journal.append(data)
    assert (first.sequence, second.sequence) == (0, 1)
    assert second.timestamp == clock.now()
    assert first.data is data
    assert first.id != second.id
    assert [journal.first(), journal.last()] == [first, second] == list(journal)


def test_an_empty_journal_has_no_entry(journal: Journal[Any]) -> None:
    """There is neither a first nor a last entry, nor one of any number."""
    assert (journal.first(), journal.last(), len(journal), list(journal)) == (None, None, 0, [])
    assert {journal.entry(sequence) for sequence in (-1, 0, 1)} == {None}


def test_ids_are_unique_across_journals(clock: ControlledClock) -> None:
    """Journals of several processes can be laid together."""
    ids = [Journal[Any](clock=clock).append(0).id for _ in range(20)]
    assert len(set(ids)) == 20


def test_the_id_generator_can_be_replaced(clock: ControlledClock) -> None:
    """The ids are those that the given function makes."""
    ids = iter("ab")
    journal: Journal[int] = Journal(clock=clock, id_generator=lambda: next(ids))
    assert [journal.append(0).id, journal.append(0).id] == ["a", "b"]


def test_a_full_journal_drops_the_oldest(clock: ControlledClock) -> None:
    """With `drop_oldest` the newest entries are held, under the numbers that they always had."""
    journal: Journal[int] = Journal(clock=clock, max_entries=3, overflow="drop_oldest")
    for data in range(5):
        journal.append(data)
    assert data_of(journal) == [2, 3, 4]
    assert [entry and entry.data for entry in map(journal.entry, range(-1, 6))] == [None, None, None, 2, 3, 4, None]


def test_a_full_journal_refuses(clock: ControlledClock, notices: list[JournalNotice]) -> None:
    """With `error` the append raises, `emit` is told, nothing is changed but the completeness, until `clear`."""
    journal: Journal[int] = Journal(clock=clock, max_entries=1, overflow="error", emit=notices.append)
    journal.append(1)
    clock.advance_by(SECOND)
    with pytest.raises(JournalOverflowError) as caught:
        journal.append(2)
    assert caught.value.max_entries == 1
    assert notices == [JournalNotice("append_refused", caught.value)]
    assert data_of(journal) == [1]
    assert journal.complete_since == clock.now().shifted(1)
    journal.clear()
    assert journal.append(3).sequence == 1


@pytest.mark.parametrize(
    "bound, problem",
    [
        ({"overflow": "drop_oldest"}, "needs a bound: give max_entries"),
        ({"overflow": "error"}, "needs a bound: give max_entries"),
        ({"max_entries": 1}, "a bound needs a policy"),
        ({"max_entries": 0, "overflow": "error"}, "at least 1, not 0"),
        ({"max_entries": -1, "overflow": "drop_oldest"}, "at least 1, not -1"),
        ({"max_entries": 1, "overflow": "ring"}, "not 'ring'"),
    ],
)
def test_a_bound_and_its_policy_belong_together(clock: ControlledClock, bound: dict[str, Any], problem: str) -> None:
    """Half a bound is refused, and the message says what is missing."""
    with pytest.raises(ValueError, match=problem):
        Journal(clock=clock, **bound)


class Ring(list[Any]):
    """A list that takes no more than one element at a time, each at no cost that grows with the list."""

    def __getitem__(self, index: Any) -> Any:
        assert isinstance(index, int)
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        assert isinstance(index, int)
        super().__setitem__(index, value)

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("an append must not go through the entries")

    __iter__ = __contains__ = __reversed__ = __add__ = __delitem__ = __eq__ = _refuse
    pop = insert = remove = copy = extend = index = sort = reverse = _refuse  # type: ignore[assignment]


@pytest.mark.parametrize("bound", [{}, {"max_entries": 5_000, "overflow": "drop_oldest"}], ids=["unbounded", "ring"])
def test_an_append_costs_the_same_at_any_size(clock: ControlledClock, bound: dict[str, Any]) -> None:
    """An append calls as many functions at ten entries as at many, and never goes through those that are held."""
    journal: Journal[Any] = Journal(clock=clock, **bound)
    journal.follow(Follower)
    journal.subscribe(lambda _: None)
    ring = journal._ring = Ring()

    def calls_of_an_append() -> int:
        events: list[str] = []
        ours = Journal.append.__code__.co_filename
        sys.setprofile(lambda frame, event, _: frame.f_code.co_filename == ours and events.append(event))
        try:
            journal.append(1)
        finally:
            sys.setprofile(None)
        return len(events)

    def fill(size: int) -> None:
        while len(journal) < size:
            journal.append(0)

    fill(10)
    few = calls_of_an_append()
    fill(4_999)
    assert calls_of_an_append() == few
    full = {calls_of_an_append() for _ in range(3)}
    assert len(full) == 1
    assert journal._ring is ring


def test_iteration_is_over_what_is_held_now(journal: Journal[Any]) -> None:
    """Appending and clearing while one iterates changes nothing for the one who does."""
    journal.append(1)
    journal.append(2)
    seen = []
    for entry in journal:
        seen.append(entry.data)
        journal.append(3)
        journal.clear()
    assert seen == [1, 2]


def test_a_snapshot_stays_as_it_was(journal: Journal[Any], clock: ControlledClock) -> None:
    """A snapshot is what was held and known at its instant."""
    entry = journal.append(Event("a"))
    since = journal.complete_since
    clock.advance_by(SECOND)
    snapshot = journal.snapshot()
    journal.append(Event("b"))
    journal.clear()
    assert snapshot.entries == (entry,)
    assert snapshot.taken_at == clock.now()
    assert snapshot.complete_since == since
    assert snapshot.declared == {"a"}


# -- since when it is complete


def completed(clock: Clock, seconds: int, mono: bool = True) -> Event:
    """An event that completed so many seconds after now."""
    at = clock.now().shifted(seconds * NS)
    return Event("event", at if mono else Instant(wall_ns=at.wall_ns, mono_ns=None))


def test_a_journal_is_complete_since_its_creation(clock: ControlledClock) -> None:
    """A fresh journal cannot vouch for what came before it."""
    clock.advance_by(SECOND)
    journal: Journal[Any] = Journal(clock=clock)
    created = clock.now()
    clock.advance_by(SECOND)
    journal.append(1)
    assert journal.complete_since == created
    assert "began" in journal.complete_since_reason


@pytest.mark.parametrize("mono", [True, False], ids=["of this process", "restored"])
@pytest.mark.parametrize("ends, since", [((1, 2), 1), ((5, 1), 5), ((-9, -8), None)])
def test_a_drop_moves_completeness_to_just_after_it(
    clock: ControlledClock, mono: bool, ends: tuple[int, int], since: int | None
) -> None:
    """It counts when the dropped event completed, be it out of order, in the future, or before the journal began."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    created = clock.now()
    journal.append(completed(clock, ends[0], mono))
    journal.append(completed(clock, ends[1], mono))
    assert journal.complete_since.ns_since(created) == (0 if since is None else since * NS + 1)
    assert ("dropped" in journal.complete_since_reason) is (since is not None)


def test_completeness_never_moves_back(clock: ControlledClock) -> None:
    """A dropped event that completed early does not undo the loss of one that completed late."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    for seconds in (7, 2, 3):
        journal.append(completed(clock, seconds))
    assert journal.complete_since == clock.now().shifted(7 * NS + 1)


def test_data_without_a_time_counts_as_completed_when_it_was_appended(clock: ControlledClock) -> None:
    """What carries no `Instant` is lost at its timestamp."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    clock.advance_by(SECOND)
    appended = clock.now()
    journal.append(Event(completed_at="yesterday"))
    clock.advance_by(SECOND)
    journal.append(1)
    assert journal.complete_since == appended.shifted(1)


def test_a_set_wall_does_not_fake_completeness(clock: ControlledClock) -> None:
    """The loss is dated on the monotonic clock, and its wall time is reckoned from now."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    clock.advance_by(SECOND)
    journal.append(completed(clock, 0))
    clock.jump_wall_time(clock.now().wall - timedelta(days=1))
    clock.advance_by(SECOND)
    journal.append(1)
    assert journal.complete_since == clock.now().shifted(1 - NS)


@pytest.mark.parametrize("future", [None, 5])
def test_a_clear_moves_completeness_to_now_or_later(
    journal: Journal[Any], clock: ControlledClock, future: int | None
) -> None:
    """What is cleared may be stamped in the future, and then the loss reaches that far."""
    clock.advance_by(SECOND)
    journal.append(completed(clock, -1))
    if future:
        journal.append(completed(clock, future))
    clock.advance_by(SECOND)
    cleared = clock.now()
    journal.clear()
    assert list(journal) == []
    assert journal.complete_since == (cleared.shifted((future - 1) * NS + 1) if future else cleared)
    assert "cleared" in journal.complete_since_reason


def refuse_overflow(journal: Journal[Any], data: object) -> None:
    while True:
        journal.append(data)


def refuse_reentrancy(journal: Journal[Any], data: object) -> None:
    raised: list[BaseException] = []

    def again(_: JournalEntry[Any]) -> None:
        try:
            journal.append(data)
        except JournalReentrancyError as error:
            raised.append(error)

    journal.subscribe(again)
    journal.append(Event(completed_at=journal.complete_since))
    raise raised[0]


def refuse_id(journal: Journal[Any], data: object) -> None:
    journal._new_id = lambda: str(1 // 0)
    journal.append(data)


@pytest.mark.parametrize(
    "refuse, error",
    [
        (refuse_overflow, JournalOverflowError),
        (refuse_reentrancy, JournalReentrancyError),
        (refuse_id, ZeroDivisionError),
    ],
)
@pytest.mark.parametrize("seconds, since", [(-5, 0), (0, 0), (5, 5)])
def test_a_refused_append_is_a_loss(
    clock: ControlledClock,
    refuse: Callable[[Journal[Any], object], None],
    error: type[Exception],
    seconds: int,
    since: int,
) -> None:
    """Whatever refused it, the journal is complete only since just after it, or after its event completed."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda _: None)
    clock.advance_by(SECOND)
    with pytest.raises(error):
        refuse(journal, completed(clock, seconds))
    assert journal.complete_since == clock.now().shifted(since * NS + 1)
    assert "refused" in journal.complete_since_reason


@pytest.mark.parametrize("attribute", ["name", "completed_at"])
def test_data_that_cannot_be_read_is_refused_whole(clock: ControlledClock, attribute: str) -> None:
    """Data whose attributes raise is a loss at once, and poisons neither `clear` nor the appends that follow."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    follower = journal.follow(Follower)
    clock.advance_by(SECOND)
    with pytest.raises(OSError, match="cannot be read"):
        journal.append(Unreadable(attribute))
    assert journal.complete_since == clock.now().shifted(1)
    assert (len(journal), journal.declared, follower.log) == (0, frozenset(), [])
    assert [journal.append(data).sequence for data in "ab"] == [0, 1]


# -- declarations, and calls in flight


def test_names_are_declared_by_pledge_and_by_append(journal: Journal[Any]) -> None:
    """What was declared or appended is declared; other data declares nothing, and `clear` takes nothing back."""
    journal.declare("a", "b")
    journal.declare()
    journal.append(Event("c"))
    journal.append(Event(7))
    journal.append("text")
    journal.clear()
    assert journal.declared == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["", None, 7, b"a", ["a"]])
def test_a_declared_name_is_a_text(journal: Journal[Any], name: Any) -> None:
    """A name that is empty or no text is refused, and with it all others of the same call."""
    with pytest.raises(ValueError, match="a text that is not empty"):
        journal.declare("good", name)
    assert journal.declared == frozenset()


def test_calls_in_flight_are_noted_from_begin_to_end(journal: Journal[Any]) -> None:
    """Calls stand in the order in which they began; the same call may begin twice, and an end counts once."""
    end_a, end_b, end_again = journal.begin("a"), journal.begin("b"), journal.begin("a")
    journal.clear()
    assert journal.in_flight == ("a", "b", "a")
    end_a()
    end_a()
    assert journal.in_flight == ("b", "a")
    end_again()
    end_b()
    assert journal.in_flight == ()


# -- subscribers


def test_subscribers_are_told_in_order_once_the_entry_is_there(journal: Journal[Any]) -> None:
    """Each subscriber hears of each entry, first come first served, and finds it in the journal."""
    told: list[object] = []
    for name in "ab":
        journal.subscribe(lambda entry, name=name: told.append((name, entry, journal.last())))
    entry = journal.append(1)
    assert told == [("a", entry, entry), ("b", entry, entry)]


def test_an_ended_subscription_hears_no_more(journal: Journal[Any]) -> None:
    """One function can subscribe twice; each ending, however often it is called, ends its own subscription."""
    told: list[object] = []
    subscriber = told.append
    end, _ = journal.subscribe(subscriber), journal.subscribe(subscriber)
    journal.append(1)
    end()
    end()
    journal.append(2)
    assert [entry.data for entry in told] == [1, 1, 2]  # type: ignore[attr-defined]


def test_a_failing_subscriber_breaks_nothing(clock: ControlledClock, notices: list[JournalNotice]) -> None:
    """What a subscriber raises goes to `emit`; the entry stays, and the others are told."""
    journal: Journal[Any] = Journal(clock=clock, emit=notices.append)
    told: list[object] = []
    broken = ValueError("broken")

    def fail(_: JournalEntry[Any]) -> None:
        raise broken

    journal.append(0)
    journal.subscribe(fail)
    journal.subscribe(told.append)
    since = journal.complete_since
    entry = journal.append(1)
    assert told == [entry]
    assert journal.last() is entry
    assert notices == [JournalNotice("subscriber_failed", broken, 1)]
    assert journal.complete_since == since


def test_without_emit_a_failure_is_logged(journal: Journal[Any], caplog: pytest.LogCaptureFixture) -> None:
    """What `emit` would be told goes to the log, with the traceback."""
    journal.subscribe(lambda _: 1 // 0)
    journal.append(1)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("phyxius.journal", logging.WARNING)
    assert "subscriber_failed: ZeroDivisionError" in record.message
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_failing_emit_breaks_nothing(clock: ControlledClock, caplog: pytest.LogCaptureFixture) -> None:
    """What `emit` raises is logged."""
    journal: Journal[Any] = Journal(clock=clock, emit=lambda _: {}[0])
    journal.subscribe(lambda _: 1 // 0)
    assert journal.append(1) is journal.last()
    (record,) = caplog.records
    assert "emit raised" in record.message


@pytest.mark.parametrize("bound", [{}, {"max_entries": 1, "overflow": "error"}], ids=["subscriber", "overflow"])
def test_an_emit_that_appends_is_told_once(
    clock: ControlledClock, caplog: pytest.LogCaptureFixture, bound: dict[str, Any]
) -> None:
    """An `emit` that appends to its own journal is refused, and not told of that in its turn."""
    told: list[JournalNotice] = []

    def emit(notice: JournalNotice) -> None:
        told.append(notice)
        journal.append("audit")

    journal: Journal[Any] = Journal(clock=clock, emit=emit, **bound)
    journal.append(1)
    journal.subscribe(lambda _: 1 // 0)
    if bound:
        with pytest.raises(JournalOverflowError):
            journal.append(2)
    else:
        journal.append(2)
    assert len(told) == 1
    assert [record.message[:14] for record in caplog.records] == ["append_refused", "emit raised wh"]
    assert "audit" not in data_of(journal)


def test_coroutine_functions_cannot_subscribe(journal: Journal[Any]) -> None:
    """A subscriber that nobody would await is refused."""

    async def subscriber(_: int, __: object = None) -> None:
        """Never runs."""

    for function in (subscriber, partial(subscriber, 1)):
        with pytest.raises(TypeError, match="plain function"):
            journal.subscribe(function)
    journal.append(1)


# -- appending within an append


def test_an_append_within_an_append_is_refused(clock: ControlledClock, notices: list[JournalNotice]) -> None:
    """A subscriber that appends gets a `JournalReentrancyError`, `emit` hears of both, and later appends work."""
    journal: Journal[Any] = Journal(clock=clock, emit=notices.append)
    end = journal.subscribe(lambda entry: journal.append(entry.data + 1))
    journal.append(1)
    assert [(notice.kind, type(notice.error), notice.sequence) for notice in notices] == [
        ("append_refused", JournalReentrancyError, None),
        ("subscriber_failed", JournalReentrancyError, 0),
    ]
    end()
    journal.append(5)
    assert data_of(journal) == [1, 5]


def test_an_id_generator_cannot_append(clock: ControlledClock) -> None:
    """Whatever an append calls is within it."""
    journal: Journal[Any] = Journal(clock=clock, id_generator=lambda: journal.append(1).id, emit=lambda _: None)
    with pytest.raises(JournalReentrancyError):
        journal.append(0)
    assert len(journal) == 0


def test_a_subscriber_may_append_to_another_journal(journal: Journal[Any], clock: ControlledClock) -> None:
    """Re-entrancy is a matter of one journal."""
    copy: Journal[Any] = Journal(clock=clock)
    journal.subscribe(lambda entry: copy.append(entry.data))
    journal.append(1)
    assert data_of(copy) == [1]


def test_other_threads_may_append_while_a_subscriber_runs(journal: Journal[Any]) -> None:
    """A subscriber holds up neither the journal nor the other threads, whose appends are no re-entrancy."""
    told: list[object] = []

    def subscriber(entry: JournalEntry[Any]) -> None:
        told.append(entry.data)
        if entry.data == "outer":
            elsewhere(lambda: journal.append("inner"))

    journal.subscribe(subscriber)
    journal.append("outer")
    assert told == data_of(journal) == ["outer", "inner"]


@pytest.mark.parametrize("kind", ["overflow", "subscriber", "reentrancy"])
def test_emit_runs_while_the_journal_is_free(clock: ControlledClock, kind: str) -> None:
    """An `emit` that waits for another thread, which needs the journal, gets its answer."""
    free: list[bool] = []
    journal: Journal[Any] = Journal(
        clock=clock, max_entries=1, overflow="error", emit=lambda _: free.append(is_free(journal))
    )
    if kind == "overflow":
        journal.append(1)
        with pytest.raises(JournalOverflowError):
            journal.append(1)
    else:
        journal.subscribe((lambda _: 1 // 0) if kind == "subscriber" else journal.append)
        journal.append(1)
    assert free
    assert all(free)


# -- followers


class Follower:
    """A follower that notes what it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log: list[tuple[str, object]] = []

    def added(self, entry: JournalEntry[Any], /) -> None:
        self.log.append(("added", entry.data))

    def dropped(self, entry: JournalEntry[Any], /) -> None:
        self.log.append(("dropped", entry.data))

    def cleared(self) -> None:
        self.log.append(("cleared", None))


class OtherFollower(Follower):
    """Another kind."""


def test_a_journal_has_one_follower_of_a_kind(journal: Journal[Any], clock: ControlledClock) -> None:
    """The second call answers with the follower of the first, and each kind has its own."""
    follower = journal.follow(Follower)
    assert journal.follow(Follower) is follower
    assert type(journal.follow(OtherFollower)) is OtherFollower
    assert follower.clock is clock


def test_a_follower_is_told_everything_in_order(clock: ControlledClock) -> None:
    """It hears of what was held by then, and of every entry that is added, dropped and cleared from then on."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=2, overflow="drop_oldest")
    for data in range(3):
        journal.append(data)
    follower = journal.follow(Follower)
    journal.append(3)
    journal.clear()
    journal.append(4)
    assert follower.log == [
        ("added", 1),
        ("added", 2),
        ("dropped", 1),
        ("added", 3),
        ("cleared", None),
        ("added", 4),
    ]


def test_a_follower_is_told_while_others_wait(journal: Journal[Any]) -> None:
    """No other thread comes between an append and its follower, nor into a replay."""
    free: list[bool] = []

    class Watching(Follower):
        def added(self, entry: JournalEntry[Any], /) -> None:
            free.append(is_free(journal))

    journal.append(1)
    journal.follow(Watching)
    journal.append(2)
    assert free == [False, False]


def test_a_refused_append_reaches_no_follower(clock: ControlledClock) -> None:
    """What was not stored was not added."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda _: None)
    follower = journal.follow(Follower)
    journal.append(1)
    with pytest.raises(JournalOverflowError):
        journal.append(2)
    assert follower.log == [("added", 1)]


# -- threads


def test_a_paused_journal_stands_still(journal: Journal[Any]) -> None:
    """Other threads wait while it is paused, and only then; the thread that paused it may use it."""
    assert is_free(journal)
    with journal.paused():
        assert not is_free(journal)
        journal.append(1)
        with journal.paused():
            assert len(journal) == 1
        assert not is_free(journal)
    assert is_free(journal)


def test_a_pause_ends_with_an_exception(journal: Journal[Any]) -> None:
    """What is raised within a pause does not leave the journal locked."""
    with pytest.raises(ZeroDivisionError), journal.paused():
        _ = 1 // 0
    assert is_free(journal)


@pytest.mark.parametrize("bound", [{}, {"max_entries": 37, "overflow": "drop_oldest"}], ids=["unbounded", "ring"])
def test_threads_may_append_at_once(clock: ControlledClock, bound: dict[str, Any]) -> None:
    """No entry is lost, doubled or out of its thread's order, however the threads interleave."""
    journal: Journal[tuple[int, int]] = Journal(clock=clock, **bound)
    follower = journal.follow(Follower)
    told: list[int] = []
    journal.subscribe(lambda entry: told.append(entry.sequence))
    barrier = threading.Barrier(6)
    appended: dict[int, list[JournalEntry[tuple[int, int]]]] = {}

    def work(worker: int) -> None:
        barrier.wait(10)
        appended[worker] = [journal.append((worker, number)) for number in range(100)]
        journal.begin(worker)()
        journal.declare(str(worker))
        assert all(entry.data for entry in journal)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)

    entries = sorted((entry for each in appended.values() for entry in each), key=lambda entry: entry.sequence)
    assert [entry.sequence for entry in entries] == sorted(told) == list(range(600))
    assert len({entry.id for entry in entries}) == 600
    for each in appended.values():
        assert [entry.sequence for entry in each] == sorted(entry.sequence for entry in each)
    assert list(journal) == entries[-journal._max_entries if journal._max_entries else 0 :]
    assert [data for what, data in follower.log if what == "added"] == [entry.data for entry in entries]
    assert journal.in_flight == ()
    assert len(journal.declared) == 6


class NoHash(str):
    """A name that cannot be filed."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


@attrs.frozen
class Odd:
    """Data that only shows its fault once the journal works with it."""

    name: object = "odd"
    completed_at: object = None


@pytest.mark.parametrize("data", [Odd(completed_at=Instant(wall_ns="x", mono_ns=None))], ids=repr)  # type: ignore[arg-type]
def test_whatever_makes_append_raise_is_a_loss(clock: ControlledClock, data: Odd) -> None:
    """It is refused, the journal knows since when, and what comes later is taken."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    clock.advance_by(timedelta(seconds=1))
    with pytest.raises(TypeError):
        journal.append(data)
    assert journal.complete_since == clock.now().shifted(1)
    assert len(journal) == 0
    for number in range(3):
        assert journal.append(Odd(number)).data.name == number


def test_a_name_is_declared_as_a_plain_text(clock: ControlledClock) -> None:
    """A kind of text that answers for itself cannot keep its event out."""
    journal: Journal[Any] = Journal(clock=clock)
    journal.append(Odd(NoHash("legacy.read")))
    assert journal.declared == {"legacy.read"}


def test_a_follower_that_raises_costs_the_journal_its_word(clock: ControlledClock) -> None:
    """Followers must not raise; one that does makes a loss, since it may have missed the entry."""

    class Broken:
        def __init__(self, clock: Clock) -> None:
            pass

        def added(self, entry: JournalEntry[Any], /) -> None:
            raise OSError("broken")

        def dropped(self, entry: JournalEntry[Any], /) -> None: ...
        def cleared(self) -> None: ...

    journal: Journal[Any] = Journal(clock=clock)
    journal.follow(Broken)
    clock.advance_by(timedelta(seconds=1))
    with pytest.raises(OSError, match="broken"):
        journal.append(1)
    assert journal.complete_since == clock.now().shifted(1)


def test_a_cancelled_subscriber_breaks_nothing(clock: ControlledClock, notices: list[JournalNotice]) -> None:
    """A `CancelledError` out of a subscriber, or out of emit, is nobody else's cancellation."""

    def cancelled(_: object) -> None:
        raise asyncio.CancelledError

    told: list[int] = []
    journal: Journal[int] = Journal(clock=clock, emit=cancelled)
    journal.subscribe(cancelled)
    journal.subscribe(lambda entry: told.append(entry.data))
    journal.append(1)
    assert told == [1]


def test_a_forked_child_begins_anew() -> None:
    """Forked while another thread holds the lock, the child can append, and knows that it has missed something."""
    code = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
from phyxius.clock import create_system_clock
from phyxius.journal import Journal
journal = Journal(clock=create_system_clock())
began = journal.complete_since
journal.begin("a call of another thread")
held, done = threading.Event(), threading.Event()
def hold():
    with journal.paused():
        held.set()
        done.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    journal.append(1)
    fine = journal.complete_since.mono_ns > began.mono_ns and not journal.in_flight and len(journal) == 1
    os._exit(0 if fine and "forked" in journal.complete_since_reason else 1)
status = os.waitpid(child, 0)[1]
done.set()
sys.exit(os.waitstatus_to_exitcode(status) or len(journal) or journal.complete_since != began)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_a_forked_child_mends(clock: ControlledClock) -> None:
    """Calls of threads that are gone are not in flight, and the time before is a gap."""
    journal: Journal[int] = Journal(clock=clock)
    journal.begin("a call")
    _mend_after_fork()
    assert journal.in_flight == ()
    assert journal.complete_since == clock.now().shifted(1)
    assert journal.complete_since_reason == "the process was forked then"


# -- since when, and what was refused


def test_it_began_when_it_was_made(clock: ControlledClock, journal: Journal[Any]) -> None:
    """`began` is the making of the journal, whatever is appended, dropped, refused or cleared later."""
    began = clock.now()
    clock.advance_by(SECOND)
    full: Journal[int] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    for kept in (journal, full):
        kept.append(1)
        kept.append(2)
        clock.advance_by(SECOND)
        kept.clear()
        assert kept.complete_since != kept.began
    assert (journal.began, full.began) == (began, began.shifted(NS))


def test_a_restored_journal_began_when_it_was_restored(clock: ControlledClock, journal: Journal[Any]) -> None:
    """Its entries are of another process, from before it began."""
    journal.append(1)
    clock.advance_by(SECOND)
    restored = Journal[Any].from_json(journal.to_json(), clock=clock)
    assert restored.began == restored.complete_since == clock.now()
    assert (restored.refused, restored.start_keepers) == (0, ())
    (entry,) = restored
    assert entry.timestamp.mono_ns is None


def test_a_forked_journal_began_with_the_fork(clock: ControlledClock, journal: Journal[Any]) -> None:
    """What was appended by the fork is from before it began, also if it was appended at that very moment."""
    entry = journal.append(1)
    _mend_after_fork()
    assert journal.began == journal.complete_since == clock.now().shifted(1)
    assert entry.timestamp.ns_since(journal.began) < 0
    clock.advance_by(SECOND)
    assert journal.append(2).timestamp.ns_since(journal.began) >= 0


@pytest.mark.parametrize("way", ["overflow", "reentrancy", "broken id", "unreadable name", "unreadable completion"])
def test_refused_appends_are_counted(way: str, clock: ControlledClock) -> None:
    """Each append that raised counts as one, whatever it raised; those that succeed do not."""
    ids = iter(["a", "b"])
    options: dict[str, Any] = {
        "overflow": {"max_entries": 2, "overflow": "error"},
        "broken id": {"id_generator": lambda: next(ids)},
    }.get(way, {})
    journal: Journal[Any] = Journal(clock=clock, emit=lambda notice: None, **options)
    journal.append(1)
    journal.append(2)
    assert journal.refused == 0
    data: object = {"unreadable name": Unreadable("name"), "unreadable completion": Unreadable("completed_at")}.get(way)
    if way == "reentrancy":
        end = journal.subscribe(lambda entry: journal.append(4))
        journal.append(3)
        end()
    else:
        with pytest.raises((JournalOverflowError, StopIteration, OSError)):
            journal.append(data)
    assert journal.refused == 1
    journal.clear()
    assert journal.refused == 1


class Keeper:
    """A keeper of starts that wants none."""

    def wants(self, call: object, /) -> bool:
        return False

    def keep(self, call: object, /) -> None: ...

    async def keep_async(self, call: object, /) -> None: ...


def test_keepers_of_starts(journal: Journal[Any]) -> None:
    """Keepers are asked in the order in which they came; each end takes away its own, and a second time nothing."""
    first, second = Keeper(), Keeper()
    assert journal.start_keepers == ()
    end_first, end_second = journal.keep_starts(first), journal.keep_starts(second)
    seen = journal.start_keepers
    assert seen == (first, second)
    end_first()
    end_first()
    assert journal.start_keepers == (second,)
    assert seen == (first, second), "who asks them just now is not disturbed"
    end_second()
    assert journal.start_keepers == ()


def test_a_keeper_may_be_equal_to_another(journal: Journal[Any]) -> None:
    """Only the very keeper is taken away."""

    class Equal(Keeper):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    first, second = Equal(), Equal()
    journal.keep_starts(first)
    journal.keep_starts(second)()
    assert len(journal.start_keepers) == 1
    assert journal.start_keepers[0] is first
