"""Asking a person, who may press Ctrl-C instead."""

from __future__ import annotations

import select
import signal
import socket
import sys
from contextlib import suppress

from phyxius.cli._exits import CommandError, Exit, of_interrupt
from phyxius.cli._screen import clean


def ask(question: str, option: str) -> None:
    """Ask a person; where none can be asked, the option has to say it.

    Raises:
        CommandError: They say no, or there is nobody.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError(f"{clean(question)} Nobody can be asked here: say {option} to mean it", Exit.USAGE)
    try:
        typed = _typed(f"{clean(question)} [y/N]: ")
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("\n")
        raise CommandError("nothing was done", of_interrupt(interrupt)[1]) from None
    if not typed:  # Ctrl-D
        sys.stderr.write("\n")
        raise CommandError("nothing was done", Exit.INTERRUPTED)
    if typed.strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done", Exit.USAGE)


def _typed(prompt: str) -> str:
    """The line that somebody types.

    A signal ends the wait whenever it comes. One that comes just before a plain read would be noticed after it alone,
    which may be never.
    """
    ears, mouth = socket.socketpair()
    with ears, mouth:
        mouth.setblocking(False)
        before = signal.set_wakeup_fd(mouth.fileno())
        try:
            sys.stderr.write(prompt)
            sys.stderr.flush()
            with suppress(OSError):  # what Windows has no such wait for is read plainly
                select.select([sys.stdin, ears], [], [])
        finally:
            signal.set_wakeup_fd(before)
    return sys.stdin.readline()
