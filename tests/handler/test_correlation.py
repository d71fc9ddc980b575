"""Correlation ids: what belongs to one request says so."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.handler import correlated, current_correlation_id, recorded, shadow
from phyxius.journal import Journal


@pytest.fixture
def journal() -> Journal[Any]:
    return Journal(clock=create_controlled_clock())


def ids(journal: Journal[Any]) -> list[str | None]:
    return [entry.data.correlation_id for entry in journal]


def call(journal: Journal[Any]) -> None:
    with recorded(journal, "quote.read"):
        pass


def test_what_is_recorded_inside_has_the_id(journal: Journal[Any]) -> None:
    """The innermost counts, and outside there is none."""
    call(journal)
    with correlated("request-1") as outer:
        assert outer == current_correlation_id() == "request-1"
        call(journal)
        with correlated("job-1"):
            call(journal)
        call(journal)
    assert current_correlation_id() is None
    call(journal)
    assert ids(journal) == [None, "request-1", "job-1", "request-1", None]


def test_a_call_in_flight_has_the_id_of_its_begin(journal: Journal[Any]) -> None:
    """Whatever is begun or left while it runs."""
    with correlated("request-1"):
        recording = recorded(journal, "quote.read")
        recording.__enter__()
    with correlated("request-2"):
        assert [call.correlation_id for call in journal.in_flight] == ["request-1"]  # type: ignore[attr-defined]
        recording.__exit__(None, None, None)  # as if the two overlapped
    assert ids(journal) == ["request-1"]


def test_it_is_left_when_the_body_raises() -> None:
    """A request that fails does not give its id to the next."""
    with pytest.raises(KeyError), correlated("request-1"):
        raise KeyError
    assert current_correlation_id() is None


@pytest.mark.parametrize("given", [None, ""])
def test_without_an_id_a_new_one_is_made(given: str | None) -> None:
    """Each time another one."""
    with correlated(given) as first, correlated(given) as second:
        assert len({first, second}) == 2
        assert min(len(first), len(second)) >= 32


def test_whatever_comes_in_a_header_will_do() -> None:
    """An object is written as text, and a long one is cut: a caller may send what he likes."""
    with correlated("x" * 10_000) as cut, correlated(17) as number:
        assert (cut, number) == ("x" * 200, "17")


async def test_requests_at_once_do_not_mix(journal: Journal[Any]) -> None:
    """Each task has its own, and tasks that it starts have it too."""
    gate = asyncio.Event()

    async def request(number: int) -> None:
        with correlated(f"request-{number}"):
            await gate.wait()
            await asyncio.create_task(asyncio.to_thread(call, journal))

    tasks = [asyncio.create_task(request(number)) for number in range(5)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert sorted(map(str, ids(journal))) == [f"request-{number}" for number in range(5)]


def test_threads_do_not_mix(journal: Journal[Any]) -> None:
    """A thread that does not copy the context has none."""
    with correlated("request-1"):
        thread = threading.Thread(target=call, args=(journal,))
        thread.start()
        thread.join()
    assert ids(journal) == [None]


def test_a_generator_may_hold_it_across_contexts() -> None:
    """As a web framework's dependency does, which is begun in one copy of the context and ended in another."""

    def dependency() -> Iterator[str]:
        with correlated("request-1") as correlation_id:
            yield correlation_id

    running = dependency()
    assert contextvars.copy_context().run(next, running) == "request-1"
    assert contextvars.copy_context().run(next, running, None) is None


async def test_a_comparison_belongs_to_its_request(journal: Journal[Any]) -> None:
    """The attempt of a shadow has the id of the call that it goes with."""
    compared = asyncio.Event()
    journal.subscribe(lambda entry: compared.set())

    async def read() -> int:
        return 1

    with correlated("request-1"):
        await shadow(journal, "parity", old=read, new=read)()
    await compared.wait()
    assert ids(journal) == ["request-1"]
