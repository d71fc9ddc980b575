"""What a recorder still has to tell its store."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from phyxius.adapters._inbox import Capture
from phyxius.adapters._ledger import Batch, Ledger, Parcel
from phyxius.adapters._moment import Moment
from phyxius.adapters._records import CallRow
from phyxius.clock import create_controlled_clock
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.journal import JournalEntry

BEGAN = create_controlled_clock().now()
LEASE = timedelta(seconds=30)
SECOND = timedelta(seconds=1)
OLD = "quote.read_old"


def ledger_of(*, durable: Iterable[str] = (), audit_only: bool = False) -> Ledger:
    """A ledger that has sent its first capture, with names that are recorded durably."""
    ledger = Ledger("api-7", audit_only, LEASE, BEGAN)
    send(ledger, captured())
    ledger.pledge(list(durable))
    send(ledger, captured(declared=durable))
    ledger.has_begun = True
    return ledger


def event(name: str = "quote.read", id: str | None = None, **more: Any) -> HandlerEvent:
    return HandlerEvent(name, "success", BEGAN, invocation_id=id, **more)


def call(name: str = "quote.read", id: str | None = None, **more: Any) -> InFlightCall:
    return InFlightCall(name, BEGAN, invocation_id=id, **more)


def captured(
    *events: HandlerEvent,
    calls: Iterable[InFlightCall] = (),
    declared: Iterable[str] = (),
    losses: Iterable[str] = (),
    after: timedelta = timedelta(0),
    set_forward: timedelta = timedelta(0),
) -> Capture:
    now = BEGAN.shifted(after)
    return Capture(
        now=now,
        looked=Moment(now.wall_ns, now, now),
        entries=tuple(JournalEntry(str(number), number, now, each) for number, each in enumerate(events)),
        calls=tuple(calls),
        declared=frozenset(declared),
        losses=dict.fromkeys(losses, 1),
        set_forward_ns=set_forward // timedelta(microseconds=1) * 1_000,
        complete_since=BEGAN,
    )


def parcels(ledger: Ledger, capture: Capture, request: int = 0, *, closed: bool = False) -> list[Parcel]:
    return ledger.parcels(capture, request, closed=closed)


def send(ledger: Ledger, capture: Capture, request: int = 0, *, closed: bool = False) -> Batch:
    """Send what is one batch."""
    (parcel,) = parcels(ledger, capture, request, closed=closed)
    ledger.sent(parcel)
    return parcel.batch


# -- batches


def test_one_capture_is_one_batch() -> None:
    """It holds the events, and says up to when all is stored and until when the recorder lives."""
    ledger = ledger_of()
    batch = send(ledger, captured(event("a"), event("b"), after=SECOND), 7)
    assert [row.name for row in batch.events] == ["a", "b"]
    assert batch.stored_ns == BEGAN.shifted(SECOND).wall_ns
    assert batch.ended_ns == BEGAN.shifted(SECOND + LEASE).wall_ns
    assert (batch.answered, batch.closed, batch.gaps, batch.started, batch.ended) == (7, False, [], [], [])
    assert ledger.stored_until == BEGAN.shifted(SECOND)


@pytest.mark.parametrize(
    "count,sizes",
    [(0, [0]), (1, [1]), (2_000, [2_000]), (2_001, [2_000, 1]), (4_000, [2_000, 2_000]), (4_500, [2_000, 2_000, 500])],
)
def test_large_captures_are_cut_into_chunks(count: int, sizes: list[int]) -> None:
    """A batch holds 2,000 events at most; only the last one says that all is stored, and completes the capture."""
    ledger = ledger_of()
    capture = captured(*[event(f"name {n}", f"id {n}") for n in range(count)], declared=["a"], losses=["lost"])
    made = parcels(ledger, capture, 3)
    assert [parcel.count for parcel in made] == [len(parcel.batch.events) for parcel in made] == sizes
    assert [parcel.capture for parcel in made] == [None] * (len(sizes) - 1) + [capture]
    assert [row.name for parcel in made for row in parcel.batch.events] == [f"name {n}" for n in range(count)]
    for parcel in made[:-1]:
        batch = parcel.batch
        assert batch == Batch(batch.number, batch.events, ended=[], ended_ns=capture.now.shifted(LEASE).wall_ns)
        ledger.sent(parcel)
        assert ledger.has_news(attrs.evolve(capture, entries=()))
    last = made[-1].batch
    assert (last.stored_ns, last.answered, last.declared, len(last.gaps)) == (capture.now.wall_ns, 3, {"a": False}, 1)
    ledger.sent(made[-1])
    assert not ledger.has_news(captured(declared=["a"]))


def test_batches_are_numbered() -> None:
    """Each has a number of its own, the next one, sent or not."""
    ledger = Ledger("api-7", False, LEASE, BEGAN)
    numbers = [parcel.batch.number for _ in range(2) for parcel in parcels(ledger, captured(*[event()] * 2_001))]
    assert numbers == [2, 3, 4, 5], "with the first one its row is made"


def test_what_was_packed_in_vain_is_packed_again() -> None:
    """Packing may be cut off: what was never sent is not known, also the start of a call."""
    ledger = ledger_of()
    capture = captured(calls=[call(id="1")], declared=["a"], losses=["lost"])
    first, second = parcels(ledger, capture)[0].batch, parcels(ledger, capture)[0].batch
    assert attrs.evolve(first, number=0) == attrs.evolve(second, number=0)
    assert [key for key, _ in second.started] == ["1"]


def test_a_row_is_made_with_nothing_that_could_be_there_twice() -> None:
    """Who never learns of the row that was made makes another."""
    ledger = ledger_of()
    batch = parcels(ledger, captured(event(id="1"), calls=[call(id="2")], declared=["a"], losses=["lost"]))[0].batch
    opening = batch.opening()
    assert (opening.number, opening.declared, opening.ended_ns) == (1, {"a": False}, batch.ended_ns)
    assert (opening.events, opening.started, opening.ended, opening.gaps, opening.stored_ns) == ((), (), (), (), None)


def test_the_last_batch_closes() -> None:
    """It ends the recorder's life at that moment, and not at the end of a lease."""
    batch = send(ledger_of(), captured(event(), after=SECOND), closed=True)
    assert (batch.closed, batch.ended_ns, batch.stored_ns) == (True, *[BEGAN.shifted(SECOND).wall_ns] * 2)


