"""Signatures in a database: each serves one subject, and counts up to the commit or not at all."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from phyxius.adapters._attestations import SqlAttestations
from phyxius.adapters._database import TABLES
from phyxius.adapters._signatures import Signature
from phyxius.adapters._stores import SqlStores
from phyxius.adapters.sqlalchemy import create_schema
from phyxius.clock import ControlledClock, create_controlled_clock
from phyxius.fp import Ok, ok
from phyxius.journal import Journal
from phyxius.migration import (
    AttestationEvidence,
    EvidenceFailed,
    MigrationSpec,
    PhaseSpec,
    SpecChangedError,
    SpecError,
    attestation,
    create_migration,
    define_migration,
    schema_applied,
)
from tests.adapters.sqlite.support import anything, snapshot, spec_of
from tests.places import FILE, SERVERS, FilePlace, Place, place_of

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NS = timedelta(microseconds=1)


@pytest.fixture
async def stores(place: Place, phyxius_clock: ControlledClock) -> AsyncIterator[SqlStores]:
    async with place.stores(phyxius_clock) as opened:
        yield opened


async def signable(stores: SqlStores, **terms: Any) -> MigrationSpec[str]:
    """A migration at its first phase, which the database knows, with the source `dba` of the second."""
    spec = spec_of(dba=stores.attestations.signed_off(**terms))
    await stores.phase_store(spec).current()
    return spec


async def advance(stores: SqlStores, spec: MigrationSpec[Any]) -> Any:
    """What `advance()` answers."""
    journal: Journal[Any] = Journal(clock=stores.clock)
    return await create_migration(spec, journal=journal, phase_store=stores.phase_store(spec)).advance()


async def refusal(stores: SqlStores, spec: MigrationSpec[Any], source: str = "dba") -> str:
    """Why `advance()` refused the source."""
    error = (await advance(stores, spec)).error
    assert isinstance(error, EvidenceFailed), error
    return error.failures[source].reason


# -- signing


async def test_a_signature_opens_the_gate(place: Place, stores: SqlStores) -> None:
    """Without it the step is refused, and says how to sign; with it the migration moves, and keeps who signed."""
    spec = await signable(stores)
    assert (
        await refusal(stores, spec)
        == "1 signature is wanted, and it has none; sign with `phyxius sign` or attestations.sign(...)"
    )
    signed = await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", note="looked at it")
    answer = await advance(stores, spec)
    at = signed.signed_at.wall.isoformat()
    told = {"id": signed.id, "signer": "ada", "note": "looked at it", "signed_at": at, "until": None}
    ((name,),) = place.rows("SELECT name FROM journal")
    assert answer.value.evidence == {"dba": {"signatures": [told], "store": name}}
    (transition,) = await stores.phase_store(spec).history()
    assert transition.evidence == answer.value.evidence


async def test_a_signature_says_what_it_is_for(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """It names its subject, its time and its end, and is read back as it was given."""
    spec = await signable(stores)
    phyxius_clock.advance_by(HOUR)
    now = phyxius_clock.now()
    given = await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", note="ü", valid_for=DAY)
    expected = Signature(1, "quotes", 1, "expand", "flip", "dba", "ada", "ü", now, now.shifted(DAY))
    assert given == expected
    (read,) = await stores.attestations.signatures(spec, to="flip", source="dba")
    # What came through the database has no monotonic time.
    assert read == pickle.loads(pickle.dumps(expected))
    phyxius_clock.advance_by(HOUR)
    assert await stores.attestations.revoke(spec, to="flip", source="dba", signer="ada", by="bob", note="no") == 1
    (read,) = await stores.attestations.signatures(spec, to="flip", source="dba")
    assert read == attrs.evolve(
        pickle.loads(pickle.dumps(expected)),
        revoked_at=pickle.loads(pickle.dumps(phyxius_clock.now())),
        revoked_by="bob",
        revoked_why="no",
    )


async def test_whoever_revokes_need_not_know_how_a_name_was_spelt(stores: SqlStores) -> None:
    """It is one person for the quorum, and one to take the word back."""
    spec = await signable(stores)
    for signer in ("Ada", "bob", "ad\uff41"):
        await stores.attestations.sign(spec, to="flip", source="dba", signer=signer)
    assert await stores.attestations.revoke(spec, to="flip", source="dba", signer=" ADA") == 2
    told = await stores.attestations.signatures(spec, to="flip", source="dba")
    assert [each.signer for each in told if each.revoked_at is None] == ["bob"]


async def test_the_signatures_are_told_in_order(stores: SqlStores) -> None:
    """All are there, oldest first, whatever became of them."""
    spec = await signable(stores)
    for signer in ("bob", "ada", "bob"):
        await stores.attestations.sign(spec, to="flip", source="dba", signer=signer)
    await stores.attestations.revoke(spec, to="flip", source="dba", signer="ada")
    told = await stores.attestations.signatures(spec, to="flip", source="dba")
    assert [(each.id, each.signer, each.revoked_at is None) for each in told] == [
        (1, "bob", True),
        (2, "ada", False),
        (3, "bob", True),
    ]


async def test_it_is_signed_in_another_process(place: Place, stores: SqlStores) -> None:
    """A tool that opens the database for itself signs for the service."""
    spec = await signable(stores)
    async with place.stores(stores.clock) as others:
        await others.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert isinstance(await advance(stores, spec), Ok)


# -- its subject


async def test_a_signature_serves_no_other_phase(stores: SqlStores) -> None:
    """Each step into a phase needs its own, although the source has the same name."""
    signed = stores.attestations.signed_off()
    phases: dict[str, Any] = {"expand": {}, "flip": {"dba": signed}, "contract": {"dba": signed}}
    spec = define_migration(name="quotes", phases=phases)
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="contract", source="dba", signer="ada")
    assert "it has none" in await refusal(stores, spec)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert isinstance(await advance(stores, spec), Ok)
    await stores.attestations.revoke(spec, to="contract", source="dba", signer="ada")
    assert "that of ada does not count: revoked" in await refusal(stores, spec)


async def test_a_signature_serves_no_other_source(stores: SqlStores) -> None:
    """Two sources of one step need a signature each."""
    signed = stores.attestations.signed_off()
    spec = spec_of(dba=signed, lead=signed)
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert "it has none" in await refusal(stores, spec, "lead")
    assert await stores.attestations.signatures(spec, to="flip", source="lead") == ()


async def test_a_signature_serves_no_other_migration(stores: SqlStores) -> None:
    """Two migrations with the same phases and sources need a signature each."""
    one, two = (spec_of(name=name, dba=stores.attestations.signed_off()) for name in ("one", "two"))
    for spec in (one, two):
        await stores.phase_store(spec).current()
    await stores.attestations.sign(one, to="flip", source="dba", signer="ada")
    assert "it has none" in await refusal(stores, two)
    assert await stores.attestations.revoke(two, to="flip", source="dba", signer="ada") == 0
    assert isinstance(await advance(stores, one), Ok)


async def test_a_signature_serves_no_other_revision(stores: SqlStores) -> None:
    """After an amendment all must be signed again, also if the earlier order came back."""
    spec = await signable(stores)
    store = stores.phase_store(spec)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    await store.amend(spec_of("expand", "flip", "verify", "contract"), who="ada", why="one more")
    await store.amend(spec, who="ada", why="as it was")
    assert "that of ada does not count: signed for an earlier order of the phases" in await refusal(stores, spec)
    assert (await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")).revision == 3
    assert isinstance(await advance(stores, spec), Ok)


async def test_a_signature_is_for_the_step_from_one_phase(stores: SqlStores) -> None:
    """Where the phase before another one changed, what was signed for the way from the earlier one does not count."""
    signed = stores.attestations.signed_off()
    spec = spec_of("expand", "flip", dba=signed)
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    phases: dict[str, Any] = {"expand": {}, "check": {}, "flip": {"dba": signed}}
    longer = define_migration(name="quotes", phases=phases)
    await stores.phase_store(spec).amend(longer, who="ada", why="check first")
    assert isinstance(await advance(stores, longer), Ok)
    assert await refusal(stores, longer) == (
        "1 signature is wanted, and it has none; that of ada does not count: signed for an earlier order of the phases;"
        " sign with `phyxius sign` or attestations.sign(...)"
    )


async def test_the_first_phase_has_evidence_too(stores: SqlStores) -> None:
    """What guards the first phase is judged when it is left, and is signed for as part of that step."""
    signed = stores.attestations.signed_off()
    phases: dict[str, Any] = {"expand": {"start": signed}, "flip": {"dba": signed}, "contract": {}}
    spec = define_migration(name="quotes", phases=phases)
    await stores.phase_store(spec).current()
    for source in ("start", "dba"):
        assert "it has none" in await refusal(stores, spec, source)
        assert (await stores.attestations.sign(spec, to="flip", source=source, signer="ada")).from_phase == "expand"
    assert isinstance(await advance(stores, spec), Ok)


# -- terms


async def test_a_quorum_is_of_people(stores: SqlStores) -> None:
    """Somebody who signs twice counts once; the audit names all who signed."""
    spec = await signable(stores, quorum=2)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="bob")
    await stores.attestations.sign(spec, to="flip", source="dba", signer="bob")
    assert (await refusal(stores, spec)).startswith("2 signatures are wanted, and it has those of bob;")
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    evidence: Any = (await advance(stores, spec)).value.evidence
    assert [each["signer"] for each in evidence["dba"]["signatures"]] == ["ada", "bob"]


async def test_one_that_counts_is_enough(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """Whoever signed for long, and then once more for a short time, is counted as long as one of both holds."""
    spec = await signable(stores)
    for valid_for in (None, HOUR):
        await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", valid_for=valid_for)
    phyxius_clock.advance_by(HOUR)
    evidence: Any = (await advance(stores, spec)).value.evidence
    assert [each["id"] for each in evidence["dba"]["signatures"]] == [1]


async def test_a_person_is_counted_once(stores: SqlStores) -> None:
    """However the name is spelt, as to blanks around it and to capitals."""
    spec = await signable(stores, quorum=2)
    for signer in ("ada", " Ada", "ADA "):
        await stores.attestations.sign(spec, to="flip", source="dba", signer=signer)
    assert "2 signatures are wanted, and it has those of ADA;" in await refusal(stores, spec)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="bob")
    assert isinstance(await advance(stores, spec), Ok)


async def test_only_some_may_sign(stores: SqlStores) -> None:
    """Who is not among the signers cannot sign; who was when he signed does not count; who is missing is told."""
    spec = await signable(stores, quorum=2, signers=["ada", "bob", "cy"])
    with pytest.raises(SpecError, match="'eve' is not among those who may sign: ada, bob, cy"):
        await stores.attestations.sign(spec, to="flip", source="dba", signer="eve")
    for signer in ("eve", "bob"):
        await stores.attestations.sign(spec_of(dba=anything()), to="flip", source="dba", signer=signer)
    reason = await refusal(stores, spec)
    assert "that of eve does not count: not among those who may sign; ada, cy may sign" in reason
    await stores.attestations.sign(spec, to="flip", source="dba", signer="cy")
    assert isinstance(await advance(stores, spec), Ok)


async def test_a_signature_expires(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """At its end it counts no more; a new one does."""
    spec = await signable(stores)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", valid_for=DAY)
    phyxius_clock.advance_by(DAY)
    assert "that of ada does not count: expired at 1970-01-02T00:00:00+00:00" in await refusal(stores, spec)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", valid_for=DAY)
    phyxius_clock.advance_by(DAY - NS)
    assert isinstance(await advance(stores, spec), Ok)


async def test_a_signature_must_be_fresh(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """`valid_for` of the source bounds the age of every signature, whatever its signer gave it."""
    spec = await signable(stores, valid_for=HOUR)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", valid_for=DAY)
    phyxius_clock.advance_by(HOUR)
    assert "that of ada does not count: signed more than 1:00:00 ago" in await refusal(stores, spec)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", valid_for=DAY)
    phyxius_clock.advance_by(HOUR - NS)
    assert isinstance(await advance(stores, spec), Ok)


async def test_a_clock_that_was_set_back(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """A signature of the future does not count: its age and its end cannot be told."""
    phyxius_clock.advance_by(DAY)
    spec = await signable(stores)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    phyxius_clock.jump_wall_time(phyxius_clock.now().wall - HOUR)
    assert "which is still to come: the clock was set back" in await refusal(stores, spec)
    phyxius_clock.advance_by(HOUR)
    assert isinstance(await advance(stores, spec), Ok)


async def test_a_revoked_signature_does_not_count(place: Place, stores: SqlStores) -> None:
    """Revoking takes all of a signer's that stand, and no other's; signed again, the new one counts."""
    spec = await signable(stores)
    for signer in ("ada", "ada", "bob"):
        await stores.attestations.sign(spec, to="flip", source="dba", signer=signer)
    revoke = {"to": "flip", "source": "dba", "note": "a bug"}
    assert await stores.attestations.revoke(spec, signer="ada", by="cy", **revoke) == 2
    assert await stores.attestations.revoke(spec, signer="bob", **revoke) == 1
    assert await stores.attestations.revoke(spec, signer="bob", **revoke) == 0
    rows = place.contents()["signatures"]
    assert [row[-2:] for row in rows] == [("cy", "a bug"), ("cy", "a bug"), ("bob", "a bug")]
    assert "that of ada does not count: revoked; that of bob does not count: revoked" in await refusal(stores, spec)
    await stores.attestations.sign(spec, to="flip", source="dba", signer="bob")
    assert isinstance(await advance(stores, spec), Ok)


# -- between the check and the commit


class Meanwhile:
    """A check that is slower than the signatures, and in whose time something happens."""

    def __init__(self, stores: SqlStores) -> None:
        self._stores = stores
        self.happens: Any = None

    def spec(self, **terms: Any) -> MigrationSpec[str]:
        signed = self._stores.attestations.signed_off(**terms)
        self.judged = asyncio.Event()

        async def first() -> Any:
            answer = await signed.check()
            self.judged.set()
            return answer

        async def then() -> Any:
            await self.judged.wait()
            if self.happens is not None:
                await self.happens()
            return ok()

        return spec_of(dba=attestation(first), slow=schema_applied(then))


async def withdrawn(stores: SqlStores, spec: MigrationSpec[Any]) -> tuple[str, str]:
    """Of the refusal to advance: whose signature stopped counting, and why."""
    error = (await advance(stores, spec)).error
    assert isinstance(error, EvidenceFailed), error
    (failure,) = error.failures.values()
    found = re.fullmatch(
        "the signature of (.*) stopped counting before the commit: (.*); have it signed again", failure.reason
    )
    assert found is not None, failure.reason
    return found[1], found[2]


async def test_revoked_before_the_commit(stores: SqlStores) -> None:
    """A signature revoked after it was judged stops the commit, which names it; nothing moves."""
    meanwhile = Meanwhile(stores)
    spec = meanwhile.spec()
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")

    async def revoke() -> None:
        assert await stores.attestations.revoke(spec, to="flip", source="dba", signer="ada") == 1

    meanwhile.happens = revoke
    assert await withdrawn(stores, spec) == ("ada", "revoked")
    assert await stores.phase_store(spec).current() == "expand"
    assert await stores.phase_store(spec).history() == ()


async def test_expired_before_the_commit(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """A signature that expires while other evidence is judged stops the commit."""
    meanwhile = Meanwhile(stores)
    spec = meanwhile.spec()
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada", valid_for=NS)

    async def expire() -> None:
        phyxius_clock.advance_by(NS)

    meanwhile.happens = expire
    assert await withdrawn(stores, spec) == ("ada", "expired at 1970-01-01T00:00:00.000001+00:00")
    assert await stores.phase_store(spec).current() == "expand"


async def test_too_old_at_the_commit(stores: SqlStores, phyxius_clock: ControlledClock) -> None:
    """What `valid_for` of the source allows is looked at once more, too."""
    meanwhile = Meanwhile(stores)
    spec = meanwhile.spec(valid_for=NS)
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")

    async def grow_old() -> None:
        phyxius_clock.advance_by(NS)

    meanwhile.happens = grow_old
    assert await withdrawn(stores, spec) == ("ada", "it counted until 1970-01-01T00:00:00.000001+00:00")


async def assert_no_commit_on(people: SqlStores, stores: SqlStores) -> None:
    """What people signed elsewhere moves nothing here."""
    spec = spec_of("expand", "flip", dba=people.attestations.signed_off())
    for each in (stores, people):
        await each.phase_store(spec).current()
    await people.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert await withdrawn(stores, spec) == ("somebody", "it is in another database than the phase")
    assert await stores.phase_store(spec).current() == "expand"


async def test_signatures_of_another_file(stores: SqlStores, phyxius_clock: ControlledClock, tmp_path: Path) -> None:
    """A commit cannot look at them again, so it is not made on the strength of them."""
    async with FilePlace(tmp_path / "people.db").stores(phyxius_clock) as people:
        await assert_no_commit_on(people, stores)


@pytest.mark.parametrize("kind", SERVERS)
async def test_signatures_of_other_tables(kind: str, phyxius_clock: ControlledClock, tmp_path: Path) -> None:
    """The same of tables with another prefix: although a commit could look there, they are another database."""
    async with place_of(kind, tmp_path) as place:
        await create_schema(place.url, prefix="people_")
        try:
            async with place.stores(phyxius_clock) as stores, place.stores(phyxius_clock, prefix="people_") as people:
                await assert_no_commit_on(people, stores)
        finally:
            for table in reversed(TABLES):
                place.change(f"DROP TABLE people_{table}")


async def test_a_signature_that_is_gone(place: Place, stores: SqlStores) -> None:
    """A row that somebody deleted between the check and the commit counts no more."""
    meanwhile = Meanwhile(stores)
    spec = meanwhile.spec()
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")

    async def delete() -> None:
        place.change("DELETE FROM signatures")

    meanwhile.happens = delete
    assert await withdrawn(stores, spec) == ("somebody", "it is gone")


async def test_after_the_commit_nothing_is_revoked(stores: SqlStores) -> None:
    """What a step was taken on stays as it was; who would take it back is told that it is too late."""
    spec = await signable(stores)
    await stores.attestations.sign(spec, to="flip", source="dba", signer=" ada ")
    assert isinstance(await advance(stores, spec), Ok)
    with pytest.raises(SpecError, match="entered already"):
        await stores.attestations.revoke(spec, to="flip", source="dba", signer="ada")
    (kept,) = await stores.attestations.signatures(spec, to="flip", source="dba")
    assert (kept.signer, kept.revoked_at) == ("ada", None)


async def test_what_was_not_relied_on_may_be_revoked(stores: SqlStores) -> None:
    """A signature that comes and goes meanwhile, and was not part of the evidence, stops nothing."""
    meanwhile = Meanwhile(stores)
    spec = meanwhile.spec(signers=["ada"])
    await stores.phase_store(spec).current()
    for signer in ("ada", "eve"):
        await stores.attestations.sign(spec, to="flip", source="dba", signer=signer)

    async def revoke() -> None:
        await stores.attestations.revoke(spec, to="flip", source="dba", signer="eve")

    meanwhile.happens = revoke
    assert isinstance(await advance(stores, spec), Ok)


@pytest.mark.parametrize("signatures", [[{"id": 1}], [{"id": 99}], ["ada"], [{"id": 1}, {"id": "x"}], []], ids=str)
async def test_other_evidence_may_look_like_signatures(stores: SqlStores, signatures: list[Any]) -> None:
    """A payload of a source of your own with numbers under "signatures" is nobody's signature."""

    async def own() -> Any:
        return ok({"signatures": signatures})

    spec = spec_of(own=attestation(own), dba=stores.attestations.signed_off())
    await stores.phase_store(spec).current()
    await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert isinstance(await advance(stores, spec), Ok)


