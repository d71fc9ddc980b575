"""The tables of the file, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3

from phyxius.adapters._moment import Stamp

APPLICATION_ID = 0x70687978
"""Marks a file as ours in its header: the letters "phyx"."""

VERSION_1 = (
    # One row: what this file is, whose clock stamps it, since when the events are complete, and the last request to the
    # recorders to catch up.
    """CREATE TABLE journal (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        name TEXT NOT NULL,
        stamped_by TEXT NOT NULL,
        covered_since_ns INTEGER NOT NULL,
        request INTEGER NOT NULL DEFAULT 0
    )""",
    """CREATE TABLE recorders (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        pid INTEGER NOT NULL,
        audit_only INTEGER NOT NULL,
        started_ns INTEGER NOT NULL,
        stored_ns INTEGER NOT NULL,
        ended_ns INTEGER NOT NULL,
        closed INTEGER NOT NULL DEFAULT 0,
        answered INTEGER NOT NULL DEFAULT 0,
        batch INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX recorders_by_end ON recorders (ended_ns)",
    """CREATE TABLE declarations (
        recorder INTEGER NOT NULL REFERENCES recorders (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        durable INTEGER NOT NULL,
        PRIMARY KEY (recorder, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE gaps (
        recorder INTEGER NOT NULL,
        since_ns INTEGER NOT NULL,
        until_ns INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('lost', 'early', 'clock')),
        reason TEXT NOT NULL
    )""",
    "CREATE INDEX gaps_by_end ON gaps (until_ns)",
    # The calls that have begun, and whose event is not stored yet.
    """CREATE TABLE starts (
        recorder INTEGER NOT NULL REFERENCES recorders (id) ON DELETE CASCADE,
        call_id TEXT NOT NULL,
        name TEXT NOT NULL,
        started_ns INTEGER NOT NULL,
        source TEXT NOT NULL,
        observed TEXT NOT NULL,
        invocation_id TEXT,
        correlation_id TEXT,
        PRIMARY KEY (recorder, call_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX starts_by_call ON starts (call_id)",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        recorder INTEGER NOT NULL,
        name TEXT NOT NULL,
        outcome TEXT NOT NULL CHECK (outcome IN ('success', 'failure')),
        completed_ns INTEGER NOT NULL,
        started_ns INTEGER NOT NULL,
        source TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        observed TEXT NOT NULL,
        missing TEXT,
        error_type TEXT,
        error_message TEXT,
        invocation_id TEXT,
        correlation_id TEXT
    )""",
    "CREATE INDEX events_by_name ON events (name, outcome, completed_ns)",
    "CREATE INDEX events_by_time ON events (completed_ns)",
    """CREATE TABLE migrations (
        name TEXT PRIMARY KEY,
        phase TEXT NOT NULL,
        version INTEGER NOT NULL,
        revision INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Every order of phases that a migration was given; the highest revision is the one that holds.
    """CREATE TABLE orders (
        migration TEXT NOT NULL REFERENCES migrations (name),
        revision INTEGER NOT NULL,
        phases TEXT NOT NULL,
        who TEXT,
        why TEXT,
        at_ns INTEGER NOT NULL,
        PRIMARY KEY (migration, revision)
    ) WITHOUT ROWID""",
    # One row for each attempt that committed, and one without phases for each that was ruled out.
    """CREATE TABLE transitions (
        attempt TEXT PRIMARY KEY,
        migration TEXT NOT NULL REFERENCES migrations (name),
        version INTEGER,
        from_phase TEXT,
        to_phase TEXT,
        at_ns INTEGER NOT NULL,
        evidence TEXT,
        UNIQUE (migration, version)
    )""",
    """CREATE TABLE signatures (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        migration TEXT NOT NULL REFERENCES migrations (name),
        revision INTEGER NOT NULL,
        from_phase TEXT NOT NULL,
        to_phase TEXT NOT NULL,
        source TEXT NOT NULL,
        signer TEXT NOT NULL,
        note TEXT NOT NULL,
        signed_ns INTEGER NOT NULL,
        expires_ns INTEGER,
        revoked_ns INTEGER,
        revoked_by TEXT,
        revoked_why TEXT
    )""",
    "CREATE INDEX signatures_by_subject ON signatures (migration, to_phase, source)",
)

UPGRADES: tuple[tuple[str, ...], ...] = (VERSION_1,)
"""What leads from each version of the schema to the next; the first from an empty file."""


def version_of(connection: sqlite3.Connection) -> int:
    """The version of the file's schema; 0 if it has none yet."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether a file is ours, or is empty, and so may become ours."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION_ID:
        return True
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return application == 0 and tables == 0 and version_of(connection) == 0


def upgrade(connection: sqlite3.Connection, now_ns: int, stamp: Stamp) -> None:
    """Bring an older or empty file to the newest version, inside a transaction of the caller's."""
    version = version_of(connection)
    for step in UPGRADES[version:]:
        for statement in step:
            connection.execute(statement)
    if version == 0:
        connection.execute(
            "INSERT INTO journal (one, name, stamped_by, covered_since_ns) VALUES (1, hex(randomblob(16)), ?, ?)",
            [stamp, now_ns],
        )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")
