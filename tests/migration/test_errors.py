"""What the migration floor raises."""

from __future__ import annotations

import pickle

import attrs
import pytest

from phyxius.migration import (
    AttemptFencedError,
    CheckCancelledError,
    EvidenceFailure,
    EvidenceWithdrawnError,
    MemoryPhaseStoreWarning,
    SpecChangedError,
    SpecError,
    UnknownPhaseError,
    WrongShapeError,
)

ERRORS = [
    (SpecError("no; write this", "quotes", "flip", "quiet"), 'migration "quotes", phase "flip", source "quiet": no;'),
    (SpecError("no; write this", source="quiet"), 'source "quiet": no; write this'),
    (SpecError("no; write this"), "no; write this"),
    (UnknownPhaseError("quotes", 7, ("expand", "flip")), 'phase 7, but its spec has "expand", "flip"; run the build'),
    (SpecChangedError(("a", "b"), ("a", "c")), 'recorded the phases "a", "b", but the spec declares "a", "c"'),
    (AttemptFencedError("f00"), "attempt f00 was resolved as not committed"),
    (EvidenceWithdrawnError({"dba": EvidenceFailure("revoked")}), "dba: revoked"),
    (WrongShapeError("a list", "ok(payload)"), "a list came, where ok(payload) was wanted"),
    (CheckCancelledError("CancelledError"), "the check raised CancelledError, although nobody had cancelled it"),
]
each_error = pytest.mark.parametrize("error,text", ERRORS, ids=lambda each: type(each).__name__)


@each_error
def test_it_says_what_is_wrong(error: Exception, text: str) -> None:
    """The text names the place and the remedy, and nothing that is not known."""
    assert text in str(error)
    assert "None" not in str(error)


@each_error
def test_it_pickles(error: Exception, text: str) -> None:
    """Its class, its attributes and its text come through a pickle."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert attrs.asdict(copy) == attrs.asdict(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize(
    "kind,base", [(SpecError, ValueError), (WrongShapeError, TypeError), (MemoryPhaseStoreWarning, UserWarning)]
)
def test_it_is_of_a_known_kind(kind: type[Exception], base: type[Exception]) -> None:
    """Misuse can be caught by its builtin class."""
    assert issubclass(kind, base)


def test_errors_compare_by_identity() -> None:
    """Two exceptions with the same attributes are two, and both can be hashed."""
    assert len({SpecError("no"), SpecError("no")}) == 2
