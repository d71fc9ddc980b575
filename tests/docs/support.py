"""What a page says that its commands print, and what its application has recorded in a file of stores."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from phyxius.adapters.sqlite import open_file_stores
from tests.source import ROOT

HOW_TO = ROOT / "docs" / "how-to"


def make_stores(path: Path) -> None:
    """A file that has been there for years."""

    async def make() -> None:
        async with open_file_stores(path):
            pass

    asyncio.run(make())
    change(path, "UPDATE journal SET covered_since_ns = 0")


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def calls(path: Path, name: str) -> list[tuple[Any, str, str | None]]:
    """Under which phase each call of a name ran, how it ended, and what it belongs to."""
    found = rows(path, f"SELECT observed, outcome, correlation_id FROM events WHERE name = '{name}' ORDER BY rowid")
    return [(json.loads(observed)["phase"], outcome, correlation_id) for observed, outcome, correlation_id in found]


def recorders(path: Path) -> list[tuple[str, int]]:
    """Who has recorded, and whether he has closed."""
    return rows(path, "SELECT name, closed FROM recorders ORDER BY name")


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Each command of a page, and what it has to print."""
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def pattern_of(output: str) -> str:
    """A line of dots stands for any lines, and dots within a line for anything."""
    lines = (
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in output.splitlines()
    )
    return "".join(lines)
