"""What a recorder asks of the store that it writes to."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Protocol

from phyxius.adapters._inbox import Receipt
from phyxius.adapters._ledger import Batch
from phyxius.adapters._moment import Moment
from phyxius.adapters._records import CallRow


class RecorderTables(Protocol):
    """Where a recorder puts what it keeps. Each method is one transaction, which a cancellation does not tear."""

    @property
    def key(self) -> Hashable:
        """Names the store, in this process."""
        ...

    async def create(
        self, name: str, audit_only: bool, started_ns: int, batch: Batch, instead_of: Collection[int] = ()
    ) -> int:
        """Make the recorder's row, store its first batch, and return its key.

        Args:
            name: How people know it.
            audit_only: Whether its process runs no handlers.
            started_ns: When its journal began.
            batch: Its first batch.
            instead_of: When it began in earlier attempts, whose rows may be there though nobody learned of it.
        """
        ...

    async def has(self, receipt: Receipt) -> bool:
        """Whether it still knows what it gave this receipt for."""
        ...

    async def store(self, recorder: int, batch: Batch) -> None:
        """Store a batch, unless that number was stored already."""

    @property
    def poll_seconds(self) -> float:
        """How often a recorder looks whether somebody waits for it."""
        ...

    async def look(self) -> tuple[int, Moment]:
        """The last request to the recorders to catch up, and what the clock shows that stamps the rows."""
        ...

    async def keep(self, recorder: int, key: str, call: CallRow) -> None:
        """Store the start of a call."""

    def keep_blocking(self, recorder: int, key: str, call: CallRow) -> None:
        """The same for code that cannot await."""
