"""The phase of a migration, in a database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from phyxius.adapters._arguments import check_text
from phyxius.adapters._attestations import signatures_of
from phyxius.adapters._database import Connection, Database, name_of
from phyxius.adapters._moment import now_in
from phyxius.adapters._orders import (
    AmendedMeanwhileError,
    Order,
    PassedPhasesChangedError,
    Recorded,
    known,
    may_read,
    pinned,
    plain_order,
    recorded,
)
from phyxius.adapters._recorder import why_unrecorded
from phyxius.adapters._records import evidence_text
from phyxius.adapters._signatures import relied_on
from phyxius.clock import Clock, Instant
from phyxius.fp import Result, err, ok
from phyxius.journal import Journal, to_json_value
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


class SqlPhaseStore:
    """A `PhaseStore` in a database, shared by all processes that use it; made by the `phase_store` of the stores.

    Each method is one transaction. Cancelled, it has happened as a whole or not at all; ask `resolve` which. All raise
    the error of the stores if the database cannot be used.
    """

    scope: Literal["fleet"] = "fleet"

    def __init__(self, database: Database, spec: MigrationSpec[Any], initial: str) -> None:
        self.database = database
        self._migration = spec.name
        self._phases = plain_order(spec)
        self._initial = initial

    @property
    def migration(self) -> str:
        """The name of the migration."""
        return self._migration

    @property
    def clock(self) -> Clock:
        """The clock of this process."""
        return self.database.clock

    async def current(self) -> str:
        """The phase now. The first call for a migration records it, at its initial phase.

        Raises:
            SpecChangedError: The database recorded another order of phases; see `amend`. A build with an order from
                before an amendment still gets its answer while both agree on the way up to the current phase.
        """
        found = await self.database.read(self._look)
        if found is None:
            found = await self.database.write(self._record)
        return found.phase

    async def check_order(self) -> None:
        """Do nothing, unless the recorded order of the phases is another than that of the spec.

        Raises:
            SpecChangedError: It is, and `try_advance` would say so, too.
        """
        found = await self.database.read(lambda connection: recorded(connection, self._migration))
        if found is not None and found.phases != self._phases:
            raise SpecChangedError(found.phases, self._phases)

    def check_journal(self, journal: Journal[Any], /) -> None:
        """Do nothing, unless no recorder of this process keeps the journal in this database.

        Raises:
            Exception: The error of the stores: the audit of this process's calls of `advance()` ends with it.
        """
        if why := why_unrecorded(self.database.identity, journal):
            raise self.database.error("not_recorded", why)

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        """Compare and set: the phase, its version and the transition with its evidence, in one transaction.

        Raises:
            SpecChangedError: The database recorded another order of phases; see `amend`.
            AttemptFencedError: The attempt was resolved as not committed.
            EvidenceWithdrawnError: A signature that the evidence relied on was revoked meanwhile, or has expired.
            EvidenceOvertakenError: The database had it wait for so long that what the sources said is too old.
            PayloadError: A payload is no JSON, or takes more than 16 KiB.
        """
        payloads = evidence_text(evidence)

        def commit(connection: Connection) -> Result[Committed, Conflict]:
            found = self._pinned(connection)
            if found.phases != self._phases:
                raise SpecChangedError(found.phases, self._phases)
            row = connection.execute(
                "SELECT version FROM {transitions} WHERE attempt = :attempt", {"attempt": evidence.attempt}
            ).fetchone()
            if row is not None and row[0] is None:
                raise AttemptFencedError(evidence.attempt)
            if row is not None or found.phase != from_phase:
                return err(Conflict(found.phase))
            now = now_in(self.database, connection)
            self._check_signatures(connection, found, to_phase, evidence, now)
            values = {
                "attempt": evidence.attempt,
                "migration": self._migration,
                "before": found.version,
                "version": found.version + 1,
                "from_phase": from_phase,
                "to_phase": to_phase,
                "at": now.wall_ns,
                "evidence": payloads,
            }
            connection.execute(
                "UPDATE {migrations} SET phase = :to_phase, version = :version"
                " WHERE name = :migration AND phase = :from_phase AND version = :before",
                values,
            )
            connection.execute(
                "INSERT INTO {transitions} (attempt, migration, version, from_phase, to_phase, at_ns, evidence)"
                " VALUES (:attempt, :migration, :version, :from_phase, :to_phase, :at, :evidence)",
                values,
            )
            evidence.check_standing()  # what went before may have waited for others
            return ok(Committed(now))

        return await self.database.write(commit)

    async def resolve(self, attempt: str, /) -> Committed | None:
        """What became of an attempt. It is a fence: after None, the attempt can never commit."""

        def fence(connection: Connection) -> Committed | None:
            self._pinned(connection)
            values = {
                "attempt": attempt,
                "migration": self._migration,
                "at": now_in(self.database, connection).wall_ns,
            }
            connection.execute(
                "INSERT INTO {transitions} (attempt, migration, at_ns) VALUES (:attempt, :migration, :at)"
                " {or_nothing:attempt}",
                values,
            )
            (version, at_ns) = connection.execute(
                "SELECT version, at_ns FROM {transitions} WHERE attempt = :attempt", values
            ).fetchone()
            return None if version is None else Committed(Instant(wall_ns=at_ns, mono_ns=None))

        return await self.database.write(fence)

    async def history(self) -> Sequence[Transition]:
        """The transitions, oldest first, each with its evidence."""

        def read(connection: Connection) -> Sequence[Any]:
            return connection.execute(
                "SELECT from_phase, to_phase, at_ns, attempt, evidence FROM {transitions}"
                " WHERE migration = :migration AND version IS NOT NULL ORDER BY version",
                {"migration": self._migration},
            ).fetchall()

        return tuple(
            Transition(from_phase, to_phase, Instant(wall_ns=at_ns, mono_ns=None), attempt, json.loads(evidence))
            for from_phase, to_phase, at_ns, attempt, evidence in await self.database.read(read)
        )

    async def orders(self) -> Sequence[Order]:
        """The orders of the phases that the migration was given, oldest first; none before its phase was first read."""

        def read(connection: Connection) -> Sequence[Any]:
            return connection.execute(
                "SELECT revision, phases, at_ns, who, why FROM {orders} WHERE migration = :migration ORDER BY revision",
                {"migration": self._migration},
            ).fetchall()

        return tuple(
            Order(revision, tuple(json.loads(phases)), Instant(wall_ns=at_ns, mono_ns=None), who, why)
            for revision, phases, at_ns, who, why in await self.database.read(read)
        )

    async def amend(self, spec: MigrationSpec[Any], *, who: str, why: str, revision: int | None = None) -> int:
        """Adopt another order of phases: those still ahead may be added, changed, reordered or dropped.

        Run it before the new build is rolled out. Builds with the earlier order read on until the migration enters
        a phase that is new to them, and do not advance any more. Signatures for the earlier order stop counting.

        Args:
            spec: The spec with the new order, of the same name.
            who: Who decided it.
            why: For what reason; both are kept.
            revision: The revision of the order that was looked at and is to be replaced; whichever holds unless given.

        Returns:
            The revision of the order that holds now; the same as before if it is the same order.

        Raises:
            SpecError: The spec is of another migration, `who` or `why` is empty, or the database does not know the
                migration yet: nobody has read its phase.
            PayloadError: `who` or `why` holds what databases refuse.
            PassedPhasesChangedError: It changes a phase that was passed, or the current one.
            AmendedMeanwhileError: Another order than that of `revision` holds by now.
        """
        if spec.name != self._migration:
            raise SpecError(f'this is the store of "{self._migration}", so it cannot adopt that order', spec.name)
        at = (spec.name,)
        who, why = check_text(to_json_value(who), "who", at), check_text(to_json_value(why), "why", at)
        declared = plain_order(spec)

        def adopt(connection: Connection) -> int:
            found = known(connection, self._migration)
            if found.phases == declared:
                return found.revision
            if revision not in {None, found.revision}:
                raise AmendedMeanwhileError(found.phases, declared, found.revision)
            if declared[: len(found.passed())] != found.passed():
                raise PassedPhasesChangedError(found.phases, declared, found.phase)
            values = {
                "migration": self._migration,
                "revision": found.revision + 1,
                "phases": json.dumps(declared),
                "who": who,
                "why": why,
                "at": now_in(self.database, connection).wall_ns,
            }
            connection.execute(
                "INSERT INTO {orders} (migration, revision, phases, who, why, at_ns)"
                " VALUES (:migration, :revision, :phases, :who, :why, :at)",
                values,
            )
            connection.execute("UPDATE {migrations} SET revision = :revision WHERE name = :migration", values)
            return found.revision + 1

        return await self.database.write(adopt)

    def _look(self, connection: Connection) -> Recorded | None:
        found = recorded(connection, self._migration)
        if found is not None and not may_read(connection, self._migration, found, self._phases):
            raise SpecChangedError(found.phases, self._phases)
        return found

    def _record(self, connection: Connection) -> Recorded:
        self._pinned(connection)
        found = self._look(connection)
        assert found is not None
        return found

    def _pinned(self, connection: Connection) -> Recorded:
        def now_ns() -> int:
            return now_in(self.database, connection).wall_ns

        return pinned(connection, self._migration, self._phases, self._initial, now_ns)

    def _check_signatures(
        self,
        connection: Connection,
        found: Recorded,
        to_phase: str,
        evidence: EvidenceSnapshot,
        now: Instant,
    ) -> None:
        """Refuse evidence that relies on a signature which does not count any more."""
        store = name_of(connection)
        for source, reliance in relied_on(evidence.payloads).items():
            if reliance.store != store:
                raise _withdrawn(source, None, "it is in another database than the phase")
            signatures = {each.id: each for each in signatures_of(connection, self._migration, to_phase, source)}
            for id_, until in reliance.until.items():
                signature = signatures.get(id_)
                doubt = "it is gone" if signature is None else signature.doubt(now, found.revision, found.phase)
                if doubt is None and until is not None and now.wall >= datetime.fromisoformat(until):
                    doubt = f"it counted until {until}"
                if doubt is not None:
                    raise _withdrawn(source, signature.signer if signature else None, doubt)


def _withdrawn(source: str, signer: str | None, why: str) -> EvidenceWithdrawnError:
    reason = f"the signature of {signer or 'somebody'} stopped counting before the commit: {why}; have it signed again"
    return EvidenceWithdrawnError({source: EvidenceFailure(reason, {"signer": signer})})
