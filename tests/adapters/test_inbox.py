"""What a recorder has still to store."""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters._inbox import Capture, Inbox, Receipt
from phyxius.adapters._moment import Moment
from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.handler import HandlerEvent, InFlightCall, event_serializer, recorded
from phyxius.journal import Journal, JournalOverflowError
from phyxius.journal._journal import _mend_after_fork
from phyxius.testing import make_event, record_events
from tests.adapters.support import moment_of

SECOND = timedelta(seconds=1)
NS = 1_000_000_000
FILE = "file"
RECEIPT = Receipt(recorder=1, began_ns=0, batch=1, ended_ns=0)


def inbox_of(journal: Journal[Any], most: int = 100, arrivals: list[int] | None = None) -> Inbox:
    return Inbox(journal, most, lambda: None if arrivals is None else arrivals.append(1))


def opened(journal: Journal[Any], most: int = 100, arrivals: list[int] | None = None, store: str = FILE) -> Inbox:
    inbox = inbox_of(journal, most, arrivals)
    inbox.open(store)
    captured(inbox)
    return inbox


def captured(inbox: Inbox) -> Capture:
    """What it sees now, with a store that goes by the clock of this process."""
    return inbox.capture(moment_of(inbox._journal.clock))


def names(inbox: Inbox) -> list[str]:
    return [entry.data.name for entry in captured(inbox).entries]


def empty(inbox: Inbox) -> list[str]:
    """Store all that is there, and say what it was."""
    capture = captured(inbox)
    inbox.stored(len(capture.entries), RECEIPT)
    inbox.told(capture)
    return [entry.data.name for entry in capture.entries]


# -- what comes in


def test_it_takes_what_is_recorded_before_and_after(journal: Journal[Any]) -> None:
    """What the journal holds already comes in with the opening, the rest as it is recorded, in order."""
    record_events(journal, "before")
    inbox = inbox_of(journal)
    record_events(journal, "unopened")
    inbox.open(FILE)
    record_events(journal, "after")
    assert names(inbox) == ["before", "unopened", "after"]
    assert captured(inbox).losses == {}


def test_nothing_leaves_before_it_is_stored(journal: Journal[Any]) -> None:
    """A capture is a look; the oldest go when they are said to be stored, and not those that came meanwhile."""
    inbox = opened(journal)
    record_events(journal, "a", 3)
    capture = captured(inbox)
    record_events(journal, "b")
    assert captured(inbox).entries[:3] == capture.entries
    inbox.stored(2, RECEIPT)
    assert names(inbox) == ["a", "b"]
    inbox.stored(2, RECEIPT)
    assert names(inbox) == []


