"""Sides of a call, for the tests of what runs two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Side = Callable[[], object]
Caller = Callable[..., Awaitable[Any]]


def answers(value: object) -> Side:
    return lambda: value


def raises(error: BaseException) -> Side:
    def fail() -> object:
        raise error

    return fail


def as_async(side: Side) -> Callable[[], Awaitable[object]]:
    async def call() -> object:
        await asyncio.sleep(0)
        return side()

    return call
