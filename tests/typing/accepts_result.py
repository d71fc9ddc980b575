"""A `Result` is made by `ok` and `err`, and taken apart by a provably exhaustive match."""

from typing_extensions import assert_never, assert_type

from phyxius import Err, Ok, Result, err, ok

value: int = ok(1).value
assert_type(ok(), Ok[None])
assert_type(ok(1), Ok[int])
assert_type(ok({"count": 1}), Ok[dict[str, int]])
assert_type(ok(None), Ok[None])
assert_type(Ok("text"), Ok[str])
assert_type(err("no"), Err[str])
assert_type(Err(ValueError("no")), Err[ValueError])
assert_type(err("no").error, str)


def parse(text: str) -> Result[int, str]:
    if not text.isdecimal():
        return err(f"{text!r} is no number")
    return ok(int(text))


def with_keywords() -> Result[int, str]:
    return Ok(value=1) if value else Err(error="no")


def matched(result: Result[int, str]) -> str:
    match result:
        case Ok(number):
            assert_type(number, int)
            return str(number + 1)
        case Err(reason):
            assert_type(reason, str)
            return reason.upper()
        case _:
            assert_never(result)


def matched_to_the_end(result: Result[int, str]) -> str:
    match result:
        case Ok(number):
            return str(number)
        case Err(reason):
            return reason


def by_isinstance(result: Result[int, str]) -> int:
    if isinstance(result, Err):
        assert_type(result, Err[str])
        return len(result.error)
    assert_type(result, Ok[int])
    return result.value


def wider(of_bool: Ok[bool], of_value_error: Err[ValueError]) -> tuple[Ok[int], Err[Exception], Result[object, object]]:
    return of_bool, of_value_error, of_bool
