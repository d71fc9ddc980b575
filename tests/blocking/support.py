"""Interrupts that come at a moment of our choice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from phyxius.blocking._background import _background


class Interrupted:
    """The answer of something for which somebody waits who is interrupted."""

    def add_done_callback(self, _: object) -> Any:
        raise KeyboardInterrupt

    def done(self) -> bool:
        return False


@contextmanager
def interrupting(moment: threading.Event) -> Iterator[None]:
    """Whoever waits for the next thing that runs in the background is interrupted at a moment, as by Ctrl-C."""
    start, started = _background.start, list[Any]()

    def interrupted(work: Any) -> Any:
        started.append(start(work))
        if len(started) > 1:
            return started[-1]
        assert moment.wait(30)
        return Interrupted()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_background, "start", interrupted)
        yield
