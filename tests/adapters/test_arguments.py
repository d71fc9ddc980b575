"""What callers get wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from phyxius.adapters._arguments import check_count, check_duration, check_text
from phyxius.migration import SpecError

CENTURY = timedelta(days=36_525)
MOMENT = timedelta(microseconds=1)


@pytest.mark.parametrize("duration", [None, 0, 7, 1.5, "1 day", timedelta(0), -MOMENT, timedelta.min])
def test_what_is_no_duration(duration: Any) -> None:
    """A number has no unit, and no time at all is no duration."""
    with pytest.raises(SpecError, match=r"^lease must be a positive timedelta such as"):
        check_duration(duration, "lease")


@pytest.mark.parametrize("duration", [CENTURY + MOMENT, timedelta.max])
def test_what_is_too_long(duration: timedelta) -> None:
    """More than a century leaves the calendar, or the 64 bits of a column, where it is added to a time."""
    with pytest.raises(SpecError, match=r"^lease must not be longer than a century, not "):
        check_duration(duration, "lease", timedelta(seconds=1))


def test_what_is_too_short() -> None:
    """Where there is a least, it is said."""
    with pytest.raises(SpecError, match=r"^lease must be at least 0:00:01, not 0:00:00.999999$"):
        check_duration(timedelta(seconds=1) - MOMENT, "lease", timedelta(seconds=1))


def test_durations() -> None:
    """From the least, or a microsecond, up to a century."""
    check_duration(MOMENT, "lease")
    check_duration(CENTURY, "lease")
    check_duration(timedelta(seconds=1), "lease", timedelta(seconds=1))


@pytest.mark.parametrize("count", [None, 0, -1, True, 1.0, "1"])
def test_what_is_no_count(count: Any) -> None:
    """Whole numbers from 1, and True is none."""
    with pytest.raises(SpecError, match=rf"^quorum must be a whole number from 1, not {count!r}$"):
        check_count(count, "quorum")


def test_counts() -> None:
    """However large."""
    check_count(1, "quorum")
    check_count(10**30, "quorum")


@pytest.mark.parametrize("text", [None, 7, b"ada", "", " \t\n"])
def test_what_is_no_text(text: Any) -> None:
    """Blanks alone say nothing."""
    with pytest.raises(SpecError, match=r"^signer must be a text that is not empty, not "):
        check_text(text, "signer")


def test_texts() -> None:
    """Without the blanks around them."""
    assert check_text(" ada lovelace\n", "signer") == "ada lovelace"
