"""What people read: lines with hanging indents, marks, bars and progress, on whatever terminal or pipe there is."""

from __future__ import annotations

import io
import json
import os
import re
import traceback as tracebacks
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import attrs
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from phyxius.cli._words import represented
from phyxius.journal import printable, to_json_value

# What moves the cursor, changes colours, hides, or reverses the order of what follows.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_NARROWEST, _WIDEST, _PIPE = 24, 120, 72
_BAR = 20
_ASCII = str.maketrans({"✓": "+", "✗": "-", "█": "#", "░": ".", "→": ">", "─": "-", "…": "~"})


def clean(text: object) -> str:
    """A text as a terminal may have it: what it would obey is shown as an escape."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


@attrs.frozen
class Line:
    """One line, whose continuation is indented by as much as its first part.

    Attributes:
        text: What it says.
        lead: What stands before it, at its left.
        indent: How far the whole is indented.
    """

    text: Text
    lead: Text = attrs.field(factory=Text)
    indent: int = 0

    @classmethod
    def of(cls, text: object, *, style: str = "", lead: str = "", lead_style: str = "", indent: int = 0) -> Line:
        """A line of foreign text."""
        return cls(Text(clean(text), style), Text(clean(lead), lead_style), indent)

    def wrapped(self, console: Console, width: int | None) -> Iterator[Text]:
        """Its pieces; one, where there is no width to keep to."""
        hang = self.indent + self.lead.cell_len
        first = Text(" " * self.indent).append_text(self.lead)
        if width is None:
            yield first.append_text(self.text)
        elif width - hang >= _NARROWEST:
            for piece in _pieces(self.text, console, width - hang):
                yield first.append_text(piece)
                first = Text(" " * hang)
        else:  # too narrow for the hanging indent: the lead has lines of its own
            margin = min(self.indent, max(0, width - _NARROWEST))
            for part in [part for part in (self.lead, self.text) if part.plain.strip()] or [Text()]:
                for piece in _pieces(part, console, width - margin):
                    yield Text(" " * margin).append_text(piece)


def _pieces(text: Text, console: Console, width: int) -> Iterator[Text]:
    for piece in text.wrap(console, max(1, width)):
        piece.rstrip()
        yield piece


class _Channel(Console):
    """Where is printed, as long as somebody reads it."""

    def on_broken_pipe(self) -> None:
        """Print no more, as behind `| head -1`. What was asked for is done all the same, with its own exit code."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)


