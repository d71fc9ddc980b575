"""What the migration floor raises. Refusals of `advance()` are no exceptions: see `AdvanceError`."""

from __future__ import annotations

from datetime import timedelta

import attrs

from phyxius.migration._wording import OTHER_ORDER, listed, span


@attrs.define(eq=False, slots=False)
class SpecError(ValueError):
    """A migration is defined or put together in a way that cannot be right.

    Attributes:
        problem: What is wrong, and what to write instead.
        migration: The migration's name, where it is known.
        phase: The phase, where it is known.
        source: The evidence source, where it is known.
    """

    problem: str
    migration: str | None = None
    phase: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        places = {"migration": self.migration, "phase": self.phase, "source": self.source}
        where = ", ".join(f'{kind} "{name}"' for kind, name in places.items() if name is not None)
        return f"{where}: {self.problem}" if where else self.problem


@attrs.define(eq=False, slots=False)
class UnknownPhaseError(Exception):
    """The store answered with a phase that the spec does not have; no phase is guessed in its place.

    Attributes:
        migration: The migration's name.
        phase: What the store answered.
        declared: The phases of the spec, in order.
    """

    migration: str
    phase: object
    declared: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f'the store of migration "{self.migration}" answered with the phase {self.phase!r}, but its spec has '
            f"{listed(self.declared)}; run the build whose spec has that phase, or mend the spec"
        )


@attrs.define(eq=False, slots=False)
class SpecChangedError(Exception):
    """A store recorded another order of phases than the spec declares.

    Attributes:
        recorded: The phases as the store has them.
        declared: The phases of the spec.
    """

    recorded: tuple[str, ...]
    declared: tuple[str, ...]

    @property
    def difference(self) -> str:
        """Both orders, in words."""
        return f"the store recorded the phases {listed(self.recorded)}, but the spec declares {listed(self.declared)}"

    def __str__(self) -> str:
        return f"{self.difference}; {OTHER_ORDER}"


@attrs.define(eq=False, slots=False)
class AttemptFencedError(Exception):
    """`resolve` has said of this attempt that it never committed, so it may not commit any more.

    Attributes:
        attempt: The id of the attempt.
    """

    attempt: str

    def __str__(self) -> str:
        return f"attempt {self.attempt} was resolved as not committed and can never commit; advance() again"


@attrs.define(eq=False, slots=False)
class WrongShapeError(TypeError):
    """A check, a predicate or a store answered with something that is no answer.

    Attributes:
        came: What came.
        wanted: What was wanted.
    """

    came: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.came} came, where {self.wanted} was wanted"


@attrs.define(eq=False, slots=False)
class CheckCancelledError(Exception):
    """A check raised what is no `Exception`: a `CancelledError` of its own, most likely.

    Attributes:
        raised: What it raised, as text; the exception itself is the `__cause__`.
    """

    raised: str

    def __str__(self) -> str:
        return f"the check raised {self.raised}, although nobody had cancelled it"


@attrs.define(eq=False, slots=False)
class EvidenceOvertakenError(Exception):
    """What the sources said is too old to commit to, so nothing was committed.

    Attributes:
        idle: For how long nobody was asked before the step.
        most: For how long that may be.
    """

    idle: timedelta
    most: timedelta

    def __str__(self) -> str:
        return (
            f"nobody was asked for {span(self.idle)} before the step, and {span(self.most)} is the most: the event loop"
            " or the machine stood still, its clock was set, or the store waited for a lock; ask again"
        )


class MemoryPhaseStoreWarning(UserWarning):
    """A migration that runs in real time keeps its phase in memory: it is lost at exit, and not shared."""
