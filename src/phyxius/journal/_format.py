"""A journal as JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import attrs

from phyxius.clock import Instant
from phyxius.journal._entry import JournalEntry
from phyxius.journal._errors import JournalFormatError, PayloadError
from phyxius.journal._json import to_json_value

T = TypeVar("T")
_VERSION = 1


@attrs.frozen
class StoredJournal(Generic[T]):
    """What the text of a journal holds."""

    entries: tuple[JournalEntry[T], ...]
    next_sequence: int
    max_entries: int | None
    overflow: str


def dump_journal(
    entries: Sequence[JournalEntry[T]],
    next_sequence: int,
    max_entries: int | None,
    overflow: str,
    dump: Callable[[T], object] | None,
) -> str:
    """Write a journal; the data of the entries goes through `dump`."""
    rows: list[dict[str, object]] = []
    for entry in entries:
        try:
            data = to_json_value(entry.data if dump is None else dump(entry.data))
        except PayloadError as error:
            hint = "" if dump else "; give the journal a serializer (for handler events: event_serializer)"
            raise PayloadError(f"entry {entry.sequence}: {error}{hint}") from error
        rows.append({"id": entry.id, "sequence": entry.sequence, "wall_ns": entry.timestamp.wall_ns, "data": data})
    head = {
        "version": _VERSION,
        "next_sequence": next_sequence,
        "max_entries": max_entries,
        "overflow": overflow,
    }
    return json.dumps({**head, "entries": rows}, allow_nan=False)


def load_journal(text: str, load: Callable[[Any], T] | None) -> StoredJournal[T]:
    """Read a journal, or say what is wrong with the text."""
    try:
        stored = json.loads(text, parse_constant=_refuse_constant)
    except (RecursionError, ValueError) as error:
        raise JournalFormatError(f"it is not JSON ({error})") from error
    if not isinstance(stored, dict) or stored.get("version") != _VERSION:
        raise JournalFormatError(f"it has no version {_VERSION}")
    try:
        rows, next_sequence, bound = stored["entries"], stored["next_sequence"], stored["max_entries"]
        if type(rows) is not list or type(next_sequence) is not int or (bound is not None and type(bound) is not int):
            raise ValueError("its entries are no list, or what it counts is no whole number")
        if len(rows) > (next_sequence if bound is None else min(next_sequence, bound)):
            raise ValueError("it holds more entries than its bound allows, or than it ever numbered")
        first = next_sequence - len(rows)
        entries = tuple(_load_entry(row, first + index, load) for index, row in enumerate(rows))
        return StoredJournal(entries, next_sequence, bound, stored["overflow"])
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise JournalFormatError(f"{type(error).__name__}: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _load_entry(row: Any, sequence: int, load: Callable[[Any], T] | None) -> JournalEntry[T]:
    if type(row["sequence"]) is not int or row["sequence"] != sequence:
        raise ValueError(f"an entry is missing before sequence {row['sequence']}")
    if type(row["wall_ns"]) is not int or type(row["id"]) is not str:
        raise ValueError(f"entry {sequence} has no proper id and time")
    timestamp = Instant(wall_ns=row["wall_ns"], mono_ns=None)
    return JournalEntry(row["id"], sequence, timestamp, row["data"] if load is None else load(row["data"]))
