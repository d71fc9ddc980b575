"""Six processes that do the same thing at the same moment: one of them does it, and none fails."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

from tests.stores.processes import PHASES, Child
from tests.stores.test_kills import where

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("rounds", [pytest.param(3, id="fast"), pytest.param(100, id="all", marks=pytest.mark.prove)])
async def test_each_race_has_one_winner(place: Any, rounds: int) -> None:
    """Of the file, its first row and each transition: all see the same phase, and exactly one moved it."""
    with Child("races", where(place), rounds) as child:
        said = Counter(child.rest())
    expected: Counter[str] = Counter({"ended 0": 6})
    for each in range(rounds):
        expected[f"began {each} {PHASES[0]}"] = 6
        for step, phase in enumerate(PHASES[1:]):
            expected |= {f"won {each} {step} {phase}": 1, f"lost {each} {step} {phase}": 5}
    assert said == expected
