"""What a full journal does."""

from __future__ import annotations

from typing import Literal, TypeAlias

Overflow: TypeAlias = Literal["none", "drop_oldest", "error"]


def check_bound(max_entries: int | None, overflow: str) -> None:
    """Refuse a bound without a policy, a policy without a bound, and a bound that is not positive."""
    if overflow not in ("none", "drop_oldest", "error"):
        raise ValueError(f'overflow must be "none", "drop_oldest" or "error", not {overflow!r}')
    if max_entries is None and overflow != "none":
        raise ValueError(f'overflow="{overflow}" needs a bound: give max_entries')
    if max_entries is not None and overflow == "none":
        raise ValueError('a bound needs a policy: give overflow="drop_oldest" or overflow="error"')
    if max_entries is not None and max_entries < 1:
        raise ValueError(f"max_entries must be at least 1, not {max_entries}")
