"""What people signed for, and when that is enough."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

import attrs

from phyxius.adapters._arguments import check_count, check_duration
from phyxius.clock import Instant
from phyxius.fp import Err, Ok, err, ok
from phyxius.migration import EvidenceFailure, SpecError

_MOST_TOLD = 10
_LONGEST_NOTE = 200


@attrs.frozen
class Signature:
    """One person's word for one source of one transition.

    Attributes:
        id: Its key.
        migration: The migration's name.
        revision: The revision of its recorded order of phases.
        from_phase: The phase that the transition leaves.
        to_phase: The phase that it enters.
        source: The evidence source that it is for.
        signer: Who signed.
        note: What the signer wrote.
        signed_at: When.
        expires_at: Until when it counts; None if it does not expire.
        revoked_at: When it was taken back; None if it stands.
        revoked_by: Who took it back.
        revoked_why: The note that they left.
    """

    id: int
    migration: str
    revision: int
    from_phase: str
    to_phase: str
    source: str
    signer: str
    note: str
    signed_at: Instant
    expires_at: Instant | None = None
    revoked_at: Instant | None = None
    revoked_by: str | None = None
    revoked_why: str | None = None

    def doubt(self, now: Instant, revision: int, from_phase: str, valid_for: timedelta | None = None) -> str | None:
        """Why it does not count now, for the step out of a phase in an order of them; None if it does."""
        if self.revision != revision or self.from_phase != from_phase:
            return "signed for an earlier order of the phases"
        if self.revoked_at is not None:
            return "revoked"
        if now.wall_ns < self.signed_at.wall_ns:
            return f"signed at {self.signed_at.wall.isoformat()}, which is still to come: the clock was set back"
        if self.expires_at is not None and now.wall_ns >= self.expires_at.wall_ns:
            return f"expired at {self.expires_at.wall.isoformat()}"
        if valid_for is not None and now.wall_ns >= self.signed_at.shifted(valid_for).wall_ns:
            return f"signed more than {valid_for} ago"
        return None

    def payload(self, valid_for: timedelta | None = None) -> dict[str, object]:
        """What the audit and the transition keep of it; `until` is when it stops counting, if it does."""
        ends = [] if self.expires_at is None else [self.expires_at.wall]
        ends += [] if valid_for is None else [self.signed_at.wall + valid_for]
        return {
            "id": self.id,
            "signer": self.signer,
            "note": self.note[:_LONGEST_NOTE],
            "signed_at": self.signed_at.wall.isoformat(),
            "until": min(ends).isoformat() if ends else None,
        }


@attrs.frozen
class Terms:
    """What a signed-off source asks for.

    Attributes:
        quorum: How many people have to sign.
        signers: Who may; None if everybody may.
        valid_for: How old a signature may be; None if it may be of any age.
    """

    quorum: int = 1
    signers: frozenset[str] | None = None
    valid_for: timedelta | None = None

    @classmethod
    def of(cls, quorum: int, signers: Collection[str] | None, valid_for: timedelta | None) -> Terms:
        """Check what was asked for.

        Raises:
            SpecError: Nobody could ever meet it, or everybody would.
        """
        check_count(quorum, "quorum")
        if valid_for is not None:
            check_duration(valid_for, "valid_for")
        if signers is None:
            return cls(quorum, None, valid_for)
        if isinstance(signers, str) or not all(isinstance(each, str) and each for each in signers):
            raise SpecError(f'signers must be a collection of names such as ["ada", "bob"], not {signers!r}')
        if len({person_of(each) for each in signers}) < quorum:
            raise SpecError(f"a quorum of {quorum} can never be reached by {sorted(set(signers))}")
        return cls(quorum, frozenset(signers), valid_for)

    def __str__(self) -> str:
        who = "a signature by 1 person" if self.quorum == 1 else f"signatures by {self.quorum} people"
        among = f" of {', '.join(sorted(self.signers))}" if self.signers is not None else ""
        age = f", no older than {self.valid_for}".removesuffix(", 0:00:00") if self.valid_for else ""
        return f"{who}{among}{age}"

    def judge(
        self, signatures: Iterable[Signature], now: Instant, revision: int, from_phase: str, store: str
    ) -> Ok[dict[str, object]] | Err[EvidenceFailure]:
        """Whether the signatures for one subject are enough; `store` names where they are from."""
        standing: dict[str, Signature] = {}
        doubts: dict[str, tuple[str, str]] = {}
        for signature in signatures:
            doubt = signature.doubt(now, revision, from_phase, self.valid_for)
            if doubt is None and self.signers is not None and signature.signer not in self.signers:
                doubt = "not among those who may sign"
            person = person_of(signature.signer)
            if doubt is None:
                standing[person] = signature
                doubts.pop(person, None)
            elif person not in standing:
                doubts[person] = signature.signer, doubt
        if len(standing) >= self.quorum:
            enough = sorted(standing)[: max(self.quorum, _MOST_TOLD)]
            signed = [standing[person].payload(self.valid_for) for person in enough]
            payload: dict[str, object] = {"signatures": signed, "store": store}
            return ok(payload)
        return err(self._failure(sorted(each.signer for each in standing.values()), dict(doubts.values())))

    def _failure(self, standing: list[str], doubts: Mapping[str, str]) -> EvidenceFailure:
        wanted = "signature is" if self.quorum == 1 else "signatures are"
        has = f"has those of {', '.join(standing)}" if standing else "has none"
        allowed = "" if self.signers is None else f"; {', '.join(sorted(self.signers - set(standing)))} may sign"
        discounted = "".join(f"; that of {signer} does not count: {why}" for signer, why in sorted(doubts.items()))
        return EvidenceFailure(
            f"{self.quorum} {wanted} wanted, and it {has}{discounted}{allowed}; "
            "sign with `phyxius sign` or attestations.sign(...)",
            {"quorum": self.quorum, "signed": standing, "discounted": dict(doubts)},
        )


def person_of(signer: str) -> str:
    """What is the same however somebody is spelt: who signs as "Ada" and as "ada" is not two people."""
    return unicodedata.normalize("NFKC", signer.strip()).casefold()


@attrs.frozen
class Reliance:
    """The signatures that one source's evidence relies on.

    Attributes:
        store: Where they are from.
        until: Until when each counts, by id.
    """

    store: str
    until: Mapping[int, str | None]


def relied_on(payloads: Mapping[str, object]) -> dict[str, Reliance]:
    """The signatures that the evidence of an attempt relies on, by source."""
    return {source: found for source, payload in payloads.items() if (found := _reliance(payload)) is not None}


def _reliance(payload: Any) -> Reliance | None:
    try:
        return Reliance(str(payload["store"]), {int(each["id"]): each["until"] for each in payload["signatures"]})
    except (TypeError, KeyError, ValueError):  # another source's evidence
        return None
