"""Every phase store holds to the same rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters.sqlite import FileStores, open_file_stores
from phyxius.clock import create_controlled_clock
from phyxius.migration import MigrationSpec, PhaseStore, create_memory_phase_store, define_migration
from phyxius.testing import CONFORMANCE_PHASES, phase_store_checks

MakeStore = Callable[[], Awaitable[PhaseStore]]
SPEC: MigrationSpec[Any] = define_migration(name="conformance", phases={phase: {} for phase in CONFORMANCE_PHASES})


async def make_memory_store() -> PhaseStore:
    return create_memory_phase_store(initial=CONFORMANCE_PHASES[0], clock=create_controlled_clock())


class MakeFileStore:
    """Makes phase stores, each in a file of its own, and opens them again."""

    def __init__(self, paths: Iterator[Path], stack: AsyncExitStack) -> None:
        self._paths = paths
        self._stack = stack
        self._opened: dict[int, FileStores] = {}

    async def __call__(self) -> PhaseStore:
        return await self._open(next(self._paths))

    async def reopen(self, store: PhaseStore) -> PhaseStore:
        stores = self._opened.pop(id(store))
        await stores.__aexit__(None, None, None)
        return await self._open(Path(stores.path))

    async def _open(self, path: Path) -> PhaseStore:
        stores = await self._stack.enter_async_context(open_file_stores(path, clock=create_controlled_clock()))
        store = stores.phase_store(SPEC)
        self._opened[id(store)] = stores
        return store


@pytest.fixture(params=["memory", "file"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    async with AsyncExitStack() as stack:
        paths = (tmp_path / f"{number}.db" for number in range(100))
        yield make_memory_store if request.param == "memory" else MakeFileStore(paths, stack)


@pytest.mark.parametrize("check", phase_store_checks, ids=lambda check: check.__name__)
async def test_phase_store(check: Callable[[MakeStore], Awaitable[None]], make_store: MakeStore) -> None:
    """The store passes the check."""
    await check(make_store)
