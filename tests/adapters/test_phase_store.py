"""The phase of a migration in a database: one transaction, one winner, one truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from phyxius.adapters._stores import SqlStores
from phyxius.clock import ControlledClock, Instant
from phyxius.fp import Ok, err, ok
from phyxius.handler import HandlerEvent
from phyxius.journal import Journal, PayloadError
from phyxius.migration import (
    Advanced,
    AttemptFencedError,
    CasLost,
    Committed,
    Conflict,
    EvidenceErrored,
    EvidenceOvertakenError,
    EvidenceSnapshot,
    Migration,
    SpecError,
    StoreErrored,
    Transition,
    attestation,
    create_migration,
    schema_applied,
)
from tests.adapters.sqlite.support import PHASES, Crowd, snapshot, spec_of
from tests.places import FILE, FilePlace, Place, ServerPlace

SPEC = spec_of()
DAY = timedelta(days=1)


class Phase(str, Enum):  # noqa: UP042 - its str() is not its value
    EXPAND = "expand"
    FLIP = "flip"


@pytest.fixture
async def stores(place: Place, phyxius_clock: ControlledClock) -> AsyncIterator[SqlStores]:
    async with place.stores(phyxius_clock) as opened:
        yield opened


def migration_of(stores: SqlStores, spec: Any = SPEC, **options: Any) -> tuple[Migration[str], Journal[HandlerEvent]]:
    """A migration over the stores, and its journal."""
    journal: Journal[HandlerEvent] = Journal(clock=stores.clock)
    options = {"phase_store": stores.phase_store(spec), "journal_store": stores.journal_store} | options
    return create_migration(spec, journal=journal, **options), journal


# -- evidence that is too old


async def test_it_asks_last_whether_the_evidence_stands(place: Place, stores: SqlStores) -> None:
    """Within its transaction, since it may have waited for a lock until then; what is too old commits nothing."""
    store = stores.phase_store(SPEC)
    assert await store.current() == "expand"
    before, written = place.contents(), []

    def check_standing() -> None:
        try:
            place.assert_idle()
        except Exception:  # noqa: BLE001 - of whichever driver
            written.append(True)
        raise EvidenceOvertakenError(timedelta(seconds=6), timedelta(seconds=5))

    with pytest.raises(EvidenceOvertakenError):
        await store.try_advance("expand", "flip", EvidenceSnapshot("late", {}, check_standing))
    assert written == [True]
    assert place.contents() == before
    assert isinstance(await store.try_advance("expand", "flip", EvidenceSnapshot("next", {})), Ok)


async def test_a_step_that_waited_for_a_lock(place: Place, stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """By the time it has it, what the sources said is too old."""
    migration, journal = migration_of(stores, spec_of(ready=attestation(ok)))
    assert await migration.current_phase() == "expand"
    async with stores.recorder(journal, name="a service"):
        with place.locked("quotes"):
            asked = asyncio.Event()
            task = asyncio.ensure_future(migration.advance(on_answer=lambda answer: asked.set()))
            await asyncio.wait({task, asyncio.ensure_future(asked.wait())}, return_when=asyncio.FIRST_COMPLETED)
            phyxius_clock.advance_by(timedelta(seconds=6))
        refused: Any = await task
    assert isinstance(refused.error, EvidenceErrored)
    assert isinstance(refused.error.errors["ready"], EvidenceOvertakenError)
    assert await migration.current_phase() == "expand"


# -- reading


async def test_it_begins_at_the_first_phase(place: Place, stores: SqlStores) -> None:
    """Without `initial=` the first read records the first phase."""
    assert await stores.phase_store(SPEC).current() == "expand"
    assert place.contents()["migrations"] == [("quotes", "expand", 0, 1)]


async def test_it_begins_where_it_is_told_to(stores: SqlStores) -> None:
    """`initial=` counts at the first use alone; after it, the database knows better."""
    assert await stores.phase_store(SPEC, initial="flip").current() == "flip"
    assert await stores.phase_store(SPEC).current() == "flip"
    assert await stores.phase_store(SPEC, initial="contract").current() == "flip"


async def test_its_first_use_may_be_any(place: Place, stores: SqlStores) -> None:
    """A compare-and-set or a fence record a new migration, too, at its initial phase."""
    moved = await stores.phase_store(spec_of(name="a")).try_advance("expand", "flip", snapshot("1"))
    assert isinstance(moved, Ok)
    assert await stores.phase_store(spec_of(name="b"), initial="flip").resolve("2") is None
    assert place.contents()["migrations"] == [("a", "flip", 1, 1), ("b", "flip", 0, 1)]


async def test_what_the_database_does_not_know_is_not_amended(place: Place, stores: SqlStores) -> None:
    """It is another database than was meant, or nobody has run the migration yet."""
    with pytest.raises(SpecError, match="the database does not know this migration yet"):
        await stores.phase_store(SPEC).amend(SPEC, who="ada", why="new")
    assert place.contents()["migrations"] == []


async def test_a_phase_store_is_bound_to_its_migration(stores: SqlStores) -> None:
    """Of two migrations with the same phases, none is moved by the evidence of the other."""
    journal = Journal[Any](clock=stores.clock)
    with pytest.raises(SpecError, match='migration "orders": the phase store is that of migration "quotes"'):
        create_migration(
            spec_of(name="orders"),
            journal=journal,
            journal_store=stores.journal_store,
            phase_store=stores.phase_store(spec_of(name="quotes")),
        )


async def test_initial_must_be_a_phase(stores: SqlStores) -> None:
    """A phase that the spec does not have is refused where it is written."""
    with pytest.raises(SpecError, match=r'migration "quotes": initial must be one of .*, not \'gone\''):
        stores.phase_store(SPEC, initial="gone")


async def test_it_keeps_exact_texts(place: Place, stores: SqlStores) -> None:
    """An enum is kept as its value, whatever its `str()` is."""
    store = stores.phase_store(spec_of(Phase.EXPAND, Phase.FLIP), initial=Phase.FLIP)
    current = await store.current()
    assert (type(current), current) == (str, "flip")
    assert place.contents()["orders"][0][2] == '["expand", "flip"]'


async def test_each_read_is_live(place: Place, stores: SqlStores) -> None:
    """What another process commits is seen by the very next read."""
    store = stores.phase_store(SPEC)
    assert await store.current() == "expand"
    async with place.stores() as others:
        await others.phase_store(SPEC).try_advance("expand", "flip", snapshot("a"))
        assert await store.current() == "flip"
        await store.try_advance("flip", "contract", snapshot("b"))
        assert await others.phase_store(SPEC).current() == "contract"


async def test_migrations_do_not_touch_each_other(place: Place, stores: SqlStores) -> None:
    """Two migrations in one database have a phase, a version and a history each."""
    one, two = stores.phase_store(spec_of(name="one")), stores.phase_store(spec_of(name="two"))
    await one.try_advance("expand", "flip", snapshot("a"))
    assert (await one.current(), await two.current()) == ("flip", "expand")
    await two.try_advance("expand", "flip", snapshot("b"))
    assert [each.attempt for each in await two.history()] == ["b"]
    assert place.contents()["migrations"] == [("one", "flip", 1, 1), ("two", "flip", 1, 1)]


async def test_it_is_of_a_fleet(stores: SqlStores) -> None:
    """Its scope says that other processes see it, so a fleet may run on it; its clock is that of the stores."""
    store = stores.phase_store(SPEC)
    assert store.scope == "fleet"
    assert store.clock is stores.clock


# -- compare and set


async def test_an_audit_that_is_not_kept_is_warned_of(stores: SqlStores, caplog: pytest.LogCaptureFixture) -> None:
    """Without a recorder of its journal the process keeps the audit of its `advance()` for itself."""
    migration, journal = migration_of(stores)
    async with stores.recorder(journal, name="cli", audit_only=True):
        assert type(await migration.advance("flip")) is Ok
        assert caplog.records == []
    async with stores.recorder(Journal(clock=stores.clock), name="cli", audit_only=True):
        assert type(await migration.advance("contract")) is Ok
    assert "is lost with this process" in caplog.messages[0]
    assert "recorder cli keeps another journal" in caplog.messages[0]
    await migration.advance()
    assert "no recorder runs here" in caplog.messages[-1]


async def test_it_moves_by_compare_and_set(stores: SqlStores) -> None:
    """Only who expects the phase that is there moves it; the other is told which it is."""
    store = stores.phase_store(SPEC)
    at = stores.clock.now()
    assert await store.try_advance("expand", "flip", snapshot("a")) == ok(Committed(at))
    assert await store.try_advance("expand", "flip", snapshot("b")) == err(Conflict("flip"))
    assert await store.current() == "flip"
    assert await store.resolve("b") is None


async def test_an_attempt_commits_once(stores: SqlStores) -> None:
    """An attempt that has committed is a conflict when it comes again, be it for the next step."""
    store = stores.phase_store(SPEC)
    await store.try_advance("expand", "flip", snapshot("a"))
    assert await store.try_advance("expand", "flip", snapshot("a")) == err(Conflict("flip"))
    assert await store.try_advance("flip", "contract", snapshot("a")) == err(Conflict("flip"))
    assert await store.current() == "flip"


async def test_it_keeps_a_history(place: Place, stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """The transitions are there, oldest first, with time and evidence; versions count up; who lost is not there."""
    store = stores.phase_store(SPEC)
    began = phyxius_clock.now()
    payloads: dict[str, object] = {"ready": {"text": "ü\u2028", "nested": [1.5, None, {"deep": True}]}, "none": None}
    await store.try_advance("expand", "flip", EvidenceSnapshot("z", payloads))
    payloads["ready"] = "changed"
    await store.try_advance("expand", "flip", snapshot("lost"))
    await store.resolve("fenced")
    phyxius_clock.advance_by(DAY)
    await store.try_advance("flip", "contract", snapshot("a"))
    ready = {"text": "ü\u2028", "nested": [1.5, None, {"deep": True}]}
    assert await store.history() == (
        Transition("expand", "flip", elsewhere(began), "z", {"ready": ready, "none": None}),
        Transition("flip", "contract", elsewhere(phyxius_clock.now()), "a", {}),
    )
    rows = place.contents()["transitions"]
    assert sorted((row[0], row[2]) for row in rows if row[2]) == [("a", 2), ("z", 1)]


def elsewhere(instant: Instant) -> Instant:
    """The instant as another process has it: its monotonic scale means nothing there."""
    return Instant(wall_ns=instant.wall_ns, mono_ns=None)


async def test_the_history_is_in_the_order_of_the_steps(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """A wall clock that was set back between two steps turns nothing around."""
    store = stores.phase_store(SPEC)
    phyxius_clock.advance_by(DAY)
    await store.try_advance("expand", "flip", snapshot("a"))
    phyxius_clock.jump_wall_time(phyxius_clock.now().wall - DAY)
    await store.try_advance("flip", "contract", snapshot("b"))
    assert [each.to_phase for each in await store.history()] == ["flip", "contract"]


async def test_what_json_cannot_hold_is_refused(stores: SqlStores) -> None:
    """Evidence that is no JSON moves nothing: it could not be read back."""
    store = stores.phase_store(SPEC)
    for wrong in (float("nan"), object(), "half of a pair: \ud800"):
        with pytest.raises(PayloadError):
            await store.try_advance("expand", "flip", snapshot("a", ready=wrong))
    assert await store.current() == "expand"


# -- the fence


async def test_resolve_tells_what_became_of_an_attempt(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """A committed attempt is answered with the time of its commit, as often as it is asked, and later, too."""
    store = stores.phase_store(SPEC)
    at = elsewhere(phyxius_clock.now())
    await store.try_advance("expand", "flip", snapshot("a"))
    phyxius_clock.advance_by(DAY)
    await store.try_advance("flip", "contract", snapshot("b"))
    assert [await store.resolve("a"), await store.resolve("a")] == [Committed(at)] * 2


async def test_resolve_is_a_fence(place: Place, stores: SqlStores) -> None:
    """An attempt that was resolved as not committed can never commit, whoever tries; others can."""
    store = stores.phase_store(SPEC)
    assert [await store.resolve("late"), await store.resolve("late")] == [None, None]
    async with place.stores() as others:
        for each in (store, others.phase_store(SPEC)):
            with pytest.raises(AttemptFencedError) as caught:
                await each.try_advance("expand", "flip", snapshot("late"))
            assert caught.value.attempt == "late"
    assert await store.current() == "expand"
    assert await store.history() == ()
    assert isinstance(await store.try_advance("expand", "flip", snapshot("a")), Ok)
    with pytest.raises(AttemptFencedError):
        await store.try_advance("expand", "flip", snapshot("late"))


# -- one transaction


@pytest.mark.parametrize(
    "moment, table, condition",
    [
        ("BEFORE INSERT", "transitions", "NEW.version IS NOT NULL"),
        ("BEFORE UPDATE", "migrations", "1 = 1"),
        ("AFTER UPDATE", "migrations", "1 = 1"),
    ],
    ids=["transition", "before phase", "after phase"],
)
async def test_a_commit_is_one_transaction(
    place: Place, stores: SqlStores, moment: str, table: str, condition: str
) -> None:
    """Killed between its statements it has left nothing: neither a phase without its transition nor the reverse."""
    store = stores.phase_store(SPEC)
    await store.current()
    before = place.contents()
    with place.broken(moment, table, condition):
        with pytest.raises(place.error, match="killed") as caught:
            await store.try_advance("expand", "flip", snapshot("a"))
        assert caught.value.problem == "failed"
        assert place.contents() == before
        place.assert_idle()
    assert isinstance(await store.try_advance("expand", "flip", snapshot("a")), Ok)


@pytest.mark.parametrize("condition, committed", [("NEW.version IS NOT NULL", "no"), ("1 = 1", "unknown")])
async def test_a_failing_database_is_told_as_it_is(
    place: Place, stores: SqlStores, condition: str, committed: str
) -> None:
    """`advance()` says "no" where the fence could be set, "unknown" where the database failed there, too."""
    migration, journal = migration_of(stores)
    await migration.current_phase()
    with place.broken("BEFORE INSERT", "transitions", condition):
        error = (await migration.advance()).error
    assert isinstance(error, StoreErrored)
    assert (error.operation, error.committed, type(error.error)) == ("try_advance", committed, place.error)
    assert [entry.data.outcome for entry in journal] == ["failure"]
    assert await migration.current_phase() == "expand"
    assert isinstance(await migration.advance(), Ok)


# -- with a migration


async def test_a_migration_from_end_to_end(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """It runs from the first phase to the last, each step with its evidence in the database."""

    async def applied() -> Ok[dict[str, int]]:
        return ok({"revision": 42})

    migration, journal = migration_of(stores, spec_of(ready=schema_applied(applied)))
    answers = [await migration.advance() for _ in range(3)]
    assert [getattr(each, "value", None) and each.value.to_phase for each in answers] == ["flip", "contract", None]
    assert answers[0] == ok(Advanced("expand", "flip", {"ready": {"revision": 42}}, phyxius_clock.now()))
    assert answers[2].error.type == "ALREADY_AT_FINAL"
    history = await stores.phase_store(migration.spec).history()
    assert [each.attempt for each in history] == [entry.data.invocation_id for entry in journal][:2]
    assert history[0].evidence == {"ready": {"revision": 42}}


async def test_who_comes_second_has_lost(place: Place, stores: SqlStores) -> None:
    """Another process that moves it while the evidence is judged makes the answer `CasLost`."""

    async def rival() -> Ok[None]:
        async with place.stores() as others:
            await others.phase_store(SPEC).try_advance("expand", "flip", snapshot("rival"))
        return ok()

    migration, _ = migration_of(stores, spec_of(ready=schema_applied(rival)), evidence_timeout=timedelta(minutes=1))
    error = (await migration.advance()).error
    assert isinstance(error, CasLost), error
    assert (error.expected, error.actual) == ("expand", "flip")


async def test_a_file_that_cannot_be_read_moves_nothing(tmp_path: Path, phyxius_clock: ControlledClock) -> None:
    """What keeps the phase from being read is the answer of `advance()`, and `current_phase()` raises it."""
    place = FilePlace(tmp_path / "phyxius.db")
    async with place.stores(phyxius_clock) as stores:
        migration, _ = migration_of(stores)
        place.path.rename(tmp_path / "away.db")
        error: Any = (await migration.advance()).error
        assert isinstance(error, StoreErrored)
        assert (error.operation, error.committed, error.error.problem) == ("current", "no", "replaced")
        with pytest.raises(place.error):
            await migration.current_phase()


async def test_tables_that_cannot_be_read_move_nothing(place: Place, stores: SqlStores) -> None:
    """The same of a table that went away; once it is back, all goes on."""
    migration, _ = migration_of(stores)
    place.change("ALTER TABLE orders RENAME TO away_orders")
    try:
        error: Any = (await migration.advance()).error
        assert isinstance(error, StoreErrored)
        problem = "failed" if place.kind == FILE else "missing"
        assert (error.operation, error.committed, error.error.problem) == ("current", "no", problem)
        with pytest.raises(place.error):
            await migration.current_phase()
    finally:
        place.change("ALTER TABLE away_orders RENAME TO orders")
    assert isinstance(await migration.advance(), Ok)


async def test_evidence_that_breaks_moves_nothing(stores: SqlStores) -> None:
    """A check that raises leaves the database as it was."""

    async def broken() -> Ok[None]:
        raise OSError("gone")

    migration, _ = migration_of(stores, spec_of(ready=schema_applied(broken)))
    assert isinstance((await migration.advance()).error, EvidenceErrored)
    assert await stores.phase_store(migration.spec).history() == ()


# -- many at once


async def test_of_many_first_uses_one_counts(place: Place) -> None:
    """Callers over several connections, each with another initial phase, all read what one of them wrote."""
    async with place.stores() as one, place.stores() as two, place.stores() as three:
        all_of_them = [
            stores.phase_store(SPEC, initial=PHASES[number % 3]) for number in range(8) for stores in (one, two, three)
        ]
        phases = await asyncio.gather(*(store.current() for store in all_of_them))
        assert len(set(phases)) == 1
        assert len(place.contents()["orders"]) == 1


async def test_of_many_steps_one_commits(place: Place) -> None:
    """Of callers over several connections one moves the phase; the others are told so."""
    async with place.stores() as one, place.stores() as two:
        steps = [
            stores.phase_store(SPEC).try_advance("expand", "flip", snapshot(f"{name}{number}"))
            for number in range(10)
            for name, stores in (("one", one), ("two", two))
        ]
        answers = await asyncio.gather(*steps)
    assert [type(answer) for answer in answers].count(Ok) == 1
    assert answers.count(err(Conflict("flip"))) == 19
    assert len(place.contents()["transitions"]) == 1


def test_threads_with_loops_of_their_own(place: Place) -> None:
    """Threads that open the new database at once, each in an event loop of its own, have one winner."""

    async def run(number: int) -> tuple[str, Any]:
        async with place.stores() as stores:
            store = stores.phase_store(SPEC)
            return await store.current(), await store.try_advance("expand", "flip", snapshot(str(number)))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: asyncio.run(run(number)), range(8)))
    assert [type(answer) for _, answer in answers].count(Ok) == 1
    assert {phase for phase, _ in answers} <= {"expand", "flip"}


RACER = """
import asyncio, json, sys
from phyxius.adapters.sqlalchemy import open_stores
from phyxius.adapters.sqlite import open_file_stores
from phyxius.fp import Ok
from phyxius.migration import EvidenceSnapshot, define_migration