def test_it_answers_the_request_that_it_saw() -> None:
    """Also a lower one, of a database that lost commits: nobody has answered what that will ask yet."""
    ledger = ledger_of()
    assert send(ledger, captured(), 5).answered == 5
    assert send(ledger, captured(), 3).answered == 3
    assert ledger.answered == 3


def test_when_there_is_news() -> None:
    """Events, losses, a step of the clock, a new name or a lease that ran out would change an answer; else nothing."""
    ledger = ledger_of()
    send(ledger, captured(declared=["a"]))
    assert not ledger.has_news(captured(declared=["a"]))
    assert not ledger.has_news(captured(after=LEASE))
    assert not ledger.has_news(captured(calls=[call()]))
    for news in (
        captured(event()),
        captured(losses=["lost"]),
        captured(set_forward=SECOND),
        captured(declared=["a", "b"]),
        captured(after=LEASE + timedelta(microseconds=1)),
    ):
        assert ledger.has_news(news)


def test_when_the_lease_is_due() -> None:
    """It is renewed when a third of it is over."""
    ledger = ledger_of()
    assert not ledger.is_due(BEGAN.shifted(LEASE / 3 - timedelta(microseconds=1)))
    assert ledger.is_due(BEGAN.shifted(LEASE / 3))
    send(ledger, captured(after=LEASE / 3))
    assert not ledger.is_due(BEGAN.shifted(LEASE / 3))


