"""The README's main job: the example tells its whole story, and loses no row."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.source import ROOT

EXAMPLE = ROOT / "examples" / "quote_to_sales_document.py"
STEPS = ["dual_write", "flip", "contract", "dropped"]


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, encoding="utf-8", check=False
    )


def altered(before: str, after: str) -> str:
    """The example with one line changed."""
    source = EXAMPLE.read_text(encoding="utf-8")
    assert source.count(before) == 1
    return source.replace(before, after)


@pytest.fixture(scope="module")
def story() -> str:
    done = run(EXAMPLE.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_phases_are_entered_in_order(story: str) -> None:
    """Each phase is entered once, and the drop comes last, after the journal has been asked."""
    assert re.findall(r"ADVANCED to (\w+)", story) == STEPS


def test_every_refusal_names_its_blockers(story: str) -> None:
    """The story is refused for every reason it sets out to show, in this order."""
    told = re.sub(r"\s+", " ", story)
    expected = [
        ["schema_ready: there is no table sales_documents"],
        ["copied: 1014 quotes are not", "copy_not_outrun: saw 28 events", "parity: 0 comparisons"],
        ["parity: 38 mismatched"],
        ["and the nightly report (last on Jan 15)"],
        ["mirror_silent: saw 4 events"],
    ]
    for refusal, reasons in zip(told.split("REFUSED ")[1:], expected, strict=True):
        for reason in reasons:
            assert reason in refusal


def test_silence_lasts_fourteen_days(story: str) -> None:
    """Between the last legacy read and the contraction lie fourteen days."""
    assert "\nJan 15 12:00  the nightly report is retired\nJan 29 12:00  ADVANCED to contract\n" in story


def test_audit_trail_holds_every_call(story: str) -> None:
    """Each call of advance() is in the file, in order, also those from before the restart."""
    trail = story.partition("The audit trail")[2]
    assert re.findall(r"-> (\w+) +(success|failure)", trail) == [
        (phase, outcome)
        for phase, outcomes in zip(STEPS, ("fs", "ffs", "fs", "fs"), strict=True)
        for outcome in ({"f": "failure", "s": "success"}[letter] for letter in outcomes)
    ]


def test_no_row_is_lost(story: str) -> None:
    """What the shop accepted is what the new table holds."""
    (accepted, checksum), stored = re.findall(r"(\d+) rows, sha256 (\S+)", story)
    assert (accepted, checksum) == stored
    assert int(accepted) > 2_000


def test_lines_fit_a_terminal(story: str) -> None:
    """No line is wider than 100 columns."""
    assert max(map(len, story.splitlines())) <= 100


def test_lost_row_ends_it_with_an_error() -> None:
    """The exit code says when a row is missing at the end."""
    done = run(altered('"DROP TABLE quotes"', '"UPDATE sales_documents SET cents = 0 WHERE number = 2100"'))
    assert done.returncode == 1
    assert "rows differ: [(2100, 'a new customer', 0)" in done.stderr


def test_flip_without_the_mirror_ends_it_with_an_error() -> None:
    """If `flip` wrote the new table alone, who still reads the old one would miss what was saved."""
    done = run(altered('"flip": both,', '"flip": new,'))
    assert done.returncode == 1
    assert done.stdout.count("ADVANCED") == 2
    assert "in read_old" in done.stderr


def test_step_that_should_be_refused_ends_it_with_an_error() -> None:
    """The exit code says when a step is taken that the story says is refused."""
    done = run(altered("return int(float(total) * 100)", "return round(float(total) * 100)"))
    assert done.returncode == 1
    assert "flip should have been refused by ('parity',)" in done.stderr
