"""How a migration got where it is."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from phyxius.adapters import opened_stores
from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import opened, run
from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, ok
from phyxius.journal import Journal
from phyxius.migration import create_memory_phase_store, create_migration, define_migration, schema_applied
from phyxius.testing import FaultyPhaseStore
from tests.cli.support import (
    HOSTILE,
    START,
    Ended,
    Quotes,
    Shop,
    assert_tame,
    failing,
    on_terminal,
    phyxius,
    raising,
)

HOUR = timedelta(hours=1)
STORY = """\
quotes
  2026-01-01 12:00:00 UTC  BEGAN with the phases expand, dual_write, flip, contract
  2026-01-01 15:00:00 UTC  REFUSED dual_write (EVIDENCE_FAILED, 3 times since 2026-01-01 13:00:00 UTC)
      schema_ready: apply 0042
  2026-01-01 16:00:00 UTC  REFUSED dual_write (EVIDENCE_ERRORED)
      schema_ready: ValueError: no such table
  2026-01-01 17:00:00 UTC  ADVANCED expand → dual_write
      schema_ready: revision 0042
  2026-01-01 18:00:00 UTC  REFUSED contract (NOT_NEXT)
      "contract" is not the next phase after "dual_write"; that is "flip"
  2026-01-01 19:00:00 UTC  AMENDED by ada to expand, dual_write, check, flip, contract: we compare first
"""
EACH = """\
  2026-01-01 13:00:00 UTC  REFUSED dual_write (EVIDENCE_FAILED)
      schema_ready: apply 0042
  2026-01-01 14:00:00 UTC  REFUSED dual_write (EVIDENCE_FAILED)
      schema_ready: apply 0042
  2026-01-01 15:00:00 UTC  REFUSED dual_write (EVIDENCE_FAILED)
      schema_ready: apply 0042
"""
NARROW = """\
quotes
  2026-01-01 12:00:00 UTC
  BEGAN with the phases expand,
  dual_write, flip, contract
  2026-01-01 15:00:00 UTC
  REFUSED dual_write (EVIDENCE_FAILED, 3
  times since 2026-01-01 13:00:00 UTC)
      schema_ready:
      apply 0042
