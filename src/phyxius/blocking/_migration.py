"""A migration whose methods are plain functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic

from typing_extensions import ParamSpec, TypeVar

from phyxius.blocking._background import run
from phyxius.fp import Result
from phyxius.journal import Journal
from phyxius.migration import (
    Advanced,
    AdvanceError,
    Migration,
    MigrationSpec,
    OnAnswer,
    PhasedCalls,
    Readiness,
    SpecError,
)

P = TypeVar("P", bound=str, default=str)
Q = ParamSpec("Q")
R = TypeVar("R")


class SyncMigration(Generic[P]):
    """A migration for code that cannot await. Any thread may call its methods, but none that runs an event loop.

    All of it runs on one event loop in the background, where its stores have to be opened too: by `opened`, or by
    `keep_open`. Memory stores and those of a file need no more than that.

    Args:
        migration: What `create_migration` made.

    Raises:
        SpecError: That is none.
    """

    def __init__(self, migration: Migration[P]) -> None:
        if not isinstance(migration, Migration):
            raise SpecError(f"SyncMigration() needs what create_migration() made, not {migration!r}")
        self._migration = migration

    @property
    def migration(self) -> Migration[P]:
        """The migration that it was made of."""
        return self._migration

    @property
    def spec(self) -> MigrationSpec[P]:
        """What was defined."""
        return self._migration.spec

    @property
    def name(self) -> str:
        """The name of the spec."""
        return self._migration.name

    @property
    def journal(self) -> Journal[Any]:
        """The journal that takes its audit events."""
        return self._migration.journal

    def current_phase(self) -> P:
        """The phase now: a live read of the phase store, every time.

        Raises:
            UnknownPhaseError: The store answered with a phase that the spec does not have.
            RuntimeError: This thread runs an event loop, or the interpreter is about to exit.
            Exception: Whatever the store raised, as it is.
        """
        return run(self._migration.current_phase())

    def advance(
        self, to: P | None = None, *, on_answer: OnAnswer | None = None
    ) -> Result[Advanced[P], AdvanceError[P]]:
        """Take the next step, if every source that guards it is a true `Ok` now; as `Migration.advance`.

        An interrupt, such as Ctrl-C, cancels it: before the compare-and-set nothing moves, from then on it completes.

        Args:
            to: The phase that the caller means to reach; if another one is next, nothing moves.
            on_answer: Is told of the answer of each source as it comes, in the thread of the event loop.

        Raises:
            RuntimeError: This thread runs an event loop, or the interpreter is about to exit.
        """
        return run(self._migration.advance(to, on_answer=on_answer))

    def readiness(self, *, on_answer: OnAnswer | None = None) -> Readiness[P]:
        """What `advance()` would find now: the same evaluation, and neither a transition nor an audit event.

        Args:
            on_answer: As for `advance()`.

        Raises:
            UnknownPhaseError: The store answered with a phase that the spec does not have.
            TimeoutError: The phase store did not answer within `evidence_timeout`.
            RuntimeError: This thread runs an event loop, or the interpreter is about to exit.
            Exception: Whatever the phase store raised, as it is.
        """
        return run(self._migration.readiness(on_answer=on_answer))

    def by_phase(self, handlers: Mapping[P, Callable[Q, R]], /, *, record_as: str | None = None) -> Callable[Q, R]:
        """One plain callable that reads the phase at each call and hands over to the function for it.

        Args:
            handlers: For each phase of the spec a plain function, all with the same signature. They run where the
                callable is called.
            record_as: Records each call in the journal under this name, with the phase that it ran under.

        Returns:
            A callable with their signature; it raises what `current_phase()` and the functions raise.

        Raises:
            SpecError: A phase is missing or is not of the spec, a value cannot be called, is async, or is a generator
                that should be recorded.
        """
        self._migration.by_phase(handlers, record_as=record_as)  # its checks are ours
        for phase, handler in handlers.items():
            if inspect.iscoroutinefunction(handler):
                raise SpecError("a plain function is wanted, since nobody here awaits an async one", self.name, phase)
        routes = dict(handlers)

        def route(*args: Any, **kwargs: Any) -> Any:
            return routes[self.current_phase()](*args, **kwargs)

        if record_as is None:
            return functools.wraps(next(iter(routes.values())))(route)
        calls = PhasedCalls(self.journal, record_as, self.spec.order)

        def recorded_route(*args: Any, **kwargs: Any) -> Any:
            while True:  # as in Migration.by_phase
                with calls.begin() as recording:
                    phase = self.current_phase()
                calls.runs_under(recording, phase)
                with recording:
                    if recording.keep_start() and self.current_phase() != phase:
                        continue
                    return recording.answered(routes[phase](*args, **kwargs))

        return functools.wraps(next(iter(routes.values())))(recorded_route)
