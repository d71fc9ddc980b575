"""What a database's clock shows, beside the clock of this process.

The rows of a database are stamped by one clock. What happened in a process is put on its scale by how long ago it was,
on the monotonic clock, when that clock was looked at; so it does not matter what the wall of a host shows. The look
takes time, and how much is known, so a stamp can be made that is not too early, or not too late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from phyxius.adapters._database import READ_ONLY, Connection, Database
from phyxius.clock import Clock, ControlledClock, Instant

_LOOKS = 3
_QUICK_NS = 100_000_000
_NOTICED_STEP_NS = 100_000_000
_NOTHING: Mapping[str, object] = {}

Stamp: TypeAlias = Literal["database", "process", "test"]
_CLOCKS: Mapping[Stamp, str] = {
    "database": "the clock of the database",
    "process": "the clocks of the processes",
    "test": "a controlled clock",
}


def stamp_of(clock: Clock, *, own_time: bool) -> Stamp:
    """Whose clock stamps the rows that a process writes."""
    if not own_time:
        return "database"
    return "test" if isinstance(clock, ControlledClock) else "process"


def other_clock(first: Stamp, ours: Stamp) -> str | None:
    """Why rows that the one clock stamps and rows of the other have no common time; None if they have one.

    An event of today, stamped by a test's clock in 1970, is in no window of those who look back from today.
    """
    return None if first == ours else f"its rows are stamped by {_CLOCKS[first]}, and here by {_CLOCKS[ours]}"


@attrs.frozen
class Moment:
    """One look at the clock that stamps the rows of a database.

    Attributes:
        wall_ns: What it showed, in nanoseconds since 1970.
        before: What the clock of this process showed before that.
        after: What it showed after that.
        drift: What fraction of a duration it may gain on the clock of this process without having been set.
    """

    wall_ns: int
    before: Instant
    after: Instant
    drift: float = 0.0

    @property
    def now(self) -> Instant:
        """The moment as an instant: what that clock showed, and when that was here."""
        return Instant(wall_ns=self.wall_ns, mono_ns=self.after.mono_ns)

    def latest(self, instant: Instant) -> int:
        """What that clock shows at an instant of this process, or somewhat more."""
        return self.wall_ns + instant.ns_since(self.before)

    def earliest(self, instant: Instant) -> int:
        """What that clock shows at an instant of this process, or somewhat less."""
        return self.wall_ns + instant.ns_since(self.after)

    def gained_ns(self, later: Moment) -> int:
        """By how much that clock was set forward up to a later look, at least; 0 if it may just have gone on."""
        gained = (later.wall_ns - self.wall_ns) - later.after.ns_since(self.before)
        allowed = _NOTICED_STEP_NS + int(self.drift * later.after.ns_since(self.before))
        return gained if gained > allowed else 0

    def is_behind(self, later: Moment) -> bool:
        """Whether that clock fell behind up to a later look."""
        return (later.wall_ns - self.wall_ns) - later.before.ns_since(self.after) < -_NOTICED_STEP_NS


def look(
    database: Database, connection: Connection, sql: str = "SELECT {shown}", values: Mapping[str, object] = _NOTHING
) -> tuple[Moment, Sequence[Any]]:
    """Run a statement one row of which begins with `{shown}`, and others with NULL; again, if that took long.

    Returns:
        The moment of the statement, and its rows.

    Raises:
        Exception: The error of the database: nobody can write there, or that row is missing.
    """
    best: tuple[Moment, Sequence[Any]] | None = None
    for _ in range(_LOOKS):
        before = database.clock.now()
        rows = connection.execute(sql, {**values, "now": database.clock.now().wall_ns}).fetchall()
        after = database.clock.now()
        shown = [row[0] for row in rows if row[0] is not None]
        if not shown:
            raise database.error("missing", "the row of the table journal")
        if shown[0] == READ_ONLY:
            raise database.error("read_only")
        moment = Moment(int(shown[0]), before, after, database.drift)
        if best is None or _width_ns(moment) < _width_ns(best[0]):
            best = moment, rows
        if _width_ns(moment) <= _QUICK_NS:
            break
    assert best is not None
    return best


def now_in(database: Database, connection: Connection) -> Instant:
    """What the clock shows that stamps the rows."""
    return look(database, connection)[0].now


def _width_ns(moment: Moment) -> int:
    return moment.after.ns_since(moment.before)
