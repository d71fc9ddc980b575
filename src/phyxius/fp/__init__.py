"""Outcomes as values: a `Result` is an `Ok` or an `Err`."""

from phyxius.fp._result import Err, Ok, Result, err, ok

__all__ = ["Err", "Ok", "Result", "err", "ok"]
