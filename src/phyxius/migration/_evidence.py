"""The evidence union: closed, three variants."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import attrs

from phyxius.migration._errors import SpecError
from phyxius.migration._failure import Check, Predicate
from phyxius.migration._predicates import NoEvents, at_least, every_event, no_events, rate_below
from phyxius.migration._window import JournalQuery, is_plain_function

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_LONGEST_WINDOW = timedelta(days=36_525)
CoverageClaim = Literal["complete", "partial"]


@attrs.frozen
class JournalWindowEvidence(Generic[T_co]):
    """A claim about what this system did or did not do of late; made by `journal_window`."""

    query: JournalQuery
    window: timedelta
    predicate: Predicate[T_co]
    coverage: CoverageClaim = "complete"
    max_gap: timedelta = timedelta(0)
    witness: bool = True
    timeout: timedelta | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what could never be judged, or only by mistake."""
        if type(self.query) is not JournalQuery:
            raise SpecError(f"query must be a name or a JournalQuery, not {self.query!r}")
        check_duration(self.window, "window")
        if self.window > _LONGEST_WINDOW:
            raise SpecError(f"a window of {self.window} looks back before there were journals; a century is the most")
        makers: tuple[Any, ...] = (no_events, every_event, rate_below, at_least)
        if self.predicate in makers:
            name = getattr(self.predicate, "__name__", "")
            raise SpecError(f"predicate must be what {name}() makes: write {name}(...), with the parentheses")
        if not is_plain_function(self.predicate):
            raise SpecError(f"predicate must be a plain function of the window, not {self.predicate!r}")
        if isinstance(self.predicate, NoEvents) and self.query.outcome is not None:
            raise SpecError(
                f'no_events() over outcome="{self.query.outcome}" overlooks the other outcome: '
                "a failed legacy call is a legacy call; drop the outcome"
            )
        if self.coverage not in ("complete", "partial"):
            raise SpecError(f'coverage must be "complete" or "partial", not {self.coverage!r}')
        if not isinstance(self.max_gap, timedelta) or not timedelta(0) <= self.max_gap < self.window:
            raise SpecError(f"max_gap must be at least zero and shorter than the window, not {self.max_gap!r}")
        if type(self.witness) is not bool:
            raise SpecError(f"witness must be True or False, not {self.witness!r}")
        check_timeout(self.timeout)


@attrs.frozen
class SchemaAppliedEvidence(Generic[T_co]):
    """A claim about the schema, or about any other state that can be looked up; made by `schema_applied`."""

    check: Check[T_co]
    timeout: timedelta | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be called."""
        _check_check(self.check, self.timeout, "schema_applied")


@attrs.frozen
class AttestationEvidence(Generic[T_co]):
    """A claim that people signed; made by `attestation`."""

    check: Check[T_co]
    timeout: timedelta | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be called."""
        _check_check(self.check, self.timeout, "attestation")


EvidenceSource: TypeAlias = JournalWindowEvidence[T] | SchemaAppliedEvidence[T] | AttestationEvidence[T]
AnySource: TypeAlias = JournalWindowEvidence[Any] | SchemaAppliedEvidence[Any] | AttestationEvidence[Any]
SOURCE_TYPES = (JournalWindowEvidence, SchemaAppliedEvidence, AttestationEvidence)


def journal_window(
    query: str | JournalQuery,
    window: timedelta,
    predicate: Predicate[T],
    *,
    coverage: CoverageClaim = "complete",
    max_gap: timedelta = timedelta(0),
    witness: bool = True,
    timeout: timedelta | None = None,
) -> JournalWindowEvidence[T]:
    """Evidence from the journal: a claim about the events that completed in the last `window`.

    An `Ok` of the predicate counts only if the journal can vouch for it. It is refused if the window has gaps or
    was cut off by the query's `limit` (`coverage="complete"`); over an empty window also if the query names no
    events, if a recorder of the window does not declare that name, or while a matching call is in flight.

    Args:
        query: The name of the events, or a `JournalQuery`.
        window: How far back to look.
        predicate: A plain function from the `JournalWindow` to `ok(payload)` or `err(...)`.
        coverage: `"partial"` lets gaps and a cut-off pass, for claims that more events could not overturn.
        max_gap: How much of the window may be missing in total, `0 <= max_gap < window`; it is audited.
        witness: False lets an empty window count although nobody declares the name.
        timeout: How long query and predicate may take; the migration's `evidence_timeout` unless given.

    Raises:
        SpecError: A window that is not positive, a predicate that is async, `no_events()` over one outcome, ...
    """
    if isinstance(query, str):
        query = JournalQuery(name=query)
    return JournalWindowEvidence(query, window, predicate, coverage, max_gap, witness, timeout)


@overload
def schema_applied(check: Check[T], *, timeout: timedelta | None = None) -> SchemaAppliedEvidence[T]: ...
@overload
def schema_applied(*, timeout: timedelta | None = None) -> Callable[[Check[T]], SchemaAppliedEvidence[T]]: ...
def schema_applied(check: Check[Any] | None = None, *, timeout: timedelta | None = None) -> Any:
    """Evidence from the schema, or from any other state that can be looked up now.

    It also works as a decorator, bare and with arguments.

    Args:
        check: An `async def`, or a plain function, that answers `ok(payload)` or `err(...)`. A plain one runs in a
            thread of its own, so let it open its connection itself: many, such as sqlite3's, stay in one thread.
        timeout: How long the check may take; the migration's `evidence_timeout` unless given.

    Raises:
        SpecError: The check cannot be called, or the timeout is not positive.
    """
    if check is None:
        return lambda check: SchemaAppliedEvidence(check, timeout)
    return SchemaAppliedEvidence(check, timeout)


@overload
def attestation(check: Check[T], *, timeout: timedelta | None = None) -> AttestationEvidence[T]: ...
@overload
def attestation(*, timeout: timedelta | None = None) -> Callable[[Check[T]], AttestationEvidence[T]]: ...
def attestation(check: Check[Any] | None = None, *, timeout: timedelta | None = None) -> Any:
    """Evidence from people: somebody signed for it, as whatever you look it up in says.

    It also works as a decorator, bare and with arguments. What is signed for, the check can learn from
    `current_attempt()`.

    Args:
        check: An `async def`, or a plain function (run in a thread of its own), that answers `ok(payload)` or
            `err(...)`.
        timeout: How long the check may take; the migration's `evidence_timeout` unless given.

    Raises:
        SpecError: The check cannot be called, or the timeout is not positive.
    """
    if check is None:
        return lambda check: AttestationEvidence(check, timeout)
    return AttestationEvidence(check, timeout)


def check_duration(duration: object, what: str) -> None:
    """Refuse what is no positive timedelta."""
    if not isinstance(duration, timedelta) or duration <= timedelta(0):
        raise SpecError(f"{what} must be a positive timedelta such as timedelta(days=14), not {duration!r}")


def check_timeout(timeout: object) -> None:
    """Refuse what is neither None nor a positive timedelta."""
    if timeout is not None:
        check_duration(timeout, "timeout")


def _check_check(check: object, timeout: object, what: str) -> None:
    if not callable(check):
        raise SpecError(f"{what} needs a check that can be called, not {check!r}")
    check_timeout(timeout)
