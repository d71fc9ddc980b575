"""Lines as terminals and pipes have them."""

from __future__ import annotations

import io
import json
import os
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from phyxius.cli._screen import Line, Screen, bar, clean
from tests.cli.support import HOSTILE, SHOWN, Shop, in_memory, on_terminal, phyxius, terminal

CONSOLE = Console(file=io.StringIO(), width=80)
UNSAFE = {"Cc", "Cs", "Zl", "Zp"}  # controls, halves of surrogate pairs, ends of lines and paragraphs
any_text = st.text(st.characters())
words = st.text("ab é漢→/-,", max_size=80)


def on_channel(encoding: str = "utf-8", *, as_json: bool = False) -> tuple[Screen, io.TextIOWrapper]:
    channel = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Screen.of(channel, channel, as_json=as_json), channel


def printed(channel: Any) -> str:
    return channel.buffer.getvalue().decode()  # type: ignore[no-any-return]


def pieces(line: Line, width: int | None) -> list[str]:
    return [piece.plain for piece in line.wrapped(CONSOLE, width)]


@given(any_text)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """No control character, half of a pair, end of a line, or sign that turns the order of others round."""
    shown = clean(text)
    assert not [each for each in shown if unicodedata.category(each) in UNSAFE]
    assert not [each for each in shown if unicodedata.bidirectional(each) in {"RLO", "LRO", "RLE", "LRE", "PDF"}]
    assert not [each for each in shown if unicodedata.bidirectional(each) in {"LRI", "RLI", "FSI", "PDI"}]
    shown.encode()


@given(any_text)
def test_what_is_hidden_is_shown_as_an_escape(text: str) -> None:
    """Each is there as Python would write it; all other text is as it was."""
    expected = "".join(each if clean(each) == each else each.encode("unicode_escape").decode() for each in text)
    assert clean(text) == expected


def test_the_hostile_text_of_these_tests() -> None:
    """It is shown as these tests expect, and things are told as `str` tells them."""
    assert clean(HOSTILE) == SHOWN
    assert clean("\ud800 \ufeff \u2066 \u061c") == r"\ud800 \ufeff \u2066 \u061c"
    assert clean(7) == "7"


@given(words, words, st.integers(0, 12), st.integers(2, 120))
def test_wrapping_loses_nothing(text: str, lead: str, indent: int, width: int) -> None:
    """Whatever the width, all that is no blank is there, in order."""
    line = Line.of(text, lead=lead, indent=indent)
    assert "".join("".join(pieces(line, width)).split()) == "".join(f"{lead}{text}".split())


@given(words, words, st.integers(0, 12), st.integers(2, 120))
def test_no_piece_is_wider_than_the_terminal(text: str, lead: str, indent: int, width: int) -> None:
    """Also where the lead alone would be, or a word."""
    line = Line.of(text, lead=lead, indent=indent)
    assert all(cell_len(piece) <= width for piece in pieces(line, width))


@given(words, words, st.integers(0, 12))
def test_without_a_width_a_line_is_one_piece(text: str, lead: str, indent: int) -> None:
    """As in a pipe, where `grep` looks for lines."""
    assert pieces(Line.of(text, lead=lead, indent=indent), None) == [f"{' ' * indent}{lead}{text}"]


def test_a_hanging_indent() -> None:
    """What goes on stands below its beginning; where that is too narrow, below the lead."""
    line = Line.of("one two three four five six seven eight", lead="why    ", indent=3)
    assert pieces(line, 40) == [
        "   why    one two three four five six",
        "          seven eight",
    ]
    assert pieces(line, 30) == [
        "   why",
        "   one two three four five six",
        "   seven eight",
    ]


def test_a_lead_that_is_too_long() -> None:
    """It is broken as all other text is, and an empty text adds no line to it."""
    long = Line.of("is missing", lead="a_source_with_a_name_that_is_rather_long  ", indent=1)
    assert pieces(long, 30) == [" a_source_with_a_name_that_is_", " rather_long", " is missing"]
    assert pieces(Line.of("", lead="a_source_with_a_long_name", indent=1), 30) == [" a_source_with_a_long_name"]


def test_an_empty_line_is_there() -> None:
    """It is what stands between things."""
    assert pieces(Line(Text()), 80) == [""]
    assert pieces(Line(Text()), None) == [""]


@pytest.mark.parametrize(
    "share, shown",
    [
        (0, "░" * 20),
        (0.049, "░" * 20),
        (0.5, "█" * 10 + "░" * 10),
        (0.9999, "█" * 19 + "░"),
        (1, "█" * 20),
        (1.5, "█" * 20),
    ],
)
def test_a_bar_is_full_only_if_nothing_is_missing(share: float, shown: str) -> None:
    """A rounded bar would tell more than there is."""
    assert bar(share) == shown


