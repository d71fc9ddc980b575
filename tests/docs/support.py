"""What the applications of the docs have recorded in a file of stores."""

from __future__ import annotations

import asyncio
import json
import sqlite3
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
