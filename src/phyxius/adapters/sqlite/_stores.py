"""All stores of one file."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from phyxius.adapters._arguments import check_count, check_duration
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlite._database import FileDatabase
from phyxius.clock import Clock, create_system_clock
from phyxius.migration import SpecError


class FileStores(SqlStores):
    """The stores of one file, made by `open_file_stores`. They work while the context is open.

    To enter it raises `FileStoreError` if the file cannot be used: it is another's, newer, read-only, corrupt, ...
    """

    @property
    def path(self) -> str:
        """The file."""
        return self._database.place


def open_file_stores(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    clock: Clock | None = None,
    lock_timeout: timedelta = timedelta(seconds=5),
    max_window_events: int = 200_000,
) -> FileStores:
    """The stores of a migration in one SQLite file, for the processes of one machine; an async context manager.

    Nothing is opened yet, so it can stand at module level, where `stores.attestations.signed_off()` is needed.

    Args:
        path: The file; it is made if it is not there, and must not be on a network file system. A relative path
            is taken from the working directory of now.
        create: Whether to make a file that is not there. Pass False in tools, and everywhere once the file is in use:
            else a wrong path is a new migration, at its first phase.
        clock: The journal's clock; the system clock unless given.
        lock_timeout: How long a transaction waits for the lock of another process, in real time.
        max_window_events: The most events of a window that has no `limit`.

    Raises:
        SpecError: A path that is no file's, a time that is not positive, a bound that is not.
    """
    path = os.fsdecode(path)
    if not path or path == ":memory:" or path.startswith("file:") or "://" in path or "\0" in path:
        raise SpecError(f"a path to a file is wanted, not {path!r}; in memory use create_memory_phase_store()")
    check_duration(lock_timeout, "lock_timeout")
    check_count(max_window_events, "max_window_events")
    clock = create_system_clock() if clock is None else clock
    return FileStores(FileDatabase(str(Path(path).absolute()), clock, lock_timeout, create), max_window_events)
