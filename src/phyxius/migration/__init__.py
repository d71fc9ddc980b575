"""Migrations as typed values, whose next step is taken only on live evidence."""

from phyxius.migration._attempt import Attempt, current_attempt
from phyxius.migration._demand import demand_of
from phyxius.migration._errors import (
    AttemptFencedError,
    CheckCancelledError,
    EvidenceOvertakenError,
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
    OnAnswer,
    Readiness,
    SourceAnswer,
    SpecChanged,
    StoreErrored,
    Verdict,
)
from phyxius.migration._phase_reached import phase_reached
from phyxius.migration._phased_calls import PhasedCalls
from phyxius.migration._predicates import at_least, every_event, no_events, rate_below
from phyxius.migration._ran_under import ran_under
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
from phyxius.migration._window import Coverage, Gap, JournalQuery, JournalWindow
from phyxius.migration._write_parity import write_parity

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
    "Coverage",
    "Evidence",
    "EvidenceErrored",
    "EvidenceFailed",
    "EvidenceFailure",
    "EvidenceOvertakenError",
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
    "OnAnswer",
    "PhaseSpec",
    "PhaseStore",
    "PhasedCalls",
    "Predicate",
    "Readiness",
    "SchemaAppliedEvidence",
    "SourceAnswer",
    "SpecChanged",
    "SpecChangedError",
    "SpecError",
    "StoreErrored",
    "Transition",
    "UnknownPhaseError",
    "Verdict",
    "WrongShapeError",
    "at_least",
    "attestation",
    "create_memory_journal_store",
    "create_memory_phase_store",
    "create_migration",
    "current_attempt",
    "define_migration",
    "demand_of",
    "every_event",
    "journal_window",
    "no_events",
    "phase_reached",
    "ran_under",
    "rate_below",
    "schema_applied",
    "shadow_parity",
    "write_parity",
]
