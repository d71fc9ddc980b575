"""The line to a server is cut at a byte: what `advance()` answers then is true, and what was recorded is there once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from phyxius.adapters._phase_store import SqlPhaseStore
from phyxius.adapters.sqlalchemy import ServerStoreError, open_stores
from phyxius.clock import create_controlled_clock, create_system_clock
from phyxius.fp import Err, Ok, ok
from phyxius.handler import observe, recorded
from phyxius.journal import Journal
from phyxius.migration import (
    Committed,
    JournalQuery,
    MigrationSpec,
    StoreErrored,
    create_migration,
    define_migration,
    schema_applied,
)
from tests.places import PREFIX, SERVERS, ServerPlace, place_of
from tests.proxy import CuttingProxy, Then

# In CI every fiftieth byte; under `nox -s prove` every one, of MariaDB every seventh.
STEPS = [
    pytest.param("postgresql", 50, id="postgresql-fast"),
    pytest.param("mariadb", 50, id="mariadb-fast"),
    pytest.param("postgresql", 1, id="postgresql-all", marks=pytest.mark.prove),
    pytest.param("mariadb", 7, id="mariadb-all", marks=pytest.mark.prove),
]
SLOW_COMMITS = f"""
    CREATE OR REPLACE FUNCTION take_a_while() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER takes_a_while AFTER INSERT ON {PREFIX}transitions DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.version IS NOT NULL AND NEW.migration < 'm400000') EXECUTE FUNCTION take_a_while();
