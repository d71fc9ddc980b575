"""How ready a migration is for its next phase."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
from rich.text import Text

from phyxius.adapters import attestations_of
from phyxius.blocking import run
from phyxius.cli._exits import Exit, of_error
from phyxius.cli._screen import Line, bar, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import (
    TRACED,
    ago,
    brief,
    error_told,
    of_whole,
    quoted_command,
    readable,
    represented,
    roughly,
    told,
    when,
)
from phyxius.fp import Ok
from phyxius.journal import to_json_value
from phyxius.migration import Coverage, EvidenceFailure, Readiness, Verdict, demand_of

_MOST_GAPS = 5
_TOLD_OTHERWISE = ("gaps", "missing", "max_gap")  # by the coverage


@attrs.frozen
class Report:
    """What was found of one source.

    Attributes:
        source: Its name.
        demand: What it asks for, in words.
        verdict: What became of it.
        coverage: What the journal could vouch for, if it was asked.
        now: When.
        command: The command that gives what it lacks, if there is one.
    """

    source: str
    demand: str
    verdict: Verdict
    coverage: Coverage | None
    now: datetime
    command: str | None

    @property
    def kind(self) -> str:
        """One word for the verdict."""
        if isinstance(self.verdict, Ok):
            return "ok"
        return "refused" if isinstance(self.verdict, EvidenceFailure) else "errored"

    @property
    def reason(self) -> str | None:
        """Why it is not `Ok`."""
        if isinstance(self.verdict, Ok):
            return None
        if isinstance(self.verdict, EvidenceFailure):
            return self.verdict.reason
        return f"it could not be judged: {told(self.verdict)}"

    @property
    def observed(self) -> object:
        """What it learned, or what its failure tells beside the reason and the coverage."""
        if isinstance(self.verdict, Ok):
            return self.verdict.value
        if not isinstance(self.verdict, EvidenceFailure):
            return {}
        details = [(key, to_json_value(each, fallback=represented)) for key, each in self.verdict.details.items()]
        return {key: each for key, each in details if key not in _TOLD_OTHERWISE and each}

    @property
    def retry_at(self) -> datetime | None:
        """When it can pass at the earliest, where that is known."""
        return self.verdict.retry_at if isinstance(self.verdict, EvidenceFailure) else None

    def lines(self) -> Iterator[Line]:
        """What people read of it."""
        style = {"ok": "green", "refused": "yellow", "errored": "red"}[self.kind]
        sign = {"ok": "✓", "refused": "✗", "errored": "!"}[self.kind]
        lead = Text.assemble((f"{sign} ", f"bold {style}"), (clean(self.source), "bold"), "  ")
        yield Line(Text(clean(self.demand), "dim"), lead, 1)
        if self.reason is not None:
            yield Line.of(readable(self.reason), style=style, lead="why       ", indent=3)
        if self.coverage is not None:
            yield from _coverage_lines(self.coverage)
        if (observed := self._told_beside_reason()) not in (None, {}):
            yield Line.of(brief(observed), lead="observed  ", indent=3)
        if self.retry_at is not None:
            told = f"not before {when(self.retry_at)}, {ago(self.retry_at, self.now)}"
            yield Line.of(told, lead="passes    ", indent=3)
        if self.command is not None:
            yield Line.of(self.command, lead="to do     ", indent=3)

    def _told_beside_reason(self) -> object:
        if self.reason is None or not isinstance(self.observed, Mapping):
            return self.observed
        return {
            key: each
            for key, each in self.observed.items()
            if not re.search(rf"(?<!\w){re.escape(brief(each))}(?!\w)", self.reason)
        }

    def told(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "verdict": self.kind,
            "demand": self.demand,
            "reason": self.reason,
            "observed": self.observed,
            "retry_at": self.retry_at,
            "command": self.command,
            "coverage": None if self.coverage is None else _coverage_told(self.coverage),
        }


def _coverage_lines(coverage: Coverage) -> Iterator[Line]:
    covered = coverage.window - coverage.total()
    share = covered / coverage.window
    text = Text.assemble((bar(share), "green" if share >= 1 else "yellow"), f" {of_whole(covered, coverage.window)}")
    yield Line(text, Text("covered   "), 3)
    for gap in coverage.gaps[:_MOST_GAPS]:
        whose = f", {gap.recorder}" if gap.recorder else ""
        told = f"{roughly(gap.until - gap.since)} from {when(gap.since)}{whose}: {gap.reason}"
        yield Line.of(told, lead="missing   ", indent=3)
    if (more := len(coverage.gaps) - _MOST_GAPS) > 0:
        yield Line.of(f"and {more} gaps more", lead="          ", indent=3)


def _coverage_told(coverage: Coverage) -> dict[str, Any]:
    return {
        "window_seconds": coverage.window.total_seconds(),
        "covered_seconds": (coverage.window - coverage.total()).total_seconds(),
        "gaps": [
            {"since": gap.since, "until": gap.until, "reason": gap.reason, "recorder": gap.recorder}
            for gap in coverage.gaps
        ],
    }


def report_of(subject: Subject, to: str, source: str, verdict: Verdict, coverage: Coverage | None) -> Report:
    """The report of what a source answered about the way into a phase."""
    command = None
    if isinstance(verdict, EvidenceFailure) and (to, source) in attestations_of(subject.migration):
        command = quoted_command("sign", subject.name, "--to", to, "--source", source)
    return Report(source, demand_of(subject.sources(to)[source]), verdict, coverage, subject.now(), command)


def step(subject: Subject, phase: str, to: str) -> Line:
    """The step that it is all about."""
    return Line(Text.assemble((clean(subject.name), "bold"), f"  {clean(phase)} → {clean(to)}"))


def check(session: Session, *, name: str, watch: bool, every: timedelta) -> Exit:
    """Show how ready a migration is, once or until it is."""
    subject = session.named(name)
    if not watch:
        with session.screen.progress(f"asking the evidence of {name}"):
            readiness = subject.plain.readiness()
        _tell(session, subject, readiness)
        return _exit(readiness)
    return _watch(session, subject, every)


def _watch(session: Session, subject: Subject, every: timedelta) -> Exit:
    screen, before, away = session.screen, None, ""
    with screen.display() as draw:
        while True:
            readiness, away = _asked(session, subject, every, away, first=before is None)
            if readiness is not None:
                has_changed = before != (before := (readiness.phase, _kinds(readiness)))
                if draw is not None:
                    asked = Line.of(f"asked at {when(subject.now())}; Ctrl-C ends", style="dim")
                    draw([*_lines(subject, readiness, _reports(subject, readiness)), asked])
                elif has_changed or screen.as_json:  # in a pipe nothing else is worth a page
                    _tell(session, subject, readiness)
                if readiness.ready or readiness.next_phase is None or not screen.is_read:
                    return _exit(readiness)
            run(asyncio.sleep(every.total_seconds()))


def _asked(
    session: Session, subject: Subject, every: timedelta, away: str, *, first: bool
) -> tuple[Readiness[Any] | None, str]:
    """What is found, or why a store could not be asked. What fails at once is to be mended, and not waited for."""
    try:
        readiness = subject.plain.readiness()
    except Exception as error:
        if first or of_error(error) is not Exit.BROKEN:
            raise
        session.screen.json({"error": error_told(error)})
        if (why := told(error)) != away:  # else it has been told
            session.trace([error])
            session.screen.error(f"{why}; asking again each {roughly(every)}")
        return None, why
    if away:
        session.screen.note("it can be asked again")
    return readiness, ""


def _kinds(readiness: Readiness[Any]) -> Mapping[str, type]:
    return {name: type(verdict) for name, verdict in readiness.verdicts.items()}


def _reports(subject: Subject, readiness: Readiness[Any]) -> list[Report]:
    if readiness.next_phase is None:
        return []
    to = str.__str__(readiness.next_phase)
    return [
        report_of(subject, to, name, verdict, readiness.coverage.get(name))
        for name, verdict in readiness.verdicts.items()
    ]


def _tell(session: Session, subject: Subject, readiness: Readiness[Any]) -> None:
    reports = _reports(subject, readiness)
    session.trace(report.verdict for report in reports)
    session.screen.json(
        {
            "migration": subject.name,
            "phase": readiness.phase,
            "next_phase": readiness.next_phase,
            "ready": readiness.ready,
            "ready_at": readiness.ready_at,
            "sources": {report.source: report.told() for report in reports},
        }
    )
    session.screen.show(_lines(subject, readiness, reports))


def _lines(subject: Subject, readiness: Readiness[Any], reports: list[Report]) -> Iterator[Line]:
    phase = str.__str__(readiness.phase)
    if readiness.next_phase is None:
        yield Line.of(f"{subject.name} is at {phase}, its last phase; nothing is left to do")
        return
    to = str.__str__(readiness.next_phase)
    yield step(subject, phase, to)
    for report in reports:
        yield from report.lines()
    yield Line(_summary(subject, readiness, to))


def _summary(subject: Subject, readiness: Readiness[Any], to: str) -> Text:
    ended = _exit(readiness)
    if ended is Exit.DONE:
        following = quoted_command("advance", subject.name, "--to", to)
        return Text.assemble(("READY", "bold green"), f"  {clean(following)}")
    if ended is Exit.ERRORED:
        told = f"a source could not be judged: mend the check or what it asks; {TRACED}"
        return Text.assemble(("NOT JUDGED", "bold red"), f"  {told}")
    told = f"{clean(to)} is not proven safe"
    if readiness.ready_at is not None:
        told += f"; not before {when(readiness.ready_at)}, {ago(readiness.ready_at, subject.now())}"
    return Text.assemble(("NOT READY", "bold yellow"), f"  {told}")


def _exit(readiness: Readiness[Any]) -> Exit:
    if readiness.ready:
        return Exit.DONE
    if readiness.next_phase is None:
        return Exit.ALREADY_THERE
    broken = any(isinstance(verdict, Exception) for verdict in readiness.verdicts.values())
    return Exit.ERRORED if broken else Exit.REFUSED
