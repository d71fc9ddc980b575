"""One call of `advance()`, from reading the phase to its one audit event."""

from __future__ import annotations

import uuid
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Generic, TypeAlias

import attrs
from typing_extensions import TypeVar

from phyxius.clock import Clock, Limited, gather_within, uninterrupted
from phyxius.fp import Err, Ok, Result
from phyxius.journal import Journal
from phyxius.migration._audit import (
    audit_event,
    cancelled_details,
    payloads_of,
    refusal_details,
    write_audit,
)
from phyxius.migration._decision import Step, next_step, refusal_for
from phyxius.migration._errors import EvidenceOvertakenError, SpecChangedError, WrongShapeError
from phyxius.migration._failure import EvidenceWithdrawnError
from phyxius.migration._inquiry import Inquirer, Inquiry
from phyxius.migration._outcomes import (
    Advanced,
    AdvanceError,
    CasLost,
    EvidenceErrored,
    EvidenceFailed,
    OnAnswer,
    SpecChanged,
    StoreErrored,
)
from phyxius.migration._spec import MigrationSpec
from phyxius.migration._stores import Committed, Conflict, EvidenceSnapshot, PhaseStore
from phyxius.migration._wording import plain, representation

P = TypeVar("P", bound=str, default=str)
Answer: TypeAlias = Result[Advanced[P], AdvanceError[P]]


@attrs.frozen
class Runtime(Generic[P]):
    """What a migration runs on."""

    spec: MigrationSpec[P]
    clock: Clock
    journal: Journal[Any]
    phase_store: PhaseStore
    inquirer: Inquirer
    evidence_timeout: timedelta

    async def read_phase(self) -> Result[str, BaseException]:
        """The phase that the store has, read under the limit, or what the store did instead of answering.

        That is a value, so that a `CancelledError` of the store's own is never taken for one of the caller's.
        """
        answer = await self.ask_store(self._current)
        if isinstance(answer, Err):
            return answer
        if not issubclass(type(answer.value), str):
            return Err(WrongShapeError(representation(answer.value), "a phase"))
        return Ok(plain(answer.value))

    async def _current(self) -> str:
        phase = await self.phase_store.current()
        check_order = getattr(self.phase_store, "check_order", None)
        if check_order is not None:
            await check_order()
        return phase

    async def ask_store(self, function: Callable[[], Any]) -> Result[Any, BaseException]:
        """Ask the phase store something that may be given up on."""
        call = Limited(function, self.evidence_timeout)
        return (await gather_within(self.clock, {"store": call}))["store"].result


