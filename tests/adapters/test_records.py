"""Events and calls as rows, and back."""

from __future__ import annotations

import contextlib
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters._records import LARGEST_OBSERVED, CallRow, EventRow, evidence_text, is_storable
from phyxius.clock import Instant, create_controlled_clock
from phyxius.handler import (
    HandlerError,
    HandlerEvent,
    InFlightCall,
    NotStoredError,
    NotYetObservedError,
    ObservedInPart,
    correlated,
)
from phyxius.journal import PayloadError, printable
from phyxius.migration import EvidenceSnapshot
from phyxius.testing import make_event

NOW = create_controlled_clock().now().shifted(1)
AUDIT = "migration.quotes.advance"
TOO_LONG = "x" * LARGEST_OBSERVED


class Unreadable:
    """What fails however it is looked at."""

    def __repr__(self) -> str:
        raise OSError("no")

    def __getattr__(self, name: str) -> object:
        raise OSError("no")


def event(**fields: Any) -> HandlerEvent:
    return HandlerEvent(**{"name": "quote.read", "outcome": "success", "completed_at": NOW, **fields})


def there_and_back(original: HandlerEvent) -> HandlerEvent:
    return EventRow(*attrs.astuple(EventRow.of(original))).event()


# What databases take.
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30).map(
    lambda text: text.rstrip(" ")
)
words = texts.filter(bool)
plain_words = st.text("abcdefghijklmnopqrstuvwxyz .", max_size=30).map(str.rstrip)
instants = st.integers(-(2**63), 2**63 - 1).map(lambda ns: Instant(wall_ns=ns, mono_ns=None))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
events = st.builds(
    HandlerEvent,
    name=words,
    outcome=st.sampled_from(["success", "failure"]),
    completed_at=instants,
    started_at=instants,
    source=texts,
    observed=st.dictionaries(texts, values, max_size=4),
    attempts=st.integers(-(2**63), 2**63 - 1),
    error=st.none() | st.builds(HandlerError, plain_words, plain_words),
    invocation_id=st.none() | texts,
    correlation_id=st.none() | texts,
)


@given(events)
def test_an_event_comes_back_as_it_was(original: HandlerEvent) -> None:
    """Whatever JSON can hold survives, and all other fields."""
    assert there_and_back(original) == original


@given(events)
def test_a_row_is_what_databases_take(original: HandlerEvent) -> None:
    """Texts that are Unicode, and whole numbers of 64 bits."""
    for value in attrs.astuple(EventRow.of(original)):
        assert value is None or type(value) in (int, str)
        assert not isinstance(value, int) or -(2**63) <= value < 2**63
        assert not isinstance(value, str) or "\x00" not in value.encode().decode()


def test_only_the_wall_time_is_kept() -> None:
    """The monotonic scale of a process means nothing to another."""
    back = there_and_back(event(completed_at=NOW.shifted(5), started_at=NOW))
    assert back.completed_at == Instant(wall_ns=NOW.wall_ns + 5, mono_ns=None)
    assert back.started_at == Instant(wall_ns=NOW.wall_ns, mono_ns=None)


@pytest.mark.parametrize(
    "value,stored",
    [
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
        (UUID(int=1), str(UUID(int=1))),
        (Decimal("1.50"), "1.50"),
        ((1, 2), [1, 2]),
        (HandlerError("a", "b"), {"type": "a", "message": "b"}),
        (2**70, 2**70),
    ],
)
def test_what_can_be_written_as_json_is(value: object, stored: object) -> None:
    """It comes back as what JSON makes of it."""
    assert there_and_back(event(observed={"key": value})).observed == {"key": stored}


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Unreadable(),
        b"bytes",
        {1, 2},
        math.nan,
        math.inf,
        "\x00",
        "\ud800",
        {"deep": ["\x00"]},
        {1: "a key that is no text"},
        datetime(2024, 1, 1),  # noqa: DTZ001
        10**5_000,
        TOO_LONG,
        [0] * 100_001,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_missing_and_says_so(value: object) -> None:
    """The rest comes back; who asks for what is missing, or for all, learns that it could not be stored."""
    observed: Any = there_and_back(event(observed={"tenant": "a", "body": value, "rows": 3})).observed
    assert isinstance(observed, ObservedInPart)
    assert (observed["tenant"], observed.get("rows"), observed.get("other")) == ("a", 3, None)
    for ask in (
        lambda: observed["body"],
        lambda: observed.get("body"),
        lambda: "body" in observed,
        lambda: observed == {},
    ):
        with pytest.raises(NotStoredError):
            ask()
    row = CallRow.of(InFlightCall("quote.read", NOW, observed={"tenant": "a", "body": value}))
    call = CallRow(*attrs.astuple(row)).call()
    assert call.observed.known == {"tenant": "a"}
    with pytest.raises(NotYetObservedError):
        call.observed.get("body")


