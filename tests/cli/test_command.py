"""One call of the command: what it lets an application do meanwhile, and what it says of errors."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phyxius.cli import run
from phyxius.cli._exits import CommandError, Exit
from phyxius.migration import SpecError, schema_applied
from tests.cli.support import (
    COMMAND,
    HOSTILE,
    PATIENCE,
    Ended,
    Shop,
    assert_tame,
    environment,
    failing,
    in_memory,
    interrupt_main,
    on_terminal,
    phyxius,
    piped,
)

STATUS = "quotes\n  phase  [expand] → flip\n  next   flip, which can be entered freely\n"


def test_an_application_that_prints(shop: Shop) -> None:
    """What it prints goes beside what was asked for, whenever it does."""

    @asynccontextmanager
    async def prints() -> AsyncIterator[Any]:
        sys.stdout.write("opening\n")
        yield in_memory()
        sys.stdout.write("closing\n")

    shop.has(prints)
    assert phyxius("status") == Ended(0, STATUS, "opening\nclosing\n")
    assert phyxius("status", "--json").told


def test_an_application_that_prints_at_import(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also then."""
    code = "print('loading')\nfrom tests.cli.support import in_memory\napp = in_memory()\n"
    (shop.directory / "loud.py").write_text(code)
    try:
        assert phyxius("status", "--app", "loud:app") == Ended(0, STATUS, "loading\n")
    finally:
        sys.modules.pop("loud", None)


def test_an_application_that_warns(shop: Shop) -> None:
    """Warnings are notes of one line, wherever they come from; none of them is an error here."""

    def factory() -> Any:
        warnings.warn(f"old{HOSTILE}", DeprecationWarning, stacklevel=1)
        warnings.warn("older", stacklevel=1)
        return in_memory()

    shop.has(factory)
    ended = phyxius("status")
    assert (ended.exit, ended.out) == (0, STATUS)
    assert ended.err.startswith("note: olda")
    assert ended.err.endswith("note: older\n")
    assert_tame(ended)
    with pytest.warns(UserWarning, match="later"):
        warnings.warn("later", stacklevel=1)


def test_a_warning_of_this_library(shop: Shop) -> None:
    """A phase in memory is at its first phase each time."""

    def factory() -> Any:
        from phyxius.clock import create_system_clock
        from phyxius.journal import Journal
        from phyxius.migration import create_migration

        return create_migration(in_memory().spec, journal=Journal(clock=create_system_clock()))

    shop.has(factory)
    ended = phyxius("status")
    assert ended.exit == 0
    assert ended.err.startswith('note: migration "quotes" keeps its phase in memory: it is lost at exit')


# -- errors


def raises(error: BaseException) -> Callable[[], Any]:
    """An application whose context raises."""

    @asynccontextmanager
    async def app() -> AsyncIterator[Any]:
        migration = in_memory()
        store: Any = migration.phase_store

        async def current() -> str:
            raise error

        store.current = current
        yield migration

    return app


class UntoldError(Exception):
    """One that cannot be told."""

    def __str__(self) -> str:
        raise TypeError("no")


@pytest.mark.parametrize(
    "error, told",
    [
        (OSError(2, "gone", "/etc/x"), "FileNotFoundError: [Errno 2] gone: '/etc/x'; --traceback shows where"),
        (RuntimeError(), "RuntimeError; --traceback shows where"),
        (RuntimeError("a\nb\r\n   c"), "RuntimeError: a b c; --traceback shows where"),
        (SpecError("it is odd", "quotes"), 'migration "quotes": it is odd'),
        (UntoldError(), "UntoldError: (a UntoldError that cannot be described); --traceback shows where"),
    ],
    ids=range(5),
)
def test_an_error(shop: Shop, error: Exception, told: str) -> None:
    """One line, and where it came from if somebody wants to know; as JSON, too."""
    shop.has(raises(error))
    code = 2 if isinstance(error, SpecError) else 1
    assert phyxius("diagram", "quotes") == Ended(code, "", f"phyxius: {told}\n")
    as_json = phyxius("diagram", "quotes", "--json")
    assert (as_json.exit, as_json.err) == (code, f"phyxius: {told}\n")
    message = told.removesuffix("; --traceback shows where")
    assert as_json.told == {"error": {"type": type(error).__name__, "message": message}}
    traced = phyxius("diagram", "quotes", "--traceback")
    assert traced.err.startswith("Traceback (most recent call last):\n")
    assert "test_command.py" in traced.err
    assert traced.err.endswith(f"\nphyxius: {told}\n")


def test_hostile_errors(shop: Shop) -> None:
    """Also where they came from is shown tame."""
    shop.has(raises(RuntimeError(HOSTILE)))
    for more in ((), ("--traceback",)):
        assert_tame(phyxius("diagram", "quotes", *more))
        assert_tame(on_terminal("status", *more, width=300))
    assert phyxius("diagram", "quotes", "--json").told


def test_errors_of_the_command() -> None:
    """They are their message, and end it as they say."""
    error = CommandError("no", Exit.USAGE)
    assert (str(error), error.exit) == ("no", 2)
    assert CommandError("no").exit is Exit.BROKEN


# -- interrupts, in this process


