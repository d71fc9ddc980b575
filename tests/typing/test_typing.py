"""Checks that mypy and pyright accept what must check, and reject exactly the marked lines of what must not.

``accepts_*.py`` has no marks. In ``rejects_*.py`` a line ends with ``# E: mypy, pyright``, or with the one of
the two that must report an error there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLES = sorted([*HERE.glob("accepts_*.py"), *HERE.glob("rejects_*.py")])
MARK = re.compile(r"#\s*E:\s*(?P<checkers>[\w, ]+?)\s*$")
CHECKERS = ("mypy", "pyright")

Errors = dict[str, dict[int, list[str]]]  # by file name, then by line


def _run(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command, *map(str, SAMPLES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stdout + result.stderr  # above 1 the checker itself failed
    return result.stdout


def _mypy() -> Errors:
    errors: Errors = defaultdict(lambda: defaultdict(list))
    for line in _run("mypy", "--output=json").splitlines():
        report = json.loads(line)
        if report["severity"] == "error":
            errors[Path(report["file"]).name][report["line"]].append(report["message"])
    return errors


def _pyright() -> Errors:
    errors: Errors = defaultdict(lambda: defaultdict(list))
    for report in json.loads(_run("pyright", "--outputjson"))["generalDiagnostics"]:
        if report["severity"] == "error":
            line = report["range"]["start"]["line"] + 1
            errors[Path(report["file"]).name][line].append(report["message"])
    return errors


@pytest.fixture(scope="module")
def errors() -> dict[str, Errors]:
    """What each checker reports, over all samples at once."""
    return {"mypy": _mypy(), "pyright": _pyright()}


def _marked(sample: Path, checker: str) -> set[int]:
    lines = set[int]()
    for number, line in enumerate(sample.read_text(encoding="utf-8").splitlines(), start=1):
        if mark := MARK.search(line):
            named = {name.strip() for name in mark["checkers"].split(",")}
            assert named <= set(CHECKERS), f"{sample.name}:{number}: unknown checker in {line!r}"
            if checker in named:
                lines.add(number)
    return lines


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_exactly_the_marked_lines_are_errors(errors: dict[str, Errors], sample: Path, checker: str) -> None:
    """A checker reports an error on each marked line of a sample and on no other."""
    marked = _marked(sample, checker)
    reported = errors[checker][sample.name]
    assert set(reported) == marked, dict(reported)