"""


@pytest.fixture
def told(quotes_in: Quotes, shop: Shop) -> Quotes:
    """A migration with a story."""
    quotes_in.make()
    assert phyxius("status").exit == 0
    answers = [failing("apply 0042")] * 3 + [raising(ValueError("no such table")), lambda: ok({"revision": "0042"})]
    for answer in answers:
        quotes_in.clock.advance_by(HOUR)
        quotes_in.schema = answer
        phyxius("advance", "quotes", "--to", "dual_write")
    quotes_in.clock.advance_by(HOUR)
    with opened(opened_stores(quotes_in.app, name="a service")):  # the command does not press for what is not next
        assert not isinstance(run(quotes_in.app.advance("contract")), Ok)
    quotes_in.clock.advance_by(HOUR)
    evidence = {phase: each.evidence for phase, each in quotes_in.app.spec.phases.items()}
    contract, flip = evidence.pop("contract"), evidence.pop("flip")
    shop.has(quotes_in.migration(**evidence, check={}, flip=flip, contract=contract))
    assert phyxius("amend", "quotes", "--why", "we compare first", "--yes").exit == 0
    return quotes_in


def test_a_story(told: Quotes) -> None:
    """What it began with, what it was refused, and what it came to, in order; repetitions are one."""
    assert phyxius("history", "quotes") == Ended(0, STORY)
    assert on_terminal("history", "quotes", width=120).seen == STORY
    assert on_terminal("history", "quotes", width=40).seen.startswith(NARROW)


def test_each_refusal(told: Quotes) -> None:
    """Also those that say the same."""
    each = phyxius("history", "quotes", "--all")
    assert EACH in each.out
    assert "times since" not in each.out


def test_nothing_older(told: Quotes) -> None:
    """What happened in a time that ends now."""
    recent = phyxius("history", "quotes", "--since", "90m").out
    assert [line.split()[3] for line in recent.splitlines() if " UTC  " in line] == ["REFUSED", "AMENDED"]
    assert phyxius("history", "quotes", "--since", "1s").out.count("UTC") == 1


def test_what_differs_is_not_told_as_one(quotes_in: Quotes) -> None:
    """But for numbers, which go on from one refusal to the next."""
    quotes_in.make()
    for reason in ("3 rows are left", "2 rows are left", "somebody else looks", "1 row is left"):
        quotes_in.schema = failing(reason)
        assert phyxius("advance", "quotes", "--to", "dual_write").exit == 75
    told = phyxius("history", "quotes").out
    assert told.count("REFUSED") == 3
    assert "2 times since 2026-01-01 12:00:00 UTC)\n      schema_ready: 2 rows are left\n" in told


def test_for_programs(told: Quotes) -> None:
    """Each entry, with all that is known."""
    ended = phyxius("history", "quotes", "--json")
    assert ended.exit == 0
    began, *refused, broken, advanced, not_next, amended = ended.told["history"]
    assert began == {
        "at": "2026-01-01T12:00:00+00:00",
        "kind": "began",
        "phases": ["expand", "dual_write", "flip", "contract"],
        "who": None,
        "why": None,
    }
    assert len(refused) == 3
    assert len({each.pop("attempt") for each in (*refused, broken, advanced, not_next)}) == 6
    assert refused[0] == {
        "at": "2026-01-01T13:00:00+00:00",
        "kind": "refused",
        "from": "expand",
        "to": "dual_write",
        "type": "EVIDENCE_FAILED",
        "message": 'cannot enter "dual_write": schema_ready: apply 0042',
        "failures": {"schema_ready": {"reason": "apply 0042", "details": {}, "retry_at": None}},
        "errors": {},
    }
    assert broken["errors"] == {"schema_ready": {"type": "ValueError", "message": "no such table"}}
    assert advanced == {
        "at": "2026-01-01T17:00:00+00:00",
        "kind": "advanced",
        "from": "expand",
        "to": "dual_write",
        "evidence": {"schema_ready": {"revision": "0042"}},
    }
    assert (not_next["type"], not_next["failures"], not_next["errors"]) == ("NOT_NEXT", {}, {})
    assert amended == {
        "at": "2026-01-01T19:00:00+00:00",
        "kind": "amended",
        "phases": ["expand", "dual_write", "check", "flip", "contract"],
        "who": "ada",
        "why": "we compare first",
    }


SIGNED = """\
  2026-01-01 13:00:00 UTC  ADVANCED dual_write → flip
      parity_signed: signed by ada (2026-01-01 12:00:00 UTC: looked at 20 rows)
"""


def test_a_step_that_was_signed_for(quotes_in: Quotes) -> None:
    """It tells who signed, when, and what of; programs get all that the stores keep."""
    quotes_in.at("dual_write")
    assert phyxius("sign", "quotes", "--to", "flip", "--note", "looked at 20 rows").exit == 0
    quotes_in.clock.advance_by(HOUR)
    assert phyxius("advance", "quotes", "--to", "flip").exit == 0
    assert phyxius("history", "quotes").out.endswith(SIGNED)
    evidence = phyxius("history", "quotes", "--json").told["history"][-1]["evidence"]["parity_signed"]
    assert evidence.keys() == {"signatures", "store"}
    assert evidence["signatures"][0]["signer"] == "ada"


def test_more_for_programs_than_one_value_may_hold(quotes_in: Quotes) -> None:
    """However long the story is, it is one JSON value in one line."""
    quotes_in.make()
    ids = list(range(2_000))
    quotes_in.schema = failing("not copied", details={"ids": ids})
    with quotes_in.made(), opened(quotes_in.stores.recorder(quotes_in.app.journal, name="a job", audit_only=True)):
        for _ in range(60):
            assert isinstance(run(quotes_in.app.advance()), Err)
    story = phyxius("history", "quotes", "--json").told["history"]
    assert [each["kind"] for each in story] == ["began", *["refused"] * 60]
    assert all(each["failures"]["schema_ready"]["details"] == {"ids": ids} for each in story[1:])


CUT = (
    "note: older refusals are left out, since the stores read no more than 2 at once; "
    "for all of a shorter time give --since\n"
)


def test_more_refusals_than_the_stores_read(shop: Shop) -> None:
    """It says so, and what to do about it."""
    clock = create_controlled_clock(START)
    stores = open_file_stores(shop.directory / "stores.db", clock=clock, max_window_events=2)
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {"ready": schema_applied(failing("not yet"))}})
    shop.has(
        create_migration(
            spec,
            journal=Journal[Any](clock=clock),
            journal_store=stores.journal_store,
            phase_store=stores.phase_store(spec),
        )
    )
    for count in range(1, 4):
        clock.advance_by(HOUR)
        assert phyxius("advance", "quotes", "--to", "flip", "--yes", "--create").exit == 75
        ended = phyxius("history", "quotes")
        assert ended.out.count("REFUSED") == 1
        assert ended.err == (CUT if count == 3 else "")
        told = phyxius("history", "quotes", "--json").told
        assert (told["truncated"], len(told["history"])) == (count == 3, 1 + min(count, 2))
    assert phyxius("history", "quotes", "--since", "30m").err == ""
    ended = phyxius("history", "quotes", "--json")
    assert ended.err == CUT


CANCELLED = """\
quotes
  2026-01-01 12:00:00 UTC  REFUSED a step (CANCELLED)
      the call was cancelled before the transition began; nothing moved, advance() again
