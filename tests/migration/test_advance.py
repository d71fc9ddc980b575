"""One call of `advance()`: where it goes, what it never does, and who wins."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import _limits as limits_module
from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, err, ok
from phyxius.migration import (
    Advanced,
    AlreadyAtFinal,
    CasLost,
    Conflict,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    EvidenceWithdrawnError,
    NotNext,
    SpecChanged,
    SpecChangedError,
    StoreErrored,
    WrongShapeError,
    create_memory_phase_store,
    create_migration,
    journal_window,
    schema_applied,
)
from phyxius.migration._decision import Finding, Step
from phyxius.migration._inquiry import Inquiry
from phyxius.migration._judge import Passed
from tests.migration.support import (
    LIMIT,
    PHASES,
    QUIET,
    SECOND,
    RiggedStore,
    answering,
    build,
    checked,
    forever,
    no_tasks_left,
    quiet,
    raising,
    rounds,
    waiting,
)

DAY = timedelta(days=1)


class Abort(BaseException):
    """What is no `Exception`."""


def refused(reason: object = "not yet") -> Any:
    """Evidence that says no."""
    return schema_applied(lambda: err(reason))


async def test_step_by_step() -> None:
    """A migration goes through its phases one call at a time, each audited, and stays at the last."""
    lab = build({"schema": checked(1)})
    for origin, target in (("expand", "flip"), ("flip", "contract")):
        result = await lab.advance()
        assert isinstance(result, Ok)
        assert (result.value.from_phase, result.value.to_phase) == (origin, target)
        assert result.value.at == lab.clock.now()
        assert await lab.migration.current_phase() == target
        await lab.clock.elapse(SECOND)
    for _ in range(2):
        assert (await lab.advance()).error == AlreadyAtFinal("contract")
    assert [event.observed["from"] for event in lab.audits] == ["expand", "flip", "contract", "contract"]
    assert len({event.invocation_id for event in lab.audits}) == 4
    assert [transition.to_phase for transition in await lab.store.inner.history()] == ["flip", "contract"]


async def test_every_source_must_pass() -> None:
    """One source that says no keeps the phase, however many are `Ok`; nothing is committed."""
    lab = build({"good": checked(), "quiet": quiet(), "bad": refused(EvidenceFailure("no", {"n": 1}))})
    result = await lab.advance()
    assert result.error == EvidenceFailed("flip", {"bad": EvidenceFailure("no", {"n": 1})})
    assert lab.store.operations == ["current"]


async def test_failures_and_errors_together() -> None:
    """A source that says no beside one that is broken is told within `EvidenceErrored`."""
    lab = build({"no": refused(), "broken": schema_applied(lambda: None)})
    error = (await lab.advance()).error
    assert isinstance(error, EvidenceErrored)
    assert (set(error.errors), set(error.failures)) == ({"broken"}, {"no"})
    assert error.failures["no"] == EvidenceFailure("not yet")


async def test_an_empty_bag() -> None:
    """A phase without evidence is entered freely."""
    lab = build()
    assert isinstance(await lab.advance(), Ok)
    assert lab.audit.observed["snapshot"] == {}


@pytest.mark.parametrize("first, second", [("expand", "flip"), ("flip", "contract")])
async def test_evidence_of_the_first_phase(first: str, second: str) -> None:
    """The first phase's evidence guards the way out of it, and is never asked later."""
    asked: list[int] = []

    def check() -> Any:
        asked.append(1)
        return err("no")

    lab = build({"b": checked()}, first={"a": schema_applied(check)})
    clock = lab.clock
    migration = create_migration(lab.migration.spec, journal=lab.journal, phase_store=RiggedStore(clock, first))
    result: Any = await migration.advance()
    assert isinstance(result, Err if first == "expand" else Ok)
    assert len(asked) == (first == "expand")


@pytest.mark.parametrize("findings", [{}, {"a": Passed("1"), "x": Passed("1")}, {"x": Passed("1")}, {"a": True}])
async def test_results_must_match_the_sources(findings: dict[str, Finding]) -> None:
    """Should ever another set of results come than of sources, nothing moves."""

    @attrs.frozen
    class Wrong:
        async def ask(self, step: Step[Any], attempt: str, on_answer: object) -> Inquiry:
            return Inquiry(findings, lab.clock.now(), LIMIT)

    lab = build({"a": checked()})
    lab.migration._runtime = attrs.evolve(lab.migration._runtime, inquirer=Wrong())
    assert isinstance((await lab.advance()).error, EvidenceErrored)
    assert lab.store.operations == ["current"]


# -- the target by name


