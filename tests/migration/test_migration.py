"""Binding a spec to its stores, and reading the phase."""

from __future__ import annotations

import asyncio
import warnings
from datetime import timedelta
from typing import Any
from unittest.mock import MagicMock

import pytest

from phyxius.clock import create_controlled_clock, create_system_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    MemoryJournalStore,
    MemoryPhaseStoreWarning,
    Migration,
    SpecError,
    UnknownPhaseError,
    attestation,
    create_memory_journal_store,
    create_memory_phase_store,
    create_migration,
    define_migration,
    phase_reached,
    schema_applied,
)
from phyxius.testing import aged_journal
from tests.migration.support import PHASES, SECOND, answering, build, forever, quiet, raising, rounds, waiting

PLAIN = define_migration(name="quotes", phases={"expand": {}, "flip": {"ok": schema_applied(ok)}})
WINDOW = define_migration(name="quotes", phases={"expand": {}, "flip": {"quiet": quiet()}})


def journal() -> Journal[Any]:
    """A journal on a clock of its own."""
    return Journal(clock=create_controlled_clock())


async def test_what_it_is() -> None:
    """A migration knows its spec and its name, and begins at the first phase."""
    migration = create_migration(PLAIN, journal=journal())
    assert type(migration) is Migration
    assert migration.spec is PLAIN
    assert migration.name == "quotes"
    assert await migration.current_phase() == "expand"


async def test_initial_phase() -> None:
    """A phase store in memory can begin elsewhere."""
    migration = create_migration(PLAIN, journal=journal(), initial_phase="flip")
    assert await migration.current_phase() == "flip"


async def test_the_journal_is_the_evidence() -> None:
    """Without a journal store the windows are asked of the journal; with one, of that."""
    events = journal()
    other = Journal[Any](clock=events.clock)
    other.declare("old.read")
    assert not (await create_migration(WINDOW, journal=events).readiness()).ready
    store = create_memory_journal_store(journal=other)
    events.clock.advance_by(timedelta(days=30))
    assert (await create_migration(WINDOW, journal=events, journal_store=store).readiness()).ready


# -- reading the phase


async def test_each_read_is_live() -> None:
    """The phase is read from the store every time."""
    lab = build()
    for phase in PHASES:
        lab.store.inner._phase = phase
        assert await lab.migration.current_phase() == phase
    assert lab.store.operations == ["current"] * 3


UNKNOWN = ["drop", "", "Expand", None, b"expand", ["expand"], 7, MagicMock(spec=str)]


@pytest.mark.parametrize("phase", UNKNOWN, ids=map(repr, range(len(UNKNOWN))))
async def test_an_unknown_phase(phase: object) -> None:
    """What is no phase of the spec is never guessed: reading it raises, and so does routing by it."""
    lab = build(store={"current": answering(phase)})
    with pytest.raises(UnknownPhaseError) as caught:
        await lab.migration.current_phase()
    assert (caught.value.migration, caught.value.declared) == ("quotes", PHASES)
    assert caught.value.phase is phase
    called: list[object] = []
    route = lab.migration.by_phase(dict.fromkeys(PHASES, called.append))
    with pytest.raises(UnknownPhaseError):
        await route("x")
    assert called == []


@pytest.mark.parametrize("error", [OSError("gone"), asyncio.CancelledError("pool"), KeyError("x"), TypeError("x")])
async def test_the_store_raises(error: BaseException) -> None:
    """The store's own exception goes through, unwrapped."""
    lab = build(store={"current": raising(error)})
    with pytest.raises(type(error)) as caught:
        await lab.migration.current_phase()
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        await lab.migration.by_phase(dict.fromkeys(PHASES, forever))()
    assert caught.value is error


async def test_a_read_can_be_cancelled() -> None:
    """A read of the phase is an ordinary await."""
    lab = build(store={"current": waiting(forever)})
    task = asyncio.ensure_future(lab.migration.current_phase())
    await rounds()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- what does not fit together


def fitted(**options: Any) -> Migration[str]:
    """A migration over a store of its own, so that nothing warns."""
    return create_migration(options.pop("spec", WINDOW), **{"journal": journal()} | options)


@pytest.mark.parametrize("spec", [None, {}, "quotes", {"expand": {}, "flip": {}}, MagicMock()])
def test_no_spec(spec: object) -> None:
    """Only what `define_migration` made is a spec."""
    with pytest.raises(SpecError, match="define_migration"):
        fitted(spec=spec)


@pytest.mark.parametrize("limit", [timedelta(0), -SECOND, 30, None])
def test_no_limit(limit: object) -> None:
    """The limit is a positive timedelta."""
    with pytest.raises(SpecError, match="evidence_timeout"):
        fitted(evidence_timeout=limit)


@pytest.mark.parametrize("phase", ["drop", "", "Expand"])
def test_no_such_initial_phase(phase: str) -> None:
    """The initial phase is one of the spec, and the message lists them."""
    with pytest.raises(SpecError, match=r"'expand', 'flip'") as caught:
        fitted(initial_phase=phase)
    assert caught.value.migration == "quotes"


def test_an_initial_phase_beside_a_store() -> None:
    """A phase store holds the phase; it cannot be given twice."""
    clock = create_controlled_clock()
    store = create_memory_phase_store(initial="expand", clock=clock)
    with pytest.raises(SpecError, match="give the initial phase to the store"):
        fitted(journal=Journal(clock=clock), phase_store=store, initial_phase="flip")


