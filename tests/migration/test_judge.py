"""When an answer is a true `Ok`."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from unittest.mock import MagicMock

import attrs
import pytest

from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok, err, ok
from phyxius.handler import HandlerEvent, InFlightCall
from phyxius.journal import PayloadError
from phyxius.migration import (
    EvidenceFailure,
    Gap,
    JournalQuery,
    JournalWindow,
    JournalWindowEvidence,
    WrongShapeError,
    journal_window,
)
from phyxius.migration._judge import Passed, check_window, gap_details, judge_answer, judge_window
from tests.ids import shown

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
NOW = create_controlled_clock(EPOCH).now()
WINDOW = timedelta(microseconds=100)
EVENT = HandlerEvent("quote.read", "success", NOW)
CALLS = [InFlightCall("quote.read", NOW.shifted(1_000 * n)) for n in (7, 9)]


class OkToo(Ok[Any]):
    pass


class ErrToo(Err[Any]):
    pass


class FailureToo(EvidenceFailure):
    pass


class Text(str):
    __slots__ = ()


class Color(Enum):
    RED = "red"


@attrs.frozen
class Row:
    a: int


@dataclass
class Pair:
    b: tuple[int, ...]


def at(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def gap(since: int, until: int, **more: Any) -> Gap:
    return Gap(at(since), at(until), "it crashed", **more)


def seen(*gaps: Gap, events: Any = (), since: int = 0, witnessed: bool = True, **more: Any) -> JournalWindow:
    return JournalWindow(events, since=at(since), until=at(100), gaps=gaps, witnessed=witnessed, **more)


def source(query: str | JournalQuery = "quote.read", **more: Any) -> JournalWindowEvidence[Any]:
    return journal_window(query, WINDOW, lambda window: ok(), **more)


def judged(evidence: JournalWindowEvidence[Any], window: JournalWindow, answer: object = ok(7)) -> Any:
    return judge_window(evidence, window, answer)


def refused(finding: object) -> EvidenceFailure:
    assert type(finding) is EvidenceFailure
    return finding


# -- the exact Ok


@pytest.mark.parametrize(
    "answer,came",
    [
        (True, "builtins.bool"),
        (1, "builtins.int"),
        (None, "None"),
        ("ok", "builtins.str"),
        (Ok, "builtins.type"),
        (ok, "builtins.function"),
        ((Ok(1),), "builtins.tuple"),
        (NotImplemented, "builtins.NotImplementedType"),
        (MagicMock(), "unittest.mock.MagicMock"),
        (MagicMock(spec=Ok), "unittest.mock.MagicMock"),
        (MagicMock(spec=Err), "unittest.mock.MagicMock"),
        (OkToo(1), "OkToo"),
        (ErrToo("no"), "ErrToo"),
        (EvidenceFailure("no"), "EvidenceFailure"),
        (ValueError("no"), "builtins.ValueError"),
        (Err(None), "err(None)"),
        (Err(True), "err(builtins.bool)"),
        (Err(ValueError("no")), "err(builtins.ValueError)"),
        (Err(b"no"), "err(builtins.bytes)"),
        (Err(Ok(1)), "err(phyxius.fp._result.Ok)"),
        (Err({"reason": "no"}), "err(builtins.dict)"),
        (Err(MagicMock(spec=EvidenceFailure)), "err(unittest.mock.MagicMock)"),
        (Err(MagicMock(spec=str)), "err(unittest.mock.MagicMock)"),
        (Err(FailureToo("no")), "FailureToo"),
    ],
    ids=shown,
)
def test_only_the_exact_ok_counts(answer: object, came: str) -> None:
    """What is neither the exact Ok nor an Err with a reason is a wrong shape, and the error says what came."""
    with pytest.raises(WrongShapeError) as caught:
        judge_answer(answer)
    assert came in caught.value.came
    assert "ok(payload)" in caught.value.wanted


@pytest.mark.parametrize("wrap", [lambda answer: answer, Err])
def test_a_coroutine_that_nobody_awaited_is_closed(wrap: Any) -> None:
    """It is named as what it is, and leaves no warning behind."""

    async def check() -> Ok[None]:
        return ok()

    forgotten: Coroutine[Any, Any, Any] = check()
    with pytest.raises(WrongShapeError, match="a coroutine that nobody awaited"):
        judge_answer(wrap(forgotten))
    assert forgotten.cr_frame is None  # type: ignore[attr-defined]


async def test_a_future_is_no_answer() -> None:
    """Nor is one that holds an Ok."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(ok())
    with pytest.raises(WrongShapeError):
        judge_answer(future)


