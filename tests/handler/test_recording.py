"""A signal may come at any moment, and its handler may raise: a call that has run is never as if it had not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import phyxius
from phyxius.clock import create_controlled_clock
from phyxius.handler import recorded
from phyxius.journal import Journal

NAME = "quote.read"
OURS = str(Path(phyxius.__file__).parent)


class LimitError(Exception):
    """A time limit, as of a worker that gives its tasks so long."""


class Interrupt:
    """Raises before the instruction of ours of that number, counted from when it is armed: what a signal may do."""

    def __init__(self, at: int, kind: type[BaseException]) -> None:
        self.left = at
        self._kind = kind
        self.is_armed = False

    def __enter__(self) -> Interrupt:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and self.is_armed:
            self.left -= 1
            if self.left < 0:
                self.is_armed = False
                raise self._kind
        return self._trace


def call_plain(journal: Journal[Any], body: Callable[[], None]) -> None:
    recorded(journal, NAME)(body)()


def call_async(journal: Journal[Any], body: Callable[[], None]) -> None:
    @recorded(journal, NAME)
    async def read() -> None:
        body()

    with suppress(StopIteration):
        read().send(None)


def call_awaitable(journal: Journal[Any], body: Callable[[], None]) -> None:
    async def work() -> None:
        body()

    @recorded(journal, NAME)
    def read() -> Awaitable[None]:
        return work()

    with suppress(StopIteration):
        read().__await__().send(None)


def call_block(journal: Journal[Any], body: Callable[[], None]) -> None:
    with recorded(journal, NAME):
        body()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may come in a finalizer, too
@pytest.mark.parametrize("kind", [KeyboardInterrupt, LimitError])
@pytest.mark.parametrize("call", [call_plain, call_async, call_awaitable, call_block])
def test_a_signal_after_the_call(
    call: Callable[[Journal[Any], Callable[[], None]], None],
    kind: type[BaseException],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wherever it comes, there is an event, a call in flight, or a loss."""
    caplog.set_level(logging.CRITICAL, "phyxius")
    with Interrupt(0, kind):  # unarmed: 3.12 tells of the instructions of a function from its second call on
        call(Journal[Any](clock=create_controlled_clock()), lambda: None)
    ran = at = 0
    silent: list[int] = []
    while ran == at:
        journal = Journal[Any](clock=create_controlled_clock())
        began = journal.complete_since
        interrupt = Interrupt(at, kind)

        def body(interrupt: Interrupt = interrupt) -> None:
            interrupt.is_armed = True

        with interrupt, suppress(kind):
            call(journal, body)
        if not len(journal) and not journal.in_flight and journal.complete_since == began:
            silent.append(at)
        ran += interrupt.left < 0
        at += 1
    assert at > 100, "that many instructions there are"
    assert silent == []