def test_it_holds_what_the_journal_lets_go(clock: ControlledClock) -> None:
    """A small ring, or a clear, takes nothing out of the inbox."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    inbox = opened(journal)
    for name in "abc":
        record_events(journal, name)
    journal.clear()
    assert names(inbox) == ["a", "b", "c"]
    assert captured(inbox).losses == {}


def test_it_announces_what_comes_in(journal: Journal[Any]) -> None:
    """The first event after the inbox was empty is announced, those behind it not; what is left over is again."""
    arrivals: list[int] = []
    record_events(journal, "held", 2)
    inbox = opened(journal, arrivals=arrivals)
    assert len(arrivals) == 1
    record_events(journal, "a", 3)
    assert len(arrivals) == 1
    inbox.stored(4, RECEIPT)
    assert len(arrivals) == 2
    inbox.stored(1, RECEIPT)
    assert len(arrivals) == 2
    record_events(journal, "b")
    assert len(arrivals) == 3


def test_it_is_bounded(journal: Journal[Any]) -> None:
    """What comes beyond the bound is lost and counted; once there is room again, events come in again."""
    inbox = opened(journal, most=2)
    record_events(journal, "a", 5)
    capture = captured(inbox)
    assert len(capture.entries) == 2
    assert capture.losses == {"more was recorded than could be stored in time": 3}
    inbox.stored(1, RECEIPT)
    record_events(journal, "b")
    assert names(inbox) == ["a", "b"]


def test_what_is_no_event_is_lost(journal: Journal[Any]) -> None:
    """Whatever else somebody appends cannot be stored, and is a loss; a class that only claims to be one, too."""

    class Mock:
        __class__ = HandlerEvent  # type: ignore[assignment]

    inbox = opened(journal)
    journal.append("text")
    journal.append(Mock())
    record_events(journal, "a")
    assert names(inbox) == ["a"]
    assert captured(inbox).losses == {"an entry of the journal was no proper HandlerEvent": 2}


ODD: list[dict[str, Any]] = [
    {"name": ["a"]},
    {"name": 7},
    {"source": ["a"]},
    {"source": 7},
    {"invocation_id": {"a": 1}},
    {"invocation_id": uuid.UUID(int=7)},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_names_poison_nothing(journal: Journal[Any], clock: ControlledClock, odd: dict[str, Any]) -> None:
    """Foreign code may put anything there; such an event is a loss, and such a call is none that could be stored."""
    proper: dict[str, Any] = {"name": "a", "source": "test", "invocation_id": "1"}
    journal.append(HandlerEvent(outcome="success", completed_at=clock.now(), **proper | odd))
    inbox = opened(journal)
    journal.append(HandlerEvent(outcome="success", completed_at=clock.now(), **proper | odd))
    journal.begin(InFlightCall(started_at=clock.now(), **proper | odd))
    journal.begin(InFlightCall(started_at=clock.now(), **proper))
    record_events(journal, "fine")
    capture = captured(inbox)
    assert names(inbox) == ["fine"]
    assert [call.invocation_id for call in capture.calls] == ["1"]
    assert capture.losses == {"an entry of the journal was no proper HandlerEvent": 2}


def test_refused_appends_are_losses(clock: ControlledClock) -> None:
    """An append that the journal refused is told once, however often somebody looks."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    inbox = opened(journal)
    record_events(journal, "a")
    for _ in range(2):
        with pytest.raises(JournalOverflowError):
            record_events(journal, "a")
    assert captured(inbox).losses == {"the journal refused an append": 1}
    capture = captured(inbox)
    assert capture.losses == {"the journal refused an append": 1}
    inbox.told(capture)
    assert captured(inbox).losses == {}


def test_a_loss_that_went_on_is_told_again(journal: Journal[Any]) -> None:
    """A loss counts as told up to the capture; one of the same kind that came after it is another."""
    inbox = opened(journal, most=1)
    record_events(journal, "a", 2)
    capture = captured(inbox)
    record_events(journal, "a")
    inbox.told(capture)
    later = captured(inbox)
    assert later.losses == {"more was recorded than could be stored in time": 2}
    inbox.told(later)
    assert captured(inbox).losses == {}


def test_what_is_there_already_is_not_bounded(journal: Journal[Any]) -> None:
    """The journal holds it anyway; the bound is for what comes faster than it is stored."""
    record_events(journal, "held", 5)
    inbox = opened(journal, most=2)
    assert (names(inbox), captured(inbox).losses) == (["held"] * 5, {})
    record_events(journal, "a")
    assert captured(inbox).losses == {"more was recorded than could be stored in time": 1}
    inbox.stored(4, RECEIPT)
    record_events(journal, "b", 2)
    assert names(inbox) == ["held", "b"]


# -- what it knows beside the events


def test_it_looks_at_one_moment(journal: Journal[Any], clock: ControlledClock) -> None:
    """Time, calls in flight and declared names are those of the capture; foreign calls mean nothing."""
    inbox = opened(journal)
    journal.begin("no call of ours")
    clock.advance_by(SECOND)
    with recorded(journal, "quote.read"):
        capture = captured(inbox)
    assert capture.now == clock.now()
    (call,) = capture.calls
    assert isinstance(call, InFlightCall)
    assert call.name == "quote.read"
    assert capture.declared == {"quote.read"}
    assert [call.name for call in captured(inbox).calls] == []


