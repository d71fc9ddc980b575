"""Handlers and connectors: what they did becomes an event in the journal."""

from phyxius.handler._event import HandlerError, HandlerEvent, event_serializer
from phyxius.handler._in_flight import InFlightCall, NotYetObservedError, ObservedSoFar
from phyxius.handler._in_part import NotStoredError, ObservedInPart, PartlyKnown
from phyxius.handler._parity import Parity
from phyxius.handler._recorded import Recording, observe, recorded
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
    "event_serializer",
    "observe",
    "recorded",
    "shadow",
]
