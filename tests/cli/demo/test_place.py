"""Where the demonstration has its files: what it keeps is told so that it can be pasted, and nothing is left behind."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from phyxius.cli._demo._place import place
from phyxius.cli._exits import Exit
from phyxius.cli._screen import Screen
from tests.cli.support import Ended, phyxius


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def screen() -> Screen:
    return Screen.of(sys.stdout, sys.stderr)


def left(parent: Path, name: str) -> Path:
    """What a demonstration has left that was killed."""
    directory = parent / f"phyxius-demo-{name}"
    directory.mkdir()
    for file in ("owned.lock", "shop.db"):
        (directory / file).touch()
    return directory


@pytest.mark.parametrize("kind", ["a file", "a directory that is not empty"])
def test_it_overwrites_nothing(kind: str, tmp_path: Path) -> None:
    """What is there already stays."""
    there = tmp_path / "there"
    if kind == "a file":
        there.write_text("mine")
    else:
        there.mkdir()
        (there / "mine").touch()
    told = f"phyxius: {there} is there already; name a new directory, or an empty one\n"
    assert phyxius("demo", "--keep", str(there)) == Ended(Exit.USAGE, "", told)


def test_an_error_names_an_option_that_it_has(tmp_path: Path) -> None:
    """A directory that cannot be made; --traceback shows where, as it says."""
    (tmp_path / "file").touch()
    ended = phyxius("demo", "--keep", str(tmp_path / "file" / "kept"))
    assert ended.exit == Exit.BROKEN
    assert ended.err.endswith("; --traceback shows where\n")
    ended = phyxius("demo", "--traceback", "--keep", str(tmp_path / "file" / "kept"))
    assert "in _kept" in ended.err


@pytest.mark.parametrize("installed", [True, False])
def test_what_it_keeps_is_told_as_a_command(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is in its name, however narrow the screen, and whether the command is on the path of programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "40")
    if installed:
        (tmp_path / "phyxius").touch(0o755)
    with place(screen(), Path("it's kept")) as directory:
        assert directory == tmp_path / "it's kept"
    quoted = f"'{tmp_path}/it'\"'\"'s kept'"
    *_, told, command = capsys.readouterr().out.splitlines()
    assert told.startswith(f"kept      {quoted}")
    assert command.strip() == f"cd {quoted} && {'phyxius' if installed else f'{sys.executable} -m phyxius_cli'} status"


def test_what_is_left_half_done_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As nobody knows then what is in there."""
    kept = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt), place(screen(), kept):
        raise KeyboardInterrupt
    assert kept.exists()
    told = f"note: {kept} holds what the demonstration wrote until it broke off; it may be deleted\n"
    assert capsys.readouterr() == ("", told)


def test_what_nobody_keeps_is_removed(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody has to clean up, and it is told how to have the files."""
    with place(screen(), None) as directory:
        (directory / "shop.db").touch()
    assert list(temporary.iterdir()) == []
    assert "with --keep DIRECTORY they stay" in capsys.readouterr().out


def test_what_one_left_that_was_killed_is_removed(temporary: Path) -> None:
    """By the next one: what another one holds that still runs stays, and what is no demonstration's."""
    orphan = left(temporary, "orphan")
    with place(screen(), None) as first, place(screen(), None) as second:
        assert not orphan.exists()
        assert first.exists()
        assert second.exists()
        mine = left(temporary, "mine")
        (mine / "owned.lock").rename(mine / "elsewhere")
        linked = left(temporary, "linked")
        (linked / "owned.lock").unlink()
        (linked / "owned.lock").symlink_to(mine / "elsewhere")
        with (left(temporary, "running") / "owned.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with place(screen(), None):
                pass
        assert mine.exists()
        assert linked.exists()
        assert Path(lock.name).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_another_user_left_stays(temporary: Path) -> None:
    """Whoever may write to it may have put anything there."""
    foreign = left(temporary, "foreign")
    os.chown(foreign, 65534, 65534)
    with place(screen(), None):
        assert foreign.exists()


def test_without_locks_nothing_is_removed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has none of that kind."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    orphan = left(temporary, "orphan")
    with place(screen(), None) as directory:
        assert not (directory / "owned.lock").exists()
    assert orphan.exists()
