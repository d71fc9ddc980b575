"""All stores of one database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from phyxius.adapters._attestations import SqlAttestations
from phyxius.adapters._database import Database
from phyxius.adapters._journal_store import SqlJournalStore
from phyxius.adapters._orders import plain_order
from phyxius.adapters._phase_store import SqlPhaseStore
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.clock import Clock
from phyxius.journal import Journal
from phyxius.migration import MigrationSpec, SpecError

P = TypeVar("P", bound=str)


class SqlStores:
    """The stores of one database. They work while the context is open.

    Attributes:
        journal_store: What all processes recorded there.
        attestations: What people signed there.
    """

    def __init__(self, database: Database, max_window_events: int) -> None:
        self._database = database
        self._tables = SqlRecorderTables(database)
        self.journal_store: SqlJournalStore = SqlJournalStore(database, max_window_events)
        self.attestations: SqlAttestations = SqlAttestations(database)

    @property
    def clock(self) -> Clock:
        """The clock of this process, which its journals must have, too."""
        return self._database.clock

    async def __aenter__(self) -> Self:
        """Open the database.

        Raises:
            Exception: The error of the stores, if the database cannot be used as it is.
        """
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what runs end, and close what was opened. It can be opened again."""
        await self._database.close()

    def phase_store(self, spec: MigrationSpec[P], *, initial: P | None = None) -> SqlPhaseStore:
        """The phase of a migration.

        Args:
            spec: The migration; the order of its phases is recorded at the first use, and held to from then on.
            initial: Where it begins when the database does not know it yet; at the first phase unless given.

        Raises:
            SpecError: The spec does not have the phase `initial`.
        """
        order = plain_order(spec)
        if initial is not None and initial not in order:
            raise SpecError(f"initial must be one of {list(order)}, not {initial!r}", spec.name)
        return SqlPhaseStore(self._database, spec, order[0] if initial is None else str.__str__(initial))

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
        """Keeps what a journal records in the database: an async context manager around the life of the process.

        Args:
            journal: The journal of this process.
            name: How people know this process: it is what a refusal names.
            durable: The names whose calls are stored before they run, so that not even a crash can hide one. Their
                calls have to be recorded with `recorded`; a name that nothing would record is misspelt, and has no
                witness. Each call costs a transaction, and while the database cannot be written it
                raises the error of the stores instead of running.
            audit_only: Says that this process runs no handlers, as a command-line tool: it has nothing to declare
                and leaves no gap. If it records a call all the same, that is over.
            lease: How long it counts as alive after it was last heard of; what a crash leaves as a gap.
            max_pending: How many events may wait to be stored; more are a loss, and a gap.

        Raises:
            SpecError: The journal has another clock, or an argument makes no sense.
        """
        if journal.clock is not self.clock:
            raise SpecError("the journal has another clock than the stores: open them with clock=journal.clock")
        return Recorder(
            self._tables,
            journal,
            name=name,
            durable=durable,
            audit_only=audit_only,
            lease=lease,
            max_pending=max_pending,
        )
