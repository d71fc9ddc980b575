"""The FastAPI application of the docs, served by uvicorn on the loopback, from one phase to the next."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.support import HOW_TO, calls, make_stores, recorders
from tests.programs import Program, running


class Client:
    """Sends requests to one address."""

    def __init__(self, url: str, program: Program) -> None:
        self._url = url
        self.program = program

    def __call__(self, method: str, path: str, **headers: str) -> tuple[int, Any, str]:
        """The status, the body and the id of the answer."""
        request = urllib.request.Request(f"{self._url}{path}", method=method, headers=headers)
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            return answer.status, json.load(answer), answer.headers["x-request-id"]


@contextmanager
def served(path: Path) -> Iterator[Client]:
    with running(
        ["-m", "uvicorn", "shop:app", "--port", "0"], HOW_TO / "fastapi", {"MIGRATIONS": str(path)}
    ) as program:
        yield Client(program.wait_for(r"running on (http://\S+)")[1], program)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "migrations.db"
    make_stores(found)
    return found


def test_requests_follow_the_phase(path: Path) -> None:
    """Each runs under the phase of its moment, and is recorded with that, and with its id."""
    with served(path) as ask:
        assert ask("PUT", "/quotes/1?total=19", **{"x-request-id": "4f2a"}) == (200, None, "4f2a")
        assert ask("POST", "/migration/dual_write")[:2] == (200, {"phase": "dual_write"})
        status, _, correlation_id = ask("PUT", "/quotes/2?total=23")
        assert status == 200
        assert len(correlation_id) == 32
        assert ask("GET", "/quotes/2")[1] == {"total": 23}
        assert ask("GET", "/report")[1] == {"total": 42}
        status, answer, _ = ask("POST", "/migration/flip")
        assert status == 409
        assert answer["refused"].startswith('cannot enter "flip": copied: 1 quotes are not copied; POST /copy; nobody_')
        assert ask("POST", "/copy")[1] == {"copied": 2}
        answer = ask("POST", "/migration/flip")[1]
        assert answer["refused"].startswith('cannot enter "flip": nobody_writes_old_only: saw 1 event, recorded by ')
        assert ask("POST", "/migration/flpi")[0] == 422
        assert ask.program.end() == -15, ask.program.output
    assert calls(path, "quote.save") == [("expand", "success", "4f2a"), ("dual_write", "success", correlation_id)]
    ((name, closed),) = recorders(path)
    assert (name[:4], closed) == ("api-", 1)


def test_the_flip(path: Path) -> None:
    """Where nobody has written under the first phase it is entered, and reads go to the new table."""
    with served(path) as ask:
        for phase in ("dual_write", "flip"):
            assert ask("POST", f"/migration/{phase}")[:2] == (200, {"phase": phase})
        ask("PUT", "/quotes/1?total=19")
        assert ask("GET", "/quotes/1")[1] == ask("GET", "/report")[1] == {"total": 19}
        assert ask("POST", "/migration/flip")[0] == 409


def test_a_killed_worker_hides_nothing(path: Path) -> None:
    """What it recorded durably is known; another process finds the phase where it was."""
    with served(path) as ask:
        ask("POST", "/migration/dual_write")
        ask("PUT", "/quotes/1?total=19")
        ask.program.kill()
    assert recorders(path)[0][1] == 0
    with served(path) as ask:
        assert ask("POST", "/migration/dual_write")[1]["refused"].startswith('the migration is at "dual_write" already')
