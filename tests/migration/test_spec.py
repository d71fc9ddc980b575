"""The migration as a value, and every way to define it wrongly."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any
from unittest.mock import MagicMock

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    MigrationSpec,
    PhaseSpec,
    SchemaAppliedEvidence,
    SpecError,
    create_memory_journal_store,
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from tests.ids import shown

SOURCE = schema_applied(ok)
WINDOW = journal_window("quote.read", timedelta(days=1), no_events())


class Phase(StrEnum):
    EXPAND = "expand"
    FLIP = "flip"


class Imitation(SchemaAppliedEvidence[Any]):
    """No member of the union, although it looks like one."""


def test_a_phase_is_a_phase_spec_or_a_mapping() -> None:
    """Both ways of writing it come to the same, in the order of the mapping."""
    phases: Any = {"expand": {}, "flip": {"schema": SOURCE}, "contract": PhaseSpec(evidence={"quiet": WINDOW})}
    spec = define_migration(name="quotes", phases=phases)
    assert (spec.name, spec.order) == ("quotes", ("expand", "flip", "contract"))
    assert [dict(phase.evidence) for phase in spec.phases.values()] == [{}, {"schema": SOURCE}, {"quiet": WINDOW}]


def test_it_is_a_frozen_copy() -> None:
    """Changes to what was passed in do not reach it, and it cannot be changed itself."""
    sources: dict[str, Any] = {"schema": SOURCE}
    phases: dict[str, Any] = {"expand": {}, "flip": sources}
    spec = define_migration(name="quotes", phases=phases)
    sources.clear()
    phases["contract"] = {}
    assert list(spec.phases) == ["expand", "flip"]
    assert "schema" in spec.phases["flip"].evidence
    with pytest.raises(TypeError):
        spec.phases["flip"].evidence["more"] = SOURCE  # type: ignore[index]


def test_enum_phases_stay_what_they_are() -> None:
    """The members of a StrEnum are its phases."""
    spec = define_migration(name="quotes", phases={Phase.EXPAND: {}, Phase.FLIP: {"schema": SOURCE}})
    assert spec.order == (Phase.EXPAND, Phase.FLIP)
    assert all(type(phase) is Phase for phase in spec.order)


BAD: list[tuple[str, dict[str, Any], str, tuple[str | None, str | None, str | None]]] = [
    ("no name", {"name": ""}, "needs a name", (None, None, None)),
    ("a name that is no text", {"name": 7}, "needs a name", (None, None, None)),
    ("one phase", {"phases": {"expand": {}}}, "at least two phases, not 1", ("quotes", None, None)),
    ("no phase", {"phases": {}}, "at least two phases, not 0", ("quotes", None, None)),
    ("phases in a list", {"phases": ["a", "b"]}, "a mapping from phase to evidence", ("quotes", None, None)),
    ("a phase without a name", {"phases": {"": {}, "b": {}}}, "a phase's name must be", ("quotes", None, None)),
    ("a phase that is no text", {"phases": {1: {}, "b": {}}}, "a phase's name must be", ("quotes", None, None)),
    ("a list of sources", {"phases": {"a": {}, "b": [SOURCE]}}, r"PhaseSpec.evidence=.*mapping", ("quotes", "b", None)),
    ("no evidence at all", {"phases": {"a": {}, "b": None}}, "PhaseSpec", ("quotes", "b", None)),
    ("a source without a name", {"phases": {"a": {}, "b": {"": SOURCE}}}, "a source's name", ("quotes", "b", None)),
    ("a name that is a number", {"phases": {"a": {}, "b": {1: SOURCE}}}, "a source's name", ("quotes", "b", None)),
    *(
        (
            f"{shown(source)} as a source",
            {"phases": {"a": {}, "b": {"s": source}}},
            "use journal_window",
            ("quotes", "b", "s"),
        )
        for source in (None, ok, True, ok(), Imitation(ok), MagicMock(spec=SchemaAppliedEvidence), schema_applied())
    ),
    ("a source of the first phase", {"phases": {"a": {"s": ok}, "b": {}}}, "use journal_window", ("quotes", "a", "s")),
    (
        "a name that the first two phases share",
        {"phases": {"a": {"s": SOURCE}, "b": {"s": SOURCE}, "c": {"s": SOURCE}}},
        'the first phase, "a".*rename',
        ("quotes", "b", "s"),
    ),
]


@pytest.mark.parametrize("change,says,place", [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_misuse_is_refused_where_it_is_defined(
    change: dict[str, Any], says: str, place: tuple[str | None, str | None, str | None]
) -> None:
    """Each mistake is a SpecError that names migration, phase and source, and says what to write."""
    good: dict[str, Any] = {"name": "quotes", "phases": {"a": {}, "b": {}}}
    with pytest.raises(SpecError, match=says) as caught:
        define_migration(**{**good, **change})
    assert (caught.value.migration, caught.value.phase, caught.value.source) == place


def test_later_phases_may_share_the_names_of_sources() -> None:
    """Only the evidence of the first two phases runs side by side."""
    phases: dict[str, Any] = {"a": {"s": SOURCE}, "b": {}, "c": {"s": SOURCE}, "d": {"s": SOURCE}}
    assert define_migration(name="quotes", phases=phases).order == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "make",
    [
        lambda: PhaseSpec(evidence=[SOURCE]),  # type: ignore[arg-type]
        lambda: MigrationSpec("quotes", ["a", "b"]),  # type: ignore[arg-type]
        lambda: MigrationSpec("quotes", {"a": {}, "b": {}}),  # type: ignore[dict-item]
    ],
)
def test_the_classes_guard_themselves(make: Any) -> None:
    """Made without the factory, a spec refuses the same misuse."""
    with pytest.raises(SpecError, match="mapping"):
        make()


class FleetStore:
    """A phase store without a scope counts as one of a fleet."""

    async def current(self) -> str:
        return "a"

    async def try_advance(self, *_: object) -> None: ...


clock, other_clock = create_controlled_clock(), create_controlled_clock()
journal: Journal[Any] = Journal(clock=clock)


@pytest.mark.parametrize(
    "parts,says,place",
    [
        ({"initial_phase": "z"}, "initial_phase must be one of", (None, None)),
        ({"clock": other_clock}, "one clock", (None, None)),
        ({"journal_store": create_memory_journal_store(journal=Journal(clock=other_clock))}, "one clock", (None, None)),
        ({"phase_store": create_memory_phase_store(initial="a", clock=other_clock)}, "one clock", (None, None)),
        ({"phase_store": FleetStore()}, "single_process=True", ("b", "quiet")),
        (
            {"phase_store": create_memory_phase_store(initial="a", clock=clock), "initial_phase": "b"},
            "give the initial phase to the store",
            (None, None),
        ),
        ({"evidence_timeout": timedelta(0)}, "must be a positive timedelta", (None, None)),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    parts: dict[str, Any], says: str, place: tuple[str | None, str | None]
) -> None:
    """Two clocks, an initial phase that is unknown or told twice, a fleet's phase with one process's journal."""
    spec = define_migration(name="quotes", phases={"a": {}, "b": {"quiet": WINDOW}})
    with pytest.raises(SpecError, match=says) as caught:
        create_migration(spec, journal=journal, **parts)
    assert (caught.value.phase, caught.value.source) == place


def test_two_clocks_in_a_journal_store_are_refused() -> None:
    """The memory store takes the journal's clock and no other."""
    with pytest.raises(SpecError, match="one clock"):
        create_memory_journal_store(journal=journal, clock=other_clock)
    assert create_memory_journal_store(journal=journal, clock=clock).clock is clock
