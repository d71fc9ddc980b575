"""What follows from what is known: decisions without clock, loop or store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeAlias

import attrs
from typing_extensions import TypeVar

from phyxius.fp import Ok
from phyxius.migration._errors import WrongShapeError
from phyxius.migration._evidence import AnySource
from phyxius.migration._failure import EvidenceFailure, ready_at
from phyxius.migration._judge import Passed
from phyxius.migration._outcomes import (
    AlreadyAtFinal,
    EvidenceErrored,
    EvidenceFailed,
    NotNext,
    Readiness,
    SpecChanged,
    Verdict,
)
from phyxius.migration._spec import MigrationSpec
from phyxius.migration._wording import plain

P = TypeVar("P", bound=str, default=str)
Finding: TypeAlias = Passed | EvidenceFailure | Exception
"""What became of one source, before it is told to anyone."""


@attrs.frozen
class Step(Generic[P]):
    """The one step that can be tried from a phase, and the sources that guard it."""

    from_phase: P
    to_phase: P
    sources: Mapping[str, AnySource]


def next_step(
    spec: MigrationSpec[P], recorded: str, to: str | None
) -> Step[P] | AlreadyAtFinal[P] | NotNext[P] | SpecChanged:
    """Which step a call of `advance(to)` asks for, or why there is none."""
    order = spec.order
    if recorded not in order:
        return SpecChanged((recorded,), tuple(map(plain, order)))
    index = order.index(recorded)
    current = order[index]
    if index + 1 == len(order):
        return AlreadyAtFinal(current)
    following = order[index + 1]
    if to is not None and to != following:
        return NotNext(to, current, following)
    sources = dict(spec.phases[following].evidence)
    if index == 0:
        sources |= spec.phases[current].evidence
    return Step(current, following, sources)


def refusal_for(step: Step[P], findings: Mapping[str, Finding]) -> EvidenceFailed[P] | EvidenceErrored[P] | None:
    """Why the step may not be taken; None only if every declared source, and no other, has a true `Ok`."""
    failures: dict[str, EvidenceFailure] = {}
    errors: dict[str, Exception] = {}
    for name in dict.fromkeys((*step.sources, *findings)):
        finding = findings.get(name)
        if isinstance(finding, EvidenceFailure):
            failures[name] = finding
        elif isinstance(finding, Exception):
            errors[name] = finding
        elif type(finding) is not Passed or name not in step.sources:
            errors[name] = WrongShapeError("no answer, or one to no question,", "exactly one for each source")
    if errors:
        return EvidenceErrored(step.to_phase, errors, failures)
    return EvidenceFailed(step.to_phase, failures) if failures else None


def readiness_of(step: Step[P], findings: Mapping[str, Finding]) -> Readiness[P]:
    """The findings as people want to see them."""
    verdicts = {name: verdict_of(finding) for name, finding in findings.items()}
    blockers = [finding for finding in findings.values() if not isinstance(finding, Passed)]
    ready = refusal_for(step, findings) is None
    return Readiness(step.from_phase, step.to_phase, verdicts, ready, ready_at(blockers))


def verdict_of(finding: Finding) -> Verdict:
    """The finding as it is told to people."""
    return Ok(finding.payload) if isinstance(finding, Passed) else finding