def test_names_are_declared_once() -> None:
    """A batch declares what the store does not know yet, and how it is recorded; what no database takes, never."""
    ledger = ledger_of(durable=[OLD])
    assert send(ledger, captured(declared=["a", OLD])).declared == {"a": False}
    assert send(ledger, captured(declared=["a", "b", OLD, "\x00", "\ud800"])).declared == {"b": False}
    assert send(ledger, captured(declared=["a", "b", OLD, "\x00"])).declared == {}
    assert not ledger.has_news(captured(declared=["a", "b", OLD, "\x00"]))


# -- gaps


def test_losses_are_gaps() -> None:
    """Each reason is a gap since the last time when all was stored."""
    ledger = ledger_of()
    send(ledger, captured(after=SECOND))
    batch = send(ledger, captured(losses=["one", "two"], after=3 * SECOND))
    bounds = (BEGAN.shifted(SECOND).wall_ns, BEGAN.shifted(3 * SECOND).wall_ns)
    assert [(g.since_ns, g.until_ns, g.kind, g.reason) for g in batch.gaps] == [
        (*bounds, "lost", "one"),
        (*bounds, "lost", "two"),
    ]


def test_losses_before_the_pledge_is_stored_are_gaps_of_a_kind_of_their_own() -> None:
    """A pledge does not cover what was lost before the store had it, also where it was given already."""
    ledger = Ledger("api-7", False, LEASE, BEGAN)
    assert not ledger.has_begun
    assert [gap.kind for gap in send(ledger, captured(event("\x00"), losses=["one"])).gaps] == ["early", "early"]
    ledger.pledge([OLD])
    both = captured(losses=["one"], set_forward=SECOND)
    assert [gap.kind for gap in send(ledger, both).gaps] == ["early", "clock"]
    ledger.has_begun = True
    assert [gap.kind for gap in send(ledger, both).gaps] == ["lost", "clock"]


def test_a_clock_set_forward_is_a_gap_of_its_own_kind() -> None:
    """It says by how much."""
    batch = send(ledger_of(), captured(set_forward=timedelta(hours=2), after=timedelta(hours=2)))
    (gap,) = batch.gaps
    assert (gap.kind, gap.until_ns - gap.since_ns) == ("clock", 7_200 * 10**9)
    assert "went forward by 2:00:00" in gap.reason


def test_a_clock_set_back_makes_no_gap_that_runs_backwards() -> None:
    """Where now is before the last time that all was stored, the gap is of no length, and still there."""
    ledger = ledger_of()
    send(ledger, captured(after=3 * SECOND))
    (gap,) = send(ledger, captured(losses=["one"], after=SECOND)).gaps
    assert gap.since_ns == gap.until_ns == BEGAN.shifted(SECOND).wall_ns


