"""What belongs together: the id of the request, job or message that is being handled."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from types import TracebackType

from phyxius.journal import printable

_LONGEST = 200
_current: ContextVar[str | None] = ContextVar("phyxius_correlation_id", default=None)


class correlated:  # noqa: N801 - it reads as a statement
    """Have all that is recorded inside belong to one request, job or message: a context manager.

        with correlated(request.headers.get("x-request-id")) as correlation_id:
            ...

    Every event whose call begins inside, and every audit event of `advance()`, has that `correlation_id`. It is kept
    in a contextvar, so tasks that are started inside, and threads that copy the context, have it too.

    Args:
        correlation_id: The id, cut at 200 characters; without one, or with an empty one, a new one is made.
    """

    def __init__(self, correlation_id: object = None) -> None:
        given = "" if correlation_id is None else printable(str(correlation_id))
        self._id = given[:_LONGEST] or uuid.uuid4().hex

    def __enter__(self) -> str:
        """Begin, and return the id."""
        self._outer = _current.get()
        _current.set(self._id)
        return self._id

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go back to what was before."""
        _current.set(self._outer)  # a token could not be given back in a copy of the context


def current_correlation_id() -> str | None:
    """The id of the innermost `correlated` of this context, if there is one."""
    return _current.get()