"""


def test_a_call_that_was_cancelled(shop: Shop) -> None:
    """It may not even have known where it was."""
    clock = create_controlled_clock(START)
    store = FaultyPhaseStore(create_memory_phase_store(initial="expand", clock=clock))
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}})
    migration = create_migration(spec, journal=Journal[Any](clock=clock), phase_store=store)
    shop.has(migration)
    store.hang("current", times=1)

    async def cancel() -> None:
        calling = asyncio.create_task(migration.advance())
        while not store.calls:  # noqa: ASYNC110 - what is waited for is seen in the store alone
            await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait([calling])

    run(cancel())
    assert phyxius("history", "quotes") == Ended(0, CANCELLED)


def test_stores_without_a_history(shop: Shop) -> None:
    """It says so."""

    class Store:
        async def current(self) -> str:
            raise AssertionError

        async def try_advance(self, *_: object) -> object:
            raise AssertionError

    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}})
    store: Any = Store()
    clock = create_controlled_clock()
    shop.has(create_migration(spec, journal=Journal(clock=clock), phase_store=store, single_process=True))
    said = "nothing is known of it: its stores keep no history, or its phase was never read"
    assert phyxius("history", "quotes") == Ended(0, f"quotes\n  {said}\n")
    assert phyxius("history", "quotes", "--json").told == {"migration": "quotes", "history": [], "truncated": False}
    assert phyxius("history", "orders").exit == 2


@pytest.mark.parametrize("kind", ["refused", "amended"])
def test_hostile_texts(quotes_in: Quotes, shop: Shop, kind: str) -> None:
    """What is in the stores may be from anybody."""
    hostile = HOSTILE.replace("\x00", "")
    quotes_in.make()
    migration = quotes_in.migration(f"quotes{hostile[:9]}", **{"expand": {}, f"f{hostile}x": {}})
    shop.has(migration)
    with opened(quotes_in.stores):
        run(migration.current_phase())
    if kind == "amended":
        shop.has(quotes_in.migration(migration.name, **{"expand": {}, f"f{hostile}y": {}}))
        assert_tame(phyxius("amend", migration.name, "--why", hostile, "--who", hostile, "--yes"))
    else:
        quotes_in.schema = failing(hostile)
        evidence = {hostile: quotes_in.app.spec.phases["dual_write"].evidence["schema_ready"]}
        shop.has(quotes_in.migration(migration.name, **{"expand": {}, f"f{hostile}x": evidence}))
        assert_tame(phyxius("advance", migration.name, "--to", f"f{hostile}x", "--yes"))
    assert_tame(phyxius("history", migration.name))
    assert_tame(on_terminal("history", migration.name, width=300))
    assert phyxius("history", migration.name, "--json").told["history"]
