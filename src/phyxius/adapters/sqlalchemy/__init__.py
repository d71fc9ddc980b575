"""Phases, journal and signatures in a PostgreSQL, MySQL or MariaDB database, over SQLAlchemy: stores for a fleet."""

from phyxius.adapters._asking import NotAskedError
from phyxius.adapters._attestations import SqlAttestations
from phyxius.adapters._journal_store import SqlJournalStore
from phyxius.adapters._orders import AmendedMeanwhileError, Order, PassedPhasesChangedError
from phyxius.adapters._phase_store import SqlPhaseStore
from phyxius.adapters._recorder import Recorder
from phyxius.adapters._signatures import Signature
from phyxius.adapters.sqlalchemy._errors import ServerProblem, ServerStoreError
from phyxius.adapters.sqlalchemy._evidence import has_schema, no_rows, no_sessions
from phyxius.adapters.sqlalchemy._schema import metadata, metadata_for
from phyxius.adapters.sqlalchemy._stores import ServerStores, create_schema, open_stores

__all__ = [
    "AmendedMeanwhileError",
    "NotAskedError",
    "Order",
    "PassedPhasesChangedError",
    "Recorder",
    "ServerProblem",
    "ServerStoreError",
    "ServerStores",
    "Signature",
    "SqlAttestations",
    "SqlJournalStore",
    "SqlPhaseStore",
    "create_schema",
    "has_schema",
    "metadata",
    "metadata_for",
    "no_rows",
    "no_sessions",
    "open_stores",
]
