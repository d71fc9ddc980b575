"""Opening what migrations are bound to, for a tool that has nothing but them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from phyxius.adapters._attestations import SignedOff, SqlAttestations
from phyxius.adapters._database import Database
from phyxius.adapters._journal_store import SqlJournalStore
from phyxius.adapters._phase_store import SqlPhaseStore
from phyxius.adapters._recorder import Recorder, why_unrecorded
from phyxius.adapters._tables import SqlRecorderTables
from phyxius.migration import AttestationEvidence, Migration


@asynccontextmanager
async def opened_stores(*migrations: Migration[Any], name: str, create: bool = False) -> AsyncIterator[None]:
    """Open the databases that migrations are bound to, and keep their audit there, for a tool that runs no handlers.

    What is open already stays as it is, and so does a journal that a recorder keeps. Stores that are not of this
    library are taken as they are.

    Args:
        migrations: Made by `create_migration`, over the stores of `open_file_stores` or `open_stores`.
        name: How people know the tool: it is what a refusal names.
        create: Whether to make a file or tables that are not there. By a wrong path or URL that would be a new
            migration, at its first phase.

    Raises:
        Exception: The error of the stores, if a database cannot be used as it is.
    """
    async with AsyncExitStack() as stack:
        for migration in migrations:
            for database in _databases(migration):
                if not database.is_open:
                    await database.open(create=create)
                    stack.push_async_callback(database.close)
        for migration in migrations:
            for database in _databases(migration):
                if why_unrecorded(database.identity, migration.journal):
                    recorder = Recorder(SqlRecorderTables(database), migration.journal, name=name, audit_only=True)
                    await stack.enter_async_context(recorder)
        yield


def _databases(migration: Migration[Any]) -> Iterator[Database]:
    for part in (migration.phase_store, migration.journal_store, *attestations_of(migration).values()):
        if isinstance(part, SqlPhaseStore | SqlJournalStore | SqlAttestations):
            yield part.database


def attestations_of(migration: Migration[Any]) -> dict[tuple[str, str], SqlAttestations]:
    """Where the signatures are that a migration asks for, by the phase that they let it enter, and the source."""
    order = tuple(str.__str__(phase) for phase in migration.spec.order)
    return {
        # What the first phase asks for is asked when it is left.
        (order[1] if phase == order[0] else str.__str__(phase), source): each.check.attestations
        for phase, phase_spec in migration.spec.phases.items()
        for source, each in phase_spec.evidence.items()
        if isinstance(each, AttestationEvidence) and isinstance(each.check, SignedOff)
    }
