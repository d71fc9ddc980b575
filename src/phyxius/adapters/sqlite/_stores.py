"""All stores of one file."""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from phyxius.adapters._arguments import check_count, check_duration
from phyxius.adapters._recorder import Recorder
from phyxius.adapters.sqlite._attestations import FileAttestations
from phyxius.adapters.sqlite._database import Database
from phyxius.adapters.sqlite._journal_store import FileJournalStore
from phyxius.adapters.sqlite._orders import plain_order
from phyxius.adapters.sqlite._phase_store import FilePhaseStore
from phyxius.adapters.sqlite._recordings import FileRecorderTables
from phyxius.clock import Clock, create_system_clock
from phyxius.journal import Journal
from phyxius.migration import MigrationSpec, SpecError

P = TypeVar("P", bound=str)


class FileStores:
    """The stores of one file, made by `open_file_stores`. They work while the context is open.

    Attributes:
        journal_store: What all processes recorded there.
        attestations: What people signed there.
    """

    def __init__(self, database: Database, clock: Clock, max_window_events: int) -> None:
        self._database = database
        self._clock = clock
        self._tables = FileRecorderTables(database)
        self.journal_store: FileJournalStore = FileJournalStore(database, clock, max_window_events)
        self.attestations: FileAttestations = FileAttestations(database, clock)

    @property
    def path(self) -> str:
        """The file."""
        return self._database.path

    @property
    def clock(self) -> Clock:
        """The clock of all its stores."""
        return self._clock

    async def __aenter__(self) -> FileStores:
        """Open the file, make it if it is not there, bring it to the version of this library.

        Raises:
            FileStoreError: The file cannot be used: it is another's, newer, read-only, locked, corrupt, ...
        """
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what runs end, and close the file. It can be opened again."""
        await self._database.close()

    def phase_store(self, spec: MigrationSpec[P], *, initial: P | None = None) -> FilePhaseStore:
        """The phase of a migration.

        Args:
            spec: The migration; the order of its phases is recorded at the first use, and held to from then on.
            initial: Where it begins when the file does not know it yet; at the first phase unless given.

        Raises:
            SpecError: The spec does not have the phase `initial`.
        """
        order = plain_order(spec)
        if initial is not None and initial not in order:
            raise SpecError(f"initial must be one of {list(order)}, not {initial!r}", spec.name)
        return FilePhaseStore(self._database, self._clock, spec, order[0] if initial is None else str.__str__(initial))

    def recorder(
        self,
        journal: Journal[Any],
        *,
        name: str,
        durable: Collection[str] = (),
        audit_only: bool = False,
        lease: timedelta = timedelta(seconds=30),
        max_pending: int = 10_000,
    ) -> Recorder:
        """Keeps what a journal records in the file: an async context manager around the life of the process.

        Args:
            journal: The journal of this process.
            name: How people know this process: it is what a refusal names.
            durable: The names whose calls are stored before they run, so that not even a crash can hide one. Their
                calls have to be recorded with `recorded`; a name that nothing would record is misspelt, and has no
                witness. Each call costs a transaction, and while the file cannot be written it raises
                `FileStoreError` instead of running.
            audit_only: Says that this process runs no handlers, as a command-line tool: it has nothing to declare
                and leaves no gap. If it records a call all the same, that is over.
            lease: How long it counts as alive after it was last heard of; what a crash leaves as a gap.
            max_pending: How many events may wait to be stored; more are a loss, and a gap.

        Raises:
            SpecError: The journal has another clock, or an argument makes no sense.
        """
        if journal.clock is not self._clock:
            raise SpecError("the journal has another clock than the stores: open_file_stores(..., clock=journal.clock)")
        return Recorder(
            self._tables,
            journal,
            name=name,
            durable=durable,
            audit_only=audit_only,
            lease=lease,
            max_pending=max_pending,
        )


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
    return FileStores(Database(str(Path(path).absolute()), clock, lock_timeout, create), clock, max_window_events)
