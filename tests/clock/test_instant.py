"""Points in time, and the exact arithmetic on them."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import Instant
from phyxius.clock._instant import EPOCH, duration_ns, wall_ns_of

HOUR = timedelta(hours=1)
zones = st.builds(timezone, st.timedeltas(-23 * HOUR, 23 * HOUR))
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)  # noqa: DTZ001 - zones are drawn


@pytest.mark.parametrize(
    "wall_ns, wall, rounded_up",
    [(0, 0, 0), (1, 0, 1), (999, 0, 1), (1_000, 1, 1), (1_001, 1, 2), (-1, -1, 0), (-1_000, -1, -1), (-1_001, -2, -1)],
)
def test_the_wall_is_cut_or_rounded_up_to_the_microsecond(wall_ns: int, wall: int, rounded_up: int) -> None:
    """`wall` never lies after the instant and `wall_rounded_up` never before it, also before 1970."""
    instant = Instant(wall_ns=wall_ns, mono_ns=None)
    assert instant.wall == EPOCH + timedelta(microseconds=wall)
    assert instant.wall_rounded_up == EPOCH + timedelta(microseconds=rounded_up)
    assert instant.wall.utcoffset() == timedelta(0)


@given(moments)
def test_a_datetime_survives_the_way_to_nanoseconds_and_back(moment: datetime) -> None:
    """No datetime loses a microsecond to floating point."""
    instant = Instant(wall_ns=wall_ns_of(moment), mono_ns=None)
    assert instant.wall == instant.wall_rounded_up == moment


@given(st.timedeltas())
def test_a_duration_is_exact(duration: timedelta) -> None:
    """Nanoseconds of a duration are whole, of either sign, at any length."""
    assert timedelta(microseconds=duration_ns(duration) // 1_000) == duration


def test_a_naive_datetime_names_no_instant() -> None:
    """A datetime without a time zone is refused, and the message says what to write."""
    with pytest.raises(ValueError, match=r"has no time zone; write datetime\(\.\.\., tzinfo=UTC\)"):
        wall_ns_of(datetime(2024, 1, 1))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(
    "later, earlier, ns",
    [((50, 9), (70, 4), 5), ((70, 4), (50, 9), -5), ((50, None), (70, 4), -20), ((70, 4), (50, None), 20)],
)
def test_distance_is_monotonic_where_both_have_it(
    later: tuple[int, int | None], earlier: tuple[int, int | None], ns: int
) -> None:
    """A set wall does not count between instants of one process; across processes only the wall does."""
    one, other = (Instant(wall_ns=wall, mono_ns=mono) for wall, mono in (later, earlier))
    assert one.ns_since(other) == ns


def test_shifting_moves_the_scales_that_are_there() -> None:
    """Both scales move by the same nanoseconds; a missing one stays missing."""
    assert Instant(wall_ns=5, mono_ns=7).shifted(-6) == Instant(wall_ns=-1, mono_ns=1)
    assert Instant(wall_ns=5, mono_ns=None).shifted(6) == Instant(wall_ns=11, mono_ns=None)


def test_instants_have_no_order() -> None:
    """Neither scale alone could order instants, so nothing pretends to."""
    with pytest.raises(TypeError):
        _ = Instant(wall_ns=1, mono_ns=1) < Instant(wall_ns=2, mono_ns=2)  # type: ignore[operator]


def test_an_instant_leaves_its_monotonic_time_behind() -> None:
    """Pickled it goes to another process, where that means nothing; a copy stays what it is."""
    instant = Instant(wall_ns=1, mono_ns=2)
    assert pickle.loads(pickle.dumps(instant)) == Instant(wall_ns=1, mono_ns=None)
    assert copy.copy(instant) is copy.deepcopy(instant) is instant
