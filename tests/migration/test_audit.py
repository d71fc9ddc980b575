"""The one event that each call of `advance()` leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest

from phyxius.fp import Err, Ok, err, ok
from phyxius.handler import correlated
from phyxius.journal import Journal, JournalOverflowError
from phyxius.migration import (
    Advanced,
    Conflict,
    EvidenceErrored,
    EvidenceFailed,
    EvidenceFailure,
    JournalQuery,
    SpecChangedError,
    attestation,
    journal_window,
    schema_applied,
)
from tests.migration.support import QUIET, SECOND, Lab, answering, build, checked, forever, quiet, raising, waiting

WHEN = datetime(2031, 1, 1, tzinfo=UTC)
EMPTY: dict[str, object] = {"failures": {}, "errors": {}}


def refused(reason: object) -> Any:
    """Evidence that says no."""

    async def check() -> Any:
        return err(reason)

    return schema_applied(check)


def broken(error: BaseException) -> Any:
    """Evidence that raises."""

    async def check() -> Any:
        raise error

    return schema_applied(check)


def as_observed(lab: Lab, refusal: Any, origin: str | None, attempted: str | None, **parts: object) -> dict[str, Any]:
    """What the audit of a refusal must hold, exactly."""
    told = {"type": refusal.type, "message": refusal.message, **EMPTY, **parts}
    return {"migration": "quotes", "from": origin, "attempted": attempted, "refusal": told}


async def test_success() -> None:
    """A transition is audited with name, source, times, attempt and snapshot, and nothing else is observed."""
    lab = build({"schema": checked({"revision": "0042"}), "quiet": quiet()})
    began = lab.clock.now()
    result = await lab.advance()
    event = lab.audit
    assert (event.name, event.source, event.outcome) == ("migration.quotes.advance", "migration", "success")
    assert (event.started_at, event.completed_at) == (began, lab.clock.now())
    assert event.observed == {
        "migration": "quotes",
        "from": "expand",
        "attempted": "flip",
        "snapshot": {"schema": {"revision": "0042"}, "quiet": {"count": 0}},
    }
    (transition,) = await lab.store.inner.history()
    assert transition.attempt == event.invocation_id
    assert transition.evidence == result.value.evidence == event.observed["snapshot"]


async def test_duration() -> None:
    """The event tells when the call began and when it ended."""
    lab = build({"slow": schema_applied(ok)}, run_sync=lambda check: slow(lab, check))

    async def slow(lab: Lab, check: Callable[[], Any]) -> Any:
        await lab.clock.sleep(5 * SECOND)
        return check()

    await lab.advance(6 * SECOND)
    assert lab.audit.duration == 5 * SECOND


Case = tuple[dict[str, Any], str | None, tuple[str | None, str | None, dict[str, Any]]]
UNSPEC = SpecChangedError(("a", "b"), ("expand", "flip", "contract"))
OS_ERROR = {"type": "OSError", "message": "gone"}
CASES: dict[str, Case] = {
    "final": ({"phases": ("one", "expand")}, None, ("expand", None, {})),
    "final, named": ({"phases": ("one", "expand")}, "one", ("expand", "one", {})),
    "not next": ({}, "contract", ("expand", "contract", {})),
    "failed": (
        {"evidence": {"a": refused(EvidenceFailure("no", {"n": 1}, WHEN)), "b": refused("not signed"), "c": checked()}},
        None,
        (
            "expand",
            "flip",
            {
                "failures": {
                    "a": {"reason": "no", "details": {"n": 1}, "retry_at": WHEN.isoformat()},
                    "b": {"reason": "not signed", "details": {}, "retry_at": None},
                }
            },
        ),
    ),
    "errored": (
        {"evidence": {"a": broken(OSError("gone")), "b": refused("no"), "c": checked()}},
        None,
        (
            "expand",
            "flip",
            {"errors": {"a": OS_ERROR}, "failures": {"b": {"reason": "no", "details": {}, "retry_at": None}}},
        ),
    ),
    "lost": ({"store": {"try_advance": answering(Err(Conflict("contract")))}}, None, ("expand", "flip", {})),
    "unknown phase": ({"store": {"current": answering("drop")}}, "flip", ("drop", "flip", {})),
    "other order at current": ({"store": {"current": raising(UNSPEC)}}, None, (None, None, {})),
    "other order at try_advance": ({"store": {"try_advance": raising(UNSPEC)}}, None, ("expand", "flip", {})),
    "current raises": (
        {"store": {"current": raising(OSError("gone"))}},
        "flip",
        (None, "flip", {"errors": {"current": OS_ERROR}}),
    ),
    "try_advance raises": (
        {"store": {"try_advance": raising(OSError("gone"))}},
        None,
        ("expand", "flip", {"errors": {"try_advance": OS_ERROR}}),
    ),
}


@pytest.mark.parametrize("options, to, told", CASES.values(), ids=CASES)
async def test_each_refusal(options: dict[str, Any], to: str | None, told: tuple[Any, Any, dict[str, Any]]) -> None:
    """Each refusal leaves exactly one event, with exactly the keys that are promised, all of them JSON."""
    lab = build(**options)
    if "phases" in options:
        lab.store.rig("current", answering("expand"))
    result = await lab.advance(to=to)
    origin, attempted, parts = told
    event = lab.audit
    assert (event.name, event.source, event.outcome) == ("migration.quotes.advance", "migration", "failure")
    assert event.observed == as_observed(lab, result.error, origin, attempted, **parts)
    assert json.loads(json.dumps(event.observed)) == event.observed


@pytest.mark.parametrize("stage", ["current", "evidence"])
async def test_cancelled(stage: str) -> None:
    """A call that is cancelled before its commit is audited as `CANCELLED`, with what was known by then."""
    hanging = {"store": {"current": waiting(forever)}} if stage == "current" else {"evidence": {"a": hung()}}
    lab = build(**hanging)
    task = asyncio.ensure_future(lab.migration.advance("flip"))
    await lab.clock.elapse(SECOND)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.audit.observed.keys() == {"migration", "from", "attempted", "refusal"}
    assert lab.audit.observed["from"] == (None if stage == "current" else "expand")
    assert lab.audit.observed["attempted"] == "flip"
    assert lab.refusal.keys() == {"type", "message", *EMPTY}
    assert lab.refusal["type"] == "CANCELLED"
    assert "nothing moved" in lab.refusal["message"]


def hung() -> Any:
    """Evidence that never answers."""
    return schema_applied(forever)


async def test_tolerated_gaps() -> None:
    """A gap that `max_gap` let pass is in the audit, under the name of its source."""
    lab = build({"quiet": quiet(timedelta(days=40), max_gap=timedelta(days=11)), "other": quiet()})
    assert isinstance(await lab.advance(), Ok)
    assert lab.audit.observed.keys() == {"migration", "from", "attempted", "snapshot", "tolerated"}
    (gap,) = lab.audit.observed["tolerated"].pop("quiet")
    assert lab.audit.observed["tolerated"] == {}
    assert gap == {
        "since": "1969-12-22T00:00:00+00:00",
        "until": "1970-01-01T00:00:00+00:00",
        "reason": "the journal began then",
        "recorder": None,
    }


async def test_payload_is_taken_when_judged() -> None:
    """A payload that is changed after its check returned is stored, audited and returned as it was."""
    payload: dict[str, Any] = {"rows": [1], "at": WHEN, "id": UUID(int=7), "sum": Decimal("1.50")}
    expected = {"rows": [1], "at": WHEN.isoformat(), "id": str(UUID(int=7)), "sum": "1.50"}

    async def spoil() -> Any:
        await lab.clock.sleep(SECOND)
        payload["rows"].append(2)
        payload.clear()
        return ok()

    lab = build({"a": checked(payload), "b": schema_applied(spoil)})
    result = await lab.advance(SECOND)
    (transition,) = await lab.store.inner.history()
    assert result.value.evidence["a"] == transition.evidence["a"] == expected
    assert lab.audit.observed["snapshot"] == {"a": expected, "b": None}


async def test_nobody_shares_a_snapshot() -> None:
    """Store, audit and caller have copies of their own: what one does to it, the others do not see."""

    async def spoiling(go: Any) -> Any:
        snapshot = lab.store.calls[-1][3]
        snapshot.payloads["a"]["rows"].append(2)
        return await go()

    lab = build({"a": checked({"rows": [1]})}, store={"try_advance": spoiling})
    result = await lab.advance()
    result.value.evidence["a"]["rows"].append(3)
    assert lab.audit.observed["snapshot"] == {"a": {"rows": [1]}}
    (transition,) = await lab.store.inner.history()
    assert transition.evidence == {"a": {"rows": [1, 2]}}


class Mute:
    def __repr__(self) -> str:
        raise OSError("no repr")


class Loud:
    def __repr__(self) -> str:
        return "L" * 50_000


@pytest.mark.parametrize(
    "details, written",
    [
        (
            {"at": WHEN, "nested": {"n": [2.5, None, True]}},
            {"at": WHEN.isoformat(), "nested": {"n": [2.5, None, True]}},
        ),
        ({"o": object, "n": float("nan")}, {"o": "<class 'object'>", "n": "nan"}),
        ({"keys": {1: 2}}, {"keys": "{1: 2}"}),
        ({"m": Mute()}, {"m": "<Mute that cannot be represented>"}),
        ({"l": Loud()}, {"l": "L" * 999 + "…"}),
        ({"big": ["x" * 100] * 1_000}, {"repr": repr({"big": ["x" * 100] * 1_000})[:999] + "…"}),
        ({"int": 10**5_000}, {"repr": "<dict that cannot be represented>"}),
    ],
)
async def test_details(details: dict[str, object], written: object) -> None:
    """Failure details are written as JSON, what JSON cannot hold as its `repr`, and neither at any length."""
    lab = build({"a": refused(EvidenceFailure("no", details))})
    result = await lab.advance()
    assert isinstance(result.error, EvidenceFailed)
    assert result.error.failures["a"].details.keys() == details.keys()
    assert lab.refusal["failures"]["a"]["details"] == written


async def test_details_that_cannot_be_read() -> None:
    """Details whose reading raises change no answer, and are told of in the log."""

    class Trap(dict[str, object]):
        def items(self) -> Any:
            raise OSError("trap")

    lab = build({"a": refused(EvidenceFailure("no", {"trap": Trap(x=1)}))})
    assert isinstance((await lab.advance()).error, EvidenceFailed)
    assert lab.refusal["failures"]["a"]["details"] == {"repr": "{'trap': {'x': 1}}"}


def full(clock: Any) -> Journal[Any]:
    """A journal that takes no more."""
    journal = Journal[Any](clock=clock, max_entries=1, overflow="error", emit=lambda notice: None)
    journal.append("the last")
    return journal


def nameless(clock: Any) -> Journal[Any]:
    """A journal whose ids cannot be made."""

    def raise_it() -> str:
        raise OSError("no id")

    return Journal(clock=clock, id_generator=raise_it)


class Abort(BaseException):
    """What is no `Exception`."""


def stopping(error: BaseException) -> Callable[[Any], Journal[Any]]:
    """A journal whose append raises what is no `Exception`."""

    class Stopping(Journal[Any]):
        def append(self, data: Any, /) -> Any:
            raise error

    return lambda clock: Stopping(clock=clock)


@pytest.mark.parametrize(
    "journal, error",
    [
        (full, JournalOverflowError),
        (nameless, OSError),
        (stopping(asyncio.CancelledError()), RuntimeError),
        (stopping(Abort()), RuntimeError),
    ],
)
@pytest.mark.parametrize("evidence, outcome", [(checked(), Advanced), (refused("no"), EvidenceFailed)])
async def test_failing_journal(
    journal: Any, error: type[Exception], evidence: Any, outcome: type, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal that refuses the audit changes no answer: it is in `audit_error`, and in the log with the event."""
    lab = build({"a": evidence}, journal=journal)
    with caplog.at_level(logging.ERROR, "phyxius.migration"):
        result = await lab.advance()
    value = result.value if isinstance(result, Ok) else result.error
    assert type(value) is outcome
    assert type(value.audit_error) is error
    assert lab.audits == []
    assert lab.store.phase == ("flip" if outcome is Advanced else "expand")
    (record,) = [record for record in caplog.records if record.name == "phyxius.migration"]
    assert "migration.quotes.advance" in record.getMessage()
    assert "'from': 'expand'" in record.getMessage()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_out_of_the_journal(interrupt: type[BaseException]) -> None:
    """`KeyboardInterrupt` and `SystemExit` go through the journal too; what was committed stays committed."""
    lab = build(journal=stopping(interrupt()))
    with pytest.raises(interrupt):
        asyncio.run(lab.migration.advance())
    assert lab.store.phase == "flip"


