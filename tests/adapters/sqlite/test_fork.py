"""A process that forks while its stores are open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FORKS = """
import asyncio, logging, os, sys, warnings
from datetime import timedelta
from phyxius import Journal, JournalQuery, create_system_clock, recorded
from phyxius.adapters.sqlite import FileStoreError, open_file_stores

warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what this is about
logging.basicConfig(stream=sys.stdout, format="%(name)s: %(message).60s")
stores = open_file_stores(sys.argv[1])
journal = Journal(clock=create_system_clock())
journal.declare("durable")

def call(name):
    with recorded(journal, name):
        pass

async def child():
    try:
        call("durable")
    except FileStoreError as error:
        print("refused:", error.problem, error.detail)
    call("background")
    call("background")
    async with stores:
        async with stores.recorder(journal, name="child", durable=["durable"]):
            call("durable")
            call("background")

async def parent():
    async with stores, stores.recorder(journal, name="parent", durable=["durable"]):
        call("background")
        sys.stdout.flush()
        if not (pid := os.fork()):
            try:
                asyncio.run(child())
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(pid, 0)
        for name in ("durable", "background"):
            window = await stores.journal_store.query(JournalQuery(name), timedelta(minutes=5))
            print(name, len(window), window.witnessed, {gap.recorder for gap in window.gaps})

asyncio.run(parent())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_opens_its_own(tmp_path: Path) -> None:
    """Until it does, it is told that nothing is recorded; then its recorder takes over what happened since the fork."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(tmp_path / "m.db")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "phyxius.adapters: this process was forked from one that had a recorder open, a",
        "refused: not_open it was opened before this process was forked",
        "durable 2 True {None}",
        "background 4 True {None}",
    ]
