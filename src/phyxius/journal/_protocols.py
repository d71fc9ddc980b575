"""What a journal asks of those who work with it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from phyxius.journal._entry import JournalEntry

T = TypeVar("T")


class JournalSerializer(Protocol[T]):
    """Turns the data of entries into JSON values and back."""

    def dump(self, data: T, /) -> object:
        """The data as a value that the standard `json` module can write."""

    def load(self, value: Any, /) -> T:
        """The data back from the JSON value; a ValueError says that it is none."""
        ...


class JournalFollower(Protocol):
    """Is told of every change of a journal, in order, while the journal is locked. It must not raise."""

    def added(self, entry: JournalEntry[Any], /) -> None:
        """An entry was appended."""

    def dropped(self, entry: JournalEntry[Any], /) -> None:
        """The journal let its oldest entry go."""

    def cleared(self) -> None:
        """The journal let all its entries go."""
