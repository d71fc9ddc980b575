"""A migration without an event loop carries the type of the phases, and what is opened and run its own."""

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Literal

from typing_extensions import assert_never, assert_type

from phyxius import Advanced, AdvanceError, Migration, MigrationSpec, Readiness, Result
from phyxius.adapters.sqlite import FileStores, open_file_stores
from phyxius.blocking import SyncMigration, keep_open, opened, run

Phase = Literal["expand", "flip"]


class Step(StrEnum):
    EXPAND = "expand"
    FLIP = "flip"


def read(key: str) -> int:
    return 1


async def answer() -> bytes:
    return b""


def use(of_literals: Migration[Phase], of_enum: Migration[Step]) -> None:
    migration, steps = SyncMigration(of_literals), SyncMigration(of_enum)
    assert_type(migration, SyncMigration[Phase])
    assert_type(migration.spec, MigrationSpec[Phase])
    assert_type(migration.current_phase(), Phase)
    assert_type(steps.current_phase(), Step)
    assert_type(migration.advance(to="flip"), Result[Advanced[Phase], AdvanceError[Phase]])
    assert_type(migration.readiness(), Readiness[Phase])
    get = migration.by_phase({"expand": read, "flip": read})
    assert_type(get("q"), int)
    assert_type(steps.by_phase({Step.EXPAND: read, Step.FLIP: read})(key="q"), int)
    match migration.current_phase():
        case "expand" | "flip":
            pass
        case _ as phase:
            assert_never(phase)


def open_them() -> None:
    assert_type(run(answer()), bytes)
    assert_type(opened(open_file_stores("a.db")), AbstractContextManager[FileStores])
    assert_type(keep_open(open_file_stores("a.db")), FileStores)
    with opened(open_file_stores("a.db")) as stores:
        assert_type(stores, FileStores)
