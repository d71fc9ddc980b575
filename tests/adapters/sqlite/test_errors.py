"""What can be wrong with the file, as one error that says what to do."""

from __future__ import annotations

import pickle
import sqlite3
from typing import get_args

import attrs
import pytest

from phyxius.adapters.sqlite import AmendedMeanwhileError, FileProblem, FileStoreError, PassedPhasesChangedError
from phyxius.adapters.sqlite._errors import file_error

CODES: dict[int | None, FileProblem] = {
    None: "failed",
    sqlite3.SQLITE_ERROR: "failed",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "failed",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_BUSY_RECOVERY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_READONLY_DIRECTORY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_CORRUPT_INDEX: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_CANTOPEN: "unreachable",
    sqlite3.SQLITE_IOERR: "unreachable",
    sqlite3.SQLITE_IOERR_WRITE: "unreachable",
}


@pytest.mark.parametrize("problem", get_args(FileProblem))
def test_it_says_what_is_wrong(problem: FileProblem) -> None:
    """Each problem names the path, what is wrong and what to do, and what SQLite said where it said something."""
    bare, said = FileStoreError("/data/a.db", problem), FileStoreError("/data/a.db", problem, "disk I/O error")
    place, _, text = str(bare).partition(": ")
    wrong, _, remedy = text.partition("; ")
    assert place == "/data/a.db"
    assert wrong
    assert remedy
    assert str(said) == f"{bare} (disk I/O error)"
    assert "None" not in str(bare)


@pytest.mark.parametrize(
    "error",
    [
        *(FileStoreError("/data/a.db", problem, "said") for problem in get_args(FileProblem)),
        FileStoreError(path="/data/a.db", problem="locked"),
        PassedPhasesChangedError(("a", "b", "c"), ("a", "x"), "b"),
        AmendedMeanwhileError(("a", "b"), ("a", "c"), 2),
    ],
    ids=str,
)
def test_it_pickles(error: Exception) -> None:
    """Its class, its attributes and its text come through a pickle."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert attrs.asdict(copy) == attrs.asdict(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("code, problem", CODES.items())
def test_what_sqlite_says(code: int | None, problem: FileProblem) -> None:
    """Each result of SQLite, with its extensions, is one of the problems; what it said is kept."""
    error = sqlite3.OperationalError("said")
    if code is not None:
        error.sqlite_errorcode = code
    told = file_error("/data/a.db", error)
    assert (told.path, told.problem, told.detail) == ("/data/a.db", problem, "said")


def test_the_passed_phases_are_named() -> None:
    """An amendment that changes them is told how the new order must begin."""
    error = PassedPhasesChangedError(("a", "b", "c"), ("a", "x"), "b")
    assert str(error) == (
        'the store recorded the phases "a", "b", "c", but the spec declares "a", "x"; '
        'the migration is at \'b\', so the new order must begin with "a", "b"'
    )