def test_an_err_is_a_failure() -> None:
    """A failure comes through as it is, and a text is short for one, as an exact `str`."""
    failure = EvidenceFailure("no", {"count": 1}, EPOCH)
    assert judge_answer(err(failure)) is failure
    assert judge_answer(err("no")) == EvidenceFailure("no")
    assert type(refused(judge_answer(err(Text("no")))).reason) is str


# -- payloads


@pytest.mark.parametrize(
    "payload,written",
    [
        (None, None),
        ({}, {}),
        ((1, [True, "x"]), [1, [True, "x"]]),
        ({"at": EPOCH}, {"at": "2024-01-01T00:00:00+00:00"}),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (Decimal("1.50"), "1.50"),
        ({Color.RED: Color.RED}, {"red": "red"}),
        (Row(1), {"a": 1}),
        (Pair((1, 2)), {"b": [1, 2]}),
        (Ok(1), {"value": 1}),
        (Text("é"), "é"),
    ],
    ids=shown,
)
def test_a_payload_is_its_json_round_trip(payload: object, written: object) -> None:
    """What counts is what JSON makes of the payload, in exact builtin types."""
    passed = judge_answer(Ok(payload))
    assert type(passed) is Passed
    assert passed.payload == written
    assert type(passed.payload) is type(written)


