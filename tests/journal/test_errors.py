"""What a journal raises."""

from __future__ import annotations

import copy
import pickle

import pytest

from phyxius.journal import JournalFormatError, JournalOverflowError, JournalReentrancyError, PayloadError

ERRORS = [
    (JournalOverflowError(7), {"max_entries": 7}, "full (7 entries)"),
    (JournalReentrancyError(), {}, "from within append()"),
    (JournalFormatError("no version"), {"problem": "no version"}, "to_json() wrote: no version"),
    (PayloadError("it is NaN"), {"problem": "it is NaN"}, "it is NaN"),
]


@pytest.mark.parametrize("error, attributes, message", ERRORS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("transport", [lambda error: error, copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_carry_attributes_wherever_they_go(
    error: Exception, attributes: dict[str, object], message: str, transport: object
) -> None:
    """An error has its attributes and its message, also once it was copied or pickled."""
    arrived = transport(error)  # type: ignore[operator]
    assert type(arrived) is type(error)
    assert {name: getattr(arrived, name) for name in attributes} == attributes
    assert message in str(arrived)


@pytest.mark.parametrize("error", [each for each, _, _ in ERRORS], ids=lambda each: type(each).__name__)
def test_errors_are_told_apart_by_identity(error: Exception) -> None:
    """Two errors are never equal, and each can be a key and can be raised with a cause."""
    assert error != copy.copy(error)
    assert {error: 1}[error] == 1
    with pytest.raises(type(error)) as caught:
        raise error from ValueError()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("kind", [JournalFormatError, PayloadError])
def test_wrong_data_is_a_value_error(kind: type[Exception]) -> None:
    """Who catches `ValueError` for bad data catches these."""
    assert issubclass(kind, ValueError)
