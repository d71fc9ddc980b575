"""Every phase store holds to the same rules."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters._stores import SqlStores
from phyxius.clock import create_controlled_clock
from phyxius.migration import MigrationSpec, PhaseStore, create_memory_phase_store, define_migration
from phyxius.testing import CONFORMANCE_PHASES, phase_store_checks
from tests.places import FILE, OTHERS, SERVERS, Place, place_of

MakeStore = Callable[[], Awaitable[PhaseStore]]
SPEC: MigrationSpec[Any] = define_migration(name="conformance", phases={phase: {} for phase in CONFORMANCE_PHASES})


async def make_memory_store() -> PhaseStore:
    return create_memory_phase_store(initial=CONFORMANCE_PHASES[0], clock=create_controlled_clock())


class MakeStores:
    """Makes phase stores, each where nothing was before, and opens them again."""

    def __init__(self, kind: str, directory: Path, stack: AsyncExitStack) -> None:
        self._kind = kind
        self._directories = (directory / str(number) for number in itertools.count())
        self._stack = stack
        self._opened: dict[int, tuple[Place, SqlStores]] = {}

    async def __call__(self) -> PhaseStore:
        directory = next(self._directories)
        directory.mkdir()
        async with place_of(self._kind, directory) as place:
            return await self._open(place)

    async def reopen(self, store: PhaseStore) -> PhaseStore:
        place, stores = self._opened.pop(id(store))
        await stores.__aexit__(None, None, None)
        return await self._open(place)

    async def _open(self, place: Place) -> PhaseStore:
        stores = await self._stack.enter_async_context(place.stores(create_controlled_clock()))
        store = stores.phase_store(SPEC)
        self._opened[id(store)] = place, stores
        return store


@pytest.fixture(params=["memory", FILE, *SERVERS, *OTHERS])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield make_memory_store
        else:
            yield MakeStores(request.param, tmp_path, stack)


@pytest.mark.parametrize("check", phase_store_checks, ids=lambda check: check.__name__)
async def test_phase_store(check: Callable[[MakeStore], Awaitable[None]], make_store: MakeStore) -> None:
    """The store passes the check."""
    await check(make_store)
