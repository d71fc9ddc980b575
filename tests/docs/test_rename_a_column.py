"""The tutorial, done as it says: each command on the page is run, and has to print what the page says."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.support import commands, pattern_of
from tests.programs import PATIENCE, Program
from tests.servers import server
from tests.source import ROOT

PAGE = ROOT / "docs" / "tutorial" / "rename-a-column.md"
APPLICATION = PAGE.with_suffix("")
READY = {"uvicorn": "Application startup complete", "traffic.py": "Ctrl-C ends it"}
_numbers = itertools.count(1)


class Reader:
    """Somebody who does the tutorial, with a database of his own, and a copy of the files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "rename-a-column"
        ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
        shutil.copytree(APPLICATION, self.directory, ignore=ignored)
        self.postgresql = server("postgresql")
        self.jobs: list[Program] = []
        (self.database, url), (_, test_url) = self.new_database(), self.new_database()
        self.env = {"DATABASE_URL": url, "TEST_DATABASE_URL": test_url, "SHOP_DAY": "1"}
        with socket.socket() as free:  # the page says 8000
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])

    def new_database(self) -> tuple[str, str]:
        name = f"tutorial_{os.getpid()}_{next(_numbers)}"
        self.postgresql.run(f"CREATE DATABASE {name}")
        return name, self.postgresql.url().replace("/postgres?", f"/{name}?")

    def sql(self, sql: str) -> list[list[str]]:
        command = [
            self.postgresql.binary("psql"),
            "-X",
            "-q",
            "-A",
            "-t",
            "-h",
            str(Path(self.postgresql.socket).parent),
        ]
        done = subprocess.run(
            [*command, "-U", "postgres", self.database, "-c", sql], capture_output=True, text=True, check=True
        )
        return [line.split("|") for line in done.stdout.splitlines()]

    def types(self, command: str) -> str:
        """Run one command of the page, and return what it prints."""
        words = command.replace("8000", self._port).replace("localhost", "127.0.0.1").split()
        if words[0] == "kill":
            job = self.jobs[int(words[1].removeprefix("%")) - 1]
            job.end()
            return job.output.partition("Ctrl-C ends it\n")[2]
        if words[0] in ("pytest", "alembic", "uvicorn"):
            words.insert(0, "-m")
        if words[0] == "python":
            del words[0]
        if words[-1] == "&":
            job = Program(words[:-1], self.directory, self.env)
            self.jobs.append(job)
            job.wait_for(next(READY[word] for word in words if word in READY))
            return "" if "uvicorn" in words else job.output
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.directory,
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
            timeout=5 * PATIENCE,
        )
        assert done.returncode in (0, 1, 75), done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path)
    yield found
    for job in found.jobs:
        job.kill()


def do_all(reader: Reader, page: str) -> str:
    """Do what a page says, and compare what comes; what the users have been answered."""
    told = ""
    for command, output in commands(page):
        if command == "kill %1":
            columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'customers' ORDER BY 1"
            assert reader.sql(columns) == [["full_name"], ["id"]]
            assert reader.sql("SELECT DISTINCT phase FROM phyxius_migrations") == [["drop"]]
            rows = [(int(n), name) for n, name in reader.sql("SELECT id, full_name FROM customers ORDER BY id")]
            assert told.rsplit(maxsplit=1)[-1] == hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
            assert f"\n{len(rows)} customers" in told
        printed = reader.types(command)
        assert re.fullmatch(pattern_of(output), printed), f"{command} printed:\n{printed}\nThe page says:\n{output}"
        if command == "kill %2":
            told = printed
    assert reader.sql("SELECT count(*) FROM customers") == [[str(len(rows))]], "the tests have a database of their own"
    assert reader.types("python manage.py backfill").startswith("the phase is drop: names are copied in dual_write")
    return told


def test_all_of_it(reader: Reader) -> None:
    """No request fails, no customer is lost or called otherwise, and the old column is gone."""
    assert int(do_all(reader, PAGE.read_text(encoding="utf-8")).split()[0]) > 200


@pytest.mark.prove
def test_all_of_it_under_load(reader: Reader) -> None:
    """The same with many more customers and users, and days that last three seconds."""
    reader.env["SHOP_DAY"] = "3"
    page = PAGE.read_text(encoding="utf-8")
    page = page.replace(
        "traffic.py http://localhost:8000", "traffic.py http://localhost:8000 --users 10 --customers 2000"
    )
    told = do_all(reader, page.replace("\n200 customers;", "\n2000 customers;"))
    assert int(told.split()[0]) > 10_000


def test_the_page_shows_each_file() -> None:
    """What the reader is told to run he can read."""
    page = PAGE.read_text(encoding="utf-8")
    shown = set(re.findall(r"\{literalinclude\} rename-a-column/(\S+)", page))
    files: set[str] = {str(path.relative_to(APPLICATION)) for path in APPLICATION.rglob("*.py")}
    assert files - shown == {"migrations/env.py", "traffic.py"}
    assert shown <= files
