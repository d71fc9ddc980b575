"""Phases, journal and signatures in one SQLite file: the embedded default, on the standard library alone."""

from phyxius.adapters._attestations import SqlAttestations
from phyxius.adapters._journal_store import SqlJournalStore
from phyxius.adapters._orders import AmendedMeanwhileError, Order, PassedPhasesChangedError
from phyxius.adapters._phase_store import SqlPhaseStore
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._signatures import Signature
from phyxius.adapters.sqlite._errors import FileProblem, FileStoreError
from phyxius.adapters.sqlite._stores import FileStores, open_file_stores

__all__ = [
    "AmendedMeanwhileError",
    "FileProblem",
    "FileStoreError",
    "FileStores",
    "Order",
    "PassedPhasesChangedError",
    "Recorder",
    "Signature",
    "SqlAttestations",
    "SqlJournalStore",
    "SqlPhaseStore",
    "open_file_stores",
]
