"""Recording under which phase a call runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from phyxius.handler import Recording
from phyxius.journal import Journal
from phyxius.migration._wording import plain


class PhasedCalls:
    """The calls that `by_phase` routes, each recorded with the phase that it runs under.

    A call is in flight from before it reads its phase, so that no query falls between the two. What it may come to run
    under is known even then: the phase that the last one read, or a later one, since no phase is entered twice.

    Args:
        journal: Where the calls go.
        name: The name of their events, declared at once.
        order: The phases, in order.
    """

    def __init__(self, journal: Journal[Any], name: str, order: Sequence[str]) -> None:
        journal.declare(name)
        self._journal = journal
        self._name = name
        phases = list(map(plain, order))
        self._from = {phase: phases[number:] for number, phase in enumerate(phases)}
        self._last = phases[0]

    @contextmanager
    def begin(self) -> Iterator[Recording]:
        """Begin to record a call, which reads its phase inside. If it cannot, no function runs, and nothing is left."""
        recording = Recording(self._journal, self._name, foreseen={"may_run_under": self._from[self._last]})
        has_read = False
        try:
            yield recording
            has_read = True
        finally:
            if not has_read:
                recording.abandon()

    def runs_under(self, recording: Recording, phase: str) -> None:
        """Note the phase that a call has read."""
        self._last = plain(phase)
        recording.pin(phase=self._last)