def test_another_thread_cannot_come_between(journal: Journal[Any]) -> None:
    """Each event is either in the capture or its call still in flight there, never neither."""
    inbox = opened(journal, most=100_000)
    ended = threading.Event()

    def work() -> None:
        for _ in range(300):
            with recorded(journal, "quote.read"):
                pass
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen: list[tuple[int, int]] = []
    while not ended.is_set():
        capture = captured(inbox)
        seen.append((len(capture.entries), len(capture.calls)))
    thread.join(30)
    assert len(captured(inbox).entries) == 300
    assert all(later >= earlier for (earlier, _), (later, _) in itertools.pairwise(seen))


# -- the clock


def test_a_wall_that_is_set_forward(journal: Journal[Any], clock: ControlledClock) -> None:
    """It is noticed by how much, until it was told; then the new scale counts."""
    inbox = opened(journal)
    clock.advance_by(SECOND)
    assert captured(inbox).set_forward_ns == 0
    clock.jump_wall_time(clock.now().wall + timedelta(hours=1))
    clock.advance_by(SECOND)
    capture = captured(inbox)
    assert capture.set_forward_ns == captured(inbox).set_forward_ns == 3_600 * NS
    clock.jump_wall_time(clock.now().wall + timedelta(hours=1))
    inbox.told(capture)
    again = captured(inbox)
    assert again.set_forward_ns == 3_600 * NS
    inbox.told(again)
    assert captured(inbox).set_forward_ns == 0


def test_a_wall_that_is_set_back_hides_nothing(journal: Journal[Any], clock: ControlledClock) -> None:
    """It is no step forward; set forward again afterwards it is."""
    inbox = opened(journal)
    clock.jump_wall_time(clock.now().wall - timedelta(hours=1))
    assert captured(inbox).set_forward_ns == 0
    clock.jump_wall_time(clock.now().wall + timedelta(hours=1))
    assert captured(inbox).set_forward_ns == 3_600 * NS


def test_a_wall_that_was_set_before_it_was_opened(journal: Journal[Any], clock: ControlledClock) -> None:
    """Steps count from the opening on: what came before, no recorder was there to miss."""
    inbox = inbox_of(journal)
    clock.jump_wall_time(clock.now().wall + timedelta(hours=1))
    inbox.open(FILE)
    assert captured(inbox).set_forward_ns == 0
    clock.jump_wall_time(clock.now().wall + timedelta(hours=2))
    assert inbox.set_forward_ns(moment_of(clock)) == captured(inbox).set_forward_ns == 7_200 * NS


def test_a_pause_between_two_readings_is_no_step(clock: ControlledClock) -> None:
    """The machine may do something else while it looks at the store's clock: what that took is not counted."""
    inbox = opened(Journal(clock=clock))
    now = clock.now()
    later = now.shifted(SECOND)
    for wall_ns in (now.wall_ns, later.wall_ns):
        assert inbox.capture(Moment(wall_ns, now, later)).set_forward_ns == 0
    assert inbox.capture(Moment(later.shifted(SECOND).wall_ns, now, later)).set_forward_ns == NS


@given(st.integers(-200, 200))
def test_small_steps_are_no_steps(milliseconds: int) -> None:
    """Up to a tenth of a second is what reading two clocks may differ by, and what a clock may drift."""
    clock = create_controlled_clock()
    inbox = opened(Journal(clock=clock))
    clock.jump_wall_time(clock.now().wall + timedelta(milliseconds=milliseconds))
    assert captured(inbox).set_forward_ns == (milliseconds * 1_000_000 if milliseconds > 100 else 0)


