"""Programs that the tests run as processes of their own, and kill."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from phyxius.adapters._database import Connection
from phyxius.adapters._orders import known
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlalchemy import ServerStoreError, open_stores
from phyxius.adapters.sqlalchemy._connection import ServerConnection
from phyxius.adapters.sqlite import SqlPhaseStore, open_file_stores
from phyxius.adapters.sqlite._database import FileDatabase
from phyxius.clock import run_in_thread
from phyxius.fp import Ok, Result, err, ok
from phyxius.handler import observe, recorded
from phyxius.journal import Journal
from phyxius.migration import Committed, Conflict, EvidenceSnapshot, MigrationSpec, define_migration

PHASES = ("expand", "dual_write", "flip", "contract")
KILL_PHASES = tuple(f"p{number}" for number in range(20))


def spec_of(name: str) -> MigrationSpec[Any]:
    return define_migration(name=name, phases={phase: {} for phase in PHASES})


class Child:
    """A process that runs a program of this module, and talks to us in lines."""

    def __init__(self, program: str, *args: object) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), program, *map(str, args)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def hear(self) -> str:
        """The next line that it says; empty once it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def say(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Suspend it, and return once it stands still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Let it end, and return its exit code."""
        with self._process:
            return self._process.wait()

    def rest(self) -> list[str]:
        """All that it still says, until it ends."""
        assert self._process.stdout is not None
        lines = self._process.stdout.read().splitlines()
        self.end()
        return lines

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())  # one write: a kill cannot cut a line in two


async def heard() -> str:
    return await run_in_thread(sys.stdin.readline)


async def record(stores: SqlStores, name: str, durable: str, lease: str = "30") -> None:
    """Record until we are told to end: each line says what is called, "begin x" leaves the call open."""
    journal = Journal[Any](clock=stores.clock)
    journal.declare("background", *filter(None, [durable]))
    declared, living = [durable] if durable else [], timedelta(seconds=int(lease))
    async with stores.recorder(journal, name=name, durable=declared, lease=living):
        say("ready")
        while line := (await heard()).split():
            verb, called = line
            recording = recorded(journal, called)
            try:
                recording.__enter__()
            except ServerStoreError as error:
                say("refused", error.problem)
                continue
            if verb != "begin":
                recording.__exit__(None, None, None)
            say("done")
    say("closed")


# -- workers that are killed


class Killer:
    """Kills this process at a random moment, of one of four kinds.

    At the n-th thing that it notes (a statement that writes, or a step on the way); at one soon after a phase was
    changed; inside of a statement, or of a commit; or after some time, wherever it is.
    """

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        kind = seed % 4
        self._left = random.randrange(1, 150)
        self._left_after_change = random.randrange(1, 6) if kind == 1 else 0
        self._instructions = random.randrange(10, 2_000) if kind == 2 else 0
        if kind == 3:
            self._die_after(random.uniform(0.005, 0.1))

    def watch(self, database: Any) -> None:
        if isinstance(database, FileDatabase):
            self._watch_file(database)
        else:
            self._watch_server()

    def _watch_server(self) -> None:
        execute = ServerConnection.execute

        def watched(connection: ServerConnection, sql: str, *values: Any) -> Any:
            if not sql.startswith("SELECT"):
                self.note(sql.replace("{", "").replace("}", ""))
            if self._instructions:  # while the server is at it, or while it commits
                self._die_after(self._instructions / 500_000)
                self._instructions = 0
            return execute(connection, sql, *values)

        ServerConnection.execute = watched  # type: ignore[method-assign]

    def _die_after(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self.die)
        timer.daemon = True
        timer.start()

    def _watch_file(self, database: FileDatabase) -> None:
        connect = database._connect

        def watched(mode: str = "rw") -> sqlite3.Connection:
            connection = connect(mode)
            if threading.current_thread().name == "phyxius-write":
                connection.set_trace_callback(self.note)
                if self._instructions:
                    connection.set_progress_handler(self.die, self._instructions)
            return connection

        database._connect = watched  # type: ignore[method-assign]

    def note(self, what: str = "") -> None:
        if self._left_after_change and what.startswith("UPDATE migrations"):
            self._left, self._left_after_change = self._left_after_change + 1, 0
        self._left -= 1
        if not self._left:
            self.die()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class AuditsLater(SqlPhaseStore):
    """The control: it commits the phase, and the transition in a second transaction."""

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        now = self.clock.now()

        def move(connection: Connection) -> int | str:
            found = known(connection, self._migration)
            if found.phase != from_phase:
                return found.phase
            connection.execute(
                "UPDATE {migrations} SET phase = :phase, version = :version WHERE name = :name",
                {"phase": to_phase, "version": found.version + 1, "name": self._migration},
            )
            return found.version + 1

        def audit(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO {transitions} (attempt, migration, version, from_phase, to_phase, at_ns, evidence)"
                " VALUES (:attempt, :migration, :version, :from, :to, :at, '[]')",
                {
                    "attempt": evidence.attempt,
                    "migration": self._migration,
                    "version": version,
                    "from": from_phase,
                    "to": to_phase,
                    "at": now.wall_ns,
                },
            )

        version = await self.database.write(move)
        if isinstance(version, str):
            return err(Conflict(version))
        await self.database.write(audit)
        return ok(Committed(now))


def stores_at(where: str) -> SqlStores:
    """The stores in a file, or in a database with the usual tables."""
    if "://" in where:
        return open_stores(where, timeout=timedelta(seconds=60))
    return open_file_stores(where, lock_timeout=timedelta(seconds=60))


async def migrate(stores: SqlStores, killer: Killer, kind: type[SqlPhaseStore]) -> None:
    """Advance one migration after the other against all others who do, and say so before and after, until killed."""
    journal = Journal[Any](clock=stores.clock)
    calls = itertools.count()

    @recorded(journal, "legacy.read")
    async def read() -> None:
        call = f"{os.getpid()}-{next(calls)}"
        observe(call=call)
        say("called", call)
        killer.note()

    async with stores.recorder(journal, name=f"worker-{os.getpid()}", durable=["legacy.read"]) as recorder:
        for number in itertools.count():
            spec = define_migration(name=f"m{number}", phases={phase: {} for phase in KILL_PHASES})
            store = kind(stores._database, spec, KILL_PHASES[0])
            while (phase := await store.current()) != KILL_PHASES[-1]:
                attempt, to = uuid.uuid4().hex, KILL_PHASES[KILL_PHASES.index(phase) + 1]
                say("tries", spec.name, phase, to, attempt)
                answer = await store.try_advance(phase, to, EvidenceSnapshot(attempt, {"attempt": attempt}))
                killer.note()
                say("moved" if type(answer) is Ok else "lost", attempt)
                await read()
                if to in KILL_PHASES[::3]:
                    await recorder.flush()


def kills(path: str, count: str, seed: str, kind: str) -> None:
    """Fork workers, three at a time, each of which kills itself; until so many have died."""

    async def live(number: int) -> None:
        stores = stores_at(path)
        killer = Killer(int(seed) * 10_000 + number)
        killer.watch(stores._database)
        async with stores:
            await migrate(stores, killer, AuditsLater if kind == "control" else SqlPhaseStore)

    forked = itertools.count()
    workers = {fork(live, next(forked)) for _ in range(3)}
    for killed in range(int(count)):
        pid, status = os.wait()
        workers.remove(pid)
        say("died", os.waitstatus_to_exitcode(status))
        if killed + len(workers) < int(count) - 1:
            workers.add(fork(live, next(forked)))


# -- workers that race


def races(path: str, rounds: str) -> None:
    """Fork six workers, who do everything at the same moment, each round with another migration, and file."""
    meeting = multiprocessing.get_context("fork").Barrier(6, timeout=60)

    async def race(number: int) -> None:
        for each in range(int(rounds)):
            spec = spec_of(f"m{each}")
            meeting.wait()
            async with stores_at(path if "://" in path else f"{path}-{each}") as stores:
                store = stores.phase_store(spec)
                meeting.wait()
                say("began", each, await store.current())
                for step, phase in enumerate(PHASES[:-1]):
                    meeting.wait()
                    evidence = EvidenceSnapshot(f"{number}-{each}-{step}", {})
                    answer = await store.try_advance(phase, PHASES[step + 1], evidence)
                    say("won" if type(answer) is Ok else "lost", each, step, await store.current())
                    meeting.wait()

    workers = [fork(race, number) for number in range(6)]
    for pid in workers:
        _, status = os.waitpid(pid, 0)
        say("ended", os.waitstatus_to_exitcode(status))


def fork(work: Callable[[int], Coroutine[Any, Any, None]], number: int) -> int:
    """Run it in a fork of this process, which has one thread only, and all imported; its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        asyncio.run(work(number))
        status = 0
    except BaseException:
        say("raised", repr(sys.exc_info()[1]))
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)


async def opened(path: str, *args: str) -> None:
    async with stores_at(path) as stores:
        await record(stores, *args)


async def served(url: str, *args: str) -> None:
    """The same for a process that has no patience with its database."""
    async with open_stores(url) as stores:
        stores._database._timeout = stores._database._lane.limit = timedelta(milliseconds=500)
        await record(stores, *args)


PROGRAMS: dict[str, Callable[..., object]] = {
    "serve": lambda *args: asyncio.run(served(*args)),
    "record": lambda *args: asyncio.run(opened(*args)),
    "kills": kills,
    "races": races,
}

if __name__ == "__main__":
    program, *args = sys.argv[1:]
    PROGRAMS[program](*args)
