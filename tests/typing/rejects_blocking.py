"""Wrong phases and wrong signatures around a migration without an event loop, and what cannot be run or opened."""

from typing import Literal

from phyxius import Migration
from phyxius.blocking import SyncMigration, opened, run

Phase = Literal["expand", "flip"]


def read(key: str) -> int:
    return 1


def read_by_number(key: int) -> int:
    return key


async def answer() -> bytes:
    return b""


def use(migration: SyncMigration[Phase], asynchronous: Migration[Phase]) -> None:
    SyncMigration(migration)  # E: mypy, pyright
    migration.advance(to="contract")  # E: mypy, pyright
    migration.by_phase({"expand": read, "flpi": read})  # E: mypy, pyright
    migration.by_phase({"expand": read, "flip": read_by_number})  # E: mypy, pyright
    migration.by_phase({"expand": read, "flip": read}, record_as=7)  # E: mypy, pyright
    get = migration.by_phase({"expand": read, "flip": read}, record_as="quote.read")
    get(1)  # E: mypy, pyright
    text: str = get("q")  # E: mypy, pyright
    if migration.current_phase() == "contract":  # E: mypy, pyright
        pass
    run(answer)  # E: mypy, pyright
    number: int = run(answer())  # E: mypy, pyright
    opened(open("a.db"))  # E: mypy, pyright
