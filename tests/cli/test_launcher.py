"""What the command takes: help, options, completion, and what it says where something is not installed."""

from __future__ import annotations

import contextlib
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import phyxius as phyxius_package
import phyxius_cli
from phyxius.cli._exits import Exit
from phyxius.fp import ok
from phyxius.migration import attestation, schema_applied
from tests.cli.support import HOSTILE, Ended, Shop, environment, in_memory, interrupt_main, phyxius, piped

COMMANDS = ["status", "check", "advance", "history", "sign", "revoke", "signatures", "amend", "prune", "diagram"]
COMMON = ["--app MODULE:NAME", "--json", "--create", "--traceback"]
OPTIONS = {
    "status": ["[NAMES]..."],
    "check": ["NAME", "--watch", "--every DURATION"],
    "advance": ["NAME", "--to PHASE", "--yes", "--quiet"],
    "history": ["NAME", "--since DURATION", "--all"],
    "sign": ["NAME", "--to PHASE", "--source TEXT", "--as WHO", "--note TEXT", "--valid-for DURATION"],
    "revoke": ["NAME", "--to PHASE", "--source TEXT", "--signer WHO", "--by WHO", "--note TEXT"],
    "signatures": ["NAME", "--to PHASE", "--source TEXT"],
    "amend": ["NAME", "--why TEXT", "--who TEXT", "--yes"],
    "prune": ["--older-than DURATION", "--yes"],
    "diagram": ["NAME", "--unmarked"],
}


def test_help(shop: Shop) -> None:
    """Every command and every exit code is told, and where migrations are found."""
    ended = phyxius("--help")
    assert (ended.exit, ended.err) == (0, "")
    assert phyxius("-h") == ended
    assert [line.split()[0] for line in ended.out.partition("Commands:")[2].splitlines() if line.strip()][
        : len(COMMANDS)
    ] == COMMANDS
    assert {int(code) for code in re.findall(r"^    (\d+) ", ended.out, re.MULTILINE)} | {143} == set(Exit)
    assert "(143: terminated)" in ended.out
    for way in ("--app", "PHYXIUS_APP", "[tool.phyxius]", 'app = "shop.migrations:migration"'):
        assert way in ended.out
    assert all(len(line) <= 100 for line in ended.out.splitlines())


def test_help_where_the_process_matters(tmp_path: Path) -> None:
    """As a program of its own it says the same, on a narrow terminal too."""
    ended = piped(["-m", "phyxius_cli", "--help"], tmp_path)
    assert (ended.exit, ended.err) == (0, "")
    assert ended.out == phyxius("--help").out
    assert "Usage: phyxius [OPTIONS] COMMAND" in ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(shop: Shop, command: str) -> None:
    """Each of its options is told, with what it is for."""
    ended = phyxius(command, "--help")
    assert (ended.exit, ended.err) == (0, "")
    told = " ".join(ended.out.split())
    for option in (*OPTIONS[command], *COMMON):
        assert option in told
    options = {option for each in phyxius_cli.main.commands[command].params for option in each.opts if "--" in option}
    assert {each.split()[0] for each in (*OPTIONS[command], *COMMON) if each.startswith("--")} == options
    assert "Exit codes: `phyxius --help` tells them." in told


def test_nothing_is_help_too() -> None:
    """Whoever gives nothing learns what there is to give."""
    ended = phyxius()
    assert ended.exit in (0, 2), "click before 8.2 takes it for --help"
    assert "Commands:" in ended.err + ended.out


def test_its_version() -> None:
    """The version of the package."""
    assert phyxius("--version").out == f"phyxius, version {version('phyxius-migration')}\n"


