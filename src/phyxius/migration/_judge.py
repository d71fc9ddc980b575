"""When an answer is a true `Ok`: decisions without clock, loop or store."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import cast

import attrs

from phyxius.fp import Err, Ok
from phyxius.handler import InFlightCall
from phyxius.journal import PayloadError, to_json_value
from phyxius.migration._errors import WrongShapeError
from phyxius.migration._evidence import JournalWindowEvidence
from phyxius.migration._failure import EvidenceFailure
from phyxius.migration._window import Coverage, Gap, JournalWindow
from phyxius.migration._wording import counted, span

_LARGEST_PAYLOAD = 16 * 1024
_WANTED = "ok(payload), err(EvidenceFailure(...)) or err(text)"


@attrs.frozen
class Passed:
    """A true `Ok`.

    Attributes:
        text: The payload as JSON text, taken when it was judged.
        tolerated: The gaps that `max_gap` let pass.
    """

    text: str
    tolerated: tuple[Gap, ...] = ()

    @property
    def payload(self) -> object:
        """A fresh copy of the payload, as JSON values."""
        return json.loads(self.text)


def judge_answer(answer: object) -> Passed | EvidenceFailure:
    """Judge what a check or a predicate answered.

    Raises:
        WrongShapeError: It is neither the exact `Ok` nor an `Err` with a proper reason.
        PayloadError: The payload cannot be written as JSON, or takes more than 16 KiB.
    """
    if type(answer) is Ok:
        return Passed(_payload_text(answer.value))
    if type(answer) is Err:
        if type(answer.error) is EvidenceFailure:
            return answer.error
        if issubclass(type(answer.error), str):
            return EvidenceFailure(str.__str__(answer.error))
        raise WrongShapeError(f"err({_kind(answer.error)})", _WANTED)
    raise WrongShapeError(_kind(answer), _WANTED)


def judge_window(
    source: JournalWindowEvidence[object], window: JournalWindow, answer: object
) -> Passed | EvidenceFailure:
    """Judge what a predicate said of a window, and whether the window can vouch for it.

    Raises:
        WrongShapeError: As `judge_answer`.
        PayloadError: As `judge_answer`.
    """
    passed = judge_answer(answer)
    coverage = Coverage.of(window, source.window)
    if isinstance(passed, EvidenceFailure):
        return _not_before_coverage(passed, source, coverage)
    if not len(window.events) and (silence := _doubted_silence(source, window)):
        return silence
    if source.coverage == "partial":
        return passed
    if window.truncated is not False:
        limit = source.query.limit
        what, cure = f"the query's limit of {limit}", "raise the limit"
        if limit is None:
            what, cure = "the most that the store reads at once", "ask about a shorter window, or less with where="
        return EvidenceFailure(
            f"{what} cut events off, so the window is not complete; "
            f'{cure}, or claim coverage="partial" if more events could not overturn the claim',
            {"limit": limit},
        )
    if coverage.total() > source.max_gap:
        return _gap_failure(coverage, source.max_gap)
    return attrs.evolve(passed, tolerated=coverage.gaps)


def _not_before_coverage(
    failure: EvidenceFailure, source: JournalWindowEvidence[object], coverage: Coverage
) -> EvidenceFailure:
    """The predicate's failure, which is not to be retried while a gap would stand in the way."""
    if failure.retry_at is None or source.coverage == "partial" or coverage.total() <= source.max_gap:
        return failure
    return attrs.evolve(failure, retry_at=max(failure.retry_at, coverage.covered_at(source.max_gap)))


def check_window(window: object) -> JournalWindow:
    """The answer of a journal store, if it is one.

    Raises:
        WrongShapeError: It is no `JournalWindow`.
    """
    if not issubclass(type(window), JournalWindow):
        raise WrongShapeError(_kind(window), "a JournalWindow, which says what it can vouch for,")
    return cast("JournalWindow", window)


def _doubted_silence(source: JournalWindowEvidence[object], window: JournalWindow) -> EvidenceFailure | None:
    name = source.query.name
    if source.witness and name is None:
        return EvidenceFailure(
            "nothing happened, but the query names no events, and nobody can witness the silence of everything; "
            "name them, or waive it with witness=False"
        )
    if source.witness and window.witnessed is not True:
        return _unwitnessed(name, window.unwitnessed_by)
    if window.in_flight:
        call = window.in_flight[0]
        return EvidenceFailure(
            f'{counted(len(window.in_flight), "matching call")} in flight, the oldest "{call.name}" since '
            f"{call.started_at.wall.isoformat()}{_in_process(call.recorder)}; wait until none is",
            {"in_flight": [_call_details(each) for each in window.in_flight[:20]]},
        )
    return None


def _unwitnessed(name: str | None, recorders: Sequence[str]) -> EvidenceFailure:
    who, then = "no recorder in the window declares, or not every one,", ", or start the application that records it"
    if recorders:
        then = "; then wait until those who did not have left the window"
        named = ", ".join(recorders[:5]) + (", ..." if len(recorders) > 5 else "")
        who = f"{counted(len(recorders), 'recorder')} of the window ({named}) did not declare"
    return EvidenceFailure(
        f'nothing named "{name}" happened, but {who} that it would have recorded it; '
        f'mend the name if it is misspelt, or journal.declare("{name}") in the build that no longer has the code{then}',
        {"name": name, **({"recorders": list(recorders[:20])} if recorders else {})},
    )


def _in_process(recorder: str | None) -> str:
    return f" in {recorder}" if recorder else ""


def _call_details(call: InFlightCall) -> dict[str, object]:
    return {
        "name": call.name,
        "since": call.started_at.wall,
        **({"recorder": call.recorder} if call.recorder else {}),
    }


def _gap_failure(coverage: Coverage, max_gap: timedelta) -> EvidenceFailure:
    retry_at = coverage.covered_at(max_gap)
    total = coverage.total()
    longest = max(coverage.gaps, key=lambda gap: gap.until - gap.since)
    recorder = f", recorder {longest.recorder}" if longest.recorder else ""
    allowed = f" ({span(max_gap)} may be)" if max_gap else ""
    cure = "ask again, for this gap may close" if longest.may_close else "wait until that has left the window"
    return EvidenceFailure(
        "the journal cannot vouch for the whole window: "
        f"{span(total)} of {span(coverage.window)} missing{allowed}, "
        f"most of it from {longest.since.isoformat()} to {longest.until.isoformat()} "
        f"({longest.reason}{recorder}); {cure}",
        {
            "missing": str(total),
            "max_gap": str(max_gap),
            "gaps": [gap_details(gap) for gap in coverage.gaps[:20]],
        },
        retry_at=retry_at if retry_at > coverage.until else None,
    )


def gap_details(gap: Gap) -> dict[str, object]:
    """A gap as JSON values."""
    return {
        "since": gap.since.isoformat(),
        "until": gap.until.isoformat(),
        "reason": gap.reason,
        "recorder": gap.recorder,
    }


def _payload_text(payload: object) -> str:
    text = json.dumps(to_json_value(payload), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode())
    if size > _LARGEST_PAYLOAD:
        raise PayloadError(f"the payload takes {size} bytes as JSON; {_LARGEST_PAYLOAD} are allowed: give a summary")
    return text


def _kind(answer: object) -> str:
    if inspect.iscoroutine(answer):
        answer.close()
        return "a coroutine that nobody awaited"
    return "None" if answer is None else f"{type(answer).__module__}.{type(answer).__qualname__}"
