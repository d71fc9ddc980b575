"""The journal: an append-only log of what this system did, that knows since when it is complete."""

from phyxius.journal._entry import JournalEntry, JournalNotice, JournalSnapshot
from phyxius.journal._errors import (
    JournalFormatError,
    JournalOverflowError,
    JournalReentrancyError,
    PayloadError,
)
from phyxius.journal._journal import Journal
from phyxius.journal._json import printable, to_json_value
from phyxius.journal._protocols import JournalFollower, JournalSerializer, Redact, StartKeeper

__all__ = [
    "Journal",
    "JournalEntry",
    "JournalFollower",
    "JournalFormatError",
    "JournalNotice",
    "JournalOverflowError",
    "JournalReentrancyError",
    "JournalSerializer",
    "JournalSnapshot",
    "PayloadError",
    "Redact",
    "StartKeeper",
    "printable",
    "to_json_value",
]
