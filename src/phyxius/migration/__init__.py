"""Migrations as typed values, whose next step is taken only on live evidence."""

from phyxius.migration._attempt import Attempt, current_attempt
from phyxius.migration._errors import (
    AttemptFencedError,
    CheckCancelledError,
    MemoryPhaseStoreWarning,
    SpecChangedError,
    SpecError,
    UnknownPhaseError,
    WrongShapeError,
)
from phyxius.migration._evidence import (
    AttestationEvidence,
    EvidenceSource,
    JournalWindowEvidence,
    SchemaAppliedEvidence,
    attestation,
    journal_window,
    schema_applied,
)
from phyxius.migration._failure import Check, Evidence, EvidenceFailure, EvidenceWithdrawnError, Predicate
from phyxius.migration._memory_journal_store import MemoryJournalStore, create_memory_journal_store
from phyxius.migration._memory_phase_store import MemoryPhaseStore, create_memory_phase_store
from phyxius.migration._migration import Migration, create_migration
from phyxius.migration._outcomes import (
    Advanced,
    AdvanceError,
    AlreadyAtFinal,
    CasLost,
    EvidenceErrored,
    EvidenceFailed,
    NotNext,
    Readiness,
    SpecChanged,
    StoreErrored,
)
from phyxius.migration._phase_reached import phase_reached
from phyxius.migration._predicates import at_least, every_event, no_events, rate_below
from phyxius.migration._shadow_parity import shadow_parity
from phyxius.migration._spec import MigrationSpec, PhaseSpec, define_migration
from phyxius.migration._stores import (
    Committed,
    Conflict,
    EvidenceSnapshot,
    JournalStore,
    PhaseStore,
    Transition,
)
from phyxius.migration._window import Gap, JournalQuery, JournalWindow

__all__ = [
    "AdvanceError",
    "Advanced",
    "AlreadyAtFinal",
    "Attempt",
    "AttemptFencedError",
    "AttestationEvidence",
    "CasLost",
    "Check",
    "CheckCancelledError",
    "Committed",
    "Conflict",
    "Evidence",
    "EvidenceErrored",
    "EvidenceFailed",
    "EvidenceFailure",
    "EvidenceSnapshot",
    "EvidenceSource",
    "EvidenceWithdrawnError",
    "Gap",
    "JournalQuery",
    "JournalStore",
    "JournalWindow",
    "JournalWindowEvidence",
    "MemoryJournalStore",
    "MemoryPhaseStore",
    "MemoryPhaseStoreWarning",
    "Migration",
    "MigrationSpec",
    "NotNext",
    "PhaseSpec",
    "PhaseStore",
    "Predicate",
    "Readiness",
    "SchemaAppliedEvidence",
    "SpecChanged",
    "SpecChangedError",
    "SpecError",
    "StoreErrored",
    "Transition",
    "UnknownPhaseError",
    "WrongShapeError",
    "at_least",
    "attestation",
    "create_memory_journal_store",
    "create_memory_phase_store",
    "create_migration",
    "current_attempt",
    "define_migration",
    "every_event",
    "journal_window",
    "no_events",
    "phase_reached",
    "rate_below",
    "schema_applied",
    "shadow_parity",
]
