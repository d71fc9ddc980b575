"""One call of the command, from the name of the application to the exit code."""

from __future__ import annotations

import io
import os
import shlex
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from phyxius.adapters import opened_stores
from phyxius.blocking import opened
from phyxius.cli._advance import advance
from phyxius.cli._app import find_target, load, make, opened_app, unwrapped, user
from phyxius.cli._check import check
from phyxius.cli._demo import demo
from phyxius.cli._diagram import diagram
from phyxius.cli._exits import Exit, Terminated, of_error, of_interrupt
from phyxius.cli._history import history
from phyxius.cli._screen import Screen
from phyxius.cli._session import Session
from phyxius.cli._signatures import is_signed, revoke, sign, signatures
from phyxius.cli._status import status
from phyxius.cli._upkeep import amend, prune
from phyxius.cli._words import error_told, hint, told
from phyxius.migration import Migration

_COMMANDS: Mapping[str, Callable[..., Exit]] = {
    "status": status,
    "check": check,
    "advance": advance,
    "history": history,
    "sign": sign,
    "revoke": revoke,
    "signatures": signatures,
    "amend": amend,
    "prune": prune,
    "diagram": diagram,
}


def run(command: str, *, as_json: bool, traceback: bool = False, **options: Any) -> int:
    """Run a command, and say in one line what keeps it from its work.

    Args:
        command: Its name.
        as_json: Whether to print JSON.
        traceback: Whether to show where an error came from.
        options: What else it takes.

    Returns:
        The exit code.
    """
    screen = Screen.of(sys.stdout, sys.stderr, as_json=as_json)
    try:
        with _contained(screen) as signals:
            if command == "demo":
                return demo(screen, **options)
            return _on_app(screen, command, traceback, signals, **options)
    except (KeyboardInterrupt, SystemExit) as interrupt:
        return _interrupted(screen, interrupt)
    except Exception as error:  # noqa: BLE001 - what an application may raise
        if traceback:
            screen.trace(error)
        with suppress(OSError):  # nobody reads it, or the disk is full
            screen.json({"error": error_told(error)})
        screen.error(told(error) + hint(error))
        return of_error(error)


def _on_app(
    screen: Screen,
    command: str,
    traceback: bool,
    signals: _Signals,
    *,
    app: str | None,
    create: bool,
    **options: Any,
) -> Exit:
    """Run a command on the migrations of an application, with all that they need open."""
    target = find_target(app, Path.cwd())
    ended: Exit | None = None
    failed: Exception | None = None
    try:
        with ExitStack() as stack:
            made = make(load(target), target, stack)
            migrations = stack.enter_context(opened(opened_app(made, target)))
            name = f"phyxius {command}, {user()} on {socket.gethostname()}"

            def open_stores(migration: Migration[Any]) -> None:
                stack.enter_context(opened(opened_stores(migration, name=name, create=create)))

            try:
                signals.take()  # the application may have handlers of its own, which know nothing of this
                session = Session(migrations, screen, open_stores, signals.before_it_writes, traceback)
                ended = _COMMANDS[command](session, **options)
            except (KeyboardInterrupt, SystemExit) as interrupt:  # what is open is closed in order all the same
                ended = _interrupted(screen, interrupt, signals.command_writes)
            except Exception as error:  # the application is told of it, and may do with it what it likes
                failed = error
                raise
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        if failed is None and ended is None:
            raise
        if ended is not None and isinstance(error, KeyboardInterrupt):  # which changes nothing of what has ended
            screen.error(f"{of_interrupt(error)[0]} while the application was closed")
        elif ended is not None:
            if traceback:
                screen.trace(error)
            screen.error(f"the application could not be closed after that: {told(error)}{hint(error)}")
            ended = ended or Exit.BROKEN
    if failed is not None:
        raise failed
    assert ended is not None
    return ended


def _interrupted(screen: Screen, interrupt: KeyboardInterrupt | SystemExit, command_writes: bool = False) -> Exit:
    word, ended = of_interrupt(interrupt)
    if command_writes:
        screen.error(f"{word}: whether that was written is unknown; look at it before you say it again")
        return Exit.UNKNOWN
    screen.error(f"{word}; nothing is torn")
    return ended


class _Signals:
    """The signals that end a command, as interrupts."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._came: list[KeyboardInterrupt] = []
        self.command_writes = False
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):  # as in the background of a shell, or by other than Python
                    self._before[number] = handler

    def take(self) -> None:
        """Be the one who handles them; raises as `check`."""
        for number in self._before:
            signal.signal(number, self._interrupt)
        self.check()

    def check(self) -> None:
        """Raise what has come and was swallowed, as by a callback or by the application."""
        if self._came:
            raise self._came[0]

    def before_it_writes(self) -> None:
        """Note that the command writes something from here on; raises as `check`."""
        self.check()
        self.command_writes = True

    def give_back(self) -> None:
        """Have those handle them who did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, _: object) -> None:
        if os.getpid() != self._process:  # pragma: no cover - in a child that the application has forked
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
            return
        self._came.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise self._came[-1]


@contextmanager
def _contained(screen: Screen) -> Iterator[_Signals]:
    """Let the application print, warn and be ended without spoiling what is shown."""
    signals = _Signals()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        screen.note(message)

    signals.take()
    try:
        with _aside() as aside, redirect_stdout(aside), warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = note
            yield signals
    finally:
        signals.give_back()


@contextmanager
def _aside() -> Iterator[TextIO]:
    """Where the application prints: to stderr, by a stream of its own, which it may wrap, detach or close."""
    try:
        number = os.dup(sys.stderr.fileno())
    except (OSError, AttributeError, ValueError):  # there is none, or it is no file
        yield sys.stderr
        return
    stream = os.fdopen(number, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    try:
        yield stream
    finally:
        with suppress(OSError, ValueError):
            stream.close()


def complete(kind: str, app: str | None, name: str | None) -> list[str]:
    """What a shell may complete: the names of migrations, or the phases or sources of one.

    Nothing is opened for that, so a factory has nothing to complete, and neither has what cannot be imported. What the
    application prints meanwhile would land in the line that somebody is typing, so it is dropped; and a name that a
    shell or a terminal would obey is none to offer.
    """
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = unwrapped(load(find_target(app, Path.cwd())))
    except (Exception, KeyboardInterrupt):  # noqa: BLE001 - what an application may raise
        return []
    named = {each.name: each for each in found if isinstance(each, Migration)}
    offered: list[str] = []
    if kind == "names":
        offered = list(named)
    elif name in named:
        phases = named[name].spec.phases
        sources = [name for each in phases.values() for name, source in each.evidence.items() if is_signed(source)]
        offered = [str.__str__(phase) for phase in phases] if kind == "phases" else sources
    return [each for each in offered if shlex.quote(each) == each]
