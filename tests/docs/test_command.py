"""The pages about the command: each command on them is run, and has to print what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import phyxius_cli
from phyxius.cli._exits import Exit
from tests.docs.support import HOW_TO, commands, pattern_of
from tests.programs import run
from tests.source import ROOT

REFERENCE = (ROOT / "docs" / "reference" / "command.md").read_text(encoding="utf-8")


def test_dots_stand_for_anything() -> None:
    """But for nothing else than what they stand in for."""
    said = "first ... line\n...\nlast\n"
    for printed, fits in (
        ("first long line\nlast\n", True),
        ("first  line\nmore\nand more\nlast\n", True),
        ("first line\nlast\n", False),
        ("first long line\nlast\nbut one\n", False),
    ):
        assert bool(re.fullmatch(pattern_of(said), printed)) is fits


class Reader:
    """Somebody who does what the page says, with a copy of its application."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._code = 0

    def types(self, command: str) -> str:
        match shlex.split(command):
            case ["echo", "$?"]:
                return f"{self._code}\n"
            case ["touch", name]:
                (self._directory / name).touch()
                return ""
            case ["phyxius", *args]:
                done = run(["-m", "phyxius_cli", *args], self._directory)
                self._code = done.returncode
                return done.stdout + done.stderr
        raise AssertionError(f"nobody here knows {command}")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    shutil.copytree(HOW_TO / "command", tmp_path / "shop", ignore=shutil.ignore_patterns("__pycache__", "*.db*"))
    return Reader(tmp_path / "shop")


def sorted_answers(screen: str) -> str:
    """A screen of `advance`, with the answers of its sources in one order."""
    lines = screen.splitlines(keepends=True)
    answers = sorted(line for line in lines if line.startswith((" ✓ ", " ✗ ")))
    return "".join([*lines[:1], *answers, *(line for line in lines[1:] if line not in answers)])


def test_the_how_to(reader: Reader) -> None:
    """From the first look to what the last step lacks."""
    done = 0
    for command, output in commands((HOW_TO / "use-the-command.md").read_text(encoding="utf-8")):
        printed, said = reader.types(command), output
        if command.startswith("phyxius advance"):  # answers come as they come
            printed, said = sorted_answers(printed), sorted_answers(output)
        assert re.fullmatch(pattern_of(said), printed), f"{command} printed:\n{printed}\nThe page says:\n{said}"
        done += 1
    assert done > 10


def options_of(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield from (each for each in parameter.opts if each.startswith("--"))


def test_the_reference_has_each_command_and_option() -> None:
    """And no more than there are."""
    assert isinstance(phyxius_cli.main, click.Group)
    rows = dict(re.findall(r"^\| `(\w+)[^`]*` \|(.*)\|$", REFERENCE.partition("## Exit codes")[0], re.MULTILINE))
    assert rows.keys() == phyxius_cli.main.commands.keys()
    common = set(re.findall(r"^\| `(--\w+)", REFERENCE, re.MULTILINE))
    assert common == {"--app", "--json", "--create", "--traceback"}
    for name, command in phyxius_cli.main.commands.items():
        assert set(re.findall(r"`(--[\w-]+)", rows[name])) == set(options_of(command)) - common
        if name not in ("demo", "completion"):
            assert common <= set(options_of(command))


@pytest.mark.parametrize("text", [REFERENCE, phyxius_cli.main.epilog or ""], ids=["reference", "help"])
def test_each_exit_code_is_told(text: str) -> None:
    """In the reference, and by --help."""
    told = {int(code) for code in re.findall(r"^\| (?:\d+, )?(\d+) \|", text, re.MULTILINE)}
    told |= {int(code) for code in re.findall(r"^(?:\| |  )(\d+)", text, re.MULTILINE)}
    told |= {int(code) for code in re.findall(r"\((\d+):", text)}
    assert told == set(Exit)
