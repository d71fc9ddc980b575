"""How a migration got where it is."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
from rich.text import Text

from phyxius.blocking import run
from phyxius.cli._exits import Exit
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import brief, readable, when
from phyxius.handler import HandlerEvent
from phyxius.migration import JournalQuery, JournalWindow

_EVER = timedelta(days=36_500)


@attrs.frozen
class Entry:
    """One thing that happened to a migration.

    Attributes:
        at: When.
        kind: `"began"`, `"advanced"`, `"refused"` or `"amended"`.
        details: What there is to say of it.
    """

    at: datetime
    kind: str
    details: Mapping[str, Any]

    def told(self) -> dict[str, Any]:
        """For programs."""
        return {"at": self.at, "kind": self.kind, **self.details}

    @property
    def subject(self) -> object:
        """What repetitions have in common."""
        if self.kind != "refused":
            return id(self)
        reasons = json.dumps(_reasons(self.details))
        return self.details["to"], self.details["type"], re.sub(r"\d+", "0", reasons)  # counts and times go on


def history(session: Session, *, name: str, since: timedelta | None, every: bool) -> Exit:
    """Show how a migration got where it is."""
    subject, screen = session.named(name), session.screen
    window = _refused(subject, since)
    steps = sorted([*_steps(subject), *map(_refusal, window.events)], key=lambda entry: entry.at)
    if since is not None:
        steps = [entry for entry in steps if entry.at >= subject.now() - since]
    told = [entry.told() for entry in steps]
    screen.json({"migration": subject.name, "history": told, "truncated": window.truncated})
    screen.say(subject.name, style="bold")
    if not steps:
        screen.say("nothing is known of it: its stores keep no history, or its phase was never read", indent=2)
    groups = [list(group) for _, group in itertools.groupby(steps, key=lambda entry: entry.subject)]
    for group in [[entry] for entry in steps] if every else groups:
        screen.show(_lines(group))
    if window.truncated:
        cut = f"older refusals are left out, since the stores read no more than {len(window):,} at once"
        screen.note(f"{cut}; for all of a shorter time give --since")
    return Exit.DONE


def _steps(subject: Subject) -> Iterator[Entry]:
    for order in subject.orders():
        details = {"phases": order.phases, "who": order.who, "why": order.why}
        yield Entry(order.at.wall, "began" if order.who is None else "amended", details)
    for step in subject.transitions():
        details = {"from": step.from_phase, "to": step.to_phase, "evidence": step.evidence, "attempt": step.attempt}
        yield Entry(step.at.wall, "advanced", details)


def _refused(subject: Subject, since: timedelta | None) -> JournalWindow:
    query = JournalQuery(f"migration.{subject.name}.advance", outcome="failure")
    return run(subject.migration.journal_store.query(query, since or _EVER))


def _refusal(event: HandlerEvent) -> Entry:
    refusal: Any = event.observed.get("refusal", {})
    details = {
        "from": event.observed.get("from"),
        "to": event.observed.get("attempted"),
        "type": refusal.get("type"),
        "message": refusal.get("message"),
        "failures": refusal.get("failures", {}),
        "errors": refusal.get("errors", {}),
        "attempt": event.invocation_id,
    }
    return Entry(event.completed_at.wall, "refused", details)


def _lines(group: Sequence[Entry]) -> Iterator[Line]:
    entry = group[-1]
    said = entry.details
    lead = Text(f"{when(entry.at)}  ", "dim")
    if entry.kind == "began":
        yield Line(Text.assemble(("BEGAN ", "bold"), clean(f"with the phases {', '.join(said['phases'])}")), lead, 2)
    elif entry.kind == "amended":
        told = f"by {said['who']} to {', '.join(said['phases'])}: {said['why']}"
        yield Line(Text.assemble(("AMENDED ", "bold cyan"), clean(told)), lead, 2)
    elif entry.kind == "advanced":
        yield Line(Text.assemble(("ADVANCED ", "bold green"), clean(f"{said['from']} → {said['to']}")), lead, 2)
        yield from _told({name: brief(payload) for name, payload in said["evidence"].items()})
    else:
        times = f", {len(group):,} times since {when(group[0].at)}" if len(group) > 1 else ""
        told = f"{said['to'] or 'a step'} ({said['type']}{times})"
        yield Line(Text.assemble(("REFUSED ", "bold yellow"), clean(told)), lead, 2)
        yield from _told(_reasons(said))


def _reasons(refusal: Mapping[str, Any]) -> dict[str, str]:
    reasons = {name: failure["reason"] for name, failure in refusal["failures"].items()}
    reasons |= {name: f"{error['type']}: {error['message']}" for name, error in refusal["errors"].items()}
    return reasons or {"": refusal["message"]}


def _told(texts: Mapping[str, str]) -> Iterator[Line]:
    for name, text in texts.items():
        yield Line.of(readable(text), lead=f"{clean(name)}: " if name else "", lead_style="cyan", indent=6)
