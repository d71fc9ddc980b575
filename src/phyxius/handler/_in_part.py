"""What was observed, where not all of it is known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn

import attrs


@attrs.define(eq=False, slots=False)
class NotStoredError(Exception):
    """A stored event was asked for something that it observed and that could not be stored.

    It is no LookupError, so that an `except KeyError` in a `where` does not take "not stored" for "not".
    """

    what: str

    def __str__(self) -> str:
        return f"{self.what} could not be stored: it was no JSON, or too large, or its redaction raised"


class PartlyKnown(Mapping[str, object]):
    """A mapping of which only some is known. The rest raises, also through `.get` and `in`, and so does the whole."""

    def __init__(self, observed: Mapping[str, object]) -> None:
        self._observed = dict(known_of(observed))

    @property
    def known(self) -> Mapping[str, object]:
        """What is known of it."""
        return self._observed

    def __getitem__(self, key: str) -> object:
        self._check(key)
        return self._observed[key]

    def __contains__(self, key: object) -> bool:
        self._check(key)
        return key in self._observed

    def __iter__(self) -> Iterator[str]:
        self._incomplete()

    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        self._incomplete()

    @abstractmethod
    def _check(self, key: object) -> None:
        """Raise if it is not known whether there is such a key."""

    @abstractmethod
    def _incomplete(self) -> NoReturn:
        """Raise, since the whole is not known."""
        ...


def known_of(observed: Mapping[str, object]) -> Mapping[str, object]:
    """What is known of what was observed, be that all of it or not."""
    return observed.known if isinstance(observed, PartlyKnown) else observed


class ObservedInPart(PartlyKnown):
    """What an event observed, read from a store that could not keep all of it.

    What is missing raises `NotStoredError`, also through `.get` and `in`, and so does a look at the whole: a
    `where` must not take it for something that was never there.

    Args:
        observed: What was stored.
        missing: The keys of what was not; None if that may be any other key.
    """

    def __init__(self, observed: Mapping[str, object], missing: Collection[str] | None) -> None:
        super().__init__(observed)
        self._missing = None if missing is None else frozenset(missing)

    @property
    def missing(self) -> frozenset[str] | None:
        """The keys of what is missing; None if that may be any other key."""
        return self._missing

    def __repr__(self) -> str:
        missing = None if self._missing is None else sorted(self._missing)
        return f"ObservedInPart({self._observed!r}, missing={missing!r})"

    def _check(self, key: object) -> None:
        if key not in self._observed if self._missing is None else key in self._missing:
            raise NotStoredError(f"observed[{key!r}]")

    def _incomplete(self) -> NoReturn:
        raise NotStoredError("all that it observed")