"""


class ReadsBack(SqlPhaseStore):
    """The control: it looks whether the attempt is there, and puts up no fence."""

    async def resolve(self, attempt: str, /) -> Committed | None:
        found = [each for each in await self.history() if each.attempt == attempt]
        return Committed(found[0].at) if found else None


def spec_of(number: int) -> MigrationSpec[Any]:
    evidence = schema_applied(check=lambda: ok({"revision": "0042"}))
    return define_migration(name=f"m{number:06}", phases={"expand": {}, "flip": {"schema_ready": evidence}})


@attrs.define
class Lab:
    """Stores behind a proxy, and a look past it."""

    place: ServerPlace
    proxy: CuttingProxy
    stores: Any
    kind: type[SqlPhaseStore]

    async def advance(self, number: int, arm: Callable[[], object]) -> Any:
        """Take the one step of a new migration with the proxy armed, all statements known to the connection."""
        for each in (number + 500_000, number):
            spec = spec_of(each)
            store = self.kind(self.stores._database, spec, "expand")
            await store.current()
            if each == number:
                arm()
            migration = create_migration(spec, journal=Journal(clock=self.stores.clock), phase_store=store)
            answer = await migration.advance(to="flip")
        self.proxy.heal()
        return answer

    def moved(self) -> dict[str, bool]:
        """Which migrations have moved, once nobody works on them any more; each with its transition or without."""
        self.place.settle()
        phases = dict(self.place.rows("SELECT name, phase FROM migrations"))
        steps = Counter(dict(self.place.rows("SELECT migration, count(version) FROM transitions GROUP BY migration")))
        assert {name: int(phase == "flip") for name, phase in phases.items()} == {name: steps[name] for name in phases}
        return {name: phase == "flip" for name, phase in phases.items()}


@asynccontextmanager
async def lab(place: ServerPlace, kind: type[SqlPhaseStore]) -> AsyncIterator[Lab]:
    async with CuttingProxy.unix(place.server.socket) as proxy:
        url = sa.make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
        async with open_stores(url, clock=create_system_clock()) as stores:
            yield Lab(place, proxy, stores, kind)


def is_true(answer: Any, moved: bool) -> bool:
    """Whether an answer is true of a migration. That it is not known never is a lie."""
    match answer:
        case Ok():
            return moved
        case Err(StoreErrored(_, _, "unknown")):
            return True
        case _:
            return not moved


async def cut(lab: Lab, then: Then, where: Callable[[int], range]) -> tuple[Counter[str], Counter[str]]:
    """Cut a step of so many bytes at some of them, each time anew.

    Returns:
        How often each of the answers was given that tell of a commit, and the answers that are not true.
    """
    await lab.advance(499_998, lambda: None)
    await lab.advance(499_999, lab.proxy.count)
    answers: dict[str, Any] = {}
    for number in where(lab.proxy.forwarded):
        arm = partial(lab.proxy.cut_after, number, then)
        answers[spec_of(number).name] = await lab.advance(number, arm)
    moved = lab.moved()
    told = Counter("yes" if isinstance(answer, Ok) else answer.error.committed for answer in answers.values())
    return told, Counter(repr(answer) for name, answer in answers.items() if not is_true(answer, moved[name]))


@pytest.mark.parametrize("then", ["serve", "refuse"])
@pytest.mark.parametrize("kind,step", STEPS)
async def test_no_answer_is_untrue(kind: str, step: int, then: Then, tmp_path: Any) -> None:
    """Of a step whose line is cut it is told that it was taken, or that it never will be, or that nobody knows."""
    async with place_of(kind, tmp_path) as place, lab(place, SqlPhaseStore) as each:
        told, untrue = await cut(each, then, lambda size: range(0, size + 1, step))
        assert untrue == Counter()
        if then == "serve":
            assert told["yes"]
            assert not told["unknown"], "the server could be asked"
        else:
            assert told["unknown"] + told["no"], "it could not"


@pytest.mark.parametrize("fenced", [True, False])
async def test_only_a_fence_makes_it_so(fenced: bool, tmp_path: Any) -> None:
    """The control: where commits take a while, one that follows the look is denied; a fence waits for it."""
    async with place_of("postgresql", tmp_path) as place:
        place.server.run(SLOW_COMMITS)
        try:
            async with lab(place, SqlPhaseStore if fenced else ReadsBack) as each:
                _, untrue = await cut(each, "serve", lambda size: range(size - 24, size))  # as it is told to commit
                assert bool(untrue) is not fenced
        finally:
            place.server.run(f"DROP TRIGGER takes_a_while ON {PREFIX}transitions")


async def found_of(stores: Any) -> Counter[int]:
    """The calls that ran, as the store knows of them; none is in flight any more."""
    found: Counter[int] = Counter()
    for name in ("read", "write"):
        window = await stores.journal_store.query(JournalQuery(name), timedelta(hours=1))
        assert not window.in_flight
        found.update(event.observed["call"] for event in window if event.error is None)
    return found


@pytest.mark.parametrize("then", ["serve", "refuse"])
@pytest.mark.parametrize("kind,step", STEPS)
async def test_what_is_recorded_is_stored_once(kind: str, step: int, then: Then, tmp_path: Any) -> None:
    """Calls of a durable name and others, and the batch with their events: the line is cut at a byte of all that."""
    ran: set[int] = set()
    async with place_of(kind, tmp_path) as place, CuttingProxy.unix(place.server.socket) as proxy:
        url = sa.make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
        clock = create_controlled_clock()
        stores = open_stores(url, clock=clock)
        journal, lease = Journal[Any](clock=clock), timedelta(days=1_000)

        async def call(number: int) -> None:
            observe(call=number)
            ran.add(number)

        read, write = recorded(journal, "read")(call), recorded(journal, "write")(call)

        async def record(number: int) -> None:
            for each in range(number, number + 4):
                await read(each)
                with suppress(ServerStoreError):  # it did not run
                    await write(each + 4)
            with suppress(ServerStoreError):
                await recorder.flush()

        async with stores, stores.recorder(journal, name="api-1", durable=["write"], lease=lease) as recorder:
            await record(0)
            proxy.count()
            await record(8)
            for cut_at in range(0, proxy.forwarded + 1, step * 4):
                clock.advance_by(timedelta(hours=2))  # so that the window has what comes now
                ran.clear()
                proxy.cut_after(cut_at, then)
                await record(8 * (cut_at + 2))
                proxy.heal()
                assert await found_of(stores) == Counter(ran), cut_at


def test_each_place_is_cut() -> None:
    """No server is left out."""
    assert {param.values[0] for param in STEPS} == set(SERVERS)
