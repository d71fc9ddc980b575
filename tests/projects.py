"""Real Alembic projects."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from phyxius.adapters.alembic import at_revision
from phyxius.fp import Ok
from phyxius.migration import EvidenceFailure

ENV = """
from alembic import context
from sqlalchemy import NullPool, create_engine

with create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=NullPool).connect() as connection:
    context.configure(connection=connection, version_table="versions")
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
"""


class Project:
    """An Alembic project with a database of its own."""

    def __init__(self, directory: Path, url: str) -> None:
        directory.mkdir(exist_ok=True)
        self.scripts, self.ini, self.engine = directory / "migrations", directory / "alembic.ini", sa.create_engine(url)
        self.config = Config(str(self.ini), stdout=io.StringIO())
        command.init(self.config, str(self.scripts))
        (self.scripts / "env.py").write_text(ENV)
        self.config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))

    def add(self, revision: str, *after: str, **more: Any) -> None:
        command.revision(self.config, revision, head=list(after) or "base", rev_id=revision, splice=True, **more)

    def upgrade(self, to: str) -> None:
        command.upgrade(self.config, to)

    def asked(self, revision: str, engine: Any = None, **more: Any) -> str | Any:
        """The payload, or why not."""
        given = {"script_location": self.scripts, "version_table": "versions", **more}
        evidence = at_revision(self.engine if engine is None else engine, revision, **given)
        answer: Any = asyncio.run(evidence.check())  # type: ignore[arg-type]
        if type(answer) is Ok:
            return next(iter(answer.value.values()))
        assert isinstance(answer.error, EvidenceFailure)
        return answer.error.reason.partition(": ")[2]
