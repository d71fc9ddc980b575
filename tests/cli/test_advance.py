"""Taking the next step: each of its ends, with its exit code, its words and its JSON."""

from __future__ import annotations

import asyncio
import signal
import threading
import warnings
from datetime import timedelta
from typing import Any

import pytest

from phyxius.blocking import run
from phyxius.cli._advance import exit_of
from phyxius.cli._exits import Exit
from phyxius.cli._session import Subject
from phyxius.clock import create_controlled_clock, create_system_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    create_memory_phase_store,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from phyxius.testing import aged_journal
from tests.cli.support import (
    DAYS_14,
    HOSTILE,
    PATIENCE,
    START,
    Ended,
    Quotes,
    Shop,
    advance,
    assert_tame,
    failing,
    in_memory,
    interrupt_main,
    on_terminal,
    phyxius,
    raising,
)


def test_a_phase_in_memory(shop: Shop) -> None:
    """What would be forgotten with this command is not called advanced."""
    clock = create_system_clock()
    store = create_memory_phase_store(initial="expand", clock=clock)
    shop.has(create_migration(in_memory().spec, journal=Journal[Any](clock=clock), phase_store=store))
    ended = advance("flip", "--yes")
    assert ended.exit == 1
    assert ended.err.startswith("phyxius: the phase of quotes is kept in the memory of a process, so this command")
    assert run(store.current()) == "expand"


ADVANCED = """\
quotes  expand → dual_write
 ✓ schema_ready  The schema has revision 0042
ADVANCED  quotes is at dual_write since 2026-01-01 12:00:00 UTC
"""
REFUSED = """\
quotes  expand → dual_write
 ✗ schema_ready  the schema is at 0041; apply 0042
REFUSED  dual_write is not proven safe, and nothing moved; `phyxius check quotes` shows more\
. Not before 2026-01-15 12:00:00 UTC, in 14 days
"""
BROKEN = """\
quotes  expand → dual_write
 ! schema_ready  it could not be judged: ValueError: no such table
NOT JUDGED  dual_write could not be judged, and nothing moved: mend the check or what it asks; --traceback shows where
"""
NARROW = """\
quotes  expand → dual_write
 ✗ schema_ready
 the schema is at 0041; apply 0042
REFUSED  dual_write is not proven safe,
         and nothing moved; `phyxius
         check quotes` shows more. Not
         before 2026-01-15 12:00:00 UTC,
         in 14 days
"""


def test_each_answer_of_a_source(quotes_in: Quotes) -> None:
    """No, broken and yes: only the last one moves it, and each is recorded."""
    quotes_in.make()
    quotes_in.schema = failing("the schema is at 0041; apply 0042", details={"at": "0041"}, retry_at=START + DAYS_14)
    assert advance("dual_write") == Ended(75, REFUSED)
    narrow = on_terminal("advance", "quotes", "--to", "dual_write", width=40).seen
    assert [
        line for line in narrow.splitlines() if "asking" not in line and "taking" not in line
    ] == NARROW.splitlines()
    refused = advance("dual_write", "--json")
    assert refused.exit == 75
    source = {
        "verdict": "refused",
        "demand": "The schema has revision 0042",
        "reason": "the schema is at 0041; apply 0042",
        "observed": {"at": "0041"},
        "retry_at": "2026-01-15T12:00:00+00:00",
        "command": None,
        "coverage": None,
    }
    assert refused.told == {
        "migration": "quotes",
        "to": "dual_write",
        "outcome": "EVIDENCE_FAILED",
        "exit": 75,
        "message": 'cannot enter "dual_write": schema_ready: the schema is at 0041; apply 0042 '
        "(not before 2026-01-15T12:00:00+00:00)",
        "at": None,
        "committed": None,
        "sources": {"schema_ready": source},
    }
    quotes_in.schema = raising(ValueError("no such table"))
    assert advance("dual_write") == Ended(4, BROKEN)
    broken = advance("dual_write", "--json")
    assert (broken.exit, broken.told["outcome"], broken.told["exit"]) == (4, "EVIDENCE_ERRORED", 4)
    assert quotes_in.place.rows("SELECT phase FROM migrations") == [("expand",)]
    quotes_in.schema = lambda: ok({"revision": "0042"})
    assert advance("dual_write") == Ended(0, ADVANCED)
    assert quotes_in.place.rows("SELECT phase FROM migrations") == [("dual_write",)]
    assert quotes_in.place.rows("SELECT outcome FROM events ORDER BY id") == [("failure",)] * 5 + [("success",)]
    recorders = quotes_in.place.rows("SELECT name, closed FROM recorders")
    assert {(name.partition(" on ")[0], closed) for name, closed in recorders} == {("phyxius advance, ada", 1)}