@pytest.mark.parametrize("migration,fits", [("quotes", True), ("orders", False), (7, True), (None, True)])
def test_the_phase_store_of_another_migration(migration: object, fits: bool) -> None:
    """A store that says whose phase it holds is bound to that migration alone."""
    clock = create_controlled_clock()
    store = create_memory_phase_store(initial="expand", clock=clock)
    vars(store)["migration"] = migration
    if fits:
        assert fitted(journal=Journal(clock=clock), phase_store=store).name == "quotes"
    else:
        with pytest.raises(SpecError, match='the phase store is that of migration "orders"; give the one of'):
            fitted(journal=Journal(clock=clock), phase_store=store)


@pytest.mark.parametrize("owner", ["clock", "journal store", "phase store"])
def test_two_clocks(owner: str) -> None:
    """One migration has one clock; whoever has another is named."""
    other = create_controlled_clock()
    options: dict[str, Any] = {
        "clock": {"clock": other},
        "journal store": {"journal_store": MemoryJournalStore(Journal(clock=other))},
        "phase store": {"phase_store": create_memory_phase_store(initial="expand", clock=other)},
    }[owner]
    with pytest.raises(SpecError, match="journal has" if owner == "clock" else f"{owner} has") as caught:
        fitted(**options)
    assert "one clock for everything" in str(caught.value)
    kept = Journal[Any](clock=other)
    assert isinstance(fitted(journal=kept, clock=other), Migration)


class Scoped:
    """A store of some scope."""

    def __init__(self, scope: object = None) -> None:
        if scope is not None:
            self.scope = scope

    async def current(self) -> str:
        return "expand"


class AnyStore(Scoped):
    """A journal store or a phase store."""

    query: Any = None
    try_advance: Any = None


@pytest.mark.parametrize("spec, windows", [(PLAIN, False), (WINDOW, True)])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("phases", [None, "fleet", "process"])
@pytest.mark.parametrize("journals", [None, "fleet", "process", "default"])
def test_scopes(spec: Any, windows: bool, single: bool, phases: str | None, journals: str | None) -> None:
    """A fleet's phase needs a fleet's journal for a window; stores that say nothing are a fleet's and a process's."""
    stores: dict[str, Any] = {"phase_store": AnyStore(phases), "single_process": single}
    if journals != "default":
        stores["journal_store"] = AnyStore(journals)
    if windows and not single and phases != "process" and journals != "fleet":
        with pytest.raises(SpecError, match="single_process=True") as caught:
            fitted(spec=spec, **stores)
        assert (caught.value.migration, caught.value.phase, caught.value.source) == ("quotes", "flip", "quiet")
    else:
        assert isinstance(fitted(spec=spec, **stores), Migration)


@pytest.mark.parametrize("bag", ["expand", "contract"])
def test_a_window_anywhere(bag: str) -> None:
    """A journal window of any phase counts, the first one's too, whatever stands beside it."""
    sources: dict[str, Any] = {"a": attestation(ok), "w": quiet()}
    spec = define_migration(name="q", phases={phase: sources if phase == bag else {} for phase in PHASES})
    with pytest.raises(SpecError) as caught:
        fitted(spec=spec, phase_store=AnyStore())
    assert (caught.value.phase, caught.value.source) == (bag, "w")


@pytest.mark.parametrize("kind", ["phase_store", "journal_store"])
@pytest.mark.parametrize("scope", ["Fleet", "", 1, True])
def test_no_such_scope(kind: str, scope: object) -> None:
    """A scope is one of two words: a misspelt one vouches for nothing."""
    with pytest.raises(SpecError, match='"process" or "fleet"'):
        fitted(single_process=True, **{kind: AnyStore(scope)})


# -- the warning


def warned(**options: Any) -> list[warnings.WarningMessage]:
    """What creating a migration warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_migration(PLAIN, **options)
    return caught


def test_memory_in_real_time_warns() -> None:
    """A default phase store under the system clock warns once, at the caller's line, and says what to do."""
    (warning,) = warned(journal=Journal(clock=create_system_clock()))
    assert warning.category is MemoryPhaseStoreWarning
    assert warning.filename == __file__
    assert '"quotes"' in str(warning.message)
    assert "phase_store=" in str(warning.message)


def test_memory_on_purpose_does_not_warn() -> None:
    """Neither a store that was given warns, nor a controlled clock."""
    clock = create_system_clock()
    store = create_memory_phase_store(initial="expand", clock=clock)
    assert not warned(journal=Journal(clock=clock), phase_store=store)
    assert not warned(journal=journal())


async def test_real_time() -> None:
    """Under the system clock a migration works just so."""
    clock = create_system_clock()
    store = create_memory_phase_store(initial="expand", clock=clock)
    migration = create_migration(PLAIN, journal=Journal(clock=clock), phase_store=store)
    assert (await migration.advance()).value.to_phase == "flip"


async def test_phase_reached_sees_the_other_store() -> None:
    """Evidence about another migration reads that one's store live."""
    other = build()
    lab = build({"other": phase_reached(other.migration, "flip")})
    assert (await lab.advance()).error.failures.keys() == {"other"}
    await other.advance()
    assert (await lab.advance()).value.evidence == {"other": {"migration": "quotes", "phase": "flip"}}


@pytest.mark.parametrize(
    "stores, says",
    [
        ({"phase_store": object()}, "phase store .* has no current"),
        ({"phase_store": create_memory_journal_store}, "has no current"),
        ({"journal_store": object()}, "journal store .* has no query"),
    ],
)
def test_a_store_that_is_none(stores: Any, says: str) -> None:
    """What lacks an operation is refused when the migration is put together, not when it is advanced."""
    with pytest.raises(SpecError, match=says):
        create_migration(define_migration(name="m", phases={"a": {}, "b": {}}), journal=aged_journal(), **stores)