@pytest.mark.parametrize(
    "at, to, expected",
    [
        ("expand", "flip", None),
        ("expand", "contract", NotNext("contract", "expand", "flip")),
        ("expand", "expand", NotNext("expand", "expand", "flip")),
        ("flip", "expand", NotNext("expand", "flip", "contract")),
        ("expand", "nonsense", NotNext("nonsense", "expand", "flip")),
        ("expand", "", NotNext("", "expand", "flip")),
        ("expand", 42, NotNext("42", "expand", "flip")),
        ("contract", "contract", AlreadyAtFinal("contract")),
        ("contract", "flip", AlreadyAtFinal("contract")),
    ],
)
async def test_a_named_target(at: str, to: Any, expected: object) -> None:
    """`advance(to=...)` moves to the named phase if it is the next one, and asks no evidence otherwise."""
    asked: list[int] = []

    def check() -> Any:
        asked.append(1)
        return ok()

    lab = build({"a": schema_applied(check)})
    lab.store.inner._phase = at
    result = await lab.advance(to=to)
    assert (result.error if isinstance(result, Err) else None) == expected
    assert lab.store.phase == (at if expected else to)
    assert len(asked) == (expected is None)
    assert lab.audit.observed["attempted"] == str(to)


async def test_pressing_twice() -> None:
    """Two people who each press once with a named target move it once."""
    lab = build()
    first, second = await asyncio.gather(lab.migration.advance("flip"), lab.migration.advance("flip"))
    assert {type(first), type(second)} == {Ok, Err}
    assert isinstance((await lab.advance(to="flip")).error, NotNext)
    assert lab.store.phase == "flip"


# -- what the store says


async def test_compares_against_what_was_read_first() -> None:
    """The phase is read once, before the evidence; one that moved meanwhile is a lost compare-and-set."""

    async def check() -> Any:
        lab.store.inner._phase = "contract"
        return ok()

    lab = build({"a": schema_applied(check)})
    assert (await lab.advance()).error == CasLost("expand", "contract")
    assert lab.store.operations == ["current", "try_advance"]
    assert lab.store.calls[1][1:3] == ("expand", "flip")


@pytest.mark.parametrize("callers", [2, 7])
async def test_one_winner(callers: int) -> None:
    """Of many concurrent callers exactly one wins; the others are told that they lost, and to whom."""
    lab = build({"a": checked()}, store={"try_advance": waiting(rounds)})
    results = await asyncio.gather(*(lab.migration.advance() for _ in range(callers)))
    assert sum(isinstance(result, Ok) for result in results) == 1
    losers = [result.error for result in results if isinstance(result, Err)]
    assert losers == [CasLost("expand", "flip")] * (callers - 1)
    assert len(lab.audits) == callers
    assert len(await lab.store.inner.history()) == 1


@pytest.mark.parametrize("conflict", ["drop", "", "Expand"])
async def test_a_conflict_with_an_unknown_phase(conflict: str) -> None:
    """A conflict with a phase that the spec does not have is `SpecChanged`, never a guess."""
    lab = build(store={"try_advance": answering(Err(Conflict(conflict)))})
    assert (await lab.advance()).error == SpecChanged((conflict,), PHASES)


@pytest.mark.parametrize("operation", ["current", "try_advance"])
async def test_another_order_in_the_store(operation: str) -> None:
    """A store that recorded another order of phases is believed, and nothing moves."""
    error = SpecChangedError(("a", "b"), PHASES)
    lab = build(store={operation: raising(error)})
    assert (await lab.advance()).error == SpecChanged(("a", "b"), PHASES)
    assert "resolve" not in lab.store.operations


async def test_evidence_that_the_store_does_not_believe_any_more() -> None:
    """A store that finds at the commit that evidence was withdrawn is believed: the source failed, nothing moved."""
    failures = {"a": EvidenceFailure("revoked")}
    lab = build({"a": checked()}, store={"try_advance": raising(EvidenceWithdrawnError(failures))})
    assert (await lab.advance()).error == EvidenceFailed("flip", failures)
    assert "resolve" not in lab.store.operations
    (audit,) = lab.audits
    assert audit.observed["refusal"]["failures"]["a"]["reason"] == "revoked"


async def test_another_order_is_told_before_any_evidence_runs() -> None:
    """A store that can say so beforehand is asked after the phase, by `advance()` and by `readiness()`."""
    lab = build({"a": schema_applied(lambda: pytest.fail("asked"))})
    lab.store.offer("check_order", raising(SpecChangedError(("a", "b"), PHASES)))
    assert (await lab.advance()).error == SpecChanged(("a", "b"), PHASES)
    with pytest.raises(SpecChangedError, match='recorded the phases "a", "b"'):
        await lab.migration.readiness()
    assert lab.store.operations == ["current", "check_order"] * 2
    assert lab.store.phase == "expand"


