"""Which call of `advance()` a check or a predicate is running for."""

from __future__ import annotations

from contextvars import ContextVar

import attrs


@attrs.frozen
class Attempt:
    """The question that a check is asked to answer.

    Attributes:
        migration: The migration's name.
        from_phase: Where it is.
        to_phase: Where it would go.
        source: The name of the source that is running.
        id: Names the call of `advance()`, or of `readiness()`.
    """

    migration: str
    from_phase: str
    to_phase: str
    source: str
    id: str


running_attempt: ContextVar[Attempt] = ContextVar("phyxius_attempt")


def current_attempt() -> Attempt:
    """The attempt that the running check or predicate belongs to.

    Raises:
        LookupError: Called from anywhere else.
    """
    try:
        return running_attempt.get()
    except LookupError:
        raise LookupError("current_attempt() answers only inside a check or a predicate") from None
