"""The clients of the demonstration's shop: they hold it to what it said."""

from __future__ import annotations

from typing import Any

import pytest

from phyxius.cli._demo._clients import Clients, checksum


class Heard:
    """A process that takes what it is sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def send(self, request: Any) -> None:
        self.requests.append(request)


@pytest.fixture
def shop() -> Any:
    return Heard()


def test_what_is_accepted_is_remembered(shop: Any) -> None:
    """New quotes get numbers of their own, and only an answer makes them count."""
    clients = Clients([(1, "ada", "19.99")])
    clients.save(shop, 1)
    new, old = shop.requests
    assert (new[1], new[2][0], old[2][:2]) == ("save", 2, (1, "ada"))
    assert clients.accepted == {1: (1, "ada", "19.99")}
    clients.hear({"copied": 500})
    for key, _, row in shop.requests:
        clients.hear({"key": key, "row": list(row)})
    assert clients.accepted == {1: old[2], 2: new[2]}
    assert (clients.served, clients.waiting, clients.failures) == (2, 0, [])
    cents = clients.stored_as()
    assert [f"{number} {amount / 100:.2f}" for number, _, amount in cents] == [f"1 {old[2][2]}", f"2 {new[2][2]}"]
    assert checksum(cents) != checksum(reversed(cents))


def test_what_gets_no_answer_is_asked_again(shop: Any) -> None:
    """The same, under another key; nobody else saves that quote meanwhile."""
    clients = Clients([(1, "ada", "19.99"), (2, "bob", "0.10")])
    clients.save(shop, 1)
    first = list(shop.requests)
    assert clients.ask_again(shop) == clients.repeated == 2
    again = shop.requests[2:]
    assert [request[1:] for request in again] == [request[1:] for request in first]
    clients.read(shop, 1)
    assert shop.requests[-1][2][0] != first[1][2][0]


@pytest.mark.parametrize(
    "answer, told",
    [
        ({"error": "OSError()"}, "read quote 1: OSError()"),
        ({"row": [1, "ada", "19.98"]}, "read quote 1: (1, 'ada', '19.98'), and (1, 'ada', '19.99') was accepted"),
    ],
    ids=["error", "row"],
)
def test_what_goes_wrong_is_counted(shop: Any, answer: dict[str, Any], told: str) -> None:
    """An error, and another row than was accepted."""
    clients = Clients([(1, "ada", "19.99")])
    clients.read(shop, 1)
    clients.hear({"key": shop.requests[0][0], **answer})
    assert clients.served == 0
    assert clients.failures == [told]
