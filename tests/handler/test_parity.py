"""The verdict on what the two sides did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from phyxius.fp import Err, Ok, Result
from phyxius.handler import HandlerError, Parity
from phyxius.handler._parity import Comparator, LateError

Side = Result[object, BaseException]


class Array:
    """What answers `==` with anything but a bool, as the arrays of numpy do."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __eq__(self, other: object) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    __hash__ = None


def parity(old: Side, new: Side, compare: Any = None, ignore: Any = None) -> Parity:
    return Comparator(compare, ignore).judge(old, new).parity


def test_the_words() -> None:
    """The buckets are what is stored, so their names are fixed."""
    assert [str(each) for each in Parity] == ["matched", "mismatched", "ignored", "errored", "not_compared"]


@pytest.mark.parametrize(
    "old, new, expected",
    [
        (Ok(1), Ok(1), "matched"),
        (Ok(None), Ok(None), "matched"),
        (Ok([1]), Ok([2]), "mismatched"),
        (Ok(None), Ok(0), "mismatched"),
        (Ok(1), Err(KeyError()), "errored"),
        (Ok(1), Err(asyncio.CancelledError()), "errored"),
        (Ok(1), Err(SystemExit()), "errored"),
        (Ok(1), Err(LateError()), "errored"),
        (Err(KeyError("a")), Ok(1), "mismatched"),
        (Err(KeyError("a")), Err(KeyError("b")), "not_compared"),
        (Err(LookupError()), Err(KeyError()), "errored"),
        (Err(TimeoutError()), Err(TimeoutError()), "not_compared"),
        (Err(TimeoutError()), Err(LateError()), "errored"),
        (Err(KeyError()), Err(LateError()), "errored"),
        (Err(KeyError()), Err(asyncio.CancelledError()), "errored"),
        (Err(asyncio.CancelledError()), Ok(1), "not_compared"),
        (Err(asyncio.CancelledError()), Err(KeyError()), "not_compared"),
        (Err(asyncio.CancelledError()), Err(asyncio.CancelledError()), "not_compared"),
        (Err(KeyboardInterrupt()), Ok(1), "not_compared"),
    ],
)
def test_verdicts(old: Side, new: Side, expected: str) -> None:
    """Two answers are compared; a new side that raised or was late where the old one was not is errored."""
    assert parity(old, new) == expected


@pytest.mark.parametrize(
    "compare, ignore, expected",
    [
        (lambda old, new: True, None, "matched"),
        (lambda old, new: False, None, "mismatched"),
        (lambda old, new: False, lambda old, new: True, "ignored"),
        (lambda old, new: False, lambda old, new: False, "mismatched"),
        (lambda old, new: 1, None, "errored"),
        (lambda old, new: None, None, "errored"),
        (lambda old, new: 0, lambda old, new: True, "errored"),
        (lambda old, new: False, lambda old, new: "yes", "errored"),
        (lambda old, new: False, lambda old, new: None, "errored"),
        (lambda old, new: old.missing, None, "errored"),
        (lambda old, new: False, lambda old, new: old.missing, "errored"),
        (lambda old, new: asyncio.Future.result(old), None, "errored"),
    ],
)
def test_comparators(compare: Any, ignore: Any, expected: str) -> None:
    """Only the exact True and False count; whatever else a comparator does makes the attempt errored."""
    assert parity(Ok(1), Ok(2), compare, ignore) == expected


@pytest.mark.parametrize("error", [KeyError(), SystemExit(1), asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize("raises", ["compare", "ignore", "=="])
def test_a_comparator_that_raises(error: BaseException, raises: str) -> None:
    """No exception of a comparator makes the attempt vanish, or counts for nothing."""

    def fail(old: object, new: object) -> bool:
        raise error

    compare: Callable[..., object] | None = {"compare": fail, "ignore": lambda old, new: False}.get(raises)
    comparison = Comparator(compare, fail if raises == "ignore" else None).judge(Ok(Array(error)), Ok(1))
    assert comparison.parity is Parity.ERRORED
    assert comparison.error == HandlerError.of(error)


def test_ctrl_c_goes_through_a_comparator() -> None:
    """A KeyboardInterrupt is the user's, and is not swallowed."""

    def fail(old: object, new: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parity(Ok(1), Ok(1), fail)


def test_ignore_is_asked_only_where_the_answers_disagree() -> None:
    """What agrees is a match, whatever `ignore` would say of it."""
    assert parity(Ok(1), Ok(1), None, lambda old, new: old.missing) == "matched"


@pytest.mark.parametrize("answer", [Array([True, True]), Array(1), Array(NotImplemented), Array(None)])
def test_answers_like_those_of_numpy(answer: Array) -> None:
    """An `==` that does not answer with a bool decides nothing, unless Python falls back to identity."""
    expected = "mismatched" if answer.answer is NotImplemented else "errored"
    assert parity(Ok(answer), Ok(Array(answer.answer))) == expected
    assert parity(Ok(answer), Ok(answer), lambda old, new: all([True])) == "matched"


async def test_awaitables_are_no_answers() -> None:
    """A coroutine compared with another would always differ, so it is refused; the caller's is left alone."""

    async def work() -> int:
        return 1

    old, new = work(), work()
    for sides in [(Ok(1), Ok(new)), (Ok(old), Ok(1)), (Ok(old), Ok(work()))]:
        comparison = Comparator(None, None).judge(*sides)
        assert comparison.parity is Parity.ERRORED
        assert comparison.error is not None
        assert "async def" in comparison.error.message
    assert await old == 1
