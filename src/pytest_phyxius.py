"""The pytest plugin of phyxius-migration: fixtures for tests of migrations.

It is loaded by every run of pytest wherever the library is installed, so it stands outside the package, and imports
it only once a fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from phyxius.clock import ControlledClock
    from phyxius.handler import HandlerEvent
    from phyxius.journal import Journal


@pytest.fixture
def phyxius_clock() -> ControlledClock:
    """A controlled clock, which stands still until the test moves it."""
    from phyxius.clock import create_controlled_clock

    return create_controlled_clock()


@pytest.fixture
def phyxius_journal(phyxius_clock: ControlledClock) -> Journal[HandlerEvent]:
    """A journal on `phyxius_clock` that has been complete for thirty days."""
    from phyxius.testing import aged_journal

    return aged_journal(clock=phyxius_clock)