@pytest.mark.parametrize(
    "payload",
    [
        float("nan"),
        [float("inf")],
        {"deep": {"er": -float("inf")}},
        Decimal("NaN").__float__(),
        b"bytes",
        {1: "a key that is no text"},
        {1, 2},
        object(),
        datetime(2024, 1, 1),  # noqa: DTZ001
        "\x00",
        "\ud800",
        MagicMock(),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_what_is_not_json_is_no_payload(payload: object) -> None:
    """NaN, bytes, keys that are no text and the like fail the source, before anything is committed."""
    with pytest.raises(PayloadError):
        judge_answer(Ok(payload))


def test_a_payload_that_contains_itself_is_refused() -> None:
    """It would never end."""
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(PayloadError):
        judge_answer(Ok(payload))


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_a_payload_takes_16_kib_at_most(letter: str) -> None:
    """The bound is on the bytes of the JSON text: 16,384 pass, and one more does not."""
    size = len(letter.encode())
    fits = letter * ((16_384 - 2) // size) + "x" * ((16_384 - 2) % size)
    assert len(json.dumps(fits, ensure_ascii=False).encode()) == 16_384
    assert type(judge_answer(Ok(fits))) is Passed
    with pytest.raises(PayloadError, match="16385 bytes as JSON; 16384 are allowed"):
        judge_answer(Ok(fits + "x"))


def test_a_payload_is_taken_when_it_is_judged() -> None:
    """Later changes do not reach it, and each reader has a copy of its own."""
    payload = {"rows": [1]}
    passed: Any = judge_answer(Ok(payload))
    payload["rows"].append(2)
    passed.payload["rows"].append(3)
    assert passed.payload == {"rows": [1]}


# -- windows


@pytest.mark.parametrize("name", ["quote.read", None])
def test_the_predicates_own_err_comes_first(name: str | None) -> None:
    """Whatever else is wrong with the window, what the predicate said no to is what is reported."""
    window = seen(gap(0, 50), truncated=True, witnessed=False, in_flight=CALLS)
    assert refused(judged(source(JournalQuery(name)), window, err("no"))).reason == "no"


def test_a_wrong_shape_comes_before_the_window() -> None:
    """A predicate that answers with no answer is errored, over a window without fault too."""
    for window in (seen(), seen(gap(0, 50), witnessed=False)):
        with pytest.raises(WrongShapeError):
            judged(source(), window, True)


def test_a_full_proof_passes() -> None:
    """Witnessed silence, and events, without any gap are a true Ok with the payload."""
    for window in (seen(), seen(events=[EVENT], witnessed=False)):
        passed = judged(source(), window)
        assert (type(passed), passed.payload, passed.tolerated) == (Passed, 7, ())


@pytest.mark.parametrize("forgotten", [1, "yes", object(), MagicMock()], ids=shown)
def test_what_is_not_exactly_true_is_no_witness(forgotten: Any) -> None:
    """A store that forgot an `await`, say, has not said that the name is declared, nor that nothing was cut off."""
    assert "declare" in refused(judged(source(), seen(witnessed=forgotten))).reason
    assert "cut events off" in refused(judged(source(), seen(truncated=forgotten))).reason


ALL_WRONG = {"witnessed": False, "in_flight": CALLS, "truncated": True}
ORDER = [
    (JournalQuery(), ALL_WRONG, "names no events"),
    (JournalQuery("quote.read"), ALL_WRONG, "declare"),
    (JournalQuery("quote.read"), ALL_WRONG | {"witnessed": True}, "in flight"),
    (JournalQuery("quote.read", limit=3), {"truncated": True}, "limit of 3"),
    (JournalQuery("quote.read"), {}, "cannot vouch"),
]


@pytest.mark.parametrize("query,flaws,says", ORDER)
def test_flaws_are_reported_in_order(query: JournalQuery, flaws: Any, says: str) -> None:
    """No name, no witness, calls in flight, a cut-off and last a gap: what waiting cures comes last."""
    failure = refused(judged(source(query), seen(gap(0, 50), **flaws)))
    assert says in failure.reason
    assert (failure.retry_at is not None) is (says == "cannot vouch")


@pytest.mark.parametrize(
    "query,witness,witnessed,passes",
    [
        (JournalQuery(), True, True, False),
        (JournalQuery(), True, False, False),
        (JournalQuery(), False, False, True),
        (JournalQuery("quote.read"), True, False, False),
        (JournalQuery("quote.read"), True, True, True),
        (JournalQuery("quote.read"), False, False, True),
    ],
)
@pytest.mark.parametrize("coverage", ["complete", "partial"])
def test_silence_needs_a_witness(
    query: JournalQuery, witness: bool, witnessed: bool, passes: bool, coverage: Any
) -> None:
    """An empty window counts if the name is there and declared, or if the witness is waived."""
    finding = judged(source(query, witness=witness, coverage=coverage), seen(witnessed=witnessed))
    assert (type(finding) is Passed) is passes


def test_the_missing_witness_is_named() -> None:
    """The failure names what nobody declares, and how to declare it."""
    failure = refused(judged(source(), seen(witnessed=False)))
    assert failure.details == {"name": "quote.read"}
    assert "but no recorder in the window declares, or not every one, that it would" in failure.reason
    assert 'journal.declare("quote.read")' in failure.reason


@pytest.mark.parametrize(
    "recorders,says",
    [
        (["api-7"], "1 recorder of the window (api-7) did not declare"),
        (["api-7", "api-8"], "2 recorders of the window (api-7, api-8) did not declare"),
        (list("abcde"), "5 recorders of the window (a, b, c, d, e) did not declare"),
        (list("abcdef"), "6 recorders of the window (a, b, c, d, e, ...) did not declare"),
    ],
)
def test_who_does_not_declare_is_named(recorders: list[str], says: str) -> None:
    """A store that knows which recorders stand in the way has the failure name them, the first five in its text."""
    failure = refused(judged(source(), seen(witnessed=False, unwitnessed_by=recorders)))
    assert failure.reason.startswith(f'nothing named "quote.read" happened, but {says} that it would have recorded it;')
    assert failure.details == {"name": "quote.read", "recorders": recorders}


def test_of_many_recorders_twenty_are_told() -> None:
    """A large fleet does not make a large failure."""
    failure = refused(judged(source(), seen(witnessed=False, unwitnessed_by=[str(n) for n in range(30)])))
    assert failure.details["recorders"] == [str(n) for n in range(20)]
    assert "30 recorders of the window" in failure.reason


def test_who_declares_is_told_by_witnessed_alone() -> None:
    """The names are there for people: a window that says it is witnessed is."""
    assert type(judged(source(), seen(witnessed=True, unwitnessed_by=["api-7"]))) is Passed


@pytest.mark.parametrize("witness", [True, False])
@pytest.mark.parametrize("coverage", ["complete", "partial"])
def test_a_call_in_flight_breaks_the_silence(witness: bool, coverage: Any) -> None:
    """No waiver lets an empty window pass while a matching call runs; the failure names it and since when."""
    failure = refused(judged(source(witness=witness, coverage=coverage), seen(in_flight=CALLS)))
    assert f'2 matching calls in flight, the oldest "quote.read" since {at(7).isoformat()}' in failure.reason
    assert failure.details == {"in_flight": [{"name": "quote.read", "since": at(n)} for n in (7, 9)]}


def test_the_process_of_a_call_is_named() -> None:
    """Where it runs in another process, and the store knows which."""
    calls = [InFlightCall("quote.read", NOW, recorder="api-7"), *CALLS]
    failure = refused(judged(source(), seen(in_flight=calls)))
    assert f'the oldest "quote.read" since {NOW.wall.isoformat()} in api-7; wait' in failure.reason
    assert [each.get("recorder") for each in failure.details["in_flight"]] == ["api-7", None, None]  # type: ignore[attr-defined]


def test_events_need_neither_witness_nor_stillness() -> None:
    """Over a window that is not empty the predicate judges, with the calls in flight before it."""
    window = seen(events=[EVENT], witnessed=False, in_flight=CALLS)
    assert type(judged(source(JournalQuery()), window)) is Passed


@pytest.mark.parametrize("events", [[], [EVENT]])
def test_partial_coverage_waives_gap_and_cut_off_alone(events: list[HandlerEvent]) -> None:
    """Gaps and a limit pass, and nothing is said to have been tolerated."""
    query = JournalQuery("quote.read", limit=1)
    window = seen(gap(0, 90), events=events, truncated=True)
    assert type(judged(source(query), window)) is EvidenceFailure
    passed = judged(source(query, coverage="partial"), window)
    assert (type(passed), passed.tolerated) == (Passed, ())


def test_a_cut_off_window_is_not_complete() -> None:
    """The failure names the limit and both remedies."""
    failure = refused(judged(source(JournalQuery(limit=1)), seen(events=[EVENT], truncated=True)))
    assert failure.details == {"limit": 1}
    assert "the query's limit of 1 cut events off" in failure.reason
    assert "raise the limit" in failure.reason
    assert 'coverage="partial"' in failure.reason


def test_a_window_that_the_store_cut_off_is_not_complete() -> None:
    """Where the query has no limit, it was the store's own bound, and another remedy helps."""
    failure = refused(judged(source(), seen(events=[EVENT], truncated=True)))
    assert failure.details == {"limit": None}
    assert failure.reason.startswith("the most that the store reads at once cut events off")
    assert "ask about a shorter window, or less with where=, or claim" in failure.reason
    assert 'coverage="partial"' in failure.reason
    assert "raise the limit" not in failure.reason


@pytest.mark.parametrize(
    "gaps,since,max_gap,retry_at",
    [
        ([(0, 10)], 0, 0, 110),
        ([(0, 10)], 0, 9, 101),
        ([(0, 10)], 0, 10, None),
        ([(0, 10), (5, 12)], 0, 12, None),
        ([(0, 10), (5, 12)], 0, 11, 101),
        ([(0, 10), (90, 95)], 0, 7, 108),
        ([(0, 10), (90, 95)], 0, 3, 192),
        ([], 30, 0, 130),
        ([], 30, 30, None),
        ([], 30, 29, 101),
        ([(-50, 0), (100, 170)], -50, 0, None),
        ([(-50, 1)], 0, 0, 101),
        ([(99, 170)], 0, 0, 270),
    ],
)
def test_gaps_are_weighed_against_max_gap(
    gaps: list[tuple[int, int]], since: int, max_gap: int, retry_at: int | None
) -> None:
    """More than `max_gap` in total fails, with the time at which no more will be left; less is tolerated."""
    window = seen(*(gap(*each) for each in gaps), events=[EVENT], since=since)
    finding = judged(source(max_gap=timedelta(microseconds=max_gap)), window)
    if retry_at is None:
        assert type(finding) is Passed
    else:
        assert refused(finding).retry_at == at(retry_at)


def test_tolerated_gaps_are_told() -> None:
    """They come with the Ok, clipped to the window, for the audit."""
    window = seen(gap(-5, 3, recorder="api-7"), gap(98, 130), events=[EVENT])
    passed = judged(source(max_gap=timedelta(microseconds=5)), window)
    assert passed.tolerated == (gap(0, 3, recorder="api-7"), gap(98, 100))
    assert gap_details(passed.tolerated[0]) == {
        "since": at(0).isoformat(),
        "until": at(3).isoformat(),
        "reason": "it crashed",
        "recorder": "api-7",
    }


@pytest.mark.parametrize("max_gap,allowed", [(0, False), (2, True)])
def test_the_longest_gap_is_named(max_gap: int, allowed: bool) -> None:
    """The failure names its bounds, its recorder and reason, the total, and what is allowed if anything is."""
    window = seen(gap(0, 3), gap(20, 30, recorder="api-7"), events=[EVENT])
    failure = refused(judged(source(max_gap=timedelta(microseconds=max_gap)), window))
    named = f"from {at(20).isoformat()} to {at(30).isoformat()} (it crashed, recorder api-7)"
    assert named in failure.reason
    assert "0.000013 seconds of 0.0001 seconds missing" in failure.reason
    assert (" (0.000002 seconds may be)" in failure.reason) is allowed
    assert [each["until"] for each in failure.details["gaps"]] == [at(3).isoformat(), at(30).isoformat()]  # type: ignore[attr-defined]
    json.dumps(failure.details)


@pytest.mark.parametrize(
    "others,reason,retry_at",
    [
        ([], "ask again, for this gap may close", None),
        ([(10, 13)], "ask again", 113),
        ([(10, 50)], "wait until that has left", 150),
    ],
)
def test_a_gap_that_may_close_is_not_waited_for(
    others: list[tuple[int, int]], reason: str, retry_at: int | None
) -> None:
    """It counts, but the time to retry at is when the others have left."""
    window = seen(gap(90, 130, may_close=True), *(gap(*each) for each in others), events=[EVENT])
    failure = refused(judged(source(), window))
    assert reason in failure.reason
    assert failure.retry_at == (None if retry_at is None else at(retry_at))


@pytest.mark.parametrize(
    "options,answered,retry_at",
    [
        ({}, 120, 180),
        ({}, 190, 190),
        ({}, None, None),
        ({"coverage": "partial"}, 120, 120),
        ({"max_gap": timedelta(microseconds=10)}, 120, 120),
        ({"max_gap": timedelta(microseconds=9)}, 120, 171),
    ],
)
def test_a_failure_is_not_retried_before_its_window_is_covered(
    options: dict[str, Any], answered: int | None, retry_at: int | None
) -> None:
    """What the predicate says stands, but it cannot pass while a gap would stand in its way."""
    retry = None if answered is None else at(answered)
    failure = EvidenceFailure("seen", {"n": 1}, retry_at=retry)
    found = refused(judged(source(**options), seen(gap(70, 80), events=[EVENT]), err(failure)))
    assert found == attrs.evolve(failure, retry_at=None if retry_at is None else at(retry_at))


def test_a_gap_without_a_recorder_names_none() -> None:
    """Where it is not known who failed to record, nobody is named."""
    assert "recorder" not in refused(judged(source(), seen(gap(0, 3), events=[EVENT]))).reason


def test_long_lists_are_cut() -> None:
    """At most twenty calls and gaps go into the details."""
    calls = [InFlightCall("quote.read", NOW)] * 30
    gaps = [gap(2 * n, 2 * n + 1) for n in range(30)]
    assert len(refused(judged(source(), seen(in_flight=calls))).details["in_flight"]) == 20  # type: ignore[arg-type]
    assert len(refused(judged(source(), seen(*gaps))).details["gaps"]) == 20  # type: ignore[arg-type]


class WindowToo(JournalWindow):
    pass


def test_a_store_answers_with_a_window() -> None:
    """A window, or one of a store's own kind, is taken as it is."""
    for window in (seen(), WindowToo([], since=EPOCH, until=EPOCH, gaps=[])):
        assert check_window(window) is window


@pytest.mark.parametrize("answer", [None, [], [EVENT], MagicMock(spec=JournalWindow), JournalWindow])
def test_what_cannot_vouch_is_no_window(answer: object) -> None:
    """A bare list, a mock or nothing at all says nothing of gaps: a wrong shape."""
    with pytest.raises(WrongShapeError, match="JournalWindow, which says what it can vouch for"):
        check_window(answer)
