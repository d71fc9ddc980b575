"""Plain checks without threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_place(function: Callable[[], T], /) -> T:
    """Run a plain check on the event loop, for `create_migration(run_sync=run_in_place)`.

    A test then runs in one thread, and in the same order each time. Not for production: a check that blocks would
    block the loop.
    """
    return function()
