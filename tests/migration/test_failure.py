"""How evidence is said to be missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest.mock import MagicMock

import pytest

from phyxius.migration import EvidenceFailure


def test_a_reason_is_enough() -> None:
    """Details are empty and no time is known, unless they are given."""
    failure = EvidenceFailure("not yet")
    assert (failure.reason, failure.details, failure.retry_at) == ("not yet", {}, None)


def test_details_are_a_copy() -> None:
    """What happens to the mapping later does not reach the failure."""
    details: dict[str, Any] = {"count": 1}
    failure = EvidenceFailure("not yet", details)
    details["count"] = 2
    assert failure.details == {"count": 1}


def test_retry_at_needs_a_zone() -> None:
    """A naive time could not be compared, and the error says what to write."""
    assert EvidenceFailure("not yet", retry_at=datetime(2024, 1, 1, tzinfo=UTC)).retry_at is not None
    with pytest.raises(ValueError, match="tzinfo=UTC"):
        EvidenceFailure("not yet", retry_at=datetime(2024, 1, 1))  # noqa: DTZ001


class Loud(str):
    """A text that answers for itself."""

    __slots__ = ()

    def __str__(self) -> str:
        raise OSError("no")


@pytest.mark.parametrize("wrong", [7, None, b"bytes", MagicMock(spec=str)], ids=lambda each: type(each).__name__)
def test_a_reason_is_a_text(wrong: Any) -> None:
    """What an operator could not read is no reason, and breaks where it is made."""
    with pytest.raises(TypeError, match="must be a text"):
        EvidenceFailure(wrong)
    assert type(EvidenceFailure(Loud("not yet")).reason) is str


def test_retry_at_is_a_datetime() -> None:
    """What could not be compared with other times breaks where it is made."""
    wrong: Any = MagicMock(spec=datetime)
    with pytest.raises(TypeError, match="must be a datetime"):
        EvidenceFailure("not yet", retry_at=wrong)
