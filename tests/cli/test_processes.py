"""The command as a process on a real terminal: how it looks, and how keys and signals end it."""

from __future__ import annotations

import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.support import COMMAND, PATIENCE, Ended, environment, piped, process

APPLICATION = """
import asyncio, os, threading
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from phyxius import *
from phyxius.adapters.sqlite import open_file_stores

clock = create_controlled_clock(datetime(2026, 1, 1, 12, tzinfo=UTC))
stores = open_file_stores("stores.db", clock=clock)
slow = "SLOW" in os.environ

@schema_applied
async def compared():
    "the rows are the same"
    if slow:
        print("it is asked", flush=True)
        await asyncio.Event().wait()
    return err("they differ") if "DIFFER" in os.environ else ok({"rows": 2000})

phases = {"expand": {}, "flip": {"compared": compared}}
phases |= {"backfill": {}} if "OTHER" in os.environ else {}
spec = define_migration(name="quotes", phases={**phases, "contract": {}})
app = create_migration(
    spec, journal=Journal(clock=clock), journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
)

if "LOCKED" in os.environ:
    commit = type(app.phase_store).try_advance

    async def commit_under_a_lock(store, *args):
        print("it commits", flush=True)
        while not os.path.exists("locked"):
            await asyncio.sleep(0)
        watcher = asyncio.create_task(tell_of_cancellation())
        return await commit(store, *args)

    async def tell_of_cancellation():
        while not any(task.cancelling() for task in asyncio.all_tasks()):
            await asyncio.sleep(0)
        print("it is cancelled", flush=True)

    type(app.phase_store).try_advance = commit_under_a_lock

def factory():
    print("it opens", flush=True)
    while True:
        threading.Event().wait(0.1)  # in case that the key is pressed just before the wait

async def async_factory():
    print("it opens", flush=True)
    await asyncio.Event().wait()
"""
INTERRUPT, TERMINATE = "\x03", "terminate"
each_end = pytest.mark.parametrize("how, code", [(INTERRUPT, 130), (TERMINATE, 143)], ids=["Ctrl-C", "SIGTERM"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose migration is at its second phase."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "pyproject.toml").write_text('[tool.phyxius]\napp = "shop:app"\n')
    return tmp_path


def call(project: Path, *args: str, **env: str) -> Ended:
    """Call it with pipes."""
    return piped([*COMMAND, *args], project, **env)


def at_flip(project: Path) -> None:
    assert call(project, "advance", "quotes", "--to", "flip", "--create").exit == 0


def ended_by(project: Path, moment: str, how: str, *args: str, width: int = 120, **env: str) -> Ended:
    """Call it on a terminal, and end it at the moment at which it has printed something."""
    with process([*COMMAND, *args], project, width=width, **env) as running:
        running.wait_for(moment)
        if how == INTERRUPT:
            running.type(how)
        else:
            running.send(signal.SIGTERM)
        return running.ended()


# -- how it looks

STATUS = """\
quotes
  phase  [expand] → flip → contract
  since  2026-01-01 12:00:00 UTC, now
  next   flip, which demands
         compared  the rows are the same
"""
NARROW = """\
quotes  expand → flip
 ✓ compared  the rows are the same
   observed  rows 2000
READY  phyxius advance quotes --to flip
"""
NARROWER = """\
quotes  expand → flip
 ✓ compared
 the rows are the same
   observed
   rows 2000
READY  phyxius advance quotes
--to flip
"""
COLOUR, CURSOR = "\x1b[1;32m", "\x1b[?25l"


def on_terminal(project: Path, width: int, *args: str, **env: str) -> Ended:
    with process([*COMMAND, *args], project, width=width, **env) as running:
        return running.ended()


def test_on_terminals_of_several_kinds(project: Path) -> None:
    """As wide as it is; with no colours, no movements, or no signs, where somebody or something does without."""
    call(project, "status", "--create")
    wide = on_terminal(project, 120, "status")
    assert (wide.exit, wide.seen) == (0, STATUS)
    assert COLOUR in wide.out
    assert on_terminal(project, 40, "check", "quotes").seen == NARROW
    assert on_terminal(project, 30, "check", "quotes").seen == NARROWER
    uncoloured = on_terminal(project, 120, "check", "quotes", NO_COLOR="1")
    assert uncoloured.seen == NARROW
    assert COLOUR not in uncoloured.out
    assert on_terminal(project, 120, "check", "quotes", TERM="dumb").out == NARROW.replace("\n", "\r\n")
    ascii_only = on_terminal(project, 120, "status", PYTHONIOENCODING="ascii")
    assert ascii_only.out.isascii()
    assert ascii_only.seen == STATUS.replace("→", ">")


def test_in_a_pipe(project: Path) -> None:
    """Nothing but text, however long the lines are."""
    assert call(project, "status", "--create") == Ended(0, STATUS)
    assert call(project, "check", "quotes", COLUMNS="20") == Ended(0, NARROW)


# -- how it ends early


@each_end
def test_at_the_question_for_the_last_phase(project: Path, how: str, code: int) -> None:
    """Nothing has moved; it can be advanced then."""
    at_flip(project)
    ended = ended_by(project, "[y/N]: ", how, "advance", "quotes", "--to", "contract")
    assert ended.exit == code
    assert ended.seen.endswith("\nphyxius: nothing was done\n")
    assert call(project, "advance", "quotes", "--to", "contract", "--yes").exit == 0


def test_at_other_questions(project: Path) -> None:
    """The order of phases is what it was, and nothing is deleted."""
    at_flip(project)
    ended = ended_by(project, "[y/N]: ", INTERRUPT, "amend", "quotes", "--why", "more", OTHER="1")
    assert ended.exit == 130
    assert ended.seen.endswith("\nphyxius: nothing was done\n")
    ended = ended_by(project, "[y/N]: ", TERMINATE, "prune", "--older-than", "1d")
    assert ended.exit == 143
    assert ended.seen.endswith("\nphyxius: nothing was done\n")
    assert call(project, "advance", "quotes", "--to", "contract", "--yes").exit == 0


@each_end
def test_while_a_source_is_asked(project: Path, how: str, code: int) -> None:
    """Nothing moved, which is told and recorded; then it can be advanced."""
    call(project, "status", "--create")
    ended = ended_by(project, "it is asked", how, "advance", "quotes", "--to", "flip", SLOW="1")
    word = "interrupted" if code == 130 else "terminated"
    assert ended.exit == code
    assert ended.seen.endswith(f"\nphyxius: {word}: nothing moved, quotes is at expand\n")
    assert "\x1b[?25h" in ended.out.rpartition(CURSOR)[2], "the cursor is there again"
    assert "REFUSED flip (CANCELLED)" in call(project, "history", "quotes").out
    assert call(project, "advance", "quotes", "--to", "flip").exit == 0


@each_end
def test_while_it_watches(project: Path, how: str, code: int) -> None:
    """What was found stays; the cursor is there again."""
    call(project, "status", "--create")
    ended = ended_by(project, "Ctrl-C ends", how, "check", "quotes", "--watch", DIFFER="1")
    word = "interrupted" if code == 130 else "terminated"
    assert ended.exit == code
    assert ended.seen.endswith(f"asked at 2026-01-01 12:00:00 UTC; Ctrl-C ends\nphyxius: {word}; nothing is torn\n")
    assert "\x1b[?25h" in ended.out.rpartition(CURSOR)[2]


@each_end
@pytest.mark.parametrize("name", ["factory", "async_factory"])
def test_while_the_application_opens(project: Path, how: str, code: int, name: str) -> None:
    """Whatever it waits for."""
    ended = ended_by(project, "it opens", how, "status", "--app", f"shop:{name}")
    word = "interrupted" if code == 130 else "terminated"
    assert ended.exit == code
    assert ended.seen.replace("^C", "").endswith(f"phyxius: {word}; nothing is torn\n")


@pytest.mark.parametrize("which, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_in_a_pipe_too(project: Path, which: signal.Signals, code: int) -> None:
    """As cron or a supervisor ends it."""
    call(project, "status", "--create")
    args = [*COMMAND, "advance", "quotes", "--to", "flip"]
    with process(args, project, width=None, SLOW="1") as running:
        running.wait_for("it is asked")
        running.send(which)
        ended = running.ended()
    assert ended.exit == code
    assert ended.out.splitlines()[-1].endswith(": nothing moved, quotes is at expand")
    assert "\x1b" not in ended.out
    assert call(project, "advance", "quotes", "--to", "flip").exit == 0


def test_who_is_impatient_at_a_commit(project: Path) -> None:
    """The first interrupt waits for a commit that has begun; who interrupts that as well learns what is not known."""
    call(project, "status", "--create")
    args = [*COMMAND, "advance", "quotes", "--to", "flip"]
    with (
        process(args, project, width=None, LOCKED="1") as running,
        closing(sqlite3.connect(project / "stores.db", isolation_level=None)) as other,
    ):
        running.wait_for("it commits")
        other.execute("BEGIN IMMEDIATE")
        (project / "locked").touch()
        running.send(signal.SIGINT)
        running.wait_for("it is cancelled")
        running.send(signal.SIGINT)
        running.wait_for("whether quotes moves is unknown; look with phyxius status quotes")
        other.execute("ROLLBACK")
        ended = running.ended()
    assert ended.exit == 6
    assert call(project, "advance", "quotes", "--to", "flip").exit == 3, "what was begun has gone on"


def to_a_full_disk(project: Path, *args: str) -> tuple[int, str]:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, *COMMAND, *args],
            cwd=project,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
            timeout=PATIENCE,
        )
    return done.returncode, done.stderr


def test_a_disk_that_is_full(project: Path) -> None:
    """What cannot be told before the step keeps it from being taken; afterwards it changes nothing."""
    call(project, "status", "--create")
    code, told = to_a_full_disk(project, "advance", "quotes", "--to", "flip")
    assert (code, told) == (1, "phyxius: OSError: [Errno 28] No space left on device; --traceback shows where\n")
    assert call(project, "status").out.startswith("quotes\n  phase  [expand]")
    code, told = to_a_full_disk(project, "advance", "quotes", "--to", "flip", "--quiet")
    assert code == 0
    assert told.startswith("phyxius: ADVANCED, which could not be printed: [Errno 28] No space left on device\n")


SWALLOWS = """
import time
try:
    print("it is imported", flush=True)
    while True:
        time.sleep(1)
except BaseException:
    pass
from shop import app
"""


def test_two_disks_that_are_full(project: Path) -> None:
    """Its exit code is all that is left to tell."""
    call(project, "status", "--create")
    args = shlex.join([sys.executable, *COMMAND, "advance", "quotes", "--to", "flip", "--json"])
    done = subprocess.run(
        ["sh", "-c", f"exec {args} >/dev/full 2>&1"], cwd=project, env=environment(), check=False, timeout=PATIENCE
    )
    assert done.returncode == 0
    assert call(project, "advance", "quotes", "--to", "flip").exit == 3


HANDLES = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: sys.exit(0))
from shop import app
"""


SPOILS = """
import io, os, sys
if "DETACH" in os.environ:
    sys.stdout.detach()
