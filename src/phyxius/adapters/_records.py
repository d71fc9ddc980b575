"""Events and calls as rows, and back. What a row says is data: nothing is imported or run because of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from phyxius.adapters._redaction import redacted
from phyxius.clock import Instant
from phyxius.handler import HandlerError, HandlerEvent, InFlightCall, ObservedInPart, PartlyKnown
from phyxius.journal import PayloadError, printable, to_json_value
from phyxius.migration import EvidenceSnapshot

_LONGEST_REASON = 4_000
LONGEST_KEY = 255
"""Characters that a name may have."""
LARGEST_OBSERVED = 16 * 1024
"""Bytes of JSON that an event may have observed; keys that do not fit in are left out, and marked as missing."""


Stamp: TypeAlias = Callable[[Instant], int]


def wall_ns(instant: Instant) -> int:
    """The instant as the wall of its host had it."""
    return instant.wall_ns


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What an event is made of nobody checked: none of it may keep the others from being stored."""
    try:
        yield
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(f"it cannot be read: {type(error).__name__}") from error


@attrs.frozen
class EventRow:
    """A `HandlerEvent` as the columns of a row; times are nanoseconds since 1970, texts are JSON where they nest."""

    name: str
    outcome: str
    completed_ns: int
    started_ns: int
    source: str
    attempts: int
    observed: str
    missing: str | None
    error_type: str | None
    error_message: str | None
    invocation_id: str | None
    correlation_id: str | None

    @classmethod
    @_readable()
    def of(cls, event: HandlerEvent, stamp: Stamp = wall_ns) -> EventRow:
        """Write an event down; `stamp` puts its instants on the scale of the rows.

        Raises:
            PayloadError: It is one that databases refuse, or cannot be read.
        """
        audit = event.source == "migration"
        observed, missing = _observed_text(event.observed, audit=audit)
        error = event.error
        return cls(
            name=_key(event.name),
            outcome=_outcome_text(event.outcome),
            completed_ns=_integer(stamp(event.completed_at)),
            started_ns=_integer(stamp(event.started_at)),
            source=_key(event.source),
            attempts=_integer(event.attempts),
            observed=observed,
            missing=missing,
            error_type=None if error is None else redacted(printable(error.type)),
            error_message=None if error is None else redacted(printable(error.message)),
            invocation_id=None if event.invocation_id is None else _key(event.invocation_id),
            correlation_id=None if event.correlation_id is None else printable(event.correlation_id)[:_LONGEST_REASON],
        )

    def event(self) -> HandlerEvent:
        """The event back. Its times are on the wall alone: they come from another process, for all we know."""
        error = None if self.error_type is None else HandlerError(self.error_type, self.error_message or "")
        return HandlerEvent(
            name=self.name,
            outcome=_outcome(self.outcome),
            completed_at=Instant(wall_ns=self.completed_ns, mono_ns=None),
            started_at=Instant(wall_ns=self.started_ns, mono_ns=None),
            source=self.source,
            observed=_observed(self.observed, self.missing),
            attempts=self.attempts,
            error=error,
            invocation_id=self.invocation_id,
            correlation_id=self.correlation_id,
        )


@attrs.frozen
class CallRow:
    """The start of a call as the columns of a row."""

    name: str
    started_ns: int
    source: str
    observed: str
    invocation_id: str | None
    correlation_id: str | None

    @classmethod
    @_readable()
    def of(cls, call: InFlightCall, stamp: Stamp = wall_ns) -> CallRow:
        """Write the start of a call down; `stamp` puts its instant on the scale of the rows.

        Raises:
            PayloadError: It is one that databases refuse, or cannot be read.
        """
        observed, _ = _observed_text(call.observed.known)
        return cls(
            name=_key(call.name),
            started_ns=_integer(stamp(call.started_at)),
            source=_key(call.source),
            observed=observed,
            invocation_id=None if call.invocation_id is None else _key(call.invocation_id),
            correlation_id=None if call.correlation_id is None else printable(call.correlation_id)[:_LONGEST_REASON],
        )

    def call(self, recorder: str | None = None) -> InFlightCall:
        """The call back, as one that is in flight. What could not be stored of it is not known yet, either."""
        return InFlightCall(
            name=self.name,
            started_at=Instant(wall_ns=self.started_ns, mono_ns=None),
            source=self.source,
            observed=json.loads(self.observed),
            invocation_id=self.invocation_id,
            correlation_id=self.correlation_id,
            recorder=recorder,
        )

    def lost(self, recorder: str, until_ns: int) -> HandlerEvent:
        """The event that stands for a call whose recorder died: it may have run up to then."""
        return HandlerEvent(
            name=self.name,
            outcome="failure",
            completed_at=Instant(wall_ns=max(until_ns, self.started_ns), mono_ns=None),
            started_at=Instant(wall_ns=self.started_ns, mono_ns=None),
            source=self.source,
            observed=self.call(recorder).observed,  # what it would have observed later nobody knows
            error=HandlerError("RecorderLost", f"recorder {recorder} ended while it ran; how it ended is unknown"),
            invocation_id=self.invocation_id,
            correlation_id=self.correlation_id,
        )


