"""The `phyxius` command: what it takes. What it does is imported when it is done, so that `--help` is there at once.

It stands beside the package, since whatever is in the package imports all of the core first.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

_NEEDS_EXTRA = "phyxius: the command needs its extra: pip install 'phyxius-migration[cli]'"

try:
    import click
except ModuleNotFoundError:
    sys.exit(_NEEDS_EXTRA)
except KeyboardInterrupt:
    sys.exit(130)

F = TypeVar("F", bound=Callable[..., Any])

_EPILOG = """\b
Exit codes:
  0    done: advanced, ready, shown
  1    it could not be done: the application, a database or its permissions
  2    wrong usage
  3    already there: the migration is at that phase, or past it
  4    a source could not be judged: somebody should look
  5    another caller was first
  6    whether it moved is unknown: look with `phyxius status`
  7    the stores have another order of phases than this build
  75   refused: not safe yet, try again later
  130  interrupted (143: terminated); nothing is torn
"""


_CENTURY = timedelta(days=36_500)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Duration(click.ParamType):  # type: ignore[type-arg]  # newer ones have a parameter
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if not re.fullmatch(r"-?[0-9]*\.?[0-9]+[smhdw]", value):  # `float` takes more than people write, such as 1_0
            self.fail(f"{value!r} is no duration; write 90s, 15m, 36h, 14d or 2w", param, ctx)
        try:
            duration = timedelta(**{_UNITS[value[-1]]: float(value[:-1])})
        except OverflowError:
            duration = timedelta.max
        if duration <= timedelta(0):
            self.fail("a duration is more than nothing", param, ctx)
        if duration > _CENTURY:
            self.fail("a century is the most", param, ctx)
        return duration


DURATION = _Duration()


def _complete(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
        try:
            from phyxius.cli import complete
        except ModuleNotFoundError:
            return []
        # Where an option lacks the value that is typed, click has not told arguments from each other yet.
        name = ctx.params.get("name") or next(iter(ctx.args), None)
        return [each for each in complete(kind, ctx.params.get("app"), name) if each.startswith(incomplete)]

    return complete


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_traceback = click.option("--traceback", is_flag=True, help="Show where an error came from.")


def _common(function: F) -> F:
    """The options that every command has which works on an application."""
    for option in (
        _traceback,
        click.option(
            "--create", is_flag=True, help="Make the file or the tables of the stores, if they are not there."
        ),
        _json,
        click.option(
            "--app",
            metavar="MODULE:NAME",
            envvar="PHYXIUS_APP",
            help="Where the migrations are: a Migration, several, or a factory of them, plain or async."
            " Without it, app of [tool.phyxius] in pyproject.toml.",
        ),
    ):
        function = option(function)
    return function


def _name(function: F) -> F:
    return click.argument("name", shell_complete=_complete("names"))(function)


def _subject(*, required: bool) -> Callable[[F], F]:
    """The phase and the source that a signature is for."""

    def add(function: F) -> F:
        which = "The source of evidence; the only one that asks for signatures, unless given."
        source = click.option(
            "--source", shell_complete=_complete("sources"), help=which if required else "Only those for this source."
        )
        help_ = "The phase that the signature lets the migration enter." if required else "Only those for this phase."
        to = click.option("--to", required=required, metavar="PHASE", shell_complete=_complete("phases"), help=help_)
        return to(source(function))

    return add


def _run(command: str, **options: Any) -> None:
    came: list[int] = []

    def interrupt(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    try:
        if is_ours:  # each import runs callbacks, and what is raised there is dropped
            signal.signal(signal.SIGINT, interrupt)
        try:
            from phyxius.cli import run
        finally:
            if is_ours:
                signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt
    except ModuleNotFoundError as error:
        if error.name != "rich":
            raise
        sys.exit(_NEEDS_EXTRA)
    except KeyboardInterrupt:  # it has not begun, so there is nobody else to tell it
        click.echo("phyxius: interrupted; nothing is torn", err=True)
        sys.exit(130)
    code = run(command, **options)
    _leave_at_once(code)
    sys.exit(code)


def _leave_at_once(code: int) -> None:
    """From here on whoever cannot wait for what is being closed ends the process: all has been said."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, lambda *_: os._exit(code))


