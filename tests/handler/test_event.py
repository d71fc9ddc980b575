"""The event that a call leaves behind, and its way through JSON."""

from __future__ import annotations

import pickle
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import Instant, create_controlled_clock
from phyxius.handler import (
    HandlerError,
    HandlerEvent,
    NotStoredError,
    NotYetObservedError,
    ObservedInPart,
    ObservedSoFar,
    event_serializer,
)
from phyxius.journal import Journal

EARLIER = Instant(wall_ns=1_000_000, mono_ns=5_000_000)
LATER = Instant(wall_ns=9_999_000_000, mono_ns=6_234_567)


class Key(StrEnum):
    TENANT = "tenant"


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


def event(**fields: Any) -> HandlerEvent:
    return HandlerEvent(**{"name": "quote.read", "outcome": "success", "completed_at": LATER, **fields})


def through_json(original: HandlerEvent) -> HandlerEvent:
    journal = Journal[HandlerEvent](clock=create_controlled_clock(), serializer=event_serializer)
    journal.append(original)
    restored = Journal[HandlerEvent].from_json(journal.to_json(), clock=journal.clock, serializer=event_serializer)
    return next(iter(restored)).data


def test_defaults() -> None:
    """Only name, outcome and completion must be given."""
    made = HandlerEvent("quote.read", "failure", LATER)
    assert attrs.asdict(made, recurse=False) == {
        "name": "quote.read",
        "outcome": "failure",
        "completed_at": LATER,
        "started_at": LATER,
        "source": "handler",
        "observed": {},
        "attempts": 1,
        "error": None,
        "invocation_id": None,
        "correlation_id": None,
    }


def test_no_start_is_the_end() -> None:
    """A `started_at` of None is the completion, and the call took no time."""
    assert event(started_at=None).started_at == LATER
    assert event(started_at=None).duration == timedelta(0)


@pytest.mark.parametrize(
    "fields",
    [{"name": ""}, {"outcome": "ok"}, {"outcome": None}, {"outcome": True}, {"outcome": "Success"}],
)
def test_what_no_query_could_find_is_refused(fields: dict[str, Any]) -> None:
    """An event has a name, and one of the two outcomes."""
    with pytest.raises(ValueError, match=r"(event needs a name)|(outcome is)"):
        event(**fields)


def test_duration_is_monotonic_where_it_can_be() -> None:
    """The duration is read off the monotonic clock, to the microsecond; off the wall for a restored event."""
    assert event(started_at=EARLIER).duration == timedelta(microseconds=1_234)
    assert event(started_at=attrs.evolve(EARLIER, mono_ns=None)).duration == timedelta(seconds=9, microseconds=998_000)


def test_observed_is_a_copy() -> None:
    """Whoever filled the mapping cannot change the event through it."""
    observed = {"rows": 1}
    made = event(observed=observed)
    observed["rows"] = 2
    assert made.observed == {"rows": 1}


def test_it_is_frozen_and_pickles() -> None:
    """An event is a value: it cannot be changed, and travels between processes."""
    made = event(started_at=EARLIER, observed={"rows": [1]}, error=HandlerError("KeyError", "'x'"))
    there = pickle.loads(pickle.dumps(made))
    assert (there.name, there.observed) == (made.name, made.observed)
    assert there.completed_at == Instant(wall_ns=made.completed_at.wall_ns, mono_ns=None)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.name = "other"


@pytest.mark.parametrize(
    "error, described",
    [
        (KeyError("x"), HandlerError("KeyError", "'x'")),
        (ValueError("a" * 500), HandlerError("ValueError", "a" * 500)),
        (ValueError("a" * 501), HandlerError("ValueError", "a" * 499 + "…")),
        (UnreadableError(), HandlerError("UnreadableError", "(a UnreadableError that cannot be described)")),
        (KeyboardInterrupt(), HandlerError("KeyboardInterrupt", "")),
    ],
)
def test_error_of_any_exception(error: BaseException, described: HandlerError) -> None:
    """An exception is described by its class and its message, which is cut, and survived if it cannot be read."""
    assert HandlerError.of(error) == described


def test_round_trip() -> None:
    """All fields come back from JSON; the monotonic time alone means nothing to another process."""
    made = event(
        outcome="failure",
        started_at=EARLIER,
        source="connector",
        observed={"rows": [1, 2.5, None, True], "nested": {"k": "ü"}},
        attempts=3,
        error=HandlerError("KeyError", "'x'"),
        invocation_id="i",
        correlation_id="c",
    )
    wall = {name: attrs.evolve(getattr(made, name), mono_ns=None) for name in ("started_at", "completed_at")}
    assert through_json(made) == attrs.evolve(made, **wall)


@pytest.mark.parametrize(
    "observed, restored",
    [
        ({"s": {1}}, {"s": "{1}"}),
        ({"f": float("nan")}, {"f": "nan"}),
        ({"b": b"x", "fine": 1}, {"b": "b'x'", "fine": 1}),
        ({"id": UUID(int=1)}, {"id": str(UUID(int=1))}),
        ({Key.TENANT: Key.TENANT}, {"tenant": "tenant"}),
        ({1: "x", "fine": 2}, {"1": "x", "fine": 2}),
        ({"\x00": "\x00"}, {"'\\x00'": "'\\x00'"}),
        ({"e": UnreadableError()}, {"e": "(a UnreadableError that cannot be described)"}),
    ],
)
def test_what_json_cannot_hold_is_written_as_its_repr(observed: Any, restored: dict[str, object]) -> None:
    """Whatever was observed can be written, and what was written can be loaded: nothing else is lost by it."""
    assert through_json(event(observed=observed)).observed == restored


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.frozensets(st.integers()),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.integers() | st.binary(), anything))
def test_anything_observed_survives(observed: dict[Any, object]) -> None:
    """No observation makes a journal unreadable, and a second round trip changes nothing any more."""
    once = through_json(event(observed=observed))
    assert through_json(once) == once


@pytest.mark.parametrize(
    "change",
    [
        lambda observed: observed.update(a=2),
        lambda observed: observed.pop("a"),
        lambda observed: observed.setdefault("b", 1),
        lambda observed: observed.__setitem__("a", 2),
        lambda observed: observed.__delitem__("a"),
        lambda observed: observed.clear(),
        lambda observed: observed.popitem(),
        lambda observed: observed.__ior__({"a": 2}),
    ],
)
def test_what_was_observed_can_only_be_read(change: Any) -> None:
    """A `where` that took something away would judge another event the next time."""
    event = HandlerEvent("quote.read", "success", create_controlled_clock().now(), observed={"a": 1})
    with pytest.raises(TypeError, match="copy it"):
        change(event.observed)
    assert event.observed == {"a": 1} == dict(event.observed)


def test_names_are_exact_texts() -> None:
    """A kind of text that answers for itself is filed by what it says."""

    class Unhashable(str):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

    wrong: Any = Unhashable("success")
    event = HandlerEvent(Unhashable("quote.read"), wrong, create_controlled_clock().now())
    assert (type(event.name), type(event.outcome)) == (str, str)


@pytest.mark.parametrize("observed", [ObservedInPart({"a": 1}, ["b"]), ObservedSoFar({"a": 1})], ids=repr)
def test_what_is_known_in_part_stays_so(observed: Any) -> None:
    """An event of which not all is known keeps that knowledge: copied into a dict, "not known" would read "not"."""
    made = event(observed=observed)
    assert made.observed is observed
    assert attrs.evolve(made, name="other").observed is observed
    assert made.observed["a"] == 1
    with pytest.raises((NotStoredError, NotYetObservedError)):
        made.observed.get("b")
