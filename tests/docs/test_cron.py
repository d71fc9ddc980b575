"""The script of the docs that presses from cron."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from phyxius import define_migration
from phyxius.adapters.sqlite import open_file_stores
from tests.docs.support import HOW_TO, change, make_stores, recorders
from tests.programs import run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "migrations.db"
    make_stores(found)
    return found


def press(path: Path, *args: str) -> subprocess.CompletedProcess[Any]:
    return run(["advance_quotes.py", *args], HOW_TO / "cron", {"MIGRATIONS": str(path)})


def sign(path: Path) -> None:
    """Sign, as somebody else would in another process."""

    async def signing() -> None:
        async with open_file_stores(path) as stores:
            evidence = {"dba": stores.attestations.signed_off()}
            spec = define_migration(name="quote-to-sales-document", phases={"expand": {}, "dual_write": evidence})
            await stores.attestations.sign(spec, to="dual_write", source="dba", signer="ada")

    asyncio.run(signing())


def test_it_waits_then_moves_then_is_silent(path: Path) -> None:
    """Its exit codes and its output tell cron, and whoever reads the mail, what came of it."""
    done = press(path, "dual_write")
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.startswith('quote-to-sales-document: cannot enter "dual_write": dba: ')
    sign(path)
    done = press(path, "dual_write")
    assert (done.returncode, done.stdout) == (0, "quote-to-sales-document: expand -> dual_write\n")
    for phase in ("dual_write", "expand"):
        done = press(path, phase)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(recorders(path)) == {("cron", 1)}


def test_what_somebody_should_look_at(path: Path) -> None:
    """A phase that the script does not know, one that there is not, and a file of which it is none."""
    done = press(path, "flip")
    assert (done.returncode, "invalid choice: 'flip'" in done.stderr) == (2, True)
    press(path, "dual_write")
    change(path, "UPDATE migrations SET phase = 'drop'")
    done = press(path, "dual_write")
    assert done.returncode == 1, "an uncaught exception"
    assert "UnknownPhaseError" in done.stderr
