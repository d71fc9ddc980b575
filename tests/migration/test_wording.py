"""Durations as people read them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.migration._wording import span


@pytest.mark.parametrize(
    "duration, told",
    [
        (timedelta(days=14), "14 days"),
        (timedelta(days=1, hours=6), "1 day 6 hours"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(minutes=61, seconds=1), "1 hour 1 minute 1 second"),
        (timedelta(seconds=30, milliseconds=500), "30.5 seconds"),
        (timedelta(microseconds=13), "0.000013 seconds"),
        (timedelta(0), "0 seconds"),
    ],
)
def test_a_duration_in_words(duration: timedelta, told: str) -> None:
    """The units that it has, and no zeros."""
    assert span(duration) == told


@given(st.timedeltas(min_value=timedelta(0)))
def test_nothing_is_rounded(duration: timedelta) -> None:
    """What is told is the duration."""
    parts = re.findall(r"([\d,]+)(?:\.(\d+))? (day|hour|minute|second)", span(duration))
    told = timedelta(0)
    for whole, fraction, unit in parts:
        told += timedelta(**{f"{unit}s": int(whole.replace(",", ""))}, microseconds=int(f"{fraction:0<6}" or "0"))
    assert told == duration
