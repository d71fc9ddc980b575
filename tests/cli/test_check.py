"""How ready a migration is: in a pipe, on a terminal, for programs, and again and again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import ok
from phyxius.journal import Journal
from phyxius.migration import (
    Gap,
    JournalQuery,
    JournalWindow,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    schema_applied,
)
from tests.cli.support import (
    DAYS_14,
    HOSTILE,
    START,
    Ended,
    Quotes,
    Shop,
    assert_tame,
    failing,
    in_memory,
    on_terminal,
    phyxius,
    raising,
)

CHECK = ("check", "quotes")
REFUSED = """\
quotes  expand → dual_write
 ✗ schema_ready  The schema has revision 0042
   why       the schema is at 0041; apply 0042
   passes    not before 2026-01-15 12:00:00 UTC, in 14 days
NOT READY  dual_write is not proven safe; not before 2026-01-15 12:00:00 UTC, in 14 days
"""
READY = """\
quotes  expand → dual_write
 ✓ schema_ready  The schema has revision 0042
   observed  revision 0042
READY  phyxius advance quotes --to dual_write
"""
BROKEN = """\
quotes  expand → dual_write
 ! schema_ready  The schema has revision 0042
   why       it could not be judged: ValueError: no such table
NOT JUDGED  a source could not be judged: mend the check or what it asks; --traceback shows where
"""


def test_a_schema(quotes_in: Quotes) -> None:
    """Refused, ready, and not judged; nothing moves, and nothing is recorded."""
    quotes_in.make()
    quotes_in.schema = failing("the schema is at 0041; apply 0042", details={"at": "0041"}, retry_at=START + DAYS_14)
    assert phyxius(*CHECK) == Ended(75, REFUSED)
    refused = phyxius(*CHECK, "--json")
    assert refused.exit == 75
    assert refused.told == {
        "migration": "quotes",
        "phase": "expand",
        "next_phase": "dual_write",
        "ready": False,
        "ready_at": "2026-01-15T12:00:00+00:00",
        "sources": {
            "schema_ready": {
                "verdict": "refused",
                "demand": "The schema has revision 0042",
                "reason": "the schema is at 0041; apply 0042",
                "observed": {"at": "0041"},
                "retry_at": "2026-01-15T12:00:00+00:00",
                "command": None,
                "coverage": None,
            }
        },
    }
    quotes_in.schema = lambda: ok({"revision": "0042"})
    assert phyxius(*CHECK) == Ended(0, READY)
    ready = phyxius(*CHECK, "--json").told
    assert (ready["ready"], ready["ready_at"]) == (True, None)
    assert ready["sources"]["schema_ready"]["verdict"] == "ok"
    quotes_in.schema = raising(ValueError("no such table"))
    assert phyxius(*CHECK) == Ended(4, BROKEN)
    broken = phyxius(*CHECK, "--json")
    assert broken.exit == 4
    assert broken.told["sources"]["schema_ready"]["verdict"] == "errored"
    assert broken.told["sources"]["schema_ready"]["reason"] == "it could not be judged: ValueError: no such table"
    assert quotes_in.place.rows("SELECT count(*) FROM events") == [(0,)]
    assert quotes_in.place.rows("SELECT phase FROM migrations") == [("expand",)]


HALF = """\
quotes  flip → contract
 ✗ no_legacy_reads  "quote.read_old" in the last 14 days: no events
   why       the journal cannot vouch for the whole window: 9 days of 14 days missing, most of it from \
2025-12-23 12:00:00 UTC to 2026-01-01 12:00:00 UTC (the store holds nothing from before then); \
wait until that has left the window
   covered   ███████░░░░░░░░░░░░░ 5 of 14 days
   missing   9 days from 2025-12-23 12:00:00 UTC: the store holds nothing from before then
   passes    not before 2026-01-15 12:00:00 UTC, in 9 days
NOT READY  contract is not proven safe; not before 2026-01-15 12:00:00 UTC, in 9 days
"""
HALF_NARROW = """\
quotes  flip → contract
 ✗ no_legacy_reads
 "quote.read_old" in the last 14 days:
 no events
   why       the journal cannot vouch
             for the whole window: 9
             days of 14 days missing,
             most of it from 2025-12-23
             12:00:00 UTC to 2026-01-01
             12:00:00 UTC (the store
             holds nothing from before
             then); wait until that has
             left the window
   covered   ███████░░░░░░░░░░░░░ 5 of
             14 days
   missing   9 days from 2025-12-23
             12:00:00 UTC: the store
             holds nothing from before
             then
   passes    not before 2026-01-15
             12:00:00 UTC, in 9 days
