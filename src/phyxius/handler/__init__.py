"""Handlers and connectors: what they did becomes an event in the journal."""

from phyxius.handler._correlation import correlated, current_correlation_id
from phyxius.handler._dual_write import SecondaryWriteError, dual_write
from phyxius.handler._event import HandlerError, HandlerEvent, event_serializer
from phyxius.handler._in_flight import InFlightCall, NotYetObservedError, ObservedSoFar
from phyxius.handler._in_part import NotStoredError, ObservedInPart, PartlyKnown
from phyxius.handler._parity import Parity
from phyxius.handler._recorded import recorded
from phyxius.handler._recording import Recording, observe
from phyxius.handler._shadow import shadow

__all__ = [
    "HandlerError",
    "HandlerEvent",
    "InFlightCall",
    "NotStoredError",
    "NotYetObservedError",
    "ObservedInPart",
    "ObservedSoFar",
    "Parity",
    "PartlyKnown",
    "Recording",
    "SecondaryWriteError",
    "correlated",
    "current_correlation_id",
    "dual_write",
    "event_serializer",
    "observe",
    "recorded",
    "shadow",
]
