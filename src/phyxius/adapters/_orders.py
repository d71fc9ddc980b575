"""The recorded order of a migration's phases."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs

from phyxius.adapters._database import Connection
from phyxius.adapters._records import LONGEST_KEY, is_storable
from phyxius.clock import Instant
from phyxius.migration import MigrationSpec, SpecChangedError, SpecError


@attrs.define(eq=False, slots=False)
class PassedPhasesChangedError(SpecChangedError):
    """An amended spec changes phases that the migration has passed, or the one it is in.

    Attributes:
        current: The phase that the migration is in.
    """

    current: str

    def __str__(self) -> str:
        kept = self.recorded[: self.recorded.index(self.current) + 1]
        listed = ", ".join(f'"{phase}"' for phase in kept)
        return f"{self.difference}; the migration is at {self.current!r}, so the new order must begin with {listed}"


@attrs.define(eq=False, slots=False)
class AmendedMeanwhileError(SpecChangedError):
    """An amendment replaces another order than the one that was looked at.

    Attributes:
        revision: The revision that holds by now.
    """

    revision: int

    def __str__(self) -> str:
        return f"somebody amended the order meanwhile (revision {self.revision}): {self.difference}; look at it again"


@attrs.frozen
class Recorded:
    """What the database says of a migration.

    Attributes:
        phase: Where it is.
        version: How many transitions it took.
        revision: Which order of its phases holds; 1 is the first.
        phases: That order.
    """

    phase: str
    version: int
    revision: int
    phases: tuple[str, ...]

    def passed(self) -> tuple[str, ...]:
        """The phases up to the one that it is in."""
        return self.phases[: self.phases.index(self.phase) + 1]


@attrs.frozen
class Order:
    """An order of phases that a migration was given.

    Attributes:
        revision: 1 for the first, which was recorded when its phase was first read; the highest one holds.
        phases: The phases.
        at: Since when.
        who: Who amended it; None for the first.
        why: For what reason; None for the first.
    """

    revision: int
    phases: tuple[str, ...]
    at: Instant
    who: str | None
    why: str | None


def plain_order(spec: MigrationSpec[Any]) -> tuple[str, ...]:
    """The phases of a spec as exact texts.

    Raises:
        SpecError: A name in it is one that databases do not take.
    """
    order = tuple(str.__str__(phase) for phase in spec.order)
    for name in (spec.name, *order):
        if not is_storable(name):
            limit = (
                f"no name that databases take: up to {LONGEST_KEY} characters, none of them a NUL, no blank at the end"
            )
            raise SpecError(f"{name!r} is {limit}", spec.name)
    return order


def recorded(connection: Connection, migration: str) -> Recorded | None:
    """Read what the database says of a migration, if it knows it."""
    row = connection.execute(
        "SELECT m.phase, m.version, m.revision, o.phases FROM {migrations} m"
        " JOIN {orders} o ON o.migration = m.name AND o.revision = m.revision WHERE m.name = :name",
        {"name": migration},
    ).fetchone()
    return None if row is None else Recorded(row[0], row[1], row[2], tuple(json.loads(row[3])))


def known(connection: Connection, migration: str) -> Recorded:
    """Read what the database says of a migration that it must know, for a transaction that writes.

    Raises:
        SpecError: It does not.
    """
    lock(connection, migration)
    found = recorded(connection, migration)
    if found is None:
        raise SpecError(
            "the database does not know this migration yet; await stores.phase_store(spec).current() once", migration
        )
    return found


def pinned(
    connection: Connection, migration: str, phases: tuple[str, ...], initial: str, now_ns: Callable[[], int]
) -> Recorded:
    """The same of one that is recorded, if it is new. Of several at once one does; all read what it wrote."""
    if not lock(connection, migration):
        values = {"name": migration, "phase": initial, "phases": json.dumps(phases), "at": now_ns()}
        connection.execute(
            "INSERT INTO {migrations} (name, phase, version, revision) VALUES (:name, :phase, 0, 1) {or_nothing:name}",
            values,
        )
        connection.execute(
            "INSERT INTO {orders} (migration, revision, phases, at_ns) VALUES (:name, 1, :phases, :at)"
            " {or_nothing:migration}",
            values,
        )
    return known(connection, migration)


def lock(connection: Connection, migration: str) -> bool:
    """Keep others from writing about a migration until the transaction ends; False if there is none."""
    sql = "SELECT 1 FROM {migrations} WHERE name = :name{for_update}"
    return connection.execute(sql, {"name": migration}).fetchone() is not None


def may_read(connection: Connection, migration: str, found: Recorded, declared: tuple[str, ...]) -> bool:
    """Whether a build with these phases may go by the phase that the database has.

    It may with the order that holds. With an earlier one it may as long as both agree on the way up to the current
    phase: so builds from before an amendment serve on until the migration enters what is new to them.
    """
    if found.phases == declared:
        return True
    if declared[: len(found.passed())] != found.passed():
        return False
    rows = connection.execute("SELECT phases FROM {orders} WHERE migration = :name", {"name": migration})
    return any(tuple(json.loads(phases)) == declared for (phases,) in rows)
