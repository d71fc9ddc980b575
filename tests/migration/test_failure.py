"""How evidence is said to be missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

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