@pytest.mark.parametrize("key,written", [(7, "7"), (None, "None"), (True, "True"), (1.5, "1.5"), ("\x00", "'\\x00'")])
@pytest.mark.parametrize("storable", [True, False])
def test_keys_that_are_no_text_are_written_as_one(key: Any, written: str, storable: bool) -> None:
    """One odd key makes no row that cannot be read back."""
    observed: Any = there_and_back(event(observed={key: 1 if storable else object(), "fine": 2})).observed
    assert observed["fine"] == 2
    if storable:
        assert observed == {written: 1, "fine": 2}
    else:
        with pytest.raises(NotStoredError):
            observed.get(written)


@given(st.lists(st.tuples(texts, st.text(max_size=3), st.integers(0, 9_000)), max_size=8))
def test_what_is_observed_has_a_bound(parts: list[tuple[str, str, int]]) -> None:
    """No row holds more than 16 KiB of it, and each key is either there or known to be missing."""
    original = {key: text * times for key, text, times in parts}
    row = EventRow.of(event(observed=original))
    kept = json.loads(row.observed)
    missing = [] if row.missing is None else json.loads(row.missing)
    assert len(row.observed.encode()) <= LARGEST_OBSERVED + len(original) + 1
    assert {*kept, *missing} == set(original)
    assert all(kept[key] == original[key] for key in kept)
    assert not set(kept) & set(missing)


def test_the_bound_is_on_bytes() -> None:
    """A part that just fits in is stored; one byte more is not."""
    fits = "é" * ((LARGEST_OBSERVED - len('"k":""')) // 2)
    assert EventRow.of(event(observed={"k": fits})).missing is None
    assert EventRow.of(event(observed={"k": fits + "x"})).missing == '["k"]'


def test_so_many_missing_keys_that_any_may_be_one() -> None:
    """The list of them is bounded, too: beyond it every key that is not there may have been."""
    observed: dict[str, object] = {"fine": 7} | {f"key {number}": object() for number in range(1_000)}
    row = EventRow.of(event(observed=observed))
    assert row.missing == "null"
    back = row.event().observed
    assert back["fine"] == 7
    with pytest.raises(NotStoredError):
        back.get("key 1")
    longest = "k" * (4_000 - len('[""]'))
    assert EventRow.of(event(observed={longest: object()})).missing == f'["{longest}"]'
    assert EventRow.of(event(observed={longest + "k": object()})).missing == "null"
    assert json.loads(EventRow.of(event(observed={"k": TOO_LONG, "small": 1})).observed) == {"small": 1}


# -- audit events


def test_the_evidence_of_an_audit_event_is_stored_whole() -> None:
    """However large it is, and whatever it looks like: it was checked source by source."""
    snapshot = {f"source {n}": {"password": "x" * 10_000} for n in range(20)}
    back = there_and_back(event(name=AUDIT, source="migration", observed={"snapshot": snapshot, "from": "expand"}))
    assert back.observed == {"snapshot": snapshot, "from": "expand"}


def test_the_refusal_of_an_audit_event_is_redacted() -> None:
    """At whatever depth a secret stands; other values stay, and very long texts are cut."""
    refusal = {
        "message": "password=hunter2 is wrong",
        "errors": {"schema": {"type": "OperationalError", "message": "redis://:hunter2@cache failed"}},
        "list": ["token=hunter2", 7, None, True],
        "long": "x" * 9_000,
    }
    back: Any = there_and_back(event(name=AUDIT, source="migration", observed={"refusal": refusal, "other": "token=1"}))
    assert back.observed["refusal"] == {
        "message": "password=*** is wrong",
        "errors": {"schema": {"type": "OperationalError", "message": "redis://***@cache failed"}},
        "list": ["token=***", 7, None, True],
        "long": "x" * 3_999 + "…",
    }
    assert back.observed["other"] == "token=1"


def test_what_a_handler_observed_as_refusal_is_its_own() -> None:
    """Only the library's own events have a refusal."""
    observed = {"refusal": "password=hunter2"}
    assert there_and_back(event(observed=observed)).observed == observed


def test_errors_are_redacted() -> None:
    """The message of an exception, and its class, are the likeliest places of a secret."""
    back = there_and_back(event(outcome="failure", error=HandlerError("E", "postgresql://ada:hunter2@db is down")))
    assert back.error == HandlerError("E", "postgresql://***@db is down")
    assert there_and_back(event(outcome="failure", error=HandlerError("E", ""))).error == HandlerError("E", "")


# -- what cannot be written


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "\x00"},
        {"name": "\ud800"},
        {"source": "\x00"},
        {"invocation_id": "\x00"},
        {"attempts": 2**63},
        {"attempts": -(2**63) - 1},
        {"attempts": 1.5},
        {"completed_at": Instant(wall_ns=2**63, mono_ns=None), "started_at": NOW},
        {"started_at": Instant(wall_ns=-(2**63) - 1, mono_ns=None)},
        {"completed_at": datetime(2024, 1, 1, tzinfo=UTC), "started_at": NOW},
        {"error": "no HandlerError"},
        {"observed": {Unreadable(): 1}},
    ],
    ids="-".join,
)
def test_an_event_that_cannot_be_written(fields: dict[str, Any]) -> None:
    """It is refused as a payload is, whatever is wrong with it, so that no other event has to wait for it."""
    with pytest.raises(PayloadError):
        EventRow.of(event(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "\x00"},
        {"source": "\ud800"},
        {"started_at": Instant(wall_ns=2**63, mono_ns=None)},
        {"started_at": None},
        {"invocation_id": "\x00"},
        {"observed": {Unreadable(): 1}},
    ],
)
def test_a_call_that_cannot_be_written(fields: dict[str, Any]) -> None:
    """The same of the start of a call."""
    with pytest.raises(PayloadError):
        CallRow.of(InFlightCall(**{"name": "quote.read", "started_at": NOW, **fields}))


