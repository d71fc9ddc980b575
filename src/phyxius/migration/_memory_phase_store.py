"""A phase in memory: for tests, and for migrations that live and die with one process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Literal

from phyxius.clock import Clock
from phyxius.fp import Result, err, ok
from phyxius.migration._errors import AttemptFencedError
from phyxius.migration._stores import Committed, Conflict, EvidenceSnapshot, Transition


class MemoryPhaseStore:
    """A `PhaseStore` in memory, safe with threads; made by `create_memory_phase_store`."""

    scope: Literal["process"] = "process"

    def __init__(self, initial: str, clock: Clock) -> None:
        self._phase = str.__str__(initial)
        self._clock = clock
        self._lock = threading.Lock()
        self._transitions: dict[str, Transition] = {}
        self._fenced: set[str] = set()

    @property
    def clock(self) -> Clock:
        """The clock that stamps the transitions."""
        return self._clock

    async def current(self) -> str:
        """The phase now."""
        return self._phase

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        """Compare and set, and keep the transition.

        Raises:
            AttemptFencedError: The attempt was resolved as not committed.
            EvidenceOvertakenError: What the sources said is too old.
        """
        with self._lock:
            if evidence.attempt in self._fenced:
                raise AttemptFencedError(evidence.attempt)
            if self._phase != from_phase:
                return err(Conflict(self._phase))
            evidence.check_standing()
            at = self._clock.now()
            self._transitions[evidence.attempt] = Transition(
                from_phase, to_phase, at, evidence.attempt, copy.deepcopy(dict(evidence.payloads))
            )
            self._phase = to_phase
            return ok(Committed(at))

    async def resolve(self, attempt: str, /) -> Committed | None:
        """What became of an attempt; after None it can never commit."""
        with self._lock:
            transition = self._transitions.get(attempt)
            if transition is None:
                self._fenced.add(attempt)
                return None
            return Committed(transition.at)

    async def history(self) -> Sequence[Transition]:
        """The transitions, oldest first."""
        with self._lock:
            return tuple(self._transitions.values())


def create_memory_phase_store(*, initial: str, clock: Clock) -> MemoryPhaseStore:
    """A phase store in memory that starts at the phase `initial`; what it holds is gone at exit."""
    return MemoryPhaseStore(initial, clock)
