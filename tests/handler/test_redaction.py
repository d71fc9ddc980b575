"""The redaction hook: what a user calls secret never reaches the journal."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from phyxius.clock import create_controlled_clock
from phyxius.handler import HandlerEvent, NotStoredError, NotYetObservedError, event_serializer, observe, recorded
from phyxius.journal import Journal

SECRET = "4111 1111 1111 1111"


def mask(key: str, value: object) -> object:
    return "***" if key == "card" else str(value).replace(SECRET, "***") if key == "error" else value


def journal_with(redact: Any) -> Journal[Any]:
    return Journal(clock=create_controlled_clock(), redact=redact)


def only(journal: Journal[Any]) -> HandlerEvent:
    (entry,) = journal
    return entry.data  # type: ignore[no-any-return]


def test_values_and_errors_are_redacted() -> None:
    """What is known at the start, what is learned on the way, and what the call raises; the caller sees it all."""
    journal = journal_with(mask)

    @recorded(journal, "pay", {"card": SECRET, "shop": 1})
    def pay() -> None:
        assert journal.in_flight[0].observed.known == {"card": "***", "shop": 1}  # type: ignore[attr-defined]
        observe(card=SECRET)
        raise ValueError(f"no such card: {SECRET}")

    with pytest.raises(ValueError, match=SECRET):
        pay()
    event = only(journal)
    assert event.observed == {"card": "***", "shop": 1}
    assert event.error is not None
    assert (event.error.type, event.error.message) == ("ValueError", "no such card: ***")
    assert SECRET not in repr(event)


def test_a_call_without_an_error_has_no_message_to_redact() -> None:
    """The hook is not asked about what is not there."""
    asked: list[str] = []
    journal = journal_with(lambda key, value: asked.append(key) or value)
    with recorded(journal, "pay", {"shop": 1}):
        pass
    assert asked == ["shop", "shop"]
    assert only(journal).error is None


def test_a_hook_that_raises_costs_the_value(caplog: pytest.LogCaptureFixture) -> None:
    """The event is there without it, the handler does not notice, and nobody takes it for absent."""

    def fail(key: str, value: object) -> object:
        if key in ("card", "error"):
            raise LookupError(key)
        return value

    journal = journal_with(fail)

    @recorded(journal, "pay", {"card": SECRET, "shop": 1})
    def pay() -> None:
        in_flight: Any = journal.in_flight[0]
        with pytest.raises(NotYetObservedError):
            in_flight.observed.get("card")
        raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET):
        pay()
    event = only(journal)
    assert event.observed["shop"] == 1
    for look in (event.observed.get, event.observed.__contains__):
        with pytest.raises(NotStoredError):
            look("card")
    assert event.error is not None
    assert event.error.message == "(withheld, since the redaction raised)"
    assert SECRET not in caplog.text
    assert "the redaction of 'card' raised LookupError" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_hook_that_wants_to_end_the_process(raised: type[BaseException]) -> None:
    """It does; the call stays in flight, so that nothing takes it for a silence."""

    def fail(key: str, value: object) -> object:
        if value == 2:
            raise raised
        return value

    journal = journal_with(fail)
    with pytest.raises(raised), recorded(journal, "pay") as call:
        call.observed["shop"] = 2
    assert (len(journal), len(journal.in_flight)) == (0, 1)


def test_what_is_no_hook_is_refused() -> None:
    """A coroutine would stand in every event."""

    async def later(key: str, value: object) -> object:
        return value

    for wrong in (later, "mask"):
        with pytest.raises(TypeError, match="redact must be a plain function"):
            journal_with(wrong)


def test_a_restored_journal_may_have_one() -> None:
    """It is not part of what is stored."""
    text = Journal[Any](clock=create_controlled_clock(), serializer=event_serializer).to_json()
    journal = Journal[Any].from_json(text, clock=create_controlled_clock(), redact=mask)
    assert journal.redact is mask
    with recorded(journal, "pay", {"card": SECRET}):
        pass
    assert only(journal).observed == {"card": "***"}


def test_what_is_pinned_is_not_redacted() -> None:
    """The phase of a call is no secret, and a query that did not find it would take that for silence."""
    asked: list[str] = []
    journal = journal_with(lambda key, value: asked.append(key) or "***")
    with recorded(journal, "pay", {"shop": 1}) as call:
        call.pin(phase="expand")
        observe(phase="flip")
        assert journal.in_flight[0].observed.known == {"shop": "***", "phase": "expand"}  # type: ignore[attr-defined]
    assert only(journal).observed == {"shop": "***", "phase": "expand"}
    assert set(asked) == {"shop"}


def test_a_message_is_cut_after_it_was_redacted() -> None:
    """Or half of a secret would get past the hook."""
    journal = journal_with(mask)
    with pytest.raises(ValueError, match="x"), recorded(journal, "pay"):
        raise ValueError("x" * 490 + SECRET)
    event = only(journal)
    assert event.error is not None
    assert event.error.message == "x" * 490 + "***"
