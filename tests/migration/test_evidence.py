"""The evidence union, and the misuse that it refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest

from phyxius.fp import Ok, ok
from phyxius.migration import (
    AttestationEvidence,
    JournalQuery,
    JournalWindow,
    JournalWindowEvidence,
    SchemaAppliedEvidence,
    SpecError,
    at_least,
    attestation,
    every_event,
    journal_window,
    no_events,
    rate_below,
    schema_applied,
)

DAY = timedelta(days=1)
MAKERS = pytest.mark.parametrize(
    "make,kind", [(schema_applied, SchemaAppliedEvidence), (attestation, AttestationEvidence)]
)


def check() -> Ok[int]:
    return ok(1)


async def judge_async(window: JournalWindow) -> Ok[None]:
    return ok()


class AsyncPredicate:
    async def __call__(self, window: JournalWindow) -> Ok[None]:
        return ok()


def test_a_name_is_short_for_a_query() -> None:
    """A text asks for the events of that name; a query is taken as it is."""
    by_name = journal_window("quote.read", DAY, no_events())
    assert by_name.query == JournalQuery("quote.read")
    query = JournalQuery(limit=3)
    assert journal_window(query, window=DAY, predicate=at_least(1)).query is query


def test_the_strict_side_is_the_default() -> None:
    """Complete coverage, no gap and a witness are asked for unless something else is said."""
    source = journal_window("quote.read", DAY, no_events())
    assert (source.coverage, source.max_gap, source.witness, source.timeout) == ("complete", timedelta(0), True, None)


@pytest.mark.parametrize(
    "bad,says",
    [
        *(({"query": query}, "a name or a JournalQuery") for query in (None, 7, object())),
        ({"query": ""}, "a text that is not empty"),
        *(({"window": window}, "window must be a positive timedelta such as") for window in (0, -DAY, 0 * DAY, None)),
        ({"window": timedelta.max}, "a century is the most"),
        *(({"predicate": each}, "with the parentheses") for each in (no_events, every_event, rate_below, at_least)),
        *(
            ({"predicate": predicate}, "a plain function of the window")
            for predicate in (None, 7, judge_async, AsyncPredicate(), AsyncMock())
        ),
        *(({"coverage": coverage}, '"complete" or "partial"') for coverage in ("full", None, True)),
        *(({"max_gap": gap}, "at least zero and shorter than the window") for gap in (DAY, 2 * DAY, -DAY, 0, None)),
        *(({"witness": witness}, "witness must be True or False") for witness in (None, 0, 1, "no")),
        *(({"timeout": limit}, "timeout must be a positive timedelta") for limit in (0 * DAY, -DAY, 30)),
        *(
            ({"query": JournalQuery("quote.read", outcome=outcome)}, f'no_events.. over outcome="{outcome}".*drop')
            for outcome in ("success", "failure")
        ),
    ],
)
def test_a_window_that_could_not_be_judged_is_refused(bad: dict[str, Any], says: str) -> None:
    """Misuse of `journal_window` is a SpecError that says what is wanted."""
    good: dict[str, Any] = {"query": "quote.read", "window": DAY, "predicate": no_events()}
    with pytest.raises(SpecError, match=says):
        journal_window(**{**good, **bad})


def test_the_union_guards_itself() -> None:
    """The classes refuse the same misuse when they are made without the factory."""
    with pytest.raises(SpecError, match="a name or a JournalQuery"):
        JournalWindowEvidence("quote.read", DAY, no_events())  # type: ignore[arg-type]


def test_an_outcome_is_fine_for_other_claims() -> None:
    """Only `no_events()` overlooks something by it."""
    query = JournalQuery("quote.read", outcome="failure")
    assert journal_window(query, DAY, rate_below(bool, 0.1, min_events=1)).query is query


@MAKERS
def test_a_check_is_kept_as_it_is(make: Any, kind: type) -> None:
    """Called with a check, it makes the evidence; nothing is run."""
    source = make(check, timeout=DAY)
    assert (type(source), source.check, source.timeout) == (kind, check, DAY)
    assert make(check=check).timeout is None


@MAKERS
def test_they_are_decorators_too(make: Any, kind: type) -> None:
    """Bare and with arguments they turn a function into the evidence."""
    bare, with_arguments = make(check), make(timeout=DAY)(check)
    assert (type(bare), bare.check, bare.timeout) == (kind, check, None)
    assert (type(with_arguments), with_arguments.check, with_arguments.timeout) == (kind, check, DAY)


@MAKERS
@pytest.mark.parametrize("bad", [7, "select 1", ok(1)])
def test_a_check_must_be_callable(make: Any, kind: type, bad: object) -> None:
    """A value in place of a function is a SpecError that names the factory."""
    with pytest.raises(SpecError, match=f"{make.__name__} needs a check that can be called"):
        make(bad)


@MAKERS
@pytest.mark.parametrize("bad", [0 * DAY, -DAY, 30])
def test_a_limit_must_be_positive(make: Any, kind: type, bad: Any) -> None:
    """A timeout that no check could keep is a SpecError."""
    with pytest.raises(SpecError, match="timeout must be a positive timedelta"):
        make(check, timeout=bad)
