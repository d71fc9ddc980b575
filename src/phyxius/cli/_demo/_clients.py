"""Those who buy from the shop: what they ask, and what they were told was saved."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, TypeAlias

from phyxius.cli._demo._process import Process

Row: TypeAlias = tuple[int, str, str]
"""The number of a quote, its customer, and its total, such as "19.99"."""


class Clients:
    """All clients of the shop. They remember what it accepted, and take it at its word.

    Attributes:
        accepted: What the shop said it has saved, by number.
        served: How many requests it answered as it should.
        failures: What went wrong with the others.
        repeated: How many it did not answer, and was asked again.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.accepted = {row[0]: row for row in rows}
        self.served = 0
        self.failures: list[str] = []
        self.repeated = 0
        self._waiting: dict[int, tuple[str, Row]] = {}
        self._asked = 0
        self._random = random.Random(1)  # noqa: S311 - no secret; the same story each time

    @property
    def waiting(self) -> int:
        """How many requests are under way."""
        return len(self._waiting)

    def save(self, process: Process, count: int) -> None:
        """Save new quotes, and as many old ones at another price."""
        saved = {row[0] for _, row in self._waiting.values()}
        new = max([*self.accepted, *saved]) + 1
        for number in range(new, new + count):
            self._ask(process, "save", (number, f"customer {number % 97}", self._price()))
        for number in self._some(count):
            self._ask(process, "save", (number, self.accepted[number][1], self._price()))

    def read(self, process: Process, count: int, reader: str = "read") -> None:
        """Read quotes."""
        for number in self._some(count):
            self._ask(process, reader, self.accepted[number])

    def ask_again(self, process: Process) -> int:
        """Repeat what got no answer; how many requests those are."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self.repeated += len(waiting)
        for kind, row in waiting:
            self._ask(process, kind, row)
        return len(waiting)

    def hear(self, message: dict[str, Any]) -> None:
        """Take a message; the answer to a read has to be what was accepted."""
        if "key" not in message:
            return
        kind, row = self._waiting.pop(message["key"])
        if "error" in message:
            self.failures.append(f"{kind} quote {row[0]}: {message['error']}")
            return
        if (answer := tuple(message["row"])) != row:
            self.failures.append(f"{kind} quote {row[0]}: {answer}, and {row} was accepted")
            return
        self.served += 1
        if kind == "save":
            self.accepted[row[0]] = row

    def _ask(self, process: Process, kind: str, row: Row) -> None:
        self._asked += 1
        self._waiting[self._asked] = kind, row
        process.send(request=[self._asked, kind, row])

    def _some(self, count: int) -> list[int]:
        """Quotes that nobody saves meanwhile."""
        saved = {row[0] for _, row in self._waiting.values()}
        return self._random.sample([number for number in self.accepted if number not in saved], count)

    def _price(self) -> str:
        return f"{self._random.randrange(500)}.{self._random.randrange(100):02}"

    def stored_as(self) -> list[tuple[int, str, int]]:
        """The rows that the new table must have now."""
        rows = sorted(self.accepted.values())
        return [(number, customer, int(Decimal(total) * 100)) for number, customer, total in rows]


def checksum(rows: Iterable[tuple[Any, ...]]) -> str:
    """One value for all rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row}\n".encode())
    return digest.hexdigest()
