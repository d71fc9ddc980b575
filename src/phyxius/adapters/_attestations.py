"""Signatures in a database, and the evidence that reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import attrs

from phyxius.adapters._arguments import check_duration, check_text
from phyxius.adapters._database import Connection, Database, name_of
from phyxius.adapters._moment import now_in
from phyxius.adapters._orders import Recorded, known, lock, plain_order, recorded
from phyxius.adapters._signatures import Signature, Terms, person_of
from phyxius.clock import Instant
from phyxius.fp import Result
from phyxius.journal import to_json_value
from phyxius.migration import (
    AttestationEvidence,
    EvidenceFailure,
    MigrationSpec,
    SpecChangedError,
    SpecError,
    attestation,
    current_attempt,
)

P = TypeVar("P", bound=str)
_LONGEST_NOTE = 1_000


class SqlAttestations:
    """People's signatures in a database; the `attestations` of the stores.

    A signature is for one subject: a migration, the transition into one phase, one evidence source, and the order
    of phases that holds when it is given. It serves nothing else. All methods raise the error of the stores if the
    database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def signed_off(
        self, quorum: int = 1, signers: Collection[str] | None = None, valid_for: timedelta | None = None
    ) -> AttestationEvidence[dict[str, object]]:
        """Evidence that enough people signed for exactly the step that is being taken.

        It takes its subject from the `advance()` that asks. Up to the commit a signature can be revoked: one that
        stops counting in between stops the commit.

        Args:
            quorum: How many people have to sign; each counts once.
            signers: Who may sign; everybody unless given.
            valid_for: How old a signature may be; of any age unless given.

        Raises:
            SpecError: A quorum that nobody could reach, or a time that is not positive.
        """
        return attestation(SignedOff(Terms.of(quorum, signers, valid_for), self))

    async def sign(
        self,
        spec: MigrationSpec[P],
        *,
        to: P,
        source: str,
        signer: str,
        note: str = "",
        valid_for: timedelta | None = None,
    ) -> Signature:
        """Sign for a source of the transition into a phase.

        Args:
            spec: The migration.
            to: The phase that the transition enters.
            source: The attestation source that guards it.
            signer: Who signs. This library does not check who that is: your tool does.
            note: What was looked at, for those who read the audit.
            valid_for: How long the signature counts; for ever unless given.

        Raises:
            SpecError: The spec has no such phase or source, the phase is entered already, the signer is empty or not
                among those who may sign, the note too long, or the database does not know the migration yet: nobody has
                read its phase.
            SpecChangedError: The database recorded another order of phases.
            PayloadError: The signer or the note holds what databases refuse.
        """
        phase, source, terms = _subject(spec, to, source)
        signer, note = check_text(to_json_value(signer), "signer", (spec.name, phase, source)), to_json_value(note)
        if terms is not None and terms.signers is not None and signer not in terms.signers:
            may = ", ".join(sorted(terms.signers))
            raise SpecError(f"{signer!r} is not among those who may sign: {may}", spec.name, phase, source)
        if len(signer) + len(note) > _LONGEST_NOTE:
            raise SpecError(f"a note may have {_LONGEST_NOTE} characters: it goes into the evidence", spec.name, phase)
        if valid_for is not None:
            check_duration(valid_for, "valid_for", at=(spec.name, phase, source))

        def write(connection: Connection) -> Signature:
            now = now_in(self.database, connection)
            found = self._recorded(connection, spec)
            if phase in found.passed():
                raise SpecError(f'the migration is at "{found.phase}", so this was entered already', spec.name, phase)
            expires = None if valid_for is None else now.shifted(valid_for)
            before = found.phases[found.phases.index(phase) - 1]
            id_ = connection.insert(
                "INSERT INTO {signatures} (migration, revision, from_phase, to_phase, source, signer, note, signed_ns,"
                " expires_ns) VALUES (:migration, :revision, :from_phase, :to_phase, :source, :signer, :note, :signed,"
                " :expires)",
                {
                    "migration": spec.name,
                    "revision": found.revision,
                    "from_phase": before,
                    "to_phase": phase,
                    "source": source,
                    "signer": signer,
                    "note": note,
                    "signed": now.wall_ns,
                    "expires": None if expires is None else expires.wall_ns,
                },
            )
            return Signature(id_, spec.name, found.revision, before, phase, source, signer, note, now, expires)

        return await self.database.write(write)

    async def revoke(
        self, spec: MigrationSpec[P], *, to: P, source: str, signer: str, by: str | None = None, note: str = ""
    ) -> int:
        """Take all signatures of a signer for a subject back. It works until the transition is committed.

        Args:
            spec: The migration.
            to: The phase that the transition enters.
            source: The attestation source that guards it.
            signer: Whose signatures.
            by: Who revokes them; the signer unless given.
            note: Why.

        Returns:
            How many stood until now.

        Raises:
            SpecError: The spec has no such phase or source, or the phase is entered already.
            PayloadError: `by` or the note holds what databases refuse.
        """
        phase, source, _ = _subject(spec, to, source)
        by, note = to_json_value(by or signer), to_json_value(note)

        def write(connection: Connection) -> int:
            lock(connection, spec.name)
            found = recorded(connection, spec.name)
            if found is not None and phase in found.passed():
                raise SpecError("the phase was entered already, on the strength of it", spec.name, phase, source)
            values = {"now": now_in(self.database, connection).wall_ns, "by": by, "note": note}
            standing = [each for each in signatures_of(connection, spec.name, phase, source) if each.revoked_at is None]
            revoked = [{**values, "id": each.id} for each in standing if person_of(each.signer) == person_of(signer)]
            connection.execute_many(
                "UPDATE {signatures} SET revoked_ns = :now, revoked_by = :by, revoked_why = :note WHERE id = :id",
                revoked,
            )
            return len(revoked)

        return await self.database.write(write)

    async def signatures(self, spec: MigrationSpec[P], *, to: P, source: str) -> Sequence[Signature]:
        """All signatures for a subject, oldest first, with those that were revoked, expired or overtaken.

        Raises:
            SpecError: The spec has no such phase or source.
        """
        phase, source, _ = _subject(spec, to, source)
        return tuple(await self.database.read(lambda each: signatures_of(each, spec.name, phase, source)))

    def _recorded(self, connection: Connection, spec: MigrationSpec[Any]) -> Recorded:
        declared = plain_order(spec)
        found = known(connection, spec.name)
        if found.phases != declared:
            raise SpecChangedError(found.phases, declared)
        return found


