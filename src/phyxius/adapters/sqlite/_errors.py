"""What can be wrong with the file."""

from __future__ import annotations

import sqlite3
from typing import Literal, TypeAlias

import attrs

FileProblem: TypeAlias = Literal[
    "missing",
    "foreign",
    "newer",
    "other_clock",
    "read_only",
    "full",
    "locked",
    "corrupt",
    "unreachable",
    "replaced",
    "not_open",
    "not_recorded",
    "failed",
]

_PROBLEMS: dict[FileProblem, str] = {
    "missing": "it is not there; look at the path, or restore the file",
    "foreign": "it is not a file of this library, and was left as it is; give another path",
    "newer": "a newer version of this library wrote it, and this one leaves it alone; upgrade phyxius-migration here",
    "other_clock": "this process would stamp its rows by another clock than the rest, and nobody would see them where"
    " they belong; give the same clock= everywhere, and keep tests in files of their own",
    "read_only": "it cannot be written; give this process write access to the file and to its directory",
    "full": "the disk is full; make room, and nothing that was committed is lost",
    "locked": "another process held its lock for too long; look for one that is stuck, or give a longer lock_timeout=",
    "corrupt": "it is damaged, and was left as it is; restore it from a backup, or inspect a copy with sqlite3",
    "unreachable": "it cannot be opened or read; check that its directory exists and can be read and written",
    "replaced": "it was replaced or removed while it was open, so this process would go on with another one than "
    "the rest; restart this process, and restore the file if it was removed by mistake",
    "not_open": "it is not open; use it inside `async with stores:`, or without an event loop `with opened(stores):`",
    "not_recorded": "what this process records is not kept in it, so it cannot vouch even for itself; enter "
    "stores.recorder(journal, name=...), with audit_only=True if it runs no handlers",
    "failed": "SQLite refused, and nothing was changed; mend what it complains of, or restart this process",
}
_OF_CODE: dict[int, FileProblem] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_CANTOPEN: "unreachable",
    sqlite3.SQLITE_IOERR: "unreachable",
}


@attrs.define(eq=False, slots=False)
class FileStoreError(Exception):
    """The file cannot be used as it is. The message says why, and what to do.

    Attributes:
        path: The file.
        problem: What is wrong: `"missing"`, `"foreign"`, `"newer"`, `"other_clock"`, `"read_only"`, `"full"`,
            `"locked"`, `"corrupt"`, `"unreachable"`, `"replaced"`, `"not_open"`, `"not_recorded"` or `"failed"`.
        detail: What SQLite or the operating system said, where it said something.
    """

    path: str
    problem: FileProblem
    detail: str | None = None

    def __str__(self) -> str:
        said = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {_PROBLEMS[self.problem]}{said}"


def file_error(path: str, error: sqlite3.Error) -> FileStoreError:
    """The error of SQLite as one of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    problem = "failed" if code is None else _OF_CODE.get(code & 0xFF, "failed")
    return FileStoreError(path, problem, str(error))
