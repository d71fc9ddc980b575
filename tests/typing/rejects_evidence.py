"""Checks, predicates and queries of the wrong shape."""

from datetime import timedelta
from typing import Any

from phyxius import Err, Evidence, EvidenceSource, HandlerEvent, JournalQuery, JournalWindow, JournalWindowEvidence
from phyxius import Ok, SchemaAppliedEvidence, at_least, attestation, err, every_event, journal_window, no_events, ok
from phyxius import rate_below, schema_applied, shadow_parity

DAY = timedelta(days=1)

# -- checks


def bare_true() -> bool:
    return True


async def async_true() -> bool:
    return True


async def of_nothing() -> None: ...


def err_of_int() -> Ok[str] | Err[int]:
    return err(1)


async def async_err_of_int() -> Ok[str] | Err[int]:
    return err(1)


def err_of_exception() -> Ok[str] | Err[ValueError]:
    return err(ValueError("no"))


def or_none() -> Ok[str] | None:
    return None


def with_argument(revision: str) -> Evidence[str]:
    return ok(revision)


async def check() -> Evidence[dict[str, int]]:
    return True  # E: mypy, pyright


async def text_check() -> Evidence[str]:
    return ok(1)  # E: mypy, pyright


schema_applied(check=bare_true)  # E: mypy, pyright
schema_applied(check=async_true)  # E: mypy, pyright
schema_applied(check=of_nothing)  # E: mypy, pyright
schema_applied(check=err_of_int)  # E: mypy, pyright
schema_applied(check=async_err_of_int)  # E: mypy, pyright
schema_applied(check=err_of_exception)  # E: mypy, pyright
schema_applied(check=or_none)  # E: mypy, pyright
schema_applied(check=with_argument)  # E: mypy, pyright
schema_applied(check=check())  # E: mypy, pyright
schema_applied(check=ok("0042"))  # E: mypy, pyright
schema_applied(check=lambda: True)  # E: mypy, pyright
schema_applied(check=lambda: err(1))  # E: mypy, pyright
attestation(check=bare_true)  # E: mypy, pyright
attestation(check=async_err_of_int)  # E: mypy, pyright
attestation(check=lambda name: ok(name))  # E: mypy, pyright
attestation(check=True)  # E: mypy, pyright
schema_applied(check, timeout=5)  # E: mypy, pyright
schema_applied(check, timeout=0.5)  # E: mypy, pyright
schema_applied(check, timedelta(seconds=5))  # E: mypy, pyright
SchemaAppliedEvidence(bare_true)  # E: mypy, pyright
other_payload: SchemaAppliedEvidence[str] = schema_applied(check=check)  # E: mypy, pyright
other_variant: JournalWindowEvidence[Any] = schema_applied(check=check)  # E: mypy, pyright
no_source: EvidenceSource[Any] = check  # E: mypy, pyright
schema_applied(check=check).check = check  # E: mypy, pyright
schema_applied(check=check)()  # E: mypy, pyright


@schema_applied  # E: mypy, pyright
async def decorated_true() -> bool:
    return True


@attestation(timeout=5)  # E: mypy, pyright
async def decorated_late() -> Evidence[str]:
    return ok("ada")


@attestation(timeout=DAY)  # E: mypy, pyright
def decorated_with_argument(name: str) -> Evidence[str]:
    return ok(name)


# -- predicates


async def async_predicate(window: JournalWindow) -> Evidence[int]:
    return ok(len(window))


def true_predicate(window: JournalWindow) -> bool:
    return len(window) == 0


def err_predicate(window: JournalWindow) -> Ok[int] | Err[int]:
    return ok(1)


def no_window() -> Evidence[int]:
    return ok(0)


def two_windows(window: JournalWindow, other: JournalWindow) -> Evidence[int]:
    return ok(0)


def list_predicate(events: list[HandlerEvent]) -> Evidence[int]:
    return ok(len(events))


def event_predicate(event: HandlerEvent) -> Evidence[int]:
    return ok(1)


journal_window("quote.read", DAY, async_predicate)  # E: mypy, pyright
journal_window("quote.read", DAY, true_predicate)  # E: mypy, pyright
journal_window("quote.read", DAY, err_predicate)  # E: mypy, pyright
journal_window("quote.read", DAY, no_window)  # E: mypy, pyright
journal_window("quote.read", DAY, two_windows)  # E: mypy, pyright
journal_window("quote.read", DAY, list_predicate)  # E: mypy, pyright
journal_window("quote.read", DAY, event_predicate)  # E: mypy, pyright
journal_window("quote.read", DAY, no_events)  # E: mypy, pyright
journal_window("quote.read", DAY, at_least)  # E: mypy, pyright
journal_window("quote.read", DAY, lambda window: len(window) == 0)  # E: mypy, pyright
journal_window("quote.read", DAY, lambda window: ok(window.cuont))  # E: mypy, pyright
journal_window("quote.read", DAY)  # E: mypy, pyright
journal_window("quote.read", 14, no_events())  # E: mypy, pyright
journal_window("quote.read", window=14 * 24 * 3600.0, predicate=no_events())  # E: mypy, pyright
journal_window("quote.read", DAY, no_events(), max_gap=60)  # E: mypy, pyright
journal_window("quote.read", DAY, no_events(), timeout=1.5)  # E: mypy, pyright
journal_window("quote.read", DAY, no_events(), coverage="total")  # E: mypy, pyright
journal_window("quote.read", DAY, no_events(), witness=None)  # E: mypy, pyright
journal_window("quote.read", DAY, no_events(), "partial")  # E: mypy, pyright
journal_window(None, DAY, no_events())  # E: mypy, pyright
journal_window({"name": "quote.read"}, DAY, no_events())  # E: mypy, pyright
JournalQuery(name="quote.read", outcome="failed")  # E: mypy, pyright
JournalQuery(name=1)  # E: mypy, pyright
JournalQuery(limit="10")  # E: mypy, pyright
JournalQuery(where=lambda: True)  # E: mypy, pyright
JournalQuery(where=lambda event: event.observde)  # E: mypy, pyright
JournalQuery(where=lambda event: event.outcome == "failed")  # E: mypy, pyright
JournalQuery().limit = 10  # E: mypy, pyright
every_event(lambda event: event.observed["a"])  # E: mypy, pyright
every_event(bare_true)  # E: mypy, pyright
rate_below(lambda event: event.attempts > 1, 0.1)  # E: mypy, pyright
rate_below(lambda event: event.attempts > 1, 0.1, 100)  # E: mypy, pyright
rate_below(lambda event: event.attempts > 1, "1%", min_events=100)  # E: mypy, pyright
at_least()  # E: mypy, pyright
at_least("ten")  # E: mypy, pyright
shadow_parity("p")  # E: mypy, pyright
shadow_parity("p", DAY)  # E: mypy, pyright
shadow_parity("p", window=14)  # E: mypy, pyright
shadow_parity("p", window=DAY, by=1)  # E: mypy, pyright
shadow_parity("p", window=DAY, min_comparisons=1.5)  # E: mypy, pyright


def changed(window: JournalWindow) -> Evidence[int]:
    window.gaps = ()  # E: mypy, pyright
    window[0] = window[1]  # E: mypy, pyright
    window[0].observed["rows"] = 1  # E: mypy, pyright
    window.events.append(window[0])  # E: mypy, pyright
    if window == 0:  # E: mypy, pyright
        return err(0)  # E: mypy, pyright
    return ok("none")  # E: mypy, pyright
