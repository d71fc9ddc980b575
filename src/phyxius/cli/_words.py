"""Times, durations and values as people read them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from phyxius.handler import HandlerError
from phyxius.journal import to_json_value

TRACED = "--traceback shows where"
_UNITS = (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
_LONGEST = 300
_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")


def when(moment: datetime) -> str:
    """A moment: "2026-01-29 00:00:05 UTC"."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(moment: datetime, now: datetime) -> str:
    """A moment as seen from now: "3.5 days ago", "in 20 minutes"."""
    distance = abs(now - moment)
    if distance < timedelta(seconds=1):
        return "now"
    return f"{roughly(distance)} ago" if moment < now else f"in {roughly(distance)}"


def roughly(duration: timedelta) -> str:
    """A duration in the largest unit that it has one of, with one decimal: "9.2 days"."""
    unit, size = unit_of(duration)
    value = round(duration.total_seconds() / size, 1)
    if (larger := timedelta(seconds=value * size)) > duration:  # rounded up, perhaps to one of the next unit
        unit, size = unit_of(larger)
        value = round(larger.total_seconds() / size, 1)
    return f"{_number(value)} {_singular(unit, value)}"


def briefly(duration: timedelta) -> str:
    """What something took: "3 ms", "1.2 s"."""
    seconds = duration.total_seconds()
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def of_whole(part: timedelta, whole: timedelta) -> str:
    """A part of a duration: "9.2 of 14 days". It is the whole only if nothing is missing."""
    unit, size = unit_of(whole / 2)  # of one day, tell the hours
    shown = int(part.total_seconds() / size * 10) / 10
    count = whole.total_seconds() / size
    return f"{_number(shown)} of {_number(count)} {_singular(unit, count)}"


def unit_of(duration: timedelta) -> tuple[str, int]:
    """The unit to tell a duration in, and its size in seconds."""
    seconds = duration.total_seconds()
    return next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _singular(unit: str, value: float) -> str:
    return unit[:-1] if _number(value) == "1" else unit


def brief(value: object) -> str:
    """A value in one short line, as JSON where it can be; a mapping without braces, and signatures as words."""
    value = to_json_value(value, fallback=represented)
    if (signed := _signed(value)) is not None:
        return signed
    text = _listed(value) if isinstance(value, Mapping) and value else _plain(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _signed(value: Any) -> str | None:
    """Who signed, if a value is what is kept of signatures. It is not cut short: each name counts."""
    if not isinstance(value, Mapping) or value.keys() != {"signatures", "store"} or not value["signatures"]:
        return None
    try:
        return f"signed by {', '.join(map(_signature, value['signatures']))}"
    except (TypeError, KeyError, ValueError, OverflowError):  # another source's evidence
        return None


def _signature(kept: Any) -> str:
    note = f": {kept['note']}" if kept["note"] else ""
    return f"{kept['signer']} ({when(datetime.fromisoformat(kept['signed_at']))}{note})"


def readable(reason: str) -> str:
    """A reason with its moments as people read them, and as this command tells all others."""
    return _MOMENT.sub(lambda found: when(datetime.fromisoformat(found[0])), reason)


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {_plain(each)}" for key, each in values.items())


def _plain(value: object) -> str:
    if isinstance(value, Mapping) and value:
        return f"({_listed(value)})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def quoted_command(*words: str) -> str:
    """A call of the command as a shell takes it, whatever the names in it: "phyxius check 'my quotes'"."""
    return shlex.join(("phyxius", *words))


def told(error: BaseException) -> str:
    """An error in one line; those of this library speak for themselves."""
    described = HandlerError.of(error, longest=None)
    text = " ".join(described.message.split())
    if text and _is_ours(error):
        return text
    return f"{described.type}: {text}" if text else described.type


def error_told(error: BaseException) -> dict[str, str]:
    """An error for programs."""
    return {"type": type(error).__name__, "message": told(error)}


def hint(error: BaseException) -> str:
    """Which option helps with an error, after what is told of it."""
    if getattr(error, "problem", None) == "missing":
        return "; --create makes what is to be new"
    return "" if _is_ours(error) else f"; {TRACED}"


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "phyxius"


def represented(value: object) -> str:
    """The `repr` of a foreign object, which may fail."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a foreign __repr__
        return f"(a {type(value).__name__} that cannot be described)"
