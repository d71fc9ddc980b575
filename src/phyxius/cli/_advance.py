"""Taking the next step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

from rich.text import Text

from phyxius.cli._ask import ask
from phyxius.cli._check import Report, report_of, step
from phyxius.cli._exits import CommandError, Exit, of_interrupt
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import TRACED, ago, briefly, quoted_command, readable, when
from phyxius.clock import SystemClock
from phyxius.fp import Ok, Result, err
from phyxius.handler import HandlerEvent
from phyxius.migration import (
    Advanced,
    AdvanceError,
    AlreadyAtFinal,
    CasLost,
    EvidenceErrored,
    EvidenceFailed,
    NotNext,
    SourceAnswer,
    SpecChanged,
    StoreErrored,
)

_NOTHING_TO_DO = frozenset({Exit.REFUSED, Exit.ALREADY_THERE, Exit.LOST})


def advance(session: Session, *, name: str, to: str | None, yes: bool, quiet: bool) -> Exit:
    """Take a migration into its next phase, if every source says yes."""
    subject = session.named(name)
    _check_it_lasts(subject)
    if to is None:
        raise _no_phase_named(subject)
    to, screen = subject.declared(to), session.screen
    before = subject.phase()
    if subject.order.index(before) >= subject.order.index(to):  # a job that has done its work leaves no refusal
        return _already_there(session, subject, before, to, quiet=quiet)
    if (following := subject.following(before)) != to:  # nor does one that comes too early
        return _end(session, subject, to, err(NotNext(to, before, following)), {}, quiet=quiet)
    if to == subject.order[-1] and not yes:
        ask(f"{to} is the last phase of {name}: there is no way back. Enter it?", "--yes")
    reports: dict[str, Report] = {}
    held: list[Line] = []
    audit: list[HandlerEvent] = []

    def show(line: Line) -> None:
        if quiet:
            held.append(line)
        else:
            screen.show([line])

    show(step(subject, before, to))
    waiting = dict.fromkeys(subject.sources(to))
    try:
        with screen.progress(_asking(waiting, reports)) as update, _printing() as later:

            def told(answer: SourceAnswer) -> None:
                again = answer.source in reports
                reports[answer.source] = report = report_of(subject, to, answer.source, answer.verdict, answer.coverage)
                waiting.pop(answer.source, None)
                later(partial(update, _asking(waiting, reports)))
                later(partial(show, _asked(report, answer, again=again)))

            with _audited(subject) as audit:
                result = subject.plain.advance(to, on_answer=told)
        return _end(session, subject, to, result, reports, held=held, quiet=quiet)
    except KeyboardInterrupt as interrupt:
        return _interrupted(session, subject, audit, interrupt)


@contextmanager
def _audited(subject: Subject) -> Iterator[list[HandlerEvent]]:
    """What the journal is told of steps meanwhile: an interrupt takes the answer away, and not the audit event."""
    told: list[HandlerEvent] = []
    name = f"migration.{subject.name}.advance"
    leave = subject.migration.journal.subscribe(
        lambda entry: told.append(entry.data) if getattr(entry.data, "name", None) == name else None
    )
    try:
        yield told
    finally:
        leave()


def _end(
    session: Session,
    subject: Subject,
    to: str,
    result: Result[Advanced[Any], AdvanceError[Any]],
    reports: Mapping[str, Report],
    *,
    held: Sequence[Line] = (),
    quiet: bool,
) -> Exit:
    exit_ = exit_of(subject, to, result)
    if not quiet or exit_ not in _NOTHING_TO_DO:
        _tell(session, subject, to, result, exit_, reports, held)
    return exit_


def _check_it_lasts(subject: Subject) -> None:
    migration = subject.migration
    in_memory = getattr(migration.phase_store, "scope", "fleet") == "process"
    if in_memory and isinstance(migration.journal.clock, SystemClock):
        raise CommandError(
            f"the phase of {subject.name} is kept in the memory of a process, so this command would move a phase that "
            "nobody else sees, and forget it: give create_migration() a phase_store= that lasts, or call advance() "
            "where the application runs"
        )


def _no_phase_named(subject: Subject) -> CommandError:
    following = subject.following(subject.phase())
    if following is None:
        return CommandError(f"{subject.name} is at its last phase; nothing is left to do", Exit.ALREADY_THERE)
    command = quoted_command("advance", subject.name, "--to", following)
    told = f"name the phase, so that two people who each press once do not move it twice: {command}"
    return CommandError(told, Exit.USAGE)


@contextmanager
def _printing() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Print in a thread of its own: a terminal that stands still must not hold up who has an `Ok` in hand."""
    jobs = queue.SimpleQueue[Callable[[], None] | None]()

    def work() -> None:
        while (job := jobs.get()) is not None:
            with suppress(OSError):  # what cannot be printed changes nothing
                job()

    thread = threading.Thread(target=work, name="phyxius prints", daemon=True)
    thread.start()
    try:
        yield jobs.put
    finally:
        jobs.put(None)
        thread.join()


def _already_there(session: Session, subject: Subject, phase: str, to: str, *, quiet: bool) -> Exit:
    if not quiet:
        told = f"{subject.name} is at {phase}" + ("" if phase == to else f", past {to}")
        session.screen.json(_told(subject, to, "ALREADY_THERE", Exit.ALREADY_THERE, message=told))
        session.screen.say(told, lead="ALREADY THERE  ", lead_style="bold green")
    return Exit.ALREADY_THERE


def _asking(waiting: Mapping[str, object], reports: Mapping[str, Report]) -> str:
    if waiting:
        return f"asking {', '.join(waiting)}"
    is_safe = all(report.kind == "ok" for report in reports.values())
    return "taking the step" if is_safe else "recording the refusal"


