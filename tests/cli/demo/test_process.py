"""The process of the demonstration's shop: what becomes of it is told, and none is left behind."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from phyxius.cli._demo import _process
from phyxius.cli._demo._process import Process
from phyxius.cli._exits import CommandError, Terminated

SHOP = """
import contextlib
from types import SimpleNamespace

DURABLE = []


class Stores:
    async def __aenter__(self):
        {entering}

    async def __aexit__(self, *_):
        {leaving}

    @contextlib.asynccontextmanager
    async def recorder(self, *_, **__):
        yield None


async def elapse(duration):
    pass

stores, journal, clock = Stores(), None, SimpleNamespace(elapse=elapse)
"""


SAYS = """
import sys

COPY = ""


def sql(*_, **__):
    sys.stdout.write('{"number": 1}\\n{"number": 2}\\n')  # in one piece, so that the second is there with the first
    sys.stdout.flush()
"""


def shop(directory: Path, *, entering: str = "pass", leaving: str = "pass") -> None:
    (directory / "shop.py").write_text(SHOP.format(entering=entering, leaving=leaving), encoding="utf-8")


def test_one_that_does_not_begin_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With its exit code; its own traceback is on stderr."""
    shop(tmp_path, entering="raise OSError('no disk')")
    with pytest.raises(CommandError, match="shop-1 ended by itself, with 1"):
        Process(tmp_path, "shop-1")
    assert "no disk" in capfd.readouterr().err


def test_one_that_says_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without end."""
    shop(tmp_path, entering="await __import__('asyncio').Event().wait()")
    monkeypatch.setattr(_process, "_PATIENCE", 0.01)
    with pytest.raises(CommandError, match="shop-1 says nothing for 0 seconds"):
        Process(tmp_path, "shop-1")


def test_one_that_is_gone_is_told(tmp_path: Path) -> None:
    """Whoever asks it anything hears so."""
    shop(tmp_path)
    process = Process(tmp_path, "shop-1")
    assert process.is_running
    process.kill(pytest.fail)
    assert not process.is_running
    process = Process(tmp_path, "shop-2")
    process._process.kill()
    process._process.wait()
    with pytest.raises(CommandError, match="shop-2 is gone, with -9"):
        process.send(elapse=1)
    process.discard()


@pytest.mark.parametrize("sent, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupt_while_it_starts_leaves_none(
    sent: signal.Signals, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even at the moment when it is there and nobody knows it yet."""
    shop(tmp_path)
    started: list[subprocess.Popen[str]] = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            signal.raise_signal(sent)

    def terminate(*_: object) -> None:
        raise Terminated

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(raised):
            Process(tmp_path, "shop-1")
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)
    [process] = started
    assert process.poll() == -signal.SIGKILL


def test_what_it_had_said_is_heard(tmp_path: Path) -> None:
    """An answer that was on its way when it was killed has been given."""
    shop(tmp_path)
    with (tmp_path / "shop.py").open("a", encoding="utf-8") as file:
        file.write(SAYS)
    process = Process(tmp_path, "shop-1")
    process.send(copy=[0, 1])
    assert process.receive() == {"number": 1}
    heard: list[object] = []
    process.kill(heard.append)
    assert heard[0] == {"number": 2}


def test_one_that_does_not_end_in_order_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error, or not at all."""
    shop(tmp_path, leaving="raise OSError('no disk')")
    process = Process(tmp_path, "shop-1")
    with pytest.raises(CommandError, match="shop-1 ended with 1"):
        process.end()
    assert "no disk" in capfd.readouterr().err
    shop(tmp_path, leaving="await __import__('asyncio').Event().wait()")
    process = Process(tmp_path, "shop-2")
    monkeypatch.setattr(_process, "_PATIENCE", 0.01)
    with pytest.raises(CommandError, match="shop-2 does not end"):
        process.end()
    assert not process.is_running
