"""What `advance()` answers: every match is provably exhaustive, and the values are covariant in the phase."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from typing_extensions import assert_never, assert_type

from phyxius import (
    Advanced,
    AdvanceError,
    AlreadyAtFinal,
    CasLost,
    Err,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    Instant,
    Migration,
    NotNext,
    Ok,
    Readiness,
    Result,
    SpecChanged,
    StoreErrored,
)

Phase = Literal["expand", "dual_write", "contract"]


async def whole(migration: Migration[Phase]) -> str:
    result = await migration.advance(to="contract")
    match result:
        case Ok(Advanced(from_phase, to_phase)):
            assert_type(from_phase, Phase)
            assert_type(to_phase, Phase)
            return f"{from_phase} -> {to_phase}"
        case Err(AlreadyAtFinal(phase)):
            return phase
        case Err(EvidenceFailed(attempted, failures)):
            return f"{attempted}: {failures}"
        case Err(EvidenceErrored(attempted, errors, failures)):
            return f"{attempted}: {errors} {failures}"
        case Err(CasLost(expected, actual)):
            return f"{expected} {actual}"
        case Err(error):
            return error.message


async def of_result(migration: Migration[Phase]) -> str:
    result = await migration.advance()
    match result:
        case Ok(advanced):
            assert_type(advanced, Advanced[Phase])
            assert_type(advanced.at, Instant)
            assert_type(advanced.evidence, Mapping[str, object])
            assert_type(advanced.audit_error, Exception | None)
            return advanced.to_phase
        case Err(error):
            return error.message
        case _:
            assert_never(result)


def every_positional(error: AdvanceError[Phase]) -> str:
    match error:
        case AlreadyAtFinal(phase):
            assert_type(phase, Phase)
            return phase
        case EvidenceFailed(attempted_phase, failures):
            assert_type(attempted_phase, Phase)
            assert_type(failures, Mapping[str, EvidenceFailure])
            return attempted_phase
        case EvidenceErrored(attempted_phase, errors, failures):
            assert_type(attempted_phase, Phase)
            assert_type(errors, Mapping[str, Exception])
            assert_type(failures, Mapping[str, EvidenceFailure])
            return attempted_phase
        case CasLost(expected, actual):
            assert_type(expected, Phase)
            assert_type(actual, Phase)
            return actual
        case NotNext(requested, current, next_phase):
            assert_type(requested, str)
            assert_type(current, Phase)
            assert_type(next_phase, Phase)
            return requested
        case StoreErrored(operation, raised, committed):
            assert_type(operation, Literal["current", "try_advance"])
            assert_type(raised, BaseException)
            assert_type(committed, Literal["no", "unknown"])
            return committed
        case SpecChanged(recorded, declared):
            assert_type(recorded, tuple[str, ...])
            assert_type(declared, tuple[str, ...])
            return recorded[0]
        case _:
            assert_never(error)


def every_keyword(error: AdvanceError[Phase]) -> object:
    match error:
        case AlreadyAtFinal(phase=phase):
            return phase
        case EvidenceFailed(attempted_phase=phase):
            return phase
        case EvidenceErrored(errors=errors):
            return errors
        case CasLost(actual=actual):
            return actual
        case NotNext(next_phase=next_phase):
            return next_phase
        case StoreErrored(committed=committed):
            return committed
        case SpecChanged(declared=declared):
            return declared
        case _:
            assert_never(error)


def nested(result: Result[Advanced[Phase], AdvanceError[Phase]]) -> str:
    match result:
        case Err(StoreErrored("try_advance", _, "unknown")):
            return "unknown"
        case Err(EvidenceFailed("contract", {"signed": EvidenceFailure(reason, _, retry_at)})):
            assert_type(reason, str)
            assert_type(retry_at, datetime | None)
            return reason
        case Ok(Advanced("expand", "dual_write", evidence)):
            assert_type(evidence, Mapping[str, object])
            return "moved"
        case _:
            return "else"


def by_type(error: AdvanceError[Phase]) -> str:
    if error.type == "CAS_LOST":
        assert_type(error, CasLost[Phase])
        return error.actual
    if error.type == "ALREADY_AT_FINAL":
        return error.phase
    if error.type == "EVIDENCE_FAILED":
        return str(error.failures)
    if error.type == "EVIDENCE_ERRORED":
        return str(error.errors)
    if error.type == "NOT_NEXT":
        return error.next_phase
    if error.type == "STORE_ERRORED":
        return error.committed
    assert_type(error, SpecChanged)
    return error.recorded[0]


def by_matched_type(error: AdvanceError[Phase]) -> str:
    match error.type:
        case "CAS_LOST":
            return "again"
        case "ALREADY_AT_FINAL" | "NOT_NEXT" | "SPEC_CHANGED":
            return "stop"
        case "EVIDENCE_FAILED" | "EVIDENCE_ERRORED" | "STORE_ERRORED":
            return "look"
        case _:
            assert_never(error.type)


def in_common(error: AdvanceError[Phase]) -> tuple[str, Exception | None]:
    assert_type(
        error.type,
        Literal[
            "ALREADY_AT_FINAL",
            "EVIDENCE_FAILED",
            "EVIDENCE_ERRORED",
            "CAS_LOST",
            "NOT_NEXT",
            "STORE_ERRORED",
            "SPEC_CHANGED",
        ],
    )
    return error.message, error.audit_error


# -- covariance: what takes any migration's outcome takes this one's


def report(advanced: Advanced[str]) -> str:
    return advanced.to_phase


def explain(error: AdvanceError) -> str:
    return error.message


def show(result: Result[Advanced, AdvanceError], readiness: Readiness) -> str:
    return f"{result} {readiness.phase}"


def handed_on(advanced: Advanced[Literal["expand"]], error: AdvanceError[Phase], readiness: Readiness[Phase]) -> None:
    wider: Advanced[str] = advanced
    phases: Advanced[Phase] = advanced
    report(advanced)
    explain(error)
    show(Ok(wider), readiness)
    show(Ok(phases), readiness)
    show(Err(error), readiness)


async def handed_on_whole(migration: Migration[Phase]) -> str:
    return show(await migration.advance(), await migration.readiness())


def each_is_covariant(
    final: AlreadyAtFinal[Phase],
    failed: EvidenceFailed[Phase],
    errored: EvidenceErrored[Phase],
    lost: CasLost[Phase],
    not_next: NotNext[Phase],
) -> list[AdvanceError[str]]:
    return [final, failed, errored, lost, not_next]


def made_by_hand(at: Instant) -> list[Advanced[Phase] | AdvanceError[Phase]]:
    return [
        Advanced("expand", "dual_write", {"count": 0}, at),
        AlreadyAtFinal("contract", audit_error=ValueError()),
        EvidenceFailed("contract", {"signed": EvidenceFailure("not signed")}),
        EvidenceErrored("contract", {"signed": TimeoutError()}, {}),
        CasLost("expand", "dual_write"),
        NotNext("contract", "expand", "dual_write"),
        StoreErrored("current", OSError(), "no"),
        SpecChanged(("expand",), ("expand", "contract")),
    ]


def judged(readiness: Readiness[Phase]) -> str:
    for name, verdict in readiness.verdicts.items():
        match verdict:
            case Ok(payload):
                return f"{name} {payload}"
            case EvidenceFailure(reason):
                return reason
            case Exception():
                return repr(verdict)
            case _:
                assert_never(verdict)
    return "nothing"
