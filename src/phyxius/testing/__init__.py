"""For your tests: events, journals that are old enough, stores that fail on cue, and checks for stores of your own.

The same tools test this library.
"""

from phyxius.testing._conformance import CONFORMANCE_PHASES, ConformanceError, phase_store_checks
from phyxius.testing._events import make_event, record_events
from phyxius.testing._faults import FaultyJournalStore, FaultyPhaseStore
from phyxius.testing._journal_conformance import JournalStoreHarness, journal_store_checks
from phyxius.testing._journals import aged_journal
from phyxius.testing._run_sync import run_in_place

__all__ = [
    "CONFORMANCE_PHASES",
    "ConformanceError",
    "FaultyJournalStore",
    "FaultyPhaseStore",
    "JournalStoreHarness",
    "aged_journal",
    "journal_store_checks",
    "make_event",
    "phase_store_checks",
    "record_events",
    "run_in_place",
]
