"""The one event that every call of `advance()` leaves behind."""

from __future__ import annotations

import json
import logging
from asyncio import CancelledError
from collections.abc import Mapping
from typing import Any

from phyxius.clock import Instant
from phyxius.handler import HandlerError, HandlerEvent, current_correlation_id
from phyxius.journal import Journal, to_json_value
from phyxius.migration._decision import Finding
from phyxius.migration._failure import EvidenceFailure
from phyxius.migration._judge import Passed, gap_details
from phyxius.migration._outcomes import EvidenceErrored, EvidenceFailed, StoreErrored
from phyxius.migration._stores import check_journal
from phyxius.migration._wording import representation

_logger = logging.getLogger("phyxius.migration")
_LARGEST_DETAILS = 16 * 1024


def write_audit(journal: Journal[Any], event: HandlerEvent, store: object) -> Exception | None:
    """Append the event; a journal that refuses it changes no answer, and is told of in the log.

    So is a journal that keeps it in memory alone, where the phase store looks for it.
    """
    try:
        check_journal(store, journal)
    except (Exception, CancelledError) as error:  # noqa: BLE001 - the boundary of a store
        _logger.warning("the audit event of %s is lost with this process: %s", event.name, error)
    try:
        journal.append(event)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        _logger.exception("the journal refused the audit event of %s: %s", event.name, dict(event.observed))
        return error if isinstance(error, Exception) else RuntimeError(f"the journal raised {error!r}")
    return None


def audit_event(
    *,
    migration: str,
    attempt: str,
    from_phase: str | None,
    attempted: str | None,
    started_at: Instant,
    completed_at: Instant,
    findings: Mapping[str, Finding],
    refusal: Mapping[str, object] | None,
) -> HandlerEvent:
    """The event of one call: the evidence if there is no refusal, else the refusal."""
    observed: dict[str, object] = {"migration": migration, "from": from_phase, "attempted": attempted}
    tolerated = {
        name: [gap_details(gap) for gap in finding.tolerated]
        for name, finding in findings.items()
        if isinstance(finding, Passed) and finding.tolerated
    }
    if tolerated:
        observed["tolerated"] = tolerated
    if refusal is None:
        observed["snapshot"] = payloads_of(findings)
    else:
        observed["refusal"] = refusal
    return HandlerEvent(
        name=f"migration.{migration}.advance",
        outcome="success" if refusal is None else "failure",
        source="migration",
        started_at=started_at,
        completed_at=completed_at,
        observed=observed,
        invocation_id=attempt,
        correlation_id=current_correlation_id(),
    )


def payloads_of(findings: Mapping[str, Finding]) -> dict[str, object]:
    """What each source learned, in fresh copies."""
    return {name: finding.payload for name, finding in findings.items() if isinstance(finding, Passed)}


def refusal_details(refusal: Any) -> dict[str, object]:
    """A refusal as JSON values."""
    failures: Mapping[str, EvidenceFailure] = {}
    errors: Mapping[str, BaseException] = {}
    if isinstance(refusal, EvidenceFailed | EvidenceErrored):
        failures = refusal.failures
    if isinstance(refusal, EvidenceErrored):
        errors = refusal.errors
    elif isinstance(refusal, StoreErrored):
        errors = {refusal.operation: refusal.error}
    return {
        "type": refusal.type,
        "message": refusal.message,
        "failures": {name: _failure_details(failure) for name, failure in failures.items()},
        "errors": {name: _error_details(error) for name, error in errors.items()},
    }


def cancelled_details() -> dict[str, object]:
    """The refusal of a call that was cancelled before its commit began."""
    message = "the call was cancelled before the transition began; nothing moved, advance() again"
    return {"type": "CANCELLED", "message": message, "failures": {}, "errors": {}}


def _failure_details(failure: EvidenceFailure) -> dict[str, object]:
    return {
        "reason": failure.reason,
        "details": _writable(failure.details),
        "retry_at": None if failure.retry_at is None else failure.retry_at.isoformat(),
    }


def _error_details(error: BaseException) -> dict[str, object]:
    described = HandlerError.of(error)
    return {"type": described.type, "message": described.message}


def _writable(details: object) -> object:
    try:
        value = to_json_value(details, fallback=representation)
        if len(json.dumps(value)) <= _LARGEST_DETAILS:
            return value
    except Exception:  # noqa: BLE001 - details are foreign objects, and may not even be readable
        _logger.warning("the details of a failure could not be read as JSON")
    return {"repr": representation(details)}
