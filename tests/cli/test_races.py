"""Taking the next step where others do, and where stores fail."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.blocking import run
from phyxius.clock import create_controlled_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    create_memory_phase_store,
    create_migration,
    define_migration,
    schema_applied,
)
from phyxius.testing import FaultyPhaseStore
from tests.cli.support import (
    COMMAND,
    HOSTILE,
    START,
    Quotes,
    Shop,
    advance,
    assert_tame,
    on_terminal,
    phyxius,
    process,
)

# -- who is first


def overtaken(quotes_in: Quotes) -> None:
    """While its evidence is asked somebody else takes the step."""
    quotes_in.make()

    def meanwhile() -> Any:
        quotes_in.schema = lambda: ok({"revision": "0042"})
        run(quotes_in.app.advance("dual_write"))
        return ok({"revision": "0042"})

    quotes_in.schema = meanwhile


def test_another_caller_is_first(quotes_in: Quotes) -> None:
    """While the evidence is asked somebody else takes the step: told, and not taken twice."""
    overtaken(quotes_in)
    lost = advance("dual_write")
    assert lost.exit == 5
    said = 'another caller was first: the phase is "dual_write", no longer "expand"; '
    assert lost.out.endswith(f"LOST THE RACE  {said}decide anew whether to advance\n")
    assert quotes_in.place.rows("SELECT count(*) FROM transitions") == [(1,)]


def test_another_caller_is_first_for_programs(quotes_in: Quotes) -> None:
    """The same as JSON."""
    overtaken(quotes_in)
    lost = advance("dual_write", "--json")
    assert (lost.exit, lost.told["outcome"], lost.told["exit"]) == (5, "CAS_LOST", 5)
    assert advance("dual_write").exit == 3


RACE = """
import os, time
from pathlib import Path
from phyxius import *
from phyxius.adapters.sqlite import open_file_stores

clock = create_controlled_clock()
stores = open_file_stores("race.db", clock=clock)

@schema_applied
def both_ask():
    (Path("asked") / str(os.getpid())).touch()
    while len(list(Path("asked").iterdir())) < 2:
        time.sleep(0.001)
    return ok(1)

