"""Programs that tests run as others would: in processes of their own, found ready by what they print."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds after which a program that prints nothing is taken for hung."""


class Program:
    """A process of this Python, and what it prints, on whichever channel."""

    def __init__(self, args: list[str], directory: Path, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *args],
            cwd=directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in a line that was not looked at yet."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.output += line
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"it ended without {pattern!r}:\n{self.output}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, and wait until it has ended."""
        self._process.send_signal(how)
        return self.ended()

    def ended(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.output += line
        return code

    def kill(self) -> None:
        """End it at once, with its children, if they have not ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running(args: list[str], directory: Path, env: Mapping[str, str] = {}) -> Iterator[Program]:
    """A program that runs meanwhile."""
    program = Program(args, directory, env)
    try:
        yield program
    finally:
        program.kill()


def run(args: list[str], directory: Path, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
