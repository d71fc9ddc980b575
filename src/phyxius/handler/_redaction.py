"""Keeping what a user calls secret out of events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

import attrs

from phyxius.handler._event import HandlerError
from phyxius.handler._in_part import ObservedInPart
from phyxius.journal import Redact

_logger = logging.getLogger("phyxius.handler")


def redacted_observed(
    redact: Redact | None, observed: Mapping[str, object], pinned: Mapping[str, object] = MappingProxyType({})
) -> Mapping[str, object]:
    """What was observed, with each value as the hook answers for it; what it raises for is missing.

    What is pinned is the library's own, and goes in as it is.
    """
    if redact is None:
        return {**observed, **pinned} if pinned else observed
    kept: dict[str, object] = {}
    missing = []
    for key, value in observed.items():
        if key in pinned:
            continue
        try:
            kept[key] = redact(key, value)
        except Exception as failed:  # noqa: BLE001 - a foreign hook
            _tell(key, failed)
            missing.append(key)
    kept |= pinned
    return ObservedInPart(kept, missing) if missing else kept


def redacted_error(redact: Redact | None, error: HandlerError | None) -> HandlerError | None:
    """An error, with its message as the hook answers for it; cut only then, or half of a secret might get past it."""
    if error is None:
        return None
    if redact is None:
        return error.cut()
    try:
        return attrs.evolve(error, message=str(redact("error", error.message))).cut()
    except Exception as failed:  # noqa: BLE001 - a foreign hook
        _tell("error", failed)
        return attrs.evolve(error, message="(withheld, since the redaction raised)")


def _tell(key: str, failed: Exception) -> None:
    # A traceback would show what it was called with, and what the handler raised.
    _logger.error("the redaction of %r raised %s, so the event lacks it", key, type(failed).__name__)
