"""What a migration asks of its stores. Adapters implement these protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol

import attrs

from phyxius.clock import Instant
from phyxius.fp import Result
from phyxius.journal import Journal
from phyxius.migration._window import JournalQuery, JournalWindow


@attrs.frozen
class Committed:
    """A transition was committed.

    Attributes:
        at: When, on the store's clock.
    """

    at: Instant = attrs.field(validator=attrs.validators.instance_of(Instant))


@attrs.frozen
class Conflict:
    """A transition was not committed: the phase is not the one that was expected.

    Attributes:
        actual: The phase as it is.
    """

    actual: str


def _stands() -> None:
    """Nothing is known of its age."""


@attrs.frozen
class EvidenceSnapshot:
    """What a store keeps with a transition.

    Attributes:
        attempt: Names the call of `advance()`; never used twice.
        payloads: What each source learned, as JSON values.
        check_standing: Raises `EvidenceOvertakenError` once what they said is too old. A store calls it inside of the
            transaction, as the last thing before the commit: it may have waited for a lock until then.
    """

    attempt: str
    payloads: Mapping[str, object]
    check_standing: Callable[[], None] = attrs.field(default=_stands, eq=False, repr=False)


@attrs.frozen
class Transition:
    """One step that was taken.

    Attributes:
        from_phase: Where the migration was.
        to_phase: Where it is since.
        at: Since when.
        attempt: The id of the call that moved it.
        evidence: What each source had learned, as JSON values.
    """

    from_phase: str
    to_phase: str
    at: Instant
    attempt: str
    evidence: Mapping[str, object]


class JournalStore(Protocol):
    """The read side: answers what happened. Its class says in `scope` whose events it sees.

    A store may also have:

    - `scope`: `"fleet"` if it sees the events of every process, else `"process"`, the default;
    - `check_journal(journal, /) -> None`: raises if what is recorded in that journal, the migration's, does not reach
      the store, so that its silence proves nothing. It is asked before each query, and what it raises is an error of
      the source.
    """

    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        """The matching events that completed in the last `window`, bounds included, and later-stamped ones.

        Whatever the store cannot vouch for, it must say as a gap.
        """
        ...


class PhaseStore(Protocol):
    """The write side: holds the phase of one migration.

    A store may also have:

    - `scope`: `"process"` if no other process sees it, else `"fleet"`, the default;
    - `async resolve(attempt, /) -> Committed | None`: what became of an attempt. It is a fence: after None,
      `try_advance` with that attempt raises `AttemptFencedError`;
    - `async history() -> Sequence[Transition]`;
    - `migration`: the name of the migration whose phase it is, so that it is bound to no other;
    - `async check_order() -> None`: raises `SpecChangedError` where `try_advance` would, so that this is said before
      any evidence is asked;
    - `check_journal(journal, /) -> None`: raises if the audit events of that journal, the migration's, are lost with
      this process. That changes no answer, and is told in the log.
    """

    async def current(self) -> str:
        """The phase now."""
        ...

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        """Compare and set, in one step with whatever record the store keeps of it.

        Raises:
            SpecChangedError: The store recorded another order of phases.
            AttemptFencedError: This attempt was resolved as not committed.
            EvidenceWithdrawnError: Evidence that the store can check itself does not hold any more; nothing is
                committed, and `advance()` answers with `EvidenceFailed`.
            EvidenceOvertakenError: `evidence.check_standing()` raised it; nothing is committed.
        """
        ...


def check_journal(store: object, journal: Journal[Any]) -> None:
    """Ask a store whether it gets what is recorded in a journal; one that cannot say is believed.

    Raises:
        Exception: Whatever the store raised: it does not.
    """
    check = getattr(store, "check_journal", None)
    if check is not None:
        check(journal)
