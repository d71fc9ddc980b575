"""Which calls ran under a phase, for the `where` of a query."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import attrs

from phyxius.handler import HandlerEvent, NotYetObservedError
from phyxius.migration._errors import SpecError
from phyxius.migration._wording import listed, plain


@attrs.frozen
class RanUnder:
    """Whether a call ran under one of some phases; a class, so that `define_migration` knows it."""

    phases: tuple[str, ...]
    is_other: bool

    def __str__(self) -> str:
        return f"they ran under {listed(self.phases)}"

    def __call__(self, event: HandlerEvent) -> bool:
        """Judge an event, or a call in flight; one that does not say under which phase it ran counts as yes."""
        try:
            return event.observed.get("phase", self.phases[0]) in self.phases
        except NotYetObservedError:
            possible = event.observed["may_run_under"]
            return not isinstance(possible, list | tuple) or not set(self.phases).isdisjoint(possible)

    def problem(self, order: Iterable[str]) -> str | None:
        """What is wrong, if a phase is not there: nothing would ever run under it, which would pass for silence."""
        known = list(map(plain, order))
        unknown = [phase for phase in self.phases if phase not in known]
        return f"ran_under() needs phases of {known}, not {unknown}" if unknown else None


def ran_under(*phases: str, of: Collection[str] | None = None) -> Callable[[HandlerEvent], bool]:
    """A `where` for calls that `by_phase(..., record_as=...)` recorded: those that ran under one of these phases.

        journal_window(JournalQuery("quote.save", where=ran_under("expand")), timedelta(days=1), no_events())

    Give it as `where` itself: inside of another function nobody checks its phases, unless `of` is given.

    A call that has not read its phase yet counts as one of them if it may come to run under one; so does a call that
    was recorded in another way.

    Args:
        phases: The phases.
        of: All phases that there are, such as `spec.phases`, where they are those of another migration than the one
            that the evidence is for.

    Raises:
        SpecError: No phase at all, or one that the migration does not have; without `of` that shows in
            `define_migration`.
    """
    if not phases or not all(isinstance(phase, str) and phase for phase in phases):
        raise SpecError(f"ran_under() needs names of phases, not {phases!r}")
    where = RanUnder(tuple(map(plain, phases)), is_other=of is not None)
    if of is not None and (problem := where.problem(of)):
        raise SpecError(problem)
    return where
