"""What a journal asks of those who work with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from phyxius.journal._entry import JournalEntry

T = TypeVar("T")
Redact: TypeAlias = Callable[[str, object], object]


class JournalSerializer(Protocol[T]):
    """Turns the data of entries into JSON values and back."""

    def dump(self, data: T, /) -> object:
        """The data as a value that the standard `json` module can write."""

    def load(self, value: Any, /) -> T:
        """The data back from the JSON value; a ValueError says that it is none."""
        ...


class StartKeeper(Protocol):
    """Stores that a call begins before its body runs, so that no crash can hide it."""

    def wants(self, call: object, /) -> bool:
        """Whether the start of this call is to be stored."""
        ...

    def keep(self, call: object, /) -> None:
        """Store it, and return once it is safe. What this raises the call raises, instead of running."""

    async def keep_async(self, call: object, /) -> None:
        """The same without blocking the event loop."""


class JournalFollower(Protocol):
    """Is told of every change of a journal, in order, while the journal is locked. It must not raise."""

    def added(self, entry: JournalEntry[Any], /) -> None:
        """An entry was appended."""

    def dropped(self, entry: JournalEntry[Any], /) -> None:
        """The journal let its oldest entry go."""

    def cleared(self) -> None:
        """The journal let all its entries go."""