# -- misuse


async def test_the_phase_is_read_first(stores: SqlStores) -> None:
    """The database must know the order that is signed for."""
    spec = spec_of(dba=stores.attestations.signed_off())
    with pytest.raises(SpecError, match="the database does not know this migration yet; await"):
        await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert await stores.attestations.signatures(spec, to="flip", source="dba") == ()
    assert await stores.attestations.revoke(spec, to="flip", source="dba", signer="ada") == 0


@pytest.mark.parametrize(
    "changed, text",
    [
        ({"to": "gone"}, r"a transition enters one of \['flip', 'contract'\], and not 'gone'"),
        ({"to": "expand"}, r"a transition enters one of \['flip', 'contract'\], and not 'expand'"),
        ({"source": "gone"}, r'phase "flip": it asks for no signature \'gone\'; those it asks for are \'dba\''),
        ({"source": "schema"}, r"it asks for no signature 'schema'; those it asks for are 'dba'"),
        ({"to": "contract"}, r"it asks for no signature 'dba'; it asks for none"),
        ({"signer": ""}, r'phase "flip", source "dba": signer must be a text'),
        ({"signer": " \t"}, r'phase "flip", source "dba": signer must be a text'),
        ({"note": "x" * 1_000}, "a note may have 1000 characters: it goes into the evidence"),
        ({"valid_for": timedelta(0)}, r'source "dba": valid_for must be a positive timedelta'),
        ({"valid_for": -DAY}, r'source "dba": valid_for must be a positive timedelta'),
    ],
)
async def test_a_signature_that_nobody_asks_for(
    place: Place, stores: SqlStores, changed: dict[str, Any], text: str
) -> None:
    """What serves nothing is refused where it is written, and not found out at the gate."""
    phases: dict[str, Any] = {
        "expand": {},
        "flip": PhaseSpec({"dba": stores.attestations.signed_off(), "schema": schema_applied(ok)}),
        "contract": {},
    }
    spec = define_migration(name="quotes", phases=phases)
    await stores.phase_store(spec).current()
    subject: dict[str, Any] = {"to": "flip", "source": "dba", "signer": "ada"} | changed
    with pytest.raises(SpecError, match=rf'^migration "quotes".*{text}'):
        await stores.attestations.sign(spec, **subject)
    if changed.keys() & {"to", "source"}:
        del subject["signer"]
        with pytest.raises(SpecError, match=text):
            await stores.attestations.signatures(spec, **subject)
        with pytest.raises(SpecError, match=text):
            await stores.attestations.revoke(spec, **subject, signer="ada")
    assert place.contents()["signatures"] == []


