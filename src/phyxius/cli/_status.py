"""Where each migration is, and what its next phase demands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs
from rich.text import Text

from phyxius.cli._exits import Exit, of_error
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import ago, error_told, hint, quoted_command, told, when
from phyxius.migration import SpecChangedError, demand_of


@attrs.define
class Standing:
    """Where a migration is, as far as its stores tell.

    Attributes:
        subject: The migration.
        phase: The phase that it is at.
        since: Since when.
        error: What its stores said instead, or of the order of its phases.
    """

    subject: Subject
    phase: str | None = None
    since: datetime | None = None
    error: Exception | None = None

    @classmethod
    def of(cls, session: Session, subject: Subject) -> Standing:
        """Look; what a store raises is told of its own migration, and hides no other."""
        found = cls(subject)
        try:
            session.open_stores(subject.migration)
            found.phase = subject.phase()
            found.since = subject.since()
            subject.check_order()
        except SpecChangedError as error:
            found.error = error
            found._look_back()
        except Exception as error:  # noqa: BLE001 - a store may raise anything
            found.error = error
        return found

    def _look_back(self) -> None:
        """Where it is by its history: a phase store does not tell a build with other phases."""
        with suppress(Exception):
            if self.phase is None and (transitions := self.subject.transitions()):
                self.phase, self.since = transitions[-1].to_phase, transitions[-1].at.wall

    @property
    def exit(self) -> Exit:
        """How a command ends that found this and nothing else."""
        return Exit.DONE if self.error is None else of_error(self.error)

    @property
    def next_phase(self) -> str | None:
        """The phase that it may enter next."""
        return None if self.phase is None or self.error is not None else self.subject.following(self.phase)

    @property
    def demands(self) -> dict[str, str]:
        """What the sources ask for that guard the next phase."""
        sources = {} if self.next_phase is None else self.subject.sources(self.next_phase)
        return {name: demand_of(source) for name, source in sources.items()}

    def told(self) -> dict[str, Any]:
        """For programs."""
        error = self.error
        return {
            "migration": self.subject.name,
            "phases": self.subject.order,
            "phase": self.phase,
            "since": self.since,
            "next_phase": self.next_phase,
            "demands": self.demands,
            "error": None if error is None else error_told(error),
        }

    def lines(self) -> Iterator[Line]:
        """What people read of it."""
        yield Line.of(self.subject.name, style="bold")
        match self.error:
            case None:
                yield from self._place()
            case SpecChangedError() as changed:
                yield from self._orders(changed)
            case error:
                yield Line.of(told(error) + hint(error), style="red", lead="error  ", indent=2)

    def _place(self) -> Iterator[Line]:
        yield Line(way(self.subject.order, self.phase), Text("phase  "), 2)
        if self.since is not None:
            yield Line.of(f"{when(self.since)}, {ago(self.since, self.subject.now())}", lead="since  ", indent=2)
        if self.next_phase is None:
            yield Line.of("it is at its last phase; nothing is left to do", lead="next   ", indent=2)
            return
        demands = self.demands
        what = "which demands" if demands else "which can be entered freely"
        yield Line.of(f"{self.next_phase}, {what}", lead="next   ", indent=2)
        width = max(map(len, map(clean, demands)), default=0)
        for name, demand in demands.items():
            yield Line.of(demand, lead=f"{clean(name):<{width}}  ", lead_style="cyan", indent=9)

    def _orders(self, changed: SpecChangedError) -> Iterator[Line]:
        what = "the stores have another order of phases than this build"
        yield Line.of(what, style="red", lead="error     ", indent=2)
        yield Line(way(changed.recorded, self.phase), Text("recorded  "), 2)
        yield Line(way(changed.declared, None), Text("declared  "), 2)
        yield Line.of(cure_of_another_order(self.subject), lead="to do     ", indent=2)


def status(session: Session, *, names: Sequence[str]) -> Exit:
    """Show some migrations, or all."""
    subjects = [session.known(name) for name in names or session.migrations]
    found: list[Standing] = []
    for subject in subjects:
        standing = Standing.of(session, subject)
        session.trace([standing.error])
        session.screen.show([*([Line(Text())] if found else []), *standing.lines()])
        found.append(standing)
    session.screen.json({"migrations": [standing.told() for standing in found]})
    return max(standing.exit for standing in found)


def cure_of_another_order(subject: Subject) -> str:
    """What to do where the stores have another order of phases than this build."""
    amend = quoted_command("amend", subject.name)
    return f'if this build is the newer one: {amend} --why "..."; if it is the older one: deploy the newer'


def way(order: Sequence[str], phase: str | None) -> Text:
    """The phases in order, with the one that it is at marked."""
    at = order.index(phase) if phase in order else -1
    passed = [Text(clean(each), "dim") for each in order[: max(at, 0)]]
    marked = [Text(clean(f"[{phase}]"), "bold green")] if at >= 0 else []
    return Text(" → ").join([*passed, *marked, *(Text(clean(each)) for each in order[at + 1 :])])
