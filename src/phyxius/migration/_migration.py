"""The live migration: a spec bound to its stores."""

from __future__ import annotations

import functools
import inspect
import uuid
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Generic, overload

import attrs
from typing_extensions import ParamSpec, TypeVar

from phyxius.clock import Clock, SystemClock, run_in_thread
from phyxius.fp import Err, Result
from phyxius.journal import Journal
from phyxius.migration._advance import AdvanceCall, Runtime
from phyxius.migration._decision import Step, next_step, readiness_of
from phyxius.migration._errors import MemoryPhaseStoreWarning, SpecError, UnknownPhaseError
from phyxius.migration._evidence import JournalWindowEvidence, check_duration
from phyxius.migration._inquiry import Inquirer, RunSync
from phyxius.migration._memory_journal_store import create_memory_journal_store
from phyxius.migration._memory_phase_store import create_memory_phase_store
from phyxius.migration._outcomes import Advanced, AdvanceError, OnAnswer, Readiness, SourceAnswer
from phyxius.migration._phased_calls import PhasedCalls
from phyxius.migration._spec import MigrationSpec
from phyxius.migration._stores import JournalStore, PhaseStore
from phyxius.migration._wording import plain, representation

P = TypeVar("P", bound=str, default=str)
Q = ParamSpec("Q")
R = TypeVar("R")


