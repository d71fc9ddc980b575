"""An `Ok` has a typed value."""

from phyxius.fp import ok

value: int = ok(1).value
