"""Runs the revisions on DATABASE_URL, one transaction each."""

from __future__ import annotations

import asyncio
import os

import sqlalchemy as sa
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine


def run(connection: sa.Connection) -> None:
    """Run what is asked for."""
    connection.exec_driver_sql("SET lock_timeout = '2s'")  # a change that has to wait must not make all others wait
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Connect."""
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(main())