class _InOrder(click.Group):
    """Commands in the order in which somebody needs them; each says where exit codes are told."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        cmd.epilog = "Exit codes: `phyxius --help` tells them."
        super().add_command(cmd, name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in {option for param in status.params for option in param.opts}:
                told = f"{error.option_name} goes after the command, as in: phyxius status {error.option_name} ..."
                raise click.UsageError(told, ctx) from None
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(self.commands)


@click.group(
    cls=_InOrder, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="phyxius-migration", prog_name="phyxius")
def main() -> None:
    """Take migrations from phase to phase, when it is proven safe.

    A migration is at one phase of several. The way into each is guarded by evidence, which is asked live: `check` tells
    how things stand and moves nothing, `advance` moves if every source says yes. See it all at work: `phyxius demo`.

    \b
    Migrations are found by --app, by PHYXIUS_APP, or by the nearest pyproject.toml:
        [tool.phyxius]
        app = "shop.migrations:migration"
    """  # noqa: D301 - what click replaces


@main.command()
@click.argument("names", nargs=-1, shell_complete=_complete("names"))
@_common
def status(**options: Any) -> None:
    """Show where each migration is, and what comes next.

    For all of them, or those in NAMES: the phase, since when, and what the next phase demands. It asks no evidence:
    that is `check`.
    """
    _run("status", **options)


@main.command()
@_name
@click.option("--watch", is_flag=True, help="Ask again and again, until it is ready; ends then with 0.")
@click.option("--every", type=DURATION, default="10s", show_default=True, help="How long --watch waits in between.")
@_common
def check(**options: Any) -> None:
    """Show how ready NAME is; nothing moves.

    All the evidence for its next phase is asked. Each source tells its verdict, what it saw and what it needs; a
    journal window how much of it is covered, what is missing and whose it is; and when it can pass at the earliest.
    Ends with 0 if `advance` would move now. In a pipe --watch prints what has changed.
    """
    _run("check", **options)


@main.command()
@_name
@click.option("--to", metavar="PHASE", shell_complete=_complete("phases"), help="The phase to enter; it must be named.")
@click.option("--yes", is_flag=True, help="Enter the last phase without asking.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing where nothing is to be done, with 3, 5 or 75; for cron.")
@_common
def advance(**options: Any) -> None:
    """Take NAME into its next phase, if that is proven safe.

    Every source of evidence is asked now, and has to say yes. The phase must be named, so that two people who each
    press once do not move it twice. A refusal moves nothing and says why. There is no flag that skips a source.
    """
    _run("advance", **options)


@main.command()
@_name
@click.option("--since", type=DURATION, help="Nothing older than this, such as 30d.")
@click.option("--all", "every", is_flag=True, help="Show each refusal, and not repetitions as one.")
@_common
def history(**options: Any) -> None:
    """Show how NAME got where it is.

    Steps with their evidence, refusals between them, amended orders of phases: from the stores, so that it outlives
    processes. Refusals that say the same, but for numbers, are shown as one.
    """
    _run("history", **options)


@main.command()
@_name
@_subject(required=True)
@click.option("--as", "signer", metavar="WHO", help="Who signs; your user name unless given.")
@click.option("--note", default="", help="What was looked at; it goes into the audit.")
@click.option("--valid-for", type=DURATION, help="How long the signature counts, such as 7d; for ever unless given.")
@_common
def sign(**options: Any) -> None:
    """Sign for a step of NAME.

    Where the evidence for it asks for signatures, this is how one is given. Nobody is asked for a password here:
    whoever can write to the database can sign for anybody.
    """
    _run("sign", **options)


@main.command()
@_name
@_subject(required=True)
@click.option("--signer", metavar="WHO", help="Whose signatures; yours unless given.")
@click.option("--by", metavar="WHO", help="Who revokes them; you unless given.")
@click.option("--note", default="", help="Why.")
@_common
def revoke(**options: Any) -> None:
    """Take signatures for a step of NAME back.

    It works until the step is taken.
    """
    _run("revoke", **options)


@main.command()
@_name
@_subject(required=False)
@_common
def signatures(**options: Any) -> None:
    """Show who signed for NAME, and whether it counts."""
    _run("signatures", **options)


@main.command()
@_name
@click.option("--why", required=True, help="For what reason; it is kept.")
@click.option("--who", help="Who decided it; your user name unless given.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common
def amend(**options: Any) -> None:
    """Have the stores adopt a changed order of phases.

    The stores keep the order of phases that NAME had, and this has them take over the one that the application has now.
    Phases still ahead may be added, changed, reordered or dropped; signatures for them have to be given again. Run it
    before the new build is rolled out.
    """
    _run("amend", **options)


@main.command()
@click.option("--older-than", type=DURATION, required=True, help="The age from which on events go, such as 90d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common
def prune(**options: Any) -> None:
    """Delete recorded events that are old.

    The audit, the phases and the signatures stay. It is refused where a window of evidence looks back as far.
    """
    _run("prune", **options)


@main.command()
@_name
@click.option("--unmarked", is_flag=True, help="Do not ask the stores where it is, as for a build without a database.")
@_common
def diagram(**options: Any) -> None:
    """Print NAME as a Mermaid diagram, its phase marked."""
    _run("diagram", **options)


@main.command()
@click.option("--fast", is_flag=True, help="Do not pause between its steps, as it does on a terminal.")
@click.option(
    "--keep",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Keep its files there, to look around with phyxius, sqlite3 and an editor.",
)
@_json
@_traceback
def demo(**options: Any) -> None:
    """Watch a whole migration, of 20,000 rows under traffic.

    A shop moves its quotes to a new table: with dual writes, a copy that is killed half-way, reads that are compared
    and find a bug, two weeks of silence, and no row lost. It needs no application and takes less than a minute.
    Scripted are the requests, the bug and the moment of the kill, and the clock is simulated; processes, kill, database
    and numbers are real.
    """
    _run("demo", **options)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    It completes commands, the names of migrations, phases and sources.

    \b
    bash:  eval "$(phyxius completion bash)"       in ~/.bashrc
    zsh:   eval "$(phyxius completion zsh)"        in ~/.zshrc
    fish:  phyxius completion fish | source        in ~/.config/fish/config.fish
    """  # noqa: D301 - what click replaces
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "phyxius", "_PHYXIUS_COMPLETE").source())


if __name__ == "__main__":
    main(prog_name="phyxius")
