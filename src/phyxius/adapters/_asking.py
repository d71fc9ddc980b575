"""What all have in common that ask a user's own databases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from phyxius.fp import Err, Result, err, ok
from phyxius.migration import EvidenceFailure

Found: TypeAlias = Mapping[str, object]
Answers: TypeAlias = Mapping[str, Found]

# Whether it is a replica, or an administrator lets nobody write.
POSTGRESQL_READ_ONLY = "pg_is_in_recovery()"
# Newer ones have words where others have a number. The second is how a shared storage tells its readers.
MYSQL_READ_ONLY = "CAST(@@global.read_only AS CHAR) NOT IN ('0', 'OFF') OR @@global.innodb_read_only"


class NotAskedError(Exception):
    """A database could not be asked; the message names it, and says why."""


def all_of(answers: Sequence[tuple[str, Result[Found, str]]]) -> Result[Answers, EvidenceFailure]:
    """`Ok` with what each database answered, or else which of them are in the way, and why."""
    failures = {place: answer.error for place, answer in answers if isinstance(answer, Err)}
    if failures:
        reasons = "; ".join(f"{place}: {reason}" for place, reason in failures.items())
        return err(EvidenceFailure(reasons, {"failures": failures}))
    return ok({place: answer.value for place, answer in answers if not isinstance(answer, Err)})