@given(st.lists(st.tuples(st.integers(-90, 90), st.booleans()), max_size=20))
def test_small_steps_add_up(steps: list[tuple[int, bool]]) -> None:
    """Many small steps forward are noticed once they are a large one, whenever somebody looks."""
    clock = create_controlled_clock()
    inbox = opened(Journal(clock=clock))
    told, offset = 0, 0
    for step, look in steps:
        clock.jump_wall_time(clock.now().wall + timedelta(milliseconds=step))
        offset += step
        if offset - told < -100 and look:
            told = offset
        if look:
            capture = captured(inbox)
            assert capture.set_forward_ns == ((offset - told) * 1_000_000 if offset - told > 100 else 0)
            told += capture.set_forward_ns // 1_000_000
            inbox.told(capture)


# -- one recorder after another


def test_what_comes_after_the_last_one_closed_is_warned_of_once(
    journal: Journal[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """No store will know of it; while another one is open, or before the first, there is nothing to say."""
    record_events(journal, "a")
    first, second = opened(journal), opened(journal, store="elsewhere")
    first.close()
    record_events(journal, "b")
    second.close()
    assert caplog.records == []
    record_events(journal, "c", 2)
    (warning,) = caplog.messages
    assert "'c' was recorded after the last recorder" in warning
    third = opened(journal)
    record_events(journal, "d")
    third.close()
    assert len(caplog.records) == 1
    journal.append("no event")
    assert "None was recorded after" in caplog.messages[1]


def test_one_recorder_keeps_a_journal_in_a_store(journal: Journal[Any]) -> None:
    """A second one is refused and disturbs nothing; for another store, or once the first has closed, it is fine."""
    first = opened(journal)
    with pytest.raises(RuntimeError, match="has a recorder in this store already"):
        opened(journal)
    elsewhere = opened(journal, store="other file")
    record_events(journal, "a")
    assert names(first) == names(elsewhere) == ["a"]
    first.close()
    opened(journal)


def test_one_that_nobody_empties_any_more_is_replaced(journal: Journal[Any]) -> None:
    """The next one takes over what it had not stored, and it takes nothing in any more."""
    stranded = False
    first = Inbox(journal, 100, lambda: None, lambda: stranded)
    first.open(FILE)
    record_events(journal, "a", 2)
    first.stored(1, RECEIPT)
    with pytest.raises(RuntimeError, match="has a recorder in this store already"):
        opened(journal)
    stranded = True
    second = opened(journal)
    record_events(journal, "b")
    assert (names(first), names(second)) == (["a"], ["a", "b"])
    with pytest.raises(RuntimeError, match="has a recorder in this store already"):
        opened(journal)


def test_it_takes_nothing_in_once_it_is_closed(journal: Journal[Any]) -> None:
    """What is recorded later is for the next one; closing twice is fine, and closes no other."""
    first = opened(journal)
    first.close()
    record_events(journal, "a")
    assert names(first) == []
    inbox_of(journal).close()
    second = opened(journal)
    assert names(second) == ["a"]


def test_what_one_stored_the_next_does_not_store_again(journal: Journal[Any]) -> None:
    """The next one takes what the first had not stored, and what came between the two."""
    first = opened(journal)
    record_events(journal, "a", 3)
    inbox_store_two = captured(first)
    first.stored(2, RECEIPT)
    first.told(inbox_store_two)
    first.close()
    record_events(journal, "between")
    second = opened(journal)
    assert captured(second).losses == {}
    assert empty(second) == ["a", "between"]
    second.close()
    assert names(opened(journal)) == []
    assert names(opened(journal, store="other file")) == ["a", "a", "a", "between"]


def test_what_was_refused_before_it_was_opened_is_told_once(clock: ControlledClock) -> None:
    """What the journal says about itself tells it; when the inbox was made does not matter."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    inbox = inbox_of(journal)
    clock.advance_by(SECOND)
    record_events(journal, "a")
    with pytest.raises(JournalOverflowError):
        record_events(journal, "a")
    inbox.open(FILE)
    assert captured(inbox).losses == {journal.complete_since_reason: 1}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("way", ["dropped", "cleared", "refused"])
def test_what_is_lost_between_two_recorders_is_told(clock: ControlledClock, stored: bool, way: str) -> None:
    """What the journal let go of, or refused, while nobody kept it is a loss, whoever kept it before."""
    overflow: Any = "error" if way == "refused" else "drop_oldest"
    journal: Journal[Any] = Journal(clock=clock, max_entries=2, overflow=overflow, emit=lambda notice: None)
    clock.advance_by(SECOND)
    if stored:
        first = opened(journal)
        record_events(journal, "a")
        assert empty(first) == ["a"]
        first.close()
        clock.advance_by(SECOND)
    record_events(journal, "b")
    if way == "cleared":
        journal.clear()
    elif way == "dropped":
        record_events(journal, "b", 2)
    else:
        with pytest.raises(JournalOverflowError):
            record_events(journal, "b", 2)
    inbox = opened(journal)
    assert captured(inbox).losses == {journal.complete_since_reason: 1}
    assert empty(inbox) == {"cleared": [], "dropped": ["b", "b"], "refused": ["b"] if stored else ["b", "b"]}[way]
    inbox.close()
    clock.advance_by(SECOND)
    assert captured(opened(journal)).losses == {}, "it is told once"


def test_what_was_dropped_between_two_recorders_was_lost(clock: ControlledClock) -> None:
    """Also an event that completed before the first one's last word, and was appended after it."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    clock.advance_by(timedelta(hours=2))
    first = opened(journal)
    first.told(captured(first))
    first.close()
    journal.append(make_event("a", clock=clock, ago=timedelta(hours=1)))
    record_events(journal, "b")
    second = opened(journal)
    assert names(second) == ["b"]
    assert list(captured(second).losses.values()) == [1]
    second.told(captured(second))
    second.close()
    assert captured(opened(journal)).losses == {}, "it is told once"


def test_what_a_finalizer_records_while_it_opens(journal: Journal[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come at any point, in the very thread that opens: it is taken in once, and in its place."""
    record_events(journal, "a")
    snapshot, late = journal.snapshot, ["b", "c"]

    def interrupted() -> Any:
        taken = snapshot()
        if late:
            record_events(journal, late.pop(0))
        return taken

    monkeypatch.setattr(journal, "snapshot", interrupted)
    inbox = opened(journal)
    record_events(journal, "d")
    assert names(inbox) == ["a", "b", "c", "d"]


def test_what_was_stored_may_be_dropped(clock: ControlledClock) -> None:
    """What the journal lets go of once it is stored is no loss for the next recorder."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    first = opened(journal)
    for _ in range(3):
        clock.advance_by(SECOND)
        record_events(journal, "a")
    clock.advance_by(SECOND)
    assert empty(first) == ["a"] * 3
    first.close()
    assert captured(opened(journal)).losses == {}


def test_what_was_stored_may_be_dropped_between_two_recorders(clock: ControlledClock) -> None:
    """To make room for what the next one takes in, say."""
    journal: Journal[Any] = Journal(clock=clock, max_entries=1, overflow="drop_oldest")
    first = opened(journal)
    record_events(journal, "a")
    clock.advance_by(SECOND)
    assert empty(first) == ["a"]
    first.close()
    record_events(journal, "b")
    second = opened(journal)
    assert journal.complete_since != journal.began
    assert captured(second).losses == {}
    assert empty(second) == ["b"]


# -- what another process recorded


def test_what_was_restored_is_not_taken_over(journal: Journal[Any], clock: ControlledClock) -> None:
    """Entries out of a text are another process's, which recorded them itself; only what follows is ours."""
    record_events(journal, "theirs", 2)
    journal = Journal(clock=clock, serializer=event_serializer)
    record_events(journal, "theirs", 2)
    restored = Journal[Any].from_json(journal.to_json(), clock=clock, serializer=event_serializer)
    record_events(restored, "ours")
    inbox = opened(restored)
    assert names(inbox) == ["ours"]
    assert captured(inbox).losses == {}


def test_what_was_forked_is_not_taken_over(journal: Journal[Any], clock: ControlledClock) -> None:
    """Entries from before a fork are the parent's; the child can keep its own, though the parent's inbox was open."""
    theirs = opened(journal)
    record_events(journal, "theirs", 2)
    assert empty(theirs) == ["theirs"] * 2
    _mend_after_fork()
    clock.advance_by(SECOND)
    record_events(journal, "ours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        inbox = opened(journal)
        assert names(inbox) == ["ours"]
        assert captured(inbox).losses == {}
        record_events(journal, "later", 2)
        assert names(inbox) == ["ours", "later", "later"]


def test_a_forked_child_is_told_that_nothing_is_recorded(
    journal: Journal[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inbox of its parent takes nothing in, which is a loss, and says so once."""
    inbox = opened(journal)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    record_events(journal, "lost", 2)
    assert (names(inbox), captured(inbox).losses) == ([], {"its process was forked": 2})
    (record,) = caplog.records
    assert "open a recorder in each process, after the fork" in record.message


def test_one_that_was_made_before_a_fork_may_be_opened_after_it(
    journal: Journal[Any], clock: ControlledClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is opened counts, and not where it was made."""
    inbox = inbox_of(journal)
    record_events(journal, "theirs")
    _mend_after_fork()
    clock.advance_by(SECOND)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    record_events(journal, "ours")
    inbox.open(FILE)
    record_events(journal, "later")
    assert (names(inbox), captured(inbox).losses) == (["ours", "later"], {})
    with pytest.raises(RuntimeError, match="has a recorder in this store already"):
        opened(journal)


def test_a_store_that_was_set_back_is_told_again(journal: Journal[Any], clock: ControlledClock) -> None:
    """Its receipt says what it knew; if it does not know that any more, everything is taken over again."""
    first = opened(journal)
    assert first.receipt(FILE) is None
    record_events(journal, "a", 2)
    first.stored(2, RECEIPT)
    clock.jump_wall_time(clock.now().wall + timedelta(hours=1))
    first.told(captured(first))
    first.close()
    assert first.receipt(FILE) == RECEIPT
    again = inbox_of(journal)
    again.open(FILE, forget=True)
    assert names(again) == ["a", "a"]
    assert again.receipt(FILE) is None
    assert captured(again).set_forward_ns == 3_600 * NS


@given(st.data())
def test_whatever_happens_all_is_stored_once_or_told_as_lost(data: st.DataObject) -> None:
    """Over recorders that come and go, bounds, drops and clears: no event twice, none lost that nobody was told of."""
    clock = create_controlled_clock()
    most = data.draw(st.none() | st.integers(1, 5))
    journal: Journal[Any] = Journal(clock=clock, max_entries=most, overflow="none" if most is None else "drop_oldest")
    inbox: Inbox | None = None
    number, stored, lost = 0, list[str](), set[str]()

    def store(count: int | None = None) -> None:
        assert inbox is not None
        capture = captured(inbox)
        count = len(capture.entries) if count is None else min(count, len(capture.entries))
        stored.extend(entry.data.name for entry in capture.entries[:count])
        inbox.stored(count, RECEIPT)
        if count == len(capture.entries):
            if capture.losses:
                lost.update(str(n) for n in range(number))
            inbox.told(capture)
            missing = {str(n) for n in range(number)} - set(stored) - lost
            assert not missing, "all that was recorded is stored by now, or told as lost"

    for step in data.draw(st.lists(st.sampled_from(["record", "record", "open", "some", "all", "close", "clear"]))):
        clock.advance_by(timedelta(milliseconds=1))
        if step == "record":
            journal.append(make_event(str(number), clock=clock))
            number += 1
        elif step == "clear":
            journal.clear()
        elif step == "open" and inbox is None:
            inbox = opened(journal, most=data.draw(st.integers(1, 4)))
        elif inbox is not None and step in ("some", "all"):
            store(1 if step == "some" else None)
        elif inbox is not None and step == "close":
            inbox.stop(moment_of(journal.clock))
            store()
            inbox.close()
            inbox = None
    assert len(stored) == len(set(stored))