@pytest.mark.parametrize(
    "args, told",
    [
        (["advanse"], "No such command 'advanse'"),
        (["check"], "Missing argument 'NAME'"),
        (["--json", "status"], "--json goes after the command, as in: phyxius status --json"),
        (["--app", "shop:app", "status"], "--app goes after the command"),
        (["--wach", "status"], "No such option '--wach'"),
        (["check", "quotes", "--wach"], "No such option '--wach'"),
        (["status", "--app"], "Option '--app' requires an argument"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
    ids=range(8),
)
def test_wrong_usage(shop: Shop, args: list[str], told: str) -> None:
    """Wrong usage ends with 2, and says what is wrong."""
    ended = phyxius(*args)
    assert (ended.exit, ended.out) == (2, "")
    assert told in ended.err.replace("No such option: --wach", "No such option '--wach'")


@pytest.mark.parametrize(
    "given", ["", "x", "5", "5y", "d", "-5d", "0s", "nand", "infd", "1e99d", "36501d", "5 d x", "1_0d", "9999999999d"]
)
def test_what_is_no_duration(shop: Shop, given: str) -> None:
    """It says how one is written, or that none is so long."""
    ended = phyxius("prune", f"--older-than={given}")
    assert ended.exit == 2
    assert "Invalid value for '--older-than'" in ended.err
    assert re.search("write 90s, 15m, 36h, 14d or 2w|more than nothing|a century", ended.err)


@pytest.mark.parametrize(
    "given, seconds",
    [
        ("90s", 90),
        ("15m", 900),
        ("36h", 129_600),
        ("14d", 1_209_600),
        ("2w", 1_209_600),
        ("0.5d", 43_200),
        (".5d", 43_200),
    ],
)
def test_a_duration(given: str, seconds: float) -> None:
    """In seconds, minutes, hours, days or weeks."""
    duration = phyxius_cli.DURATION.convert(given, None, None)
    assert duration.total_seconds() == seconds
    assert phyxius_cli.DURATION.convert(duration, None, None) == duration


# -- what is imported


def test_help_imports_little(tmp_path: Path) -> None:
    """Nothing of this library, and nothing that draws or asks databases: it is there at once."""
    code = "import sys, phyxius_cli; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(piped(["-c", code], tmp_path).out.split())
    assert "phyxius_cli" in loaded
    assert not loaded & {"phyxius", "rich", "sqlalchemy", "attr", "sqlite3", "asyncio"}


WITHOUT = """
import sys
class Without:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without)
sys.argv = ["phyxius", *{args!r}]
import runpy
runpy.run_module("phyxius_cli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_an_extra_that_is_not_installed(tmp_path: Path, missing: str) -> None:
    """It says how to install it."""
    code = WITHOUT.format(missing=missing, args=["status", "--app", "a:b"])
    ended = piped(["-c", code], tmp_path)
    told = "phyxius: the command needs its extra: pip install 'phyxius-migration[cli]'\n"
    assert (ended.exit, ended.out, ended.err) == (1, "", told)


class Raising:
    """An import system that raises at a module."""

    def __init__(self, at: str, error: BaseException) -> None:
        self._at, self._error = at, error

    def find_spec(self, name: str, *_: object) -> None:
        if name == self._at:
            raise self._error


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    """Has the import of a module raise."""

    def raises(at: str, error: BaseException) -> None:
        monkeypatch.delitem(sys.modules, at, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Raising(at, error), *sys.meta_path])

    return raises


@pytest.fixture
def without(importing: Callable[[str, BaseException], None]) -> Callable[[str], None]:
    """Has what the command imports lack something."""
    return lambda missing: importing("phyxius.cli", ModuleNotFoundError(f"No module named {missing!r}", name=missing))


def test_what_it_says_of_what_is_missing(shop: Shop, without: Callable[[str], None]) -> None:
    """Its own extra, and nothing else, is told as that."""
    without("rich")
    with pytest.raises(SystemExit, match=r"pip install 'phyxius-migration\[cli\]'"):
        phyxius_cli.main.main(["status"])
    without("attrs")
    with pytest.raises(ModuleNotFoundError, match="attrs"):
        phyxius_cli.main.main(["status"])


def test_an_interrupt_before_it_begins(shop: Shop, importing: Callable[[str, BaseException], None]) -> None:
    """While its own parts are imported."""
    importing("phyxius.cli", KeyboardInterrupt())
    assert phyxius("status") == Ended(130, "", "phyxius: interrupted; nothing is torn\n")


def test_an_interrupt_that_an_import_swallows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """As what is raised in a callback of an import is; it is told all the same, and nothing is done."""

    class Swallowing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "phyxius.cli":
                with contextlib.suppress(KeyboardInterrupt):
                    interrupt_main()

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(phyxius_package, "cli", sys.modules["phyxius.cli"])  # another one is imported, and goes again
    monkeypatch.delitem(sys.modules, "phyxius.cli")
    monkeypatch.setattr(sys, "meta_path", [Swallowing(), *sys.meta_path])
    assert phyxius("status") == Ended(130, "", "phyxius: interrupted; nothing is torn\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_who_calls_it_in_a_thread_keeps_the_signals(shop: Shop) -> None:
    """There it cannot take them."""
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=phyxius_cli._leave_at_once, args=[0])
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before


def test_what_it_says_without_click(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it cannot even say what it takes."""
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match=r"pip install 'phyxius-migration\[cli\]'"):
        runpy.run_path(phyxius_cli.__file__, run_name="__main__")


def test_an_interrupt_before_anything(importing: Callable[[str, BaseException], None]) -> None:
    """There is no traceback of what was never begun."""
    importing("click", KeyboardInterrupt())
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(phyxius_cli.__file__, run_name="__main__")
    assert ended.value.code == 130


def test_it_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As `python -m phyxius_cli`; by its path, since pytest has a finder of its own for installed modules."""
    monkeypatch.setattr(sys, "argv", ["somewhere/phyxius_cli.py", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(phyxius_cli.__file__, run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("phyxius, version ")


def test_help_without_what_draws(tmp_path: Path) -> None:
    """It needs no more than click."""
    assert piped(["-c", WITHOUT.format(missing="rich", args=["--help"])], tmp_path).exit == 0


def test_another_module_that_is_missing(tmp_path: Path) -> None:
    """That is no matter of the extra, and is not told as one."""
    ended = piped(["-c", WITHOUT.format(missing="tomllib", args=["status"])], tmp_path)
    assert ended.exit == 1
    assert "ModuleNotFoundError" in ended.err
    assert "phyxius-migration[cli]" not in ended.err


# -- completion


@pytest.fixture
def completing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An application with names to complete."""
    shop.has(
        [
            in_memory(
                "quotes",
                expand={},
                flip={"copied": schema_applied(lambda: ok(1)), "parity": attestation(lambda: ok(1))},
            ),
            in_memory("orders", old={}, new={}),
        ]
    )
    monkeypatch.setenv("_PHYXIUS_COMPLETE", "bash_complete")
    return shop


def completed(monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    """What bash is offered for the last of some words."""
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    ended = phyxius()
    assert (ended.exit, ended.err) == (0, "")
    return [line.partition(",")[2] for line in ended.out.splitlines() if line]


@pytest.mark.parametrize(
    "words, offered",
    [
        ("phyxius ", [*COMMANDS, "demo", "completion"]),
        ("phyxius s", ["status", "sign", "signatures"]),
        ("phyxius check ", ["quotes", "orders"]),
        ("phyxius check q", ["quotes"]),
        ("phyxius status quotes o", ["orders"]),
        ("phyxius advance quotes --to ", ["expand", "flip"]),
        ("phyxius advance orders --to n", ["new"]),
        ("phyxius sign quotes --to flip --source ", ["parity"]),
        ("phyxius sign orders --to new --source ", []),
        ("phyxius advance nothing --to ", []),
        ("phyxius advance --to ", []),
        ("phyxius check --app shop:other ", ["flour"]),
        ("phyxius check --app nowhere:app ", []),
        ("phyxius completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_completion(completing: Shop, monkeypatch: pytest.MonkeyPatch, words: str, offered: list[str]) -> None:
    """Commands, migrations, and phases and sources of the one that is named; nothing where there is nothing."""
    vars(sys.modules["shop"])["other"] = in_memory("flour")
    assert completed(monkeypatch, words)[: len(offered) or None] == offered


@pytest.mark.parametrize("app", [7, in_memory, [in_memory(), "odd"], {"quotes": in_memory()}], ids=range(4))
def test_completion_opens_nothing(completing: Shop, monkeypatch: pytest.MonkeyPatch, app: object) -> None:
    """A factory is not called for it."""
    completing.has(app)
    assert completed(monkeypatch, "phyxius check ") == (["quotes"] if isinstance(app, list | dict) else [])


NOISY = """
import sys, warnings
print("loading")
print("loading", file=sys.stderr)
warnings.warn("old")
{more}
"""


@pytest.mark.parametrize(
    "more, offered",
    [("from tests.cli.support import in_memory\napp = in_memory()", ["quotes"]), ("1 / 0", []), ("sys.exit(3)", [])],
    ids=["right", "broken", "leaving"],
)
def test_completion_is_quiet(completing: Shop, monkeypatch: pytest.MonkeyPatch, more: str, offered: list[str]) -> None:
    """Somebody is in the middle of a line: what the application prints would land in it."""
    (completing.directory / "noisy.py").write_text(NOISY.format(more=more))
    try:
        assert completed(monkeypatch, "phyxius check --app noisy:app ") == offered
    finally:
        sys.modules.pop("noisy", None)


def test_completion_lacks_what_draws(
    completing: Shop, monkeypatch: pytest.MonkeyPatch, without: Callable[[str], None]
) -> None:
    """Nothing is offered."""
    without("rich")
    assert completed(monkeypatch, "phyxius check ") == []


def test_completion_without_what_draws(tmp_path: Path) -> None:
    """Nothing is offered, and no traceback lands in the line."""
    code = WITHOUT.format(missing="rich", args=[])
    words = {"COMP_WORDS": "phyxius check ", "COMP_CWORD": "2", "_PHYXIUS_COMPLETE": "bash_complete"}
    ended = piped(["-c", code], tmp_path, **words)
    assert (ended.exit, ended.out, ended.err) == (0, "\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each is a script of that shell, for this command."""
    ended = phyxius("completion", shell)
    assert (ended.exit, ended.err) == (0, "")
    assert f"_PHYXIUS_COMPLETE={shell}_complete" in ended.out
    assert "_phyxius_completion" in ended.out


def test_bash_takes_the_script(tmp_path: Path) -> None:
    """It can be sourced, and completes."""
    script = tmp_path / "phyxius.bash"
    script.write_text(phyxius("completion", "bash").out)
    check = f"source {script} && complete -p phyxius"
    done = subprocess.run(
        ["bash", "--norc", "-c", check], capture_output=True, text=True, check=False, env=environment(), timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "_phyxius_completion" in done.stdout


def test_hostile_names_are_completed_as_escapes(completing: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell prints what it is offered as it is."""
    completing.has([in_memory(HOSTILE), in_memory("$(date)"), in_memory("*"), in_memory("quotes")])
    offered = completed(monkeypatch, "phyxius check ")
    assert offered == ["quotes"]
