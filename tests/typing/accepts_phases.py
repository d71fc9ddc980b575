"""Phases: a Literal by annotation, a StrEnum by itself, plain text otherwise."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from typing_extensions import assert_never, assert_type

from phyxius import (
    Advanced,
    AdvanceError,
    EvidenceFailure,
    Journal,
    Migration,
    MigrationSpec,
    Ok,
    PhaseSpec,
    Readiness,
    Result,
    SchemaAppliedEvidence,
    attestation,
    create_controlled_clock,
    create_memory_journal_store,
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    ok,
    phase_reached,
    schema_applied,
)

from datetime import datetime, timedelta

clock = create_controlled_clock()
journal = Journal(clock=clock)

# -- a Literal

Phase = Literal["expand", "dual_write", "flip", "contract"]

ready = schema_applied(check=lambda: ok({"revision": "0042"}))
spec: MigrationSpec[Phase] = define_migration(
    name="quote-to-sales-document",
    phases={
        "expand": PhaseSpec(evidence={"schema_ready": ready}),
        "dual_write": PhaseSpec(),
        "flip": {
            "zero_legacy_reads": journal_window("quote.read", timedelta(days=14), no_events()),
            "signed": attestation(check=lambda: ok()),
        },
        "contract": {},
    },
)
migration = create_migration(spec, journal=journal)
assert_type(spec.phases, Mapping[Phase, PhaseSpec])
assert_type(spec.order, tuple[Phase, ...])
assert_type(migration, Migration[Phase])
assert_type(migration.spec, MigrationSpec[Phase])
assert_type(migration.name, str)

all_given = create_migration(
    spec,
    journal=journal,
    clock=clock,
    journal_store=create_memory_journal_store(journal=journal, clock=clock),
    phase_store=create_memory_phase_store(initial="expand", clock=clock),
    initial_phase=None,
    evidence_timeout=timedelta(seconds=30),
    single_process=False,
    run_sync=None,
)
assert_type(all_given, Migration[Phase])
started_later: Migration[Phase] = create_migration(spec, journal=journal, initial_phase="dual_write")

only_mappings: MigrationSpec[Phase] = define_migration(
    name="m", phases={"expand": {"schema_ready": ready}, "dual_write": {}, "flip": {}, "contract": {}}
)
only_specs: MigrationSpec[Phase] = define_migration(
    name="m",
    phases={"expand": PhaseSpec({"a": ready}), "dual_write": PhaseSpec(), "flip": PhaseSpec(), "contract": PhaseSpec()},
)


async def at_once(phase: Phase) -> None:
    assert_type(await migration.current_phase(), Phase)
    assert_type(await migration.advance(), Result[Advanced[Phase], AdvanceError[Phase]])
    assert_type(await migration.advance(to="flip"), Result[Advanced[Phase], AdvanceError[Phase]])
    await migration.advance("flip")
    await migration.advance(to=phase)
    await migration.advance(to=None)
    readiness = await migration.readiness()
    assert_type(readiness, Readiness[Phase])
    assert_type(readiness.phase, Phase)
    assert_type(readiness.next_phase, Phase | None)
    assert_type(readiness.verdicts, Mapping[str, Ok[object] | EvidenceFailure | Exception])
    assert_type(readiness.ready_at, datetime | None)


async def exhaustive_match() -> int:
    phase = await migration.current_phase()
    match phase:
        case "expand" | "dual_write":
            return 1
        case "flip":
            return 2
        case "contract":
            return 3
        case _:
            assert_never(phase)


async def exhaustive_if() -> int:
    phase = await migration.current_phase()
    if phase == "expand" or phase == "dual_write":
        return 1
    elif phase == "flip":
        return 2
    elif phase == "contract":
        return 3
    else:
        assert_never(phase)


def in_a_function() -> MigrationSpec[Phase]:
    return define_migration(
        name="m", phases={"expand": {}, "dual_write": {"a": ready}, "flip": PhaseSpec(), "contract": {}}
    )


def of_any_phases(some: Migration, other: Migration[Phase]) -> tuple[str, str]:
    assert_type(some, Migration[str])
    return some.name, other.name


class App:
    """A spec as an attribute, a migration in an initializer."""

    spec: MigrationSpec[Phase] = define_migration(
        name="m", phases={"expand": {}, "dual_write": {}, "flip": {}, "contract": {}}
    )

    def __init__(self) -> None:
        self.migration = create_migration(self.spec, journal=journal)

    async def phase(self) -> Phase:
        return await self.migration.current_phase()


assert_type(phase_reached(migration, "flip"), SchemaAppliedEvidence[dict[str, str]])


# -- a StrEnum


class Step(StrEnum):
    EXPAND = "expand"
    FLIP = "flip"
    CONTRACT = "contract"


enum_spec = define_migration(
    name="by-enum",
    phases={Step.EXPAND: PhaseSpec(evidence={"schema_ready": ready}), Step.FLIP: {"signed": ready}, Step.CONTRACT: {}},
)
enum_migration = create_migration(enum_spec, journal=journal, initial_phase=Step.FLIP)
assert_type(enum_spec, MigrationSpec[Step])
assert_type(enum_migration, Migration[Step])
assert_type(phase_reached(enum_migration, Step.FLIP), SchemaAppliedEvidence[dict[str, str]])
create_memory_phase_store(initial=Step.EXPAND, clock=clock)


async def of_an_enum() -> int:
    assert_type(await enum_migration.advance(to=Step.FLIP), Result[Advanced[Step], AdvanceError[Step]])
    phase = await enum_migration.current_phase()
    assert_type(phase, Step)
    match phase:
        case Step.EXPAND:
            return 1
        case Step.FLIP:
            return 2
        case Step.CONTRACT:
            return 3
        case _:
            assert_never(phase)


# -- plain text

text_spec = define_migration(name="by-text", phases={"expand": {"schema_ready": ready}, "contract": {}})
text_migration = create_migration(text_spec, journal=journal, initial_phase="contract")
assert_type(text_spec, MigrationSpec[str])
assert_type(text_spec, MigrationSpec)
assert_type(text_migration, Migration[str])
only_phase_specs = define_migration(name="by-text", phases={"expand": PhaseSpec({"a": ready}), "contract": PhaseSpec()})
assert_type(only_phase_specs, MigrationSpec[str])
mixed = define_migration(name="by-text", phases={"expand": {"a": ready}, "contract": PhaseSpec()})
assert_type(mixed, MigrationSpec[str])


def generated(names: list[str], prepared: dict[str, PhaseSpec]) -> tuple[MigrationSpec, MigrationSpec[str]]:
    return (
        define_migration(name="m", phases={name: PhaseSpec() for name in names}),
        define_migration(name="m", phases=prepared),
    )


async def of_text() -> None:
    assert_type(await text_migration.current_phase(), str)
    assert_type(await text_migration.advance("anything"), Result[Advanced[str], AdvanceError[str]])
    assert_type(await text_migration.advance(), Result[Advanced, AdvanceError])
