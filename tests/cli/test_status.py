"""Where each migration is."""

from __future__ import annotations

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import create_migration, define_migration, schema_applied
from tests.cli.support import DAYS_14, HOSTILE, SHOWN, Ended, Quotes, Shop, in_memory, on_terminal, phyxius

YOUNG = """\
quotes
  phase  [expand] → dual_write → flip → contract
  since  2026-01-01 12:00:00 UTC, now
  next   dual_write, which demands
         schema_ready  The schema has revision 0042
"""
OLDER = """\
quotes
  phase  expand → [dual_write] → flip → contract
  since  2026-01-01 12:00:00 UTC, 14 days ago
  next   flip, which demands
         parity_signed  signed by 1 person
"""
NARROW = """\
quotes
  phase  expand → [dual_write] → flip →
         contract
  since  2026-01-01 12:00:00 UTC, 14
         days ago
  next   flip, which demands
         parity_signed
         signed by 1 person
"""


def test_from_the_first_phase_on(quotes_in: Quotes) -> None:
    """The phase, since when, and what the next one demands: in a pipe, on a terminal, and for programs."""
    quotes_in.make()
    assert phyxius("status") == Ended(0, YOUNG)
    assert phyxius("status", "quotes") == Ended(0, YOUNG)
    assert phyxius("advance", "quotes", "--to", "dual_write").exit == 0
    quotes_in.clock.advance_by(DAYS_14)
    assert phyxius("status") == Ended(0, OLDER)
    assert on_terminal("status").seen == OLDER
    assert on_terminal("status", width=40).seen == NARROW
    assert phyxius("status", "--json").told == {
        "migrations": [
            {
                "migration": "quotes",
                "phases": ["expand", "dual_write", "flip", "contract"],
                "phase": "dual_write",
                "since": "2026-01-01T12:00:00+00:00",
                "next_phase": "flip",
                "demands": {"parity_signed": "signed by 1 person"},
            }
        ]
    }


SEVERAL = """\
quotes
  phase  [expand] → flip
  next   flip, which can be entered freely

orders
  phase  old → [new]
  next   it is at its last phase; nothing is left to do
"""


def test_several(shop: Shop) -> None:
    """All of them, or those that are named, in the order in which they are named."""
    shop.has([in_memory(), in_memory("orders", "new", old={}, new={})])
    assert phyxius("status") == Ended(0, SEVERAL)
    orders, quotes = phyxius("status", "orders", "quotes", "--json").told["migrations"]
    assert (orders["migration"], orders["phase"], orders["next_phase"], orders["since"]) == (
        "orders",
        "new",
        None,
        None,
    )
    assert (quotes["migration"], quotes["phase"], quotes["demands"]) == ("quotes", "expand", {})
    told = "phyxius: there is no migration 'nothing'; there are: quotes, orders\n"
    assert phyxius("status", "quotes", "nothing") == Ended(2, "", told)


ASCII = """\
quotes
  phase  [expand] > flip
  next   flip, which demands
         \\u6f22  Wartet nicht l\\xe4nger
"""


def test_an_encoding_that_lacks_what_is_to_be_shown(shop: Shop) -> None:
    """An escape is better than an error."""

    def check() -> object:
        """Wartet nicht länger."""
        return ok(1)

    shop.has(in_memory(expand={}, flip={"漢": schema_applied(check)}))
    assert on_terminal("status", encoding="ascii").seen == ASCII


def test_colours(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is stands out, and what has passed is dim; unless somebody wants no colours."""
    shop.has(in_memory("quotes", "flip", expand={}, flip={}, contract={}))
    assert "\x1b[2mexpand\x1b[0m → \x1b[1;32m[flip]\x1b[0m → contract" in on_terminal("status").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32m" not in on_terminal("status").out
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in on_terminal("status").out


def test_since_when_a_store_cannot_tell(shop: Shop) -> None:
    """One's own may keep no history."""

    class Store:
        async def current(self) -> str:
            return "expand"

        async def try_advance(self, *_: object) -> object:
            raise AssertionError

    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}})
    clock = create_controlled_clock()
    store: object = Store()
    shop.has(create_migration(spec, journal=Journal(clock=clock), phase_store=store, single_process=True))  # type: ignore[arg-type]
    assert "since" not in phyxius("status").out
    assert phyxius("status", "--json").told["migrations"][0]["since"] is None


SHOWN_STATUS = f"""\
{SHOWN}
  phase  [{SHOWN}] → {SHOWN}2
  next   {SHOWN}2, which demands
         {SHOWN}  {SHOWN[:1]}
"""


def test_hostile_names(shop: Shop) -> None:
    """They are shown, and not obeyed."""

    def check() -> object:
        return ok(1)

    check.__doc__ = HOSTILE[:1]
    shop.has(in_memory(HOSTILE, **{HOSTILE: {}, f"{HOSTILE}2": {HOSTILE: schema_applied(check)}}))
    assert phyxius("status") == Ended(0, SHOWN_STATUS)
    assert on_terminal("status").seen.split() == SHOWN_STATUS.split()
    assert phyxius("status", "--json").told
