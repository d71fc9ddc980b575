"""How a command ends."""

from __future__ import annotations

from enum import IntEnum

import attrs

from phyxius.migration import SpecChangedError, SpecError, UnknownPhaseError


class Exit(IntEnum):
    """The exit codes, so that cron can act on them."""

    DONE = 0
    BROKEN = 1
    USAGE = 2
    ALREADY_THERE = 3
    ERRORED = 4
    LOST = 5
    UNKNOWN = 6
    CHANGED = 7
    REFUSED = 75  # what sysexits.h calls a temporary failure
    INTERRUPTED = 130
    TERMINATED = 143


@attrs.define(eq=False, slots=False)
class CommandError(Exception):
    """What keeps a command from its work: one line that says what is wrong and what to do.

    Attributes:
        message: That line.
        exit: How the command ends.
    """

    message: str
    exit: Exit = Exit.BROKEN

    def __str__(self) -> str:
        return self.message


def of_error(error: Exception) -> Exit:
    """How a command ends that an error keeps from its work."""
    match error:
        case CommandError():
            return error.exit
        case SpecChangedError() | UnknownPhaseError():
            return Exit.CHANGED
        case SpecError():
            return Exit.USAGE
        case _:
            return Exit.BROKEN


class Terminated(KeyboardInterrupt):
    """SIGTERM: as an interrupt, so that what runs ends in order."""


def of_interrupt(interrupt: KeyboardInterrupt | SystemExit) -> tuple[str, Exit]:
    """What an interrupt is called, and how a command ends that it breaks off; the application has no say in that."""
    if isinstance(interrupt, SystemExit):
        return "ended by the application", Exit.BROKEN
    if isinstance(interrupt, Terminated):
        return "terminated", Exit.TERMINATED
    return "interrupted", Exit.INTERRUPTED
