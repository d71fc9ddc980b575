"""The clock of the server decides what was when, whatever the walls of the hosts show."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest

from phyxius.adapters import _journal_store
from phyxius.adapters.sqlalchemy import ServerStores
from phyxius.adapters.sqlalchemy._database import ServerDatabase
from phyxius.clock import Clock, Instant, create_system_clock
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, JournalWindow, define_migration
from phyxius.testing import record_events
from tests.places import ServerPlace

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
READ = JournalQuery("read")


class Host:
    """The clock of a host whose wall is wrong, and may be set again."""

    def __init__(self, off: timedelta) -> None:
        self._clock = create_system_clock()
        self.off = off

    def now(self) -> Instant:
        return attrs.evolve(self._clock.now(), wall_ns=self._clock.now().shifted(self.off).wall_ns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


async def asked(stores: ServerStores, window: timedelta = MINUTE) -> JournalWindow:
    return await stores.journal_store.query(READ, window)


def reasons(window: JournalWindow) -> list[str]:
    return [gap.reason for gap in window.gaps if "holds nothing" not in gap.reason]


def set_server(stores: ServerStores, by: timedelta, original: Callable[[], str]) -> None:
    """Set the server's clock, as far as these stores can tell: what it shows is that much more."""
    database: Any = stores._database
    ns = by // timedelta(microseconds=1) * 1_000
    now = f"({original()} + {ns})"
    dialect = database._dialect = attrs.evolve(database._dialect, now=now, shown=now)
    for lane in filter(None, (database._lane, database._blocking)):
        lane.statements.dialect = dialect
        lane.statements._kept.clear()


@pytest.mark.parametrize("off", [-3 * HOUR, timedelta(0), 3 * HOUR])
async def test_a_host_whose_wall_is_wrong(place: ServerPlace, off: timedelta) -> None:
    """What it records is where it belongs, for those who ask on another host, and for itself."""
    here: Any = Host(off)
    there: Clock = create_system_clock()
    mine, theirs = Journal[Any](clock=here), Journal[Any](clock=there)
    async with (
        place.stores(here) as stores,
        place.stores(there) as others,
        stores.recorder(mine, name="here", durable=["kept"]),
        others.recorder(theirs, name="there"),
    ):
        record_events(mine, "read", 2)
        with recorded(mine, "kept"):
            for each in (stores, others):
                (window, kept) = await asked(each), await each.journal_store.query(JournalQuery("kept"), MINUTE)  # type: ignore[arg-type]
                assert len(window) == 2
                assert not reasons(window)
                true = there.now().wall
                assert all(true - MINUTE < event.completed_at.wall <= true + MINUTE for event in window)
                assert true - MINUTE < window.until <= true
                assert window.until - window.since >= MINUTE
                assert len(kept.in_flight) == 1
    rows = place.rows("SELECT name, closed, ended_ns - stored_ns FROM recorders ORDER BY name")
    assert [(name, closed) for name, closed, _ in rows] == [("here", 1), ("there", 1)]
    assert all(0 <= late < 60 * 10**9 for _, _, late in rows)


async def test_a_wall_that_is_set_is_nothing_to_a_server(place: ServerPlace) -> None:
    """Neither is there a gap, nor is what was recorded before or after it elsewhere."""
    host: Any = Host(timedelta(0))
    journal = Journal[Any](clock=host)
    async with place.stores(host) as stores, stores.recorder(journal, name="here"):
        record_events(journal, "read")
        host.off = 5 * HOUR
        record_events(journal, "read")
        host.off = -5 * HOUR
        record_events(journal, "read")
        window = await asked(stores)  # type: ignore[arg-type]
        assert len(window) == 3
        assert not reasons(window)


@pytest.mark.parametrize("tells", ["flush", "query"])
async def test_a_server_whose_clock_is_set_forward(place: ServerPlace, tells: str) -> None:
    """The time did not pass: it is a gap that spares no name, told once, by whoever lived through it."""
    clock = create_system_clock()
    journal = Journal[Any](clock=clock)
    journal.declare("read")
    async with place.stores(clock) as stores, stores.recorder(journal, name="here", durable=["read"]) as recorder:
        now: str = stores._database._dialect.now  # type: ignore[attr-defined]
        record_events(journal, "other")
        await recorder.flush()
        set_server(stores, 2 * HOUR, lambda: now)  # type: ignore[arg-type]
        if tells == "flush":
            await recorder.flush()
        window = await asked(stores, HOUR)  # type: ignore[arg-type]
        (reason,) = reasons(window)
        assert "the clock went forward by 1:59:59" in reason or "the clock went forward by 2:00:00" in reason
        assert sum((gap.until - gap.since for gap in window.gaps), timedelta(0)) >= HOUR - MINUTE
        await recorder.flush()
        assert len(reasons(await asked(stores, HOUR))) == 1  # type: ignore[arg-type]