def test_a_row_with_another_outcome_is_no_event() -> None:
    """What is neither of the two was not written by us."""
    with pytest.raises(ValueError, match="an outcome is"):
        attrs.evolve(EventRow.of(event()), outcome="ok").event()


# -- calls


@given(words, instants, texts, st.dictionaries(texts, values, max_size=4), st.none() | texts, st.none() | texts)
def test_a_call_comes_back_as_it_was(
    name: str, started_at: Instant, source: str, observed: dict[str, object], invocation: Any, correlation: Any
) -> None:
    """It is in flight, with what was observed at its start."""
    row = CallRow.of(InFlightCall(name, started_at, source, observed, invocation, correlation))  # type: ignore[arg-type]
    call = CallRow(*attrs.astuple(row)).call()
    assert (call.name, call.started_at, call.source, call.observed.known) == (name, started_at, source, observed)
    assert (call.invocation_id, call.correlation_id) == (invocation, correlation)


def test_a_lost_call_counts_as_a_failure_at_the_end_of_the_lease() -> None:
    """It names the recorder; what it would have observed later raises."""
    row = CallRow.of(InFlightCall("quote.read", NOW, observed={"tenant": "a"}, invocation_id="i", correlation_id="c"))
    lost = row.lost("api-7", NOW.wall_ns + 30)
    assert (lost.name, lost.outcome, lost.source) == ("quote.read", "failure", "handler")
    assert (lost.invocation_id, lost.correlation_id) == ("i", "c")
    assert (lost.started_at.wall_ns, lost.completed_at.wall_ns) == (NOW.wall_ns, NOW.wall_ns + 30)
    assert lost.error is not None
    assert lost.error.type == "RecorderLost"
    assert "api-7" in lost.error.message
    assert lost.observed["tenant"] == "a"
    with pytest.raises(NotYetObservedError):
        lost.observed.get("rows")
    assert row.lost("api-7", 0).completed_at.wall_ns == NOW.wall_ns, "it did not end before it began"


# -- evidence


