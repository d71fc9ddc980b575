"""The protocols: stores and clocks of one's own, and the library's own ones. The journal and its data."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from typing_extensions import assert_type

from phyxius import (
    AttemptFencedError,
    Clock,
    Committed,
    Conflict,
    ControlledClock,
    Err,
    EvidenceSnapshot,
    Gap,
    HandlerEvent,
    Instant,
    Journal,
    JournalEntry,
    JournalNotice,
    JournalQuery,
    JournalSerializer,
    JournalSnapshot,
    JournalStore,
    JournalWindow,
    MemoryJournalStore,
    MemoryPhaseStore,
    Migration,
    MigrationSpec,
    Ok,
    PhaseStore,
    Result,
    SystemClock,
    TimerHandle,
    Transition,
    create_controlled_clock,
    create_memory_journal_store,
    create_memory_phase_store,
    create_migration,
    create_system_clock,
    err,
    event_serializer,
    ok,
    run_in_thread,
    timeout,
)

# -- stores


class LeastPhaseStore:
    async def current(self) -> str:
        return "expand"

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot
    ) -> Result[Committed, Conflict]:
        if from_phase != await self.current():
            return err(Conflict(actual="flip"))
        return ok(Committed(at=Instant(wall_ns=0, mono_ns=None)))


class OtherNames:
    async def current(self) -> Literal["expand", "contract"]:
        return "expand"

    async def try_advance(self, old: str, new: str, snapshot: EvidenceSnapshot, /) -> Ok[Committed] | Err[Conflict]:
        return Err(Conflict(snapshot.attempt))


class FullPhaseStore(PhaseStore):
    scope: Literal["fleet"] = "fleet"

    def __init__(self) -> None:
        self.transitions: list[Transition] = []

    async def current(self) -> str:
        return self.transitions[-1].to_phase

    async def try_advance(
        self, from_phase: str, to_phase: str, evidence: EvidenceSnapshot, /
    ) -> Result[Committed, Conflict]:
        raise AttemptFencedError(evidence.attempt)

    async def resolve(self, attempt: str, /) -> Committed | None:
        return None

    async def history(self) -> Sequence[Transition]:
        return self.transitions


class LeastJournalStore:
    async def query(self, query: JournalQuery, window: timedelta) -> JournalWindow:
        now = datetime.now(UTC)
        return JournalWindow([], since=now - window, until=now, gaps=[])


class FleetJournalStore(JournalStore):
    scope: ClassVar[str] = "fleet"

    async def query(self, query: JournalQuery, window: timedelta, /) -> JournalWindow:
        now = datetime.now(UTC)
        gap = Gap(since=now - window, until=now, reason="nobody knows", recorder="api-7f9c")
        return JournalWindow((), since=now - window, until=now, gaps=(gap,), truncated=True, witnessed=True)


clock = create_controlled_clock()
journal = Journal(clock=clock)
phase_stores: list[PhaseStore] = [
    LeastPhaseStore(),
    OtherNames(),
    FullPhaseStore(),
    create_memory_phase_store(initial="expand", clock=clock),
]
journal_stores: list[JournalStore] = [
    LeastJournalStore(),
    FleetJournalStore(),
    create_memory_journal_store(journal=journal, clock=clock),
    create_memory_journal_store(journal=journal),
]
least_phase_store: PhaseStore = LeastPhaseStore()
memory_phase_store: PhaseStore = create_memory_phase_store(initial="expand", clock=clock)
memory_journal_store: JournalStore = create_memory_journal_store(journal=journal)
assert_type(create_memory_phase_store(initial="expand", clock=clock), MemoryPhaseStore)
assert_type(create_memory_journal_store(journal=journal), MemoryJournalStore)


async def looked_up(store: MemoryPhaseStore) -> None:
    assert_type(await store.resolve("attempt"), Committed | None)
    assert_type(await store.history(), Sequence[Transition])
    assert_type(store.scope, Literal["process"])
    assert_type(store.clock, Clock)


async def in_place(check: Callable[[], Any]) -> Any:
    return check()


def in_executor(check: Callable[[], Any]) -> Awaitable[Any]:
    return run_in_thread(check)


def bound(spec: MigrationSpec[Literal["expand", "contract"]]) -> list[Migration[Literal["expand", "contract"]]]:
    return [
        create_migration(spec, journal=journal, journal_store=LeastJournalStore(), phase_store=LeastPhaseStore()),
        create_migration(spec, journal=journal, journal_store=FleetJournalStore(), phase_store=FullPhaseStore()),
        create_migration(spec, journal=journal, phase_store=OtherNames(), single_process=True, run_sync=in_place),
        create_migration(spec, journal=journal, phase_store=memory_phase_store, run_sync=in_executor),
        create_migration(spec, journal=Journal[HandlerEvent](clock=clock), initial_phase="contract"),
    ]


# -- clocks


class Timer:
    def cancel(self) -> None: ...


class OtherClock:
    """A clock of a third party, with its own parameter names and a richer timer."""

    def now(self) -> Instant:
        return Instant(wall_ns=0, mono_ns=0)

    async def sleep(self, for_: timedelta) -> None: ...

    async def sleep_until(self, moment: datetime) -> None: ...

    def interval(self, every: timedelta, function: Callable[[], object]) -> Timer:
        return Timer()


clocks: list[Clock] = [OtherClock(), create_system_clock(), create_controlled_clock(datetime(2026, 1, 1, tzinfo=UTC))]
other_clock: Clock = OtherClock()
Journal(clock=OtherClock())
assert_type(create_controlled_clock(initial_time=datetime(2026, 1, 1, tzinfo=UTC)), ControlledClock)
assert_type(create_system_clock(), SystemClock)
assert_type(clock.now().wall, datetime)
assert_type(clock.pending_timers, int)


async def timed(some: Clock) -> None:
    handle = some.interval(timedelta(seconds=1), lambda: None)
    assert_type(handle, TimerHandle)
    handle.cancel()
    async with timeout(some, timedelta(seconds=5)):
        await some.sleep(timedelta(seconds=1))
        await some.sleep_until(datetime(2026, 1, 1, tzinfo=UTC))
    clock.advance_by(timedelta(days=14))
    clock.jump_wall_time(datetime(2026, 1, 1, tzinfo=UTC))
    clock.tick()
    await clock.elapse(timedelta(seconds=1), wait_for_threads=False)


# -- the journal


def of_anything(some: Journal) -> None:
    assert_type(some, Journal[Any])
    some.append({"free": "form"})
    some.append(HandlerEvent("quote.read", "success", clock.now()))


assert_type(journal, Journal[Any])
events = Journal[HandlerEvent](
    clock=clock, max_entries=10, overflow="drop_oldest", serializer=event_serializer, id_generator=lambda: "id"
)
from_serializer = Journal(clock=clock, serializer=event_serializer, emit=lambda notice: print(notice.kind))
assert_type(from_serializer, Journal[HandlerEvent])
annotated: Journal[HandlerEvent] = Journal(clock=clock)
assert_type(events.append(HandlerEvent("quote.read", "success", clock.now())), JournalEntry[HandlerEvent])
assert_type(events.first(), JournalEntry[HandlerEvent] | None)
assert_type(events.entry(0), JournalEntry[HandlerEvent] | None)
assert_type(iter(events), Iterator[JournalEntry[HandlerEvent]])
assert_type(events.snapshot(), JournalSnapshot[HandlerEvent])
assert_type([entry.data.name for entry in events], list[str])
assert_type(events.to_json(), str)
assert_type(events.declared, frozenset[str])
assert_type(events.complete_since, Instant)
assert_type(Journal[HandlerEvent].from_json("", clock=clock, serializer=event_serializer), Journal[HandlerEvent])
events.declare("quote.read", "quote.write")
unsubscribe = events.subscribe(lambda entry: print(entry.data.outcome))
assert_type(unsubscribe, Callable[[], None])
create_memory_journal_store(journal=events)


def told(notice: JournalNotice) -> None:
    print(notice.error, notice.sequence)


class Numbers:
    def dump(self, data: int) -> object:
        return data

    def load(self, value: object) -> int:
        assert isinstance(value, int)
        return value


numbers = Journal(clock=clock, serializer=Numbers(), emit=told)
serializer: JournalSerializer[int] = Numbers()
assert_type(numbers, Journal[int])
restored: Journal[int] = Journal.from_json(numbers.to_json(), clock=clock, serializer=Numbers())
wider: JournalEntry[object] = numbers.append(1)

# -- events

event = HandlerEvent(
    name="quote.read",
    outcome="failure",
    completed_at=clock.now(),
    started_at=clock.now(),
    source="connector",
    observed={"rows": 3, "tenant": "acme"},
    attempts=2,
    invocation_id="i",
    correlation_id="c",
)
assert_type(event.duration, timedelta)
assert_type(event.outcome, Literal["success", "failure"])
assert_type(event.started_at, Instant)
HandlerEvent("quote.read", "success", clock.now(), started_at=None)
