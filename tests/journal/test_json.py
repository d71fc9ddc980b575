"""Values as JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections import OrderedDict, UserDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.journal import PayloadError, to_json_value
from tests.ids import shown

TIME = datetime(2024, 5, 1, 12, 30, 15, 250, tzinfo=timezone(timedelta(hours=2)))
UNIQUE = UUID("12345678123456781234567812345678")


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, "two")
    ODD = object()


class Phase(enum.StrEnum):
    EXPAND = "expand"


class Level(enum.IntEnum):
    HIGH = 3


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


class Million(int):
    def __repr__(self) -> str:
        return "million"


class Kilo(float):
    def __repr__(self) -> str:
        return "kilo"


class Point(NamedTuple):
    x: int
    y: int


@attrs.frozen
class Sale:
    amount: object
    _secret: int = 1


@dataclasses.dataclass
class Order:
    sales: list[object]
    at: object = TIME


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda parts: st.lists(parts) | st.dictionaries(texts, parts),
    max_leaves=20,
)
anything = st.recursive(
    st.none()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.uuids()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.sampled_from([*Color, Phase.EXPAND, Level.HIGH, Color, object(), ...]),
    lambda parts: (
        st.lists(parts)
        | st.dictionaries(st.none() | st.integers() | st.text() | st.sampled_from(Color), parts)
        | st.frozensets(st.integers())
        | st.builds(Sale, parts)
        | st.builds(Order, st.lists(parts))
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "value, written",
    [
        (None, None),
        (True, True),
        (Million(7), 7),
        (2**80, 2**80),
        (Kilo(0.5), 0.5),
        (Loud("word"), "word"),
        ("\U0001f600 é\n\u0001", "\U0001f600 é\n\u0001"),
        (TIME, "2024-05-01T12:30:15.000250+02:00"),
        (UNIQUE, "12345678-1234-5678-1234-567812345678"),
        (Decimal("1.10"), "1.10"),
        (Color.RED, "red"),
        (Color.PAIR, [1, "two"]),
        (Phase.EXPAND, "expand"),
        (Level.HIGH, 3),
        ((1, [2, ()]), [1, [2, []]]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(b=1, a=UNIQUE), {"b": 1, "a": str(UNIQUE)}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (UserDict({"a": {}}), {"a": {}}),
        ({Loud("key"): 1, Phase.EXPAND: 2, Color.RED: 3}, {"key": 1, "expand": 2, "red": 3}),
        (Sale(Decimal(3)), {"amount": "3", "_secret": 1}),
        (Order([Sale(1)]), {"sales": [{"amount": 1, "_secret": 1}], "at": TIME.isoformat()}),
    ],
    ids=repr,
)
def test_each_kind_is_written_as_plain_json(value: object, written: object) -> None:
    """Every kind that is promised becomes exact JSON types, whatever a subclass says of itself."""
    result = to_json_value(value)
    assert result == written
    assert list(map(type, flat(result))) == list(map(type, flat(written)))
    assert json.loads(json.dumps(result, allow_nan=False)) == written


def flat(value: Any) -> list[object]:
    """All parts of a JSON value, keys included."""
    if isinstance(value, dict):
        return [value, *(each for pair in value.items() for part in pair for each in flat(part))]
    if isinstance(value, list):
        return [value, *(each for part in value for each in flat(part))]
    return [value]


CIRCLE: list[object] = []
CIRCLE.append({"again": CIRCLE})


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else 1


REFUSED = [
    (math.nan, "nan is not JSON"),
    (math.inf, "inf is not JSON"),
    (-math.inf, "-inf is not JSON"),
    (TIME.replace(tzinfo=None), r"has no time zone; write datetime\(\.\.\., tzinfo=UTC\)"),
    (date(2024, 1, 1), "date is not JSON"),
    (b"bytes", "bytes is not JSON"),
    ({1, 2}, "set is not JSON"),
    (object(), "object is not JSON"),
    (Sale, "type is not JSON"),
    (Order, "type is not JSON"),
    (Color.ODD, "object is not JSON"),
    ("a\x00b", r"U\+0000"),
    ("\ud800", "half of a surrogate pair"),
    ("é\udfff", "half of a surrogate pair"),
    ({1: 2}, "its key 1 is no text"),
    ({None: 2}, "its key None is no text"),
    ({Level.HIGH: 2}, "its key <Level.HIGH: 3> is no text"),
    ({"a\x00": 2}, r"U\+0000"),
    ({"\udc00": 2}, "surrogate"),
    (CIRCLE, r"at \[0\]\['again'\] cannot be written: it is nested in itself"),
    (nested(66), "nested more than 64 deep"),
]


@pytest.mark.parametrize("value, problem", REFUSED, ids=lambda each: shown(each)[:40])
def test_what_json_cannot_hold_is_refused(value: object, problem: str) -> None:
    """The message names the problem, and the remedy where there is one."""
    with pytest.raises(PayloadError, match=problem):
        to_json_value(value)


@pytest.mark.parametrize("value", [each for each, _ in REFUSED], ids=lambda each: shown(each)[:40])
def test_a_fallback_writes_what_json_cannot_hold(value: object) -> None:
    """With a fallback everything is written, as text that any database takes, and the rest stays as it was."""
    written = to_json_value({"good": 1, "bad": [value]}, fallback=repr)
    assert written["good"] == 1
    assert json.dumps(written, allow_nan=False, ensure_ascii=False).encode()
    assert not any("\x00" in part for part in flat(written) if isinstance(part, str))


def test_a_fallback_is_made_fit_for_a_database() -> None:
    """What a fallback answers is not trusted either."""
    assert to_json_value(b"", fallback=lambda _: "a\x00b\ud800é") == "a\\x00b\\ud800é"


@pytest.mark.parametrize(
    "value, place",
    [
        (b"", "the value cannot"),
        ({"a": [1, {"b": b""}]}, r"at \['a'\]\[1\]\['b'\] cannot"),
        ([Order([Sale(b"")])], r"at \[0\]\.sales\[0\]\.amount cannot"),
        ({Color.RED: math.nan}, r"at \[<Color.RED: 'red'>\] cannot"),
    ],
)
def test_the_message_says_where(value: object, place: str) -> None:
    """A problem deep in a value is named with the way to it."""
    with pytest.raises(PayloadError, match=place):
        to_json_value(value)


def test_sixty_four_levels_below_the_top_are_enough() -> None:
    """The deepest allowed value is written, and one that is deeper by one is not."""
    assert to_json_value(nested(65)) == nested(65)
    with pytest.raises(PayloadError, match="more than 64 deep"):
        to_json_value(nested(66))


def test_shared_parts_are_no_circle() -> None:
    """One object in two places is written twice."""
    part = {"a": [1]}
    assert to_json_value([part, part, [part]]) == [part, part, [part]]


def test_objects_that_know_each_other_are_written_at_once() -> None:
    """With a fallback a circle ends where it closes, not after sixty-four levels of all its branches."""
    order = Order([])
    order.sales = [Sale(order) for _ in range(5)]
    written = to_json_value(order, fallback=lambda value: type(value).__name__)
    assert written["sales"] == [{"amount": "Order", "_secret": 1}] * 5


@given(json_values)
def test_json_is_written_as_itself(value: object) -> None:
    """What is JSON already comes out equal, and as a copy."""
    written = to_json_value(value)
    assert written == value
    assert json.loads(json.dumps(written, allow_nan=False)) == value
    if isinstance(value, (dict, list)):
        assert written is not value


@given(anything)
def test_any_value_is_written_or_refused(value: object) -> None:
    """Whatever the value, the answer is JSON or `PayloadError`; with a fallback it is always JSON."""
    for fallback in (None, repr):
        try:
            written = to_json_value(value, fallback=fallback)
        except PayloadError:
            assert fallback is None
        else:
            text = json.dumps(written, allow_nan=False, ensure_ascii=False)
            assert json.loads(text.encode()) == written
            assert not any("\x00" in part for part in flat(written) if isinstance(part, str))


def test_parts_in_common_have_an_end() -> None:
    """Lists that share their parts are small in memory, but are not written at any length."""
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    for fallback in (None, repr):
        with pytest.raises(PayloadError, match="more than 100,000 values"):
            to_json_value(value, fallback=fallback)
