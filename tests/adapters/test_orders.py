"""The recorded order of the phases: held to, until an amendment adopts another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from phyxius.adapters._orders import AmendedMeanwhileError, PassedPhasesChangedError
from phyxius.adapters._stores import SqlStores
from phyxius.clock import ControlledClock
from phyxius.fp import Ok, err
from phyxius.journal import Journal
from phyxius.migration import (
    AttemptFencedError,
    Conflict,
    SpecChanged,
    SpecChangedError,
    SpecError,
    create_migration,
    define_migration,
    schema_applied,
)
from tests.adapters.sqlite.support import snapshot, spec_of
from tests.places import FILE, Place

SPEC = spec_of("expand", "flip", "contract")
WHO = {"who": "ada", "why": "one step more"}
AHEAD = {
    "added": ("expand", "flip", "verify", "contract"),
    "changed": ("expand", "flip", "drop"),
    "reordered": ("expand", "flip", "contract", "verify"),
    "dropped": ("expand", "flip"),
}
PASSED = {
    "current changed": ("expand", "switch", "contract"),
    "current dropped": ("expand", "contract"),
    "passed changed": ("widen", "flip", "contract"),
    "passed dropped": ("flip", "contract"),
    "one put before": ("prepare", "expand", "flip", "contract"),
    "one put between": ("expand", "copy", "flip", "contract"),
    "turned around": ("flip", "expand", "contract"),
}


@pytest.fixture
async def stores(place: Place, phyxius_clock: ControlledClock) -> AsyncIterator[SqlStores]:
    async with place.stores(phyxius_clock) as opened:
        yield opened


@pytest.fixture
async def flipped(stores: SqlStores) -> SqlStores:
    """Stores whose migration is at its second phase."""
    await stores.phase_store(SPEC).try_advance("expand", "flip", snapshot("first"))
    return stores


def orders(place: Place) -> list[Any]:
    return place.contents()["orders"]


# -- another order


@pytest.mark.parametrize("order", [*AHEAD.values(), *PASSED.values()], ids=[*AHEAD, *PASSED])
async def test_another_order_is_refused(flipped: SqlStores, order: tuple[str, ...]) -> None:
    """A spec with another order may neither read the phase nor move it, and its `advance()` says both orders."""
    spec = spec_of(*order)
    store = flipped.phase_store(spec)
    for step in (store.current(), store.try_advance("flip", order[-1], snapshot("a"))):
        with pytest.raises(SpecChangedError) as caught:
            await step
        assert (caught.value.recorded, caught.value.declared) == (("expand", "flip", "contract"), order)
    journal: Journal[Any] = Journal(clock=flipped.clock)
    error = (await create_migration(spec, journal=journal, phase_store=store).advance()).error
    assert error == SpecChanged(("expand", "flip", "contract"), order)
    (entry,) = journal
    assert entry.data.observed["refusal"]["type"] == "SPEC_CHANGED"
    assert await flipped.phase_store(SPEC).current() == "flip"


async def test_a_build_of_yesterday_is_told_so_first(flipped: SqlStores) -> None:
    """It reads on, but neither its `readiness()` nor its `advance()` asks any evidence for a step it cannot take."""

    @schema_applied
    def asked() -> Any:
        raise AssertionError("this was not to be asked")

    yesterday = define_migration(name="quotes", phases={"expand": {}, "flip": {}, "contract": {"asked": asked}})
    await flipped.phase_store(SPEC).amend(spec_of(*AHEAD["added"]), who="ada", why="reason")
    journal: Journal[Any] = Journal(clock=flipped.clock)
    running = create_migration(yesterday, journal=journal, phase_store=flipped.phase_store(yesterday))
    assert await running.current_phase() == "flip"
    with pytest.raises(SpecChangedError):
        await running.readiness()
    assert isinstance((await running.advance()).error, SpecChanged)


async def test_an_order_that_changes_meanwhile(stores: SqlStores) -> None:
    """An amendment between the judgement and the commit moves nothing: the step was judged for another order."""
    store = stores.phase_store(SPEC)
    assert await store.current() == "expand"
    await store.amend(spec_of("expand", "check", "flip", "contract"), **WHO)
    with pytest.raises(SpecChangedError):
        await store.try_advance("expand", "flip", snapshot("a"))
    assert await store.current() == "expand"
    assert await store.history() == ()


async def test_what_became_of_an_attempt_is_told_in_any_order(flipped: SqlStores) -> None:
    """Neither the fence nor the history asks for the order: whoever must know what happened is told."""
    other = flipped.phase_store(spec_of("a", "b"))
    assert await other.resolve("first") is not None
    assert await other.resolve("late") is None
    assert [each.attempt for each in await other.history()] == ["first"]
    with pytest.raises(AttemptFencedError):
        await flipped.phase_store(SPEC).try_advance("flip", "contract", snapshot("late"))


async def test_every_order_is_told(flipped: SqlStores) -> None:
    """The first order is there with the time of its first reading, each other with who decided it and why."""
    await flipped.phase_store(spec_of(*AHEAD["added"])).amend(spec_of(*AHEAD["added"]), who="ada", why="one more")
    first, second = await flipped.phase_store(SPEC).orders()
    assert (first.revision, first.phases, first.who, first.why) == (1, ("expand", "flip", "contract"), None, None)
    assert (second.revision, second.phases, second.who, second.why) == (2, AHEAD["added"], "ada", "one more")
    assert first.at.wall <= second.at.wall
    assert await flipped.phase_store(spec_of("a", "b", name="other")).orders() == ()


# -- amend


@pytest.mark.parametrize("order", AHEAD.values(), ids=AHEAD)
async def test_what_is_ahead_may_change(flipped: SqlStores, order: tuple[str, ...]) -> None:
    """Phases ahead may be added, changed, reordered or dropped; the migration goes on in the new order."""
    assert await flipped.phase_store(SPEC).amend(spec_of(*order), **WHO) == 2
    store = flipped.phase_store(spec_of(*order))
    assert await store.current() == "flip"
    for step in pairwise(order[1:]):
        assert isinstance(await store.try_advance(*step, snapshot(step[1])), Ok)
    assert await store.current() == order[-1]


@pytest.mark.parametrize("order", PASSED.values(), ids=PASSED)
async def test_what_was_passed_may_not(place: Place, flipped: SqlStores, order: tuple[str, ...]) -> None:
    """The current phase and those before it stand: an order that changes them is refused, and says what it needs."""
    before = place.contents()
    with pytest.raises(PassedPhasesChangedError, match=r'so the new order must begin with "expand", "flip"$') as caught:
        await flipped.phase_store(SPEC).amend(spec_of(*order), **WHO)
    error = caught.value
    assert isinstance(error, SpecChangedError)
    assert (error.recorded, error.declared, error.current) == (("expand", "flip", "contract"), order, "flip")
    assert place.contents() == before


async def test_who_and_why_are_kept(place: Place, flipped: SqlStores, phyxius_clock: ControlledClock) -> None:
    """Each order that was adopted is kept with who decided it, why and when; the first needs nobody."""
    began = phyxius_clock.now().wall_ns
    phyxius_clock.advance_by(timedelta(hours=1))
    await flipped.phase_store(SPEC).amend(spec_of(*AHEAD["added"]), who="ada", why="to be sure")
    assert orders(place) == [
        ("quotes", 1, '["expand", "flip", "contract"]', None, None, began),
        ("quotes", 2, '["expand", "flip", "verify", "contract"]', "ada", "to be sure", phyxius_clock.now().wall_ns),
    ]


async def test_the_same_order_is_no_amendment(place: Place, flipped: SqlStores) -> None:
    """Adopted again, be it by two people at once, an order stays what it was, and so does its revision."""
    assert await flipped.phase_store(SPEC).amend(SPEC, **WHO) == 1
    new = spec_of(*AHEAD["added"])
    stores = [flipped.phase_store(SPEC), flipped.phase_store(new)]
    assert await asyncio.gather(*(store.amend(new, **WHO) for store in stores)) == [2, 2]
    assert len(orders(place)) == 2


async def test_an_amendment_of_what_was_looked_at(place: Place, flipped: SqlStores) -> None:
    """Who says which order he means to replace replaces no other, unless somebody had the same in mind."""
    store, new = flipped.phase_store(SPEC), spec_of(*AHEAD["added"])
    assert await store.amend(new, **WHO, revision=1) == 2
    assert await store.amend(new, **WHO, revision=1) == 2
    before = place.contents()
    with pytest.raises(
        AmendedMeanwhileError, match=r"meanwhile \(revision 2\): the store recorded .*; look at"
    ) as caught:
        await store.amend(SPEC, **WHO, revision=1)
    error = caught.value
    assert (error.recorded, error.declared, error.revision) == (new.order, SPEC.order, 2)
    assert place.contents() == before
    assert await store.amend(SPEC, **WHO, revision=2) == 3


async def test_an_order_may_come_back(flipped: SqlStores) -> None:
    """An earlier order that is adopted again is a revision of its own."""
    store = flipped.phase_store(SPEC)
    assert await store.amend(spec_of(*AHEAD["added"]), **WHO) == 2
    assert await store.amend(SPEC, **WHO) == 3
    assert isinstance(await store.try_advance("flip", "contract", snapshot("a")), Ok)


@pytest.mark.parametrize("who, why", [("", "reason"), ("ada", ""), (" ", "reason"), ("ada", "\n")])
async def test_it_needs_a_who_and_a_why(place: Place, flipped: SqlStores, who: str, why: str) -> None:
    """An amendment that nobody stands for is refused."""
    with pytest.raises(SpecError, match=r'^migration "quotes": wh[oy] must be a text that is not empty'):
        await flipped.phase_store(SPEC).amend(spec_of(*AHEAD["added"]), who=who, why=why)
    assert len(orders(place)) == 1


async def test_it_is_of_the_same_migration(flipped: SqlStores) -> None:
    """The spec of another migration is refused, by name."""
    with pytest.raises(SpecError, match=r'^migration "prices": this is the store of "quotes"'):
        await flipped.phase_store(SPEC).amend(spec_of("expand", "flip", "contract", name="prices"), **WHO)


# -- builds with an earlier order


async def test_builds_from_before_read_on(flipped: SqlStores) -> None:
    """After an amendment the earlier build serves on, and may not advance, until the migration enters what is new."""
    old, new = flipped.phase_store(SPEC), flipped.phase_store(spec_of(*AHEAD["added"]))
    await new.amend(spec_of(*AHEAD["added"]), **WHO)
    assert await old.current() == "flip"
    for to_phase in ("contract", "verify"):
        with pytest.raises(SpecChangedError):
            await old.try_advance("flip", to_phase, snapshot(to_phase))
    await new.try_advance("flip", "verify", snapshot("a"))
    with pytest.raises(SpecChangedError):
        await old.current()
    await new.try_advance("verify", "contract", snapshot("b"))
    with pytest.raises(SpecChangedError):
        await old.current()  # both have that phase, but not the same way there
    assert await new.current() == "contract"


async def test_agreement_is_not_adoption(flipped: SqlStores) -> None:
    """A build whose order was never adopted may not read, however far it agrees."""
    await flipped.phase_store(SPEC).amend(spec_of(*AHEAD["added"]), **WHO)
    with pytest.raises(SpecChangedError):
        await flipped.phase_store(spec_of(*AHEAD["changed"])).current()


async def test_adopted_for_another_migration_is_not_adopted(flipped: SqlStores) -> None:
    """What another migration in the database adopted counts for nothing here."""
    order = AHEAD["changed"]
    await flipped.phase_store(spec_of(*order, name="prices")).current()
    with pytest.raises(SpecChangedError):
        await flipped.phase_store(spec_of(*order)).current()


# -- all of it, against a model

LETTERS = "abcdef"
some_orders = st.permutations(LETTERS).flatmap(lambda all_: st.integers(2, 5).map(lambda n: tuple(all_[:n])))


class OrdersMachine(RuleBasedStateMachine):
    """Builds with several orders read, advance, amend, fence and reopen; a model says what they must see."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = place
        self.stores = place.stores()
        self.runner.run(self.stores.__aenter__())
        for table in ("transitions", "orders", "migrations"):
            place.change(f"DELETE FROM {table}")  # what the example before has left
        self.attempts = 0
        self.fenced: list[str] = []
        self.moves: list[tuple[str, str, str]] = []
        self.adopted: list[tuple[str, ...]] = []
        self.phase = ""

    def teardown(self) -> None:
        self.runner.run(self.stores.__aexit__(None, None, None))
        self.runner.close()

    @property
    def holding(self) -> tuple[str, ...]:
        return self.adopted[-1]

    @property
    def passed(self) -> tuple[str, ...]:
        return self.holding[: self.holding.index(self.phase) + 1]

    def store(self, order: tuple[str, ...]) -> Any:
        return self.stores.phase_store(define_migration(name="m", phases={phase: {} for phase in order}))

    def run(self, work: Any) -> Any:
        async def caught() -> Any:
            try:
                return await work
            except (SpecChangedError, AttemptFencedError) as error:
                return type(error)

        return self.runner.run(caught())

    @initialize(order=some_orders)
    def begin(self, order: tuple[str, ...]) -> None:
        self.adopted.append(order)
        self.phase = order[0]
        assert self.run(self.store(order).current()) == self.phase

    @rule(order=some_orders, number=st.integers(0, 4), known=st.booleans())
    def read(self, order: tuple[str, ...], number: int, known: bool) -> None:
        if known:
            order = self.adopted[number % len(self.adopted)]
        allowed = order in self.adopted and order[: len(self.passed)] == self.passed
        assert self.run(self.store(order).current()) == (self.phase if allowed else SpecChangedError)

    @rule(number=st.integers(0, 4), fenced=st.sampled_from([False] * 4 + [True]), stale=st.booleans())
    def advance(self, number: int, fenced: bool, stale: bool) -> None:
        order = self.adopted[-1 - number % len(self.adopted)] if stale else self.holding
        phase = order[number % len(order)] if stale else self.phase
        following = order[(order.index(phase) + 1) % len(order)]
        if following == order[0]:
            return
        self.attempts += 1
        attempt = self.fenced[-1] if fenced and self.fenced else f"attempt {self.attempts}"
        answer = self.run(self.store(order).try_advance(phase, following, snapshot(attempt)))
        if order != self.holding:
            assert answer is SpecChangedError
        elif attempt in self.fenced:
            assert answer is AttemptFencedError
        elif phase != self.phase:
            assert answer == err(Conflict(self.phase))
        else:
            assert isinstance(answer, Ok)
            self.moves.append((phase, following, attempt))
            self.phase = following

    @rule(order=some_orders, faithful=st.booleans(), by=st.integers(0, 4))
    def amend(self, order: tuple[str, ...], faithful: bool, by: int) -> None:
        if faithful:
            order = (*self.passed, *(phase for phase in order if phase not in self.passed))
        if len(order) < 2:
            return
        store = self.store(self.adopted[by % len(self.adopted)])
        answer = self.run(store.amend(spec_of(*order, name="m"), **WHO))
        if order != self.holding and order[: len(self.passed)] != self.passed:
            assert answer is PassedPhasesChangedError
            return
        if order != self.holding:
            self.adopted.append(order)
        assert answer == len(self.adopted)

    @rule(committed=st.booleans())
    def resolve(self, committed: bool) -> None:
        self.attempts += 1
        store = self.store(self.adopted[0])
        if committed and self.moves:
            assert self.run(store.resolve(self.moves[-1][2])) is not None
            return
        assert self.run(store.resolve(f"attempt {self.attempts}")) is None
        self.fenced.append(f"attempt {self.attempts}")

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.stores.__aexit__(None, None, None))
        self.runner.run(self.stores.__aenter__())

    @invariant()
    def database_agrees(self) -> None:
        if not self.adopted:
            return
        rows = self.place.rows("SELECT name, phase, version, revision FROM migrations")
        assert rows == [("m", self.phase, len(self.moves), len(self.adopted))]
        history = self.run(self.store(self.holding).history())
        assert [(each.from_phase, each.to_phase, each.attempt) for each in history] == self.moves


def test_the_orders_are_as_the_model_has_them(place: Place) -> None:
    """Whatever builds do, in whatever order, they see what the model says."""
    run_state_machine_as_test(
        lambda: OrdersMachine(place),
        settings=settings(
            max_examples=40 if place.kind == FILE else 8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("name", ["m" * 256, "m "])
async def test_names_that_databases_do_not_take(stores: SqlStores, name: str) -> None:
    """A migration, or a phase, of such a name is refused where its store is made."""
    for spec in (spec_of("a", "b", name=name), spec_of("a", name)):
        with pytest.raises(SpecError, match="no name that databases take"):
            stores.phase_store(spec)
