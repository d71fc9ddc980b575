"""A file that was copied, and an older copy that was put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from phyxius.adapters.sqlite import FileStores, open_file_stores
from phyxius.clock import ControlledClock
from phyxius.handler import recorded
from phyxius.journal import Journal
from phyxius.migration import JournalQuery, JournalWindow
from tests.adapters.sqlite.support import bare

DAY = timedelta(days=1)
LEGACY = "legacy"


@pytest.fixture
def journal(phyxius_clock: ControlledClock) -> Iterator[Journal]:
    journal = Journal(clock=phyxius_clock)
    journal.declare(LEGACY)
    return journal


def call(journal: Journal) -> None:
    with recorded(journal, LEGACY):
        pass


async def asked(stores: FileStores) -> JournalWindow:
    return await stores.journal_store.query(JournalQuery(LEGACY), 13 * DAY)


async def test_a_copy_is_another_file(tmp_path: Path, phyxius_clock: ControlledClock, journal: Journal) -> None:
    """The recorder of the original does not vouch for the copy, which holds nothing that came later."""
    original = open_file_stores(tmp_path / "m.db", clock=phyxius_clock)
    copy = open_file_stores(tmp_path / "copy.db", clock=phyxius_clock)
    async with original, original.recorder(journal, name="api"):
        await phyxius_clock.elapse(14 * DAY)
        assert not (await asked(original)).gaps
        with bare(tmp_path / "m.db") as connection:
            connection.execute("VACUUM INTO ?", [str(tmp_path / "copy.db")])
        await phyxius_clock.elapse(timedelta(seconds=5))
        call(journal)
        async with copy, copy.recorder(Journal(clock=phyxius_clock), name="who asks", audit_only=True):
            window = await asked(copy)
            assert (len(window), [gap.recorder for gap in window.gaps]) == (0, ["api"])
        assert len(await asked(original)) == 1


@pytest.mark.parametrize("durable", [(), (LEGACY,)], ids=["background", "durable"])
async def test_an_older_copy_is_told_again(
    tmp_path: Path, phyxius_clock: ControlledClock, journal: Journal, durable: tuple[str, ...]
) -> None:
    """What a journal has stored in a file is stored again where an older copy took its place, and once where not."""
    path = tmp_path / "m.db"
    stores = open_file_stores(path, clock=phyxius_clock)
    async with stores:
        async with stores.recorder(journal, name="api", durable=durable):
            pass
        with bare(path) as connection:
            connection.execute("VACUUM INTO ?", [str(tmp_path / "copy.db")])
        async with stores.recorder(journal, name="api", durable=durable):
            await phyxius_clock.elapse(DAY)
            call(journal)
    async with stores, stores.recorder(journal, name="api", durable=durable):
        assert len(await asked(stores)) == 1
    shutil.copyfile(tmp_path / "copy.db", path)  # into the same file: only what it holds tells that it is older
    async with stores, stores.recorder(journal, name="api", durable=durable):
        assert len(await asked(stores)) == 1
