"""Stores and clocks that do not satisfy their protocols, and misuse of those that do."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from phyxius import Clock, Committed, Conflict, EvidenceSnapshot, HandlerEvent, Instant, Journal, JournalQuery
from phyxius import JournalStore, JournalWindow, PhaseStore, Result, TimerHandle, create_controlled_clock
from phyxius import create_memory_journal_store, create_memory_phase_store, event_serializer, ok, timeout

clock = create_controlled_clock()
journal = Journal(clock=clock)
OfStore = Result[Committed, Conflict]

# -- phase stores


class NoTryAdvance:
    async def current(self) -> str:
        return "expand"


class NoCurrent:
    async def try_advance(self, old: str, new: str, evidence: EvidenceSnapshot) -> Result[Committed, Conflict]:
        return ok(Committed(clock.now()))


class SyncCurrent(NoCurrent):
    def current(self) -> str:
        return "expand"


class SyncTryAdvance(NoTryAdvance):
    def try_advance(self, old: str, new: str, evidence: EvidenceSnapshot) -> Result[Committed, Conflict]:
        return ok(Committed(clock.now()))


class TrueTryAdvance(NoTryAdvance):
    async def try_advance(self, old: str, new: str, evidence: EvidenceSnapshot) -> bool:
        return True


class NoEvidence(NoTryAdvance):
    async def try_advance(self, old: str, new: str) -> Result[Committed, Conflict]:
        return ok(Committed(clock.now()))


class KeywordEvidence(NoTryAdvance):
    async def try_advance(self, old: str, new: str, *, evidence: EvidenceSnapshot) -> Result[Committed, Conflict]:
        return ok(Committed(clock.now()))


class Narrow(NoTryAdvance, PhaseStore):
    async def try_advance(self, a: int, b: int, evidence: EvidenceSnapshot, /) -> OfStore:  # E: mypy, pyright
        return ok(Committed(clock.now()))


no_try_advance: PhaseStore = NoTryAdvance()  # E: mypy, pyright
no_current: PhaseStore = NoCurrent()  # E: mypy, pyright
sync_current: PhaseStore = SyncCurrent()  # E: mypy, pyright
sync_try_advance: PhaseStore = SyncTryAdvance()  # E: mypy, pyright
true_try_advance: PhaseStore = TrueTryAdvance()  # E: mypy, pyright
no_evidence: PhaseStore = NoEvidence()  # E: mypy, pyright
keyword_evidence: PhaseStore = KeywordEvidence()  # E: mypy, pyright
journal_as_store: PhaseStore = create_memory_journal_store(journal=journal)  # E: mypy, pyright
Committed(1_700_000_000)  # E: mypy, pyright
Committed(datetime.now())  # E: mypy, pyright
Conflict(None)  # E: mypy, pyright
create_memory_phase_store("expand", clock)  # E: mypy, pyright
create_memory_phase_store(initial="expand")  # E: mypy, pyright


async def used(store: PhaseStore, at: Instant) -> None:
    await store.try_advance("expand", "contract")  # E: mypy, pyright
    await store.try_advance(from_phase="a", to_phase="b", evidence=EvidenceSnapshot("id", {}))  # E: mypy, pyright
    await store.resolve("id")  # E: mypy, pyright
    Committed(at).at = at  # E: mypy, pyright


# -- journal stores


class ListStore:
    async def query(self, query: JournalQuery, window: timedelta) -> Sequence[HandlerEvent]:
        return []


class SyncStore:
    def query(self, query: JournalQuery, window: timedelta) -> JournalWindow:
        return JournalWindow([], since=datetime.min, until=datetime.max, gaps=[])


class SecondsStore:
    async def query(self, query: JournalQuery, window: float) -> JournalWindow:
        return JournalWindow([], since=datetime.min, until=datetime.max, gaps=[])


list_store: JournalStore = ListStore()  # E: mypy, pyright
sync_store: JournalStore = SyncStore()  # E: mypy, pyright
seconds_store: JournalStore = SecondsStore()  # E: mypy, pyright
journal_itself: JournalStore = journal  # E: mypy, pyright
create_memory_journal_store(journal)  # E: mypy, pyright
JournalWindow([], datetime.min, datetime.max, [])  # E: mypy, pyright
JournalWindow([], since=datetime.min, until=datetime.max)  # E: mypy, pyright
JournalWindow(["event"], since=datetime.min, until=datetime.max, gaps=[])  # E: mypy, pyright

# -- clocks


class Timer:
    def cancel(self) -> None: ...


class FloatClock:
    def now(self) -> float:
        return 0.0

    async def sleep(self, duration: timedelta) -> None: ...

    async def sleep_until(self, deadline: datetime) -> None: ...

    def interval(self, period: timedelta, callback: Callable[[], object]) -> Timer:
        return Timer()


class SyncSleep:
    def now(self) -> Instant:
        return Instant(wall_ns=0, mono_ns=0)

    def sleep(self, duration: timedelta) -> None: ...

    async def sleep_until(self, deadline: datetime) -> None: ...

    def interval(self, period: timedelta, callback: Callable[[], object]) -> Timer:
        return Timer()


float_clock: Clock = FloatClock()  # E: mypy, pyright
sync_sleep: Clock = SyncSleep()  # E: mypy, pyright
no_timer: TimerHandle = clock.advance_by  # E: mypy, pyright
Instant(0, 0) < Instant(1, 1)  # E: mypy, pyright
Instant(wall_ns=0)  # E: mypy, pyright
clock.advance_by(60)  # E: mypy, pyright
clock.advance_by(0.5)  # E: mypy, pyright
clock.jump_wall_time(timedelta(hours=1))  # E: mypy, pyright
clock.interval(5, print)  # E: mypy, pyright
clock.now().wall_ns = 0  # E: mypy, pyright
create_controlled_clock(0)  # E: mypy, pyright
timeout(clock, 5)  # E: mypy, pyright


async def misused() -> None:
    await clock.now()  # E: mypy, pyright
    await clock.sleep(5)  # E: mypy, pyright
    clock.sleep(timedelta(seconds=5))  # E: mypy, pyright
    await clock.advance_by(timedelta(seconds=5))  # E: mypy, pyright
    await journal.append(1)  # E: mypy, pyright
    with timeout(clock, timedelta(seconds=5)):  # E: mypy, pyright
        pass


# -- the journal

events = Journal[HandlerEvent](clock=clock)
Journal()  # E: mypy, pyright
Journal(clock)  # E: mypy, pyright
Journal(clock=clock, overflow="drop")  # E: mypy, pyright
Journal(clock=clock, serializer=lambda data: data)  # E: mypy, pyright
events.append("text")  # E: mypy, pyright
events.append(data=HandlerEvent("a", "success", clock.now()))  # E: mypy, pyright
events.declare(["quote.read"])  # E: mypy, pyright
events.subscribe(lambda: None)  # E: mypy, pyright
events.subscribe(lambda entry: entry.data.nmae)  # E: mypy, pyright
events.declared.add("quote.read")  # E: mypy, pyright
events.complete_since = clock.now()  # E: mypy, pyright
events.last().data  # E: mypy, pyright
wider: Journal[object] = events  # E: mypy, pyright
other: Journal[int] = Journal(clock=clock, serializer=event_serializer)  # E: mypy, pyright
