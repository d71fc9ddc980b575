"""The event that a handler or a connector leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, NoReturn, cast, get_args

import attrs

from phyxius.clock import Instant
from phyxius.handler._in_part import PartlyKnown
from phyxius.journal import JournalSerializer, to_json_value

Outcome = Literal["success", "failure"]
_OUTCOMES = get_args(Outcome)
_LONGEST_MESSAGE = 500


@attrs.frozen
class HandlerError:
    """What a call raised: the name of the class, and the message, cut at 500 characters."""

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException, *, longest: int | None = _LONGEST_MESSAGE) -> HandlerError:
        """Describe an exception, even one that cannot describe itself; None cuts nothing off."""
        described = cls(type(error).__name__, _described(str, error))
        return described if longest is None else described.cut(longest)

    def cut(self, longest: int = _LONGEST_MESSAGE) -> HandlerError:
        """The same with a message that is no longer."""
        if len(self.message) <= longest:
            return self
        return HandlerError(self.type, self.message[: longest - 1] + "…")


def _described(describe: Callable[[object], str], value: object) -> str:
    try:
        return describe(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ or __repr__
        return f"(a {type(value).__name__} that cannot be described)"


def represented(value: object) -> str:
    """The `repr` of a foreign object, even of one that has none."""
    return _described(repr, value)


class _Observed(dict[str, object]):
    """A dict that can only be read: a `where` that changed it would judge another event the next time."""

    def _read_only(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("what an event observed cannot be changed; copy it: dict(event.observed)")

    __setitem__ = __delitem__ = __ior__ = cast("Any", _read_only)
    clear = pop = popitem = setdefault = update = cast("Any", _read_only)

    def __reduce__(self) -> tuple[type[_Observed], tuple[dict[str, object]]]:
        return type(self), (dict(self),)


def _copy(observed: Mapping[str, object]) -> Mapping[str, object]:
    return observed if isinstance(observed, PartlyKnown) else _Observed(observed)


def _given(moment: Instant | None) -> Instant:
    return cast("Instant", moment)  # None is filled in once all fields are there


@attrs.frozen
class HandlerEvent:
    """One finished call.

    Attributes:
        name: What ran, such as `"quote.read"`.
        outcome: `"success"`, or `"failure"` if it raised.
        completed_at: When it ended. A window holds what completed in it.
        started_at: When it began; `completed_at` unless given.
        source: What kind of code ran; the library's own audit events say `"migration"`.
        observed: What was learned on the way; a copy that can only be read.
        attempts: How many tries the call took.
        error: What it raised.
        invocation_id: Names this call.
        correlation_id: Names what the call belongs to, such as a request.

    Raises:
        ValueError: The name is empty, or the outcome is neither of the two.
    """

    name: str
    outcome: Outcome
    completed_at: Instant
    started_at: Instant = attrs.field(default=None, converter=_given)
    source: str = "handler"
    observed: Mapping[str, object] = attrs.field(factory=dict, converter=_copy)
    attempts: int = 1
    error: HandlerError | None = None
    invocation_id: str | None = None
    correlation_id: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what no query could find, and fill in the start."""
        if not self.name:
            raise ValueError("an event needs a name")
        if self.outcome not in _OUTCOMES:
            raise ValueError(f'an outcome is "success" or "failure", not {self.outcome!r}')
        for field in ("name", "outcome"):  # the index files by the exact text
            text = getattr(self, field)
            if type(text) is not str and isinstance(text, str):
                object.__setattr__(self, field, str.__str__(text))
        if self.started_at is None:
            object.__setattr__(self, "started_at", self.completed_at)

    @property
    def duration(self) -> timedelta:
        """How long the call took, to the microsecond; on the monotonic clock where both ends have it."""
        return timedelta(microseconds=self.completed_at.ns_since(self.started_at) // 1_000)


class _EventSerializer:
    def dump(self, data: HandlerEvent, /) -> object:
        fields = attrs.asdict(data, recurse=False)
        fields |= {"completed_at": data.completed_at.wall_ns, "started_at": data.started_at.wall_ns}
        # One key that is no text must not take the whole mapping with it, which could not be loaded again.
        fields["observed"] = {
            str(to_json_value(key, fallback=represented)): value for key, value in data.observed.items()
        }
        return to_json_value(fields, fallback=represented)

    def load(self, value: Any, /) -> HandlerEvent:
        times = {key: Instant(wall_ns=int(value[key]), mono_ns=None) for key in ("completed_at", "started_at")}
        error = value["error"] and HandlerError(**value["error"])
        return HandlerEvent(**{**value, **times, "error": error})


event_serializer: JournalSerializer[HandlerEvent] = _EventSerializer()
"""Writes and reads `HandlerEvent`s for `Journal(serializer=...)`; what JSON cannot hold is written as its `repr`."""
