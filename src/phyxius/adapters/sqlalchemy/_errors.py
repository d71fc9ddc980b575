"""What can be wrong with a database server."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs
import sqlalchemy as sa

from phyxius.adapters._redaction import redacted

ServerProblem: TypeAlias = Literal[
    "no_database",
    "missing",
    "older",
    "newer",
    "other_clock",
    "corrupt",
    "denied",
    "read_only",
    "encoding",
    "full",
    "busy",
    "unreachable",
    "not_open",
    "not_recorded",
    "failed",
]

_PROBLEMS: dict[ServerProblem, str] = {
    "no_database": "there is no such database; create it, or mend its name in the URL",
    "missing": "the tables are not there, or not all; run `await create_schema(engine)` once, or let Alembic make them"
    " from phyxius.adapters.sqlalchemy.metadata, and look whether prefix= and schema= are right",
    "older": "the tables are of an earlier version; run `await create_schema(engine)`, or your Alembic migration",
    "newer": "a newer version of this library made the tables, and this one leaves them alone; upgrade"
    " phyxius-migration here",
    "other_clock": "this process would stamp its rows by another clock than the rest, and nobody would see them where"
    " they belong; give the same clock= and time= everywhere, and keep tests in tables of their own (prefix=, schema=)",
    "corrupt": "tables that were there are gone, or this user may not see them; grant it what it lacks, or restore them"
    " from a backup: made anew, they would vouch for what nobody kept",
    "denied": "this user may not do that; mend the user and the password, or grant it SELECT, INSERT, UPDATE and DELETE"
    " on the tables, USAGE on their sequences (PostgreSQL), and CREATE to whoever makes them",
    "read_only": "it cannot be written; connect to the primary, and not to a replica",
    "encoding": "it does not take every character; make the database in UTF8 (PostgreSQL), or connect in utf8mb4"
    " (MySQL, ?charset=utf8mb4)",
    "full": "it has no room left; make room, and nothing that was committed is lost",
    "busy": "others were in the way for too long, and nothing was changed; look for a transaction that stays open",
    "unreachable": "it cannot be reached, or did not answer in time; see that it runs, that the network lets this"
    " process through, and that the engine's pool has a connection left",
    "not_open": "it is not open; use it inside `async with stores:`, or without an event loop `with opened(stores):`",
    "not_recorded": "what this process records is not kept in it, so it cannot vouch even for itself; enter "
    "stores.recorder(journal, name=...), with audit_only=True if it runs no handlers",
    "failed": "it refused, and nothing was changed; mend what it complains of, or restart this process",
}
# The first two characters of an SQLSTATE are its class; the longer match counts.
_OF_STATE: dict[str, ServerProblem] = {
    "08": "unreachable",
    "25006": "read_only",
    "28": "denied",
    "3D000": "no_database",
    "3F000": "missing",
    "40": "busy",
    "42501": "denied",
    "42P01": "missing",
    "42703": "missing",
    "53": "unreachable",
    "53100": "full",
    "55P03": "busy",
    "57": "unreachable",
    "57014": "busy",
    "58": "full",
}
_OF_ERRNO: dict[int, ServerProblem] = {
    1020: "busy",
    1021: "full",
    1040: "unreachable",
    1044: "denied",
    1045: "denied",
    1049: "no_database",
    1053: "unreachable",
    1054: "missing",
    1114: "full",
    1142: "denied",
    1143: "denied",
    1146: "missing",
    1205: "busy",
    1213: "busy",
    1290: "read_only",
    1317: "busy",
    1792: "read_only",
    1836: "read_only",
    1927: "unreachable",
    1969: "busy",
    2003: "unreachable",
    2006: "unreachable",
    2013: "unreachable",
    4031: "unreachable",
}


@attrs.define(eq=False, slots=False)
class ServerStoreError(Exception):
    """The database cannot be used as it is. The message says why, and what to do.

    Attributes:
        place: The database, without its password.
        problem: What is wrong: `"no_database"`, `"missing"`, `"older"`, `"newer"`, `"other_clock"`, `"corrupt"`,
            `"denied"`, `"read_only"`, `"encoding"`, `"full"`, `"busy"`, `"unreachable"`, `"not_open"`, `"not_recorded"`
            or `"failed"`.
        detail: What the database, its driver or the network said, where something was said.
    """

    place: str
    problem: ServerProblem
    detail: str | None = None

    def __str__(self) -> str:
        said = f" ({self.detail})" if self.detail else ""
        return f"{self.place}: {_PROBLEMS[self.problem]}{said}"


_SOCKETS = {"host", "unix_socket"}


def place_of(url: sa.URL) -> str:
    """Where a database is: without its password and its options, one of which may be a secret, but with its socket."""
    query = {key: value for key, value in url.query.items() if key in _SOCKETS}
    return url.set(query=query).render_as_string(hide_password=True)


def server_error(place: str, error: BaseException) -> ServerStoreError:
    """What SQLAlchemy, a driver or the network raised, as one of ours, without bound parameters."""
    cause = driver_error(error)
    return ServerStoreError(place, problem_of(error), f"{type(cause).__name__}: {first_line(cause)}")


def first_line(error: BaseException) -> str:
    """What it says first, without what looks like a secret: what may follow can hold the values of a row."""
    first, *_ = str(error).splitlines() or [""]
    return redacted(first)


def problem_of(error: BaseException) -> ServerProblem:
    """What an error says is wrong."""
    cause = driver_error(error)
    state, code = _state(cause), _errno(cause)
    if code is not None:  # MySQL has a state, too, which says less
        return _OF_ERRNO.get(code, "failed")
    if state is not None:
        return _OF_STATE.get(state, _OF_STATE.get(state[:2], "failed"))
    # The network has neither, nor has a driver that got no connection, or lost it; nor a pool that has none left.
    lost = isinstance(cause, OSError) or getattr(error, "connection_invalidated", False)
    return "unreachable" if lost or type(cause).__name__ in {"OperationalError", "TimeoutError"} else "failed"


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error, which SQLAlchemy wraps once or twice."""
    original = getattr(error, "orig", None)
    if not isinstance(original, BaseException):
        return error
    return original.__cause__ if original.__cause__ is not None and _state(original.__cause__) else original


def _state(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state if isinstance(state, str) and len(state) == 5 else None


def _errno(error: BaseException) -> int | None:
    code = error.args[0] if error.args else None
    return code if isinstance(code, int) and not isinstance(error, OSError) else None


def is_conflict(error: BaseException) -> bool:
    """Whether the server rolled a transaction back for the sake of another one."""
    cause = driver_error(error)
    return _state(cause) in {"40001", "40P01"} or _errno(cause) in {1020, 1213}


def is_lost(error: BaseException) -> bool:
    """Whether the connection was lost, so that nothing more will be heard of what ran on it."""
    if isinstance(error, OSError):
        return not isinstance(error, TimeoutError)
    return bool(getattr(error, "connection_invalidated", False))


def is_misled(error: BaseException) -> bool:
    """Whether a statement was prepared on one connection and run on another, as behind PgBouncer."""
    return _state(driver_error(error)) == "26000"