async def test_the_order_is_fine() -> None:
    """Whatever else the store answers, the phase is the one that it had, and the commit is tried."""
    lab = build({"a": checked()})
    lab.store.offer("check_order", answering("contract"))
    assert (await lab.migration.readiness()).ready
    assert (await lab.advance()).value.to_phase == "flip"
    assert lab.store.operations == ["current", "check_order"] * 2 + ["try_advance"]


@pytest.mark.parametrize("error", [OSError("gone"), asyncio.CancelledError("pool"), Abort("stop")], ids=repr)
async def test_the_order_cannot_be_checked(error: BaseException) -> None:
    """That is the store's failure to say where the migration is, and nothing is asked."""
    lab = build({"a": schema_applied(lambda: pytest.fail("asked"))})
    lab.store.offer("check_order", raising(error))
    refused = (await lab.advance()).error
    assert (type(refused), refused.operation, refused.committed) == (StoreErrored, "current", "no")
    assert type(refused.error) is type(error)


async def test_checking_the_order_is_limited() -> None:
    """Together with the look at the phase, after `evidence_timeout`."""
    lab = build()
    lab.store.offer("check_order", waiting(forever))
    assert type((await lab.advance(LIMIT)).error.error) is TimeoutError
    assert await no_tasks_left()


async def test_an_unknown_phase() -> None:
    """A phase that the spec does not have is `SpecChanged`, and no evidence is asked."""
    lab = build({"a": schema_applied(lambda: pytest.fail("asked"))}, store={"current": answering("drop")})
    assert (await lab.advance()).error == SpecChanged(("drop",), PHASES)


class Letters(StrEnum):
    EXPAND = "expand"
    FLIP = "flip"

    def __str__(self) -> str:
        return "shown"


class Mixed(str, Enum):  # noqa: UP042 - the old way, whose `str()` is the member's name
    EXPAND = "expand"
    FLIP = "flip"