def test_what_it_tells_programs(quotes_in: Quotes) -> None:
    """That it advanced, when, and on what."""
    quotes_in.make()
    ended = advance("dual_write", "--json")
    assert ended.exit == 0
    assert ended.told["sources"].pop("schema_ready")["observed"] == {"revision": "0042"}
    assert ended.told | {"sources": {}} == {
        "migration": "quotes",
        "to": "dual_write",
        "outcome": "ADVANCED",
        "exit": 0,
        "message": None,
        "at": "2026-01-01T12:00:00+00:00",
        "committed": None,
        "sources": {},
    }


@pytest.mark.parametrize(
    "at, to, code, said",
    [
        ("flip", "flip", 3, "ALREADY THERE  quotes is at flip"),
        ("flip", "expand", 3, "ALREADY THERE  quotes is at flip, past expand"),
        ("contract", "contract", 3, "ALREADY THERE  quotes is at contract"),
        ("contract", "flip", 3, "ALREADY THERE  quotes is at contract, past flip"),
        ("expand", "contract", 75, 'REFUSED  "contract" is not the next phase after "expand"; that is "dual_write"'),
    ],
)
def test_a_phase_that_is_not_next(quotes_in: Quotes, at: str, to: str, code: int, said: str) -> None:
    """One that it is at or past is no trouble, and no refusal; one that is further ahead waits. No source is asked."""
    quotes_in.at(at)
    assert advance(to, "--yes") == Ended(code, f"{said}\n")
    told = advance(to, "--yes", "--json").told
    assert (told["exit"], told["message"], told["sources"]) == (code, said.partition("  ")[2], {})
    assert quotes_in.place.rows("SELECT count(*) FROM events") == [(0,)], "it did not even press"
    assert advance(to, "--quiet") == Ended(code, "")


@pytest.mark.parametrize("at", ["flip", "contract"])
def test_it_got_there_in_between(at: str) -> None:
    """Somebody takes the step, or two, between the look and the press: the migration is where it is wanted."""
    migration = in_memory("quotes", at, expand={}, flip={}, contract={})
    assert exit_of(Subject(migration), "flip", run(migration.advance("flip"))) == Exit.ALREADY_THERE


def test_quiet(quotes_in: Quotes) -> None:
    """For cron: nothing where nothing is to be done; the step, and what somebody should look at, as ever."""
    quotes_in.make()
    quotes_in.schema = failing("the schema is at 0041; apply 0042", details={"at": "0041"}, retry_at=START + DAYS_14)
    for more in ([], ["--json"]):
        assert advance("dual_write", "--quiet", *more) == Ended(75, "")
        assert advance("expand", "-q", *more) == Ended(3, "")
    quotes_in.schema = raising(ValueError("no such table"))
    assert advance("dual_write", "--quiet") == Ended(4, BROKEN)
    quotes_in.schema = lambda: ok({"revision": "0042"})
    assert advance("dual_write", "--quiet") == Ended(0, ADVANCED)


def test_a_phase_that_it_does_not_have(shop: Shop) -> None:
    """It says which it has; it must be named at all."""
    shop.has(in_memory())
    assert advance("flipp") == Ended(2, "", "phyxius: quotes has no phase 'flipp'; it has: expand, flip\n")
    unnamed = phyxius("advance", "quotes")
    assert unnamed.exit == 2
    assert unnamed.err.endswith("do not move it twice: phyxius advance quotes --to flip\n")
    shop.has(in_memory(initial="flip"))
    assert phyxius("advance", "quotes") == Ended(3, "", "phyxius: quotes is at its last phase; nothing is left to do\n")


# -- the last phase


ASKED = "flip is the last phase of quotes: there is no way back. Enter it?"


def on_keyboard(typed: str, *more: str, width: int = 120) -> Ended:
    return on_terminal("advance", "quotes", "--to", "flip", *more, typed=typed, width=width)


def test_the_last_phase_is_asked_for(shop: Shop) -> None:
    """On a terminal whoever runs it has to say yes."""
    shop.has(in_memory())
    asked = on_keyboard("y\n")
    assert asked.exit == 0
    assert f"{ASKED} [y/N]: " in asked.out
    assert "ADVANCED  quotes is at flip since 2026-01-01 12:00:00 UTC" in asked.seen


@pytest.mark.parametrize("typed, code", [("n\n", 2), ("\n", 2), ("\x04", 130)], ids=["no", "nothing", "end"])
def test_who_does_not_say_yes_moves_nothing(shop: Shop, typed: str, code: int) -> None:
    """No is the default."""
    migration = in_memory()
    shop.has(migration)
    asked = on_keyboard(typed)
    assert asked.exit == code
    assert asked.seen.endswith("phyxius: nothing was done\n")
    assert run(migration.current_phase()) == "expand"
    assert not len(migration.journal)


