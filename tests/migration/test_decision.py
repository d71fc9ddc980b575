"""What follows from what is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest

from phyxius.fp import Ok, ok
from phyxius.migration import (
    AlreadyAtFinal,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    NotNext,
    SpecChanged,
    WrongShapeError,
    define_migration,
    schema_applied,
)
from phyxius.migration._decision import Step, next_step, readiness_of, refusal_for
from phyxius.migration._judge import Passed

OWN, SECOND, THIRD = (schema_applied(ok) for _ in range(3))
SPEC = define_migration(
    name="quotes", phases={"expand": {"own": OWN}, "flip": {"second": SECOND}, "contract": {"third": THIRD}}
)
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
FREE: Step[str] = Step("expand", "flip", {})
STEP: Step[str] = Step("expand", "flip", {"a": OWN, "b": SECOND})
YES, NO = Passed('{"n":1}'), EvidenceFailure("no")
RAISED = ValueError("broken")


class PassedToo(Passed):
    """Looks like a finding."""


class Phase(str, Enum):  # noqa: UP042 - its str() is not its value
    EXPAND = "expand"
    FLIP = "flip"


@pytest.mark.parametrize(
    "recorded,to,outcome",
    [
        ("expand", None, Step("expand", "flip", {"own": OWN, "second": SECOND})),
        ("expand", "flip", Step("expand", "flip", {"own": OWN, "second": SECOND})),
        ("flip", None, Step("flip", "contract", {"third": THIRD})),
        ("flip", "contract", Step("flip", "contract", {"third": THIRD})),
        ("expand", "contract", NotNext("contract", "expand", "flip")),
        ("expand", "expand", NotNext("expand", "expand", "flip")),
        ("flip", "flip", NotNext("flip", "flip", "contract")),
        ("flip", "expand", NotNext("expand", "flip", "contract")),
        ("flip", "", NotNext("", "flip", "contract")),
        ("contract", None, AlreadyAtFinal("contract")),
        ("contract", "contract", AlreadyAtFinal("contract")),
        ("contract", "expand", AlreadyAtFinal("contract")),
        ("gone", None, SpecChanged(("gone",), ("expand", "flip", "contract"))),
        ("gone", "flip", SpecChanged(("gone",), ("expand", "flip", "contract"))),
        ("", None, SpecChanged(("",), ("expand", "flip", "contract"))),
        ("EXPAND", None, SpecChanged(("EXPAND",), ("expand", "flip", "contract"))),
    ],
)
def test_which_step_is_asked_for(recorded: str, to: str | None, outcome: object) -> None:
    """The next phase, guarded by its own evidence and out of the first by both, or why there is no step."""
    assert next_step(SPEC, recorded, to) == outcome


def test_phases_of_an_enum() -> None:
    """A recorded text leads to the members, and what is told of the spec are their values."""
    spec = define_migration(name="quotes", phases={Phase.EXPAND: {}, Phase.FLIP: {}})
    assert next_step(spec, "expand", None) == Step(Phase.EXPAND, Phase.FLIP, {})
    changed: Any = next_step(spec, "gone", None)
    assert [(type(phase), phase) for phase in changed.declared] == [(str, "expand"), (str, "flip")]


@pytest.mark.parametrize(
    "findings,failed,errored",
    [
        ({"a": YES, "b": YES}, set(), set()),
        ({"a": NO, "b": YES}, {"a"}, set()),
        ({"a": NO, "b": NO}, {"a", "b"}, set()),
        ({"a": RAISED, "b": YES}, set(), {"a"}),
        ({"a": RAISED, "b": NO}, {"b"}, {"a"}),
        ({"a": RAISED, "b": RAISED}, set(), {"a", "b"}),
        ({}, set(), {"a", "b"}),
        ({"a": YES}, set(), {"b"}),
        ({"a": NO}, {"a"}, {"b"}),
        ({"a": YES, "b": YES, "c": YES}, set(), {"c"}),
        ({"a": YES, "b": YES, "c": RAISED}, set(), {"c"}),
        ({"a": YES, "c": YES}, set(), {"b", "c"}),
        ({"a": YES, "b": None}, set(), {"b"}),
        ({"a": YES, "b": True}, set(), {"b"}),
        ({"a": YES, "b": Ok(1)}, set(), {"b"}),
        ({"a": YES, "b": PassedToo("1")}, set(), {"b"}),
    ],
)
def test_every_source_and_no_other_must_have_passed(findings: Any, failed: set[str], errored: set[str]) -> None:
    """None is missing, none is too many, and failures and errors together are errored."""
    refusal = refusal_for(STEP, findings)
    if errored:
        assert type(refusal) is EvidenceErrored
        assert (refusal.attempted_phase, set(refusal.errors), set(refusal.failures)) == ("flip", errored, failed)
    elif failed:
        assert type(refusal) is EvidenceFailed
        assert (refusal.attempted_phase, set(refusal.failures)) == ("flip", failed)
    else:
        assert refusal is None


def test_findings_come_through_as_they_are() -> None:
    """The failure and the error are those that were found; a missing answer is a wrong shape."""
    refusal: Any = refusal_for(STEP, {"a": RAISED})
    assert refusal.errors["a"] is RAISED
    assert type(refusal.errors["b"]) is WrongShapeError
    assert refusal_for(STEP, {"a": NO, "b": YES}) == EvidenceFailed("flip", {"a": NO})


def test_a_phase_without_evidence_is_entered_freely() -> None:
    """No source is asked, and nothing refuses; an answer to no question does."""
    assert refusal_for(FREE, {}) is None
    assert type(refusal_for(FREE, {"a": YES})) is EvidenceErrored


def later(days: int) -> EvidenceFailure:
    return EvidenceFailure("not yet", retry_at=EPOCH + timedelta(days=days))


@pytest.mark.parametrize(
    "findings,ready,ready_in",
    [
        ({"a": YES, "b": YES}, True, None),
        ({"a": later(1), "b": YES}, False, 1),
        ({"a": later(3), "b": later(2)}, False, 3),
        ({"a": later(1), "b": NO}, False, None),
        ({"a": later(1), "b": RAISED}, False, None),
        ({"a": NO, "b": YES}, False, None),
        ({"a": YES}, False, None),
    ],
)
def test_readiness_tells_when(findings: Any, ready: bool, ready_in: int | None) -> None:
    """`ready_at` is the latest of the times, and only where every blocker knows its own."""
    readiness = readiness_of(STEP, findings)
    assert (readiness.phase, readiness.next_phase, readiness.ready) == ("expand", "flip", ready)
    assert readiness.ready_at == (None if ready_in is None else EPOCH + timedelta(days=ready_in))


def test_readiness_shows_each_verdict() -> None:
    """An Ok with what was learned, the failure, or the exception."""
    readiness = readiness_of(STEP, {"a": YES, "b": RAISED})
    assert readiness.verdicts == {"a": Ok({"n": 1}), "b": RAISED}
    assert readiness_of(FREE, {}).ready
