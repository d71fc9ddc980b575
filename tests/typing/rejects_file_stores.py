"""Misuse of the stores in a file."""

from typing import Literal

from phyxius import Journal, MigrationSpec, create_system_clock, define_migration
from phyxius.adapters.sqlite import FileStoreError, open_file_stores

Phase = Literal["expand", "flip"]
spec: MigrationSpec[Phase] = define_migration(name="quotes", phases={"expand": {}, "flip": {}})
stores = open_file_stores("migrations.db")
journal = Journal(clock=create_system_clock())

open_file_stores(42)  # E: mypy, pyright
open_file_stores("m.db", 5)  # E: mypy, pyright
open_file_stores("m.db", lock_timeout=5)  # E: mypy, pyright
stores.phase_store(spec, initial="fliped")  # E: mypy, pyright
stores.phase_store("quotes")  # E: mypy, pyright
stores.recorder(journal)  # E: mypy, pyright
stores.recorder(journal, "api")  # E: mypy, pyright
stores.recorder(journal, name="api", durable=True)  # E: mypy, pyright
stores.recorder(journal, name="api", lease=30)  # E: mypy, pyright
stores.attestations.signed_off("ada")  # E: mypy, pyright
stores.attestations.signed_off(valid_for=7)  # E: mypy, pyright

with open_file_stores("m.db"):  # E: mypy, pyright
    pass


async def misuse() -> None:
    store = stores.phase_store(spec)
    await store.amend(spec)  # E: mypy, pyright
    await store.amend(spec, "ada", "because")  # E: mypy, pyright
    await stores.attestations.sign(spec, to="fliped", source="signed", signer="ada")  # E: mypy, pyright
    await stores.attestations.sign(spec, to="flip", source="signed")  # E: mypy, pyright
    await stores.attestations.revoke(spec, to="fliped", source="signed", signer="ada")  # E: mypy, pyright
    await stores.journal_store.prune(90)  # E: mypy, pyright
    await stores.journal_store.query("quote.read")  # E: mypy, pyright


def explain(error: FileStoreError) -> None:
    if error.problem == "mising":  # E: mypy, pyright
        raise error
