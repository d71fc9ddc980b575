"""What people signed for, and when that is enough."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phyxius.adapters._signatures import Reliance, Signature, Terms, relied_on
from phyxius.clock import create_controlled_clock
from phyxius.fp import Err, Ok
from phyxius.migration import SpecError

EPOCH = create_controlled_clock().now()
DAY = timedelta(days=1)
FILE = "2f5b"
NOW = EPOCH.shifted(10 * DAY)


def signature(signer: str = "ada", *, id: int = 1, signed: timedelta = 9 * DAY, **more: Any) -> Signature:
    """One of the day before."""
    times = {key: EPOCH.shifted(more.pop(key)) for key in ("expires_at", "revoked_at") if more.get(key) is not None}
    given = {"migration": "quotes", "revision": 1, "from_phase": "flip", "to_phase": "contract", "source": "backup"}
    return Signature(id=id, signer=signer, note="checked", signed_at=EPOCH.shifted(signed), **given | times | more)


# -- doubts


def test_a_signature_stands_until_something_speaks_against_it() -> None:
    """It is of any age, unless it is said how old it may be."""
    assert signature().doubt(NOW, 1, "flip") is None
    assert signature(signed=timedelta(0)).doubt(NOW, 1, "flip") is None
    assert signature(signed=10 * DAY).doubt(NOW, 1, "flip") is None


@pytest.mark.parametrize(
    "made,says",
    [
        (signature(revision=2), "signed for an earlier order of the phases"),
        (signature(from_phase="expand"), "signed for an earlier order of the phases"),
        (signature(revoked_at=9 * DAY), "revoked"),
        (signature(signed=10 * DAY + timedelta(microseconds=1)), "still to come: the clock was set back"),
        (signature(expires_at=10 * DAY), "expired at 1970-01-11T00:00:00"),
        (signature(signed=7 * DAY), "signed more than 3 days, 0:00:00 ago"),
    ],
)
def test_doubts(made: Signature, says: str) -> None:
    """Each says why."""
    doubt = made.doubt(NOW, 1, "flip", 3 * DAY)
    assert doubt is not None
    assert says in doubt


def test_the_last_moment_counts() -> None:
    """Up to the nanosecond before it expires or becomes too old."""
    before = NOW.shifted(-1)
    assert signature(expires_at=10 * DAY).doubt(before, 1, "flip") is None
    assert signature(signed=7 * DAY).doubt(before, 1, "flip", 3 * DAY) is None
    assert signature(signed=7 * DAY).doubt(NOW, 1, "flip", 3 * DAY) is not None


def test_the_payload_says_who_and_when() -> None:
    """It is what the audit and the transition keep."""
    assert signature(id=7).payload() == {
        "id": 7,
        "signer": "ada",
        "note": "checked",
        "signed_at": "1970-01-10T00:00:00+00:00",
        "until": None,
    }
    ends = [signature(expires_at=10 * DAY).payload(age)["until"] for age in (30 * DAY, DAY / 2)]
    assert ends == ["1970-01-11T00:00:00+00:00", "1970-01-10T12:00:00+00:00"]


# -- terms


@pytest.mark.parametrize(
    "quorum,signers,valid_for,says",
    [
        (0, None, None, "quorum must be"),
        (-1, None, None, "quorum must be"),
        (True, None, None, "quorum must be"),
        (1.0, None, None, "quorum must be"),
        (1, None, timedelta(0), "valid_for must be"),
        (1, None, -DAY, "valid_for must be"),
        (1, None, 7, "valid_for must be"),
        (1, None, timedelta.max, "valid_for must not be longer than a century"),
        (1, "ada", None, "signers must be"),
        (1, ["ada", ""], None, "signers must be"),
        (1, [7], None, "signers must be"),
        (1, [], None, "can never be reached"),
        (2, ["ada", "ada"], None, "a quorum of 2 can never be reached by"),
    ],
)
def test_terms_that_nobody_could_meet_are_refused(quorum: Any, signers: Any, valid_for: Any, says: str) -> None:
    """Or that everybody would: misuse shows where the source is defined."""
    with pytest.raises(SpecError, match=says):
        Terms.of(quorum, signers, valid_for)


def test_terms() -> None:
    """Who may sign is a set; None is everybody."""
    assert Terms.of(2, ["bob", "ada", "bob"], DAY) == Terms(2, frozenset({"ada", "bob"}), DAY)
    assert Terms.of(1, None, None) == Terms()


# -- judging


def judged(terms: Terms, *signatures: Signature) -> Any:
    return terms.judge(signatures, NOW, 1, "flip", FILE)


def test_enough_signatures_are_an_ok() -> None:
    """Its payload has those that count, one for each signer, in the order of their names, and where they are from."""
    answer = judged(Terms(2), signature("bob", id=1), signature("ada", id=2), signature("eve", id=3, revision=0))
    assert type(answer) is Ok
    signed = [signature("ada", id=2).payload(), signature("bob", id=1).payload()]
    assert answer.value == {"signatures": signed, "store": FILE}


@pytest.mark.parametrize("quorum,told", [(1, 10), (9, 10), (10, 10), (11, 11), (30, 30)])
def test_the_payload_stays_small(quorum: int, told: int) -> None:
    """Of many signatures it tells ten, or as many as are needed: however many sign, the evidence can be stored."""
    answer = judged(Terms(quorum), *[signature(f"p{number:02}", id=number) for number in range(30)])
    assert [each["signer"] for each in answer.value["signatures"]] == [f"p{number:02}" for number in range(told)]


def test_long_notes_are_cut() -> None:
    """The payload tells how they begin; the signature itself has it all."""
    made = attrs.evolve(signature(), note="x" * 200 + "y")
    assert made.payload()["note"] == "x" * 200


def test_one_signer_counts_once() -> None:
    """However often somebody signs; the last one that counts is told."""
    assert type(judged(Terms(2), signature(id=1), signature(id=2))) is Err
    assert judged(Terms(1), signature(id=1), signature(id=2)).value["signatures"][0]["id"] == 2
    assert judged(Terms(1), signature(id=1), signature(id=2, revision=0)).value["signatures"][0]["id"] == 1


@pytest.mark.parametrize("other", ["ADA", "Ad\uff41", " ada "])
def test_one_person_counts_once_however_she_is_spelt(other: str) -> None:
    """Nobody makes up a quorum by himself."""
    assert type(judged(Terms(2), signature("ada", id=1), signature(other, id=2))) is Err
    with pytest.raises(SpecError, match="can never be reached"):
        Terms.of(2, ["ada", other], None)


@pytest.mark.parametrize(
    "terms,signatures,reason,details",
    [
        (
            Terms(),
            [],
            "1 signature is wanted, and it has none; sign with `phyxius sign` or attestations.sign(...)",
            {"quorum": 1, "signed": [], "discounted": {}},
        ),
        (
            Terms(3, frozenset({"ada", "bob", "cy"})),
            [signature("bob"), signature("ada"), signature("eve")],
            (
                "3 signatures are wanted, and it has those of ada, bob; that of eve does not count: "
                "not among those who may sign; cy may sign; sign with `phyxius sign` or attestations.sign(...)"
            ),
            {"quorum": 3, "signed": ["ada", "bob"], "discounted": {"eve": "not among those who may sign"}},
        ),
        (
            Terms(2),
            [signature("ada", revoked_at=9 * DAY), signature("ada"), signature("bob"), signature("bob", revision=0)],
            None,
            None,
        ),
        (
            Terms(1),
            [signature("ada", revision=0), signature("ada", revoked_at=9 * DAY)],
            (
                "1 signature is wanted, and it has none; that of ada does not count: revoked; "
                "sign with `phyxius sign` or attestations.sign(...)"
            ),
            {"quorum": 1, "signed": [], "discounted": {"ada": "revoked"}},
        ),
    ],
)
def test_too_few_signatures(terms: Terms, signatures: list[Signature], reason: str | None, details: Any) -> None:
    """The failure says how many are wanted, whose count, whose do not and why, and who may still sign."""
    answer = judged(terms, *signatures)
    if reason is None:
        assert type(answer) is Ok
    else:
        assert (answer.error.reason, answer.error.details) == (reason, details)


signatures = st.lists(
    st.builds(
        signature,
        st.sampled_from(["ada", "bob", "cy", "eve"]),
        id=st.integers(1, 99),
        signed=st.integers(0, 12).map(lambda days: days * DAY),
        revision=st.integers(0, 2),
        expires_at=st.none() | st.integers(0, 12).map(lambda days: days * DAY),
        revoked_at=st.none() | st.integers(0, 12).map(lambda days: days * DAY),
    ),
    max_size=8,
)


@given(
    signatures,
    st.integers(1, 3),
    st.none() | st.frozensets(st.sampled_from(["ada", "bob", "cy"]), min_size=3),
    st.none() | st.integers(1, 12).map(lambda days: days * DAY),
)
def test_it_is_enough_exactly_if_a_quorum_signed(
    given: list[Signature], quorum: int, signers: frozenset[str] | None, valid_for: timedelta | None
) -> None:
    """So many different people, each with a signature against which nothing speaks."""

    def counts(each: Signature) -> bool:
        return (
            each.revision == 1
            and each.revoked_at is None
            and each.signed_at.wall <= NOW.wall
            and (each.expires_at is None or NOW.wall < each.expires_at.wall)
            and (valid_for is None or NOW.wall - each.signed_at.wall < valid_for)
            and (signers is None or each.signer in signers)
        )

    answer: Any = judged(Terms.of(quorum, signers, valid_for), *given)
    people = {each.signer for each in given if counts(each)}
    if len(people) >= quorum:
        assert {each["signer"] for each in answer.value["signatures"]} == people
        reliance = relied_on({"backup": answer.value})["backup"]
        assert reliance.store == FILE
        assert set(reliance.until) == {each["id"] for each in answer.value["signatures"]}
        assert set(reliance.until) <= {each.id for each in given if counts(each)}
    else:
        assert answer.error.details["signed"] == sorted(people)
        assert set(answer.error.details["discounted"]) == {each.signer for each in given} - people


@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        [],
        {},
        "store",
        {"signatures": []},
        {"signatures": [{"id": 1, "until": None}]},
        {"store": FILE},
        {"store": FILE, "signatures": {"id": 1}},
        {"store": FILE, "signatures": [7]},
        {"store": FILE, "signatures": [{"id": "one", "until": None}]},
        {"store": FILE, "signatures": [{"id": None, "until": None}]},
        {"store": FILE, "signatures": [{"id": 1}]},
        {"store": FILE, "signatures": [{"id": 1, "until": None}, {"signer": "ada"}]},
    ],
)
def test_other_payloads_rely_on_no_signature(payload: object) -> None:
    """What merely looks alike is another source's evidence."""
    until = "2026-01-01T00:00:00+00:00"
    signed = {"signatures": [{"id": 7, "until": until}, {"id": 8, "until": None}], "store": FILE}
    assert relied_on({"schema": payload, "backup": signed}) == {"backup": Reliance(FILE, {7: until, 8: None})}
