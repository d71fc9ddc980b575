"""Evidence that both sides of a dual write have written."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import run
from phyxius.clock import create_controlled_clock
from phyxius.fp import Ok
from phyxius.handler import ObservedInPart, SecondaryWriteError, correlated, dual_write, observe, recorded, shadow
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceFailure,
    JournalQuery,
    JournalWindow,
    SpecError,
    create_memory_journal_store,
    create_migration,
    define_migration,
    shadow_parity,
    write_parity,
)
from phyxius.testing import aged_journal, make_event

NAME = "quote.write.parity"
DAY = timedelta(days=1)


async def verdict(journal: Journal[Any], store: Any = None, name: str = NAME, **options: Any) -> Any:
    """What `readiness` says of the evidence."""
    parity = write_parity(name, **{"window": DAY, "min_writes": 1, **options})
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {"parity": parity}})
    migration = create_migration(spec, journal=journal, journal_store=store, single_process=True)
    return (await migration.readiness()).verdicts["parity"]


class Tables:
    """Two tables, of which the second fails on cue."""

    def __init__(self, journal: Journal[Any], **options: Any) -> None:
        self.old: dict[int, int] = {}
        self.new: dict[int, int] = {}
        self.failing: set[int] = set()
        self.write = dual_write(
            journal,
            NAME,
            authoritative=self.write_old,
            secondary=self.write_new,
            **{"on_failure": "carry_on", **options},
        )

    def write_old(self, number: int) -> int:
        if number < 0:
            raise ValueError("numbers begin at 0")
        self.old[number] = number
        return 1

    def write_new(self, number: int) -> int:
        if number in self.failing:
            raise OSError("gone")
        self.new[number] = number
        return 1


async def test_both_sides_have_written() -> None:
    """Enough writes, and rejected ones count for nothing."""
    journal = aged_journal()
    tables = Tables(journal, rejections=(ValueError,))
    for number in range(10):
        tables.write(number)
    with pytest.raises(ValueError, match="begin at 0"):
        tables.write(-1)
    counts = {"matched": 10, "mismatched": 0, "ignored": 0, "errored": 0, "not_compared": 1}
    assert await verdict(journal, min_writes=10) == Ok({"counts": counts, "overdue": 0})
    assert (await verdict(journal, min_writes=11)).reason == "10 writes so far; 11 needed: wait for more traffic"


async def test_a_write_that_failed() -> None:
    """One is too many, unless a share is allowed; the newest is told with what is known of it."""
    journal = aged_journal()
    tables = Tables(journal)
    tables.failing = {7}
    for number in range(100):
        with correlated(f"request-{number}"), recorded(journal, "quote.save"):
            observe(number=number)
            tables.write(number)
    failure = await verdict(journal)
    assert failure.reason == (
        "0 mismatched and 1 errored beside 99 matched writes; none is allowed: look at their events, "
        "mend what failed, write again what the secondary side lacks, then wait until they have left the window"
    )
    assert failure.retry_at == journal.clock.now().wall + DAY + timedelta(microseconds=1)
    newest = failure.details["newest"]
    assert newest["observed"]["number"] == 7
    assert newest["correlation_id"] == "request-7"
    assert (newest["error"].type, newest["at"]) == ("OSError", journal.clock.now().wall)
    assert isinstance(await verdict(journal, max_mismatch_rate=0.01), Ok)


async def test_an_authoritative_side_that_may_have_written() -> None:
    """What raises without being a rejection may come after the write, and then the secondary side lacks it."""
    journal = aged_journal()
    tables = Tables(journal)
    tables.write(1)
    tables.write(2)
    with pytest.raises(ValueError, match="begin at 0"):
        tables.write(-1)
    assert (await verdict(journal)).reason.startswith("0 mismatched and 1 errored beside 2 matched writes")


async def test_one_tenant_alone() -> None:
    """An average hides the tenant whose writes all fail; by tenant it does not."""
    journal = aged_journal()
    tables = Tables(journal)
    tables.failing = set(range(995, 1000))
    for number in range(1_000):
        with recorded(journal, "quote.save"):
            observe(tenant="small" if number >= 995 else "large")
            tables.write(number)
    assert isinstance(await verdict(journal, max_mismatch_rate=0.01), Ok)
    failure = await verdict(journal, max_mismatch_rate=0.01, by="tenant")
    assert failure.reason.startswith("cohort 'small': 0 mismatched and 5 errored beside 0 matched writes")


async def test_a_write_in_flight_beyond_its_timeout() -> None:
    """The limit is that of the secondary side, and counts from its begin; until it has ended it speaks against."""
    journal = aged_journal()
    clock: Any = journal.clock
    verdicts: list[Any] = []
    Tables(journal).write(1)

    async def slowly(seconds: int) -> None:
        await clock.sleep(timedelta(seconds=seconds))
        verdicts.append(await verdict(journal))

    def second() -> None:
        clock.advance_by(timedelta(seconds=4))
        verdicts.append(run(verdict(journal)))
        clock.advance_by(timedelta(seconds=2))
        verdicts.append(run(verdict(journal)))

    write: Any = dual_write(journal, NAME, authoritative=slowly, secondary=lambda _: None)
    task = asyncio.create_task(write(20))
    await clock.elapse(timedelta(seconds=30))
    await task
    write = dual_write(journal, NAME, authoritative=lambda: None, secondary=second, on_failure="carry_on")
    await asyncio.to_thread(write)
    assert [isinstance(each, Ok) for each in verdicts] == [True, True, False]
    assert verdicts[2].details["overdue"] == 1


async def test_a_name_that_means_something_else() -> None:
    """Comparisons of reads are no writes, and the other way round; nor is a misspelt name merely little traffic."""
    journal = aged_journal()
    Tables(journal).write(1)
    compared = asyncio.Event()
    journal.subscribe(lambda entry: compared.set())

    async def read() -> int:
        return 1

    await shadow(journal, "quote.read.parity", old=read, new=read)()
    await compared.wait()
    assert isinstance(await verdict(journal), Ok)
    reads = await verdict(journal, name="quote.read.parity")
    assert reads.reason.startswith('1 event named "quote.read.parity" compare reads, and not writes: give each a name')
    writes: Any = shadow_parity(NAME, window=DAY, min_comparisons=1).predicate(await window_of(journal, NAME))
    assert "compare writes, and not reads" in writes.error.reason
    misspelt = await verdict(journal, name="quote.wirte.parity")
    assert misspelt.reason.startswith('there is nothing named "quote.wirte.parity", and no recorder was there')
    journal.declare("quote.later.parity")
    assert (await verdict(journal, name="quote.later.parity")).reason.startswith("0 writes so far; 1 needed")


async def window_of(journal: Journal[Any], name: str) -> JournalWindow:
    return await create_memory_journal_store(journal=journal).query(JournalQuery(name), DAY)


async def test_what_an_enclosing_call_observes_reaches_it_through_by_phase() -> None:
    """The recording of `record_as` stands between the two, and hides nothing."""
    journal = aged_journal()
    tables = Tables(journal)
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {}})
    migration = create_migration(spec, journal=journal, single_process=True)
    save = migration.by_phase(dict.fromkeys(spec.order, tables.write), record_as="quote.write")
    with recorded(journal, "request"):
        observe(tenant="a")
        await save(1)
    (event,) = [entry.data for entry in journal if entry.data.name == NAME]
    assert (event.observed["tenant"], event.observed["phase"]) == ("a", "expand")
    assert isinstance(await verdict(journal, by="tenant"), Ok)


@pytest.mark.parametrize(
    "redact",
    [
        lambda key, value: value if key == "number" else "***",
        lambda key, value: value.replace("a", "b"),  # raises for what is no text
    ],
)
async def test_a_redaction_hook_does_not_touch_what_the_evidence_reads(redact: Any) -> None:
    """Whatever it makes of the rest."""
    clock = create_controlled_clock()
    journal = Journal[Any](clock=clock, redact=redact)
    await clock.elapse(2 * DAY)
    tables = Tables(journal)
    for number in range(3):
        tables.write(number)
    counts = {"matched": 3, "mismatched": 0, "ignored": 0, "errored": 0, "not_compared": 0}
    assert await verdict(journal) == Ok({"counts": counts, "overdue": 0})


KILLED = """
import asyncio, os, sys
from datetime import datetime, UTC
from phyxius import Journal, create_controlled_clock, dual_write
from phyxius.adapters.sqlite import open_file_stores
from phyxius.blocking import run

