"""How ready a migration is, again and again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from phyxius.fp import err, ok
from phyxius.migration import (
    SpecChangedError,
    schema_applied,
)
from tests.cli.support import (
    Ended,
    Shop,
    failing,
    in_memory,
    on_terminal,
    phyxius,
    raising,
)

CHECK = ("check", "quotes")


def turning(*answers: Callable[[], Any]) -> Callable[[], Any]:
    """A check that answers otherwise each time."""
    left = list(answers)

    def check() -> Any:
        """It is ready."""
        return left.pop(0)()

    return check


WATCH = (*CHECK, "--watch", "--every", "0.001s")
NO = """\
quotes  expand → flip
 ✗ a  It is ready
   why       not yet
NOT READY  flip is not proven safe
"""
ODD = """\
quotes  expand → flip
 ! a  It is ready
   why       it could not be judged: KeyError: 1
NOT JUDGED  a source could not be judged: mend the check or what it asks; --traceback shows where
"""
YES = """\
quotes  expand → flip
 ✓ a  It is ready
   observed  1
READY  phyxius advance quotes --to flip
"""


def sequence() -> Any:
    no, odd, yes = failing(), raising(KeyError(1)), lambda: ok(1)
    return in_memory(expand={}, flip={"a": schema_applied(turning(no, no, no, odd, no, no, yes))})


def test_watching_in_a_pipe(shop: Shop) -> None:
    """Only what has changed is told; it ends once all is ready."""
    shop.has(sequence())
    assert phyxius(*WATCH) == Ended(0, NO + ODD + NO + YES)


def test_watching_for_programs(shop: Shop) -> None:
    """One line for each time that it was asked."""
    shop.has(sequence())
    ended = phyxius(*WATCH, "--json")
    assert (ended.exit, ended.err) == (0, "")
    assert ended.out.isascii()
    told = [json.loads(line)["sources"]["a"]["verdict"] for line in ended.out.splitlines()]
    assert told == ["refused", "refused", "refused", "errored", "refused", "refused", "ok"]


def test_watching_on_a_terminal(shop: Shop) -> None:
    """It is drawn in place of what was there, with the time; the last report stays."""
    shop.has(sequence())
    ended = on_terminal(*WATCH)
    assert ended.exit == 0
    assert "\x1b[1A" in ended.out, "it goes up again"
    assert "\x1b[?25h" in ended.out, "the cursor is there again"
    assert ended.out.count("NOT READY") == 5
    assert ended.seen == f"{YES}asked at 2026-01-01 12:00:00 UTC; Ctrl-C ends\n"


def away(migration: Any, error: Exception) -> Any:
    """The same, over a store that cannot be asked the second and the third time."""
    store: Any = migration.phase_store
    current, asked = store.current, []

    async def now_and_then() -> str:
        asked.append(1)
        if len(asked) in (2, 3):
            raise error
        return str(await current())

    store.current = now_and_then
    return migration


def test_watching_while_the_store_is_away(shop: Shop) -> None:
    """It is told once, and asked again; the rest comes as before."""
    shop.has(away(sequence(), OSError("no route")))
    told = "phyxius: OSError: no route; asking again each 0 seconds\nnote: it can be asked again\n"
    assert phyxius(*WATCH) == Ended(0, NO + ODD + NO + YES, told)
    shop.has(away(sequence(), OSError("no route")))
    ended = phyxius(*WATCH, "--json", "--traceback")
    assert [json.loads(line).get("error") for line in ended.out.splitlines()].count(None) == 7
    assert "Traceback" in ended.err
    shop.has(away(sequence(), OSError("no route")))
    assert on_terminal(*WATCH).seen == f"{told}{YES}asked at 2026-01-01 12:00:00 UTC; Ctrl-C ends\n"


def test_watching_what_cannot_be_waited_for(shop: Shop) -> None:
    """Another order of phases stays what it is."""
    shop.has(away(sequence(), SpecChangedError(("a",), ("b",))))
    assert phyxius(*WATCH).exit == 7


def test_watching_on_a_dumb_terminal(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cursor is moved there."""
    monkeypatch.setenv("TERM", "dumb")
    shop.has(sequence())
    wrapped = ODD.replace("; --", ";\n--")
    assert on_terminal(*WATCH) == Ended(0, (NO + wrapped + NO + YES).replace("\n", "\r\n"))


def test_watching_what_somebody_else_advances(shop: Shop) -> None:
    """A page for each phase that it comes to; at the last one there is nothing to watch."""
    migration = in_memory(expand={}, flip={"a": schema_applied(lambda: err("no"))})
    store: Any = migration.phase_store
    asked = []

    async def current() -> str:
        asked.append(1)
        return "expand" if len(asked) < 3 else "flip"

    store.current = current
    shop.has(migration)
    ended = phyxius(*WATCH)
    assert ended.exit == 3
    assert ended.out.count("NOT READY") == 1
    assert ended.out.endswith("quotes is at flip, its last phase; nothing is left to do\n")
