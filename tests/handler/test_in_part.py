"""What was observed, where not all of it could be stored."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from phyxius.handler import NotStoredError, ObservedInPart


@pytest.fixture
def observed() -> ObservedInPart:
    return ObservedInPart({"tenant": "a", "rows": 3}, ["body", "file"])


def test_it_tells_what_was_stored(observed: ObservedInPart) -> None:
    """What is there can be read in every way that asks for one key."""
    assert observed["tenant"] == observed.get("tenant", "b") == "a"
    assert "rows" in observed
    assert repr(observed) == "ObservedInPart({'tenant': 'a', 'rows': 3}, missing=['body', 'file'])"


def test_what_was_never_observed_is_absent(observed: ObservedInPart) -> None:
    """A key that is neither stored nor missing was not there, and is told as a dict tells it."""
    assert "other" not in observed
    assert observed.get("other", 7) == 7
    with pytest.raises(KeyError):
        _ = observed["other"]


def match(observed: object) -> bool:
    match observed:
        case {"body": _}:
            return True
        case _:
            return False


@pytest.mark.parametrize(
    "ask",
    [
        lambda observed: observed["body"],
        lambda observed: observed.get("body"),
        lambda observed: observed.get("body", 0),
        lambda observed: "body" in observed,
        lambda observed: "body" not in observed,
        lambda observed: "body" in observed.keys(),  # noqa: SIM118
        lambda observed: ("body", 1) in observed.items(),
        lambda observed: 1 in observed.values(),
        list,
        lambda observed: list(observed.items()),
        dict,
        lambda observed: {**observed},
        len,
        bool,
        lambda observed: observed == {"tenant": "a", "rows": 3},
        lambda observed: observed != {},
        lambda observed: observed.keys() == {"tenant"},
        match,
    ],
)
def test_what_could_not_be_stored_raises(observed: ObservedInPart, ask: Callable[[Any], object]) -> None:
    """No way of asking takes "not stored" for "not", nor a part for the whole."""
    with pytest.raises(NotStoredError, match="it was no JSON, or too large, or its redaction raised"):
        ask(observed)


def test_a_key_that_is_both_is_missing() -> None:
    """Where two keys were written alike and one of them could not be stored, neither is believed."""
    with pytest.raises(NotStoredError):
        _ = ObservedInPart({"body": 1}, ["body"])["body"]


def test_it_is_a_copy() -> None:
    """Later changes of what it was made from do not reach it."""
    stored, missing = {"tenant": "a"}, ["body"]
    observed = ObservedInPart(stored, missing)
    stored["rows"] = 3  # type: ignore[assignment]
    missing.clear()
    assert "rows" not in observed
    with pytest.raises(NotStoredError):
        observed.get("body")


def test_it_is_a_mapping_without_a_hash(observed: ObservedInPart) -> None:
    """It is a Mapping, cannot be changed, and what cannot be compared cannot be hashed."""
    assert isinstance(observed, Mapping)
    assert not hasattr(observed, "__setitem__")
    with pytest.raises(TypeError, match="unhashable"):
        hash(observed)


def test_it_pickles(observed: ObservedInPart) -> None:
    """It travels between processes, with what is missing."""
    assert repr(pickle.loads(pickle.dumps(observed))) == repr(observed)


def test_it_is_no_lookup_error() -> None:
    """An `except KeyError` in a `where` does not catch it."""
    assert not issubclass(NotStoredError, LookupError | AttributeError)


@pytest.mark.parametrize("transport", [lambda error: error, copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_error_carries_its_attribute_wherever_it_goes(transport: Callable[[Any], Any]) -> None:
    """It names what was asked for, also once it was copied or pickled."""
    arrived = transport(NotStoredError("observed['body']"))
    assert type(arrived) is NotStoredError
    assert arrived.what == "observed['body']"
    assert str(arrived).startswith("observed['body'] could not be stored")


def test_errors_are_told_apart_by_identity() -> None:
    """Two errors are never equal, and each can be a key."""
    error = NotStoredError("it")
    assert error != copy.copy(error)
    assert {error: 1}[error] == 1


def test_any_other_key_may_be_missing() -> None:
    """Where nobody knows which keys are missing, every key that is not there raises."""
    observed = ObservedInPart({"tenant": "a"}, None)
    assert (observed["tenant"], "tenant" in observed, observed.known) == ("a", True, {"tenant": "a"})
    with pytest.raises(NotStoredError, match="body"):
        observed.get("body")
    assert repr(observed) == "ObservedInPart({'tenant': 'a'}, missing=None)"
