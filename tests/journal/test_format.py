"""A journal as JSON text."""

from __future__ import annotations

import contextlib
import copy
import json
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import ControlledClock, Instant, create_controlled_clock
from phyxius.journal import Journal, JournalFormatError, JournalOverflowError, PayloadError

VALID: dict[str, Any] = {
    "version": 1,
    "next_sequence": 5,
    "max_entries": 3,
    "overflow": "drop_oldest",
    "entries": [{"id": f"id-{sequence}", "sequence": sequence, "wall_ns": 7, "data": sequence} for sequence in (3, 4)],
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text() | st.sampled_from([*VALID, "id", "data"]), parts),
    max_leaves=8,
)


@attrs.frozen
class Point:
    x: int


class PointSerializer:
    def dump(self, data: Point, /) -> object:
        return [data.x]

    def load(self, value: Any, /) -> Point:
        return Point(10 // value[0])


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


def changed(**fields: object) -> str:
    return json.dumps({**VALID, **fields})


def test_the_text_holds_the_entries_and_the_bound(clock: ControlledClock) -> None:
    """What `to_json` writes is this and nothing else, so that later versions can read it."""
    numbers = iter(range(9))
    journal: Journal[object] = Journal(
        clock=clock, max_entries=2, overflow="drop_oldest", id_generator=lambda: f"id-{next(numbers)}"
    )
    for data in ("dropped", {"a": [1]}, None):
        journal.append(data)
        clock.advance_by(timedelta(seconds=1))
    assert json.loads(journal.to_json()) == {
        "version": 1,
        "next_sequence": 3,
        "max_entries": 2,
        "overflow": "drop_oldest",
        "entries": [
            {"id": "id-1", "sequence": 1, "wall_ns": 1_000_000_000, "data": {"a": [1]}},
            {"id": "id-2", "sequence": 2, "wall_ns": 2_000_000_000, "data": None},
        ],
    }


def test_a_restored_journal_goes_on_where_it_stopped(clock: ControlledClock) -> None:
    """Entries, numbering and bound come back; the times are those of another process."""
    clock.advance_by(timedelta(hours=1))
    journal = Journal[object].from_json(json.dumps(VALID), clock=clock)
    assert json.loads(journal.to_json()) == VALID
    assert [(each.sequence, each.timestamp) for each in journal] == [
        (3, Instant(wall_ns=7, mono_ns=None)),
        (4, Instant(wall_ns=7, mono_ns=None)),
    ]
    assert [journal.append(data).sequence for data in "ab"] == [5, 6]
    assert [each.data for each in journal] == [4, "a", "b"]
    assert journal.clock is clock


def test_a_restored_journal_vouches_for_nothing_before(clock: ControlledClock) -> None:
    """It is complete only since now, says why, and declares nothing."""
    journal: Journal[object] = Journal(clock=clock)
    journal.declare("seen")
    journal.append(1)
    clock.advance_by(timedelta(hours=1))
    restored = Journal[object].from_json(journal.to_json(), clock=clock)
    assert restored.complete_since == clock.now()
    assert "restored" in restored.complete_since_reason
    assert restored.declared == frozenset()


def test_a_serializer_writes_and_reads_the_data(clock: ControlledClock) -> None:
    """Data that is no JSON goes through the serializer both ways."""
    journal: Journal[Point] = Journal(clock=clock, serializer=PointSerializer())
    journal.append(Point(2))
    restored = Journal.from_json(journal.to_json(), clock=clock, serializer=PointSerializer())
    assert [each.data for each in restored] == [Point(5)]
    assert json.loads(restored.to_json())["entries"][0]["data"] == [5]


def test_data_that_is_no_json_is_named_with_the_remedy(clock: ControlledClock) -> None:
    """The message tells the entry and, unless there is one, to give a serializer."""

    class Useless(PointSerializer):
        def dump(self, data: Point, /) -> object:
            return data

    for serializer, hint in ((None, True), (Useless(), False)):
        journal: Journal[Any] = Journal(clock=clock, serializer=serializer)
        journal.append(Point(1))
        journal.append(Point(b""))  # type: ignore[arg-type]
        with pytest.raises(PayloadError, match=r"entry 1: .*\.x cannot be written") as caught:
            journal.to_json()
        assert ("give the journal a serializer" in str(caught.value)) is hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "null",
        "[]",
        json.dumps({**VALID, "version": 2}),
        json.dumps({key: value for key, value in VALID.items() if key != "version"}),
        *(json.dumps({key: value for key, value in VALID.items() if key != gone}) for gone in list(VALID)[1:]),
        *(changed(next_sequence=wrong) for wrong in (None, "5", 5.0, True, -1, 1)),
        *(changed(max_entries=wrong) for wrong in (None, "3", 3.0, True, -3, 0, 1, float("nan"))),
        *(changed(overflow=wrong) for wrong in (None, "none", "ring", [], {})),
        *(changed(entries=wrong) for wrong in (None, {}, "", "ab", [1, 2], [{}, {}])),
        changed(entries=VALID["entries"][::-1]),
        changed(entries=VALID["entries"][:1]),
        changed(next_sequence=1, entries=[{**VALID["entries"][0], "sequence": sequence} for sequence in (-1, 0)]),
        *(
            changed(entries=[VALID["entries"][0], {**VALID["entries"][1], **wrong}])
            for wrong in [{"id": 1}, {"id": None}, {"wall_ns": 1.5}, {"wall_ns": True}, {"sequence": 4.0}]
        ),
        changed(entries=[VALID["entries"][0], {**VALID["entries"][1], "data": float("inf")}]),
    ],
    ids=lambda text: text[-60:],
)
def test_a_text_that_is_no_journal_is_refused(clock: ControlledClock, text: str) -> None:
    """Whatever is wrong is a `JournalFormatError` that says so."""
    with pytest.raises(JournalFormatError, match="this is no journal that to_json"):
        Journal.from_json(text, clock=clock)