def test_an_encoding_without_our_signs() -> None:
    """They become others; what else it lacks becomes an escape, rather than an error."""
    screen, channel = on_channel("ascii")
    screen.say("✓ ✗ █░ a → b … é 漢")
    assert printed(channel) == "+ - #. a > b ~ \\xe9 \\u6f22\n"
    screen, channel = on_channel("latin-1")
    screen.say("✗ é →")
    assert channel.buffer.getvalue() == b"- \xe9 >\n"  # type: ignore[attr-defined]


def test_an_encoding_that_nobody_knows() -> None:
    """A channel may say anything of itself."""

    class Odd(io.StringIO):
        encoding = "no-such-encoding"

    channel = Odd()
    Screen.of(channel, channel).say("a → b")
    assert channel.getvalue() == "a > b\n"


def test_json_is_one_line_of_ascii() -> None:
    """Whatever is in it; what JSON lacks is told by its repr."""
    screen, channel = on_channel(as_json=True)
    hostile = HOSTILE.replace("\x00", "")
    screen.json({"a": hostile, "at": datetime(2026, 1, 1, tzinfo=UTC), "odd": {1j}, "bad": "\ud800"})
    screen.say("not shown")
    (line,) = printed(channel).splitlines()
    assert line.isascii()
    assert json.loads(line) == {
        "a": hostile,
        "at": "2026-01-01T00:00:00+00:00",
        "odd": "{1j}",
        "bad": "\\ud800",
    }


def test_json_keeps_its_shape() -> None:
    """Whatever the names in it: a program that looks for a key finds it."""
    screen, channel = on_channel(as_json=True)
    screen.json({"a\ud800": {"\x00": ["\ud800", ("\x00",)]}, "b": {1: 2}})
    assert json.loads(printed(channel)) == {"a\\ud800": {"\\x00": ["\\ud800", ["\\x00"]]}, "b": "{1: 2}"}


def test_json_has_lists_of_any_length() -> None:
    """What bounds a value bounds each in them."""
    screen, channel = on_channel(as_json=True)
    long = [{"b": list(range(60_000))}, {"c": list(range(60_000))}]
    screen.json({"a": long})
    assert json.loads(printed(channel)) == {"a": long}


def test_without_json_none_is_printed() -> None:
    """One or the other."""
    screen, channel = on_channel()
    screen.json({"a": 1})
    assert printed(channel) == ""


def test_progress_is_for_terminals(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, on a dumb terminal, and beside JSON, no cursor is moved."""
    shop.has(in_memory())
    assert "\x1b" not in phyxius("check", "quotes").out
    moving = on_terminal("check", "quotes")
    assert "\x1b[?25l" in moving.out
    assert "asking the evidence of quotes" in moving.out
    assert "\x1b[?25h" in moving.out, "the cursor is there again"
    assert "\x1b" not in on_terminal("check", "quotes", "--json").out
    monkeypatch.setenv("TERM", "dumb")
    assert on_terminal("check", "quotes").out == "quotes  expand → flip\r\nREADY  phyxius advance quotes --to flip\r\n"


def test_no_color(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours, on whatever terminal."""
    shop.has(in_memory())
    assert "\x1b[1;32m" in on_terminal("check", "quotes").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert not [code for code in COLOURS if code in on_terminal("check", "quotes").out]


COLOURS = [f"{number}m" for number in (*range(30, 38), *range(90, 98))] + ["38;5;", "38;2;"]


def test_progress_on_a_terminal_with_another_encoding(shop: Shop) -> None:
    """Its signs are such as that has."""
    shop.has(in_memory())
    assert on_terminal("check", "quotes", encoding="ascii").out.isascii()
    assert "\\u" not in on_terminal("check", "quotes", encoding="ascii").out


def test_markup_is_no_markup(shop: Shop) -> None:
    """Names are shown as they are, also while something is under way."""
    shop.has(in_memory("[bold]x[/bold] [/red]"))
    shown = on_terminal("check", "[bold]x[/bold] [/red]")
    assert shown.exit == 0, shown.out
    assert "asking the evidence of [bold]x[/bold] [/red]" in shown.out


def test_a_width_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS=0 shows what there is to show."""
    monkeypatch.setenv("COLUMNS", "0")
    with terminal(80) as (_, slave), open(os.dup(slave), "w") as channel:  # noqa: PTH123 - a descriptor
        os.close(slave)
        screen = Screen.of(channel, channel)
        assert (screen.out.width, screen.err.width) == (80, 80)
