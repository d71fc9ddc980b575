"""Names of test cases that are the same in each process, so that several can share the work."""

from __future__ import annotations

import re


def shown(value: object) -> str:
    """Its repr in ASCII, without addresses."""
    return re.sub(r" at 0x[0-9a-f]+| id='\d+'", "", ascii(value))
