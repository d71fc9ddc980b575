"""Evidence that another migration has come far enough."""

from __future__ import annotations

from typing import Any

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok
from phyxius.journal import Journal
from phyxius.migration import (
    Migration,
    SchemaAppliedEvidence,
    SpecError,
    UnknownPhaseError,
    create_memory_phase_store,
    create_migration,
    define_migration,
    phase_reached,
)


def billing(initial: str) -> Migration[str]:
    clock = create_controlled_clock()
    spec = define_migration(name="billing", phases={"expand": {}, "flip": {}, "contract": {}})
    store = create_memory_phase_store(initial=initial, clock=clock)
    return create_migration(spec, journal=Journal(clock=clock), phase_store=store)


async def ask(source: SchemaAppliedEvidence[Any]) -> Any:
    return await source.check()


@pytest.mark.parametrize("current,reached", [("expand", False), ("flip", True), ("contract", True)])
async def test_at_the_phase_or_past_it(current: str, reached: bool) -> None:
    """It is Ok at the phase and at all later ones, and before it names the migration and the step to take."""
    answer = await ask(phase_reached(billing(current), "flip"))
    learned = {"migration": "billing", "phase": current}
    if reached:
        assert answer == Ok(learned)
    else:
        assert type(answer) is Err
        assert answer.error.details == learned
        assert 'migration "billing" is at "expand"; advance it to "flip" first' in answer.error.reason


async def test_it_is_read_anew_each_time() -> None:
    """The answer follows the other migration, since nothing is kept."""
    other = billing("expand")
    source = phase_reached(other, "flip")
    assert type(await ask(source)) is Err
    await other.advance()
    assert type(await ask(source)) is Ok


async def test_an_unknown_phase_is_not_guessed() -> None:
    """If the other store answers with a phase that the other spec lacks, the check raises."""
    with pytest.raises(UnknownPhaseError):
        await ask(phase_reached(billing("gone"), "flip"))


def test_the_other_migration_must_have_the_phase() -> None:
    """A misspelt phase is misuse: the error names the other migration and its phases."""
    with pytest.raises(SpecError, match=r"one of \['expand', 'flip', 'contract'\], not \"flop\"") as caught:
        phase_reached(billing("expand"), "flop")
    assert caught.value.migration == "billing"
