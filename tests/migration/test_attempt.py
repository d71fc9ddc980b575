"""Which call a check runs for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import Ok, ok
from phyxius.journal import Journal
from phyxius.migration import (
    Attempt,
    attestation,
    create_migration,
    current_attempt,
    define_migration,
    journal_window,
)
from phyxius.migration._attempt import running_attempt

SECOND = timedelta(seconds=1)


def test_there_is_none_outside() -> None:
    """Called from anywhere else it raises a LookupError that says where it answers."""
    with pytest.raises(LookupError, match="inside a check or a predicate"):
        current_attempt()


def test_the_innermost_counts() -> None:
    """It answers with what was set in this context."""
    attempt = Attempt("quotes", "expand", "flip", "signed", "f00")
    token = running_attempt.set(attempt)
    assert current_attempt() is attempt
    running_attempt.reset(token)


async def test_every_kind_of_source_has_one() -> None:
    """An async check, a plain one and a predicate each learn their own source, and the id of the same call."""
    seen: list[Attempt] = []

    def look(*_: object) -> Ok[None]:
        seen.append(current_attempt())
        return ok()

    async def look_async() -> Ok[None]:
        return look()

    clock = create_controlled_clock()
    spec = define_migration(
        name="quotes",
        phases={
            "expand": {},
            "flip": {
                "plain": attestation(look),
                "async": attestation(look_async),
                "window": journal_window("quote.read", SECOND, look, witness=False),
            },
        },
    )
    journal = Journal(clock=clock)
    clock.advance_by(SECOND)
    assert type(await create_migration(spec, journal=journal).advance()) is Ok
    assert {each.source for each in seen} == {"plain", "async", "window"}
    assert {(each.migration, each.from_phase, each.to_phase) for each in seen} == {("quotes", "expand", "flip")}
    assert len({each.id for each in seen}) == 1
    with pytest.raises(LookupError):
        current_attempt()