async def test_what_was_entered_is_signed_no_more(stores: SqlStores) -> None:
    """A signature for a phase that was passed, or is the current one, would be for nothing."""
    signed = anything()
    phases: dict[str, Any] = {"expand": {}, "flip": {"dba": signed}, "contract": {"dba": signed}}
    spec = define_migration(name="quotes", phases=phases)
    await stores.phase_store(spec).try_advance("expand", "flip", snapshot("a"))
    with pytest.raises(SpecError, match='the migration is at "flip", so this was entered already'):
        await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    assert (await stores.attestations.sign(spec, to="contract", source="dba", signer="ada")).from_phase == "flip"


async def test_another_order_is_not_signed(stores: SqlStores) -> None:
    """Who signs with another build than the one that holds is told both orders."""
    await signable(stores)
    with pytest.raises(SpecChangedError) as caught:
        await stores.attestations.sign(spec_of("expand", "flip", dba=anything()), to="flip", source="dba", signer="ada")
    assert caught.value.declared == ("expand", "flip")


@pytest.mark.parametrize(
    "terms",
    [{"quorum": 0}, {"quorum": True}, {"valid_for": timedelta(0)}, {"signers": "ada"}, {"quorum": 2, "signers": ["a"]}],
)
def test_terms_that_make_no_sense(place: Place, terms: dict[str, Any]) -> None:
    """What nobody could meet, or everybody would, is refused where it is written."""
    with pytest.raises(SpecError):
        place.stores().attestations.signed_off(**terms)


