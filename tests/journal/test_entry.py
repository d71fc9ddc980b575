"""What a journal hands out."""

from __future__ import annotations

import pickle

import attrs
import pytest

from phyxius.clock import Instant
from phyxius.journal import JournalEntry, JournalNotice, JournalSnapshot

NOW = Instant(wall_ns=1, mono_ns=2)
ENTRY = JournalEntry("id", 3, NOW, "data")


@pytest.mark.parametrize(
    "value",
    [
        ENTRY,
        JournalSnapshot(entries=(ENTRY,), taken_at=NOW, complete_since=NOW, declared=frozenset({"a"})),
        JournalNotice("append_refused", ValueError),  # type: ignore[arg-type]
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_a_journal_hands_out_is_a_value(value: attrs.AttrsInstance) -> None:
    """It is frozen, equal by content, and crosses a process."""
    for field in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, None)
    assert attrs.evolve(value) == value
    there = pickle.loads(pickle.dumps(value))
    assert there == pickle.loads(pickle.dumps(there))  # instants leave their monotonic time behind
    assert type(there) is type(value)


def test_a_notice_may_be_about_no_entry() -> None:
    """A refused append has no sequence number."""
    assert JournalNotice("append_refused", ValueError()).sequence is None
