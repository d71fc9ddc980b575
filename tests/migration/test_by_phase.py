"""One callable that reads the phase and hands over."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Any
from unittest.mock import MagicMock

import pytest

from phyxius.fp import Ok, ok
from phyxius.handler import InFlightCall, correlated, observe, recorded
from phyxius.migration import (
    JournalQuery,
    SpecError,
    create_migration,
    define_migration,
    journal_window,
    no_events,
    ran_under,
)
from tests.migration.support import PHASES, Lab, RiggedStore, answering, build, forever, raising, rounds, waiting

SAVE = "quote.save"


def plain(quote: int, *, note: str = "") -> str:
    """Write the old way."""
    return f"plain {quote} {note}"


async def slow(quote: int, *, note: str = "") -> str:
    """Write both ways."""
    await rounds()
    return f"async {quote} {note}"


async def test_it_reads_the_phase_at_each_call() -> None:
    """The very next call after a flip runs under the new phase; plain and async functions mix."""
    lab = build()
    route: Any = lab.migration.by_phase({"expand": plain, "flip": slow, "contract": lambda quote, note: (quote, note)})
    assert await route(1, note="a") == "plain 1 a"
    await lab.advance()
    assert await route(2, note="b") == "async 2 b"
    await lab.advance()
    assert await route(3, note="c") == (3, "c")
    assert inspect.iscoroutinefunction(route)
    assert route.__name__ == "plain"
    assert route.__doc__ == "Write the old way."


async def test_a_call_keeps_its_phase() -> None:
    """A call that has read the phase runs under it to its end, though the phase flips meanwhile."""
    lab = build()
    route = lab.migration.by_phase(dict.fromkeys(PHASES, plain) | {"expand": slow})
    task = asyncio.ensure_future(route(1))
    await rounds(2)
    await lab.advance()
    assert await task == "async 1 "
    assert await route(1) == "plain 1 "


@pytest.mark.parametrize("handler", [functools.partial(plain, note="p"), MagicMock(return_value="plain 1 p")])
async def test_callables_without_a_name(handler: Any) -> None:
    """What can be called will do."""
    assert await build().migration.by_phase(dict.fromkeys(PHASES, handler))(1) == "plain 1 p"


@pytest.mark.parametrize("error", [KeyError("mine"), TypeError("mine"), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_handler_raises(error: BaseException, is_async: bool) -> None:
    """What a function raises goes through."""

    def fail() -> Any:
        raise error

    async def fail_later() -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        await build().migration.by_phase(dict.fromkeys(PHASES, fail_later if is_async else fail))()
    assert caught.value is error


@pytest.mark.parametrize(
    "handlers, parts",
    [
        ({"expand": plain}, ("lacks ['flip', 'contract']",)),
        ({}, ("lacks ['expand', 'flip', 'contract']",)),
        (dict.fromkeys((*PHASES, "drop"), plain), ("has ['drop']", "does not know")),
        ({"expand": plain, "flip": plain, "Contract": plain}, ("lacks ['contract']", "has ['Contract']")),
        (dict.fromkeys((*PHASES, None), plain), ("has ['None']",)),
    ],
)
def test_it_must_be_complete(handlers: Any, parts: tuple[str, ...]) -> None:
    """A phase that is missing, or one too many, is found when the callable is made, and named."""
    with pytest.raises(SpecError) as caught:
        build().migration.by_phase(handlers)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert caught.value.migration == "quotes"


@pytest.mark.parametrize("handler", [None, "write", 7])
def test_what_cannot_be_called(handler: Any) -> None:
    """A value that is no function is found when the callable is made, with its phase."""
    with pytest.raises(SpecError, match="needs a function") as caught:
        build().migration.by_phase(dict.fromkeys(PHASES, plain) | {"flip": handler})
    assert (caught.value.migration, caught.value.phase) == ("quotes", "flip")


async def test_later_changes_do_not_reach_it() -> None:
    """The mapping is copied."""
    handlers: dict[Any, Any] = dict.fromkeys(PHASES, plain)
    route = build().migration.by_phase(handlers)
    handlers.clear()
    assert await route(1) == "plain 1 "


class Stage(StrEnum):
    OLD = "old"
    NEW = "new"


@pytest.mark.parametrize("keys", [tuple(Stage), ("old", "new")])
async def test_members_and_texts(keys: Any) -> None:
    """Members of a `StrEnum` and their texts name the same phases."""
    lab = build(phases=tuple(Stage))
    route = lab.migration.by_phase({keys[0]: lambda: 1, keys[1]: lambda: 2})
    assert await route() == 1
    await lab.advance()
    assert await route() == 2


async def test_a_slow_store() -> None:
    """The phase is awaited, not guessed."""
    lab = build(store={"current": waiting(rounds)})
    assert await lab.migration.by_phase(dict.fromkeys(PHASES, plain))(1) == "plain 1 "


def events(lab: Lab) -> list[tuple[object, str]]:
    """Under which phase each call ran, and how it ended."""
    return [(e.observed["phase"], e.outcome) for e in (entry.data for entry in lab.journal) if e.name == SAVE]


async def test_the_phase_is_recorded() -> None:
    """Each call leaves one event, which says under which phase it ran, and whatever else was observed."""
    lab = build()
    observing = recorded(lab.journal, "inner")(plain)
    route: Any = lab.migration.by_phase({"expand": observing, "flip": slow, "contract": plain}, record_as=SAVE)
    assert SAVE in lab.journal.declared
    assert inspect.iscoroutinefunction(route)
    assert route.__name__ == "plain"
    with correlated("request-1"):
        assert await route(1) == "plain 1 "
    await lab.advance()
    assert await route(2, note="b") == "async 2 b"
    assert events(lab) == [("expand", "success"), ("flip", "success")]
    assert lab.journal.entry(1).data.correlation_id == "request-1"  # type: ignore[union-attr]
    assert not lab.journal.in_flight


async def test_a_handler_cannot_change_the_phase_that_is_recorded() -> None:
    """What it observes under that name is not taken; what it raises is recorded under the phase."""
    lab = build()

    def fail() -> None:
        observe(phase="contract", number=7)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await lab.migration.by_phase(dict.fromkeys(PHASES, fail), record_as=SAVE)()
    assert events(lab) == [("expand", "failure")]
    assert lab.journal.last().data.observed == {"phase": "expand", "number": 7}  # type: ignore[union-attr]


async def test_a_phase_that_cannot_be_read() -> None:
    """No function ran, so nothing is recorded: an event without a stored start would end a durable pledge."""
    lab = build(store={"current": raising(OSError("gone"))})
    route = lab.migration.by_phase(dict.fromkeys(PHASES, plain), record_as=SAVE)
    with pytest.raises(OSError, match="gone"):
        await route(1)
    lab.store.rig("current", waiting(forever))
    task = asyncio.create_task(route(1))
    await rounds()
    assert len(lab.journal.in_flight) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (events(lab), lab.journal.in_flight) == ([], ())


def under(*phases: str) -> Any:
    return {"unused": journal_window(JournalQuery(SAVE, where=ran_under(*phases)), timedelta(hours=1), no_events())}


async def unused(lab: Lab, *phases: str) -> Any:
    """Whether nobody ran under some phases for an hour, or why not."""
    spec = define_migration(name="asks", phases={phase: {} for phase in PHASES} | {"flip": under(*phases)})
    answer = await create_migration(spec, journal=lab.journal, phase_store=RiggedStore(lab.clock)).readiness()
    verdict = answer.verdicts["unused"]
    return verdict if isinstance(verdict, Ok) else verdict.reason  # type: ignore[union-attr]


async def test_nobody_ran_under_a_phase() -> None:
    """It is a window over the journal, which other phases do not disturb."""
    lab = build()
    route = lab.migration.by_phase(dict.fromkeys(PHASES, plain), record_as=SAVE)
    await route(1)
    await lab.advance()
    await route(2)
    assert "saw 1 event" in await unused(lab, "expand")
    assert "saw 2 events" in await unused(lab, "expand", "flip")
    assert await unused(lab, "contract") == ok({"count": 0})
    await lab.clock.elapse(timedelta(hours=1))
    await route(3)
    await lab.clock.elapse(timedelta(microseconds=1))
    assert await unused(lab, "expand") == ok({"count": 0})
    assert "saw 1 event" in await unused(lab, "flip")


async def test_a_call_that_reads_its_phase_is_in_the_way() -> None:
    """Of each phase that it may come to run under; once it has read its phase, of that alone."""
    reading, running = asyncio.Event(), asyncio.Event()
    lab = build(store={"current": waiting(reading.wait)})

    async def save() -> None:
        await running.wait()

    task = asyncio.create_task(lab.migration.by_phase(dict.fromkeys(PHASES, save), record_as=SAVE)())
    await rounds()
    for phase in PHASES:
        assert "1 matching call in flight" in await unused(lab, phase)
    reading.set()
    await rounds()
    assert "1 matching call in flight" in await unused(lab, "expand")
    assert await unused(lab, "flip") == ok({"count": 0})
    running.set()
    await task


async def test_a_call_runs_under_no_earlier_phase_than_the_last_one() -> None:
    """No phase is entered twice, so that under steady traffic the old phases do fall silent."""
    lab = build()
    route = lab.migration.by_phase(dict.fromkeys(PHASES, plain), record_as=SAVE)
    await lab.advance()
    await route(1)
    await lab.clock.elapse(timedelta(hours=1, seconds=1))
    reading = asyncio.Event()
    lab.store.rig("current", waiting(reading.wait))
    task = asyncio.create_task(route(2))
    await rounds()
    assert await unused(lab, "expand") == ok({"count": 0})
    for phases in (["flip"], ["contract"], ["expand", "flip"]):
        assert "1 matching call in flight" in await unused(lab, *phases)
    reading.set()
    await task


async def test_a_store_that_goes_back() -> None:
    """As one does that fails over to a replica: then the next call may run under the earlier phase again."""
    lab = build()
    route = lab.migration.by_phase(dict.fromkeys(PHASES, plain), record_as=SAVE)
    for phase in ("flip", "expand"):
        lab.store.rig("current", answering(phase))
        await route(1)
    await lab.clock.elapse(timedelta(hours=1, seconds=1))
    reading = asyncio.Event()
    lab.store.rig("current", waiting(reading.wait))
    task = asyncio.create_task(route(2))
    await rounds()
    assert "1 matching call in flight" in await unused(lab, "expand")
    reading.set()
    await task


def test_what_a_call_may_run_under_has_to_be_a_list() -> None:
    """A call in flight that says something else, or nothing, counts as one."""
    for observed in ({"may_run_under": "flip"}, {}):
        call = InFlightCall(SAVE, build().clock.now(), observed=observed)
        assert JournalQuery(SAVE, where=ran_under("expand")).matches_call(call)


async def test_a_call_that_was_recorded_in_another_way_counts_as_one() -> None:
    """An older build records the name without the phase."""
    lab = build()
    recorded(lab.journal, SAVE)(plain)(1)
    assert "saw 1 event" in await unused(lab, "contract")


@pytest.mark.parametrize("where", [("exapnd",), ("expand", "drop")])
def test_a_phase_that_there_is_not(where: tuple[str, ...]) -> None:
    """Nothing would ever run under it, and that would pass for silence."""
    phases: Any = {phase: {} for phase in PHASES} | {"flip": under(*where)}
    with pytest.raises(SpecError, match=r"ran_under\(\) needs phases of \['expand', 'flip', 'contract'\]") as caught:
        define_migration(name="quotes", phases=phases)
    assert (caught.value.migration, caught.value.phase, caught.value.source) == ("quotes", "flip", "unused")


def test_phases_of_another_migration() -> None:
    """They are checked against that one."""
    where = ran_under("flip", of=PHASES)
    evidence = {"unused": journal_window(JournalQuery(SAVE, where=where), timedelta(hours=1), no_events())}
    assert define_migration(name="drop", phases={"kept": {}, "dropped": evidence})
    with pytest.raises(SpecError, match=r"not \['kept'\]"):
        ran_under("kept", of=PHASES)
    for wrong in ((), ("",), (None,)):
        with pytest.raises(SpecError, match="needs names of phases"):
            ran_under(*wrong)  # type: ignore[arg-type]


async def test_members_of_an_enum_are_recorded_as_texts() -> None:
    """A store gives back texts, so a `where` has to find texts."""
    lab = build(phases=tuple(Stage))
    await lab.migration.by_phase({Stage.OLD: lambda: 1, Stage.NEW: lambda: 2}, record_as=SAVE)()  # type: ignore[dict-item]
    (entry,) = [entry for entry in lab.journal if entry.data.name == SAVE]
    assert type(entry.data.observed["phase"]) is str
    assert ran_under(Stage.OLD)(entry.data)


class Keeper:
    """Stores that calls begin, and lets something happen meanwhile."""

    def __init__(self, *meanwhile: Any) -> None:
        self.kept: list[object] = []
        self._meanwhile = list(meanwhile)

    def wants(self, call: object, /) -> bool:
        return True

    def keep(self, call: object, /) -> None:
        raise AssertionError("it would block the event loop")

    async def keep_async(self, call: Any, /) -> None:
        self.kept.append(dict(call.observed.known))
        if self._meanwhile:
            await self._meanwhile.pop(0)()


async def test_a_durable_call_runs_under_the_phase_that_others_know_of() -> None:
    """Its start is stored with the phase; where that has changed by then it asks again."""
    lab = build()
    keeper = Keeper(lab.migration.advance, lab.migration.advance)
    lab.journal.keep_starts(keeper)
    route = lab.migration.by_phase({phase: lambda phase=phase: phase for phase in PHASES}, record_as=SAVE)
    assert await route() == "contract"
    assert keeper.kept == [
        {"phase": phase, "may_run_under": list(PHASES[max(number - 1, 0) :])} for number, phase in enumerate(PHASES)
    ]
    assert events(lab) == [(phase, "success") for phase in PHASES]


@pytest.mark.parametrize("record_as", ["", 7])
def test_a_name_that_records_nothing(record_as: Any) -> None:
    """It is found when the callable is made."""
    with pytest.raises(SpecError, match="record_as must be a text"):
        build().migration.by_phase(dict.fromkeys(PHASES, plain), record_as=record_as)


async def test_generators_are_not_recorded() -> None:
    """They have no one end; unrecorded they are handed through."""

    def stream() -> Iterator[int]:
        yield 1

    async def stream_later() -> AsyncIterator[int]:
        yield 1

    migration = build().migration
    for generator in (stream, stream_later):
        handlers: Any = dict.fromkeys(PHASES, plain) | {"flip": generator}
        with pytest.raises(SpecError, match="a generator cannot be recorded") as caught:
            migration.by_phase(handlers, record_as=SAVE)
        assert caught.value.phase == "flip"
    assert list(await migration.by_phase(dict.fromkeys(PHASES, stream))()) == [1]
    with pytest.raises(TypeError, match="answered with a generator"):
        await migration.by_phase(dict.fromkeys(PHASES, lambda: stream()), record_as=SAVE)()  # noqa: PLW0108
