"""The shop as its clients see it: a process that is asked and answers, or is gone."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from phyxius.cli._exits import CommandError

_PATIENCE = 60.0


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Have interrupts wait, as one in the middle would leave a process that nobody knows of."""
    held: list[int] = []
    handlers = {
        each: signal.signal(each, lambda number, _: held.append(number)) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for number in held:
            signal.raise_signal(number)


class Process:
    """The process of the shop, and the pipes to it."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._lines: queue.Queue[str] = queue.Queue()
        with contextlib.ExitStack() as stack:
            with _undisturbed():
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", f"{__package__}._worker", name],
                    cwd=directory,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    encoding="utf-8",
                    start_new_session=True,  # a Ctrl-C is for the demonstration, which ends this one, too
                )
                stack.callback(self.discard)
                threading.Thread(target=self._read, name=f"reads {name}", daemon=True).start()
            self.receive()
            stack.pop_all()

    @property
    def pid(self) -> int:
        """What the system knows it by."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it is there."""
        return self._process.poll() is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def send(self, **message: object) -> None:
        """Ask it something.

        Raises:
            CommandError: It is gone.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CommandError(f"{self.name} is gone, with {self._process.wait()}") from None

    def receive(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            CommandError: It ended, or says nothing for a minute.
        """
        try:
            line = self._lines.get(timeout=_PATIENCE)
        except queue.Empty:
            raise CommandError(f"{self.name} says nothing for {_PATIENCE:.0f} seconds") from None
        if not line:
            raise CommandError(f"{self.name} ended by itself, with {self._process.wait()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def kill(self, hear: Callable[[dict[str, Any]], object]) -> None:
        """Kill it with SIGKILL, which no program can see coming, and hear what it had said before that."""
        self.discard()
        while (line := self._lines.get(timeout=_PATIENCE)).endswith("\n"):
            hear(json.loads(line))

    def discard(self) -> None:
        """Kill it, whatever state it is in."""
        self._process.kill()
        self._process.wait()
        self._close()

    def end(self) -> None:
        """Have it end in order.

        Raises:
            CommandError: It does not.
        """
        self._close()
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.discard()
            raise CommandError(f"{self.name} does not end") from None
        if code:
            raise CommandError(f"{self.name} ended with {code}")

    def _close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, with a line under way
            self._process.stdin.close()
