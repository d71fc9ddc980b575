"""Every phase store holds to the same rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.migration import PhaseStore, create_memory_phase_store
from phyxius.testing import CONFORMANCE_PHASES, phase_store_checks

MakeStore = Callable[[], Awaitable[PhaseStore]]


async def make_memory_store() -> PhaseStore:
    return create_memory_phase_store(initial=CONFORMANCE_PHASES[0], clock=create_controlled_clock())


@pytest.mark.parametrize("make_store", [pytest.param(make_memory_store, id="memory")])
@pytest.mark.parametrize("check", phase_store_checks, ids=lambda check: check.__name__)
async def test_phase_store(check: Callable[[MakeStore], Awaitable[None]], make_store: MakeStore) -> None:
    """The store passes the check."""
    await check(make_store)
