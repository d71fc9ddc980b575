"""The command as tests run it: in this process over migrations of their own, or in one of its own."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

import phyxius_cli
from phyxius.adapters._stores import SqlStores
from phyxius.blocking import opened, run
from phyxius.clock import create_controlled_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceFailure,
    Migration,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from tests.places import FILE, Place, place_of

PATIENCE = 60.0
KINDS = [FILE, "postgresql"]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAYS_14 = timedelta(days=14)
HOSTILE = "a\x1b[2J\x1b]0;t\x07\x9b1m\u202eb\r\nc\x00\x7f\u200b[bold]d[/bold]"
"""What would clear a screen, set a title, change colours, turn what follows round, and begin a line of its own."""
SHOWN = r"a\x1b[2J\x1b]0;t\x07\x9b1m\u202eb\r\nc\x00\x7f\u200b[bold]d[/bold]"
"""The same as people may see it."""
RAW = ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e", "b\r\nc", "b\nc", "\x00", "\x7f", "\u200b")
"""What of it must not reach a terminal."""
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")


@attrs.frozen
class Ended:
    """How a call of the command ended, and what it printed on which channel."""

    exit: int
    out: str
    err: str = ""

    @property
    def told(self) -> Any:
        """The JSON value that it printed: one line of ASCII, and nothing else."""
        assert self.out.isascii()
        assert self.out.endswith("\n")
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def seen(self) -> str:
        """What a terminal shows of it at the end."""
        rows, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[^a-zA-Z]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+|\x1b", self.out):
            if token == "\r":
                column = 0
            elif token == "\n":
                row, column = row + 1, 0  # a terminal is told of both
                rows += [""] * (row == len(rows))
            elif token == "\x1b[2K":
                rows[row] = ""
            elif token.startswith("\x1b[") and token.endswith("A"):
                row -= int(token[2:-1])
            elif not token.startswith("\x1b["):
                before = rows[row].ljust(column)
                rows[row] = before[:column] + token + before[column + len(token) :]
                column += len(token)
        return "\n".join(rows)


def plain(shown: str) -> str:
    """What a terminal was sent, without colours and movements, as lines."""
    return ESCAPES.sub("", shown).replace("\r", "")


def assert_tame(ended: Ended) -> None:
    """Of the hostile text nothing is obeyed: it is shown."""
    shown = f"{ended.out}{ended.err}"
    assert r"a\x1b[2J\x1b]0;t\x07\x9b1m\u202e" in plain(shown).replace("\n", "").replace("\\\\", "\\")
    assert not [sign for sign in RAW if sign in shown]


# -- in this process


def phyxius(*args: str) -> Ended:
    """Call the command in this process, into pipes, with nobody to ask."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = _called(args)
    return Ended(code, *(each.buffer.getvalue().decode() for each in (out, err)))  # type: ignore[attr-defined]


def advance(to: str, *more: str) -> Ended:
    """Take the migration that most tests are about into a phase."""
    return phyxius("advance", "quotes", "--to", to, *more)


def on_terminal(
    *args: str,
    typed: str = "",
    width: int = 80,
    encoding: str = "utf-8",
    moment: str = "[y/N]: ",
    then: Callable[[], object] | None = None,
) -> Ended:
    """Call the command in this process, on a terminal, where somebody has typed something already.

    `then` is called once the moment has come at which something is shown: a question, unless another is named.
    """
    with terminal(width) as (master, slave):
        os.write(master, typed.encode())
        shown: list[bytes] = []
        reader = threading.Thread(target=_read, args=(master, shown, moment.encode(), then))
        reader.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(width))  # else the width is that of the channels of this process
            patch.setenv("TERM", os.environ.get("TERM", "xterm"))
            stdin, stdout = (open(os.dup(slave), mode, encoding=encoding) for mode in "rw")  # noqa: SIM115, PTH123
            patch.setattr(sys, "stdin", stdin)
            with stdin, stdout, redirect_stdout(stdout), redirect_stderr(stdout):
                code = _called(args)
        os.close(slave)
        reader.join(PATIENCE)
    return Ended(code, b"".join(shown).decode())