@pytest.mark.parametrize("data", [None, [], [0], {}, ["a"], [None]], ids=repr)
def test_data_that_a_serializer_cannot_read_is_refused(clock: ControlledClock, data: object) -> None:
    """A serializer that stumbles over foreign data need not say `ValueError` itself."""
    text = changed(next_sequence=1, entries=[{"id": "a", "sequence": 0, "wall_ns": 0, "data": data}])
    with pytest.raises(JournalFormatError):
        Journal.from_json(text, clock=clock, serializer=PointSerializer())


@pytest.mark.parametrize(
    "kind", [ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError]
)
def test_what_a_serializer_stumbles_over_is_kept(clock: ControlledClock, kind: type[Exception]) -> None:
    """The error of the serializer is the cause of the refusal."""

    class Broken(PointSerializer):
        def load(self, value: Any, /) -> Point:
            raise kind("broken")

    with pytest.raises(JournalFormatError, match="broken") as caught:
        Journal.from_json(json.dumps(VALID), clock=clock, serializer=Broken())
    assert type(caught.value.__cause__) is kind


def check(text: str) -> None:
    """A text is refused properly, or is a journal that works and writes the same."""
    try:
        journal = Journal[object].from_json(text, clock=create_controlled_clock())
    except JournalFormatError:
        return
    with contextlib.suppress(PayloadError):  # it may hold a text that to_json would not write
        assert json.loads(journal.to_json()) == json.loads(text)
    held = list(journal)
    assert [journal.entry(each.sequence) for each in held] == held
    with contextlib.suppress(JournalOverflowError):
        assert journal.append(0).sequence == json.loads(text)["next_sequence"]


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes `from_json` raise anything but `JournalFormatError`."""
    check(text)


@given(st.data())
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    """A text of which one value was replaced is refused, or it is a journal that to_json could have written."""
    damaged = copy.deepcopy(VALID)
    part = data.draw(st.sampled_from([damaged, *damaged["entries"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(json_values)
    check(json.dumps(damaged))