async def test_outside_of_an_attempt(stores: SqlStores) -> None:
    """Nobody's step is being taken, so there is nothing that could be signed off."""
    with pytest.raises(LookupError, match="inside a check"):
        await stores.attestations.signed_off().check()


async def test_a_migration_that_the_database_does_not_know(stores: SqlStores) -> None:
    """With a phase store elsewhere no signature can be there, and the gate stays closed."""
    spec = spec_of(dba=stores.attestations.signed_off())
    migration = create_migration(spec, journal=Journal(clock=stores.clock))
    assert isinstance((await migration.advance()).error, EvidenceFailed)


async def test_stores_at_module_level(place: Place, phyxius_clock: ControlledClock) -> None:
    """The spec takes its evidence from stores that are opened later, and more than once."""
    stores = place.stores(phyxius_clock)
    spec = spec_of(dba=stores.attestations.signed_off())
    assert isinstance(spec.phases["flip"].evidence["dba"], AttestationEvidence)
    async with stores:
        assert isinstance(stores.attestations, SqlAttestations)
        await stores.phase_store(spec).current()
        await stores.attestations.sign(spec, to="flip", source="dba", signer="ada")
    async with stores:
        assert isinstance(await advance(stores, spec), Ok)


# -- all of it, against a model

SIGNERS = ["ada", "bob", "cy"]
VALID = timedelta(hours=5)


