"""What can be wrong with a database server."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from phyxius.adapters.sqlalchemy import ServerStoreError
from phyxius.adapters.sqlalchemy._errors import _PROBLEMS, is_conflict, is_lost, server_error


class StateError(Exception):
    def __init__(self, state: str, text: str = "no") -> None:
        super().__init__(text)
        self.sqlstate = state


def wrapped(cause: BaseException, *, lost: bool = False) -> DBAPIError:
    """As SQLAlchemy tells of what a driver raised."""
    return OperationalError("SELECT :secret", {"secret": "hunter2"}, cause, connection_invalidated=lost)


def translated(state: str) -> DBAPIError:
    """As the dialect of asyncpg does: the driver's own error is the cause of one of the dialect."""
    error = Exception("<class 'asyncpg.X'>: no")
    error.__cause__ = StateError(state)
    return wrapped(error)


@pytest.mark.parametrize(
    "error,problem",
    [
        (wrapped(StateError("42P01")), "missing"),
        (translated("42P01"), "missing"),
        (wrapped(StateError("42501")), "denied"),
        (StateError("3D000"), "no_database"),
        (wrapped(Exception(1049, "unknown database")), "no_database"),
        (StateError("28P01"), "denied"),
        (wrapped(StateError("25006")), "read_only"),
        (wrapped(StateError("53100")), "full"),
        (wrapped(StateError("53300")), "unreachable"),
        (wrapped(StateError("40001")), "busy"),
        (wrapped(StateError("57P01")), "unreachable"),
        (wrapped(StateError("57014")), "busy"),
        (wrapped(StateError("22000")), "failed"),
        (wrapped(Exception(1146, "no such table")), "missing"),
        (wrapped(Exception(1045, "denied")), "denied"),
        (wrapped(Exception(1290, "--read-only")), "read_only"),
        (wrapped(Exception(1205, "lock wait")), "busy"),
        (wrapped(Exception(2013, "lost")), "unreachable"),
        (wrapped(Exception(1053, "shutdown")), "unreachable"),
        (wrapped(Exception(4031, "inactive")), "unreachable"),
        (wrapped(Exception(9999, "?")), "failed"),
        (wrapped(Exception("closed"), lost=True), "unreachable"),
        (wrapped(OSError(111, "refused")), "unreachable"),
        (ConnectionResetError(104, "reset"), "unreachable"),
        (TimeoutError("no answer"), "unreachable"),
        (PoolTimeoutError("QueuePool limit"), "unreachable"),
        (InterfaceError("SELECT 1", {}, Exception("?")), "failed"),
    ],
)
def test_it_says_what_is_wrong(error: BaseException, problem: str) -> None:
    """By what the server, the driver or the network said; and what to do about it."""
    told = server_error("db (phyxius_*)", error)
    assert told.problem == problem
    assert str(told).startswith(f"db (phyxius_*): {_PROBLEMS[problem]} (")  # type: ignore[index]
    assert "hunter2" not in str(told)


def test_what_may_hold_the_values_of_a_row_is_left_out() -> None:
    """Only the first line is told: PostgreSQL shows the row in those that follow."""
    told = server_error("db", wrapped(StateError("23505", "duplicate key\nDETAIL: Key (note)=(hunter2) exists")))
    assert told.detail == "StateError: duplicate key"
    assert server_error("db", wrapped(Exception())).detail == "Exception: "

    class InvalidPasswordError(Exception):
        """As asyncpg calls it."""

    refused = InvalidPasswordError('password authentication failed for user "app"')
    assert server_error("db", refused).detail == f"InvalidPasswordError: {refused}"


def test_it_can_be_sent_to_another_process() -> None:
    """As every exception of ours."""
    error = pickle.loads(pickle.dumps(ServerStoreError("db", "busy", "why")))
    assert (error.place, error.problem, error.detail) == ("db", "busy", "why")
    assert str(ServerStoreError("db", "not_open")).endswith("with opened(stores):`")


@pytest.mark.parametrize(
    "error,conflict,lost",
    [
        (wrapped(StateError("40001")), True, False),
        (translated("40P01"), True, False),
        (wrapped(StateError("40003")), False, False),
        (wrapped(Exception(1020, "changed")), True, False),
        (wrapped(Exception(1213, "deadlock")), True, False),
        (wrapped(Exception(1205, "lock wait")), False, False),
        (wrapped(Exception(2013, "lost"), lost=True), False, True),
        (ConnectionResetError(), False, True),
        (TimeoutError(), False, False),
    ],
)
def test_what_may_be_tried_again(error: Any, conflict: bool, lost: bool) -> None:
    """The server rolled it back for another's sake; or nothing more will be heard of it."""
    assert (is_conflict(error), is_lost(error)) == (conflict, lost)