async def test_another_event_loop_tells_of_a_clock_that_was_set_forward(place: ServerPlace) -> None:
    """Who asks may have no recorder of his own, and the leases of all others may seem to be over."""
    clock = create_system_clock()
    journal = Journal[Any](clock=clock)
    ready = threading.Event()
    journal.declare("read")
    opened: list[Any] = []

    async def record() -> None:
        async with place.stores(clock) as stores, stores.recorder(journal, name="there", durable=["read"]):
            leave = asyncio.Event()
            opened.extend([stores, asyncio.get_running_loop(), leave])
            ready.set()
            await leave.wait()

    thread = threading.Thread(target=lambda: asyncio.run(record()))
    thread.start()
    try:
        await asyncio.to_thread(ready.wait)
        place.change("UPDATE journal SET covered_since_ns = 0")
        async with place.stores(clock) as stores:
            now: str = stores._database._dialect.now  # type: ignore[attr-defined]
            with recorded(journal, "read"):
                pass
            assert len(await asked(stores, HOUR)) == 1  # type: ignore[arg-type]
            for each in (opened[0], stores):
                set_server(each, 2 * HOUR, lambda: now)
            (reason,) = reasons(await asked(stores, HOUR))  # type: ignore[arg-type]
            assert "the clock went forward by" in reason
    finally:
        opened[1].call_soon_threadsafe(opened[2].set)
        await asyncio.to_thread(thread.join)


async def test_a_server_whose_clock_is_set_back(place: ServerPlace) -> None:
    """It hides nothing: what was recorded before is in the future, and what is recorded now is now."""
    clock = create_system_clock()
    journal = Journal[Any](clock=clock)
    async with place.stores(clock) as stores, stores.recorder(journal, name="here") as recorder:
        now: str = stores._database._dialect.now  # type: ignore[attr-defined]
        record_events(journal, "read")
        await recorder.flush()
        set_server(stores, -2 * HOUR, lambda: now)  # type: ignore[arg-type]
        record_events(journal, "read")
        window = await asked(stores)  # type: ignore[arg-type]
        assert len(window) == 2
        assert window[1].completed_at.wall > window.until + HOUR
        assert not reasons(window)


async def test_what_is_recorded_while_one_asks_is_not_vouched_for(place: ServerPlace) -> None:
    """The window ends when it was asked for: what this process had seen by then is stored, and no more."""
    clock = create_system_clock()
    journal = Journal[Any](clock=clock)
    async with place.stores(clock) as stores, stores.recorder(journal, name="here") as recorder:
        flights = recorder.calls_in_flight

        async def meanwhile() -> Any:
            calls = await flights()
            record_events(journal, "read")
            return calls

        recorder.calls_in_flight = meanwhile  # type: ignore[method-assign]
        window = await asked(stores)  # type: ignore[arg-type]
        assert len(window) == 0
        (event,) = journal
        ago = clock.now().ns_since(event.data.completed_at)
        assert window.until < clock.now().shifted(-ago).wall


async def test_steps_are_stamped_by_the_server(place: ServerPlace) -> None:
    """On a host whose wall is wrong, too."""
    host: Any = Host(-7 * HOUR)
    async with place.stores(host) as stores:
        store = stores.phase_store(define_migration(name="m", phases={"a": {}, "b": {}}))
        from phyxius.migration import EvidenceSnapshot

        answer: Any = await store.try_advance("a", "b", EvidenceSnapshot("1", {}))
        (step,) = await store.history()
        true = create_system_clock().now()
        assert step.at.wall_ns == answer.value.at.wall_ns
        assert abs(true.wall_ns - step.at.wall_ns) < 60 * 10**9


async def test_a_call_of_a_host_that_was_suspended(place: ServerPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not know how long it was away. The database does, and so its call is seen, although its lease is over."""
    monkeypatch.setattr(ServerDatabase, "poll_seconds", 3_600)
    clock = create_system_clock()
    journal, asking = Journal[Any](clock=clock), Journal[Any](clock=clock)
    journal.declare("read")
    async with (
        place.stores(clock) as stores,
        place.stores(clock) as others,
        stores.recorder(journal, name="suspended", durable=["read"]),
    ):
        now: str = stores._database._dialect.now  # type: ignore[attr-defined]
        for each in (stores, others):
            set_server(each, 2 * HOUR, lambda: now)  # type: ignore[arg-type]
        async with others.recorder(asking, name="who asks", audit_only=True):
            call = recorded(journal, "read")
            await asyncio.to_thread(call.__enter__)
            own = others.journal_store.query
            monkeypatch.setattr(_journal_store, "recorders_of", lambda key: [])  # as another process would ask
            window = await own(READ, MINUTE)
            assert len(window) + len(window.in_flight) == 1
            call.__exit__(None, None, None)
