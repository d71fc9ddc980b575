"""Numbers, durations, phases and foreign objects as people read them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import timedelta

_LONGEST_REPR = 1_000
_LONGEST_LINE = 200


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 event", "2,000 events"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(duration: timedelta) -> str:
    """A duration in words: "14 days", "3 hours 20 minutes"."""
    hours, rest = divmod(timedelta(seconds=duration.seconds), timedelta(hours=1))
    minutes, rest = divmod(rest, timedelta(minutes=1))
    seconds = f"{(rest + timedelta(microseconds=duration.microseconds)).total_seconds():f}".rstrip("0").rstrip(".")
    parts = ((duration.days, "day"), (hours, "hour"), (minutes, "minute"))
    told = [counted(count, noun) for count, noun in parts if count]
    if seconds != "0" or not told:
        told.append(f"{seconds} second{'' if seconds == '1' else 's'}")
    return " ".join(told)


def plain(phase: object) -> str:
    """A phase as an exact `str`: its value, whatever the `__str__` of an enum makes of it."""
    return str.__str__(phase) if isinstance(phase, str) else representation(phase)


def described(function: object) -> str:
    """What a function is for: what it says of itself as a `str`, the first line of its docstring, or its name."""
    while isinstance(function, functools.partial):
        function = function.func
    own = type(function)
    name = own.__name__
    try:
        name = getattr(function, "__name__", name)
        doc = function.__doc__ if hasattr(function, "__name__") else own.__doc__
        text = str(function) if own.__str__ is not object.__str__ else doc or ""
    except Exception:  # noqa: BLE001 - a foreign __str__
        text = ""
    line = text.strip().partition("\n")[0].strip().removesuffix(".") or name.replace("_", " ")
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def representation(value: object) -> str:
    """The `repr` of a foreign object, cut at 1,000 characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a foreign __repr__
        text = f"<{type(value).__name__} that cannot be represented>"
    return text if len(text) <= _LONGEST_REPR else text[: _LONGEST_REPR - 1] + "…"


OTHER_ORDER = (
    "deploy the build that matches the store; only if this one is the newer, adopt its order there first (amend)"
)
"""What to do where a store and a spec have different phases."""


def listed(phases: Iterable[str]) -> str:
    """Phases as people read them."""
    return ", ".join(f'"{phase}"' for phase in phases)
