"""A phase that the migration does not have, wherever it could be written; and phases that are too wide."""

from enum import StrEnum
from typing import Literal

from typing_extensions import assert_never

from phyxius import Journal, Migration, MigrationSpec, PhaseSpec, create_controlled_clock, create_memory_phase_store
from phyxius import attestation, create_migration, define_migration, ok, phase_reached

Phase = Literal["expand", "dual_write", "contract"]
Other = Literal["expand", "contract"]


class Step(StrEnum):
    EXPAND = "expand"
    CONTRACT = "contract"


clock = create_controlled_clock()
journal = Journal(clock=clock)
signed = attestation(check=lambda: ok("ada"))

# -- in the spec

good: MigrationSpec[Phase] = define_migration(name="m", phases={"expand": {}, "dual_write": {}, "contract": {}})
misspelt: MigrationSpec[Phase] = define_migration(name="m", phases={"expand": {}, "dual_wriet": {}})  # E: mypy, pyright
by_spec: MigrationSpec[Phase] = define_migration(name="m", phases={"expnad": PhaseSpec()})  # E: mypy, pyright
of_enum = define_migration(name="m", phases={Step.EXPAND: {}, Step.CONTRACT: {}})
by_enum: MigrationSpec[Step] = define_migration(name="m", phases={Step.EXPAND: {}, "contract": {}})  # E: mypy, pyright
define_migration(name="m", phases={1: {}, 2: {}})  # E: mypy, pyright
define_migration(name="m", phases=["expand", "contract"])  # E: mypy, pyright
define_migration("m", {"expand": {}, "contract": {}})  # E: mypy, pyright
define_migration(phases={"expand": {}, "contract": {}})  # E: mypy, pyright
define_migration(name="m", phases={"expand": {"signed": lambda: ok("ada")}, "contract": {}})  # E: mypy, pyright
define_migration(name="m", phases={"expand": {"signed": ok("ada")}, "contract": {}})  # E: mypy, pyright
define_migration(name="m", phases={"expand": signed, "contract": {}})  # E: mypy, pyright
define_migration(name="m", phases={"expand": [signed], "contract": {}})  # E: mypy, pyright
PhaseSpec(evidence={"signed": True})  # E: mypy, pyright
PhaseSpec(evidence={1: signed})  # E: mypy, pyright
integers: MigrationSpec[int]  # E: mypy, pyright

# -- in the migration

migration = create_migration(good, journal=journal)
create_migration(good, journal=journal, initial_phase="dual_wriet")  # E: mypy, pyright
create_migration(of_enum, journal=journal, initial_phase="expand")  # E: mypy, pyright
create_migration(good, journal=journal, initial_phase=0)  # E: mypy, pyright
create_migration(good)  # E: mypy, pyright
create_migration(good, journal)  # E: mypy, pyright
create_migration(good, journal=journal, phase_store="expand")  # E: mypy, pyright
create_migration({"expand": {}, "contract": {}}, journal=journal)  # E: mypy, pyright
create_migration(good, journal=journal, evidence_timeout=30)  # E: mypy, pyright
create_migration(good, journal=journal, run_sync=lambda check: check)  # E: mypy, pyright
create_memory_phase_store(initial=1, clock=clock)  # E: mypy, pyright
phase_reached(migration, "dual_wriet")  # E: mypy, pyright


async def misspelt_phases(enums: Migration[Step]) -> None:
    await migration.advance(to="dual_wriet")  # E: mypy, pyright
    await migration.advance("flip")  # E: mypy, pyright
    await enums.advance(to="contract")  # E: mypy, pyright
    phase = await migration.current_phase()
    print(phase == "dual_wriet")  # E: mypy, pyright
    print((await migration.readiness()).next_phase == "dual_wriet")  # E: mypy, pyright
    only: Literal["expand"] = await migration.current_phase()  # E: mypy, pyright


async def no_evidence_is_carried(snapshot: dict[str, object]) -> None:
    await migration.advance(snapshot)  # E: mypy, pyright
    await migration.advance(evidence=snapshot)  # E: mypy, pyright
    await migration.advance("contract", snapshot)  # E: mypy, pyright
    await migration.advance(force=True)  # E: mypy, pyright
    await migration.rollback()  # E: mypy, pyright


# -- matches with a case too few, or a wrong one


async def a_case_too_few() -> int:
    phase = await migration.current_phase()
    match phase:
        case "expand":
            return 1
        case "contract":
            return 3
        case _:
            assert_never(phase)  # E: mypy, pyright


async def a_misspelt_case() -> int:
    phase = await migration.current_phase()
    match phase:
        case "expand" | "contract":
            return 1
        case "dual_wriet":  # E: pyright
            return 2
        case _:
            assert_never(phase)  # E: mypy, pyright


async def a_member_too_few(enums: Migration[Step]) -> int:
    phase = await enums.current_phase()
    match phase:
        case Step.EXPAND:
            return 1
        case _:
            assert_never(phase)  # E: mypy, pyright


async def text_is_never_exhausted(texts: Migration) -> int:
    phase = await texts.current_phase()
    match phase:
        case "expand":
            return 1
        case "contract":
            return 2
        case _:
            assert_never(phase)  # E: mypy, pyright


async def no_case_for_the_end() -> int:  # E: mypy, pyright
    match await migration.current_phase():  # E: pyright
        case "expand":
            return 1
        case "contract":
            return 2


# -- spec and migration are invariant: what is given a phase must know it


def takes_text(spec: MigrationSpec[str], some: Migration[str]) -> None: ...


def takes_phase(spec: MigrationSpec[Phase], some: Migration[Phase]) -> None: ...


def handed_on(narrow: MigrationSpec[Other], narrow_live: Migration[Other], live: Migration[Phase]) -> None:
    wider_spec: MigrationSpec[str] = good  # E: mypy, pyright
    default_spec: MigrationSpec = good  # E: mypy, pyright
    wider_live: Migration[str] = live  # E: mypy, pyright
    more_phases: MigrationSpec[Phase] = narrow  # E: mypy, pyright
    fewer_phases: Migration[Other] = live  # E: mypy, pyright
    other_kind: Migration[Step] = narrow_live  # E: mypy, pyright
    takes_text(good, narrow_live)  # E: mypy, pyright
    takes_phase(good, narrow_live)  # E: mypy, pyright
    create_migration(good, journal=journal, phase_store=live)  # E: mypy, pyright
    bound_wrongly: Migration[Phase] = create_migration(narrow, journal=journal)  # E: mypy, pyright
