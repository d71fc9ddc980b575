"""File stores on a controlled clock, a look into their file, and cancellation at a chosen await."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from phyxius.adapters.sqlite import FileStores, open_file_stores
from phyxius.clock import Clock, create_controlled_clock
from phyxius.fp import ok
from phyxius.migration import AttestationEvidence, EvidenceSnapshot, MigrationSpec, attestation, define_migration

PHASES = ("expand", "flip", "contract")
NAME = "phyxius.db"


@contextlib.asynccontextmanager
async def file_stores(directory: Path, clock: Clock | None = None, **options: Any) -> AsyncIterator[FileStores]:
    """The stores of the file `phyxius.db` in a directory, open."""
    clock = create_controlled_clock() if clock is None else clock
    async with open_file_stores(directory / NAME, clock=clock, **options) as stores:
        yield stores


def spec_of(*phases: str, name: str = "quotes", **evidence: AttestationEvidence[Any]) -> MigrationSpec[str]:
    """A spec whose second phase is guarded by `evidence`."""
    order = phases or PHASES
    return define_migration(name=name, phases={phase: evidence if phase == order[1] else {} for phase in order})


def anything() -> AttestationEvidence[Any]:
    """An attestation that is always given."""
    return attestation(ok)


def snapshot(attempt: str, **payloads: object) -> EvidenceSnapshot:
    """The evidence of an attempt."""
    return EvidenceSnapshot(attempt, payloads)


@contextlib.contextmanager
def bare(path: Path, timeout: float = 5.0) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's to the file."""
    with contextlib.closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as connection:
        yield connection


def assert_idle(path: Path) -> None:
    """No transaction that writes is open: another connection gets the lock at once."""
    with bare(path, timeout=0) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def contents(path: Path) -> dict[str, list[Any]]:
    """Every row of every table, but for the random name of the file."""
    with bare(path) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    rows["journal"] = [row[2:] for row in rows.get("journal", [])]
    return rows


before: frozenset[threading.Thread] = frozenset()
"""The threads that other tests have left, such as those of a program that ends in the middle."""


def worker_threads() -> set[threading.Thread]:
    """The threads of this test's stores; those that run one call are waited for, as they end by themselves."""
    for thread in threading.enumerate():
        if thread.name == "phyxius-call":
            thread.join(30)
    return {thread for thread in threading.enumerate() if thread.name.startswith("phyxius")} - before


class _Cancelled:
    """Drives a coroutine, and cancels it at one of its awaits."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int, late: bool) -> None:
        self._work = work
        self._at = at
        self._late = late
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._work.send, None)
        for number in range(1_000):
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            step = partial(self._work.send, None)
            self.reached |= number == self._at
            if number != self._at or self._late:
                yield awaited
            if number == self._at:
                step = partial(self._work.throw, asyncio.CancelledError())
        raise AssertionError("it does not end")


async def cancelled_at(work: Coroutine[Any, Any, Any], at: int, *, late: bool) -> tuple[bool, bool]:
    """Cancel at the await of that number, before what it waits for is there, or just after (`late`).

    Returns:
        Whether it came to that await, and whether it ended as cancelled.
    """
    driven = _Cancelled(work, at, late)
    try:
        await driven
    except asyncio.CancelledError:
        return driven.reached, True
    return driven.reached, False


class Crowd:
    """Processes that each read lines, and answer each with one; given the line at once, they race."""

    def __init__(self, program: str, arguments: Sequence[str]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for argument in arguments
        ]
        self.hear()  # each says that it is ready

    def hear(self) -> list[Any]:
        """One line of each, read as JSON."""
        return [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]

    def tell(self, value: object) -> list[Any]:
        """Give all the same line, and hear their answers."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(value) + "\n")
            process.stdin.flush()
        return self.hear()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate(timeout=60)