class AdvanceCall(Generic[P]):
    """One call. It is run once."""

    def __init__(self, runtime: Runtime[P], to: P | None, on_answer: OnAnswer | None = None) -> None:
        self._runtime = runtime
        self._on_answer = on_answer
        self._to = None if to is None else plain(to)
        self._attempt = uuid.uuid4().hex
        self._began = runtime.clock.now()
        self._from: str | None = None
        self._attempted = self._to
        self._inquiry = Inquiry({}, self._began, timedelta(0))
        self._committing = False

    async def run(self) -> Answer[P]:
        """Decide, commit if every source was a true `Ok`, audit, answer."""
        decided = False
        try:
            decision = await self._decide()
            decided = True
        finally:
            if not decided:
                self._audit(cancelled_details())
        if isinstance(decision, Step):
            return await self._commit(decision)
        return self._refuse(decision)

    async def _decide(self) -> Step[P] | AdvanceError[P]:
        runtime = self._runtime
        recorded = await runtime.read_phase()
        if isinstance(recorded, Err):
            if isinstance(recorded.error, SpecChangedError):
                return SpecChanged(recorded.error.recorded, recorded.error.declared)
            return StoreErrored("current", recorded.error, "no")
        self._from = recorded.value
        step = next_step(runtime.spec, recorded.value, self._to)
        if not isinstance(step, Step):
            return step
        self._attempted = plain(step.to_phase)
        self._inquiry = await runtime.inquirer.ask(step, self._attempt, self._on_answer)
        return refusal_for(step, self._inquiry.findings) or step

    async def _commit(self, step: Step[P]) -> Answer[P]:
        """Run the commit in a task that nobody else can cancel half-way, and wait until it has ended."""
        try:
            return await uninterrupted(self._transition(step))
        finally:
            if not self._committing:  # the loop shut down before the task had its first step
                self._audit(cancelled_details())

    async def _transition(self, step: Step[P]) -> Answer[P]:
        self._committing = True
        snapshot = EvidenceSnapshot(self._attempt, payloads_of(self._inquiry.findings), self._check_standing)
        phases = plain(step.from_phase), plain(step.to_phase)
        outcome: Advanced[P] | AdvanceError[P]
        try:
            self._check_standing()
            outcome = self._outcome_of(step, await self._runtime.phase_store.try_advance(*phases, snapshot))
        except SpecChangedError as error:
            outcome = SpecChanged(error.recorded, error.declared)
        except EvidenceWithdrawnError as error:
            outcome = EvidenceFailed(step.to_phase, error.failures)
        except EvidenceOvertakenError as error:
            outcome = EvidenceErrored(step.to_phase, dict.fromkeys(step.sources, error), {})
        except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:  # there is nobody left to ask or to answer
            self._refuse(StoreErrored("try_advance", error, "unknown"))
            raise
        except BaseException as error:  # noqa: BLE001 - the boundary of a store
            outcome = await self._resolve(step, error)
        if not isinstance(outcome, Advanced):
            return self._refuse(outcome)
        audit_error = self._audit(None)
        return Ok(attrs.evolve(outcome, audit_error=audit_error))

    def _check_standing(self) -> None:
        self._inquiry.check_standing(self._runtime.clock.now())

    def _outcome_of(self, step: Step[P], answer: object) -> Advanced[P] | CasLost[P] | SpecChanged:
        if type(answer) is Ok and type(answer.value) is Committed:
            return self._advanced(step, answer.value)
        if type(answer) is Err and type(answer.error) is Conflict and issubclass(type(answer.error.actual), str):
            order, actual = self._runtime.spec.order, plain(answer.error.actual)
            if actual not in order:
                return SpecChanged((actual,), tuple(map(plain, order)))
            return CasLost(step.from_phase, order[order.index(actual)])
        raise WrongShapeError(representation(answer), "Ok(Committed(...)) or Err(Conflict(...)) from try_advance")

    def _advanced(self, step: Step[P], committed: Committed) -> Advanced[P]:
        return Advanced(step.from_phase, step.to_phase, payloads_of(self._inquiry.findings), committed.at)

    async def _resolve(self, step: Step[P], error: BaseException) -> Advanced[P] | StoreErrored:
        """What became of a commit whose store failed; only the store can know."""
        store: Any = self._runtime.phase_store  # whether it has a `resolve` shows when it is asked for it
        try:
            answer = await self._runtime.ask_store(lambda: store.resolve(self._attempt))
        except CancelledError as cancelled:  # the loop is shutting down
            answer = Err(cancelled)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):  # there is nobody left to ask or to answer
            self._refuse(StoreErrored("try_advance", error, "unknown"))
            raise
        if isinstance(answer, Ok) and type(answer.value) is Committed:
            return self._advanced(step, answer.value)
        fenced = isinstance(answer, Ok) and answer.value is None
        return StoreErrored("try_advance", error, "no" if fenced else "unknown")

    def _refuse(self, refusal: AdvanceError[P]) -> Err[AdvanceError[P]]:
        audit_error = self._audit(refusal_details(refusal))
        return Err(attrs.evolve(refusal, audit_error=audit_error))

    def _audit(self, refusal: Mapping[str, object] | None) -> Exception | None:
        event = audit_event(
            migration=self._runtime.spec.name,
            attempt=self._attempt,
            from_phase=self._from,
            attempted=self._attempted,
            started_at=self._began,
            completed_at=self._runtime.clock.now(),
            findings=self._inquiry.findings,
            refusal=refusal,
        )
        return write_audit(self._runtime.journal, event, self._runtime.phase_store)