@pytest.mark.parametrize("error", [OSError("no recorder"), asyncio.CancelledError("pool")], ids=repr)
async def test_an_audit_that_ends_with_the_process(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """A phase store that keeps no record of that journal changes no answer, and is told of in the log."""
    lab = build()
    lab.store.check_journal = Mock(side_effect=error)
    answer = await lab.advance()
    assert answer.value.audit_error is None
    lab.store.check_journal.assert_called_once_with(lab.journal)
    (message,) = caplog.messages
    assert message == f"the audit event of migration.quotes.advance is lost with this process: {error}"
    assert lab.audit.outcome == "success"


async def test_failing_journal_of_a_cancelled_call(caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled call goes on being cancelled when the journal refuses its audit."""
    lab = build({"a": hung()}, journal=full)
    task = asyncio.ensure_future(lab.migration.advance())
    await lab.clock.elapse(SECOND)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "CANCELLED" in caplog.text


@pytest.mark.parametrize("breaks", [True, False])
async def test_subscribers(breaks: bool) -> None:
    """A subscriber that raises, or that appends to the journal, changes neither answer nor audit."""
    notices: list[Any] = []
    lab = build({"a": checked()}, journal=lambda clock: Journal(clock=clock, emit=notices.append))

    def subscriber(entry: Any) -> None:
        if breaks:
            raise OSError("subscriber")
        lab.journal.append("again")

    lab.journal.subscribe(subscriber)
    result = await lab.advance()
    assert result.value.audit_error is None
    assert lab.audit.outcome == "success"
    assert notices


async def test_audits_are_no_evidence() -> None:
    """A query without a name does not see the audit events, so asking once more is not a reason to fail."""
    seen: list[int] = []

    def count(window: Any) -> Any:
        seen.append(len(window))
        return err("not yet")

    lab = build({"all": journal_window(query=JournalQuery(), window=SECOND, predicate=count)})
    for _ in range(3):
        await lab.advance()
    assert len(lab.audits) == 3
    assert seen == [0, 0, 0]


async def test_sources_keep_their_order() -> None:
    """Findings are told in the order of declaration, whichever ended first."""

    async def late() -> Any:
        await lab.clock.sleep(SECOND)
        return ok(1)

    async def signed() -> Any:
        return ok({"signer": "ada"})

    lab = build({"z": schema_applied(late), "a": attestation(signed), QUIET: quiet()})
    result = await lab.advance(SECOND)
    assert list(result.value.evidence) == list(lab.audit.observed["snapshot"]) == ["z", "a", QUIET]


async def test_errors_are_described() -> None:
    """The audit of a broken source has the class and the message, cut."""
    lab = build({"a": broken(ValueError("v" * 5_000))})
    assert isinstance((await lab.advance()).error, EvidenceErrored)
    told = lab.refusal["errors"]["a"]
    assert told["type"] == "ValueError"
    assert len(told["message"]) == 500


async def test_it_belongs_to_the_request_in_which_it_was_pressed() -> None:
    """So that the person behind a button can be found."""
    lab = build()
    with correlated("request-1"):
        await lab.migration.advance()
    assert lab.audit.correlation_id == "request-1"