EVENT_COLUMNS = ", ".join(attrs.fields_dict(EventRow))
CALL_COLUMNS = ", ".join(attrs.fields_dict(CallRow))


def evidence_text(evidence: EvidenceSnapshot) -> str:
    """The evidence of an attempt as JSON text.

    Raises:
        PayloadError: A payload is no JSON, or takes more than 16 KiB.
    """
    parts: list[str] = []
    for source, payload in evidence.payloads.items():
        text = _dump(to_json_value(payload))
        size = len(text.encode())
        if size > LARGEST_OBSERVED:
            raise PayloadError(f"the payload of {source} takes {size} bytes as JSON; {LARGEST_OBSERVED} are allowed")
        parts.append(f"{_dump(_text(source))}:{text}")
    return "{" + ",".join(parts) + "}"


def _observed_text(observed: Mapping[str, object], *, audit: bool = False) -> tuple[str, str | None]:
    """The JSON text of what can be stored, and one of the keys of what cannot."""
    parts: list[str] = []
    missing: list[str] = []
    size = 0
    if isinstance(observed, PartlyKnown):
        lacking = observed.missing if isinstance(observed, ObservedInPart) else None
        if lacking is None:
            return _observed_text(observed.known)[0], "null"
        missing += lacking
        observed = observed.known
    for key, value in observed.items():
        name = str(to_json_value(key, fallback=repr))
        try:
            encoded = to_json_value(value)
            if audit and name == "refusal":
                encoded = _redacted_values(encoded)
            part = f"{_dump(name)}:{_dump(encoded)}"
        except Exception:  # noqa: BLE001 - a foreign object, that may not even be readable
            missing.append(name)
            continue
        # The evidence in an audit event was checked source by source, and goes in as a whole.
        if not audit and size + len(part.encode()) > LARGEST_OBSERVED:
            missing.append(name)
            continue
        size += len(part.encode())
        parts.append(part)
    return "{" + ",".join(parts) + "}", _missing_text(missing)


def _missing_text(missing: list[str]) -> str | None:
    """The list; `null` if it is so long that any key may be on it."""
    if not missing:
        return None
    text = _dump(missing)
    return text if len(text) <= _LONGEST_REASON else "null"


def _dump(value: object) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _redacted_values(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value, _LONGEST_REASON)
    if isinstance(value, list):
        return [_redacted_values(each) for each in value]
    if isinstance(value, dict):
        return {key: _redacted_values(each) for key, each in value.items()}
    return value


def _observed(text: str, missing: str | None) -> Mapping[str, object]:
    observed: dict[str, object] = json.loads(text)
    return observed if missing is None else ObservedInPart(observed, json.loads(missing))


def _text(text: str) -> str:
    return str(to_json_value(text))


def _key(text: str) -> str:
    """A text that is looked for. Some databases index no longer ones, or take blanks at the end for nothing."""
    key = _text(text)
    if len(key) > LONGEST_KEY or key.endswith(" "):
        raise PayloadError(f"{key[:40]!r}... is longer than {LONGEST_KEY} characters, or ends with a blank")
    return key


def _integer(number: int) -> int:
    if not isinstance(number, int) or not -(2**63) <= number < 2**63:
        raise PayloadError(f"{number!r} is no whole number of 64 bits")
    return int(number)


def _outcome_text(outcome: str) -> str:
    if outcome not in ("success", "failure"):
        raise PayloadError(f"{outcome!r} is no outcome")
    return outcome


def _outcome(text: str) -> Any:
    return text  # HandlerEvent refuses what is neither of the two


def is_storable(name: str) -> bool:
    """Whether databases take such a text as a name."""
    try:
        _key(name)
    except PayloadError:
        return False
    return True