@pytest.mark.parametrize("which, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_at_the_question(shop: Shop, which: signal.Signals, code: int) -> None:
    """Nothing is done, and how it ended is told."""
    migration = in_memory()
    shop.has(migration)
    ended = on_terminal("advance", "quotes", "--to", "flip", width=120, then=lambda: interrupt_main(which))
    assert ended.exit == code
    assert ended.seen == f"{ASKED} [y/N]: \nphyxius: nothing was done\n"
    assert run(migration.current_phase()) == "expand"
    assert signal.set_wakeup_fd(-1) == -1, "as it was before"


def test_the_last_phase_with_nobody_to_ask(shop: Shop) -> None:
    """It says which option means yes."""
    shop.has(in_memory())
    told = f"{ASKED} Nobody can be asked here: say --yes to mean it"
    assert advance("flip") == Ended(2, "", f"phyxius: {told}\n")
    assert advance("flip", "--json").told["error"]["message"] == told
    assert advance("flip", "--yes").exit == 0
    assert advance("flip").exit == 3, "there is nothing to ask about"


def test_what_is_asked_is_told_beside_json(shop: Shop) -> None:
    """Programs read one channel; whoever is asked sees the other."""
    shop.has(in_memory("quotes", None, expand={}, **{HOSTILE: {}}))
    ended = on_terminal("advance", "quotes", "--to", HOSTILE, "--json", typed="n\n", width=300)
    assert ended.exit == 2
    assert_tame(ended)


# -- what else there is to tell


def test_a_source_that_is_asked_again(shop: Shop) -> None:
    """A window that waited long for others is judged once more, and that is told."""
    clock = create_controlled_clock(START)
    journal = aged_journal(DAYS_14, names=["read"], clock=clock)

    @schema_applied
    async def slow() -> Any:
        """It takes two seconds."""
        for _ in range(200):
            await asyncio.sleep(0)
        clock.advance_by(timedelta(seconds=2))
        return ok(1)

    evidence = {"silent": journal_window("read", timedelta(days=1), no_events()), "slow": slow}
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": evidence, "contract": {}})
    shop.has(create_migration(spec, journal=journal))
    assert advance("flip").out.splitlines()[1:4] == [
        ' ✓ silent  "read" in the last 1 day: no events',
        " ✓ slow  2.0 s  It takes two seconds",
        ' ✓ silent  asked again  "read" in the last 1 day: no events',
    ]


PROGRESS = """\
quotes  expand → flip
 ✓ quick  <lambda>
 ✓ slow  It is ready
ADVANCED  quotes is at flip since 2026-01-01 12:00:00 UTC
"""


def gated(*, warns: bool = False) -> tuple[threading.Event, Any]:
    """A check that answers once something has happened."""
    gate = threading.Event()

    def check() -> Any:
        """It is ready."""
        assert gate.wait(PATIENCE)
        if warns:
            warnings.warn("the view is deprecated", stacklevel=1)
        return ok(1)

    return gate, schema_applied(check)


def test_progress_on_a_terminal(shop: Shop) -> None:
    """It tells which sources are still asked, and is gone at the end; no answer is written into it."""
    gate, slow = gated()
    shop.has(in_memory(expand={}, flip={"quick": schema_applied(lambda: ok(1)), "slow": slow}, contract={}))
    shown = on_terminal("advance", "quotes", "--to", "flip", moment="asking slow", then=gate.set)
    assert "taking the step" in shown.out
    assert shown.seen == PROGRESS


def test_a_warning_meanwhile(shop: Shop) -> None:
    """It does not tear what is drawn: on a terminal both channels are the same."""
    gate, slow = gated(warns=True)
    shop.has(in_memory(expand={}, flip={"slow": slow}, contract={}))
    shown = on_terminal("advance", "quotes", "--to", "flip", moment="asking slow", then=gate.set)
    assert shown.seen.splitlines()[1:3] == ["note: the view is deprecated", " ✓ slow  It is ready"]


def test_an_audit_that_is_refused(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """It moved, and nobody will know why: that is worth a note."""
    clock = create_controlled_clock(START)
    journal = Journal[Any](clock=clock, max_entries=1, overflow="error")
    journal.append(1)
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}, "contract": {}})
    shop.has(create_migration(spec, journal=journal))
    ended = advance("flip")
    assert ended.exit == 0
    assert ended.err.startswith("note: the journal refused the audit event of this call: ")


@pytest.mark.parametrize("how", ["reason", "error", "name"])
def test_hostile_texts(shop: Shop, how: str) -> None:
    """Shown, and not obeyed, wherever they come from."""
    name, to = "quotes", "flip"
    if how == "name":
        name = to = HOSTILE
        migration = in_memory(name, None, **{"expand": {}, HOSTILE: {HOSTILE: schema_applied(failing())}, "z": {}})
    else:
        check = failing(HOSTILE) if how == "reason" else raising(ValueError(HOSTILE))
        migration = in_memory(expand={}, flip={"a": schema_applied(check)}, z={})
    shop.has(migration)
    command = ("advance", name, "--to", to)
    assert_tame(phyxius(*command))
    assert_tame(on_terminal(*command, width=300))
    assert phyxius(*command, "--json").told
