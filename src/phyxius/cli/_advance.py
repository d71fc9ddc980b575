"""Taking the next step."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

import attrs
from rich.text import Text

from phyxius.cli._ask import ask
from phyxius.cli._check import Report, report_of, step
from phyxius.cli._exits import CommandError, Exit, of_interrupt
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import TRACED, ago, briefly, error_told, quoted_command, readable, when
from phyxius.clock import SystemClock
from phyxius.fp import Ok, Result, err
from phyxius.handler import HandlerEvent, correlated
from phyxius.journal import JournalEntry
from phyxius.migration import (
    Advanced,
    AdvanceError,
    AlreadyAtFinal,
    CasLost,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceOvertakenError,
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
    press = _Press(session, subject, subject.declared(to), quiet)
    before = subject.phase()
    if subject.order.index(before) >= subject.order.index(to):  # a job that has done its work leaves no refusal
        return press.already_there(before)
    if (following := subject.following(before)) is not None and following != to:  # nor does one that comes too early
        subject.check_order()
        return press.end(err(NotNext(to, before, following)))
    if to == subject.order[-1] and not yes:
        ask(f"{to} is the last phase of {name}: there is no way back. Enter it?", "--yes")
    return press.run(before)


@attrs.define
class _Press:
    """One try to take a step, and what is shown of it.

    Attributes:
        session: What it is part of.
        subject: The migration.
        to: The phase to enter.
        quiet: Whether to show nothing where nothing is to be done.
        reports: What each source answered.
        held: What is shown if there is something to be done.
        audit: What the journal was told of it.
        pressed: Whether it has begun.
    """

    session: Session
    subject: Subject
    to: str
    quiet: bool
    reports: dict[str, Report] = attrs.field(factory=dict, init=False)
    held: list[Line] = attrs.field(factory=list, init=False)
    audit: HandlerEvent | None = attrs.field(default=None, init=False)
    pressed: bool = attrs.field(default=False, init=False)

    def run(self, before: str) -> Exit:
        """Press, and show each answer as it comes."""
        screen, waiting = self.session.screen, dict.fromkeys(self.subject.sources(self.to))
        self._show(step(self.subject, before, self.to))
        try:
            with screen.progress(self._under_way(waiting)) as update, _printing() as later, self._audited():

                def told(answer: SourceAnswer) -> None:
                    line = self._report(answer)
                    waiting.pop(answer.source, None)
                    later(partial(update, self._under_way(waiting)))
                    later(partial(self._show, line))

                self.session.go_on()
                self.pressed = True
                result = self.subject.plain.advance(self.to, on_answer=told)
            return self.end(result)
        except Exception as error:  # a signal handler of the application may have raised it, at any moment
            if self.audit is None:
                raise
            raise CommandError(*self._state(error_told(error)["message"], Exit.BROKEN)) from error
        except (KeyboardInterrupt, SystemExit) as interrupt:
            # What a first one ends goes on where a second one came.
            again = isinstance(interrupt.__context__, KeyboardInterrupt | SystemExit)
            state, ended = self._state(*of_interrupt(interrupt), again=again)
            with suppress(KeyboardInterrupt):  # one more changes nothing of it
                screen.error(state)
            return ended

    def end(self, result: Result[Advanced[Any], AdvanceError[Any]]) -> Exit:
        """Tell how it ended."""
        exit_ = exit_of(self.subject, self.to, result)
        if self.quiet and exit_ in _NOTHING_TO_DO:
            return exit_
        outcome = result.value if isinstance(result, Ok) else result.error
        if isinstance(outcome, Advanced):
            told = self._told("ADVANCED", exit_, at=outcome.at.wall)
        else:
            committed = outcome.committed if isinstance(outcome, StoreErrored) else None
            told = self._told(outcome.type, exit_, message=outcome.message, committed=committed)
        screen = self.session.screen
        try:
            screen.show(self.held)
            self.session.trace(report.verdict for report in self.reports.values())
            screen.json({**told, "sources": {name: report.told() for name, report in self.reports.items()}})
            screen.show([_line(self.subject, self.to, result, exit_)])
        except OSError as error:  # a disk that is full, say; the exit code still tells what came of it
            screen.error(f"{told['outcome']}, which could not be printed: {error}")
        if outcome.audit_error is not None:
            screen.note(f"the journal refused the audit event of this call: {outcome.audit_error}")
        return exit_

    def already_there(self, phase: str) -> Exit:
        """Tell that there is nothing to do."""
        if not self.quiet:
            told = f"{self.subject.name} is at {phase}" + ("" if phase == self.to else f", past {self.to}")
            self.session.screen.json(self._told("ALREADY_THERE", Exit.ALREADY_THERE, message=told))
            self.session.screen.say(told, lead="ALREADY THERE  ", lead_style="bold green")
        return Exit.ALREADY_THERE

    @contextmanager
    def _audited(self) -> Iterator[None]:
        """Hear what the journal is told of steps meanwhile: an interrupt takes the answer away, and not that."""
        name, ours = f"migration.{self.subject.name}.advance", f"phyxius-{uuid.uuid4().hex}"

        def hear(entry: JournalEntry[Any]) -> None:
            event = entry.data
            if isinstance(event, HandlerEvent) and (event.name, event.correlation_id) == (name, ours):
                self.audit = event

        leave = self.subject.migration.journal.subscribe(hear)
        try:
            with correlated(ours):  # the application may advance the same migration
                yield
        finally:
            leave()

    def _show(self, line: Line) -> None:
        if self.quiet:
            self.held.append(line)
        else:
            self.session.screen.show([line])

    def _under_way(self, waiting: Mapping[str, object]) -> str:
        if waiting:
            return f"asking {', '.join(waiting)}"
        is_safe = all(report.kind == "ok" for report in self.reports.values())
        return "taking the step" if is_safe else "recording the refusal"

    def _report(self, answer: SourceAnswer) -> Line:
        again = answer.source in self.reports
        report = report_of(self.subject, self.to, answer.source, answer.verdict, answer.coverage)
        self.reports[answer.source] = report
        first = next(iter(report.lines()))
        text = first.text
        if report.reason is not None:
            text = Text(clean(readable(report.reason)), "yellow" if report.kind == "refused" else "red")
        notes = [briefly(answer.took)] if answer.took else []  # none by a controlled clock
        told = ", ".join([*notes, "asked again"] if again else notes)
        return Line(text, Text.assemble(first.lead, (f"{told}  " if told else "", "dim")), 1)

    def _told(
        self,
        outcome: str,
        exit_: Exit,
        *,
        message: str | None = None,
        at: datetime | None = None,
        committed: object = None,
    ) -> dict[str, Any]:
        return {
            "migration": self.subject.name,
            "to": self.to,
            "outcome": outcome,
            "exit": int(exit_),
            "message": message,
            "at": at,
            "committed": committed,
            "sources": {},
        }

    def _state(self, word: str, ended: Exit, *, again: bool = False) -> tuple[str, Exit]:
        """What state things are in: an interrupt stops what is asked, but never a commit half-way."""
        name = self.subject.name
        look = quoted_command("status", name)
        if again:
            return f"{word} again: whether {name} moves is unknown; look with {look}", Exit.UNKNOWN
        if not self.pressed:
            return f"{word}: nothing moved", ended
        if self.audit is None:
            return f"{word}: whether {name} moved is unknown; look with {look}", Exit.UNKNOWN
        refusal: Any = self.audit.observed.get("refusal", {})
        if "try_advance" in refusal.get("errors", {}):  # the store failed at the commit, and this is what it came to
            return f"{word}: {refusal['message']}; {look}", Exit.UNKNOWN
        moved = "nothing moved" if refusal else "it moved before that"
        try:
            told = f"{name} is at {self.subject.phase()}"
        except (Exception, KeyboardInterrupt):  # noqa: BLE001 - the store may be what hangs
            told = f"look where {name} is: {look}"
        return f"{word}: {moved}, {told}", ended


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


def _line(subject: Subject, to: str, result: Result[Advanced[Any], AdvanceError[Any]], exit_: Exit) -> Line:
    if isinstance(result, Ok):
        told = f"{subject.name} is at {to} since {when(result.value.at.wall)}"
        return Line.of(told, lead="ADVANCED  ", lead_style="bold green")
    match result.error:
        case EvidenceFailed(ready_at=ready_at):
            reason = f"{to} is not proven safe, and nothing moved; `{quoted_command('check', subject.name)}` shows more"
            if ready_at is not None:
                reason += f". Not before {when(ready_at)}, {ago(ready_at, subject.now())}"
        case EvidenceErrored(errors=errors) if (overtaken := _overtaken(errors)) is not None:
            reason = f"nothing moved: {overtaken}"
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
    return Line.of(reason, lead=f"{word}  ", lead_style=style)


def _overtaken(errors: Mapping[str, Exception]) -> EvidenceOvertakenError | None:
    """What came after all the answers had been shown, if that is it."""
    return next((error for error in errors.values() if isinstance(error, EvidenceOvertakenError)), None)
