"""Evidence that the new path agrees with the old one: when it is a true `Ok`, and when it must not be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.clock import Clock, create_controlled_clock
from phyxius.fp import Err, Ok
from phyxius.handler import HandlerEvent, InFlightCall, Parity, event_serializer, observe, recorded, shadow
from phyxius.journal import Journal
from phyxius.migration import (
    EvidenceFailure,
    JournalQuery,
    JournalWindow,
    JournalWindowEvidence,
    SpecError,
    create_migration,
    define_migration,
    shadow_parity,
)
from phyxius.testing import aged_journal, make_event, record_events

NAME = "quote.read.parity"
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
CLOCK: Clock = create_controlled_clock()
WORDS = ("matched", "mismatched", "ignored", "errored", "not_compared")


def evidence(**options: Any) -> JournalWindowEvidence[dict[str, Any]]:
    return shadow_parity(NAME, window=DAY, **{"min_comparisons": 1, **options})


def attempt(parity: object, tenant: object = "a", **observed: object) -> HandlerEvent:
    return make_event(NAME, clock=CLOCK, observed={"parity": parity, "tenant": tenant, "sample": 1.0, **observed})


def in_flight(seconds: float, **observed: object) -> InFlightCall:
    started_at = CLOCK.now().shifted(-int(seconds * 10**9))
    return InFlightCall(NAME, started_at, observed={"timeout_seconds": 5.0, **observed})


def judge(
    events: Iterable[HandlerEvent], calls: Iterable[InFlightCall] = (), **options: Any
) -> Ok[dict[str, Any]] | EvidenceFailure:
    now = CLOCK.now().wall
    answer = evidence(**options).predicate(
        JournalWindow(events, since=now - DAY, until=now, gaps=(), in_flight=calls, witnessed=True)
    )
    if type(answer) is Ok:
        return answer
    assert type(answer) is Err
    assert type(answer.error) is EvidenceFailure
    return answer.error


async def verdict(journal: Journal[Any], **options: Any) -> object:
    """What `readiness` says of the evidence over a real journal."""
    spec = define_migration(name="quotes", phases={"expand": {}, "flip": {"parity": evidence(**options)}})
    migration = create_migration(spec, journal=journal, single_process=True)
    return (await migration.readiness()).verdicts["parity"]


def attempts(matched: int = 0, other: dict[str, int] | None = None, tenant: str = "a") -> list[HandlerEvent]:
    counts = {"matched": matched, **(other or {})}
    return [attempt(word, tenant) for word, count in counts.items() for _ in range(count)]


def test_counts_are_the_payload() -> None:
    """The payload tells the five buckets, the calls overdue and the lowest rate of sampling."""
    events = [*attempts(5, {"ignored": 2, "not_compared": 3}), attempt("matched", sample=0.25)]
    answer = judge(events, min_comparisons=6)
    counts = {"matched": 6, "mismatched": 0, "ignored": 2, "errored": 0, "not_compared": 3}
    assert answer == Ok({"counts": counts, "overdue": 0, "sample": 0.25})


@pytest.mark.parametrize(
    "other, options, passes",
    [
        ({}, {"min_comparisons": 100}, True),
        ({}, {"min_comparisons": 101}, False),
        ({"mismatched": 1}, {}, False),
        ({"mismatched": 1}, {"max_mismatch_rate": 0.01}, True),
        ({"mismatched": 1, "errored": 1}, {"max_mismatch_rate": 0.01}, False),
        ({"errored": 1}, {}, False),
        ({"errored": 1}, {"max_mismatch_rate": 0.01}, True),
        ({"errored": 2}, {"max_mismatch_rate": 0.01}, False),
        ({"ignored": 1000, "not_compared": 1000}, {}, True),
        ({"ignored": 1000, "not_compared": 1000, "errored": 2}, {"max_mismatch_rate": 0.01}, False),
        ({"ignored": 1}, {"min_comparisons": 101}, False),
        ({"not_compared": 1}, {"min_comparisons": 101}, False),
        ({"errored": 1}, {"min_comparisons": 101, "max_mismatch_rate": 1}, False),
        ({"mismatched": 1}, {"min_comparisons": 101, "max_mismatch_rate": 1}, True),
    ],
)
def test_what_counts(other: dict[str, int], options: dict[str, Any], passes: bool) -> None:
    """An errored attempt counts against the new side; an ignored one is no match, and dilutes no rate."""
    assert isinstance(judge(attempts(100, other), **options), Ok) == passes


@pytest.mark.parametrize("word", [*WORDS, "nonsense"])
def test_nothing_but_matches_will_do(word: str) -> None:
    """Any number of attempts that are no comparison, or went wrong, proves nothing."""
    assert isinstance(judge(attempts(0, {word: 1_000})), Ok) == (word == "matched")


@pytest.mark.parametrize(
    "observed", [{}, {"parity": None}, {"parity": "ok"}, {"parity": True}, {"parity": ["matched"]}]
)
def test_foreign_events(observed: dict[str, object]) -> None:
    """An event of that name that no shadow left counts as errored."""
    failure = judge([*attempts(100), make_event(NAME, clock=CLOCK, observed=observed)])
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason.startswith("0 mismatched and 1 errored beside 100 matched attempts")


def test_the_enum_itself_is_fine() -> None:
    """An event that holds the enum in place of its text is understood."""
    assert type(judge([attempt(Parity.MATCHED)])) is Ok


@pytest.mark.parametrize("by", [None, "tenant", lambda event: "a"])
def test_empty_window(by: Any) -> None:
    """No attempts, no evidence, whatever the threshold."""
    failure = judge([], by=by, max_mismatch_rate=1.0)
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason == "0 comparisons so far; 1 needed: wait for more traffic"


@pytest.mark.parametrize("by", ["tenant", lambda event: event.observed["tenant"]])
def test_every_cohort_and_not_the_average(by: Any) -> None:
    """One tenant for whom everything fails is not hidden by ten thousand for whom it works."""
    events = attempts(10_000) + attempts(0, {"errored": 5}, tenant="b")
    assert type(judge(events, max_mismatch_rate=0.01)) is Ok
    failure = judge(events, max_mismatch_rate=0.01, by=by)
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason.startswith("cohort 'b': 0 mismatched and 5 errored beside 0 matched")
    assert "; at most a share of 0.01 is allowed: look" in failure.reason
    assert failure.details["cohorts"]["'b'"]["errored"] == 5


@pytest.mark.parametrize("word", ["matched", "ignored", "not_compared"])
def test_every_cohort_needs_its_comparisons(word: str) -> None:
    """A tenant with too few comparisons, or none but ignored ones, keeps the gate closed."""
    failure = judge(attempts(10) + attempts(0, {word: 9}, tenant="b"), min_comparisons=10, by="tenant")
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason.startswith("cohort 'b': ")
    assert "10 needed" in failure.reason


def test_the_attempts_without_the_key_are_a_cohort() -> None:
    """What tells no tenant is not left out, and must pass like a tenant."""
    events = [*attempts(100), make_event(NAME, clock=CLOCK, observed={"parity": "errored"})]
    failure = judge(events, max_mismatch_rate=0.1, by="tenant")
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason.startswith("cohort (without tenant): 0 mismatched and 1 errored")
    fine = judge([*attempts(1), make_event(NAME, clock=CLOCK, observed={"parity": "matched"})], by="tenant")
    assert isinstance(fine, Ok)
    assert list(fine.value["cohorts"]) == ["'a'", "(without tenant)"]


class Nameless:
    def __repr__(self) -> str:
        return ""


def test_odd_cohorts() -> None:
    """Values that have no hash, no order or no name are cohorts like others, told apart by their `repr`."""
    values = [["x"], {"k": 1}, {1}, None, "", 1, "1", 1.0, True, float("nan"), Nameless()]
    events = [attempt("matched", value) for value in values for _ in range(3)]
    answer = judge(events, by="tenant", min_comparisons=3)
    assert isinstance(answer, Ok)
    assert answer.value["cohort_count"] == len(values)
    for value in values:
        failure = judge([*events, attempt("errored", value)], by="tenant", max_mismatch_rate=0.1)
        assert isinstance(failure, EvidenceFailure)
        assert failure.reason.startswith(f"cohort {value!r}: ")


@pytest.mark.parametrize("length", [1, 10_000])
async def test_many_cohorts_fit(length: int) -> None:
    """A thousand tenants, whatever their names, do not outgrow what a source may learn."""
    journal = aged_journal(names=[NAME])
    for number in range(1_000):
        record_events(journal, NAME, observed={"parity": "matched", "tenant": f"{number}" + "ü" * length})
    passed = await verdict(journal, by="tenant")
    assert isinstance(passed, Ok)
    assert passed.value["cohort_count"] == 1_000
    record_events(journal, NAME, observed={"parity": "errored", "tenant": "ü" * length})
    failure = await verdict(journal, by="tenant")
    assert isinstance(failure, EvidenceFailure)
    assert len(failure.reason) < 400


def test_by_that_raises() -> None:
    """A function that cannot tell the cohort breaks the source; nothing passes."""
    with pytest.raises(KeyError):
        judge(attempts(1), by=lambda event: event.observed["missing"])


@pytest.mark.parametrize(
    "call, overdue",
    [
        (in_flight(5), False),
        (in_flight(5.000001), True),
        (in_flight(4, timeout_seconds=3), True),
        (in_flight(4, timeout_seconds=5), False),
        (in_flight(10**6, timeout_seconds=float("inf")), False),
        (in_flight(0, timeout_seconds=float("nan")), True),
        (in_flight(0, timeout_seconds="5"), True),
        (in_flight(10**6, timeout_seconds=None), False),
        (InFlightCall(NAME, CLOCK.now()), True),
    ],
)
@pytest.mark.parametrize("by", [None, "tenant"])
def test_overdue(call: InFlightCall, overdue: bool, by: str | None) -> None:
    """A call in flight beyond its timeout is an errored attempt, and so is one that no shadow began."""
    answer = judge(attempts(100), [call], by=by)
    assert isinstance(answer, EvidenceFailure) == overdue
    assert (answer.details if isinstance(answer, EvidenceFailure) else answer.value)["overdue"] == overdue
    assert isinstance(judge(attempts(100), [call], max_mismatch_rate=0.1), Ok)


@pytest.mark.parametrize(
    "by, call, cohort",
    [
        ("tenant", in_flight(6, tenant="b"), "'b'"),
        (lambda event: event.observed["tenant"], in_flight(6, tenant="b"), "'b'"),
        ("tenant", in_flight(6), "(in flight or lost, so not known)"),
        (lambda event: event.observed["tenant"], in_flight(6), "(in flight or lost, so not known)"),
        (lambda event: event.observed.get("tenant", "a"), in_flight(6), "(in flight or lost, so not known)"),
        (lambda event: event.outcome, in_flight(6, tenant="a"), "(in flight or lost, so not known)"),
    ],
)
def test_overdue_in_a_cohort(by: Any, call: InFlightCall, cohort: str) -> None:
    """A hung attempt of one tenant is not hidden by the average, even if nobody knows yet whose it is."""
    failure = judge(attempts(10_000), [call], max_mismatch_rate=0.01, by=by)
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason.startswith(f"cohort {cohort}: 0 mismatched and 1 errored beside 0 matched")
    assert isinstance(judge(attempts(10_000), [in_flight(6, tenant="a")], max_mismatch_rate=0.01, by="tenant"), Ok)


async def async_by(event: HandlerEvent) -> str:
    return ""


@pytest.mark.parametrize(
    "make",
    [
        *(lambda rate=rate: evidence(max_mismatch_rate=rate) for rate in (-0.1, 1.1, float("nan"), True, "0", None)),
        *(lambda count=count: evidence(min_comparisons=count) for count in (0, -1, 1.0, True, None)),
        *(lambda by=by: evidence(by=by) for by in (7, async_by)),
        *(lambda name=name: shadow_parity(name, window=DAY) for name in ("", None, JournalQuery(NAME, "success"))),
        *(lambda window=window: shadow_parity(NAME, window=window) for window in (timedelta(0), -DAY, 7)),
    ],
)
def test_misuse_is_a_spec_error(make: Callable[[], object]) -> None:
    """What could only pass by mistake, or never, is refused where it is written."""
    with pytest.raises(SpecError):
        make()


def test_the_defaults_are_strict() -> None:
    """Unless told otherwise, a thousand comparisons are needed and none may disagree."""
    predicate = shadow_parity(NAME, window=DAY).predicate
    now = CLOCK.now().wall
    for events, passes in [
        (attempts(1_000), True),
        (attempts(999), False),
        (attempts(10_000, {"mismatched": 1}), False),
    ]:
        assert isinstance(predicate(JournalWindow(events, since=now - DAY, until=now, gaps=())), Ok) == passes


tenants = st.sampled_from(["a", "b", None])
some_attempts = st.lists(st.tuples(st.sampled_from([*WORDS, "foreign"]), tenants), max_size=40)
some_calls = st.lists(st.tuples(st.sampled_from([1, 6]), tenants), max_size=2)


def of(tenant: str | None) -> dict[str, object]:
    return {"tenant": tenant} if tenant else {}


@given(some_attempts, some_calls, st.integers(0, 100), st.integers(1, 8), st.booleans())
def test_against_a_model(
    done: list[tuple[str, str | None]], calls: list[tuple[int, str | None]], percent: int, least: int, by: bool
) -> None:
    """It passes just when, for all and for each cohort, exact arithmetic says so; never while one is unknown."""
    events = [make_event(NAME, clock=CLOCK, observed={"parity": word, **of(tenant)}) for word, tenant in done]
    open_calls = [in_flight(age, **of(tenant)) for age, tenant in calls]
    hung = [("errored", tenant) for age, tenant in calls if age > 5]

    def passes(pairs: list[tuple[str, str | None]]) -> bool:
        good = sum(word == "matched" for word, _ in pairs)
        wrong = sum(word == "mismatched" for word, _ in pairs)
        errors = sum(word in ("errored", "foreign") for word, _ in pairs)
        if good + wrong < least:
            return False
        return Fraction(wrong + errors, good + wrong + errors) <= Fraction(percent, 100)

    expected = passes(done + hung)
    if by:
        cohorts = {tenant for _, tenant in done + hung}
        expected &= all(passes([pair for pair in done + hung if pair[1] == tenant]) for tenant in cohorts)
        expected &= ("errored", None) not in hung
        expected &= cohorts != {None}  # of an average alone, `by` is not satisfied
    options = {"max_mismatch_rate": percent / 100, "min_comparisons": least, "by": "tenant" if by else None}
    answer = judge(events, open_calls, **options)
    assert isinstance(answer, Ok) == expected


async def test_seeded_fault_one_row_in_ten_thousand() -> None:
    """A new side that drops one row in 10,000 is found out."""
    journal = aged_journal()
    clock: Any = journal.clock

    async def old(number: int) -> list[int]:
        return [number]

    async def new(number: int) -> list[int]:
        return [] if number == 6_789 else [number]

    shadowed = shadow(journal, NAME, old=old, new=new)
    for number in range(10_000):
        await shadowed(number)
    await clock.elapse(timedelta(0))
    failure = await verdict(journal)
    assert isinstance(failure, EvidenceFailure)
    assert failure.reason.startswith("1 mismatched and 0 errored beside 9,999 matched attempts; none is allowed")


@pytest.mark.parametrize("by", [None, "tenant"])
async def test_seeded_fault_one_tenant(by: str | None) -> None:
    """A new side that raises for one tenant alone passes a lenient average, and fails by tenant."""
    journal = aged_journal()
    clock: Any = journal.clock

    async def old(tenant: str) -> str:
        return tenant

    async def new(tenant: str) -> str:
        return {"a": "a", "c": "c"}[tenant]

    shadowed = shadow(journal, NAME, old=old, new=new)
    for number in range(1_000):
        tenant = "b" if number % 200 == 0 else "ac"[number % 2]
        with recorded(journal, "quote.read", observed={"tenant": tenant}):
            assert await shadowed(tenant) == tenant
    await clock.elapse(timedelta(0))
    found = await verdict(journal, max_mismatch_rate=0.01, by=by)
    if by is None:
        assert isinstance(found, Ok)
    else:
        assert isinstance(found, EvidenceFailure)
        assert found.reason.startswith("cohort 'b': 0 mismatched and 5 errored beside 0 matched")


@pytest.mark.parametrize("by", [None, "tenant"])
async def test_a_hung_plain_new_side(by: str | None) -> None:
    """A plain new side that hangs for one tenant leaves no event, and yet it is found out."""
    journal = aged_journal()
    clock: Any = journal.clock
    gate = threading.Event()

    def new(tenant: str) -> str:
        assert tenant == "a" or gate.wait(10)
        return tenant

    @recorded(journal, "quote.read")
    def read(tenant: str) -> None:
        observe(tenant=tenant)
        shadow(journal, NAME, old=str, new=new, timeout=SECOND)(tenant)

    for _ in range(20):
        read("a")
    for thread in threading.enumerate():
        if thread.name == NAME:
            thread.join(10)
    try:
        read("b")
        clock.advance_by(2 * SECOND)
        found = await verdict(journal, max_mismatch_rate=0.1, by=by)
    finally:
        gate.set()
    assert isinstance(found, EvidenceFailure if by else Ok)


async def test_a_foreign_call_in_flight() -> None:
    """A call of that name that is merely recorded neither breaks the evidence nor lets it pass."""
    journal = aged_journal()
    record_events(journal, NAME, 10, observed={"parity": "matched"})
    assert type(await verdict(journal)) is Ok
    with recorded(journal, NAME):
        found = await verdict(journal)
    assert isinstance(found, EvidenceFailure)
    assert found.details["overdue"] == 1
    assert isinstance(await verdict(journal), EvidenceFailure)


async def test_restored_attempts_count() -> None:
    """Attempts that went through JSON are the same evidence; the time before the restore is a gap, as ever."""
    journal = aged_journal()
    for word in ("matched", "mismatched"):
        record_events(journal, NAME, 3, observed={"parity": word, "sample": 0.5})
    restored = Journal.from_json(journal.to_json(), clock=journal.clock, serializer=event_serializer)
    found = await verdict(restored, max_mismatch_rate=0.4)
    assert isinstance(found, EvidenceFailure)
    assert found.reason.startswith("3 mismatched and 0 errored beside 3 matched")
    assert found.details["sample"] == 0.5
    assert "cannot vouch" in getattr(await verdict(restored, max_mismatch_rate=0.5), "reason", "")


@pytest.mark.parametrize("observed", [{}, {"tenant": None}, {"tennant": "a"}], ids=str)
async def test_a_cohort_that_nobody_observed(observed: dict[str, object]) -> None:
    """A misspelt key would judge the average; it is refused, and the failure names the key."""
    journal = aged_journal()
    record_events(journal, "x.parity", 10, observed={"parity": "matched", **observed})
    source = shadow_parity("x.parity", window=timedelta(days=1), min_comparisons=1, by="tenant")
    spec = define_migration(name="m", phases={"old": {}, "new": {"parity": source}})
    verdict = (await create_migration(spec, journal=journal).readiness()).verdicts["parity"]
    assert isinstance(verdict, EvidenceFailure)
    assert 'no attempt observed "tenant"' in verdict.reason
