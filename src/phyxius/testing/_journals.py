"""Journals that can vouch for a window at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.handler import HandlerEvent, event_serializer
from phyxius.journal import Journal


def aged_journal(
    age: timedelta = timedelta(days=30), *, names: Iterable[str] = (), clock: ControlledClock | None = None
) -> Journal[HandlerEvent]:
    """A journal that has been complete for `age`, on a controlled clock.

    A fresh journal cannot vouch for fourteen days; this one can, as the journal of a process that has run so long.

    Args:
        age: How long it has been recording. The clock is moved by that.
        names: What it declares, so that the silence of these names has a witness.
        clock: The clock to use; a new one unless given.

    Returns:
        An empty journal; its clock, a `ControlledClock`, is `journal.clock`.
    """
    clock = create_controlled_clock() if clock is None else clock
    journal = Journal[HandlerEvent](clock=clock, serializer=event_serializer)
    journal.declare(*names)
    clock.advance_by(age)
    return journal