spec = define_migration(name="quotes", phases={"expand": {}, "flip": {"both_ask": both_ask}, "contract": {}})
app = create_migration(
    spec, journal=Journal(clock=clock), journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
)
"""


def test_two_operators_at_once(tmp_path: Path) -> None:
    """Of two processes that both ask all evidence one moves it, and the other one says that it did not."""
    (tmp_path / "race.py").write_text(RACE)
    (tmp_path / "asked").mkdir()
    app = ["--app", "race:app", "--create"]
    args = [*COMMAND, "advance", "quotes", "--to", "flip", *app]
    with process(args, tmp_path, width=None) as first, process(args, tmp_path, width=None) as second:
        ended = sorted((first.ended(), second.ended()), key=lambda each: each.exit)
    assert [each.exit for each in ended] == [0, 5]
    assert "ADVANCED  quotes is at flip" in ended[0].out
    assert "LOST THE RACE  another caller was first" in ended[1].out


# -- stores that fail


def over(*, resolvable: bool = True, **evidence: Any) -> tuple[Any, FaultyPhaseStore]:
    clock = create_controlled_clock(START)
    spec: Any = define_migration(name="quotes", phases={"expand": {}, "flip": evidence, "contract": {}})
    store = FaultyPhaseStore(create_memory_phase_store(initial="expand", clock=clock), resolvable=resolvable)
    return create_migration(spec, journal=Journal[Any](clock=clock), phase_store=store), store


def test_an_outcome_that_is_unknown(shop: Shop) -> None:
    """The answer to the commit is lost, and the store cannot be asked: it says where to look."""
    migration, store = over(resolvable=False)
    shop.has(migration)
    store.fail("try_advance", OSError("the line is dead"), when="after")
    ended = advance("flip")
    assert ended.exit == 6
    assert ended.out.endswith(
        "UNKNOWN  the phase store failed in try_advance (OSError: the line is dead); whether the migration moved is "
        "unknown; look where it is before anything else\n"
    )
    migration, store = over(resolvable=False)
    shop.has(migration)
    store.fail("try_advance", OSError("the line is dead"), when="after")
    told = advance("flip", "--json")
    assert (told.exit, told.told["outcome"], told.told["committed"]) == (6, "STORE_ERRORED", "unknown")


def test_a_commit_that_failed(shop: Shop) -> None:
    """The store is sure that nothing moved."""
    migration, store = over()
    shop.has(migration)
    store.fail("try_advance", OSError("the disk is full"))
    ended = advance("flip")
    assert ended.exit == 1
    said = "the phase store failed in try_advance (OSError: the disk is full); the migration did not move"
    assert ended.out.endswith(f"FAILED  {said}; mend the store and retry\n")
    told = advance("flip", "--json")
    assert (told.exit, told.told["outcome"], told.told["committed"]) == (1, "STORE_ERRORED", "no")


def test_a_hostile_store(shop: Shop) -> None:
    """What it says is shown, and not obeyed."""
    for show in (phyxius, on_terminal):
        migration, store = over()
        shop.has(migration)
        store.fail("try_advance", OSError(HOSTILE))
        assert_tame(show("advance", "quotes", "--to", "flip"))


def test_a_phase_that_cannot_be_read(shop: Shop) -> None:
    """One line, and no traceback."""
    migration, store = over()
    shop.has(migration)
    store.fail("current", OSError(f"no route{HOSTILE}"))
    ended = advance("flip")
    assert ended.exit == 1
    assert ended.err.startswith("phyxius: OSError: no route")
    assert ended.err.endswith("; --traceback shows where\n")
    assert_tame(ended)
    assert_tame(advance("flip", "--traceback"))


def test_another_order_of_phases(quotes_in: Quotes, shop: Shop) -> None:
    """The stores have other phases than this build: it moves nothing, and says which."""
    quotes_in.at("dual_write")
    shop.has(quotes_in.migration(expand={}, dual_write={}, contract={}))
    ended = advance("contract", "--yes")
    assert ended.exit == 7
    assert 'the store recorded the phases "expand", "dual_write", "flip", "contract"' in ended.err
    assert "adopt its order there first (amend)" in ended.err
    assert ended.err.count("\n") == 1
    told = advance("contract", "--yes", "--json")
    assert (told.exit, told.told["error"]["type"]) == (7, "SpecChangedError")


def test_a_phase_ahead_that_another_order_puts_elsewhere(quotes_in: Quotes, shop: Shop) -> None:
    """A job that waits for its turn would wait for ever, and learns why."""
    quotes_in.at("expand")
    shop.has(quotes_in.migration(expand={}, check={}, dual_write={}, flip={}, contract={}))
    assert phyxius("amend", "quotes", "--why", "we check first", "--yes").exit == 0
    shop.has(quotes_in.app)
    assert advance("flip", "--quiet").exit == 7


def test_another_order_that_still_can_be_read(quotes_in: Quotes, shop: Shop) -> None:
    """A build from before an amendment may read the phase, and not step."""
    quotes_in.at("expand")
    shop.has(quotes_in.migration(expand={}, dual_write={}, flip={}, last={}))
    assert phyxius("amend", "quotes", "--why", "contract is called last", "--yes").exit == 0
    shop.has(quotes_in.app)
    ended = advance("dual_write")
    assert ended.exit == 7
    assert "OTHER PHASES  the store has " in ended.out
    assert advance("dual_write", "--json").told["outcome"] == "SPEC_CHANGED"


@pytest.mark.parametrize("command", [("check", "quotes"), ("advance", "quotes", "--to", "flip", "--yes")])
def test_a_phase_that_nobody_knows(shop: Shop, command: tuple[str, ...]) -> None:
    """The store answers with one that the build does not have; none is guessed."""
    migration, store = over()
    shop.has(migration)
    store.answer("current", HOSTILE)
    ended = phyxius(*command)
    assert ended.exit == 7
    assert ended.err.startswith('phyxius: the store of migration "quotes" answered with the phase ')
    assert_tame(ended)


def test_a_store_that_waits_too_long(shop: Shop) -> None:
    """What the sources have said is shown by then, so why it does not count is said."""
    clock = create_controlled_clock(START)
    spec: Any = define_migration(name="quotes", phases={"expand": {}, "flip": {"a": schema_applied(ok)}, "last": {}})
    store: Any = create_memory_phase_store(initial="expand", clock=clock)
    commit = store.try_advance

    async def late(*args: Any) -> Any:
        clock.advance_by(timedelta(seconds=6))
        return await commit(*args)

    store.try_advance = late
    shop.has(create_migration(spec, journal=Journal[Any](clock=clock), phase_store=store))
    ended = advance("flip")
    assert ended.exit == 4
    assert "\nNOT JUDGED  nothing moved: nobody was asked for 6 seconds before the step, and 5 seconds is" in ended.out
    assert run(store.current()) == "expand"
