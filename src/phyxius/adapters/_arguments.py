"""What callers get wrong. `at` is the place: the migration, the phase, the source."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from phyxius.migration import SpecError

_LONGEST = timedelta(days=36_525)


def check_duration(duration: object, what: str, least: timedelta | None = None, at: Sequence[str] = ()) -> None:
    """Refuse what is no positive timedelta, or is shorter than `least`."""
    if not isinstance(duration, timedelta) or duration <= timedelta(0):
        raise SpecError(f"{what} must be a positive timedelta such as timedelta(days=1), not {duration!r}", *at)
    if duration > _LONGEST:
        raise SpecError(f"{what} must not be longer than a century, not {duration}", *at)
    if least is not None and duration < least:
        raise SpecError(f"{what} must be at least {least}, not {duration}", *at)


def check_count(count: object, what: str) -> None:
    """Refuse what is no whole number from 1."""
    if type(count) is not int or count < 1:
        raise SpecError(f"{what} must be a whole number from 1, not {count!r}")


def check_text(text: object, what: str, at: Sequence[str] = ()) -> str:
    """Refuse what is no text, or an empty one; without the blanks around it."""
    if not isinstance(text, str) or not text.strip():
        raise SpecError(f"{what} must be a text that is not empty, not {text!r}", *at)
    return text.strip()
