"""Orders of phases that change, and events that are old."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from phyxius.blocking import opened, run
from phyxius.journal import Journal
from phyxius.migration import journal_window, no_events
from phyxius.testing import record_events
from tests.cli.support import HOSTILE, Ended, Quotes, Shop, assert_tame, in_memory, on_terminal, phyxius

AMEND = ("amend", "quotes", "--why", "the backfill is a phase")
ORDERS = """\
the stores have      expand, dual_write, flip, contract
the application has  expand, dual_write, backfill, contract
"""
AMENDED = f"{ORDERS}AMENDED  quotes has revision 2 of its order: expand, dual_write, backfill, contract\n"
QUESTION = "Have the stores adopt the order of the application for quotes? Signatures given so far stop counting."


@pytest.fixture
def changed(quotes_in: Quotes, shop: Shop) -> Quotes:
    """A build with another order of phases."""
    quotes_in.at("dual_write")
    shop.has(quotes_in.migration(expand={}, dual_write={}, backfill={}, contract={}))
    return quotes_in


def test_a_changed_order(changed: Quotes) -> None:
    """Both are shown; the stores have the one of the application then, and it advances again."""
    assert phyxius("advance", "quotes", "--to", "backfill").exit == 7
    assert phyxius(*AMEND, "--yes") == Ended(0, AMENDED)
    assert changed.place.rows("SELECT who, why FROM orders WHERE revision = 2") == [("ada", "the backfill is a phase")]
    assert phyxius("advance", "quotes", "--to", "backfill").exit == 0
    same = "expand, dual_write, backfill, contract"
    assert phyxius(*AMEND) == Ended(3, f"ALREADY THERE  the stores have the same order already: {same}\n")
    already = phyxius(*AMEND, "--json")
    assert already.exit == 3
    assert already.told == {"migration": "quotes", "revision": 2, "phases": same.split(", "), "amended": False}


def test_a_changed_order_for_programs(changed: Quotes) -> None:
    """Who decides may be somebody else than who runs it."""
    ended = phyxius(*AMEND, "--who", "cleo", "--yes", "--json")
    assert ended.exit == 0
    phases = ["expand", "dual_write", "backfill", "contract"]
    assert ended.told == {"migration": "quotes", "revision": 2, "phases": phases, "amended": True}
    assert changed.place.rows("SELECT who FROM orders WHERE revision = 2") == [("cleo",)]


def test_a_changed_order_is_asked_for(changed: Quotes) -> None:
    """Whoever runs it has to say yes; with nobody to ask it says how."""
    told = f"{QUESTION} Nobody can be asked here: say --yes to mean it"
    assert phyxius(*AMEND) == Ended(2, ORDERS, f"phyxius: {told}\n")
    refused = on_terminal(*AMEND, typed="n\n", width=120)
    assert refused.exit == 2
    assert f"{QUESTION} [y/N]: " in refused.seen
    assert refused.seen.endswith("phyxius: nothing was done\n")
    assert changed.place.rows("SELECT count(*) FROM orders") == [(1,)]
    for_programs = phyxius(*AMEND, "--json")
    assert (for_programs.exit, for_programs.err) == (2, f"{ORDERS}phyxius: {told}\n")
    agreed = on_terminal(*AMEND, typed="y\n", width=120)
    assert agreed.exit == 0
    assert agreed.seen.endswith("AMENDED  quotes has revision 2 of its order: expand, dual_write, backfill, contract\n")


def test_an_order_that_changes_while_one_thinks(changed: Quotes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was shown is what is replaced, or nothing is."""

    def somebody_else_is_faster(*_: object) -> None:
        other = changed.migration(expand={}, dual_write={}, check={}, contract={})
        with opened(changed.place.stores(changed.clock)) as stores:
            run(stores.phase_store(other.spec).amend(other.spec, who="cleo", why="check first"))

    monkeypatch.setattr("phyxius.cli._upkeep.ask", somebody_else_is_faster)
    ended = phyxius(*AMEND)
    assert ended.exit == 7
    assert ended.err.startswith("phyxius: somebody amended the order meanwhile (revision 2): the store recorded")
    assert changed.place.rows("SELECT count(*) FROM orders") == [(2,)]


