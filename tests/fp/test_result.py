"""The two outcomes."""

from __future__ import annotations

import copy
import pickle

import attrs
import pytest

from phyxius.fp import Err, Ok, Result, err, ok

OUTCOMES = [ok(), ok(3), ok([1]), err("no"), err(ValueError)]


def told(result: Result[int, str]) -> str:
    match result:
        case Ok(value):
            return f"ok {value}"
        case Err(error):
            return f"err {error}"


def test_each_outcome_matches_its_own_pattern() -> None:
    """`case Ok(value)` and `case Err(error)` tell the two apart and bind what is in them."""
    assert (told(ok(1)), told(err("no"))) == ("ok 1", "err no")


def test_factories_make_the_exact_classes() -> None:
    """`ok` and `err` make `Ok` and `Err` themselves, and `ok()` holds None."""
    assert type(ok(1)) is Ok
    assert type(err(1)) is Err
    assert ok().value is None
    assert (ok(1).value, err(2).error) == (1, 2)


def test_outcomes_compare_by_kind_and_content() -> None:
    """Equal content of one kind is equal, and an `Ok` never equals an `Err`."""
    assert ok(1) == Ok(1)
    assert ok(1) != ok(2)
    assert ok(1) != err(1)
    assert hash(ok(1)) == hash(Ok(1))


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_outcomes_cannot_be_changed(outcome: Result[object, object]) -> None:
    """An outcome is frozen, and takes no further attributes."""
    for name in ("value", "error", "other"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(outcome, name, 1)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_outcomes_survive_copying_and_pickling(outcome: Result[object, object]) -> None:
    """An outcome that crosses a process is the same outcome."""
    assert copy.deepcopy(outcome) == outcome
    assert pickle.loads(pickle.dumps(outcome)) == outcome
