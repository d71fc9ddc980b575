"""What can be asked of a call that has not ended."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from phyxius.clock import Instant
from phyxius.handler import HandlerEvent, InFlightCall, NotYetObservedError

STARTED = Instant(wall_ns=1, mono_ns=2)


@pytest.fixture
def call() -> InFlightCall:
    return InFlightCall("quote.read", STARTED, observed={"tenant": "a"}, correlation_id="c")


def test_it_tells_what_is_known(call: InFlightCall) -> None:
    """Name, start, source, ids and what was observed at the start can be read."""
    assert (call.name, call.started_at, call.source) == ("quote.read", STARTED, "handler")
    assert (call.invocation_id, call.correlation_id) == (None, "c")
    assert call.observed["tenant"] == call.observed.get("tenant", "b") == "a"
    assert "tenant" in call.observed
    assert repr(call.observed) == "ObservedSoFar({'tenant': 'a'})"


@pytest.mark.parametrize("name", ["outcome", "completed_at", "duration", "attempts", "error"])
def test_what_only_the_end_tells_raises(call: InFlightCall, name: str) -> None:
    """An attribute of the event to come raises, even where a default is offered."""
    with pytest.raises(NotYetObservedError, match="the call is in flight"):
        getattr(call, name, None)


def test_it_has_the_attributes_of_an_event() -> None:
    """Whatever a `where` reads of an event is either known or raises NotYetObservedError."""
    assert {field for field in dir(HandlerEvent) if not field.startswith("_")} <= set(dir(InFlightCall))


@pytest.mark.parametrize(
    "ask",
    [
        lambda observed: observed["rows"],
        lambda observed: observed.get("rows"),
        lambda observed: observed.get("rows", 0),
        lambda observed: "rows" in observed,
        lambda observed: "rows" not in observed,
        lambda observed: "rows" in observed.keys(),  # noqa: SIM118
        lambda observed: ("rows", 1) in observed.items(),
        lambda observed: 1 in observed.values(),
        list,
        lambda observed: list(observed.items()),
        dict,
        lambda observed: {**observed},
        len,
        bool,
        lambda observed: observed == {"tenant": "a"},
        lambda observed: observed != {},
        lambda observed: observed.keys() == {"tenant"},
    ],
)
def test_what_is_not_there_yet_raises(call: InFlightCall, ask: Callable[[Any], object]) -> None:
    """No way of asking takes "not yet" for "not"."""
    with pytest.raises(NotYetObservedError):
        ask(call.observed)


def test_pattern_matching_raises(call: InFlightCall) -> None:
    """A `match` over what is not yet observed raises too."""

    def match(observed: object) -> bool:
        match observed:
            case {"rows": _}:
                return True
            case _:
                return False

    with pytest.raises(NotYetObservedError):
        match(call.observed)


def test_it_is_no_lookup_error(call: InFlightCall) -> None:
    """An `except KeyError` in a `where` does not catch it; and it pickles."""
    assert not issubclass(NotYetObservedError, LookupError | AttributeError)
    with pytest.raises(NotYetObservedError, match="observed\\['rows'\\] is not known yet") as raised:
        _ = call.observed["rows"]
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_observed_is_a_copy() -> None:
    """What is observed later does not count as known at the start."""
    observed: dict[str, object] = {}
    call = InFlightCall("quote.read", STARTED, observed=observed)
    observed["tenant"] = "a"
    with pytest.raises(NotYetObservedError):
        _ = call.observed["tenant"]


def test_it_can_be_evolved(call: InFlightCall) -> None:
    """A copy with another start knows what the original knows, and no more."""
    later = attrs.evolve(call, started_at=Instant(wall_ns=9, mono_ns=9))
    assert later.observed["tenant"] == "a"
    with pytest.raises(NotYetObservedError):
        later.observed.get("rows")


def test_it_has_no_hash(call: InFlightCall) -> None:
    """What cannot be compared cannot be hashed."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(call.observed)


def test_what_is_known_can_be_taken_as_a_whole(call: InFlightCall) -> None:
    """`known` is what was observed at the start, for who knows that more may come; without any it is empty."""
    assert call.observed.known == {"tenant": "a"}
    assert InFlightCall("quote.read", STARTED).observed.known == {}


def test_what_is_known_goes_from_call_to_call(call: InFlightCall) -> None:
    """What a call has observed so far is given on as it is."""
    assert InFlightCall("other", STARTED, observed=call.observed).observed is call.observed