NOT READY  contract is not proven safe;
not before 2026-01-15 12:00:00 UTC, in 9
days
"""
FULL = """\
quotes  flip → contract
 ✓ no_legacy_reads  "quote.read_old" in the last 14 days: no events
   covered   ████████████████████ 14 of 14 days
   observed  count 0
READY  phyxius advance quotes --to contract
"""


def test_a_window(quotes_in: Quotes) -> None:
    """How much of it is covered, what is missing, and when it passes; then it does."""
    quotes_in.at("flip")
    with quotes_in.recorded_by("api-1"):
        quotes_in.elapse(timedelta(days=5))
        assert phyxius(*CHECK) == Ended(75, HALF)
        assert on_terminal(*CHECK, width=40).seen == HALF_NARROW
        quotes_in.elapse(timedelta(days=9))
        assert phyxius(*CHECK) == Ended(0, FULL)
        assert phyxius(*CHECK, "--json").told["sources"]["no_legacy_reads"]["coverage"] == {
            "window_seconds": 1209600.0,
            "covered_seconds": 1209600.0,
            "gaps": [],
        }


SIGN = """\
quotes  dual_write → flip
 ✗ parity_signed  a signature by 1 person
   why       1 signature is wanted, and it has none; sign with `phyxius sign` or attestations.sign(...)
   to do     phyxius sign quotes --to flip --source parity_signed
NOT READY  flip is not proven safe
"""


def test_a_signature(quotes_in: Quotes) -> None:
    """The command that gives what it lacks is told; it works, and the source passes."""
    quotes_in.at("dual_write")
    assert phyxius(*CHECK) == Ended(75, SIGN)
    command = phyxius(*CHECK, "--json").told["sources"]["parity_signed"]["command"]
    assert command == "phyxius sign quotes --to flip --source parity_signed"
    assert phyxius(*command.split()[1:]).exit == 0
    signed = phyxius(*CHECK)
    assert signed.exit == 0
    assert signed.out.endswith("READY  phyxius advance quotes --to flip\n")


LAST = "quotes is at contract, its last phase; nothing is left to do\n"


def test_the_last_phase(quotes_in: Quotes) -> None:
    """There is nothing to be ready for."""
    quotes_in.at("contract")
    assert phyxius(*CHECK) == Ended(3, LAST)
    assert phyxius(*CHECK, "--watch") == Ended(3, LAST)
    last = phyxius(*CHECK, "--json")
    assert last.exit == 3
    expected = {"phase": "contract", "next_phase": None, "ready": False, "ready_at": None, "sources": {}}
    assert last.told == {"migration": "quotes", **expected}


def test_it_is_one_that_is_there(shop: Shop) -> None:
    """It says which ones are."""
    shop.has([in_memory(), in_memory("orders")])
    told = "there is no migration 'quote'; there are: quotes, orders"
    assert phyxius("check", "quote") == Ended(2, "", f"phyxius: {told}\n")
    ended = phyxius("check", "quote", "--json")
    assert ended.told == {"error": {"type": "CommandError", "message": told}}


# -- many sources, and odd ones


class Gappy:
    """A journal store with gaps."""

    def __init__(self, *gaps: tuple[str, str | None], until: timedelta = timedelta(0)) -> None:
        self._gaps = [
            Gap(
                START - timedelta(days=13 - number),
                START - timedelta(days=13 - number, hours=-1),
                reason,
                recorder,
            )
            for number, (reason, recorder) in enumerate(gaps)
        ]

    async def query(self, query: JournalQuery, window: timedelta) -> JournalWindow:
        return JournalWindow((), since=START - window, until=START, gaps=self._gaps, witnessed=True)


def over_gaps(*gaps: tuple[str, str | None], source: str = "silent") -> Any:
    clock = create_controlled_clock(START)
    evidence = {source: journal_window("read", DAYS_14, no_events())}
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": evidence})
    return create_migration(spec, journal=Journal(clock=clock), journal_store=Gappy(*gaps))


GAPS = """\
   covered   ███████████████████░ 13.7 of 14 days
   missing   1 hour from 2025-12-19 12:00:00 UTC, api-0: it crashed
   missing   1 hour from 2025-12-20 12:00:00 UTC, api-1: it crashed
   missing   1 hour from 2025-12-21 12:00:00 UTC: it crashed
   missing   1 hour from 2025-12-22 12:00:00 UTC, api-3: it crashed
   missing   1 hour from 2025-12-23 12:00:00 UTC, api-4: it crashed
             and 2 gaps more