clock = create_controlled_clock(datetime(2026, 1, 1, 12, tzinfo=UTC))
journal = Journal(clock=clock)
name = "quote.write.parity"
write = dual_write(journal, name, authoritative=print, secondary=lambda number: os._exit(9))

async def main():
    async with open_file_stores(sys.argv[1], clock=clock) as stores:
        async with stores.recorder(journal, name="api-1", durable=[name]):
            write(1)

asyncio.run(main())
"""


async def test_a_process_that_is_killed_between_the_sides(tmp_path: Path) -> None:
    """If the name is durable the write is there as one that failed, and in no way as one that never was."""
    path = tmp_path / "migrations.db"
    clock = create_controlled_clock()
    async with open_file_stores(path, clock=clock):
        pass
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (9, "")
    clock.jump_wall_time(datetime(2026, 1, 2, tzinfo=UTC))
    async with open_file_stores(path, clock=clock) as stores:
        journal = Journal[Any](clock=clock)
        async with stores.recorder(journal, name="console", audit_only=True):
            failure = await verdict(journal, stores.journal_store)
    assert failure.reason.startswith("0 mismatched and 1 errored beside 0 matched writes")
    assert failure.details["newest"]["error"].type == "RecorderLost"


def test_an_event_of_which_not_all_is_known() -> None:
    """What could not be stored is no match."""
    clock = create_controlled_clock()
    event = attrs.evolve(make_event(NAME, clock=clock), observed=ObservedInPart({"tenant": "a"}, ["parity"]))
    now = clock.now().wall
    answer: Any = write_parity(NAME, window=DAY).predicate(JournalWindow([event], since=now - DAY, until=now, gaps=()))
    assert isinstance(answer.error, EvidenceFailure)
    assert answer.error.details["counts"]["errored"] == 1
    assert answer.error.details["newest"]["observed"] == {"tenant": "a"}


@pytest.mark.parametrize(
    "options", [{"max_mismatch_rate": 2}, {"max_mismatch_rate": float("nan")}, {"min_writes": 0}, {"by": 7}]
)
def test_misuse_is_refused(options: Any) -> None:
    """What could only pass by mistake."""
    with pytest.raises(SpecError):
        write_parity(NAME, window=DAY, **options)
    with pytest.raises(SpecError, match=r"the name that dual_write\(\) records under"):
        write_parity(None, window=DAY)  # type: ignore[arg-type]


def test_the_default_policy_raises() -> None:
    """Nobody who says nothing loses a write silently."""
    tables = Tables(aged_journal(), on_failure="raise")
    tables.failing = {1}
    with pytest.raises(SecondaryWriteError):
        tables.write(1)