def _called(args: tuple[str, ...]) -> int:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(SystemExit) as ended:
        phyxius_cli.main.main(list(args), prog_name="phyxius")
    for number, handler in before.items():  # it ends as a process does
        assert signal.signal(number, handler) is handler or handler is not signal.SIG_IGN
    assert isinstance(ended.value.code, int), ended.value.code
    return int(ended.value.code)


def _read(master: int, shown: list[bytes], moment: bytes, then: Callable[[], object] | None) -> None:
    with suppress(OSError):  # what Linux says once the other end is closed
        while piece := os.read(master, 65536):
            shown.append(piece)
            if then is not None and moment in b"".join(shown):
                then()
                then = None


def interrupt_main(which: signal.Signals = signal.SIGINT) -> None:
    """Send the main thread a signal, whichever thread this is."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, which)


@contextmanager
def terminal(width: int) -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal, which does not echo; it closes the first."""
    master, slave = pty.openpty()
    modes = termios.tcgetattr(slave)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    try:
        yield master, slave
    finally:
        os.close(master)


class Shop:
    """A module `shop`, whose `app` the command is run on."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory = directory
        self._module = ModuleType("shop")
        patch.chdir(directory)
        patch.setattr(sys, "path", [*sys.path])
        patch.setitem(sys.modules, "shop", self._module)
        patch.setenv("PHYXIUS_APP", "shop:app")
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm")
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            patch.setenv(name, "ada")

    def has(self, app: object, **more: object) -> None:
        """Put something into the module."""
        vars(self._module).update(more, app=app)


# -- migrations


class Quotes:
    """The migration that most tests are about, over stores in some place, on a clock that tests move."""

    def __init__(self, place: Any) -> None:
        self.place: Place = place
        self.clock = create_controlled_clock(START)
        self.stores: SqlStores = place.stores(self.clock)
        self.schema: Callable[[], Any] = lambda: ok({"revision": "0042"})
        self.app = self.migration(
            expand={},
            dual_write={"schema_ready": schema_applied(self._ask)},
            flip={"parity_signed": self.stores.attestations.signed_off()},
            contract={"no_legacy_reads": journal_window("quote.read_old", DAYS_14, no_events())},
        )

    def migration(self, /, name: str = "quotes", **phases: Any) -> Migration[Any]:
        """A migration over these stores."""
        spec = define_migration(name=name, phases=phases)
        journal = Journal[Any](clock=self.clock)
        return create_migration(
            spec, journal=journal, journal_store=self.stores.journal_store, phase_store=self.stores.phase_store(spec)
        )

    def _ask(self) -> Any:
        """The schema has revision 0042."""
        return self.schema()

    @contextmanager
    def made(self) -> Iterator[None]:
        """The stores are there and open."""
        with opened(self.stores):
            yield

    def make(self) -> Quotes:
        """Make the file; a server has its tables."""
        with opened(self.stores):
            return self

    @contextmanager
    def recorded_by(self, name: str) -> Iterator[None]:
        """A process of that name records meanwhile."""
        journal = Journal[Any](clock=self.clock)
        with opened(self.stores), opened(self.stores.recorder(journal, name=name, durable=["quote.read_old"])):
            journal.declare("quote.read_old")
            yield

    def elapse(self, duration: timedelta) -> None:
        """Let time pass."""
        run(self.clock.elapse(duration))

    def at(self, phase: str) -> Quotes:
        """Bring it to a phase by force."""
        self.make()
        with opened(self.stores):
            assert run(self.app.current_phase())
        self.place.change("UPDATE migrations SET phase = ?", [(phase,)])
        return self


@contextmanager
def quotes(kind: str, directory: Path) -> Iterator[Quotes]:
    """It, in a place of a kind."""
    with opened(place_of(kind, directory)) as place:
        yield Quotes(place)


def in_memory(name: str = "quotes", initial: str | None = None, **phases: Any) -> Migration[Any]:
    """A migration in memory, on a controlled clock."""
    spec: Any = define_migration(name=name, phases=phases or {"expand": {}, "flip": {}})
    return create_migration(spec, journal=Journal[Any](clock=create_controlled_clock(START)), initial_phase=initial)


SEVERAL = {"quotes": in_memory("quotes"), "orders": in_memory("orders")}
NAMES = ["quotes", "orders"]
WANTED = "a Migration, several of them, or a factory that returns them"
TRACED = "; --traceback shows where"


def names(ended: Ended) -> list[str]:
    """The migrations that `status` found."""
    assert ended.exit == 0, ended.err
    return [each["migration"] for each in ended.told["migrations"]]


def shows(ended: Ended, told: str, code: int = 1) -> None:
    """It ended with one line that says what is wrong."""
    assert (ended.exit, ended.out, ended.err) == (code, "", f"phyxius: {told}\n")


def failing(reason: str = "not yet", **more: Any) -> Callable[[], Any]:
    """A check that says no."""

    def check() -> Any:
        """It is ready."""
        from phyxius.fp import Err

        return Err(EvidenceFailure(reason, **more))

    return check


def raising(error: BaseException) -> Callable[[], Any]:
    """A check that cannot be judged."""

    def check() -> Any:
        """It is ready."""
        raise error

    return check


# -- in a process of its own

COMMAND = ["-m", "phyxius_cli"]
# Takes the terminal as the one that its keys interrupt, and becomes the command.
AT_KEYBOARD = "import fcntl,os,sys,termios; fcntl.ioctl(0,termios.TIOCSCTTY,0); os.execv(sys.executable,sys.argv[1:])"


def environment(**more: str) -> dict[str, str]:
    """What a process is given: of ours, nothing that changes how a terminal looks."""
    hidden = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES", "PHYXIUS_APP")
    ours = {name: value for name, value in os.environ.items() if name not in hidden}
    names = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "ada")
    return {**ours, **names, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **more}


class Process:
    """A Python that runs on a terminal, or with pipes, and what it prints as it comes."""

    def __init__(self, args: list[str], directory: Path, width: int | None, env: Mapping[str, str]) -> None:
        self.shown = ""
        self._news = threading.Condition()
        self._ended = False
        command = [sys.executable, *args]
        if width is None:
            self._master, child = os.pipe()
            self._stdin: int | None = None
        else:
            self._master, child = pty.openpty()
            fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
            command = [sys.executable, "-S", "-E", "-c", AT_KEYBOARD, *command]
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(**env),
            stdin=subprocess.DEVNULL if width is None else child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        piece = b""
        with suppress(OSError):
            while piece := os.read(self._master, 65536):
                with self._news:
                    self.shown += piece.decode("utf-8", "replace")
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, said: str) -> None:
        """Return once it has printed that."""
        with self._news:
            assert self._news.wait_for(lambda: said in self.shown or self._ended, PATIENCE), self.shown
            assert said in self.shown, self.shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def send(self, signal_: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(signal_)

    def has_ended(self, patience: float) -> bool:
        """Whether it ends within so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        return self._process.poll() is not None

    def ended(self) -> Ended:
        """Wait until it has ended."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end; it has shown: {self.shown}")
        self._reader.join(PATIENCE)
        return Ended(code, self.shown)

    def end(self) -> None:
        """End it, if it has not ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(PATIENCE)
        os.close(self._master)


@contextmanager
def process(args: list[str], directory: Path, *, width: int | None = 80, **env: str) -> Iterator[Process]:
    """A process on a terminal of some width, or with pipes, that runs meanwhile."""
    started = Process(args, directory, width, env)
    try:
        yield started
    finally:
        started.end()


def piped(args: list[str], directory: Path, **env: str) -> Ended:
    """Run a Python to its end, with pipes."""
    done = subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
