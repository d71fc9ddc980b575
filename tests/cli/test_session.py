"""What a command works on."""

from __future__ import annotations

from typing import Any

import pytest

from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._session import Subject
from phyxius.fp import ok
from phyxius.migration import schema_applied
from tests.cli.support import in_memory

FIRST, SECOND, THIRD = (schema_applied(lambda: ok(1)) for _ in range(3))
SUBJECT = Subject(in_memory(expand={"a": FIRST}, flip={"b": SECOND}, contract={"c": THIRD}))


def test_what_guards_a_phase() -> None:
    """The evidence of the first phase is asked when it is left, beside that of the second."""
    assert SUBJECT.sources("flip") == {"b": SECOND, "a": FIRST}
    assert SUBJECT.sources("contract") == {"c": THIRD}
    assert SUBJECT.sources("expand") == {"a": FIRST}


def test_the_phases_in_order() -> None:
    """Each has one that follows, but for the last."""
    assert [SUBJECT.following(phase) for phase in SUBJECT.order] == ["flip", "contract", None]


def test_a_phase_that_somebody_typed() -> None:
    """It is one of them, or it is refused."""
    assert SUBJECT.declared("flip") == "flip"
    with pytest.raises(CommandError, match="quotes has no phase 'flipp'; it has: expand, flip, contract") as refused:
        SUBJECT.declared("flipp")
    assert refused.value.exit is Exit.USAGE


def test_since_when_it_is_where_it_is() -> None:
    """By its last step; before the first one by the order that was recorded, if there is one."""
    migration: Any = in_memory()
    assert Subject(migration).since() is None
    assert Subject(migration).orders() == ()
    assert Subject(migration).plain.advance("flip")
    assert Subject(migration).since() == migration.journal.clock.now().wall
