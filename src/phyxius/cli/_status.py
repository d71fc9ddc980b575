"""Where each migration is, and what its next phase demands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from phyxius.cli._exits import Exit
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import ago, when
from phyxius.migration import demand_of


def status(session: Session, *, names: Sequence[str]) -> Exit:
    """Show some migrations, or all."""
    subjects = [session.named(name) for name in names or session.migrations]
    found = [_found(subject) for subject in subjects]
    session.screen.json({"migrations": found})
    for number, (subject, each) in enumerate(zip(subjects, found, strict=True)):
        session.screen.show([*([Line(Text())] if number else []), *_lines(subject, each)])
    return Exit.DONE


def _found(subject: Subject) -> dict[str, Any]:
    phase = subject.phase()
    following, since = subject.following(phase), subject.since()
    demands = {} if following is None else subject.sources(following)
    return {
        "migration": subject.name,
        "phases": subject.order,
        "phase": phase,
        "since": since,
        "next_phase": following,
        "demands": {name: demand_of(source) for name, source in demands.items()},
    }


def _lines(subject: Subject, found: dict[str, Any]) -> Iterator[Line]:
    yield Line.of(subject.name, style="bold")
    yield Line(way(subject, found["phase"]), Text("phase  "), 2)
    if found["since"] is not None:
        yield Line.of(f"{when(found['since'])}, {ago(found['since'], subject.now())}", lead="since  ", indent=2)
    if found["next_phase"] is None:
        yield Line.of("it is at its last phase; nothing is left to do", lead="next   ", indent=2)
        return
    demands = "which demands" if found["demands"] else "which can be entered freely"
    yield Line.of(f"{found['next_phase']}, {demands}", lead="next   ", indent=2)
    width = max(map(len, map(clean, found["demands"])), default=0)
    for name, demand in found["demands"].items():
        yield Line.of(demand, lead=f"{clean(name):<{width}}  ", lead_style="cyan", indent=9)


def way(subject: Subject, phase: str) -> Text:
    """The phases in order, with the one that it is at marked."""
    parts = [
        Text(clean(f"[{each}]" if each == phase else each), _style(subject, each, phase)) for each in subject.order
    ]
    return Text(" → ").join(parts)


def _style(subject: Subject, phase: str, current: str) -> str:
    if phase == current:
        return "bold green"
    return "dim" if subject.order.index(phase) < subject.order.index(current) else ""