def test_somebody_with_the_same_in_mind(changed: Quotes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was slower is told whose amendment it is, and that theirs is not kept."""

    def somebody_else_is_faster(*_: object) -> None:
        other = changed.migration(expand={}, dual_write={}, backfill={}, contract={})
        with opened(changed.place.stores(changed.clock)) as stores:
            run(stores.phase_store(other.spec).amend(other.spec, who="cleo", why="copy first"))

    monkeypatch.setattr("phyxius.cli._upkeep.ask", somebody_else_is_faster)
    ended = phyxius(*AMEND)
    assert ended.exit == 3
    assert ended.out == f"{ORDERS}ALREADY THERE  cleo had the stores adopt the same order meanwhile: copy first\n"


@pytest.mark.parametrize("more", [["--why", " "], ["--why", "more", "--who", ""]], ids=["why", "who"])
def test_an_amendment_without_a_reason(changed: Quotes, more: list[str]) -> None:
    """It is kept with the order; so it is asked for before anything else."""
    ended = phyxius("amend", "quotes", "--yes", *more)
    assert (ended.exit, ended.out) == (2, "")
    assert "is empty; say" in ended.err


def test_an_order_that_changes_what_has_passed(quotes_in: Quotes, shop: Shop) -> None:
    """The stores refuse it."""
    quotes_in.at("dual_write")
    shop.has(quotes_in.migration(expand={}, copy={}, dual_write={}, contract={}))
    ended = phyxius(*AMEND, "--yes")
    assert ended.exit == 7
    assert "so the new order must begin with" in ended.err


def test_nothing_to_amend(quotes_in: Quotes, shop: Shop) -> None:
    """The stores do not know it yet, or keep no order."""
    quotes_in.make()
    told = "the stores do not know quotes yet: its first `status` or `check` records its order"
    assert phyxius(*AMEND) == Ended(2, "", f"phyxius: {told}\n")
    shop.has(in_memory())
    told = "the phase store of quotes keeps no order of phases, so there is nothing to amend"
    assert phyxius(*AMEND) == Ended(2, "", f"phyxius: {told}\n")
    assert phyxius("amend", "orders", "--why", "x").exit == 2
    assert "Missing option '--why'" in phyxius("amend", "quotes").err


def test_hostile_texts(quotes_in: Quotes, shop: Shop) -> None:
    """Phases may be called anything."""
    hostile = HOSTILE.replace("\x00", "")
    quotes_in.at("dual_write")
    shop.has(quotes_in.migration(expand={}, dual_write={}, **{f"{hostile}x": {}}))
    assert_tame(phyxius(*AMEND))
    assert_tame(on_terminal(*AMEND, typed="n\n", width=300))


# -- events that are old

PRUNE = ("prune", "--older-than", "15d")
PRUNED = "PRUNED  3 events from before 2026-01-05 12:00:00 UTC are deleted\n"
DELETE = "Delete all events from before 2026-01-05 12:00:00 UTC, but the audit, the phases and the signatures?"


@pytest.fixture
def aged(quotes_in: Quotes) -> Quotes:
    """Stores with three old events and two new ones, and an old step."""
    quotes_in.make()
    assert phyxius("advance", "quotes", "--to", "dual_write").exit == 0
    for count in (3, 2):
        journal = Journal(clock=quotes_in.clock)
        recorder = quotes_in.stores.recorder(journal, name="api")
        with opened(quotes_in.stores), opened(recorder):
            record_events(journal, "quote.read_old", count=count)
            run(recorder.flush())
        quotes_in.clock.advance_by(timedelta(days=19))
    quotes_in.clock.jump_wall_time(quotes_in.clock.now().wall - timedelta(days=19))
    return quotes_in


def counted(aged: Quotes) -> list[tuple[str, int]]:
    return aged.place.rows("SELECT name, count(*) FROM events GROUP BY name ORDER BY name")


AUDIT = ("migration.quotes.advance", 1)


def test_old_events_are_deleted(aged: Quotes) -> None:
    """The newer ones stay, and the audit."""
    assert counted(aged) == [AUDIT, ("quote.read_old", 5)]
    assert phyxius(*PRUNE, "--yes") == Ended(0, PRUNED)
    assert counted(aged) == [AUDIT, ("quote.read_old", 2)]
    assert phyxius("status").out.startswith("quotes\n  phase  expand → [dual_write]")
    assert phyxius(*PRUNE, "--yes", "--json").told == {"deleted": 0, "older_than_seconds": 1_296_000.0}


def test_it_is_asked_for(aged: Quotes) -> None:
    """Whoever runs it has to say yes; with nobody to ask it says how."""
    told = f"{DELETE} Nobody can be asked here: say --yes to mean it"
    assert phyxius(*PRUNE) == Ended(2, "", f"phyxius: {told}\n")
    refused = on_terminal(*PRUNE, typed="n\n", width=120)
    assert refused.exit == 2
    assert f"{DELETE} [y/N]: " in refused.seen
    assert counted(aged) == [AUDIT, ("quote.read_old", 5)]
    agreed = on_terminal(*PRUNE, typed="y\n", width=120)
    assert agreed.exit == 0
    assert agreed.seen.endswith(PRUNED)


@pytest.mark.parametrize("age", ["14d", "13d", "1h"])
def test_a_window_needs_them(aged: Quotes, age: str) -> None:
    """What evidence looks back to stays."""
    told = (
        "evidence here looks back 14 days, and could not pass until that has gone by again: "
        "--older-than must be longer than 14 days"
    )
    assert phyxius("prune", "--older-than", age, "--yes") == Ended(2, "", f"phyxius: {told}\n")
    assert counted(aged) == [AUDIT, ("quote.read_old", 5)]


def test_several_migrations_over_one_journal(aged: Quotes, shop: Shop) -> None:
    """It is pruned once, by the longest window of all."""
    other = aged.migration("orders", old={}, new={})
    shop.has([other, aged.app])
    assert phyxius("prune", "--older-than", "10d", "--yes").exit == 2
    assert phyxius(*PRUNE, "--yes", "--json").told["deleted"] == 3


def test_a_question_that_stands_for_a_while(aged: Quotes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is deleted is what was asked about, however late the answer comes."""
    monkeypatch.setattr("phyxius.cli._upkeep.ask", lambda *_: aged.clock.advance_by(timedelta(days=40)))
    assert phyxius(*PRUNE) == Ended(0, PRUNED)
    assert counted(aged) == [AUDIT, ("quote.read_old", 2)]


def test_another_order_of_phases(aged: Quotes, shop: Shop) -> None:
    """A phase that this build does not know may look back further."""
    windows = {"reads": journal_window("quote.read_old", timedelta(days=90), no_events())}
    shop.has(aged.migration(expand={}, dual_write={}, more=windows, flip={}, contract={}))
    assert phyxius("amend", "quotes", "--why", "more to look at", "--yes").exit == 0
    shop.has(aged.app)
    assert phyxius("prune", "--older-than", "30d", "--yes").exit == 7


def test_a_window_that_has_been_asked(aged: Quotes) -> None:
    """What guards no step any more needs no events."""
    aged.at("contract")
    assert phyxius("prune", "--older-than", "1d", "--yes").exit == 0


def test_one_store_of_two_fails(aged: Quotes, shop: Shop) -> None:
    """What is deleted already is told."""
    other = in_memory("orders")
    store: Any = other.journal_store

    async def prune(**_: object) -> int:
        raise OSError("the disk is gone")

    store.prune = prune
    shop.has([aged.app, other])
    ended = phyxius(*PRUNE, "--yes")
    assert ended.exit == 1
    assert ended.err.startswith("note: 3 events of other stores were deleted before that\n")
    assert ended.err.endswith("phyxius: OSError: the disk is gone; --traceback shows where\n")


def test_nothing_to_prune(shop: Shop) -> None:
    """A journal in memory ends with its process."""
    shop.has(in_memory())
    told = "no journal store here keeps events that could be pruned"
    assert phyxius(*PRUNE) == Ended(2, "", f"phyxius: {told}\n")
    assert "Missing option '--older-than'" in phyxius("prune").err
