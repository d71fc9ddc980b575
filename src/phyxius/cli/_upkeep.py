"""Orders of phases that change, and events that are old."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from phyxius.blocking import run
from phyxius.cli._app import as_named
from phyxius.cli._ask import ask
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._session import Session
from phyxius.cli._words import roughly, when
from phyxius.migration import JournalWindowEvidence


def amend(session: Session, *, name: str, who: str | None, why: str, yes: bool) -> Exit:
    """Have a store adopt the order of phases of the application."""
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
        screen.json({"migration": name, "revision": orders[-1].revision, "phases": recorded, "amended": False})
        screen.say(f"the stores have the same order already: {', '.join(recorded)}", lead="ALREADY THERE  ")
        return Exit.ALREADY_THERE
    screen.say(", ".join(recorded), lead="the stores have      ")
    screen.say(", ".join(subject.order), lead="the application has  ")
    if not yes:
        ask(
            f"Have the stores adopt the order of the application for {name}? Signatures given so far stop counting.",
            "--yes",
        )
    revision = run(store.amend(subject.migration.spec, who=as_named(who), why=why))
    screen.json({"migration": name, "revision": revision, "phases": subject.order, "amended": True})
    screen.say(f"{name} has revision {revision} of its order", lead="AMENDED  ", lead_style="bold green")
    return Exit.DONE


def prune(session: Session, *, older_than: timedelta, yes: bool) -> Exit:
    """Delete events that are old from the journals of all migrations."""
    screen = session.screen
    stores: dict[int, Any] = {}
    needed = timedelta(0)
    for migration in session.migrations.values():
        if hasattr(migration.journal_store, "prune"):
            stores[id(migration.journal_store)] = migration.journal_store
        windows = [
            source.window
            for phase in migration.spec.phases.values()
            for source in phase.evidence.values()
            if isinstance(source, JournalWindowEvidence)
        ]
        needed = max([needed, *windows])
    if not stores:
        raise CommandError("no journal store here keeps events that could be pruned", Exit.USAGE)
    if older_than <= needed:
        raise CommandError(
            f"evidence here looks back {roughly(needed)}, and could not pass until that has gone by again: "
            f"--older-than must be longer than that",
            Exit.USAGE,
        )
    clock = next(iter(session.migrations.values())).journal.clock
    before = when(clock.now().wall - older_than)
    if not yes:
        ask(f"Delete all events from before {before}, but the audit, the phases and the signatures?", "--yes")
    with screen.progress(f"deleting what is from before {before}"):
        deleted = sum(run(store.prune(older_than=older_than)) for store in stores.values())
    screen.json({"deleted": deleted, "older_than_seconds": older_than.total_seconds()})
    screen.say(f"{deleted:,} events from before {before} are deleted", lead="PRUNED  ", lead_style="bold green")
    return Exit.DONE