@pytest.mark.parametrize("where", [{"name": "\x00"}, {"source": "\ud800"}, {"attempts": 2**63}])
def test_an_event_that_cannot_be_written_is_a_loss(where: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """It is a gap, and logged; the events beside it are stored, and it is not tried again."""
    ledger = ledger_of()
    (parcel,) = parcels(ledger, captured(event("a"), attrs.evolve(event("b"), **where), event("c")))
    assert [row.name for row in parcel.batch.events] == ["a", "c"]
    assert (parcel.count, [gap.reason for gap in parcel.batch.gaps]) == (3, ["an event could not be written"])
    assert "cannot be stored: a loss" in caplog.text


def test_an_unwritable_event_of_an_early_chunk_is_a_loss_too() -> None:
    """The gap is told with the last batch, which says that all is stored."""
    events = [event("\x00"), *[event()] * 2_500]
    first, last = parcels(ledger_of(), captured(*events))
    assert (first.count, len(first.batch.events), len(first.batch.gaps)) == (2_000, 1_999, 0)
    assert [gap.reason for gap in last.batch.gaps] == ["an event could not be written"]


def test_a_start_that_cannot_be_written_is_a_loss(caplog: pytest.LogCaptureFixture) -> None:
    """A call that the store cannot hold leaves a gap, once."""
    ledger = ledger_of()
    running = [call("\x00", "1"), call("b", "2")]
    batch = send(ledger, captured(calls=running))
    assert ([key for key, _ in batch.started], len(batch.gaps)) == (["2"], 1)
    assert "the start of a call '\\x00' cannot be stored" in caplog.text
    again = send(ledger, captured(calls=running))
    assert (again.started, again.gaps) == ([], [])


# -- calls in flight


def test_calls_are_stored_when_first_seen_and_end_with_their_event() -> None:
    """A start is stored once; the batch with the event of the call takes it away."""
    ledger = ledger_of()
    running = call(id="1", observed={"tenant": "a"})
    ((key, row),) = send(ledger, captured(calls=[running])).started
    assert (key, row.name, row.call().observed.known) == ("1", "quote.read", {"tenant": "a"})
    assert send(ledger, captured(calls=[running])).started == []
    batch = send(ledger, captured(event(id="1")))
    assert (set(batch.ended), batch.started) == ({"1"}, [])
    assert send(ledger, captured(event(id="1"))).ended == []


def test_a_call_that_is_gone_without_an_event_ends() -> None:
    """Its event was lost, which is a gap, or it had none; the call is in flight no more."""
    ledger = ledger_of()
    nameless = call()
    (started,) = send(ledger, captured(calls=[nameless])).started
    assert send(ledger, captured(calls=[nameless])).ended == []
    assert send(ledger, captured()).ended == [started[0]]
    assert send(ledger, captured()).ended == []


def test_keys_of_calls_without_an_id() -> None:
    """They are told apart within a recorder, and from those of every other: an `id()` is of one process alone."""
    one, two = call(), call()
    first, second = ledger_of(), ledger_of()
    keys = [key for ledger in (first, second) for key, _ in send(ledger, captured(calls=[one, two])).started]
    assert len(set(keys)) == 4
    assert [first.durable_call(one)[0], first.durable_call(two)[0], *keys[2:]] == keys
    assert first.durable_call(call(id="1"))[0] == second.durable_call(call(id="1"))[0] == "1"


def test_between_its_event_and_its_end_a_call_is_over() -> None:
    """A call that is still in flight when its event is there already is not stored as one that began."""
    ledger = ledger_of()
    running = call(id="1")
    batch = send(ledger, captured(event(id="1"), calls=[running]))
    assert (batch.started, batch.ended) == ([], [])
    assert send(ledger, captured(calls=[running])).started == []
    send(ledger, captured())
    assert [key for key, _ in send(ledger, captured(calls=[running])).started] == ["1"], "it is forgotten"


def test_a_known_call_is_not_stored_again_between_its_event_and_its_end() -> None:
    """The batch with its event takes the start away for good, however long the end takes."""
    for durable in ([], ["quote.read"]):
        ledger = ledger_of(durable=durable)
        running = call(id="1")
        if durable:
            ledger.durable_call(running)
        send(ledger, captured(calls=[running]))
        assert send(ledger, captured(event(id="1"), calls=[running])).ended == ["1"]
        assert send(ledger, captured(calls=[running])).started == []


# -- durable names


def test_a_durable_start_is_not_stored_again() -> None:
    """It was stored apart from the batches."""
    ledger = ledger_of(durable=[OLD])
    running = call(OLD, "1")
    assert ledger.durable_call(running) == ("1", CallRow.of(running))
    assert send(ledger, captured(calls=[running])).started == []


def test_a_durable_start_ends_only_with_a_stored_event() -> None:
    """Neither the end of the call without an event nor an event that cannot be written takes it away."""
    ledger = ledger_of(durable=[OLD])
    ledger.durable_call(call(OLD, "1"))
    assert send(ledger, captured(losses=["the journal refused an append"])).ended == []
    assert send(ledger, captured(event(OLD, "1", attempts=2**70))).ended == []
    assert send(ledger, captured(event(OLD, "1"))).ended == ["1"]


def test_a_call_of_a_durable_name_that_was_taken_over_ends_only_with_its_event() -> None:
    """What ran when the recorder began is watched as closely as what begins later, and breaks no pledge."""
    ledger = Ledger("api-7", False, LEASE, BEGAN)
    ledger.pledge([OLD])
    running = call(OLD, "1")
    send(ledger, captured(event(OLD, "0"), calls=[running]))
    assert send(ledger, captured()).ended == []
    assert send(ledger, captured(event(OLD, "1"))).ended == ["1"]
    assert ledger.durable == {OLD}


def test_in_several_chunks_each_ends_what_its_events_end() -> None:
    """A start goes with the batch that holds its event, and is sent again with it if that failed."""
    ledger = ledger_of(durable=[OLD])
    for number in (5, 2_500):
        ledger.durable_call(call(OLD, str(number)))
    events = [event(OLD if n in (5, 2_500) else "other", str(n)) for n in range(3_000)]
    first, last = parcels(ledger, captured(*events))
    assert (first.batch.ended, last.batch.ended) == (["5"], ["2500"])
    ledger.sent(first)
    assert ledger._durable_calls == {"2500"}
    ledger.sent(last)
    assert ledger._durable_calls == set()


@pytest.mark.parametrize("id", [None, "unknown"])
def test_a_broken_pledge(id: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """An event of a durable name without its start shows that the name is not recorded durably: so it is declared."""
    ledger = ledger_of(durable=[OLD, "other"])
    ledger.durable_call(call(OLD, "1"))
    batch = send(ledger, captured(event(OLD, "1"), declared=[OLD, "other"]))
    assert (ledger.durable, batch.declared) == ({OLD, "other"}, {})
    (parcel,) = ledger.parcels(captured(event(OLD, id), declared=[OLD, "other"]), 0, closed=False)
    assert parcel.batch.declared == {OLD: False}
    assert ledger.durable == {OLD, "other"}, "the store goes by the pledge until it is told"
    ledger.sent(parcel)
    assert ledger.durable == {"other"}
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "phyxius.adapters")
    assert "recorded without its start, so recorder api-7 records it in the background" in record.getMessage()
    assert send(ledger, captured(event(OLD, id), declared=[OLD, "other"])).declared == {}
    assert len(caplog.records) == 1


def test_before_a_pledge_there_is_none_to_break() -> None:
    """What was recorded before the names were pledged is taken as it is."""
    ledger = Ledger("api-7", False, LEASE, BEGAN)
    assert send(ledger, captured(event(OLD, "0"), declared=[OLD])).declared == {OLD: False}
    ledger.pledge([OLD])
    assert send(ledger, captured(event(OLD, "1"), declared=[OLD])).declared == {OLD: True}


# -- audit only


def test_audit_only(caplog: pytest.LogCaptureFixture) -> None:
    """A process that records nothing but the library's own events stays so; one that runs a handler is so no more.

    Nor is one that lost something: nobody knows what it was.
    """
    ledger = ledger_of(audit_only=True)
    assert send(ledger, captured(event("migration.quotes.advance", source="migration"))).audit_only is True
    for capture in (captured(event()), captured(calls=[call()]), captured(losses=["the journal refused an append"])):
        ledger = ledger_of(audit_only=True)
        assert send(ledger, capture).audit_only is False
        assert send(ledger, captured()).audit_only is False
        assert ledger.audit_only is False
    assert [record.getMessage() for record in caplog.records] == [
        "recorder api-7 is audit_only, but its process runs handlers; it is so no more"
    ] * 3
