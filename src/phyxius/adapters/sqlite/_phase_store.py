"""The phase of a migration, in a file."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from phyxius.adapters._arguments import check_text
from phyxius.adapters._recorder import has_recorder
from phyxius.adapters._records import evidence_text
from phyxius.adapters._signatures import relied_on
from phyxius.adapters.sqlite._database import Database
from phyxius.adapters.sqlite._orders import (
    PassedPhasesChangedError,
    Recorded,
    known,
    may_read,
    pin,
    plain_order,
    recorded,
)
from phyxius.adapters.sqlite._signing import signatures_of
from phyxius.clock import Clock, Instant
from phyxius.fp import Result, err, ok
from phyxius.journal import to_json_value
from phyxius.migration import (
    AttemptFencedError,
    Committed,
    Conflict,
    EvidenceFailure,
    EvidenceSnapshot,
    EvidenceWithdrawnError,
    MigrationSpec,
    SpecChangedError,
    SpecError,
    Transition,
)

_logger = logging.getLogger("phyxius.adapters")


class FilePhaseStore:
    """A `PhaseStore` in a file, shared by the processes of one machine; made by `FileStores.phase_store`.

    Each method runs in one transaction, in a thread. Cancelled, it has happened as a whole or not at all; ask
    `resolve` which. All raise `FileStoreError` if the file cannot be used.
    """

    scope: Literal["fleet"] = "fleet"

    def __init__(self, database: Database, clock: Clock, spec: MigrationSpec[Any], initial: str) -> None:
        self._database = database
        self._clock = clock
        self._migration = spec.name
        self._phases = plain_order(spec)
        self._initial = initial

    @property
    def migration(self) -> str:
        """The name of the migration."""
        return self._migration

    @property
    def clock(self) -> Clock:
        """The clock that stamps the transitions."""
        return self._clock

    async def current(self) -> str:
        """The phase now. The first call for a migration records it, at its initial phase.

        Raises:
            SpecChangedError: The file recorded another order of phases; see `amend`. A build with an order from
                before an amendment still gets its answer while both agree on the way up to the current phase.
        """
        found = await self._database.read(self._look)
        if found is None:
            found = await self._database.write(self._record)
        return found.phase

    async def check_order(self) -> None:
        """Do nothing, unless the recorded order of the phases is another than that of the spec.

        Raises:
            SpecChangedError: It is, and `try_advance` would say so, too.
        """
        found = await self._database.read(lambda connection: recorded(connection, self._migration))
        if found is not None and found.phases != self._phases:
            raise SpecChangedError(found.phases, self._phases)

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        """Compare and set: the phase, its version and the transition with its evidence, in one transaction.

        Raises:
            SpecChangedError: The file recorded another order of phases; see `amend`.
            AttemptFencedError: The attempt was resolved as not committed.
            EvidenceWithdrawnError: A signature that the evidence relied on was revoked meanwhile, or has expired.
            PayloadError: A payload is no JSON, or takes more than 16 KiB.
        """
        payloads = evidence_text(evidence)
        if not has_recorder(self._database.identity):
            _logger.warning(
                "this process keeps no record in %s, so the audit of this advance() stays in its memory; enter "
                "stores.recorder(journal, name=...), with audit_only=True if it runs no handlers",
                self._database.path,
            )

        def commit(connection: sqlite3.Connection) -> Result[Committed, Conflict]:
            found = self._pinned(connection)
            if found.phases != self._phases:
                raise SpecChangedError(found.phases, self._phases)
            earlier = connection.execute("SELECT version FROM transitions WHERE attempt = ?", [evidence.attempt])
            row = earlier.fetchone()
            if row is not None and row[0] is None:
                raise AttemptFencedError(evidence.attempt)
            if row is not None or found.phase != from_phase:
                return err(Conflict(found.phase))
            now = self._clock.now()
            self._check_signatures(connection, found, to_phase, evidence, now)
            version = found.version + 1
            connection.execute(
                "UPDATE migrations SET phase = ?, version = ? WHERE name = ? AND phase = ? AND version = ?",
                [to_phase, version, self._migration, from_phase, found.version],
            )
            connection.execute(
                "INSERT INTO transitions (attempt, migration, version, from_phase, to_phase, at_ns, evidence)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [evidence.attempt, self._migration, version, from_phase, to_phase, now.wall_ns, payloads],
            )
            return ok(Committed(now))

        return await self._database.write(commit)

    async def resolve(self, attempt: str, /) -> Committed | None:
        """What became of an attempt. It is a fence: after None, the attempt can never commit."""

        def fence(connection: sqlite3.Connection) -> Committed | None:
            self._pinned(connection)
            connection.execute(
                "INSERT INTO transitions (attempt, migration, at_ns) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [attempt, self._migration, self._clock.now().wall_ns],
            )
            (version, at_ns) = connection.execute(
                "SELECT version, at_ns FROM transitions WHERE attempt = ?", [attempt]
            ).fetchone()
            return None if version is None else Committed(Instant(wall_ns=at_ns, mono_ns=None))

        return await self._database.write(fence)

    async def history(self) -> Sequence[Transition]:
        """The transitions, oldest first, each with its evidence."""

        def read(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(
                "SELECT from_phase, to_phase, at_ns, attempt, evidence FROM transitions"
                " WHERE migration = ? AND version IS NOT NULL ORDER BY version",
                [self._migration],
            ).fetchall()

        return tuple(
            Transition(from_phase, to_phase, Instant(wall_ns=at_ns, mono_ns=None), attempt, json.loads(evidence))
            for from_phase, to_phase, at_ns, attempt, evidence in await self._database.read(read)
        )

    async def amend(self, spec: MigrationSpec[Any], *, who: str, why: str) -> int:
        """Adopt another order of phases: those still ahead may be added, changed, reordered or dropped.

        Run it before the new build is rolled out. Builds with the earlier order read on until the migration enters
        a phase that is new to them, and do not advance any more. Signatures for the earlier order stop counting.

        Args:
            spec: The spec with the new order, of the same name.
            who: Who decided it.
            why: For what reason; both are kept.

        Returns:
            The revision of the order that holds now; the same as before if it is the same order.

        Raises:
            SpecError: The spec is of another migration, `who` or `why` is empty, or the file does not know the
                migration yet: nobody has read its phase.
            PayloadError: `who` or `why` holds what databases refuse.
            PassedPhasesChangedError: It changes a phase that was passed, or the current one.
        """
        if spec.name != self._migration:
            raise SpecError(f'this is the store of "{self._migration}", so it cannot adopt that order', spec.name)
        at = (spec.name,)
        who, why = check_text(to_json_value(who), "who", at), check_text(to_json_value(why), "why", at)
        declared = plain_order(spec)

        def adopt(connection: sqlite3.Connection) -> int:
            found = known(connection, self._migration)
            if found.phases == declared:
                return found.revision
            if declared[: len(found.passed())] != found.passed():
                raise PassedPhasesChangedError(found.phases, declared, found.phase)
            revision = found.revision + 1
            connection.execute(
                "INSERT INTO orders (migration, revision, phases, who, why, at_ns) VALUES (?, ?, ?, ?, ?, ?)",
                [self._migration, revision, json.dumps(declared), who, why, self._clock.now().wall_ns],
            )
            connection.execute("UPDATE migrations SET revision = ? WHERE name = ?", [revision, self._migration])
            return revision

        return await self._database.write(adopt)

    def _look(self, connection: sqlite3.Connection) -> Recorded | None:
        found = recorded(connection, self._migration)
        if found is not None and not may_read(connection, self._migration, found, self._phases):
            raise SpecChangedError(found.phases, self._phases)
        return found

    def _record(self, connection: sqlite3.Connection) -> Recorded:
        self._pinned(connection)
        found = self._look(connection)
        assert found is not None
        return found

    def _pinned(self, connection: sqlite3.Connection) -> Recorded:
        found = recorded(connection, self._migration)
        if found is not None:
            return found
        return pin(connection, self._migration, self._phases, self._initial, self._clock.now().wall_ns)

    def _check_signatures(
        self,
        connection: sqlite3.Connection,
        found: Recorded,
        to_phase: str,
        evidence: EvidenceSnapshot,
        now: Instant,
    ) -> None:
        """Refuse evidence that relies on a signature which does not count any more."""
        (file,) = connection.execute("SELECT file FROM journal").fetchone()
        for source, reliance in relied_on(evidence.payloads).items():
            if reliance.file != file:
                raise _withdrawn(source, None, "it is in another file than the phase")
            signatures = {each.id: each for each in signatures_of(connection, self._migration, to_phase, source)}
            for id_, until in reliance.until.items():
                signature = signatures.get(id_)
                doubt = "it is gone" if signature is None else signature.doubt(now, found.revision)
                if doubt is None and until is not None and now.wall >= datetime.fromisoformat(until):
                    doubt = f"it counted until {until}"
                if doubt is not None:
                    raise _withdrawn(source, signature.signer if signature else None, doubt)


def _withdrawn(source: str, signer: str | None, why: str) -> EvidenceWithdrawnError:
    reason = f"the signature of {signer or 'somebody'} stopped counting before the commit: {why}; have it signed again"
    return EvidenceWithdrawnError({source: EvidenceFailure(reason, {"signer": signer})})