else:
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    print("it is imported")
from shop import app
"""


def test_an_application_that_spoils_its_streams(project: Path) -> None:
    """Those are its own: what the command has to say is said."""
    call(project, "status", "--create")
    (project / "spoils.py").write_text(SPOILS)
    unknown = call(project, "status", "nosuch", "--app", "spoils:app")
    assert unknown.exit == 2
    assert "phyxius: there is no migration 'nosuch'; there are: quotes\n" in unknown.err
    assert "it is imported" in unknown.err
    assert call(project, "advance", "quotes", "--to", "flip", "--app", "spoils:app", DETACH="1").exit == 0


CLOSES = """
import asyncio
from contextlib import asynccontextmanager
from shop import app as migrations

@asynccontextmanager
async def app():
    yield migrations
    print("it closes", flush=True)
    await asyncio.Event().wait()
"""


def test_who_cannot_wait_for_the_end(project: Path) -> None:
    """The application hangs while it is closed; all is said, and the code stays that of the command."""
    call(project, "status", "--create")
    (project / "closes.py").write_text(CLOSES)
    with process([*COMMAND, "status", "--app", "closes:app"], project, width=None) as running:
        running.wait_for("it closes")
        running.send(signal.SIGINT)
        running.wait_for("while the application was closed")
        while not running.has_ended(0.2):
            running.send(signal.SIGINT)
        ended = running.ended()
    assert ended.exit == 0
    assert "\n  phase  [expand]" in ended.out
    assert "Traceback" not in ended.out


FORKS = """
import os, signal
from shop import app as migrations