@attrs.frozen
class SignedOff:
    """The check of a signed-off source; a class, so that `sign` knows its terms, and a tool where to sign.

    Attributes:
        terms: What it asks for.
        attestations: Where the signatures are.
    """

    terms: Terms
    attestations: SqlAttestations

    def __str__(self) -> str:
        return str(self.terms)

    async def __call__(self) -> Result[dict[str, object], EvidenceFailure]:
        subject = current_attempt()

        def read(connection: Connection) -> Result[dict[str, object], EvidenceFailure]:
            found = recorded(connection, subject.migration)
            signatures = signatures_of(connection, subject.migration, subject.to_phase, subject.source)
            revision = 0 if found is None else found.revision
            now = now_in(self.attestations.database, connection)
            return self.terms.judge(signatures, now, revision, subject.from_phase, name_of(connection))

        return await self.attestations.database.read(read)


def _subject(spec: MigrationSpec[Any], to: str, source: str) -> tuple[str, str, Terms | None]:
    """The subject as exact texts, if the spec asks for such a signature, and on what terms, if that is known."""
    order = plain_order(spec)
    to, source = str.__str__(to), str.__str__(source)
    if to not in order[1:]:
        raise SpecError(f"a transition enters one of {list(order[1:])}, and not {to!r}", spec.name)
    sources = dict(spec.phases[to].evidence)
    if to == order[1]:
        sources |= spec.phases[order[0]].evidence  # it runs when the first phase is left
    signable = {name: each for name, each in sources.items() if isinstance(each, AttestationEvidence)}
    if source not in signable:
        wanted = f"those it asks for are {', '.join(map(repr, signable))}" if signable else "it asks for none"
        raise SpecError(f"it asks for no signature {source!r}; {wanted}", spec.name, to)
    check = signable[source].check
    return to, source, check.terms if isinstance(check, SignedOff) else None


def signatures_of(connection: Connection, migration: str, to_phase: str, source: str) -> list[Signature]:
    """The signatures for a source of the transition into a phase, oldest first, revoked ones included."""
    rows = connection.execute(
        "SELECT id, revision, from_phase, signer, note, signed_ns, expires_ns, revoked_ns, revoked_by, revoked_why"
        " FROM {signatures} WHERE migration = :migration AND to_phase = :to_phase AND source = :source ORDER BY id",
        {"migration": migration, "to_phase": to_phase, "source": source},
    )
    return [
        Signature(
            id=id_,
            migration=migration,
            revision=revision,
            from_phase=from_phase,
            to_phase=to_phase,
            source=source,
            signer=signer,
            note=note,
            signed_at=Instant(wall_ns=signed_ns, mono_ns=None),
            expires_at=_instant(expires_ns),
            revoked_at=_instant(revoked_ns),
            revoked_by=by,
            revoked_why=why,
        )
        for id_, revision, from_phase, signer, note, signed_ns, expires_ns, revoked_ns, by, why in rows
    ]


def _instant(wall_ns: int | None) -> Instant | None:
    return None if wall_ns is None else Instant(wall_ns=wall_ns, mono_ns=None)
