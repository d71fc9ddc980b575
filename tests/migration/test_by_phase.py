"""One callable that reads the phase and hands over."""

from __future__ import annotations

import asyncio
import functools
import inspect
from enum import StrEnum
from typing import Any
from unittest.mock import MagicMock

import pytest

from phyxius.migration import SpecError
from tests.migration.support import PHASES, build, rounds, waiting


def plain(quote: int, *, note: str = "") -> str:
    """Write the old way."""
    return f"plain {quote} {note}"


async def slow(quote: int, *, note: str = "") -> str:
    """Write both ways."""
    await rounds()
    return f"async {quote} {note}"


async def test_it_reads_the_phase_at_each_call() -> None:
    """The very next call after a flip runs under the new phase; plain and async functions mix."""
    lab = build()
    route: Any = lab.migration.by_phase({"expand": plain, "flip": slow, "contract": lambda quote, note: (quote, note)})
    assert await route(1, note="a") == "plain 1 a"
    await lab.advance()
    assert await route(2, note="b") == "async 2 b"
    await lab.advance()
    assert await route(3, note="c") == (3, "c")
    assert inspect.iscoroutinefunction(route)
    assert route.__name__ == "plain"
    assert route.__doc__ == "Write the old way."


async def test_a_call_keeps_its_phase() -> None:
    """A call that has read the phase runs under it to its end, though the phase flips meanwhile."""
    lab = build()
    route = lab.migration.by_phase(dict.fromkeys(PHASES, plain) | {"expand": slow})
    task = asyncio.ensure_future(route(1))
    await rounds(2)
    await lab.advance()
    assert await task == "async 1 "
    assert await route(1) == "plain 1 "


@pytest.mark.parametrize("handler", [functools.partial(plain, note="p"), MagicMock(return_value="plain 1 p")])
async def test_callables_without_a_name(handler: Any) -> None:
    """What can be called will do."""
    assert await build().migration.by_phase(dict.fromkeys(PHASES, handler))(1) == "plain 1 p"


@pytest.mark.parametrize("error", [KeyError("mine"), TypeError("mine"), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_handler_raises(error: BaseException, is_async: bool) -> None:
    """What a function raises goes through."""

    def fail() -> Any:
        raise error

    async def fail_later() -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        await build().migration.by_phase(dict.fromkeys(PHASES, fail_later if is_async else fail))()
    assert caught.value is error


@pytest.mark.parametrize(
    "handlers, parts",
    [
        ({"expand": plain}, ("lacks ['flip', 'contract']",)),
        ({}, ("lacks ['expand', 'flip', 'contract']",)),
        (dict.fromkeys((*PHASES, "drop"), plain), ("has ['drop']", "does not know")),
        ({"expand": plain, "flip": plain, "Contract": plain}, ("lacks ['contract']", "has ['Contract']")),
        (dict.fromkeys((*PHASES, None), plain), ("has ['None']",)),
    ],
)
def test_it_must_be_complete(handlers: Any, parts: tuple[str, ...]) -> None:
    """A phase that is missing, or one too many, is found when the callable is made, and named."""
    with pytest.raises(SpecError) as caught:
        build().migration.by_phase(handlers)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert caught.value.migration == "quotes"


@pytest.mark.parametrize("handler", [None, "write", 7])
def test_what_cannot_be_called(handler: Any) -> None:
    """A value that is no function is found when the callable is made, with its phase."""
    with pytest.raises(SpecError, match="needs a function") as caught:
        build().migration.by_phase(dict.fromkeys(PHASES, plain) | {"flip": handler})
    assert (caught.value.migration, caught.value.phase) == ("quotes", "flip")


async def test_later_changes_do_not_reach_it() -> None:
    """The mapping is copied."""
    handlers: dict[Any, Any] = dict.fromkeys(PHASES, plain)
    route = build().migration.by_phase(handlers)
    handlers.clear()
    assert await route(1) == "plain 1 "


class Stage(StrEnum):
    OLD = "old"
    NEW = "new"


@pytest.mark.parametrize("keys", [tuple(Stage), ("old", "new")])
async def test_members_and_texts(keys: Any) -> None:
    """Members of a `StrEnum` and their texts name the same phases."""
    lab = build(phases=tuple(Stage))
    route = lab.migration.by_phase({keys[0]: lambda: 1, keys[1]: lambda: 2})
    assert await route() == 1
    await lab.advance()
    assert await route() == 2


async def test_a_slow_store() -> None:
    """The phase is awaited, not guessed."""
    lab = build(store={"current": waiting(rounds)})
    assert await lab.migration.by_phase(dict.fromkeys(PHASES, plain))(1) == "plain 1 "
