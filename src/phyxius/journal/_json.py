"""Values as JSON, and nothing that JSON cannot hold."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs

from phyxius.journal._errors import PayloadError

_DEEPEST = 64
_MOST_VALUES = 100_000


def to_json_value(value: object, /, *, fallback: Callable[[object], str] | None = None) -> Any:
    """A copy of `value` made of dicts with text keys, lists, texts, numbers, booleans and None.

    Aware datetimes, UUIDs and Decimals become texts, enums their value, attrs and dataclass objects dicts.

    Args:
        value: What is to be written.
        fallback: Writes what JSON cannot hold (`repr`, say); without one, that is refused.

    Raises:
        PayloadError: JSON cannot hold the value (NaN, a naive datetime, bytes, a key that is no text, a text
            that databases refuse, something nested too deep or in itself, more than 100,000 values); the
            message says where it is.
    """
    return _encode(value, "", (), fallback, itertools.count(1))


def _encode(
    value: Any, path: str, above: tuple[int, ...], fallback: Callable[[object], str] | None, counter: Iterator[int]
) -> Any:
    def inner(part: Any, step: str) -> Any:
        return _encode(part, f"{path}{step}", (*above, id(value)), fallback, counter)

    # Lists that share their parts are small in memory and can be endless as text.
    if next(counter) > _MOST_VALUES:
        raise PayloadError(f"the value cannot be written: it holds more than {_MOST_VALUES:,} values")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return inner(value.value, "")
    if isinstance(value, int):
        return int(value)
    problem: str | None = None
    if id(value) in above:
        problem = "it is nested in itself"
    elif len(above) > _DEEPEST:
        problem = f"it is nested more than {_DEEPEST} deep"
    elif isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        problem = f"{value} is not JSON"
    elif isinstance(value, str):
        problem = _text_problem(value)
        if problem is None:
            return str.__str__(value)
    elif isinstance(value, datetime):
        if value.utcoffset() is not None:
            return value.isoformat()
        problem = f"{value!r} has no time zone; write datetime(..., tzinfo=UTC)"
    elif isinstance(value, UUID | Decimal):
        return str(value)
    elif isinstance(value, Mapping):
        problem = _key_problem(value)
        if problem is None:
            return {_text(key): inner(part, f"[{key!r}]") for key, part in value.items()}
    elif isinstance(value, list | tuple):
        return [inner(part, f"[{index}]") for index, part in enumerate(value)]
    elif _has_fields(value):
        return {name: inner(getattr(value, name), f".{name}") for name in _field_names(value)}
    else:
        problem = f"{type(value).__name__} is not JSON; give numbers, texts, lists and dicts with text keys"
    if fallback is not None:
        return printable(fallback(value))
    raise PayloadError(f"the value{path and f' at {path}'} cannot be written: {problem}")


def _text(key: Any) -> str:
    return str.__str__(key.value if isinstance(key, Enum) else key)


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "a text holds the character U+0000, which databases refuse"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "a text holds half of a surrogate pair, which is no Unicode"
    return None


def _key_problem(mapping: Mapping[Any, Any]) -> str | None:
    for key in mapping:
        plain = key.value if isinstance(key, Enum) else key
        if not isinstance(plain, str):
            return f"its key {key!r} is no text"
        if problem := _text_problem(plain):
            return problem
    return None


def printable(text: str) -> str:
    """A text without what databases refuse: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _has_fields(value: object) -> bool:
    return not isinstance(value, type) and (attrs.has(type(value)) or dataclasses.is_dataclass(value))


def _field_names(value: Any) -> list[str]:
    if attrs.has(type(value)):
        return [field.name for field in attrs.fields(type(value))]
    return [field.name for field in dataclasses.fields(value)]
