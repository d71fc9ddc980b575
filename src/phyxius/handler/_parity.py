"""Whether two answers agree: a decision without clock, journal or loop."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import attrs

from phyxius.fp import Err, Ok, Result
from phyxius.handler._event import HandlerError


class Parity(StrEnum):
    """How one attempt to compare old and new ended; an event has it as `observed["parity"]`.

    Attributes:
        MATCHED: Both answered, and the answers agree.
        MISMATCHED: They disagree, or the old side raised where the new one answered.
        IGNORED: They disagree in a way that `ignore` knows of; that is no match.
        ERRORED: The new side raised or was late, or the comparison itself failed.
        NOT_COMPARED: There was nothing to compare: both sides raised alike, or the call was cancelled.
    """

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    IGNORED = "ignored"
    ERRORED = "errored"
    NOT_COMPARED = "not_compared"


class LateError(TimeoutError):
    """The new side used up its limit, which is no agreement with an old side that raised a TimeoutError."""


@attrs.frozen
class Comparison:
    """The verdict on one attempt, why, and the error behind it."""

    parity: Parity
    why: str | None = None
    error: HandlerError | None = None


@attrs.frozen
class Comparator:
    """How two answers are compared; None stands for `==` and for "nothing is ignored".

    The side on trial is called by its name in what is said of it.
    """

    compare: Callable[[Any, Any], object] | None
    ignore: Callable[[Any, Any], object] | None = None
    trial: str = "new"

    def judge(self, old: Result[object, BaseException], new: Result[object, BaseException]) -> Comparison:
        """The verdict on what the two sides did."""
        if isinstance(old, Err) and not isinstance(old.error, Exception):
            return Comparison(Parity.NOT_COMPARED, "the call was cancelled")
        if isinstance(new, Err) and isinstance(new.error, LateError):
            return Comparison(
                Parity.ERRORED, f"the {self.trial} side was late", HandlerError.of(new.error, longest=None)
            )
        if isinstance(old, Ok):
            if isinstance(new, Ok):
                return self._compare(old.value, new.value)
            return Comparison(Parity.ERRORED, f"the {self.trial} side raised", HandlerError.of(new.error, longest=None))
        if isinstance(new, Ok):
            return Comparison(Parity.MISMATCHED, "only the old side raised", HandlerError.of(old.error, longest=None))
        if type(old.error) is type(new.error):
            return Comparison(Parity.NOT_COMPARED, "both sides raised alike", HandlerError.of(old.error, longest=None))
        return Comparison(
            Parity.ERRORED, f"the {self.trial} side raised something else", HandlerError.of(new.error, longest=None)
        )

    def _compare(self, old: object, new: object) -> Comparison:
        try:
            if inspect.isawaitable(old) or inspect.isawaitable(new):
                if inspect.iscoroutine(new):
                    new.close()
                raise TypeError("a side answered with an awaitable; write it as an `async def`")
            equal = _truth((self.compare or operator.eq)(old, new))
            if equal:
                return Comparison(Parity.MATCHED)
            ignored = self.ignore is not None and _truth(self.ignore(old, new))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a foreign comparator; not even its sys.exit() gets further
            return comparison_failed(error)
        return Comparison(Parity.IGNORED if ignored else Parity.MISMATCHED)


def comparison_failed(error: BaseException) -> Comparison:
    """The verdict where there is none, because comparing raised."""
    return Comparison(Parity.ERRORED, "the comparison failed", HandlerError.of(error, longest=None))


def _truth(answer: object) -> bool:
    if type(answer) is not bool:
        raise TypeError(f"a comparison must answer True or False, not {type(answer).__name__}")
    return answer
