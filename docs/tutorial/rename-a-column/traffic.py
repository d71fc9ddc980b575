"""Stands for your users: python traffic.py URL. Ctrl-C ends it, and it tells what it has been answered.

Each thread has customers of its own, and knows what they are called, so it notices every wrong answer.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import signal
import sys
import threading
from typing import Any
from urllib.parse import quote, urlsplit


class User(threading.Thread):
    """One client, with one connection that it keeps."""

    def __init__(self, number: int, address: str, customers: int) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.names: dict[int, str] = {}
        self.requests = 0
        self.failures: list[str] = []
        self._customers = customers
        self._random = random.Random(number)
        self._connection = http.client.HTTPConnection(address, timeout=30)

    def run(self) -> None:
        """Make some customers, and then read and rename them, and make new ones, until the end; then read them all."""
        while len(self.names) < self._customers and not stopping.is_set():
            self.create()
        ready.release()
        while not stopping.is_set():
            kind = self._random.random()
            if kind < 0.05:
                self.create()
            elif kind < 0.35:
                self.rename(self._random.choice(list(self.names)))
            else:
                self.check(self._random.choice(list(self.names)))
        for number in self.names:
            self.check(number)

    def create(self) -> None:
        """Make a customer."""
        name = f"Zoë {self.number}-{self.requests}"
        if made := self._ask("POST", f"/customers?name={quote(name)}"):
            self.names[made["id"]] = name

    def rename(self, number: int) -> None:
        """Give one another name."""
        name = f"Ada {self.number}-{self.requests}"
        if self._ask("PUT", f"/customers/{number}?name={quote(name)}"):
            self.names[number] = name

    def check(self, number: int) -> None:
        """Read one, which has to be called as it was called last."""
        found = self._ask("GET", f"/customers/{number}").get("name")
        if found != self.names[number]:
            self.failures.append(f"customer {number} is {self.names[number]!r}, and was read as {found!r}")

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        self.requests += 1
        try:
            self._connection.request(method, path)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.failures.append(f"{method} {path}: {error!r}")
            return {}
        if answer.status >= 300:
            self.failures.append(f"{method} {path}: {answer.status} {body[:200]!r}")
            return {}
        return json.loads(body)  # type: ignore[no-any-return]


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--users", type=int, default=4)
parser.add_argument("--customers", type=int, default=200, help="how many there are at the start")
options = parser.parse_args()

stopping, ready = threading.Event(), threading.Semaphore(0)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopping.set())
address = urlsplit(options.url).netloc
users = [User(number, address, options.customers // options.users) for number in range(options.users)]
for user in users:
    user.start()
for _ in users:
    ready.acquire()
print(f"{options.customers // options.users * options.users} customers; Ctrl-C ends it", flush=True)
while not stopping.wait(1):  # so that Ctrl-C is noticed
    pass
for user in users:
    user.join()

failures = [failure for user in users for failure in user.failures]
rows = sorted(row for user in users for row in user.names.items())
digest = hashlib.sha256(repr(rows).encode()).hexdigest()
print(f"{sum(user.requests for user in users)} requests, {len(failures)} of them failed or were answered wrongly")
print(f"{len(rows)} customers, sha256 of their ids and names {digest[:16]}")
for failure in failures[:10]:
    print(failure)
sys.exit(bool(failures))
