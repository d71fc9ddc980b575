"""Where each migration is."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    Migration,
    create_memory_phase_store,
    create_migration,
    define_migration,
    schema_applied,
)
from phyxius.testing import FaultyPhaseStore
from tests.cli.support import (
    DAYS_14,
    HOSTILE,
    SHOWN,
    START,
    Ended,
    Quotes,
    Shop,
    assert_tame,
    in_memory,
    on_terminal,
    phyxius,
)

OLD_NEW: dict[str, Any] = {"old": {}, "new": {}}

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
         parity_signed  a signature by 1 person
"""
NARROW = """\
quotes
  phase  expand → [dual_write] → flip →
         contract
  since  2026-01-01 12:00:00 UTC, 14
         days ago
  next   flip, which demands
         parity_signed
         a signature by 1 person
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
                "demands": {"parity_signed": "a signature by 1 person"},
                "error": None,
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


# -- what cannot be shown as it should be

CURE = 'if this build is the newer one: phyxius amend quotes --why "..."; if it is the older one: deploy the newer'
OTHER = f"""\
quotes
  error     the stores have another order of phases than this build
  recorded  expand → dual_write → flip → contract
  declared  expand → dual_write → backfill → contract
  to do     {CURE}

orders
  phase  [old] → new
  next   new, which can be entered freely
"""


def test_another_order_of_phases(quotes_in: Quotes, shop: Shop) -> None:
    """It is shown with the cure, and hides no other migration."""
    quotes_in.at("dual_write")
    shop.has([quotes_in.migration(expand={}, dual_write={}, backfill={}, contract={}), in_memory("orders", **OLD_NEW)])
    assert phyxius("status") == Ended(7, OTHER)
    ended = phyxius("status", "--json")
    quotes, orders = ended.told["migrations"]
    assert (ended.exit, ended.err) == (7, "")
    assert quotes.pop("error")["type"] == "SpecChangedError"
    assert quotes == {
        "migration": "quotes",
        "phases": ["expand", "dual_write", "backfill", "contract"],
        "phase": None,
        "since": None,
        "next_phase": None,
        "demands": {},
    }
    assert (orders["phase"], orders["error"]) == ("old", None)
    assert phyxius("status", "orders").exit == 0


def test_where_it_is_in_another_order(quotes_in: Quotes, shop: Shop) -> None:
    """Its history tells that, where the phase store does not."""
    quotes_in.make()
    assert phyxius("advance", "quotes", "--to", "dual_write").exit == 0
    shop.has(quotes_in.migration(expand={}, dual_write={}, backfill={}, contract={}))
    assert "  recorded  expand → [dual_write] → flip → contract\n" in phyxius("status").out
    (told,) = phyxius("status", "--json").told["migrations"]
    assert (told["phase"], told["since"]) == ("dual_write", "2026-01-01T12:00:00+00:00")


OLDER_BUILD = f"""\
quotes
  error     the stores have another order of phases than this build
  recorded  [expand] → dual_write → flip → last
  declared  expand → dual_write → flip → contract
  to do     {CURE}
"""


def test_another_order_of_the_phases_ahead(quotes_in: Quotes, shop: Shop) -> None:
    """A build from before an amendment can read the phase, but not step; it is told before it tries."""
    quotes_in.at("expand")
    shop.has(quotes_in.migration(expand={}, dual_write={}, flip={}, last={}))
    assert phyxius("amend", "quotes", "--why", "contract is called last", "--yes").exit == 0
    assert phyxius("status").exit == 0
    shop.has(quotes_in.app)
    assert phyxius("status") == Ended(7, OLDER_BUILD)
    (quotes,) = phyxius("status", "--json").told["migrations"]
    assert (quotes["phase"], quotes["next_phase"], quotes["demands"]) == ("expand", None, {})


def test_the_cure_of_a_name_that_a_shell_would_split(quotes_in: Quotes, shop: Shop) -> None:
    """It can be run as it stands."""
    quotes_in.make()
    shop.has(quotes_in.migration("ada's quotes", expand={}, flip={}))
    assert phyxius("status").exit == 0
    shop.has(quotes_in.migration("ada's quotes", expand={}, last={}))
    (cure,) = re.findall("newer one: (.*); if", phyxius("status").out)
    assert shlex.split(cure) == ["phyxius", "amend", "ada's quotes", "--why", "..."]


def failing_store() -> tuple[Migration[Any], FaultyPhaseStore]:
    """A migration whose phase cannot be read."""
    clock = create_controlled_clock(START)
    store = FaultyPhaseStore(create_memory_phase_store(initial="old", clock=clock))
    spec = define_migration(name="orders", phases=OLD_NEW)
    return create_migration(spec, journal=Journal[Any](clock=clock), phase_store=store), store


BROKEN = """\
orders
  error  OSError: no route; --traceback shows where

quotes
  phase  [expand] → flip
  next   flip, which can be entered freely
"""


def test_a_store_that_fails(shop: Shop) -> None:
    """It is told beside its migration, and hides no other."""
    orders, store = failing_store()
    store.fail("current", OSError("no\nroute"))
    shop.has([orders, in_memory()])
    assert phyxius("status") == Ended(1, BROKEN)
    ended = phyxius("status", "--json")
    first, second = ended.told["migrations"]
    assert ended.exit == 1
    assert first["error"] == {"type": "OSError", "message": "OSError: no route"}
    assert second["error"] is None
    traced = phyxius("status", "--traceback")
    assert (traced.exit, traced.out) == (1, BROKEN)
    assert traced.err.startswith("Traceback")


def test_the_worst_decides_how_it_ends(quotes_in: Quotes, shop: Shop) -> None:
    """In whatever order they come, the highest code is the one."""
    quotes_in.at("dual_write")
    orders, store = failing_store()
    store.fail("current", OSError("no route"))
    other = quotes_in.migration(expand={}, dual_write={}, contract={})
    for app in ([orders, other], [other, orders]):
        shop.has(app)
        ended = phyxius("status")
        assert ended.exit == 7
        assert "no route" in ended.out
        assert "recorded  expand → dual_write → flip → contract" in ended.out


def test_a_phase_that_nobody_knows(shop: Shop) -> None:
    """The store answers with one that the build does not have; none is guessed."""
    orders, store = failing_store()
    store.answer("current", HOSTILE)
    shop.has(orders)
    ended = phyxius("status")
    assert (ended.exit, ended.err) == (7, "")
    assert ended.out.startswith('orders\n  error  the store of migration "orders" answered with the phase ')
    assert_tame(ended)


def test_hostile_orders(quotes_in: Quotes, shop: Shop) -> None:
    """What the stores have may be from anybody."""
    hostile = HOSTILE.replace("\x00", "")
    quotes_in.make()
    shop.has(quotes_in.migration(hostile, expand={}, **{f"{hostile}x": {}}))
    assert phyxius("status").exit == 0
    shop.has(quotes_in.migration(hostile, expand={}, **{f"{hostile}y": {}}))
    assert_tame(phyxius("status"))
    assert_tame(on_terminal("status", width=300))
    assert_tame(phyxius("diagram", hostile))