"""


def test_many_gaps(shop: Shop) -> None:
    """Five are shown, with the recorder whose they are; programs get all of them."""
    shop.has(over_gaps(*(("it crashed", None if number == 2 else f"api-{number}") for number in range(7))))
    assert GAPS in phyxius(*CHECK).out
    gaps = phyxius(*CHECK, "--json").told["sources"]["silent"]["coverage"]["gaps"]
    assert len(gaps) == 7
    assert gaps[0] == {
        "since": "2025-12-19T12:00:00+00:00",
        "until": "2025-12-19T13:00:00+00:00",
        "reason": "it crashed",
        "recorder": "api-0",
    }
    shop.has(over_gaps(*[("it crashed", "api")] * 5))
    assert "more" not in phyxius(*CHECK).out.partition("covered")[2]


MIXED = """\
quotes  expand → flip
 ✓ one  Says yes
   observed  true
 ✗ two  It is ready
   why       not yet
   passes    not before 2026-01-15 12:00:00 UTC, in 14 days
 ✗ three  It is ready
   why       no idea
 ! four  It is ready
   why       it could not be judged: KeyError: 'x'
 ! five  It is ready
   why       it could not be judged: RuntimeError
NOT JUDGED  a source could not be judged: mend the check or what it asks; --traceback shows where
"""


def test_several_sources(shop: Shop) -> None:
    """Each has its verdict; that one could not be judged goes before that one says no."""

    def yes() -> Any:
        """Says yes."""
        return ok(True)

    checks = {
        "one": yes,
        "two": failing("not yet", retry_at=START + DAYS_14),
        "three": failing("no idea"),
        "four": raising(KeyError("x")),
        "five": raising(RuntimeError()),
    }
    shop.has(in_memory(expand={}, flip={name: schema_applied(check) for name, check in checks.items()}))
    assert phyxius(*CHECK) == Ended(4, MIXED)
    del checks["four"], checks["five"]
    shop.has(in_memory(expand={}, flip={name: schema_applied(check) for name, check in checks.items()}))
    ended = phyxius(*CHECK)
    assert ended.exit == 75
    assert ended.out.endswith("NOT READY  flip is not proven safe\n"), "one does not know when"


class Untold:
    """What foreign code may hand over."""

    def __bool__(self) -> bool:
        raise TypeError("is it one, or are they many?")

    def __repr__(self) -> str:
        raise TypeError("no")


def test_odd_details(shop: Shop) -> None:
    """Whatever a failure has to tell is shown somehow."""
    nested: list[object] = []
    nested.append(nested)
    details: dict[str, object] = {"complex": 1j, ("a", 1): {2}, "deep": nested, "nan": float("nan"), "odd": Untold()}  # type: ignore[dict-item]
    shop.has(in_memory(expand={}, flip={"a": schema_applied(failing("no", details=details))}))
    ended = phyxius(*CHECK)
    assert ended.exit == 75, ended.err
    assert "observed" in ended.out
    assert phyxius(*CHECK, "--json").told["sources"]["a"]["observed"]


@pytest.mark.parametrize("how", ["reason", "error", "gap", "name", "details"])
def test_hostile_texts(shop: Shop, how: str) -> None:
    """Shown, and not obeyed, wherever they come from."""
    evidence = {
        "reason": lambda: in_memory(expand={}, flip={"a": schema_applied(failing(HOSTILE))}),
        "error": lambda: in_memory(expand={}, flip={"a": schema_applied(raising(ValueError(HOSTILE)))}),
        "gap": lambda: over_gaps((HOSTILE, HOSTILE), source=HOSTILE),
        "name": lambda: in_memory(HOSTILE, **{HOSTILE: {}, f"{HOSTILE}2": {HOSTILE: schema_applied(failing())}}),
        "details": lambda: in_memory(
            expand={}, flip={"a": schema_applied(failing("no", details={HOSTILE: [HOSTILE]}))}
        ),
    }[how]()
    shop.has(evidence)
    name = evidence.name
    assert_tame(phyxius("check", name))
    assert_tame(on_terminal("check", name, width=200))
    assert phyxius("check", name, "--json").told


def test_a_command_that_is_told_can_be_typed(shop: Shop) -> None:
    """Names with blanks and quotes are quoted."""
    shop.has(in_memory("it's a name", **{"expand": {}, "a b": {}, "c": {}}))
    ready = phyxius("check", "it's a name")
    assert ready.out.endswith("READY  phyxius advance 'it'\"'\"'s a name' --to 'a b'\n")


def test_where_an_error_of_a_source_came_from(shop: Shop) -> None:
    """With --traceback alone."""
    for command in (CHECK, ("advance", "quotes", "--to", "flip", "--yes")):
        shop.has(in_memory(expand={}, flip={"a": schema_applied(raising(KeyError(1)))}))
        assert phyxius(*command).err == ""
        ended = phyxius(*command, "--traceback")
        assert ended.exit == 4
        assert "in check" in ended.err
        assert ended.err.endswith("KeyError: 1\n")