@attrs.define
class Given:
    """A signature, as the model has it."""

    signer: str
    at: datetime
    until: datetime | None
    revision: int
    revoked: bool = False


class SignaturesMachine(RuleBasedStateMachine):
    """People sign and revoke, time passes, orders are amended; the gate opens exactly when the model says so."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = create_controlled_clock()
        self.stores = place.stores(self.clock)
        self.runner.run(self.stores.__aenter__())
        for table in ("signatures", "transitions", "orders", "migrations"):
            place.change(f"DELETE FROM {table}")  # what the example before has left
        self.given: list[Given] = []
        self.revision = 1
        self.ahead = ("contract",)
        self.moved = False
        self.runner.run(self.stores.phase_store(self.spec).current())

    def teardown(self) -> None:
        self.runner.run(self.stores.__aexit__(None, None, None))
        self.runner.close()

    @property
    def spec(self) -> MigrationSpec[str]:
        signed = self.stores.attestations.signed_off(quorum=2, signers=SIGNERS, valid_for=VALID)
        return spec_of("expand", "flip", *self.ahead, dba=signed)

    @rule(signer=st.sampled_from([*SIGNERS, "eve"]), hours=st.sampled_from([None, None, 1, 3, 20]))
    def sign(self, signer: str, hours: int | None) -> None:
        valid_for = None if hours is None else timedelta(hours=hours)
        spec = spec_of("expand", "flip", *self.ahead, dba=anything())  # another build, where anybody may sign
        work = self.stores.attestations.sign(spec, to="flip", source="dba", signer=signer, valid_for=valid_for)
        if self.moved:
            with pytest.raises(SpecError):
                self.runner.run(work)
            return
        self.runner.run(work)
        now = self.clock.now().wall
        self.given.append(Given(signer, now, None if valid_for is None else now + valid_for, self.revision))

    @rule(signer=st.sampled_from([*SIGNERS, "eve"]))
    def revoke(self, signer: str) -> None:
        standing = [each for each in self.given if each.signer == signer and not each.revoked]
        work = self.stores.attestations.revoke(self.spec, to="flip", source="dba", signer=signer)
        if self.moved:
            with pytest.raises(SpecError):
                self.runner.run(work)
            return
        assert self.runner.run(work) == len(standing)
        for each in standing:
            each.revoked = True

    @rule(hours=st.integers(1, 4))
    def time_passes(self, hours: int) -> None:
        self.clock.advance_by(timedelta(hours=hours))

    @rule(hours=st.sampled_from([-6, -2, -1, 1]))
    def clock_is_set(self, hours: int) -> None:
        self.clock.jump_wall_time(self.clock.now().wall + timedelta(hours=hours))

    @rule(ahead=st.sampled_from([("contract",), ("verify", "contract"), ("drop",)]))
    def amend(self, ahead: tuple[str, ...]) -> None:
        store = self.stores.phase_store(self.spec)
        self.revision += ahead != self.ahead
        self.ahead = ahead
        assert self.runner.run(store.amend(self.spec, who="ada", why="reason")) == self.revision

    @rule()
    def advance(self) -> None:
        if self.moved:
            return
        now = self.clock.now().wall
        counting = {
            each.signer
            for each in self.given
            if not each.revoked
            and each.revision == self.revision
            and each.signer in SIGNERS
            and each.at <= now < min(each.at + VALID, each.until or now + DAY)
        }
        self.moved = isinstance(self.runner.run(advance(self.stores, self.spec)), Ok)
        assert self.moved == (len(counting) >= 2)
        assert self.runner.run(self.stores.phase_store(self.spec).current()) == ("flip" if self.moved else "expand")


def test_the_gate_opens_as_the_model_says(place: Place) -> None:
    """Whatever people do, in whatever order, the gate opens when enough of what they signed counts, and only then."""
    run_state_machine_as_test(
        lambda: SignaturesMachine(place),
        settings=settings(
            max_examples=40 if place.kind == FILE else 8,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