PHASES = ("expand", "flip", "contract")
SPEC = define_migration(name="quotes", phases={phase: {} for phase in PHASES})
number = int(sys.argv[1])

async def race(where):
    async with (open_stores if "://" in where else open_file_stores)(where) as stores:
        store = stores.phase_store(SPEC, initial=PHASES[number % 2])
        initial = await store.current()
        if initial == PHASES[-1]:
            return [initial, False, initial]
        attempt = EvidenceSnapshot(f"attempt {number}", {"racer": number})
        answer = await store.try_advance(initial, PHASES[PHASES.index(initial) + 1], attempt)
        return [initial, isinstance(answer, Ok), await store.current()]

print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    try:
        told = asyncio.run(race(json.loads(line)))
    except BaseException as error:
        told = repr(error)
    print(json.dumps(told), flush=True)
"""


async def new_place(place: Place, number: int) -> tuple[Place, str]:
    """A place of the same kind, with nothing in it, and how a process finds it."""
    if isinstance(place, ServerPlace):
        return await place.make(), place.url
    assert isinstance(place, FilePlace)
    path = place.path.with_name(f"{number}.db")
    return FilePlace(path), str(path)


async def test_processes_race(place: Place) -> None:
    """Of six processes that use a new database at once one writes the first row, one wins each step, none fails."""
    with Crowd(RACER, [str(number) for number in range(6)]) as crowd:
        for number in range(6):
            new, where = await new_place(place, number)
            answers = crowd.tell(where)
            assert not [answer for answer in answers if isinstance(answer, str)], answers
            rows = new.contents()
            assert len(rows["migrations"]) == len(rows["orders"]) == 1
            # Who read late may have read what another one committed, and have taken the next step.
            steps = [(row[3], row[4]) for row in sorted(rows["transitions"], key=lambda row: row[2])]
            first = PHASES.index(steps[0][0])
            assert first < 2
            assert steps == list(zip(PHASES[first:], PHASES[first + 1 :], strict=False))[: len(steps)]
            assert sum(won for _, won, _ in answers) == len(steps)
            assert rows["migrations"] == [("quotes", steps[-1][1], len(steps), 1)]