@pytest.mark.parametrize(
    "which, code, told",
    [(signal.SIGINT, 130, "interrupted; nothing is torn"), (signal.SIGTERM, 143, "terminated; nothing is torn")],
)
@pytest.mark.parametrize("moment", ["import", "factory", "async factory", "evidence", "watch"])
def test_an_interrupt(shop: Shop, which: signal.Signals, code: int, told: str, moment: str) -> None:
    """Whenever it comes, it is told in one line, and what was there before is there again."""
    sent = threading.Event()

    def interrupt() -> Any:
        sent.set()
        interrupt_main(which)
        if threading.current_thread() is threading.main_thread():
            threading.Event().wait()

    async def interrupt_and_wait() -> Any:
        interrupt()
        await asyncio.Event().wait()

    app: object = in_memory(expand={}, flip={"a": schema_applied(interrupt_and_wait)})
    app = interrupt if moment == "factory" else interrupt_and_wait if moment == "async factory" else app
    shop.has(app, interrupt=interrupt)
    (shop.directory / "slow.py").write_text("import shop\nshop.interrupt()\n")
    more = {"import": ["--app", "slow:app"], "watch": ["--watch"]}.get(moment, [])
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert phyxius("check", "quotes", *more) == Ended(code, "", f"phyxius: {told}\n")
    finally:
        sys.modules.pop("slow", None)
    assert sent.is_set()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_a_thread_of_another_program(shop: Shop) -> None:
    """Only the main thread is told of signals; elsewhere it works without."""
    shop.has(in_memory())
    codes: list[int] = []

    def call() -> None:
        options = {"app": "shop:app", "as_json": False, "traceback": False, "create": False}
        codes.append(run("status", names=(), **options))

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(60)
    assert codes == [0]
    assert signal.getsignal(signal.SIGTERM) is handler


# -- in a process of its own

APPLICATION = """
from phyxius import *

clock = create_controlled_clock()
spec = define_migration(name="quotes", phases={"expand": {}, "länger": {}})
app = create_migration(spec, journal=Journal(clock=clock))
"""
READ_IN_PART = """
from phyxius import *

clock = create_controlled_clock()
read = 0

@schema_applied
async def not_yet():
    global read
    read += 1
    return err("not yet") if read < 3 else err("still not") if read < 5 else ok(1)

phases = {"expand": {}, "flip": {"not_yet": not_yet}, "contract": {}}
app = create_migration(define_migration(name="quotes", phases=phases), journal=Journal(clock=clock))
"""


def unread(directory: Path, *args: str) -> tuple[int, str]:
    """Run the command with its output in a pipe that nobody reads; its exit code, and what it said beside that."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as out:  # noqa: PTH123 - it is no path
        done = subprocess.run(
            [sys.executable, *COMMAND, *args, "--app", "part:app"],
            cwd=directory,
            env=environment(),
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    return done.returncode, done.stderr


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_goes_away(tmp_path: Path, more: list[str]) -> None:
    """As `| head -1` does: what was asked for is done, with its own exit code; nobody is watched for."""
    (tmp_path / "part.py").write_text(READ_IN_PART)
    assert unread(tmp_path, "status", *more) == (0, "")
    assert unread(tmp_path, "advance", "quotes", "--to", "flip", *more) == (75, "")
    assert unread(tmp_path, "check", "quotes", "--watch", "--every", "100d", *more) == (75, "")


def test_a_reader_that_goes_away_from_this_process(shop: Shop) -> None:
    """The same here, where the channel is one of ours."""
    shop.has(in_memory(expand={}, flip={"no": schema_applied(failing())}))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as out, redirect_stdout(out):  # noqa: PTH123 - it is no path
        options = {"app": "shop:app", "as_json": False, "traceback": False, "create": False}
        assert run("check", name="quotes", watch=True, every=timedelta(days=100), **options) == 75


def test_a_pipe_of_the_application_that_breaks(shop: Shop) -> None:
    """That is an error as any other, and no reader that has gone."""
    shop.has(raises(BrokenPipeError(32, "the tunnel is gone")))
    told = "BrokenPipeError: [Errno 32] the tunnel is gone; --traceback shows where"
    assert phyxius("diagram", "quotes") == Ended(1, "", f"phyxius: {told}\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_an_encoding(tmp_path: Path, encoding: str) -> None:
    """What a channel cannot take is told otherwise, rather than not at all."""
    (tmp_path / "short.py").write_text(APPLICATION)
    ended = piped([*COMMAND, "status", "--app", "short:app"], tmp_path, PYTHONIOENCODING=encoding)
    shown = "[expand] → länger" if encoding == "utf-8" else r"[expand] > l\xe4nger"
    assert (ended.exit, ended.err) == (0, "")
    assert shown in ended.out


def test_where_the_closing_failed(shop: Shop) -> None:
    """With --traceback it is shown, after what was asked for."""

    @asynccontextmanager
    async def factory() -> AsyncIterator[Any]:
        yield in_memory()
        raise OSError("no disk")

    shop.has(factory)
    ended = phyxius("status", "--traceback")
    assert (ended.exit, ended.out) == (1, STATUS)
    assert "Traceback (most recent call last)" in ended.err
    assert "phyxius: the application could not be closed after that: OSError: no disk" in ended.err
