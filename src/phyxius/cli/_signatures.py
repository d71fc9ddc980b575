"""Signatures: given, taken back and shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rich.text import Text

from phyxius.adapters import attestations_of
from phyxius.blocking import run
from phyxius.cli._app import as_named
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import quoted_command, when
from phyxius.migration import AttestationEvidence, demand_of


def sign(
    session: Session,
    *,
    name: str,
    to: str,
    source: str | None,
    signer: str | None,
    note: str,
    valid_for: timedelta | None,
) -> Exit:
    """Sign for a step."""
    subject, screen = session.named(name), session.screen
    source, attestations = _source(subject, to, source)
    subject.phase()  # a store takes signatures for a migration whose phase it knows
    spec, who = subject.migration.spec, as_named(signer)
    session.go_on()
    made = run(attestations.sign(spec, to=to, source=source, signer=who, note=note, valid_for=valid_for))
    screen.json({"migration": name, **_told(made, "counts")})
    until = f", until {when(made.expires_at.wall)}" if made.expires_at else ""
    screen.say(
        f"{made.signer} for {source}, the way of {name} into {to}{until}", lead="SIGNED  ", lead_style="bold green"
    )
    return Exit.DONE


def revoke(
    session: Session, *, name: str, to: str, source: str | None, signer: str | None, by: str | None, note: str
) -> Exit:
    """Take signatures back."""
    subject, screen = session.named(name), session.screen
    source, attestations = _source(subject, to, source)
    spec, whose, who = subject.migration.spec, as_named(signer), as_named(by)
    session.go_on()
    count = run(attestations.revoke(spec, to=to, source=source, signer=whose, by=who, note=note))
    if not count:
        told = f"{whose} has no signature for {source} of {to} that stands; see `{quoted_command('signatures', name)}`"
        raise CommandError(told, Exit.USAGE)
    screen.json({"migration": name, "to_phase": to, "source": source, "signer": whose, "revoked": count})
    screen.say(f"{count} of {whose} for {source} of {to}", lead="REVOKED  ", lead_style="bold green")
    return Exit.DONE


def signatures(session: Session, *, name: str, to: str | None, source: str | None) -> Exit:
    """Show who signed for what."""
    subject, screen = session.named(name), session.screen
    if to is not None:
        subject.declared(to)
    if source is not None:
        _check_source(subject, source)
    subjects = {
        key: attestations
        for key, attestations in attestations_of(subject.migration).items()
        if to in (None, key[0]) and source in (None, key[1])
    }
    revision = max((order.revision for order in subject.orders()), default=1)
    found = []
    screen.say(name, style="bold")
    for (phase, each), attestations in subjects.items():
        given = run(attestations.signatures(subject.migration.spec, to=phase, source=each))
        stated = [(one, _state(subject, one, revision)) for one in given]
        found += [_told(one, state) for one, state in stated]
        screen.show(_lines(subject, phase, each, stated))
    if not subjects:
        screen.say("it asks for no signatures there that are kept in these stores", indent=2)
    screen.json({"migration": name, "signatures": found})
    return Exit.DONE


def _check_source(subject: Subject, source: str) -> None:
    found = [name for to in subject.order[1:] for name, each in subject.sources(to).items() if is_signed(each)]
    if source not in found:
        there = f"it has: {', '.join(found)}" if found else "it has none"
        told = f"{subject.name} has no source {source!r} that asks for signatures; {there}"
        raise CommandError(told, Exit.USAGE)


def is_signed(source: object) -> bool:
    """Whether a source asks for signatures."""
    return isinstance(source, AttestationEvidence)


def _source(subject: Subject, to: str, source: str | None) -> tuple[str, Any]:
    """The source to sign for, and where its signatures are."""
    subject.declared(to)
    there = {
        each: attestations for (phase, each), attestations in attestations_of(subject.migration).items() if phase == to
    }
    if source is None and len(there) == 1:
        (source,) = there
    if source in there:
        return source, there[source]
    asked = {name: each for name, each in subject.sources(to).items() if is_signed(each)}
    if source in asked:
        told = f'{source} of {to} looks elsewhere than in these stores ("{demand_of(asked[source])}"); sign there'
    elif there:
        cure = "; say which with --source" if source is None else f", not for {source}"
        told = f"{to} asks for signatures for {', '.join(there)}{cure}"
    else:
        told = f"{to} of {subject.name} asks for no signatures"
    raise CommandError(told, Exit.USAGE)


def _state(subject: Subject, signature: Any, revision: int) -> str:
    if signature.revoked_at is not None:
        return "revoked"
    if signature.expires_at is not None and signature.expires_at.wall <= subject.now():
        return "expired"
    return "counts" if signature.revision == revision else "overtaken"


def _in_words(signature: Any, state: str) -> str:
    match state:
        case "revoked":
            why = f": {signature.revoked_why}" if signature.revoked_why else ""
            return f"revoked {when(signature.revoked_at.wall)} by {signature.revoked_by}{why}"
        case "expired":
            return f"expired {when(signature.expires_at.wall)}"
        case "overtaken":
            return "for an earlier order of the phases"
        case _:
            return state


def _told(signature: Any, state: str) -> dict[str, Any]:
    return {
        "to_phase": signature.to_phase,
        "source": signature.source,
        "signer": signature.signer,
        "note": signature.note,
        "signed_at": signature.signed_at.wall,
        "expires_at": signature.expires_at.wall if signature.expires_at else None,
        "revoked_at": signature.revoked_at.wall if signature.revoked_at else None,
        "revoked_by": signature.revoked_by,
        "revoked_why": signature.revoked_why,
        "state": state,
    }


def _lines(subject: Subject, phase: str, source: str, stated: list[tuple[Any, str]]) -> Iterator[Line]:
    demand = demand_of(subject.sources(phase)[source])
    yield Line(Text(clean(demand), "dim"), Text.assemble((clean(f"{phase}: {source}"), "cyan"), "  "), 2)
    for signature, state in stated:
        style = "green" if state == "counts" else "yellow"
        note = f": {signature.note}" if signature.note else ""
        text = Text.assemble(clean(f"{signature.signer}{note} "), (f"({clean(_in_words(signature, state))})", style))
        yield Line(text, Text(f"{when(signature.signed_at.wall)}  ", "dim"), 4)
    if not stated:
        yield Line.of("nobody has signed", indent=4)