class Texts(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "shown"


@pytest.mark.parametrize(
    "phases", [tuple(Letters), tuple(Mixed), (Texts("expand"), Texts("flip"))], ids=["StrEnum", "mixed", "str"]
)
async def test_phases_keep_their_identity(phases: Any) -> None:
    """Outcomes carry the spec's own members, stores and audit exact texts, whatever `str()` makes of a member."""
    expand, flip = phases
    lab = build({"a": checked()}, phases=phases)
    assert await lab.migration.current_phase() is expand
    result = await lab.advance(to=flip)
    assert result.value.from_phase is expand
    assert result.value.to_phase is flip
    _, from_phase, to_phase, snapshot = lab.store.calls[-1]
    assert [(type(each), each) for each in (from_phase, to_phase)] == [(str, "expand"), (str, "flip")]
    assert type(snapshot.attempt) is str
    told = (lab.audit.observed["from"], lab.audit.observed["attempted"])
    assert [(type(each), each) for each in told] == [(str, "expand"), (str, "flip")]
    assert (await lab.advance()).error.phase is flip
    readiness = await lab.migration.readiness()
    assert readiness.phase is flip


@pytest.mark.parametrize("phases", [tuple(Letters), tuple(Mixed)])
async def test_refusals_keep_the_identity_of_phases(phases: Any) -> None:
    """Refusals too carry the spec's own members."""
    expand, flip = phases
    lab = build({"a": checked()}, phases=phases, store={"try_advance": answering(Err(Conflict("flip")))})
    lost = (await lab.advance()).error
    assert lost.expected is expand
    assert lost.actual is flip
    not_next = (await lab.advance(to=expand)).error
    assert (not_next.current, not_next.next_phase) == (expand, flip)
    assert not_next.next_phase is flip


async def test_no_tasks_are_left() -> None:
    """When a call has ended, so have its tasks, and no commit is held any longer."""
    lab = build({"a": checked(), "hung": schema_applied(forever)})
    assert isinstance(await lab.advance(LIMIT), Err)
    assert isinstance(await build({"a": checked()}).advance(), Ok)
    assert await no_tasks_left()
    assert lab.clock.pending_timers == 0
    assert not limits_module._unfinished


async def test_a_store_that_is_none_at_all() -> None:
    """A store whose very methods cannot be looked up is a store that failed, at each stage."""

    class Bad:
        scope = "process"
        asked = 0
        try_advance: Any = None

        @property
        def current(self) -> Any:
            raise OSError("no connection")

    class Worse(Bad):
        async def current(self) -> str:
            return "expand"

        @property
        def resolve(self) -> Any:
            raise OSError("no connection")

    for store, operation, committed in ((Bad(), "current", "no"), (Worse(), "try_advance", "unknown")):
        error = (await build(phase_store=store).advance()).error
        assert (error.operation, error.committed) == (operation, committed)


async def test_a_store_that_cancels_in_a_cancelled_task() -> None:
    """A `CancelledError` of the store's own is an answer, also where the caller was cancelled before."""
    lab = build(store={"current": raising(asyncio.CancelledError("pool"))})

    async def clean_up() -> Any:
        try:
            await forever()
        except asyncio.CancelledError:
            return await lab.migration.advance()

    task = asyncio.ensure_future(clean_up())
    await rounds()
    task.cancel()
    error = (await task).error
    assert (error.operation, error.committed) == ("current", "no")
    assert lab.refusal["type"] == "STORE_ERRORED"


# -- it never raises

ERRORS = st.sampled_from(
    [OSError("x"), TimeoutError(), asyncio.CancelledError(), Abort(), StopIteration(), GeneratorExit()]
)
ANSWERS = [None, True, 1, "expand", b"flip", [], {}, object(), Ok, ok, float("nan")]
OUTCOMES = [Ok(None), Ok(Conflict("flip")), Err(None), Err("text"), Err(EvidenceFailure("no"))]
THINGS = st.sampled_from(ANSWERS + OUTCOMES)
BEHAVIOURS = st.one_of(
    st.tuples(st.just("raise"), ERRORS),
    st.tuples(st.just("answer"), THINGS),
    st.tuples(st.just("hang"), st.none()),
    st.tuples(st.just("ok"), st.none()),
)


def check_of(behaviour: tuple[str, Any]) -> Any:
    """An async check that behaves so."""
    kind, value = behaviour

    async def check() -> Any:
        if kind == "raise":
            raise value
        if kind == "hang":
            await forever()
        return ok() if kind == "ok" else value

    return check


def rig_of(behaviour: tuple[str, Any]) -> Any:
    """A rig for a store that behaves so."""
    kind, value = behaviour
    return {
        "raise": lambda: raising(value),
        "answer": lambda: answering(value),
        "hang": lambda: waiting(forever),
        "ok": lambda: waiting(rounds),
    }[kind]()


NO_GENERATOR_EXIT = BEHAVIOURS.filter(lambda each: each[0] != "hang" and not isinstance(each[1], GeneratorExit))


@given(
    checks=st.lists(BEHAVIOURS, max_size=4),
    window=BEHAVIOURS,
    current=BEHAVIOURS,
    try_advance=NO_GENERATOR_EXIT,
    resolve=BEHAVIOURS,
    to=st.sampled_from([None, "flip", "contract", "x"]),
)
def test_it_never_raises(checks: Any, window: Any, current: Any, try_advance: Any, resolve: Any, to: Any) -> None:
    """Whatever checks and stores do, the answer is a typed value, audited once, and `Ok` only if all passed."""
    store = {"current": rig_of(current), "try_advance": rig_of(try_advance), "resolve": rig_of(resolve)}
    sources = {str(number): schema_applied(check_of(behaviour)) for number, behaviour in enumerate(checks)}

    def predicate(events: object) -> Any:
        kind, value = window
        if kind == "raise":
            raise value
        return value if kind == "answer" else ok()

    sources["window"] = journal_window(query=QUIET, window=DAY, predicate=predicate)
    lab = build(sources, store=store)
    result = asyncio.run(lab.advance(3 * LIMIT, to=to))
    assert type(result) in (Ok, Err)
    value = result.value if isinstance(result, Ok) else result.error
    assert type(value) in (
        Advanced, AlreadyAtFinal, EvidenceFailed, EvidenceErrored, CasLost, NotNext, StoreErrored, SpecChanged,
    )  # fmt: skip
    assert lab.audit.outcome == ("success" if isinstance(result, Ok) else "failure")
    if lab.store.phase != "expand":
        passed = [behaviour for behaviour in checks if behaviour[0] == "ok" or behaviour[1] == Ok(None)]
        assert passed == checks
    if isinstance(result, Ok):
        assert lab.store.phase == "flip"


def test_wrong_shapes_of_a_phase_are_quoted() -> None:
    """What a store answered in place of a phase is quoted, cut, even if its `repr` raises."""

    class Mute:
        def __repr__(self) -> str:
            raise OSError

    lab = build(store={"current": answering(Mute())})
    error = asyncio.run(lab.advance()).error
    assert type(error.error) is WrongShapeError
    assert "Mute that cannot be represented" in error.message


async def test_stores_of_another_clock() -> None:
    """`Advanced.at` is the store's own instant."""
    lab = build()
    store = create_memory_phase_store(initial="expand", clock=create_controlled_clock())
    lab.store.inner = store
    assert (await lab.advance()).value.at == store.clock.now()
