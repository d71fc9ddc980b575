"""What a command works on: the migrations of an application, open, and the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from phyxius.blocking import SyncMigration, run
from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Screen
from phyxius.migration import Migration, Transition


@attrs.frozen
class Session:
    """The migrations of an application, and where to print.

    Attributes:
        migrations: They, by name.
        screen: Where to print.
        open_stores: Opens what a migration is bound to, until the command has ended.
        go_on: Raises an interrupt that has come and was swallowed; called before something is written.
        traceback: Whether to show where an error came from.
    """

    migrations: Mapping[str, Migration[Any]]
    screen: Screen
    open_stores: Callable[[Migration[Any]], None]
    go_on: Callable[[], None]
    traceback: bool = False

    def trace(self, found: Iterable[object]) -> None:
        """Show where the errors among what was found came from, if that is wanted."""
        for each in found:
            if self.traceback and isinstance(each, Exception):
                self.screen.trace(each)

    def known(self, name: str) -> Subject:
        """One of them, whose stores may not be open.

        Raises:
            CommandError: There is no such one.
        """
        if name not in self.migrations:
            raise CommandError(f"there is no migration {name!r}; there are: {', '.join(self.migrations)}", Exit.USAGE)
        return Subject(self.migrations[name])

    def named(self, name: str) -> Subject:
        """One of them, with its stores open. Those of the others stay as they are, and may be away.

        Raises:
            CommandError: There is no such one.
            Exception: The error of the stores, if they cannot be used.
        """
        subject = self.known(name)
        self.open_stores(subject.migration)
        return subject


@attrs.frozen
class Subject:
    """One migration, for code that cannot await."""

    migration: Migration[Any]

    @property
    def name(self) -> str:
        """Its name."""
        return self.migration.name

    @property
    def order(self) -> tuple[str, ...]:
        """Its phases."""
        return tuple(str.__str__(phase) for phase in self.migration.spec.order)

    @property
    def plain(self) -> SyncMigration[Any]:
        """Its methods as plain functions."""
        return SyncMigration(self.migration)

    def phase(self) -> str:
        """Where it is."""
        return str.__str__(self.plain.current_phase())

    def check_order(self) -> None:
        """Do nothing, unless its store recorded another order of phases; that may be so although a phase is read.

        Raises:
            SpecChangedError: It did.
        """
        check = getattr(self.migration.phase_store, "check_order", None)
        if check is not None:
            run(check())

    def now(self) -> datetime:
        """What time it is, by its clock."""
        return self.migration.journal.clock.now().wall

    def declared(self, phase: str) -> str:
        """A phase that somebody typed.

        Raises:
            CommandError: It has no such phase.
        """
        if phase not in self.order:
            raise CommandError(f"{self.name} has no phase {phase!r}; it has: {', '.join(self.order)}", Exit.USAGE)
        return phase

    def sources(self, to: str) -> dict[str, Any]:
        """What guards the way into a phase, by name."""
        phases = {str.__str__(phase): each.evidence for phase, each in self.migration.spec.phases.items()}
        first = phases[self.order[0]] if to == self.order[1] else {}
        return {**phases[to], **first}

    def following(self, phase: str) -> str | None:
        """The phase after one, if there is one."""
        index = self.order.index(phase) + 1
        return self.order[index] if index < len(self.order) else None

    def transitions(self) -> Sequence[Transition]:
        """The steps that it took; none if its store keeps none."""
        history = getattr(self.migration.phase_store, "history", None)
        return () if history is None else list(run(history()))

    def orders(self) -> Sequence[Any]:
        """The orders of phases that it was given; none if its store keeps none."""
        orders = getattr(self.migration.phase_store, "orders", None)
        return () if orders is None else list(run(orders()))

    def since(self) -> datetime | None:
        """Since when it is where it is, as far as the store knows."""
        if transitions := self.transitions():
            return transitions[-1].at.wall
        orders = self.orders()
        return orders[0].at.wall if orders else None
