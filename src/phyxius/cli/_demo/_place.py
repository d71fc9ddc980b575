"""Where the demonstration has its files, and what becomes of them."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Line, Screen

_PREFIX, _OWNED = "phyxius-demo-", "owned.lock"


def place(screen: Screen, keep: Path | None) -> AbstractContextManager[Path]:
    """A directory for the files, whose fate is told in the end.

    Args:
        screen: Where that is told.
        keep: The one to make and to leave there; None for one that is removed.
    """
    return _passing(screen) if keep is None else _kept(screen, keep)


@contextmanager
def _kept(screen: Screen, keep: Path) -> Iterator[Path]:
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise CommandError(f"{keep} is there already; name a new directory, or an empty one", Exit.USAGE)
    keep.mkdir(parents=True, exist_ok=True)
    directory = keep.absolute()
    quoted = shlex.quote(str(directory))
    with ExitStack() as stack:
        stack.callback(
            screen.note, f"{quoted} holds what the demonstration wrote until it broke off; it may be deleted"
        )
        yield directory
        stack.pop_all()
    _tell(screen, "kept", f"{quoted}, with the mended shop.py; look around there:")
    command = Line.of(f"cd {quoted} && {_command()} status", indent=10, style="bold")
    screen.show([command], wrap=False)  # as it has to be pasted


def _command() -> str:
    """What calls the command from any directory, even where `.venv/bin/phyxius` was typed."""
    return "phyxius" if shutil.which("phyxius") else f"{shlex.quote(sys.executable)} -m phyxius_cli"


@contextmanager
def _passing(screen: Screen) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        directory = Path(name)
        _remove_orphans(directory)
        with (directory / "new").open("w") as file:
            if _locked(file):
                Path(file.name).rename(directory / _OWNED)  # locked from its first moment under this name
            yield directory
    _tell(screen, "removed", "all its files; with --keep DIRECTORY they stay, and you can look around")


def _tell(screen: Screen, what: str, text: str) -> None:
    screen.say(text, lead=f"{what:<10}", lead_style="bold")


def _remove_orphans(ours: Path) -> None:
    """Remove what was left by demonstrations that were killed: of the same user, and with a lock that nobody holds."""
    owner = ours.lstat().st_uid
    for lock in ours.parent.glob(f"{_PREFIX}*/{_OWNED}"):
        with suppress(OSError):  # one that another demonstration removes at this moment; the next one comes by again
            if lock.parent.lstat().st_uid == owner and lock.is_file() and not lock.is_symlink():
                with lock.open() as file:
                    if _locked(file):
                        shutil.rmtree(lock.parent, ignore_errors=True)


def _locked(file: TextIO) -> bool:
    """Whether this process alone has a lock on the file now, until it closes it or dies."""
    try:
        import fcntl  # which Windows lacks: nothing is removed there

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
