"""Times, durations and values as people read them."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.cli._words import ago, brief, of_whole, quoted_command, roughly, told, when
from phyxius.migration import SpecError


class OddError(Exception):
    """Something foreign, of which nothing can be learned."""

    def __str__(self) -> str:
        raise KeyError("nothing")

    __repr__ = __str__


NOW = datetime(2026, 1, 29, 12, 0, 5, 999_999, tzinfo=UTC)
durations = st.timedeltas(timedelta(0), timedelta(days=36_500))


def test_a_moment() -> None:
    """In UTC, to the second, whatever zone it came in."""
    assert when(NOW) == "2026-01-29 12:00:05 UTC"
    assert when(NOW.astimezone(timezone(timedelta(hours=-8)))) == "2026-01-29 12:00:05 UTC"


@pytest.mark.parametrize(
    "moment, told",
    [
        (NOW, "now"),
        (NOW - timedelta(milliseconds=999), "now"),
        (NOW + timedelta(milliseconds=999), "now"),
        (NOW - timedelta(seconds=1), "1 second ago"),
        (NOW + timedelta(minutes=20), "in 20 minutes"),
        (NOW - timedelta(days=3.5), "3.5 days ago"),
    ],
    ids=str,
)
def test_a_moment_as_seen_from_now(moment: datetime, told: str) -> None:
    """What is nearer than a second is now."""
    assert ago(moment, NOW) == told


@pytest.mark.parametrize(
    "duration, told",
    [
        (timedelta(0), "0 seconds"),
        (timedelta(milliseconds=50), "0.1 seconds"),
        (timedelta(seconds=1.04), "1 second"),
        (timedelta(seconds=59), "59 seconds"),
        (timedelta(seconds=59.96), "1 minute"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(minutes=59, seconds=58), "1 hour"),
        (timedelta(hours=1.5), "1.5 hours"),
        (timedelta(hours=23, minutes=59), "1 day"),
        (timedelta(days=9.24), "9.2 days"),
        (timedelta(days=400), "400 days"),
    ],
    ids=str,
)
def test_a_duration(duration: timedelta, told: str) -> None:
    """In the largest unit that it has one of, after it was rounded."""
    assert roughly(duration) == told


@pytest.mark.parametrize(
    "part, whole, told",
    [
        (timedelta(0), timedelta(days=14), "0 of 14 days"),
        (timedelta(days=9.29), timedelta(days=14), "9.2 of 14 days"),
        (timedelta(days=14) - timedelta(microseconds=1), timedelta(days=14), "13.9 of 14 days"),
        (timedelta(days=14), timedelta(days=14), "14 of 14 days"),
        (timedelta(minutes=30), timedelta(hours=1), "30 of 60 minutes"),
        (timedelta(milliseconds=300), timedelta(milliseconds=500), "0.3 of 0.5 seconds"),
    ],
    ids=str,
)
def test_a_part_of_a_whole(part: timedelta, whole: timedelta, told: str) -> None:
    """It is rounded down: only all of it is told as all of it."""
    assert of_whole(part, whole) == told


@given(durations, durations.filter(bool))
def test_a_part_is_told_as_the_whole_only_if_it_is(part: timedelta, whole: timedelta) -> None:
    """However near it comes."""
    told, _, of = of_whole(min(part, whole), whole).partition(" of ")
    if part < whole and whole >= timedelta(seconds=1):
        assert float(told) < float(of.partition(" ")[0])


@pytest.mark.parametrize(
    "value, told",
    [
        ({"count": 0, "names": ["a", "é"], "who": "ada"}, 'count 0, names ["a", "é"], who ada'),
        ({"counts": {"matched": 1, "of": {"a": 2}}, "none": {}}, "counts (matched 1, of (a 2)), none {}"),
        ({}, "{}"),
        ([1, None], "[1, null]"),
        ("text", "text"),
        (None, "null"),
        ({1j: {2j}}, "{1j: {2j}}"),
        (OddError(), "(a OddError that cannot be described)"),
        ({"odd": OddError()}, "odd (a OddError that cannot be described)"),
        ({"odd": {1j}}, "odd {1j}"),
        ({"nan": float("nan")}, "nan nan"),
        ("x" * 301, "x" * 299 + "…"),
        ("x" * 300, "x" * 300),
    ],
    ids=range(13),
)
def test_a_value(value: object, told: str) -> None:
    """In one short line, whatever it is made of."""
    assert brief(value) == told


def signed(signer: str, note: str = "") -> dict[str, object]:
    return {"id": 1, "signer": signer, "note": note, "signed_at": "2026-01-01T13:00:00+01:00", "until": None}


AT = "2026-01-01 12:00:00 UTC"


@pytest.mark.parametrize(
    "value, told",
    [
        ([signed("ada")], f"signed by ada ({AT})"),
        ([signed("ada", "20 rows"), signed("bob")], f"signed by ada ({AT}: 20 rows), bob ({AT})"),
        (
            [signed("ada", "x" * 200), signed("b", "y" * 200)],
            f"signed by ada ({AT}: {'x' * 200}), b ({AT}: {'y' * 200})",
        ),
        ([], "signatures [], store s"),
        ("ab", "signatures ab, store s"),
        (7, "signatures 7, store s"),
        ([{"signer": "ada"}], 'signatures [{"signer": "ada"}], store s'),
        (
            [{"signer": "ada", "signed_at": "soon", "note": ""}],
            'signatures [{"signer": "ada", "signed_at": "soon", "note": ""}], store s',
        ),
    ],
    ids=range(8),
)
def test_signatures(value: object, told: str) -> None:
    """Who signed, when and with what note, all of them; what only looks like signatures is a value as any other."""
    assert brief({"signatures": value, "store": "s"}) == told
    assert brief({"signatures": value, "store": "s", "more": 1}).startswith("signatures ")


@given(st.lists(st.text()))
def test_a_command(names: list[str]) -> None:
    """A shell takes each word as it is."""
    assert quoted_command("check", "quotes") == "phyxius check quotes"
    assert shlex.split(quoted_command("check", *names)) == ["phyxius", "check", *names]


def test_an_error() -> None:
    """In one line; one of this library without the name of its class."""
    assert told(ValueError("a\n  b")) == "ValueError: a b"
    assert told(ValueError()) == "ValueError"
    assert told(SpecError("it cannot be right", "quotes")) == 'migration "quotes": it cannot be right'
    assert told(OddError()) == "OddError: (a OddError that cannot be described)"
