"""What most tests of the adapters begin with."""

from __future__ import annotations

from typing import Any

import pytest

from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.journal import Journal


@pytest.fixture
def clock() -> ControlledClock:
    return create_controlled_clock()


@pytest.fixture
def journal(clock: ControlledClock) -> Journal[Any]:
    return Journal(clock=clock)
