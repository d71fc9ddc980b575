"""Misuse of what `advance()` answers, and of `Ok` and `Err`."""

from collections.abc import Mapping
from typing import Literal

from typing_extensions import assert_never

from phyxius import Advanced, AdvanceError, AlreadyAtFinal, CasLost, Err, EvidenceErrored, EvidenceFailed
from phyxius import EvidenceFailure, Instant, Migration, MigrationSpec, NotNext, Ok, PhaseSpec, Readiness, Result
from phyxius import SpecChanged, StoreErrored, err, ok

Phase = Literal["expand", "contract"]

# -- Ok and Err

value: str = ok(1).value  # E: mypy, pyright
Ok()  # E: mypy, pyright
Err()  # E: mypy, pyright
err()  # E: mypy, pyright
ok(1, 2)  # E: mypy, pyright
Ok(1).error  # E: mypy, pyright
Err("no").value  # E: mypy, pyright
ok(1).unwrap()  # E: mypy, pyright
no_value: Ok[int] = ok()  # E: mypy, pyright
an_err: Ok[int] = err("no")  # E: mypy, pyright
other: Result[int, str] = ok("text")  # E: mypy, pyright
other_error: Result[int, str] = err(1)  # E: mypy, pyright


def unmatched(result: Result[int, str]) -> int:
    print(result.error)  # E: mypy, pyright
    return result.value  # E: mypy, pyright


def bare_value() -> Result[int, str]:
    return 1  # E: mypy, pyright


def an_exception() -> Result[int, ValueError]:
    return ValueError("no")  # E: mypy, pyright


def one_case(result: Result[int, str]) -> int:
    match result:
        case Ok(number):
            return number
        case _:
            assert_never(result)  # E: mypy, pyright


def two_values(result: Result[int, str]) -> int:
    match result:
        case Ok(number, more):  # E: mypy, pyright
            return number
        case _:
            return 0


# -- the refusals


def two_too_few(error: AdvanceError[Phase]) -> str:
    match error:
        case AlreadyAtFinal() | EvidenceFailed() | EvidenceErrored() | CasLost() | NotNext():
            return error.message
        case _:
            assert_never(error)  # E: mypy, pyright


def one_too_few(error: AdvanceError[Phase]) -> str:
    match error:
        case AlreadyAtFinal() | EvidenceFailed() | EvidenceErrored() | CasLost() | NotNext() | SpecChanged():
            return error.message
        case _:
            assert_never(error)  # E: mypy, pyright


def positional_type(error: AdvanceError[Phase]) -> str:
    match error:
        case AlreadyAtFinal(_, "ALREADY_AT_FINAL"):  # E: mypy, pyright
            return "final"
        case CasLost(_, _, _, _, _):  # E: mypy, pyright
            return "lost"
        case _:
            return error.message


def by_constant(error: AdvanceError[Phase]) -> str:
    if error.type == "CAS_LOTS":  # E: mypy, pyright
        return "again"
    if error.type == "CAS_LOST":
        return error.failures  # E: mypy, pyright
    return error.phase  # E: mypy, pyright


def by_constants(error: AdvanceError[Phase]) -> str:
    match error.type:
        case "CAS_LOST" | "ALREADY_AT_FINAL" | "NOT_NEXT" | "SPEC_CHANGED" | "EVIDENCE_FAILED":
            return "one of them"
        case _:
            assert_never(error.type)  # E: mypy, pyright


def made_with_a_type(at: Instant) -> None:
    CasLost("expand", "contract", "CAS_LOST")  # E: mypy, pyright
    AlreadyAtFinal("contract", type="ALREADY_AT_FINAL")  # E: mypy, pyright
    AlreadyAtFinal("contract", ValueError())  # E: mypy, pyright
    StoreErrored("resolve", OSError(), "no")  # E: mypy, pyright
    StoreErrored("current", OSError(), "yes")  # E: mypy, pyright
    EvidenceFailed("contract", {"signed": "not signed"})  # E: mypy, pyright
    EvidenceErrored("contract", {"signed": "not signed"}, {})  # E: mypy, pyright
    Advanced("expand", "contract")  # E: mypy, pyright
    EvidenceFailure(1)  # E: mypy, pyright
    EvidenceFailure("no", "details")  # E: mypy, pyright
    EvidenceFailure("no", retry_at=14.0)  # E: mypy, pyright


# -- covariant, and not the other way


def narrowed(advanced: Advanced[str], error: CasLost[Phase], readiness: Readiness) -> None:
    phase: Advanced[Phase] = advanced  # E: mypy, pyright
    first: CasLost[Literal["expand"]] = error  # E: mypy, pyright
    ready: Readiness[Phase] = readiness  # E: mypy, pyright
    of_numbers: Advanced[int]  # E: mypy, pyright


async def not_unwrapped(migration: Migration[Phase]) -> None:
    result = await migration.advance()
    print(result.to_phase)  # E: mypy, pyright
    print(result.value)  # E: mypy, pyright
    match result:
        case Ok(advanced):
            print(advanced.from_phase == "flip")  # E: mypy, pyright
            print(advanced.evidence["signed"].count)  # E: mypy, pyright
        case Err(error):
            raise error  # E: mypy, pyright


async def not_awaited(migration: Migration[Phase]) -> None:
    migration.advance()  # E: mypy, pyright
    phase: Phase = migration.current_phase()  # E: mypy, pyright
    ready = migration.readiness().ready  # E: mypy, pyright
    await migration.spec  # E: mypy, pyright
    await migration.name  # E: mypy, pyright
    await ok(1)  # E: mypy, pyright


# -- frozen


def changed(
    advanced: Advanced[Phase],
    error: CasLost[Phase],
    readiness: Readiness[Phase],
    spec: MigrationSpec[Phase],
    migration: Migration[Phase],
    failures: Mapping[str, EvidenceFailure],
    failure: EvidenceFailure,
) -> None:
    ok(1).value = 2  # E: mypy, pyright
    err("no").error = "yes"  # E: mypy, pyright
    advanced.to_phase = "expand"  # E: mypy, pyright
    advanced.evidence["signed"] = "ada"  # E: mypy, pyright
    error.type = "CAS_LOST"  # E: mypy, pyright
    error.audit_error = None  # E: mypy, pyright
    readiness.ready = True  # E: mypy, pyright
    readiness.verdicts["signed"] = ok()  # E: mypy, pyright
    spec.name = "other"  # E: mypy, pyright
    spec.phases["expand"] = PhaseSpec()  # E: mypy, pyright
    spec.phases["expand"].evidence = {}  # E: mypy, pyright
    migration.name = "other"  # E: mypy, pyright
    migration.spec = spec  # E: mypy, pyright
    failures["signed"] = failure  # E: mypy, pyright
    failure.reason = "other"  # E: mypy, pyright