class Migration(Generic[P]):
    """A migration that runs; made by `create_migration`."""

    def __init__(self, runtime: Runtime[P]) -> None:
        self._runtime = runtime
        self._spec = runtime.spec
        self._phase_store = runtime.phase_store
        self._phases: dict[object, P] = {phase: phase for phase in runtime.spec.order}

    @property
    def spec(self) -> MigrationSpec[P]:
        """What was defined."""
        return self._spec

    @property
    def name(self) -> str:
        """The name of the spec."""
        return self._spec.name

    @property
    def journal(self) -> Journal[Any]:
        """The journal that takes its audit events."""
        return self._runtime.journal

    @property
    def phase_store(self) -> PhaseStore:
        """The store that holds its phase."""
        return self._runtime.phase_store

    @property
    def journal_store(self) -> JournalStore:
        """The store that its journal windows are asked of."""
        return self._runtime.inquirer.journal_store

    async def current_phase(self) -> P:
        """The phase now: a live read of the phase store, every time.

        Raises:
            UnknownPhaseError: The store answered with a phase that the spec does not have.
            Exception: Whatever the store raised, as it is.
        """
        recorded: object = await self._phase_store.current()
        try:
            return self._phases[recorded]
        except (KeyError, TypeError):
            raise self._unknown(recorded) from None

    async def advance(
        self, to: P | None = None, *, on_answer: OnAnswer | None = None
    ) -> Result[Advanced[P], AdvanceError[P]]:
        """Take the next step, if every source that guards it is a true `Ok` now.

        The phase is read once, all sources are asked at once, and the step is a compare-and-set against the
        phase that was read. Whatever happens, the call leaves one audit event named
        `migration.<name>.advance` in the journal. Cancelled before the compare-and-set, nothing moves; from
        then on it completes, and the cancellation goes on after it.

        Args:
            to: The phase that the caller means to reach; if another one is next, nothing moves. Give it wherever
                two people, or a cron job and a person, may press at once.
            on_answer: Is told of the answer of each source as it comes, for progress on a screen; a source that is
                judged twice is told of twice. It decides nothing.

        Returns:
            `Ok(Advanced(...))`, or `Err` of what blocked it: `AlreadyAtFinal`, `EvidenceFailed`,
            `EvidenceErrored`, `CasLost`, `NotNext`, `StoreErrored` or `SpecChanged`. It does not raise.
        """
        return await AdvanceCall(self._runtime, to, on_answer).run()

    async def readiness(self, *, on_answer: OnAnswer | None = None) -> Readiness[P]:
        """What `advance()` would find now: the same evaluation, and neither a transition nor an audit event.

        It is for people, dashboards and CI. No `advance()` ever relies on it.

        Args:
            on_answer: As for `advance()`.

        Raises:
            UnknownPhaseError: The store answered with a phase that the spec does not have.
            TimeoutError: The phase store did not answer within `evidence_timeout`.
            Exception: Whatever the phase store raised, as it is.
        """
        answer = await self._runtime.read_phase()
        if isinstance(answer, Err):
            raise answer.error
        recorded = answer.value
        if recorded not in self._phases:
            raise self._unknown(recorded)
        step = next_step(self._spec, recorded, None)
        if not isinstance(step, Step):
            return Readiness(self._phases[recorded], None, {}, ready=False, ready_at=None)
        answers: dict[str, SourceAnswer] = {}

        def told(answer: SourceAnswer) -> None:
            answers[answer.source] = answer
            if on_answer is not None:
                on_answer(answer)

        inquiry = await self._runtime.inquirer.ask(step, uuid.uuid4().hex, told)
        found = readiness_of(step, inquiry.findings)
        coverage = {name: answer.coverage for name, answer in answers.items() if answer.coverage is not None}
        return attrs.evolve(found, coverage=coverage)

    @overload
    def by_phase(
        self, handlers: Mapping[P, Callable[Q, Awaitable[R]]], /, *, record_as: str | None = None
    ) -> Callable[Q, Coroutine[Any, Any, R]]: ...
    @overload
    def by_phase(
        self, handlers: Mapping[P, Callable[Q, R | Awaitable[R]]], /, *, record_as: str | None = None
    ) -> Callable[Q, Coroutine[Any, Any, R]]: ...
    def by_phase(
        self, handlers: Mapping[P, Callable[..., Any]], /, *, record_as: str | None = None
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """One async callable that reads the phase at each call and hands over to the function for it.

        Args:
            handlers: For each phase of the spec an async or a plain function, all with the same signature.
            record_as: Records each call in the journal under this name, as `recorded` does, with the phase that it
                ran under as `observed["phase"]`, which `ran_under` finds.

        Returns:
            A callable with their signature; it raises what `current_phase()` and the functions raise.

        Raises:
            SpecError: A phase is missing or is not of the spec, a value cannot be called, or is a generator that
                should be recorded.
        """
        self._check_handlers(handlers, record_as)
        routes = dict(handlers)

        async def route(*args: Any, **kwargs: Any) -> Any:
            answer = routes[await self.current_phase()](*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        if record_as is None:
            return functools.wraps(next(iter(routes.values())))(route)
        calls = PhasedCalls(self.journal, record_as, self._spec.order)

        async def recorded_route(*args: Any, **kwargs: Any) -> Any:
            while True:
                with calls.begin() as recording:
                    phase = await self.current_phase()
                calls.runs_under(recording, phase)
                with recording:
                    # Other processes know of it only once it is stored, and may have gone on since the phase was read.
                    if await recording.keep_start_async() and await self.current_phase() != phase:
                        continue
                    answer = routes[phase](*args, **kwargs)
                    return recording.checked(await answer if inspect.isawaitable(answer) else answer)

        return functools.wraps(next(iter(routes.values())))(recorded_route)

    def _check_handlers(self, handlers: Mapping[P, Callable[..., Any]], record_as: str | None) -> None:
        missing = [plain(phase) for phase in self._spec.order if phase not in handlers]
        unknown = [plain(phase) for phase in handlers if phase not in self._phases]
        if missing or unknown:
            lacks = f"lacks {missing}" if missing else ""
            extra = f"has {unknown}, which the spec does not know" if unknown else ""
            raise SpecError(f"by_phase() {' and '.join(filter(None, (lacks, extra)))}", self.name)
        for phase, handler in handlers.items():
            if not callable(handler):
                raise SpecError(f"by_phase() needs a function for each phase, not {handler!r}", self.name, phase)
            if record_as is not None and (inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler)):
                raise SpecError(
                    "a generator cannot be recorded: it has no one end; write `with recorded(...)` around the work "
                    "that counts",
                    self.name,
                    phase,
                )
        if record_as is not None and (not isinstance(record_as, str) or not record_as):
            raise SpecError(f"record_as must be a text that is not empty, not {record_as!r}", self.name)

    def _unknown(self, recorded: object) -> UnknownPhaseError:
        return UnknownPhaseError(self.name, recorded, tuple(map(plain, self._spec.order)))


def create_migration(
    spec: MigrationSpec[P],
    *,
    journal: Journal[Any],
    clock: Clock | None = None,
    journal_store: JournalStore | None = None,
    phase_store: PhaseStore | None = None,
    initial_phase: P | None = None,
    evidence_timeout: timedelta = timedelta(seconds=30),
    single_process: bool = False,
    run_sync: RunSync | None = None,
) -> Migration[P]:
    """Bind a spec to its journal and its stores.

    Args:
        spec: What `define_migration` made.
        journal: Takes the audit events; without a `journal_store` the evidence is asked of it too.
        clock: The journal's clock, unless given; no other is right.
        journal_store: Answers the journal windows; by default the memory store over `journal`.
        phase_store: Holds the phase; by default in memory, where it is lost at exit.
        initial_phase: Where a phase store in memory begins; the first phase unless given.
        evidence_timeout: How long a source may take that says nothing else, and a read of the phase store.
        single_process: Says that no other process takes part, so that a journal of this process alone may
            vouch for a phase that others could see.
        run_sync: Runs a plain check and is awaited for its answer; by default each has a thread of its own.

    Raises:
        SpecError: The parts do not fit: a store that lacks an operation or is another migration's, two clocks, an
            initial phase that the spec does not have or beside a phase store of one's own, a fleet's phases with the
            journal of one process.

    Warns:
        MemoryPhaseStoreWarning: The phase store is the default one, and time is real.
    """
    if type(spec) is not MigrationSpec:
        raise SpecError(f"create_migration() needs what define_migration() made, not {spec!r}")
    check_duration(evidence_timeout, "evidence_timeout")
    clock = journal.clock if clock is None else clock
    for owner, other in (
        ("journal", journal),
        ("journal store", journal_store),
        ("phase store", phase_store),
    ):
        if getattr(other, "clock", clock) is not clock:
            raise SpecError(f"the {owner} has another clock; use one clock for everything", spec.name)
    whose = getattr(phase_store, "migration", None)
    if isinstance(whose, str) and whose != spec.name:
        raise SpecError(f'the phase store is that of migration "{whose}"; give the one of this migration', spec.name)
    _check_offers(spec, "phase", phase_store, "current", "try_advance")
    _check_offers(spec, "journal", journal_store, "query")
    if initial_phase is not None and initial_phase not in spec.phases:
        raise SpecError(
            f'initial_phase must be one of {list(map(plain, spec.order))}, not "{plain(initial_phase)}"', spec.name
        )
    if initial_phase is not None and phase_store is not None:
        raise SpecError("the phase store holds the phase: give the initial phase to the store", spec.name)
    journal_store = create_memory_journal_store(journal=journal) if journal_store is None else journal_store
    if phase_store is None:
        phase_store = create_memory_phase_store(initial=initial_phase or spec.order[0], clock=clock)
        if isinstance(clock, SystemClock):
            warnings.warn(
                f'migration "{spec.name}" keeps its phase in memory: it is lost at exit, and two processes would hold '
                "two phases; give phase_store=, be it create_memory_phase_store(...) to say that this is meant",
                MemoryPhaseStoreWarning,
                stacklevel=2,
            )
    _check_scopes(spec, phase_store, journal_store, single_process)
    inquirer = Inquirer(spec.name, clock, journal, journal_store, run_sync or run_in_thread, evidence_timeout)
    return Migration(Runtime(spec, clock, journal, phase_store, inquirer, evidence_timeout))


def _check_offers(spec: MigrationSpec[Any], kind: str, store: object, *operations: str) -> None:
    for operation in operations:
        # Asked of the class, since to look it up may run foreign code; an instance may have its own, or a proxy any.
        places = {*dir(type(store)), *getattr(store, "__dict__", {})}
        if store is not None and not places & {operation, "__getattr__"}:
            raise SpecError(f"the {kind} store {representation(store)} has no {operation}()", spec.name)


def _check_scopes(
    spec: MigrationSpec[Any], phase_store: PhaseStore, journal_store: JournalStore, single_process: bool
) -> None:
    scopes = {
        "phase": getattr(phase_store, "scope", "fleet"),
        "journal": getattr(journal_store, "scope", "process"),
    }
    for kind, scope in scopes.items():
        if scope not in ("process", "fleet"):
            raise SpecError(f'the scope of a {kind} store is "process" or "fleet", not {scope!r}', spec.name)
    if single_process or (scopes["phase"], scopes["journal"]) != ("fleet", "process"):
        return
    for phase, phase_spec in spec.phases.items():
        for name, source in phase_spec.evidence.items():
            if isinstance(source, JournalWindowEvidence):
                raise SpecError(
                    "the phase is shared by a fleet, but the journal sees this process alone, so each process would "
                    "vouch for its own slice; give a journal store of the fleet, or single_process=True if there is "
                    "only this one",
                    spec.name,
                    phase,
                    name,
                )
