"""The value of an `Ok` is not of another type."""

from phyxius.fp import ok

value: str = ok(1).value  # E: mypy, pyright
