"""What a journal holds, and what it hands out."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import attrs

from phyxius.clock import Instant

T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class JournalEntry(Generic[T_co]):
    """One entry.

    Attributes:
        id: Unique, as the journal's `id_generator` made it.
        sequence: The position in the journal's life, from 0; it is never used again.
        timestamp: When it was appended.
        data: What was appended.
    """

    id: str
    sequence: int
    timestamp: Instant
    data: T_co


@attrs.frozen
class JournalSnapshot(Generic[T_co]):
    """What a journal held and knew at one instant.

    Attributes:
        entries: Oldest first.
        taken_at: The instant.
        complete_since: Since when nothing is missing among them.
        declared: The names that the journal would record.
    """

    entries: tuple[JournalEntry[T_co], ...]
    taken_at: Instant
    complete_since: Instant
    declared: frozenset[str]


@attrs.frozen
class JournalNotice:
    """Something that went wrong in a journal, as `emit` is told of it.

    Attributes:
        kind: A subscriber raised, or an append was refused.
        error: What was raised.
        sequence: The entry that the subscriber was told of; None if there is none.
    """

    kind: Literal["subscriber_failed", "append_refused"]
    error: BaseException
    sequence: int | None = None


def completed_at(data: object, otherwise: Instant) -> Instant:
    """When what an entry holds completed, if it says so."""
    found = getattr(data, "completed_at", None)
    return found if isinstance(found, Instant) else otherwise


def just_after(instant: Instant, now: Instant) -> Instant:
    """The nanosecond after an instant, on the scales of `now`: an old instant's wall may have been set since."""
    return now.shifted(1 - now.ns_since(instant))
