"""One call of `advance()`, from reading the phase to its one audit event."""

from __future__ import annotations

import asyncio
import uuid
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Generic, Literal, TypeAlias

import attrs
from typing_extensions import TypeVar

from phyxius.clock import Clock, Limited, gather_within
from phyxius.fp import Err, Ok, Result
from phyxius.journal import Journal
from phyxius.migration._audit import audit_event, cancelled_details, payloads_of, refusal_details, write_audit
from phyxius.migration._decision import Finding, Step, next_step, refusal_for
from phyxius.migration._errors import SpecChangedError, WrongShapeError
from phyxius.migration._inquiry import Inquirer
from phyxius.migration._outcomes import Advanced, AdvanceError, CasLost, SpecChanged, StoreErrored
from phyxius.migration._spec import MigrationSpec
from phyxius.migration._stores import Committed, Conflict, EvidenceSnapshot, PhaseStore

P = TypeVar("P", bound=str, default=str)
Answer: TypeAlias = Result[Advanced[P], AdvanceError[P]]

# The event loop holds tasks weakly, and a commit must outlive whoever asked for it.
_commits: set[asyncio.Task[Any]] = set()


@attrs.frozen
class Runtime(Generic[P]):
    """What a migration runs on."""

    spec: MigrationSpec[P]
    clock: Clock
    journal: Journal[Any]
    phase_store: PhaseStore
    inquirer: Inquirer
    evidence_timeout: timedelta

    async def read_phase(self) -> str:
        """The phase that the store has, read under the limit.

        Raises:
            TimeoutError: The store did not answer in time.
            WrongShapeError: The store answered with no text.
            BaseException: Whatever the store raised.
        """
        answer = await self.ask_store(self.phase_store.current)
        if isinstance(answer, Err):
            raise answer.error
        if not issubclass(type(answer.value), str):
            raise WrongShapeError(f"{answer.value!r}", "a phase")
        return str.__str__(answer.value)

    async def ask_store(self, function: Callable[[], Any]) -> Result[Any, BaseException]:
        """Ask the phase store something that may be given up on."""
        call = Limited(function, self.evidence_timeout)
        return (await gather_within(self.clock, {"store": call}))["store"].result


class AdvanceCall(Generic[P]):
    """One call. It is run once."""

    def __init__(self, runtime: Runtime[P], to: P | None) -> None:
        self._runtime = runtime
        self._to = to
        self._attempt = uuid.uuid4().hex
        self._began = runtime.clock.now()
        self._from: str | None = None
        self._attempted: str | None = None
        self._findings: Mapping[str, Finding] = {}
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
        try:
            recorded = await runtime.read_phase()
        except SpecChangedError as error:
            return SpecChanged(error.recorded, error.declared)
        except CancelledError as error:
            # Ours goes on; one that the store raised by itself is a failure like any other.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return StoreErrored("current", error, "no")
        except Exception as error:  # noqa: BLE001 - the boundary of a store
            return StoreErrored("current", error, "no")
        self._from = recorded
        step = next_step(runtime.spec, recorded, self._to)
        if not isinstance(step, Step):
            self._attempted = None if self._to is None else str(self._to)
            return step
        self._attempted = str(step.to_phase)
        self._findings = await runtime.inquirer.ask(step, self._attempt)
        return refusal_for(step, self._findings) or step

    async def _commit(self, step: Step[P]) -> Answer[P]:
        """Run the commit in a task that nobody else can cancel half-way, and wait until it has ended."""
        task = asyncio.get_running_loop().create_task(self._transition(step))
        _commits.add(task)
        task.add_done_callback(_commits.discard)
        interrupted: CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except CancelledError as error:
                interrupted = error
        if not self._committing:  # the loop shut down before the task had its first step
            self._audit(cancelled_details())
        if interrupted is not None:
            raise interrupted
        return task.result()

    async def _transition(self, step: Step[P]) -> Answer[P]:
        self._committing = True
        snapshot = EvidenceSnapshot(self._attempt, payloads_of(self._findings))
        outcome: Advanced[P] | AdvanceError[P]
        try:
            answer = await self._runtime.phase_store.try_advance(str(step.from_phase), str(step.to_phase), snapshot)
            outcome = self._outcome_of(step, answer)
        except SpecChangedError as error:
            outcome = SpecChanged(error.recorded, error.declared)
        except (Exception, CancelledError) as error:  # noqa: BLE001 - the boundary of a store
            outcome = await self._resolve(step, error)
        if not isinstance(outcome, Advanced):
            return self._refuse(outcome)
        audit_error = self._audit(None)
        return Ok(attrs.evolve(outcome, audit_error=audit_error))

    def _outcome_of(self, step: Step[P], answer: object) -> Advanced[P] | CasLost[P] | SpecChanged:
        if type(answer) is Ok and type(answer.value) is Committed:
            return self._advanced(step, answer.value)
        if type(answer) is Err and type(answer.error) is Conflict and issubclass(type(answer.error.actual), str):
            order, actual = self._runtime.spec.order, answer.error.actual
            if actual not in order:
                return SpecChanged((str.__str__(actual),), tuple(map(str, order)))
            return CasLost(step.from_phase, order[order.index(actual)])
        raise WrongShapeError(f"{answer!r}", "Ok(Committed(...)) or Err(Conflict(...)) from try_advance")

    def _advanced(self, step: Step[P], committed: Committed) -> Advanced[P]:
        return Advanced(step.from_phase, step.to_phase, payloads_of(self._findings), committed.at)

    async def _resolve(self, step: Step[P], error: BaseException) -> Advanced[P] | StoreErrored:
        """What became of a commit whose store failed; only the store can know."""
        resolve = getattr(self._runtime.phase_store, "resolve", None)
        committed: Literal["no", "unknown"] = "unknown"
        if resolve is not None:
            try:
                answer = await self._runtime.ask_store(lambda: resolve(self._attempt))
            except CancelledError as cancelled:  # the loop is shutting down
                answer = Err(cancelled)
            if type(answer) is Ok and type(answer.value) is Committed:
                return self._advanced(step, answer.value)
            if type(answer) is Ok and answer.value is None:
                committed = "no"
        return StoreErrored("try_advance", error, committed)

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
            findings=self._findings,
            refusal=refusal,
        )
        return write_audit(self._runtime.journal, event)
