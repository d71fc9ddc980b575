"""Numbers and durations as people write them."""

from __future__ import annotations

from datetime import timedelta


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 event", "2,000 events"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(duration: timedelta) -> str:
    """A duration without the zeros that `str` would add: "14 days"."""
    return str(duration).removesuffix(", 0:00:00")
