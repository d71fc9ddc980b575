"""Evidence that another migration has come far enough."""

from __future__ import annotations

from typing_extensions import TypeVar

from phyxius.fp import err, ok
from phyxius.migration._errors import SpecError
from phyxius.migration._evidence import SchemaAppliedEvidence, schema_applied
from phyxius.migration._failure import Evidence, EvidenceFailure
from phyxius.migration._migration import Migration

P = TypeVar("P", bound=str, default=str)


def phase_reached(other_migration: Migration[P], phase: P) -> SchemaAppliedEvidence[dict[str, str]]:
    """Evidence that another migration is at `phase`, or past it.

    Raises:
        SpecError: The other migration has no such phase.
    """
    order = other_migration.spec.order
    if phase not in order:
        raise SpecError(
            f'the phase must be one of {[str(each) for each in order]}, not "{phase}"', other_migration.name
        )

    async def check() -> Evidence[dict[str, str]]:
        current = await other_migration.current_phase()
        learned = {"migration": other_migration.name, "phase": str(current)}
        if order.index(current) >= order.index(phase):
            return ok(learned)
        return err(
            EvidenceFailure(
                f'migration "{other_migration.name}" is at "{current}"; advance it to "{phase}" first',
                learned,
            )
        )

    check.__doc__ = f'migration "{other_migration.name}" is at "{phase}", or past it'
    return schema_applied(check)