@attrs.define
class Screen:
    """Where a command prints: what was asked for on one channel, what else there is to say on the other."""

    out: Console
    err: Console
    as_json: bool = False
    _drawn_on: Console | None = attrs.field(default=None, init=False)

    @classmethod
    def of(cls, out: TextIO, err: TextIO, *, as_json: bool = False) -> Screen:
        """The screen of a process."""
        for channel in (out, err):
            if isinstance(channel, io.TextIOWrapper):  # rather an escape than no answer
                channel.reconfigure(errors="backslashreplace")
        console, beside = (_Channel(file=file, highlight=False) for file in (out, err))
        for each in (console, beside):
            if each.width < 1:  # COLUMNS=0, which would show nothing at all
                each.width = 80
        return cls(console, beside, as_json)

    def show(self, lines: Iterable[Line], *, err: bool = False, wrap: bool = True) -> None:
        """Print lines, unless JSON is printed; `wrap=False` is for what other programs read."""
        if self.as_json and not err:
            return
        console = self.err if err else self.out
        if self._drawn_on is not None and console.is_terminal:  # else one would write into what the other has drawn
            console = self._drawn_on
        for line in lines:
            for text in line.wrapped(console, self._width(console) if wrap else None):
                console.print(self.fitting(console, text), soft_wrap=True)

    def say(self, text: object, **options: Any) -> None:
        """Print one line."""
        self.show([Line.of(text, **options)])

    def rule(self, text: object) -> None:
        """Print a heading, drawn across the screen."""
        width = self._width(self.out) or _PIPE
        told = f"── {clean(text)} "
        self.show([Line(Text(told + "─" * (width - len(told)), "bold"))])

    def note(self, text: object) -> None:
        """Say something beside what was asked for; nothing depends on whether that can be printed."""
        with suppress(OSError):
            self.show([Line.of(text, lead="note: ", lead_style="yellow")], err=True)

    def error(self, text: object) -> None:
        """Say what went wrong, if that can be printed."""
        with suppress(OSError):
            self.show([Line.of(text, lead="phyxius: ", lead_style="bold red")], err=True)

    def trace(self, error: BaseException) -> None:
        """Say where an error came from."""
        lines = "".join(tracebacks.format_exception(error)).split("\n")
        with suppress(OSError):
            self.show([Line.of(line) for line in lines if line], err=True)

    def json(self, values: Mapping[str, object]) -> None:
        """Print values for programs, in one line; nothing in it can move a cursor. Lists may be of any length."""
        if self.as_json:
            told = {
                printable(key): [_json_value(each) for each in value] if isinstance(value, list) else _json_value(value)
                for key, value in values.items()
            }
            self.out.print(Text(json.dumps(told, ensure_ascii=True)), soft_wrap=True)

    def show_cursor(self) -> None:
        """Have a terminal show its cursor."""
        with suppress(OSError):
            self.out.show_cursor()

    @property
    def is_read(self) -> bool:
        """Whether anybody reads what was asked for, as far as is known."""
        return not self.out.quiet

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that something is under way, where somebody looks; the function that it gives changes what is shown."""
        console = self.out if self.out.is_terminal else self.err
        if not self._can_be_drawn_on(console):
            yield lambda _: None
            return
        spinner = "dots" if self._has_signs(console) else "line"
        with self._drawing_on(console), console.status(Text(clean(text)), spinner=spinner) as status:
            yield lambda text: status.update(Text(clean(text)))

    @contextmanager
    def counted(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how many of a total are done, as a bar where somebody looks; in the end how far it came."""
        done, disable = 0, not self._can_be_drawn_on(self.out)
        columns = (TextColumn(f"  {text}"), BarColumn(_BAR), MofNCompleteColumn())
        with Progress(*columns, console=self.out, disable=disable, transient=True) as progress:
            task = progress.add_task(text, total=total)

            def tell(count: int) -> None:
                nonlocal done
                done = count
                progress.update(task, completed=count)

            yield tell
        style = "green" if done >= total else "red"
        self.show([Line(Text.assemble((bar(done / total), style), f" {done:,} of {total:,}"), Text(f"{text}  "), 2)])

    @contextmanager
    def display(self) -> Iterator[Callable[[Iterable[Line]], None] | None]:
        """A function that draws lines in place of those that it drew before; None where that cannot be done."""
        console = self.out
        if not self._can_be_drawn_on(console):
            yield None
            return
        # An alternate screen would be gone at the end, with what was found.
        live = Live(console=console, auto_refresh=False)  # too long a text is cut until the last time

        def draw(lines: Iterable[Line]) -> None:
            pieces = [piece for line in lines for piece in line.wrapped(console, self._width(console))]
            live.update(self.fitting(console, Text("\n").join(pieces)), refresh=True)

        with self._drawing_on(console), live:
            yield draw

    def _can_be_drawn_on(self, console: Console) -> bool:
        return console.is_terminal and not console.is_dumb_terminal and not self.as_json

    @contextmanager
    def _drawing_on(self, console: Console) -> Iterator[None]:
        self._drawn_on = console
        try:
            yield
        finally:
            self._drawn_on = None

    @staticmethod
    def _width(console: Console) -> int | None:
        return min(console.width, _WIDEST) if console.is_terminal else None

    @classmethod
    def fitting(cls, console: Console, text: Text) -> Text:
        """The text with no sign that the encoding of a terminal lacks."""
        if not cls._has_signs(console):
            text.plain = text.plain.translate(_ASCII)
        return text

    @staticmethod
    def _has_signs(console: Console) -> bool:
        try:
            "✓█→─".encode(console.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True


def _json_value(value: object) -> object:
    return to_json_value(_writable(value), fallback=represented)


def _writable(value: object) -> object:
    """The same with texts that JSON and databases take; else one such name would cost its whole mapping its shape."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key) if isinstance(key, str) else key: _writable(each) for key, each in value.items()}
    return [_writable(each) for each in value] if isinstance(value, list | tuple) else value


def bar(share: float) -> str:
    """A share as a bar; it is full only where nothing is missing."""
    full = min(int(share * _BAR), _BAR)
    return "█" * full + "░" * (_BAR - full)
