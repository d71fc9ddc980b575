"""Workers that race through one database and are killed at random moments: what they leave behind is whole."""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from phyxius.clock import create_controlled_clock, create_system_clock
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, define_migration
from tests.places import FilePlace
from tests.stores.processes import KILL_PHASES, Child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
FAST = pytest.param(40, id="fast")
ALL = pytest.param(200, id="all", marks=pytest.mark.prove)
DAY = timedelta(days=1)


def run(place: Any, kills: int, kind: str, seed: int) -> list[list[str]]:
    """Kill so many workers, and return what they said."""
    with Child("kills", where(place), kills, seed, kind) as child:
        said = [line.split() for line in child.rest()]
    assert [words for words in said if words[0] in {"raised", "died"}] == [["died", "-9"]] * kills
    return said


def where(place: Any) -> str:
    """How a program finds it."""
    return str(place.path) if isinstance(place, FilePlace) else place.url


async def made(place: Any) -> Any:
    """The place, with its journal begun."""
    async with place.stores(create_system_clock()):
        return place


def faults_of(place: Any, said: list[list[str]]) -> Counter[str]:
    """What is wrong in the database, given what the workers said before they died."""
    faults: Counter[str] = Counter()
    place.assert_idle()  # also what those left open who were killed
    if isinstance(place, FilePlace):
        faults["damaged"] = place.rows("PRAGMA integrity_check") != [("ok",)]
    phases = {
        name: (phase, version) for name, phase, version in place.rows("SELECT name, phase, version FROM migrations")
    }
    steps: dict[str, list[Any]] = {name: [] for name in phases}
    for row in place.rows(
        "SELECT migration, version, from_phase, to_phase, attempt, evidence FROM transitions"
        " WHERE version IS NOT NULL ORDER BY version"
    ):
        steps[row[0]].append(row[1:])
    for name, (phase, version) in phases.items():
        taken = steps[name]
        faults["commits without their transition"] += max(version - len(taken), 0)
        faults["transitions without their commit"] += max(len(taken) - version, 0)
        faults["versions with a hole"] += [step[0] for step in taken] != list(range(1, len(taken) + 1))
        chain = [KILL_PHASES[0], *(step[2] for step in taken)]
        faults["steps out of order"] += chain != list(KILL_PHASES[: len(chain)])
        faults["steps from elsewhere"] += [step[1] for step in taken] != chain[:-1]
        faults["wrong phases"] += phase != chain[-1] or phase != KILL_PHASES[version]
        faults["evidence of another"] += any(json.loads(step[4]) not in ({"attempt": step[3]}, {}) for step in taken)
    stored = {step[3]: (name, step[1], step[2]) for name, taken in steps.items() for step in taken}
    tried = {
        attempt: (name, from_, to)
        for word, name, from_, to, attempt in (words for words in said if words[0] == "tries")
    }
    for word, attempt in (words for words in said if words[0] in {"moved", "lost"}):
        faults["answers that are not true"] += (attempt in stored) != (word == "moved")
    faults["steps that nobody took"] += any(tried.get(attempt) != step for attempt, step in stored.items())
    return +faults


async def calls_in(place: Any) -> tuple[Counter[str], Counter[str]]:
    """The calls of the workers, as a query tells of them once their leases are over: all, and those that were lost."""
    clock = create_controlled_clock(datetime.now(UTC) + DAY / 2)
    place.change("UPDATE journal SET stamped_by = 'test'")  # so that a clock of tests may read on
    stores = place.stores(clock)
    async with stores, stores.recorder(Journal(clock=clock), name="who asks", audit_only=True):
        found = await stores.journal_store.query(JournalQuery("legacy.read"), DAY)
    assert not found.in_flight
    # what is left of a lost call is its start, and that did not know yet what it would observe
    finished = [event for event in found if event.error is None]
    ids = Counter(str(event.observed["call"]) for event in finished)
    return ids, Counter(str(event.error and event.error.type) for event in found if event.error is not None)


@pytest.mark.parametrize("kills", [FAST, ALL])
async def test_a_kill_leaves_nothing_half_done(place: Any, kills: int) -> None:
    """Each commit has its transition and the other way round, and each answer that was given is true."""
    said = run(await made(place), kills, "real", seed=1)
    assert faults_of(place, said) == Counter()
    moved = sum(words[0] == "moved" for words in said)
    assert moved >= kills  # else they were killed before they did anything
    called = {words[1] for words in said if words[0] == "called"}
    finished, lost = await calls_in(place)
    assert finished.keys() <= called
    assert set(finished.values()) <= {1}
    # Each call that had begun is an event now: as it ended, or as lost with its worker.
    assert lost.keys() <= {"RecorderLost"}
    missing = len(called) - len(finished)
    assert missing <= lost.total() <= missing + kills  # a start may be stored without its call having begun


@pytest.mark.parametrize("kills", [FAST, ALL])
async def test_the_audit_in_a_second_transaction_is_found_out(place: Any, kills: int) -> None:
    """The control: with the transition in a transaction of its own, kills leave commits without it."""
    faults = faults_of(place, run(await made(place), kills, "control", seed=1))
    assert faults["commits without their transition"]


async def test_the_next_process_goes_on(place: Any) -> None:
    """Whoever comes after a kill finds the phase, and takes the next step."""
    run(await made(place), 3, "real", seed=2)
    spec = define_migration(name="m0", phases={phase: {} for phase in KILL_PHASES})
    async with place.stores(create_system_clock()) as stores:
        store = stores.phase_store(spec)
        history = await store.history()
        assert await store.current() == (history[-1].to_phase if history else KILL_PHASES[0])