def test_evidence_as_text() -> None:
    """All payloads by source, each as JSON of at most 16 KiB."""
    assert json.loads(evidence_text(EvidenceSnapshot("i", {}))) == {}
    payloads = {f"source {n}": "x" * (LARGEST_OBSERVED - 2) for n in range(3)} | {"ü": {"at": NOW.wall}}
    back = json.loads(evidence_text(EvidenceSnapshot("i", payloads)))
    assert back == payloads | {"ü": {"at": NOW.wall.isoformat()}}


@pytest.mark.parametrize("payload", ["x" * (LARGEST_OBSERVED - 1), "é" * (LARGEST_OBSERVED // 2), object(), math.nan])
def test_evidence_that_cannot_be_stored(payload: object) -> None:
    """What is too large, or no JSON, is refused."""
    with pytest.raises(PayloadError):
        evidence_text(EvidenceSnapshot("i", {"schema": payload}))


@pytest.mark.parametrize("source", ["\x00", "\ud800"])
def test_evidence_of_a_source_that_no_database_takes(source: str) -> None:
    """Its name is refused as any other text."""
    with pytest.raises(PayloadError):
        evidence_text(EvidenceSnapshot("i", {source: 1}))


def test_an_outcome_that_is_none() -> None:
    """Whoever forced it on an event keeps it alone from being stored."""
    event = make_event("a", clock=create_controlled_clock())
    object.__setattr__(event, "outcome", "perhaps")
    with pytest.raises(PayloadError, match="'perhaps' is no outcome"):
        EventRow.of(event)


def test_what_databases_take() -> None:
    """A text without U+0000 and without halves of surrogate pairs."""
    assert is_storable("ü😀")
    assert not is_storable("\x00")
    assert not is_storable("\udfff")


@pytest.mark.parametrize(
    "name,stored", [("n" * 255, True), ("n" * 256, False), ("a ", False), (" a", True), ("a\n", True)]
)
def test_names_that_databases_index(name: str, stored: bool) -> None:
    """They have 255 characters at most, and no blank at the end, which some databases take for none."""
    now = create_controlled_clock().now()
    assert is_storable(name) is stored
    for make in (
        lambda: EventRow.of(HandlerEvent(name, "success", now)),
        lambda: EventRow.of(HandlerEvent("a", "success", now, source=name)),
        lambda: EventRow.of(HandlerEvent("a", "success", now, invocation_id=name)),
        lambda: CallRow.of(InFlightCall(name, now)),
        lambda: CallRow.of(InFlightCall("a", now, source=name)),
        lambda: CallRow.of(InFlightCall("a", now, invocation_id=name)),
    ):
        with contextlib.nullcontext() if stored else pytest.raises(PayloadError, match="longer than 255 characters"):
            make()
    assert EventRow.of(HandlerEvent("a", "success", now, correlation_id=name)).correlation_id == name


def test_instants_are_put_on_the_scale_of_the_rows() -> None:
    """Whoever writes an event or a call down says how."""
    clock = create_controlled_clock()
    event = HandlerEvent("a", "success", clock.now(), clock.now())
    row = EventRow.of(event, lambda instant: instant.wall_ns + 7)
    assert (row.completed_ns, row.started_ns) == (clock.now().wall_ns + 7, clock.now().wall_ns + 7)
    assert CallRow.of(InFlightCall("a", clock.now()), lambda instant: 9).started_ns == 9


def test_what_a_redaction_hook_raised_for_is_missing() -> None:
    """And all the rest is there: an event must not be lost for one value."""
    back = there_and_back(event(observed=ObservedInPart({"shop": 1, "odd": object()}, ["card"])))
    assert back.observed["shop"] == 1
    for key in ("card", "odd"):
        with pytest.raises(NotStoredError):
            back.observed.get(key)
    assert back.observed.get("other") is None
    back = there_and_back(event(observed=ObservedInPart({"shop": 1}, None)))
    with pytest.raises(NotStoredError):
        back.observed.get("other")


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_what_databases_refuse_in_messages_and_ids(text: str) -> None:
    """Such a text comes from outside, and must not cost the event."""
    back = there_and_back(event(error=HandlerError("Odd", text), correlation_id=text, outcome="failure"))
    assert back.error is not None
    assert back.error.message == back.correlation_id == printable(text)
    with correlated(text) as correlation_id:
        assert correlation_id == printable(text)
    call = InFlightCall("quote.read", NOW, correlation_id=text)
    assert CallRow.of(call).correlation_id == printable(text)
