"""`phyxius demo`: it tells its whole story, with real processes and tables, and loses no row."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from phyxius.cli import run
from phyxius.cli._demo import _story
from phyxius.cli._demo._story import Story, pause_for
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Screen
from tests.cli.support import COMMAND, on_terminal, process, terminal
from tests.docs.support import pattern_of
from tests.programs import running
from tests.source import ROOT

STEPS = ["dual_write", "flip", "contract", "drop"]


@attrs.frozen
class Told:
    """What a run has printed, and the directory that it kept."""

    text: str
    directory: Path

    @property
    def plain(self) -> str:
        return re.sub(r"\s+", " ", self.text)

    def sql(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.directory / "shop.db")) as database:
            return database.execute(sql).fetchall()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One run of it, into a file, as the processes that it starts print there, too."""
    directory = tmp_path_factory.mktemp("demo")
    stdout, beside = sys.stdout, os.dup(1)
    try:
        with (directory / "screen").open("w", encoding="utf-8") as screen:
            os.dup2(screen.fileno(), 1)
            sys.stdout = screen
            code = run("demo", as_json=False, keep=directory / "kept here", fast=False)
    finally:
        sys.stdout = stdout
        os.dup2(beside, 1)
        os.close(beside)
    text = (directory / "screen").read_text(encoding="utf-8")
    assert code == Exit.DONE, text
    return Told(text, directory / "kept here")


def test_phases_are_entered_in_order(told: Told) -> None:
    """Each phase is entered once."""
    assert re.findall(r"ADVANCED  quotes is at (\w+)", told.text) == STEPS


def test_every_refusal_names_its_blockers(told: Told) -> None:
    """It is refused for every reason that the story sets out to show."""
    expected = [
        ["✗ table_there there is no table sales_documents"],
        [
            r"✗ copied .* why [\d,]+ quotes are not in sales_documents; copy",
            r"✗ both_written .* saw \d+ events, recorded by shop-1",
            r"✗ reads_agree .* missing 30 seconds from [-\d: UTC]+, shop-1: it ended without closing",
        ],
        ["✓ copied", "✓ both_written", r"✗ reads_agree \d+ mismatched and 0 errored"],
        [r"✗ copied \d+ quotes differ in sales_documents", "✗ reads_agree"],
        ["the nightly report .last on Jan 14.", "█{20} 14 of 14 days", "✗ owner_agrees .* to do phyxius sign quotes"],
        [r"✗ nobody_writes saw \d+ events, recorded by shop-3"],
    ]
    before, *refusals = re.split(r"(?:NOT READY|REFUSED) (?=\w+ is not proven safe)", told.plain)
    for refusal, reasons in zip([before, *refusals[:-1]], expected, strict=True):
        for reason in reasons:
            assert re.search(reason, refusal), (reason, refusal)


def test_the_kill_is_real(told: Told) -> None:
    """The copy breaks off, requests are under way, and as many are made again."""
    killed = re.search(r"kill -9 \d+: the process is gone, with (\d+) requests .* reported ([\d,]+) rows", told.plain)
    assert killed is not None
    again = re.search(r"shop-2 takes its place, (\d+) requests are made again", told.plain)
    assert again is not None
    assert again[1] == killed[1] != "0"
    copied = re.findall(r"copied [█░]{20} ([\d,]+) of ([\d,]+)", told.plain)
    assert copied[0][0] == killed[2]
    assert [part == whole for part, whole in copied] == [False, True, True]


def test_silence_lasts_fourteen_days(told: Told) -> None:
    """Between the last read of the forgotten report and the contraction lie fourteen days."""
    signed = re.search(r"── Jan 03 .*Fourteen days go by.*quotes is at contract since 2026-01-29", told.plain)
    assert signed is not None


def test_no_row_is_lost(told: Told) -> None:
    """What the shop accepted is what the new table holds, the old one is gone, and all clients were served."""
    (accepted, checksum), stored = re.findall(r"([\d,]+) rows, sha256 (\S+)", told.text)
    assert (accepted, checksum) == stored
    [(count,)] = told.sql("SELECT count(*) FROM sales_documents")
    assert f"{count:,}" == accepted
    assert count > 20_000
    assert told.sql("SELECT name FROM sqlite_schema WHERE type = 'table'") == [("sales_documents",)]
    assert re.search(r"served +[\d,]+ requests, 0 failed, [1-9]\d* made again", told.text)