def app():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b".")
        while True:
            signal.pause()
    os.read(reading, 1)
    os.kill(child, signal.SIGTERM)
    print("it ended by signal", os.WTERMSIG(os.waitpid(child, 0)[1]))
    return migrations
"""


def test_an_application_that_forks(project: Path) -> None:
    """What its children are sent is theirs."""
    call(project, "status", "--create")
    (project / "forks.py").write_text(FORKS)
    ended = call(project, "status", "--app", "forks:app")
    assert (ended.exit, ended.err) == (0, "it ended by signal 15\n")


@each_end
def test_an_application_that_handles_it(project: Path, how: str, code: int) -> None:
    """As servers do; but here it is the command that ends."""
    call(project, "status", "--create")
    (project / "handles.py").write_text(HANDLES)
    args = ("advance", "quotes", "--to", "flip", "--app", "handles:app")
    ended = ended_by(project, "it is asked", how, *args, SLOW="1")
    assert ended.exit == code
    assert ended.seen.endswith(": nothing moved, quotes is at expand\n")


@each_end
def test_an_application_that_swallows_it(project: Path, how: str, code: int) -> None:
    """The command does not go on, let alone take a step."""
    call(project, "status", "--create")
    (project / "swallows.py").write_text(SWALLOWS)
    args = ("advance", "quotes", "--to", "flip", "--app", "swallows:app")
    ended = ended_by(project, "it is imported", how, *args)
    assert ended.exit == code
    assert ended.seen.endswith("; nothing is torn\n")
    assert call(project, "status").out.startswith("quotes\n  phase  [expand]")
