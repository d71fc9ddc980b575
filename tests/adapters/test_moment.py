"""What a database's clock shows, beside the clock of this process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters._moment import Moment, look
from phyxius.clock import ControlledClock, Instant, create_controlled_clock, create_system_clock
from tests.places import SERVERS, Place, place_of

MS, SECOND, HOUR, DAY = timedelta(milliseconds=1), timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
NS = 1_000_000_000
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


class Server:
    """A database whose clock is ahead of ours, and that takes its time: a connection to it, and the database itself."""

    def __init__(self, clock: ControlledClock, ahead: timedelta, takes: list[timedelta]) -> None:
        self.clock = clock
        self.drift = 0.0
        self.asked: list[str] = []
        self._ahead = ahead
        self._takes = takes

    def execute(self, sql: str, values: Any = None, /) -> Server:
        self.asked.append(sql)
        takes = self._takes.pop(0)
        self.clock.advance_by(takes / 2)
        self._shown = self.clock.now().shifted(self._ahead).wall_ns
        self.clock.advance_by(takes / 2)
        return self

    def fetchall(self) -> list[tuple[int | None, str]]:
        return [(None, "more"), (self._shown, "first")]


def looked(server: Any) -> Moment:
    return look(server, server)[0]


@given(st.integers(0, 10_000), st.timedeltas(-DAY, DAY), st.integers(-100_000, 100_000))
def test_what_happened_is_neither_too_early_nor_too_late(takes: int, ahead: timedelta, ago: int) -> None:
    """Whatever the walls show and however long the look takes, the true time lies between the two."""
    clock = create_controlled_clock(EPOCH)
    happened = clock.now().shifted(-ago * MS)
    moment = looked(Server(clock, ahead, [takes * MS] * 3))
    truly = happened.shifted(ahead).wall_ns
    assert moment.earliest(happened) <= truly <= moment.latest(happened)
    assert moment.latest(happened) - moment.earliest(happened) == takes * 1_000_000
    wall = Instant(wall_ns=happened.wall_ns, mono_ns=None)  # what another process stamped is on the wall alone
    assert moment.earliest(wall) <= truly <= moment.latest(wall)


@pytest.mark.parametrize(
    "takes,looks,width", [([50], 1, 50), ([500, 50], 2, 50), ([500, 300, 400], 3, 300), ([500, 700, 800], 3, 500)]
)
def test_a_slow_look_is_repeated(takes: list[int], looks: int, width: int) -> None:
    """The sharpest of three counts: a machine that was held up tells little."""
    server = Server(create_controlled_clock(EPOCH), HOUR, [each * MS for each in takes])
    moment = looked(server)
    assert server.asked == ["SELECT {shown}"] * looks
    assert moment.after.ns_since(moment.before) == width * 1_000_000
    assert moment.now.mono_ns == moment.after.mono_ns


def looks(clock: ControlledClock, drift: float = 0.0) -> Iterator[Moment]:
    while True:
        yield Moment(clock.now().wall_ns, clock.now(), clock.now(), drift)


durations = st.integers(0, 500)


@given(durations, durations, st.integers(-500, 500), durations, durations)
def test_a_step_is_told_from_a_slow_look(asked: int, told: int, step: int, asked_again: int, told_again: int) -> None:
    """By more than a tenth of a second it is noticed, as far as it is certain; never where there was none."""
    clock = create_controlled_clock(EPOCH)
    one = look_at(clock, 0, asked, told)
    clock.advance_by(SECOND)
    two = look_at(clock, step, asked_again, told_again)
    gained, behind = one.gained_ns(two), one.is_behind(two)
    assert gained == 0 or 100_000_000 < gained <= step * 1_000_000
    assert not behind or step < -100
    if asked == told == asked_again == told_again == 0:
        assert gained == (step * 1_000_000 if step > 100 else 0)
        assert behind == (step < -100)


def look_at(clock: ControlledClock, ahead: int, asked: int, told: int) -> Moment:
    """A look at a clock so far ahead: the question takes its time, and so does the answer."""
    before = clock.now()
    clock.advance_by(asked * MS)
    shown = clock.now().shifted(ahead * MS)
    clock.advance_by(told * MS)
    return Moment(shown.wall_ns, before, clock.now())


def test_a_clock_that_runs_a_little_faster_was_not_set() -> None:
    """Two hosts whose clocks are disciplined by others differ by so much, and it is allowed where they are two."""
    clock = create_controlled_clock(EPOCH)
    for drift, gained in ((0.0, 8.64 * NS), (500e-6, 0)):
        (first,) = [next(looks(clock, drift))]
        clock.advance_by(DAY)
        later = next(looks(clock, drift))
        faster = Moment(later.wall_ns + int(8.64 * NS), later.before, later.after, drift)  # by 100 ppm
        assert first.gained_ns(faster) == gained
        fastest = Moment(later.wall_ns + 60 * NS, later.before, later.after, drift)
        assert first.gained_ns(fastest) == 60 * NS


# -- whose clock


async def test_a_clock_of_tests_is_kept_apart(place: Place) -> None:
    """Whoever left one in would write, and look for, what others never see; so it is refused."""
    async with place.stores(create_controlled_clock()):
        pass
    async with place.stores(create_controlled_clock(EPOCH)):
        pass
    with pytest.raises(place.error, match=r"give the same clock.*by a controlled clock, and here by") as caught:
        async with place.stores(create_system_clock()):
            pass
    assert caught.value.problem == "other_clock"


@pytest.mark.parametrize("kind", SERVERS)
async def test_the_rows_of_a_server_are_stamped_by_one_clock(kind: str, tmp_path: Path) -> None:
    """By its own, or by those of the processes."""
    async with place_of(kind, tmp_path) as place:
        async with place.stores(create_system_clock()):
            pass
        for other in ({"clock": create_controlled_clock()}, {"clock": create_system_clock(), "time": "process"}):
            with pytest.raises(place.error, match=r"stamped by the clock of the database, and here by"):
                async with place.stores(**other):
                    pass
        async with place.stores(create_controlled_clock(), time="database"):
            pass
