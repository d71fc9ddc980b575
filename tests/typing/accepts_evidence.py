"""Evidence sources: checks of every kind, decorators, predicates."""

import functools
from collections.abc import Awaitable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from typing_extensions import assert_type

from phyxius import (
    Attempt,
    AttestationEvidence,
    Check,
    Err,
    Evidence,
    EvidenceFailure,
    EvidenceSource,
    HandlerEvent,
    JournalQuery,
    JournalWindow,
    JournalWindowEvidence,
    MigrationSpec,
    Ok,
    PhaseSpec,
    Predicate,
    Result,
    SchemaAppliedEvidence,
    at_least,
    attestation,
    current_attempt,
    define_migration,
    err,
    every_event,
    journal_window,
    no_events,
    ok,
    rate_below,
    schema_applied,
    shadow_parity,
)

Revision = dict[str, str]

# -- checks


async def async_check() -> Evidence[Revision]:
    if await _revision() == "0042":
        return ok({"revision": "0042"})
    return err("not at revision 0042")


def plain_check() -> Evidence[Revision]:
    return err(EvidenceFailure("not yet", {"at": "0041"}, retry_at=datetime(2030, 1, 1, tzinfo=UTC)))


async def narrow_check() -> Ok[Revision] | Err[str]:
    return ok({"revision": "0042"})


def result_check() -> Result[Revision, EvidenceFailure]:
    return err(EvidenceFailure("not yet"))


async def only_ok() -> Ok[None]:
    return ok()


async def only_err() -> Err[str]:
    return err("never")


def handed_over() -> Coroutine[Any, Any, Evidence[Revision]]:
    return async_check()


def awaitable() -> Awaitable[Evidence[Revision]]:
    return async_check()


def sometimes() -> Evidence[Revision] | Awaitable[Evidence[Revision]]:
    return async_check() if current_attempt().to_phase == "flip" else plain_check()


async def with_arguments(revision: str, *, strict: bool = False) -> Evidence[Revision]:
    return ok({"revision": revision})


async def with_defaults(revision: str = "0042") -> Evidence[Revision]:
    return ok({"revision": revision})


class Checks:
    async def as_method(self) -> Evidence[Revision]:
        return ok({})

    def plain_method(self) -> Evidence[Revision]:
        return ok({})

    async def __call__(self) -> Evidence[Revision]:
        return ok({})


async def _revision() -> str:
    return current_attempt().source


checks = Checks()
assert_type(schema_applied(async_check), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=async_check), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=plain_check), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=narrow_check), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=result_check), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=only_ok), SchemaAppliedEvidence[None])
assert_type(schema_applied(check=handed_over), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=awaitable), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=sometimes), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=with_defaults), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=functools.partial(with_arguments, "0042")), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=lambda: with_arguments("0042")), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=lambda: ok({"revision": "0042"})), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=checks.as_method), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=checks.plain_method), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=checks), SchemaAppliedEvidence[Revision])
assert_type(schema_applied(check=async_check, timeout=timedelta(seconds=5)), SchemaAppliedEvidence[Revision])
assert_type(attestation(async_check), AttestationEvidence[Revision])
assert_type(attestation(check=plain_check, timeout=None), AttestationEvidence[Revision])
assert_type(attestation(check=lambda: ok("ada")), AttestationEvidence[str])
assert_type(SchemaAppliedEvidence(async_check).check, Check[Revision])
never: SchemaAppliedEvidence[Any] = schema_applied(check=only_err)
either = schema_applied(check=lambda: ok("ada") if Revision() else err("not signed"))
wider: SchemaAppliedEvidence[Mapping[str, object]] = schema_applied(check=async_check)

# -- decorators


@schema_applied
async def bare() -> Evidence[Revision]:
    return ok({"revision": "0042"})


@schema_applied
def bare_plain() -> Evidence[Revision]:
    return ok({"revision": "0042"})


@schema_applied(timeout=timedelta(seconds=5))
async def with_timeout() -> Evidence[Revision]:
    return ok({"revision": "0042"})


@schema_applied()
def with_no_arguments() -> Evidence[Revision]:
    return ok({"revision": "0042"})


@attestation
async def signed() -> Result[str, str]:
    attempt = current_attempt()
    assert_type(attempt, Attempt)
    return ok("ada") if attempt.migration else err("not signed")


@attestation(timeout=timedelta(seconds=5))
def signed_in_time() -> Evidence[str]:
    return ok("ada")


