"""What `advance()` answers, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_never, get_args

import attrs
import pytest

from phyxius.clock import Instant
from phyxius.migration import (
    Advanced,
    AdvanceError,
    AlreadyAtFinal,
    CasLost,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    NotNext,
    SpecChanged,
    StoreErrored,
)
from phyxius.migration._outcomes import describe

WHEN = datetime(2030, 1, 2, tzinfo=UTC)
FAILURE = EvidenceFailure("saw 3 events", retry_at=WHEN)
REFUSALS: list[tuple[Any, str, tuple[str, ...]]] = [
    (AlreadyAtFinal("contract"), "ALREADY_AT_FINAL", ('"contract"', "final", "nothing left to do")),
    (EvidenceFailed("flip", {"quiet": FAILURE}), "EVIDENCE_FAILED", ('"flip"', "quiet", "saw 3 events", "2030-01-02")),
    (
        EvidenceErrored("flip", {"schema": OSError("no route")}, {"quiet": FAILURE}),
        "EVIDENCE_ERRORED",
        ('"flip"', "schema", "OSError: no route", "quiet: saw 3 events", "mend the check"),
    ),
    (CasLost("expand", "flip"), "CAS_LOST", ('"expand"', '"flip"', "decide anew")),
    (NotNext("contract", "expand", "flip"), "NOT_NEXT", ('"contract" is not the next', '"expand"', '"flip"')),
    (NotNext("expand", "expand", "flip"), "NOT_NEXT", ('at "expand" already', 'next phase is "flip"')),
    (
        StoreErrored("current", OSError("gone"), "no"),
        "STORE_ERRORED",
        ("current", "OSError: gone", "did not move", "mend the store"),
    ),
    (
        StoreErrored("try_advance", TimeoutError(), "unknown"),
        "STORE_ERRORED",
        ("try_advance", "(TimeoutError)", "unknown", "look where it is"),
    ),
    (SpecChanged(("a", "b"), ("a", "c")), "SPEC_CHANGED", ('"a", "b"', '"a", "c"', "deploy the build", "adopt")),
]
every_refusal = pytest.mark.parametrize("refusal, constant, parts", REFUSALS)


@every_refusal
def test_constants_and_messages(refusal: Any, constant: str, parts: tuple[str, ...]) -> None:
    """Each refusal has the original's constant, and one line that names the blocker and the remedy."""
    assert refusal.type == constant
    assert all(part in refusal.message for part in parts), refusal.message
    assert "\n" not in refusal.message


@every_refusal
def test_audit_error_can_be_added(refusal: Any, constant: str, parts: tuple[str, ...]) -> None:
    """Each refusal evolves with an `audit_error`, and stays as it was otherwise."""
    error = RuntimeError()
    evolved = attrs.evolve(refusal, audit_error=error)
    assert (refusal.audit_error, evolved.audit_error) == (None, error)
    assert attrs.evolve(evolved, audit_error=None) == refusal
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        refusal.audit_error = error


def positions(outcome: AdvanceError[Any]) -> tuple[object, ...]:
    """Take a refusal apart by position."""
    match outcome:
        case AlreadyAtFinal(phase):
            return (phase,)
        case EvidenceFailed(attempted, failures):
            return (attempted, failures)
        case EvidenceErrored(attempted, errors, failures):
            return (attempted, errors, failures)
        case CasLost(expected, actual):
            return (expected, actual)
        case NotNext(requested, current, following):
            return (requested, current, following)
        case StoreErrored(operation, error, committed):
            return (operation, error, committed)
        case SpecChanged(recorded, declared):
            return (recorded, declared)
        case _:
            assert_never(outcome)


@every_refusal
def test_positional_patterns(refusal: Any, constant: str, parts: tuple[str, ...]) -> None:
    """A positional pattern gives the fields in order, without `type` and `audit_error`."""
    fields = [field.name for field in attrs.fields(type(refusal)) if field.name not in ("type", "audit_error")]
    assert positions(refusal) == tuple(getattr(refusal, name) for name in fields)
    assert not {"type", "audit_error"} & set(type(refusal).__match_args__[: len(fields)])


def test_every_refusal_is_covered() -> None:
    """The table above has each member of the union."""
    members = {getattr(member, "__origin__", member) for member in get_args(AdvanceError)}
    assert members == {type(refusal) for refusal, _, _ in REFUSALS}


def test_when_a_refusal_can_pass() -> None:
    """When the last of its blockers can; unknown where one of them does not know."""
    later = EvidenceFailure("later", retry_at=WHEN + timedelta(days=1))
    assert EvidenceFailed("flip", {"a": later, "b": FAILURE}).ready_at == later.retry_at
    assert EvidenceFailed("flip", {"a": later, "b": EvidenceFailure("never")}).ready_at is None


def test_advanced_pattern() -> None:
    """`Advanced` matches by position: from, to, evidence, at."""
    at = Instant(wall_ns=1, mono_ns=2)
    match Advanced("a", "b", {"x": 1}, at):
        case Advanced(source, target, evidence, when):
            assert (source, target, evidence, when) == ("a", "b", {"x": 1}, at)


def test_describe_is_short() -> None:
    """An exception's text is cut, and one that cannot be read is survived."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert len(describe(ValueError("x" * 10_000))) < 600
    assert describe(MuteError()).startswith("MuteError: ")
    assert describe(ValueError()) == "ValueError"
