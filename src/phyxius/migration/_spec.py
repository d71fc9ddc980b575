"""The migration as a value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic

import attrs
from typing_extensions import TypeVar

from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import SOURCE_TYPES, AnySource, JournalWindowEvidence
from phyxius.migration._ran_under import RanUnder

P = TypeVar("P", bound=str, default=str)


def _frozen_copy(mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if not isinstance(mapping, Mapping):
        raise SpecError(f"a mapping is wanted, not {mapping!r}")
    return MappingProxyType(dict(mapping))


def _frozen_evidence(evidence: Mapping[str, AnySource]) -> Mapping[str, AnySource]:
    return _frozen_copy(evidence)


@attrs.frozen
class PhaseSpec:
    """One phase: the named evidence sources that must all be `Ok` to enter it; none lets it be entered freely."""

    evidence: Mapping[str, AnySource] = attrs.field(factory=dict, converter=_frozen_evidence)


@attrs.frozen
class MigrationSpec(Generic[P]):
    """A named, ordered sequence of phases; made by `define_migration`.

    Attributes:
        name: The migration's name: its audit events are called `migration.<name>.advance`.
        phases: The phases, in order.
    """

    name: str
    phases: Mapping[P, PhaseSpec] = attrs.field(converter=_frozen_copy)

    def __attrs_post_init__(self) -> None:
        """Refuse a migration that cannot be right."""
        if not isinstance(self.name, str) or not self.name:
            raise SpecError(f"a migration needs a name, not {self.name!r}")
        for phase, phase_spec in self.phases.items():
            if not isinstance(phase, str) or not phase:
                raise SpecError(f"a phase's name must be a text that is not empty, not {phase!r}", self.name)
            if not isinstance(phase_spec, PhaseSpec):
                raise SpecError(
                    f"a phase takes PhaseSpec(evidence={{...}}) or a mapping of sources, not {phase_spec!r}",
                    self.name,
                    phase,
                )
            for source_name, source in phase_spec.evidence.items():
                self._check_source(phase, source_name, source)
        if len(self.phases) < 2:
            raise SpecError(f"a migration needs at least two phases, not {len(self.phases)}", self.name)
        first, second = self.order[:2]
        for shared in self.phases[first].evidence.keys() & self.phases[second].evidence.keys():
            raise SpecError(
                f'the evidence of the first phase, "{first}", runs beside this one and has a source of the same '
                "name; rename one of them",
                self.name,
                second,
                shared,
            )

    def _check_source(self, phase: str, name: object, source: object) -> None:
        if not isinstance(name, str) or not name:
            raise SpecError(f"a source's name must be a text that is not empty, not {name!r}", self.name, phase)
        if type(source) not in SOURCE_TYPES:
            raise SpecError(
                f"{source!r} is no evidence source; use journal_window(), schema_applied() or attestation()",
                self.name,
                phase,
                name,
            )
        where = source.query.where if isinstance(source, JournalWindowEvidence) else None
        if isinstance(where, RanUnder) and not where.is_other and (problem := where.problem(self.phases)):
            raise SpecError(f"{problem}; of= says that they are those of another migration", self.name, phase, name)

    @property
    def order(self) -> tuple[P, ...]:
        """The phases, in order."""
        return tuple(self.phases)


def define_migration(*, name: str, phases: Mapping[P, PhaseSpec | Mapping[str, AnySource]]) -> MigrationSpec[P]:
    """Define a migration.

    The evidence of a phase gates the way into it. Nothing gates the way into the first phase, so its evidence
    runs when that phase is left, beside that of the second.

    Args:
        name: Names the migration in stores and in the audit.
        phases: The phases in order, each with its evidence: a `PhaseSpec`, or just the mapping of its sources.

    Raises:
        SpecError: Fewer than two phases, an empty name, a source outside the union, ...; it names the place.
    """
    if not isinstance(phases, Mapping):
        raise SpecError(f"phases must be a mapping from phase to evidence, not {phases!r}", name)
    specs = {phase: PhaseSpec(each) if isinstance(each, Mapping) else each for phase, each in phases.items()}
    return MigrationSpec(name, specs)
