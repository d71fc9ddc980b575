"""Asking all the sources of a step, at once and under their limits."""

from __future__ import annotations

import functools
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
from phyxius.migration._errors import CheckCancelledError, EvidenceOvertakenError
from phyxius.migration._evidence import AnySource, JournalWindowEvidence
from phyxius.migration._failure import EvidenceFailure
from phyxius.migration._judge import Passed, check_window, judge_answer, judge_window
from phyxius.migration._outcomes import OnAnswer, SourceAnswer, describe
from phyxius.migration._stores import JournalStore, check_journal
from phyxius.migration._window import Coverage
from phyxius.migration._wording import plain

_logger = logging.getLogger("phyxius.migration")
RunSync: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""How a plain check is run off the event loop: takes the check, and is awaited for its answer."""

# A journal window that was asked longer ago than this is asked again, unless it has to take so long: an event loop that
# stood still may have heard of its answer late.
_FRESH = timedelta(seconds=1)
_ROUNDS = 4

# For how long the world may go on from the last answer to the commit, without anybody being asked.
_STANDS = timedelta(seconds=5)


@attrs.frozen
class Inquiry:
    """What the sources answered, and whether that can still be true.

    Attributes:
        findings: One for each source, in the order of their declaration.
        asked_at: When the first was asked.
        asking: For how long any of them was asked.
    """

    findings: Mapping[str, Finding]
    asked_at: Instant
    asking: timedelta

    def check_standing(self, now: Instant) -> None:
        """Do nothing, unless the world went on for long while nobody was asked.

        A machine that is suspended may stop its monotonic clock, so the wall clock is believed too.

        Raises:
            EvidenceOvertakenError: It did: the event loop stood still, or the store waited.
        """
        since = max(now.ns_since(self.asked_at), now.wall_ns - self.asked_at.wall_ns)
        idle = timedelta(microseconds=since // 1_000) - self.asking
        if self.findings and idle > _STANDS:
            raise EvidenceOvertakenError(idle, _STANDS)


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
        began = self.clock.now()
        asked = dict.fromkeys(step.sources, began)
        findings, took = await self._round(step, attempt, step.sources, on_answer)
        asking = max(took.values(), default=timedelta(0))
        needed = dict.fromkeys(step.sources, timedelta(0))
        for _ in range(1, _ROUNDS):
            now = self.clock.now()
            stale = {
                name: source
                for name, source in step.sources.items()
                if type(source) is JournalWindowEvidence and _between(asked[name], now) > _FRESH + needed[name]
            }
            if not stale or any(type(finding) is not Passed for finding in findings.values()):
                break
            again, took = await self._round(step, attempt, stale, on_answer)
            asked |= dict.fromkeys(stale, now)
            findings |= again
            needed |= took
            asking += max(took.values())
        return Inquiry(findings, began, asking)

    async def _round(
        self, step: Step[Any], attempt: str, sources: Mapping[str, AnySource], on_answer: OnAnswer | None
    ) -> tuple[dict[str, Finding], dict[str, timedelta]]:
        calls: dict[str, Limited[Finding]] = {}
        windows: dict[str, Coverage] = {}
        answered: dict[str, Instant] = {}  # in a thread, before the event loop heard of it
        began = self.clock.now()
        for name, source in sources.items():
            subject = Attempt(self.migration, plain(step.from_phase), plain(step.to_phase), name, attempt)
            calls[name] = Limited(
                self._question(source, subject, windows, answered), source.timeout or self.evidence_timeout
            )

        def tell(name: str, settled: Settled[Finding]) -> None:
            answer = SourceAnswer(name, verdict_of(_finding(settled)), _between(began, settled.at), windows.get(name))
            try:
                assert on_answer is not None
                on_answer(answer)
            except Exception:
                _logger.exception("on_answer failed at the answer of %s", name)

        settled = await gather_within(self.clock, calls, tell if on_answer else None)
        findings = {name: _finding(settled[name]) for name in sources}
        return findings, {name: _between(began, answered.get(name, each.at)) for name, each in settled.items()}

    def _question(
        self, source: AnySource, subject: Attempt, windows: dict[str, Coverage], answered: dict[str, Instant]
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
            heard = functools.partial(answered.__setitem__, subject.source)
            return judge_answer(await self._answer_of(source.check, heard))

        return ask

    async def _answer_of(self, check: Callable[[], Any], answered: Callable[[Instant], None]) -> object:
        if inspect.iscoroutinefunction(check):
            return await check()

        @functools.wraps(check, updated=())
        def ask() -> Any:
            answer = check()
            if not inspect.isawaitable(answer):
                answered(self.clock.now())
            return answer

        answer = await self.run_sync(ask)
        return await answer if inspect.isawaitable(answer) else answer


def _between(earlier: Instant, later: Instant) -> timedelta:
    return timedelta(microseconds=later.ns_since(earlier) // 1_000)


def _finding(settled: Settled[Finding]) -> Finding:
    return settled.result.value if isinstance(settled.result, Ok) else _broken(settled.result.error)


def _broken(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    cancelled = CheckCancelledError(describe(error))
    cancelled.__cause__ = error
    return cancelled
