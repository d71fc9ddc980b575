"""The table of signatures."""

from __future__ import annotations

import sqlite3

from phyxius.adapters._signatures import Signature
from phyxius.clock import Instant


def signatures_of(connection: sqlite3.Connection, migration: str, to_phase: str, source: str) -> list[Signature]:
    """The signatures for a source of the transition into a phase, oldest first, revoked ones included."""
    rows = connection.execute(
        "SELECT id, revision, from_phase, signer, note, signed_ns, expires_ns, revoked_ns FROM signatures"
        " WHERE migration = ? AND to_phase = ? AND source = ? ORDER BY id",
        [migration, to_phase, source],
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
        )
        for id_, revision, from_phase, signer, note, signed_ns, expires_ns, revoked_ns in rows
    ]


def _instant(wall_ns: int | None) -> Instant | None:
    return None if wall_ns is None else Instant(wall_ns=wall_ns, mono_ns=None)
