"""Misuse of the stores on a server."""

from typing import Literal

from sqlalchemy import create_engine

from phyxius import Journal, MigrationSpec, create_system_clock, define_migration
from phyxius.adapters.sqlalchemy import ServerStoreError, create_schema, metadata_for, open_stores

Phase = Literal["expand", "flip"]
spec: MigrationSpec[Phase] = define_migration(name="quotes", phases={"expand": {}, "flip": {}})
stores = open_stores("postgresql+asyncpg://host/db")
journal = Journal(clock=create_system_clock())

open_stores(42)  # E: mypy, pyright
open_stores(create_engine("sqlite://"))  # E: mypy, pyright
open_stores("url", "prefix_")  # E: mypy, pyright
open_stores("url", timeout=5)  # E: mypy, pyright
open_stores("url", time="host")  # E: mypy, pyright
metadata_for("prefix_")  # E: mypy, pyright
stores.phase_store(spec, initial="fliped")  # E: mypy, pyright
stores.phase_store("quotes")  # E: mypy, pyright
stores.recorder(journal)  # E: mypy, pyright
stores.recorder(journal, "api")  # E: mypy, pyright
stores.recorder(journal, name="api", durable=True)  # E: mypy, pyright
stores.recorder(journal, name="api", lease=30)  # E: mypy, pyright
stores.attestations.signed_off("ada")  # E: mypy, pyright
stores.attestations.signed_off(valid_for=7)  # E: mypy, pyright

with open_stores("url"):  # E: mypy, pyright
    pass


async def misuse() -> None:
    await create_schema(create_engine("sqlite://"))  # E: mypy, pyright
    store = stores.phase_store(spec)
    await store.amend(spec)  # E: mypy, pyright
    await store.amend(spec, "ada", "because")  # E: mypy, pyright
    await stores.attestations.sign(spec, to="fliped", source="signed", signer="ada")  # E: mypy, pyright
    await stores.attestations.sign(spec, to="flip", source="signed")  # E: mypy, pyright
    await stores.attestations.revoke(spec, to="fliped", source="signed", signer="ada")  # E: mypy, pyright
    await stores.journal_store.prune(90)  # E: mypy, pyright
    await stores.journal_store.query("quote.read")  # E: mypy, pyright


def explain(error: ServerStoreError) -> None:
    if error.problem == "mising":  # E: mypy, pyright
        raise error
