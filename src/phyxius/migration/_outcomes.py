"""What `advance()` and `readiness()` answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Generic, Literal, TypeAlias

import attrs
from typing_extensions import TypeVar

from phyxius.clock import Instant
from phyxius.fp import Ok
from phyxius.handler import HandlerError
from phyxius.migration._failure import EvidenceFailure, ready_at
from phyxius.migration._window import Coverage
from phyxius.migration._wording import OTHER_ORDER, listed, plain

P_co = TypeVar("P_co", bound=str, default=str, covariant=True)
P = TypeVar("P", bound=str, default=str)


@attrs.frozen
class Advanced(Generic[P_co]):
    """The migration moved.

    Attributes:
        from_phase: Where it was.
        to_phase: Where it is.
        evidence: What each source had learned, as JSON values.
        at: When, on the phase store's clock.
        audit_error: Why the journal refused the audit event; None if it took it.
    """

    from_phase: P_co
    to_phase: P_co
    evidence: Mapping[str, object]
    at: Instant
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class AlreadyAtFinal(Generic[P_co]):
    """There is no next phase."""

    phase: P_co
    type: Literal["ALREADY_AT_FINAL"] = attrs.field(default="ALREADY_AT_FINAL", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        return f'"{plain(self.phase)}" is the final phase; there is nothing left to do'


@attrs.frozen
class EvidenceFailed(Generic[P_co]):
    """At least one source said no, and none was broken."""

    attempted_phase: P_co
    failures: Mapping[str, EvidenceFailure]
    type: Literal["EVIDENCE_FAILED"] = attrs.field(default="EVIDENCE_FAILED", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        return f'cannot enter "{plain(self.attempted_phase)}": {"; ".join(_failure_lines(self.failures))}'

    @property
    def ready_at(self) -> datetime | None:
        """The earliest time at which all that blocks can pass, where every blocker knows its own."""
        return ready_at(self.failures.values())


@attrs.frozen
class EvidenceErrored(Generic[P_co]):
    """At least one source could not be judged: it raised, was too late, or answered with something else.

    Attributes:
        attempted_phase: The phase that was not entered.
        errors: The sources that could not be judged.
        failures: The sources that said no, beside them.
        audit_error: Why the journal refused the audit event; None if it took it.
    """

    attempted_phase: P_co
    errors: Mapping[str, Exception]
    failures: Mapping[str, EvidenceFailure]
    type: Literal["EVIDENCE_ERRORED"] = attrs.field(default="EVIDENCE_ERRORED", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        broken = [f"{name} could not be judged ({describe(error)})" for name, error in self.errors.items()]
        lines = [*broken, *_failure_lines(self.failures)]
        why = "; ".join(lines)
        return f'cannot enter "{plain(self.attempted_phase)}": {why}; mend the check or what it asks, and retry'


@attrs.frozen
class CasLost(Generic[P_co]):
    """Another caller moved the migration first."""

    expected: P_co
    actual: P_co
    type: Literal["CAS_LOST"] = attrs.field(default="CAS_LOST", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        return (
            f'another caller was first: the phase is "{plain(self.actual)}", no longer "{plain(self.expected)}"; '
            "decide anew whether to advance"
        )


@attrs.frozen
class NotNext(Generic[P_co]):
    """The phase that was asked for is not the next one."""

    requested: str
    current: P_co
    next_phase: P_co
    type: Literal["NOT_NEXT"] = attrs.field(default="NOT_NEXT", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        if self.requested == self.current:
            return f'the migration is at "{plain(self.current)}" already; the next phase is "{plain(self.next_phase)}"'
        current, following = plain(self.current), plain(self.next_phase)
        return f'"{self.requested}" is not the next phase after "{current}"; that is "{following}"'


@attrs.frozen
class StoreErrored:
    """The phase store failed.

    Attributes:
        operation: What it was asked: `"current"` or `"try_advance"`.
        error: What it raised.
        committed: `"no"` if the migration has not moved and this call cannot move it any more; `"unknown"` if the
            store cannot tell.
        audit_error: Why the journal refused the audit event; None if it took it.
    """

    operation: Literal["current", "try_advance"]
    error: BaseException
    committed: Literal["no", "unknown"]
    type: Literal["STORE_ERRORED"] = attrs.field(default="STORE_ERRORED", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        fate = (
            "the migration did not move; mend the store and retry"
            if self.committed == "no"
            else "whether the migration moved is unknown; look where it is before anything else"
        )
        return f"the phase store failed in {self.operation} ({describe(self.error)}); {fate}"


@attrs.frozen
class SpecChanged:
    """The store knows a phase, or an order of phases, that the spec does not have.

    Attributes:
        recorded: The phases as the store has them, or just the one that the spec lacks.
        declared: The phases of the spec.
        audit_error: Why the journal refused the audit event; None if it took it.
    """

    recorded: tuple[str, ...]
    declared: tuple[str, ...]
    type: Literal["SPEC_CHANGED"] = attrs.field(default="SPEC_CHANGED", init=False, repr=False)
    audit_error: Exception | None = attrs.field(default=None, kw_only=True)

    @property
    def message(self) -> str:
        """One line for people."""
        return f"the store has {listed(self.recorded)}, but the spec {listed(self.declared)}; {OTHER_ORDER}"


AdvanceError: TypeAlias = (
    AlreadyAtFinal[P] | EvidenceFailed[P] | EvidenceErrored[P] | CasLost[P] | NotNext[P] | StoreErrored | SpecChanged
)
"""Why `advance()` did not move. Each has `.type`, a constant, and `.message`, one line for people."""

Verdict: TypeAlias = Ok[object] | EvidenceFailure | Exception
"""What became of one source: what it learned, why it said no, or how it broke."""


@attrs.frozen
class SourceAnswer:
    """The answer of one source, told as it comes; what counts is what `advance()` or `readiness()` answers in the end.

    Attributes:
        source: The name of the source.
        verdict: What it learned, why it said no, or how it broke.
        took: How long after the question it came.
        coverage: What the journal could vouch for, where a journal window was read; else None.
    """

    source: str
    verdict: Verdict
    took: timedelta
    coverage: Coverage | None = None


OnAnswer: TypeAlias = Callable[[SourceAnswer], None]
"""Is told of each answer as it comes. It must not take long; what it raises is logged, and changes nothing."""


@attrs.frozen
class Readiness(Generic[P_co]):
    """What `advance()` would find now.

    Attributes:
        phase: Where the migration is.
        next_phase: Where `advance()` would take it; None at the final phase.
        verdicts: What became of each source.
        ready: Whether all of them were `Ok`, and there is a next phase.
        ready_at: The earliest time at which all that blocks can pass, where every blocker knows its own.
        coverage: What the journal could vouch for, for each source whose journal window was read.
    """

    phase: P_co
    next_phase: P_co | None
    verdicts: Mapping[str, Verdict]
    ready: bool
    ready_at: datetime | None
    coverage: Mapping[str, Coverage] = attrs.field(factory=dict, kw_only=True)


def describe(error: BaseException) -> str:
    """An exception as one short text."""
    described = HandlerError.of(error)
    return f"{described.type}: {described.message}" if described.message else described.type


def _failure_lines(failures: Mapping[str, EvidenceFailure]) -> list[str]:
    return [
        f"{name}: {failure.reason}" + (f" (not before {failure.retry_at.isoformat()})" if failure.retry_at else "")
        for name, failure in failures.items()
    ]