assert_type(bare, SchemaAppliedEvidence[Revision])
assert_type(bare_plain, SchemaAppliedEvidence[Revision])
assert_type(with_timeout, SchemaAppliedEvidence[Revision])
assert_type(with_no_arguments, SchemaAppliedEvidence[Revision])
assert_type(signed, AttestationEvidence[str])
assert_type(signed_in_time, AttestationEvidence[str])

# -- predicates

FORTNIGHT = timedelta(days=14)


def quiet(window: JournalWindow) -> Evidence[dict[str, int]]:
    if len(window) == 0 and not window.in_flight:
        return ok({"count": 0})
    return err(EvidenceFailure("saw legacy reads", {"count": len(window), "newest": window[-1].completed_at.wall}))


def read_all(window: JournalWindow) -> Result[int, str]:
    assert_type(window[0], HandlerEvent)
    assert_type(window[-1].observed, Mapping[str, object])
    assert_type(window.since, datetime)
    slow = [event for event in window if event.duration > timedelta(seconds=1)]
    match window:
        case [HandlerEvent(name="quote.read"), *_]:
            return err("a legacy read")
        case _:
            return err(f"{len(slow)} are slow") if slow else ok(len(window))


class AtMost:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, window: JournalWindow) -> Evidence[int]:
        return ok(len(window)) if len(window) <= self.n else err("too many")


def over_any(events: list[HandlerEvent] | JournalWindow) -> Evidence[int]:
    return ok(len(events))


assert_type(journal_window("quote.read", FORTNIGHT, quiet), JournalWindowEvidence[dict[str, int]])
assert_type(
    journal_window(query="quote.read", window=FORTNIGHT, predicate=no_events()), JournalWindowEvidence[dict[str, int]]
)
assert_type(
    journal_window(
        query=JournalQuery(
            name="sqs.consume",
            outcome="success",
            where=lambda event: event.observed["queue_url"] == "legacy",
            limit=1_000,
        ),
        window=FORTNIGHT,
        predicate=read_all,
        coverage="partial",
        max_gap=timedelta(minutes=5),
        witness=False,
        timeout=timedelta(seconds=30),
    ),
    JournalWindowEvidence[int],
)
assert_type(journal_window("a", FORTNIGHT, AtMost(3)), JournalWindowEvidence[int])
assert_type(journal_window("a", FORTNIGHT, over_any), JournalWindowEvidence[int])
assert_type(journal_window("a", FORTNIGHT, at_least(10)), JournalWindowEvidence[dict[str, int]])
assert_type(
    journal_window("a", FORTNIGHT, every_event(lambda event: event.outcome == "success")),
    JournalWindowEvidence[dict[str, int]],
)
assert_type(
    journal_window("a", FORTNIGHT, rate_below(lambda event: event.error is not None, 0.01, min_events=100)),
    JournalWindowEvidence[dict[str, float]],
)
assert_type(
    journal_window("a", FORTNIGHT, rate_below(lambda event: event.attempts > 1, threshold=1, min_events=100)),
    JournalWindowEvidence[dict[str, float]],
)
assert_type(no_events(), Predicate[dict[str, int]])
by_lambda = journal_window("a", FORTNIGHT, lambda window: ok({"count": 0}) if len(window) == 0 else err("saw some"))
one_answer = journal_window("a", FORTNIGHT, lambda window: ok(len(window)))
assert_type(one_answer, JournalWindowEvidence[int])
parity = shadow_parity("quote.read.parity", window=FORTNIGHT)
assert_type(parity, JournalWindowEvidence[dict[str, Any]])
shadow_parity("p", window=FORTNIGHT, max_mismatch_rate=0.001, min_comparisons=10, by="tenant")
shadow_parity("p", window=FORTNIGHT, by=lambda event: event.observed["tenant"])

# -- all of them in a spec

evidence: dict[str, EvidenceSource[Any]] = {"bare": bare, "signed": signed, "parity": parity}
spec = define_migration(
    name="m",
    phases={
        "expand": {"schema_ready": bare, "signed": signed},
        "dual_write": PhaseSpec(evidence={"parity": parity, "schema_ready": with_timeout}),
        "flip": {"quiet": journal_window("quote.read", FORTNIGHT, quiet), "by_lambda": by_lambda, "never": never},
        "contract": evidence,
        "cleanup": PhaseSpec(evidence),
        "done": {"either": either},
    },
)
assert_type(spec, MigrationSpec[str])


def built(sources: Mapping[str, EvidenceSource[int]], source: EvidenceSource[str]) -> MigrationSpec:
    return define_migration(name="m", phases={"expand": sources, "contract": {"only": source}})