def test_nothing_moves_a_cursor_in_a_pipe(told: Told) -> None:
    """No colours, no bars that are drawn again."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", told.text)


def test_what_it_keeps_is_an_application(told: Told) -> None:
    """In the directory that it keeps the command works, as pasted from its last line, and the mended code is there."""
    pasted = ["sh", "-c", told.text.splitlines()[-1]]
    shown = subprocess.run(pasted, cwd="/", capture_output=True, text=True, check=True)
    assert "contract → [drop]" in shown.stdout
    command = [sys.executable, "-m", "phyxius_cli", "history", "quotes", "--json"]
    done = subprocess.run(command, cwd=told.directory, capture_output=True, text=True, check=True)
    history = json.loads(done.stdout)["history"]
    assert [entry["to"] for entry in history if entry["kind"] == "advanced"] == STEPS
    assert [entry["to"] for entry in history if entry["kind"] == "refused"] == ["dual_write", "flip", "flip", "drop"]
    shop = (told.directory / "shop.py").read_text(encoding="utf-8")
    assert "Decimal(total)" in shop
    assert "float(total)" not in shop
    compile(shop, "shop.py", "exec")


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """A story that has begun."""
    story = Story(Screen.of(sys.stdout, sys.stderr), tmp_path, [].append)
    story._prepare()
    story._start()
    yield story
    story._shop.discard()


def test_a_lost_row_ends_it_with_an_error(story: Story) -> None:
    """It proves what it says."""
    story._sql("CREATE TABLE sales_documents AS SELECT number, customer, 0 AS cents FROM quotes")
    with pytest.raises(CommandError, match=r"rows differ: \[\(1, 'customer 1', 0\), \(1, 'customer 1', 3707\)"):
        story._prove()


def test_a_failed_request_ends_it_with_an_error(story: Story) -> None:
    """An error, or a row that was not accepted so, is counted and told."""
    story._sql("UPDATE quotes SET total = '0.00' WHERE number > 10000")
    story._sql("DELETE FROM quotes WHERE number < 10000")
    story._traffic(_story._SECOND, reads=100)
    failures = story._clients.failures
    assert len(failures) > 90
    assert any("ValueError" in each for each in failures)
    assert any("'0.00'), and (" in each for each in failures)
    story._sql("CREATE TABLE sales_documents (number, customer, cents)")
    with pytest.raises(CommandError, match="the shop did not serve its clients: read quote"):
        story._prove()


def test_it_moves_nobody_elses_migration(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever application the environment names."""
    monkeypatch.setenv("PHYXIUS_APP", "nowhere:migration")
    story._phyxius("status")


def test_a_step_that_goes_otherwise_ends_it_with_an_error(story: Story) -> None:
    """A refusal that should have come, or one that should not."""
    with pytest.raises(CommandError, match=r"phyxius advance quotes --to dual_write ended with 75, and .* with 0"):
        story._phyxius("advance", "quotes", "--to", "dual_write")


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts_leave_nothing(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    """Neither files nor processes."""
    with running(["-m", "phyxius_cli", "demo"], tmp_path, {"TMPDIR": str(tmp_path)}) as demo:
        demo.wait_for("── Jan 01")
        assert demo.end(sent) == code
    assert ("interrupted" if sent is signal.SIGINT else "terminated") in demo.output
    assert list(tmp_path.iterdir()) == []


def test_it_waits_for_those_who_read(story: Story) -> None:
    """After each command, and before the heading that follows."""
    pauses: list[float] = []
    story._pause = pauses.append
    story._phyxius("status")
    story._phyxius("check", "quotes", expect=Exit.REFUSED)
    story._act("The next one")
    assert pauses == [_story._TO_READ, _story._TO_READ_MUCH, _story._TO_READ]


def test_it_waits_for_nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a terminal alone, unless it is to be fast, or is the one of a build server."""
    monkeypatch.delenv("CI", raising=False)
    with terminal(80) as (_, slave), open(slave, "w") as shown, (tmp_path / "file").open("w") as file:  # noqa: PTH123
        watched = Screen.of(shown, sys.stderr)
        assert pause_for(watched, fast=False) is time.sleep
        nobody = [
            pause_for(watched, fast=True),
            pause_for(Screen.of(shown, sys.stderr, as_json=True), fast=False),
            pause_for(Screen.of(file, sys.stderr), fast=False),
        ]
        monkeypatch.setenv("CI", "true")
        nobody.append(pause_for(watched, fast=False))
    for pause in nobody:
        assert pause is not time.sleep
        pause(3600)


def test_a_key_ends_it(tmp_path: Path) -> None:
    """At once, and what is left half done is told."""
    with process([*COMMAND, "demo", "--keep", "kept"], tmp_path, CI="") as demo:
        demo.wait_for("measured as it runs")
        demo.type("\x03")
        ended = demo.ended()
    assert ended.exit == Exit.INTERRUPTED
    assert "until it broke off; it may be deleted" in " ".join(ended.seen.split())
    assert ended.seen.endswith("phyxius: interrupted; nothing is torn\n")
    assert (tmp_path / "kept" / "shop.py").exists()


def test_json(tmp_path: Path) -> None:
    """Each line is a JSON object: what each command says, and the numbers of the proof at the end."""
    command = [sys.executable, "-m", "phyxius_cli", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    *commands, proof = map(json.loads, done.stdout.splitlines())
    assert [each["to"] for each in commands if each.get("outcome") == "ADVANCED"] == STEPS
    assert proof["rows"]["accepted"] == proof["rows"]["stored"]
    assert proof["sha256"]["accepted"] == proof["sha256"]["stored"]
    assert proof["requests"]["failed"] == []
    assert proof["refused"] == 4
    assert proof["seconds"] > 0
    assert done.stderr == ""


def test_the_readme_shows_what_it_prints(told: Told) -> None:
    """The screen that stands there is the one that comes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```text\n(\$ phyxius check.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert re.search(pattern_of(block), told.text)


def test_who_interrupts_it_has_the_cursor_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is killed while it draws leaves it hidden."""

    def tell(story: Story) -> None:
        story._screen.out.show_cursor(False)
        raise KeyboardInterrupt

    monkeypatch.setattr(Story, "tell", tell)
    ended = on_terminal("demo", "--fast")
    assert ended.exit == 130
    assert "\x1b[?25h" in ended.out.rpartition("\x1b[?25l")[2]
