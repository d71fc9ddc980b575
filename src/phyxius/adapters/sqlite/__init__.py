"""Phases, journal and signatures in one SQLite file: the embedded default, on the standard library alone."""

from phyxius.adapters._recorder import Recorder
from phyxius.adapters._signatures import Signature
from phyxius.adapters.sqlite._attestations import FileAttestations
from phyxius.adapters.sqlite._errors import FileProblem, FileStoreError
from phyxius.adapters.sqlite._journal_store import FileJournalStore
from phyxius.adapters.sqlite._orders import PassedPhasesChangedError
from phyxius.adapters.sqlite._phase_store import FilePhaseStore
from phyxius.adapters.sqlite._stores import FileStores, open_file_stores

__all__ = [
    "FileAttestations",
    "FileJournalStore",
    "FilePhaseStore",
    "FileProblem",
    "FileStoreError",
    "FileStores",
    "PassedPhasesChangedError",
    "Recorder",
    "Signature",
    "open_file_stores",
]
