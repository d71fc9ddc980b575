"""Points in time: what a clock read, on the wall and on the monotonic scale."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@attrs.frozen(kw_only=True)
class Instant:
    """One reading of a clock.

    Instants have no order: within one process compare `mono_ns`; across processes there is only the wall time,
    and a wall clock can be set.

    Attributes:
        wall_ns: Nanoseconds since 1970-01-01 UTC, as the wall clock had it.
        mono_ns: Nanoseconds on this process's monotonic clock, whose zero means nothing; None if the instant
            came from another process.
    """

    wall_ns: int
    mono_ns: int | None

    @property
    def wall(self) -> datetime:
        """The wall time as an aware UTC datetime, cut to the microsecond."""
        return EPOCH + timedelta(microseconds=self.wall_ns // 1_000)

    @property
    def wall_rounded_up(self) -> datetime:
        """The wall time as an aware UTC datetime, rounded up to the microsecond."""
        return EPOCH + timedelta(microseconds=-(-self.wall_ns // 1_000))

    def __reduce__(self) -> tuple[Callable[[int], Instant], tuple[int]]:
        """Where it is unpickled it comes from another process, whose monotonic scale means nothing there."""
        return _from_elsewhere, (self.wall_ns,)

    def __copy__(self) -> Instant:
        return self

    def __deepcopy__(self, memo: object) -> Instant:
        return self

    def ns_since(self, other: Instant) -> int:
        """Nanoseconds from `other` to this instant, negative if `other` is later.

        They are counted on the monotonic scale where both instants have it, else on the wall's.
        """
        if self.mono_ns is None or other.mono_ns is None:
            return self.wall_ns - other.wall_ns
        return self.mono_ns - other.mono_ns

    def shifted(self, by: int | timedelta) -> Instant:
        """The instant so many nanoseconds, or such a duration, later, as reckoned from this one."""
        ns = duration_ns(by) if isinstance(by, timedelta) else by
        return Instant(
            wall_ns=self.wall_ns + ns,
            mono_ns=None if self.mono_ns is None else self.mono_ns + ns,
        )


def _from_elsewhere(wall_ns: int) -> Instant:
    return Instant(wall_ns=wall_ns, mono_ns=None)


def duration_ns(duration: timedelta) -> int:
    """The exact nanoseconds of a duration."""
    return duration // _MICROSECOND * 1_000


def wall_ns_of(moment: datetime) -> int:
    """Nanoseconds since 1970-01-01 UTC of an aware datetime.

    Raises:
        ValueError: The datetime is naive: it names no instant.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone; write datetime(..., tzinfo=UTC)")
    return duration_ns(moment - EPOCH)
