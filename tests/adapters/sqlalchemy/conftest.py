"""Servers alone: what is said here holds for no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.places import SERVERS, ServerPlace, place_of


@pytest.fixture(params=SERVERS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> ServerPlace:
    """A database on a server."""
    async with place_of(request.param, tmp_path) as found:
        return found
