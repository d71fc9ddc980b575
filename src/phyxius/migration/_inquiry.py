"""Asking all the sources of a step, at once and under their limits."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import attrs

from phyxius.clock import Clock, Instant, Limited, Settled, gather_within
from phyxius.fp import Ok
from phyxius.journal import Journal
from phyxius.migration._attempt import Attempt, running_attempt
from phyxius.migration._decision import Finding, Step, verdict_of
from phyxius.migration._errors import CheckCancelledError
from phyxius.migration._evidence import AnySource, JournalWindowEvidence
from phyxius.migration._failure import EvidenceFailure
from phyxius.migration._judge import Passed, check_window, judge_answer, judge_window
from phyxius.migration._outcomes import OnAnswer, SourceAnswer, describe
from phyxius.migration._stores import JournalStore, check_journal
from phyxius.migration._window import Coverage
from phyxius.migration._wording import plain, span

_logger = logging.getLogger("phyxius.migration")
RunSync: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""How a plain check is run off the event loop: takes the check, and is awaited for its answer."""

# An answer of a journal window that waited longer than this for the others is asked for again.
_FRESH_NS = 1_000_000_000


@attrs.frozen
class Inquiry:
    """What the sources answered, and how long that can be true.

    Attributes:
        findings: One for each source, in the order of their declaration.
        asked_at: When the first was asked.
        limit: Within how long all of them answer, or are too late.
    """

    findings: Mapping[str, Finding]
    asked_at: Instant
    limit: timedelta

    def standing(self, now: Instant) -> Mapping[str, Finding]:
        """The findings that count now: none, once more time has gone by than it took to come to all of them.

        Then the event loop stood still, or the whole machine, and the world went on. A machine that is suspended may
        stop its monotonic clock, so the wall clock is believed too.
        """
        age_ns = max(now.ns_since(self.asked_at), now.wall_ns - self.asked_at.wall_ns)
        age = timedelta(microseconds=age_ns // 1_000)
        if age < self.limit:
            return self.findings
        late = f"{span(age)} went by from the question to the step, and {span(self.limit)} is the most"
        why = "the event loop or the machine stood still, or its clock was set"
        return {name: TimeoutError(f"{late}: {why}; ask again") for name in self.findings}


@attrs.frozen
class Inquirer:
    """Asks sources on behalf of a migration."""

    migration: str
    clock: Clock
    journal: Journal[Any]
    journal_store: JournalStore
    run_sync: RunSync
    evidence_timeout: timedelta

    async def ask(self, step: Step[Any], attempt: str, on_answer: OnAnswer | None = None) -> Inquiry:
        """Ask every source of a step. One that is judged once more is told of once more."""
        asked_at, limit = self.clock.now(), self._limit(step.sources)
        findings, ended_at = await self._round(step, attempt, step.sources, on_answer)
        if all(type(finding) is Passed for finding in findings.values()):
            now = self.clock.now()
            stale = {
                name: source
                for name, source in step.sources.items()
                if type(source) is JournalWindowEvidence and now.ns_since(ended_at[name]) > _FRESH_NS
            }
            again, _ = await self._round(step, attempt, stale, on_answer)
            findings |= again
            limit += self._limit(stale)
        return Inquiry(findings, asked_at, limit)

    def _limit(self, sources: Mapping[str, AnySource]) -> timedelta:
        return max((source.timeout or self.evidence_timeout for source in sources.values()), default=timedelta(0))

    async def _round(
        self, step: Step[Any], attempt: str, sources: Mapping[str, AnySource], on_answer: OnAnswer | None
    ) -> tuple[dict[str, Finding], dict[str, Instant]]:
        calls: dict[str, Limited[Finding]] = {}
        windows: dict[str, Coverage] = {}
        began = self.clock.now()
        for name, source in sources.items():
            subject = Attempt(self.migration, plain(step.from_phase), plain(step.to_phase), name, attempt)
            calls[name] = Limited(self._question(source, subject, windows), source.timeout or self.evidence_timeout)

        def tell(name: str, settled: Settled[Finding]) -> None:
            took = timedelta(microseconds=settled.at.ns_since(began) // 1_000)
            answer = SourceAnswer(name, verdict_of(_finding(settled)), took, windows.get(name))
            try:
                assert on_answer is not None
                on_answer(answer)
            except Exception:
                _logger.exception("on_answer failed at the answer of %s", name)

        settled = await gather_within(self.clock, calls, tell if on_answer else None)
        findings = {name: _finding(settled[name]) for name in sources}
        return findings, {name: each.at for name, each in settled.items()}

    def _question(
        self, source: AnySource, subject: Attempt, windows: dict[str, Coverage]
    ) -> Callable[[], Awaitable[Finding]]:
        async def ask() -> Passed | EvidenceFailure:
            running_attempt.set(subject)
            if isinstance(source, JournalWindowEvidence):
                check_journal(self.journal_store, self.journal)
                asked = self.clock.now()
                answer = await self.journal_store.query(source.query, source.window)
                window = check_window(answer).up_to_now(asked, self.clock.now())
                windows[subject.source] = Coverage.of(window, source.window)
                return judge_window(source, window, source.predicate(window))
            return judge_answer(await self._answer_of(source.check))

        return ask

    async def _answer_of(self, check: Callable[[], Any]) -> object:
        if inspect.iscoroutinefunction(check):
            return await check()
        answer = await self.run_sync(check)
        return await answer if inspect.isawaitable(answer) else answer


def _finding(settled: Settled[Finding]) -> Finding:
    return settled.result.value if isinstance(settled.result, Ok) else _broken(settled.result.error)


def _broken(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    cancelled = CheckCancelledError(describe(error))
    cancelled.__cause__ = error
    return cancelled
