"""The web application: customers with a name, in a database whose column is being renamed."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import sqlalchemy as sa
from fastapi import FastAPI, HTTPException

from gate import customers, engine, journal, migration, stores
from phyxius import recorded, shadow

T = TypeVar("T")
NAME = f"shop-{socket.gethostname()}-{os.getpid()}"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the stores, and record, for as long as this worker lives."""
    async with stores, stores.recorder(journal, name=NAME, durable=["customer.read_name"]):
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def read(column: str, number: int) -> str | None:
    """The name of a customer, from one column or the other."""
    async with engine.connect() as connection:
        answer = await connection.execute(sa.select(customers.c[column]).where(customers.c.id == number))
        return answer.scalar_one_or_none()


async def write(columns: list[str], name: str, number: int | None = None) -> int | None:
    """Give a customer a name, a new one or one that is there, in one column or in both."""
    values = dict.fromkeys(columns, name)
    statement = (
        sa.insert(customers).values(values).returning(customers.c.id)
        if number is None
        else sa.update(customers).values(values).where(customers.c.id == number).returning(customers.c.id)
    )
    async with engine.begin() as connection:
        return (await connection.execute(statement)).scalar_one_or_none()


read_name = recorded(journal, "customer.read_name")(partial(read, "name"))
read_full_name = partial(read, "full_name")
compare_reads = shadow(journal, "customer.read.parity", old=read_name, new=read_full_name)

write_name = partial(write, ["name"])
write_both = partial(write, ["name", "full_name"])
write_full_name = partial(write, ["full_name"])

read_customer = migration.by_phase(
    {
        "expand": read_name,
        "dual_write": compare_reads,
        "flip": read_full_name,
        "contract": read_full_name,
        "drop": read_full_name,
    }
)
write_customer = migration.by_phase(
    {
        "expand": write_name,
        "dual_write": write_both,
        "flip": write_both,
        "contract": write_full_name,
        "drop": write_full_name,
    },
    record_as="customer.write",
)


@app.post("/customers", status_code=201)
async def create(name: str) -> dict[str, int | None]:
    """Make a customer."""
    return {"id": await write_customer(name)}


@app.get("/customers/{number}")
async def get(number: int) -> dict[str, str]:
    """Tell a customer's name."""
    return {"name": _found(await read_customer(number))}


@app.put("/customers/{number}")
async def rename(number: int, name: str) -> dict[str, int]:
    """Give a customer another name."""
    return {"id": _found(await write_customer(name, number))}


def _found(answer: T | None) -> T:
    if answer is None:
        raise HTTPException(404, "there is no such customer")
    return answer
