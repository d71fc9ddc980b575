"""The Django project of the docs: what its page says at the prompt is what really comes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.programs import Program
from tests.source import ROOT

PAGE = ROOT / "docs" / "how-to" / "use-it-with-django.md"
PYTHON = [sys.executable, "-W", "error"]
SERVER = "python manage.py runserver --noreload"
PROMPT = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:[^$`].*\n)*)", re.MULTILINE)

ASGI = """
import asyncio, os
from asgiref.testing import ApplicationCommunicator
from shop.asgi import application

async def get(path):
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")], "query_string": b""}
    request = ApplicationCommunicator(application, scope)
    await request.send_input({"type": "http.request"})
    start, body = await request.receive_output(30), await request.receive_output(30)
    await request.wait(30)
    return start["status"], body["body"].decode()

async def main():
    answers = await asyncio.gather(*(get(path) for path in ["/quotes/7", "/async/quotes/7"] * 5))
    print(*sorted(set(answers)), flush=True)

async def serve():
    lifespan = ApplicationCommunicator(application, {"type": "lifespan"})
    await lifespan.send_input({"type": "lifespan.startup"})
    print(await lifespan.receive_output(30))
    await main()
    await lifespan.send_input({"type": "lifespan.shutdown"})
    print(await lifespan.receive_output(30), flush=True)
    await lifespan.wait(30)

asyncio.run(serve())
os._exit(0)
"""
FORKED = """
import os, sys
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
application = get_wsgi_application()
ended = []
for _ in range(2):
    if not (child := os.fork()):
        answer = application(RequestFactory(SERVER_NAME="localhost").get("/quotes/7").environ, lambda *_: None)
        assert answer.content == b"quote 7 for Ada\\n", answer.content
        answer.close()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
"""


class Site:
    """A copy of the project, at which commands are run as at a prompt."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(PAGE.parent / "django", directory, ignore=shutil.ignore_patterns("__pycache__"))
        self._server: Program | None = None
        self.address = ""

    def run(self, command: str) -> tuple[int, str]:
        """What it prints, and how it ends."""
        if command == SERVER:
            return 0, self.serve()
        program, *args = command.split()
        if program == "curl":
            data = args[1].encode() if args[0] == "-d" else None
            return 0, self.fetch(args[-1].partition("/")[2], data)
        assert command.startswith("python manage.py ")
        return self.python(*args)

    def python(self, *args: str) -> tuple[int, str]:
        done = subprocess.run([*PYTHON, *args], cwd=self.directory, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def serve(self) -> str:
        """Start it, at whatever port is free."""
        self._server = Program([*PYTHON[1:], *SERVER.split()[1:], "127.0.0.1:0"], self.directory, {})
        self.address = self._server.wait_for(r"http://[\d.:]+/")[0]
        return ""

    def fetch(self, path: str, data: bytes | None = None) -> str:
        with urlopen(self.address + path, data, timeout=30) as answer:
            return str(answer.read(), "utf-8")

    def recorders(self) -> set[Any]:
        """Of those that recorded requests, whether they have closed, and whether they declare the old path."""
        declares = "EXISTS (SELECT 1 FROM declarations WHERE recorder = id AND name = 'quote.read_old')"
        return self.rows(f"SELECT closed, {declares} FROM recorders WHERE NOT audit_only", "phases.db")

    def rows(self, query: str, file: str) -> set[Any]:
        with closing(sqlite3.connect(self.directory / file)) as connection:
            return set(connection.execute(query))

    def stop(self) -> int | None:
        """Press Ctrl-C."""
        if self._server is None:
            return None
        server, self._server = self._server, None
        try:
            return server.end(signal.SIGINT)
        finally:
            server.kill()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    yield site
    site.stop()


def agrees(said: str, printed: str) -> bool:
    """Whether it is as the page says; that may break off with three dots."""
    start, dots, _ = said.partition("...\n")
    return printed.startswith(start) if dots else printed == said


def test_the_page_tells_what_comes(site: Site) -> None:
    """Each command that it shows is run, in order."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    shown = [found for block in blocks for found in PROMPT.finditer(block)]
    assert len(shown) == 14
    for found in shown:
        code, printed = site.run(found["command"])
        assert agrees(found["output"], printed), f"$ {found['command']}\n{printed}"
        assert code == found["output"].startswith("CommandError")
    assert site.fetch("quotes/9", b"customer=Eve") == "sales document 9 for Eve\n"
    assert site.stop() == 0
    assert site.rows("SELECT number, customer FROM billing_quote", "shop.db") == {(7, "Ada"), (8, "Bob"), (9, "Eve")}
    assert site.recorders() == {(1, 1)}


def test_the_page_has_the_project(site: Site) -> None:
    """What it includes is there, and the models and their migrations agree."""
    included = re.findall(r"literalinclude\} (\S+)", PAGE.read_text(encoding="utf-8"))
    assert len(included) == 6
    assert all((PAGE.parent / each).is_file() for each in included)
    assert site.python("manage.py", "makemigrations", "--check", "--dry-run", "-v0") == (0, "")


def test_how_the_command_ends(site: Site) -> None:
    """By its code a job knows a refusal from what it should be told of."""
    assert site.python("manage.py", "advance_quotes", "--to", "sideways")[0] == 2
    site.run("python manage.py migrate -v0")
    code, printed = site.run("python manage.py advance_quotes --to flip")
    assert code == 1
    assert printed == 'CommandError: "flip" is not the next phase after "expand"; that is "dual_write"\n'
    with (site.directory / "shop" / "settings.py").open("a") as settings:
        settings.write("DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/no/where.db'}}\n")
    code, printed = site.run("python manage.py advance_quotes --to dual_write")
    assert code == 2
    assert "default: OperationalError: unable to open database file" in printed
    with (site.directory / "shop" / "settings.py").open("a") as settings:
        settings.write("PHASES_FILE = '/no/where.db'\n")
    code, printed = site.run("python manage.py advance_quotes --to dual_write")
    assert code == 2
    assert "/no/where.db" in printed


def quote(site: Site) -> None:
    site.run("python manage.py migrate -v0")
    site.python("manage.py", "shell", "-v0", "-c", "from billing.quotes import write_old; write_old(7, 'Ada')")


def test_under_asgi(site: Site) -> None:
    """Sync and async views, many at once, on an event loop that stays; and it closes before a server kills itself."""
    quote(site)
    started, stopped = ({"type": f"lifespan.{each}.complete"} for each in ("startup", "shutdown"))
    code, printed = site.python("-c", ASGI)
    assert (code, printed) == (0, f"{started}\n{(200, 'quote 7 for Ada' + chr(10))}\n{stopped}\n")
    assert site.recorders() == {(1, 1)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_in_forked_workers(site: Site) -> None:
    """Each opens the stores for itself, and leaves them when it ends."""
    quote(site)
    assert site.python("-c", FORKED) == (0, "")
    assert site.recorders() == {(1, 1)}
    read_old = "SELECT count(*), count(DISTINCT recorder) FROM events WHERE name = 'quote.read_old'"
    assert site.rows(read_old, "phases.db") == {(2, 2)}
