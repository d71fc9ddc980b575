"""What most tests of the command begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import KINDS, Quotes, Shop, quotes


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    """An application."""
    return Shop(monkeypatch, tmp_path)


@pytest.fixture(params=KINDS)
def quotes_in(request: pytest.FixtureRequest, tmp_path: Path, shop: Shop) -> Iterator[Quotes]:
    """The migration, in a file and on a server, as the application has it."""
    with quotes(request.param, tmp_path) as found:
        shop.has(found.app)
        yield found
