"""Orders of phases that change, and events that are old."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from phyxius.blocking import run
from phyxius.cli._app import as_named
from phyxius.cli._ask import ask
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Line
from phyxius.cli._session import Session, Subject
from phyxius.cli._words import roughly, when
from phyxius.migration import JournalWindowEvidence


def amend(session: Session, *, name: str, who: str | None, why: str, yes: bool) -> Exit:
    """Have a store adopt the order of phases of the application."""
    who = as_named(who)
    if not why.strip():
        raise CommandError("a reason is kept with the new order, and it is empty; say it with --why", Exit.USAGE)
    subject, screen = session.named(name), session.screen
    store: Any = subject.migration.phase_store
    orders = subject.orders()
    if not hasattr(store, "amend"):
        raise CommandError(
            f"the phase store of {name} keeps no order of phases, so there is nothing to amend", Exit.USAGE
        )
    if not orders:
        raise CommandError(
            f"the stores do not know {name} yet: its first `status` or `check` records its order", Exit.USAGE
        )
    recorded = orders[-1].phases
    if recorded == subject.order:
        return _already(session, name, orders[-1], f"the stores have the same order already: {', '.join(recorded)}")
    shown = (
        Line.of(", ".join(recorded), lead="the stores have      "),
        Line.of(", ".join(subject.order), lead="the application has  "),
    )
    screen.show(shown, err=screen.as_json and not yes)
    if not yes:
        ask(
            f"Have the stores adopt the order of the application for {name}? Signatures given so far stop counting.",
            "--yes",
        )
    session.go_on()
    revision = run(store.amend(subject.migration.spec, who=who, why=why, revision=orders[-1].revision))
    made = next(order for order in subject.orders() if order.revision == revision)
    if (made.who, made.why) != (who, why):
        return _already(session, name, made, f"{made.who} had the stores adopt the same order meanwhile: {made.why}")
    screen.json({"migration": name, "revision": revision, "phases": subject.order, "amended": True})
    told = f"{name} has revision {revision} of its order: {', '.join(subject.order)}"
    screen.say(told, lead="AMENDED  ", lead_style="bold green")
    return Exit.DONE


def _already(session: Session, name: str, order: Any, told: str) -> Exit:
    session.screen.json({"migration": name, "revision": order.revision, "phases": order.phases, "amended": False})
    session.screen.say(told, lead="ALREADY THERE  ")
    return Exit.ALREADY_THERE


def prune(session: Session, *, older_than: timedelta, yes: bool) -> Exit:
    """Delete events that are old from the journals of all migrations."""
    screen, subjects = session.screen, [session.named(name) for name in session.migrations]
    kept = {id(each.migration.journal_store): each.migration.journal_store for each in subjects}
    stores: list[Any] = [store for store in kept.values() if hasattr(store, "prune")]
    if not stores:
        raise CommandError("no journal store here keeps events that could be pruned", Exit.USAGE)
    needed = max((window for each in subjects for window in _windows_ahead(each)), default=timedelta(0))
    if older_than <= needed:
        raise CommandError(
            f"evidence here looks back {roughly(needed)}, and could not pass until that has gone by again: "
            f"--older-than must be longer than {roughly(needed)}",
            Exit.USAGE,
        )
    before = (subjects[0].now() - older_than).replace(microsecond=0)  # as it is told, and asked about
    if not yes:
        ask(f"Delete all events from before {when(before)}, but the audit, the phases and the signatures?", "--yes")
    deleted, left = 0, len(stores)
    try:
        with screen.progress(f"deleting what is from before {when(before)}"):
            for store in stores:
                session.go_on()
                deleted += run(store.prune(older_than=older_than, before=before))
                left -= 1
    finally:
        if left and deleted:
            screen.note(f"{deleted:,} events of other stores were deleted before that")
    screen.json({"deleted": deleted, "older_than_seconds": older_than.total_seconds()})
    screen.say(f"{deleted:,} events from before {when(before)} are deleted", lead="PRUNED  ", lead_style="bold green")
    return Exit.DONE


def _windows_ahead(subject: Subject) -> Iterator[timedelta]:
    """How far back the evidence looks that is still to be asked."""
    subject.check_order()  # another build may have phases ahead that this one does not know
    for phase in subject.order[subject.order.index(subject.phase()) + 1 :]:
        for source in subject.sources(phase).values():
            if isinstance(source, JournalWindowEvidence):
                yield source.window
