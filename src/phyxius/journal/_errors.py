"""What a journal raises."""

from __future__ import annotations

import attrs


@attrs.define(eq=False, slots=False)
class JournalOverflowError(Exception):
    """The journal is full and was made with `overflow="error"`; the append was refused, which is a loss."""

    max_entries: int

    def __str__(self) -> str:
        return (
            f"the journal is full ({self.max_entries} entries); clear() it, raise max_entries, "
            'or let it forget with overflow="drop_oldest"'
        )


@attrs.define(eq=False, slots=False)
class JournalReentrancyError(Exception):
    """Something that an append had called (a subscriber, say) appended to the same journal; that is a loss."""

    def __str__(self) -> str:
        return "append() was called from within append() in the same thread; let the subscriber hand the work on"


@attrs.define(eq=False, slots=False)
class JournalFormatError(ValueError):
    """A text is not what `Journal.to_json` writes."""

    problem: str

    def __str__(self) -> str:
        return f"this is no journal that to_json() wrote: {self.problem}"


@attrs.define(eq=False, slots=False)
class PayloadError(ValueError):
    """A value cannot be written as JSON, or is too large."""

    problem: str

    def __str__(self) -> str:
        return self.problem
