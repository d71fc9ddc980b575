"""The two outcomes that a fallible call answers with."""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar, overload

import attrs

T = TypeVar("T")
E = TypeVar("E")
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True)


@attrs.frozen
class Ok(Generic[T_co]):
    """The call succeeded, with `value`.

    Match it: `case Ok(value)`. It is final in spirit: an `advance()` counts this exact class, and no subclass.
    """

    value: T_co


@attrs.frozen
class Err(Generic[E_co]):
    """The call was refused or failed, with `error`, which is a value and no exception to raise."""

    error: E_co


Result: TypeAlias = Ok[T] | Err[E]


@overload
def ok() -> Ok[None]: ...
@overload
def ok(value: T) -> Ok[T]: ...
def ok(value: object = None) -> Ok[object]:
    """Make an `Ok`, with nothing in it unless `value` is given."""
    return Ok(value)


def err(error: E) -> Err[E]:
    """Make an `Err`; in a check or a predicate, a text is short for an `EvidenceFailure` with that reason."""
    return Err(error)
