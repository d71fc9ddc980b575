"""A migration as a Mermaid diagram."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.cli._diagram import _mermaid
from phyxius.cli._session import Subject
from phyxius.fp import ok
from phyxius.migration import schema_applied
from tests.cli.support import HOSTILE, Ended, Quotes, Shop, in_memory, on_terminal, phyxius

YES = schema_applied(lambda: ok(1))
DIAGRAM = """\
flowchart LR
    p0["expand"]
    p1["dual_write"]
    p2["flip"]
    p3["contract"]
    p0 -->|"schema_ready"| p1
    p1 -->|"parity_signed"| p2
    p2 -->|"no_legacy_reads"| p3
    class p0,p1 passed
    class p2 current
    classDef current fill:#2da44e,stroke:#116329,color:#ffffff
    classDef passed fill:#eaeef2,stroke:#8c959f,color:#57606a
"""
# Each line of a diagram, as Mermaid takes it; in a label nothing ends it.
LINES = re.compile(
    r'flowchart LR|    p\d+\["[^"\[\]<>|`\\\n]*"\]|    p\d+ -->(\|"([^"\[\]<>|`\\\n]|<br/>)*"\|)? p\d+'
    r"|    class p\d+(,p\d+)* (passed|current)|    classDef [a-z]+ [a-z:#0-9,]+"
)


def test_a_diagram(quotes_in: Quotes) -> None:
    """Its phase is marked, and what has passed; on a narrow terminal it is the same, since programs read it."""
    quotes_in.at("flip")
    assert phyxius("diagram", "quotes") == Ended(0, DIAGRAM)
    assert on_terminal("diagram", "quotes", width=30).seen == DIAGRAM
    told = phyxius("diagram", "quotes", "--json").told
    assert told == {"migration": "quotes", "phase": "flip", "mermaid": DIAGRAM.rstrip()}


def test_an_unmarked_diagram(quotes_in: Quotes) -> None:
    """No store is needed for it."""
    unmarked = DIAGRAM.partition("    class ")[0]
    assert phyxius("diagram", "quotes", "--unmarked") == Ended(0, unmarked)
    told = phyxius("diagram", "quotes", "--unmarked", "--json").told
    assert told == {"migration": "quotes", "phase": None, "mermaid": unmarked.rstrip()}


def test_the_first_phase_and_several_sources(shop: Shop) -> None:
    """Nothing has passed; sources are below each other, and a step that demands nothing has none."""
    shop.has(in_memory(expand={"first": YES}, flip={"a": YES, "b": YES}, contract={}))
    lines = phyxius("diagram", "quotes").out.splitlines()
    assert '    p0 -->|"a<br/>b<br/>first"| p1' in lines
    assert "    p1 --> p2" in lines
    assert "    class p0 current" in lines
    assert not [line for line in lines if line.endswith(" passed")]


@pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])
def test_another_order_of_phases(quotes_in: Quotes, shop: Shop, older: bool) -> None:
    """A picture of this build would not be one of what is there, also where the phase can be read."""
    quotes_in.at("expand")
    shop.has(quotes_in.migration(expand={}, last={}))
    if older:
        assert phyxius("amend", "quotes", "--why", "it is shorter", "--yes").exit == 0
        shop.has(quotes_in.app)
    ended = phyxius("diagram", "quotes")
    assert (ended.exit, ended.out) == (7, "")
    assert ended.err.startswith("phyxius: quotes: the store recorded the phases ")
    cure = 'phyxius amend quotes --why "..."; if it is the older one: deploy the newer'
    assert ended.err.endswith(f"; if this build is the newer one: {cure}\n")
    assert phyxius("diagram", "quotes", "--json").told["error"]["message"] in ended.err


@pytest.mark.parametrize("name", [HOSTILE, 'a"] --> b', "<script>", "end", "é漢", "a|b`c#d;", "#35;", "%%{init: x}%%"])
def test_hostile_names(shop: Shop, name: str) -> None:
    """None of them ends a label, or begins anything."""
    shop.has(in_memory(name, **{name: {}, f"{name}2": {name: YES}}))
    ended = phyxius("diagram", name)
    assert ended.exit == 0
    assert ended.out.isascii()
    assert all(LINES.fullmatch(line) for line in ended.out.splitlines())
    assert len(ended.out.splitlines()) == 7
    assert phyxius("diagram", name, "--json").told


names = st.text(min_size=1)


@given(names, names, names)
def test_whatever_the_names(first: str, second: str, source: str) -> None:
    """It is well-formed."""
    subject = Subject(in_memory(**{first: {}, f"{first}{second}": {source: YES}}))
    lines = list(_mermaid(subject, first))
    assert len(lines) == 7
    assert all(LINES.fullmatch(line) for line in lines)
