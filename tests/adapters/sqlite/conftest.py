"""What each test of the stores of a file begins with."""

from __future__ import annotations

import threading

import pytest

from tests.adapters.sqlite import support


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ran before, a test tells the threads of its own stores from others."""
    monkeypatch.setattr(support, "before", frozenset(threading.enumerate()))