def _asked(report: Report, answer: SourceAnswer, *, again: bool) -> Line:
    first = next(iter(report.lines()))
    text = first.text
    if report.reason is not None:
        text = Text(clean(readable(report.reason)), "yellow" if report.kind == "refused" else "red")
    notes = [briefly(answer.took)] if answer.took else []  # none by a controlled clock
    told = ", ".join([*notes, "asked again"] if again else notes)
    return Line(text, Text.assemble(first.lead, (f"{told}  " if told else "", "dim")), 1)


def _tell(
    session: Session,
    subject: Subject,
    to: str,
    result: Result[Advanced[Any], AdvanceError[Any]],
    exit_: Exit,
    reports: Mapping[str, Report],
    held: Sequence[Line],
) -> None:
    outcome = result.value if isinstance(result, Ok) else result.error
    if isinstance(outcome, Advanced):
        told = _told(subject, to, "ADVANCED", exit_, at=outcome.at.wall)
    else:
        committed = outcome.committed if isinstance(outcome, StoreErrored) else None
        told = _told(subject, to, outcome.type, exit_, message=outcome.message, committed=committed)
    try:
        session.screen.show(held)
        session.trace(report.verdict for report in reports.values())
        session.screen.json({**told, "sources": {name: report.told() for name, report in reports.items()}})
        session.screen.show(_lines(subject, to, result, exit_))
    except OSError as error:  # a disk that is full, say; the exit code still tells what came of it
        session.screen.error(f"{told['outcome']}, which could not be printed: {error}")
    if outcome.audit_error is not None:
        session.screen.note(f"the journal refused the audit event of this call: {outcome.audit_error}")


def _told(
    subject: Subject,
    to: str,
    outcome: str,
    exit_: Exit,
    *,
    message: str | None = None,
    at: datetime | None = None,
    committed: object = None,
) -> dict[str, Any]:
    return {
        "migration": subject.name,
        "to": to,
        "outcome": outcome,
        "exit": int(exit_),
        "message": message,
        "at": at,
        "committed": committed,
        "sources": {},
    }


def exit_of(subject: Subject, to: str, result: Result[Advanced[Any], AdvanceError[Any]]) -> Exit:
    """How a command ends that called `advance(to)`."""
    if isinstance(result, Ok):
        return Exit.DONE
    match result.error:
        case AlreadyAtFinal():
            return Exit.ALREADY_THERE
        case NotNext(current=current) if subject.order.index(to) <= subject.order.index(current):
            return Exit.ALREADY_THERE
        case EvidenceFailed() | NotNext():
            return Exit.REFUSED
        case EvidenceErrored():
            return Exit.ERRORED
        case CasLost():
            return Exit.LOST
        case SpecChanged():
            return Exit.CHANGED
        case StoreErrored(committed="unknown"):
            return Exit.UNKNOWN
        case _:
            return Exit.BROKEN


def _lines(subject: Subject, to: str, result: Result[Advanced[Any], AdvanceError[Any]], exit_: Exit) -> list[Line]:
    if isinstance(result, Ok):
        told = f"{subject.name} is at {to} since {when(result.value.at.wall)}"
        return [Line.of(told, lead="ADVANCED  ", lead_style="bold green")]
    match result.error:
        case EvidenceFailed(ready_at=ready_at):
            reason = f"{to} is not proven safe, and nothing moved; `{quoted_command('check', subject.name)}` shows more"
            if ready_at is not None:
                reason += f". Not before {when(ready_at)}, {ago(ready_at, subject.now())}"
        case EvidenceErrored():
            reason = f"{to} could not be judged, and nothing moved: mend the check or what it asks; {TRACED}"
        case refusal:
            reason = refusal.message
    words = {
        Exit.ALREADY_THERE: ("ALREADY THERE", "bold green"),
        Exit.REFUSED: ("REFUSED", "bold yellow"),
        Exit.ERRORED: ("NOT JUDGED", "bold red"),
        Exit.LOST: ("LOST THE RACE", "bold yellow"),
        Exit.UNKNOWN: ("UNKNOWN", "bold red"),
        Exit.BROKEN: ("FAILED", "bold red"),
        Exit.CHANGED: ("OTHER PHASES", "bold red"),
    }
    word, style = words[exit_]
    return [Line.of(reason, lead=f"{word}  ", lead_style=style)]


def _interrupted(
    session: Session, subject: Subject, audit: Sequence[HandlerEvent], interrupt: KeyboardInterrupt
) -> Exit:
    """Say what state things are in: an interrupt stops what is asked, but never a commit half-way."""
    word, ended = of_interrupt(interrupt)
    look = quoted_command("status", subject.name)
    if isinstance(interrupt.__context__, KeyboardInterrupt):  # the second one: what the first one ends goes on
        told = f"{word} again: whether {subject.name} moves is unknown; look with {look}"
        session.screen.error(told)
        return Exit.UNKNOWN
    if not audit:
        session.screen.error(f"{word}; look where {subject.name} is: {look}")
        return ended
    refusal: Any = audit[-1].observed.get("refusal", {})
    if "try_advance" in refusal.get("errors", {}):  # the store failed at the commit, and this is what it came to
        session.screen.error(f"{word}: {refusal['message']}; {look}")
        return Exit.UNKNOWN
    moved = "nothing moved" if refusal else "it moved before that"
    try:
        told = f"{subject.name} is at {subject.phase()}"
    except (Exception, KeyboardInterrupt):  # noqa: BLE001 - the store may be what hangs
        told = f"look where {subject.name} is: {look}"
    session.screen.error(f"{word}: {moved}, {told}")
    return ended
