"""A FastAPI application that lives through a migration."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request, Response

from phyxius import (
    Err,
    Journal,
    JournalQuery,
    MigrationSpec,
    Ok,
    Result,
    correlated,
    create_migration,
    define_migration,
    err,
    journal_window,
    no_events,
    ok,
    ran_under,
    schema_applied,
)
from phyxius.adapters.sqlite import open_file_stores

Phase = Literal["expand", "dual_write", "flip"]

stores = open_file_stores(os.environ["MIGRATIONS"])  # for a fleet open_stores(url); neither opens anything yet
journal = Journal(clock=stores.clock)
quotes: dict[int, int] = {}  # these stand for two tables
sales_documents: dict[int, int] = {}


@schema_applied
async def copied() -> Result[dict[str, int], str]:
    """Whether each quote is a sales document; of tables ask by a query, such as `no_rows`."""
    missing = {number for number, total in quotes.items() if sales_documents.get(number) != total}
    return err(f"{len(missing)} quotes are not copied; POST /copy") if missing else ok({"quotes": len(quotes)})


spec: MigrationSpec[Phase] = define_migration(
    name="quote-to-sales-document",
    phases={
        "expand": {},
        "dual_write": {},
        "flip": {
            "copied": copied,
            "nobody_writes_old_only": journal_window(
                JournalQuery("quote.save", where=ran_under("expand")), timedelta(days=1), no_events()
            ),
        },
    },
)
migration = create_migration(
    spec, journal=journal, journal_store=stores.journal_store, phase_store=stores.phase_store(spec)
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the stores, and record, for as long as this worker lives."""
    async with stores, stores.recorder(journal, name=f"api-{os.getpid()}", durable=["quote.save"]):
        yield


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def correlate(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Give all that a request records its id."""
    with correlated(request.headers.get("x-request-id")) as correlation_id:
        response = await call_next(request)
    response.headers["x-request-id"] = correlation_id
    return response


async def write_old(number: int, total: int) -> None:
    """What `expand` does."""
    quotes[number] = total


async def write_both(number: int, total: int) -> None:
    """What the other phases do; in a database it is one transaction."""
    quotes[number] = sales_documents[number] = total


save_quote = migration.by_phase(
    {"expand": write_old, "dual_write": write_both, "flip": write_both}, record_as="quote.save"
)


@app.put("/quotes/{number}")
async def put_quote(number: int, total: int) -> None:
    """Save a quote, as the phase wants it."""
    await save_quote(number, total)


async def read_phase() -> Phase:
    """The phase at this moment; FastAPI asks once for each request."""
    return await migration.current_phase()


CurrentPhase = Annotated[Phase, Depends(read_phase)]


@app.get("/quotes/{number}")
async def get_quote(number: int, phase: CurrentPhase) -> dict[str, int]:
    """Read a quote, from where the phase wants it."""
    match phase:
        case "expand" | "dual_write":
            return {"total": quotes[number]}
        case "flip":
            return {"total": sales_documents[number]}


@app.get("/report")
def report(phase: CurrentPhase) -> dict[str, int]:
    """Add all quotes up. A plain function runs in a thread, and gets the phase in the same way."""
    table = sales_documents if phase == "flip" else quotes
    return {"total": sum(table.values())}


@app.post("/copy")
async def copy(phase: CurrentPhase) -> dict[str, int]:
    """Copy what was there before both tables were written; later on the new one is the newer."""
    if phase == "dual_write":
        sales_documents.update(quotes)
    return {"copied": len(sales_documents)}


@app.post("/migration/{to}")  # behind your own authorization
async def press(to: Phase, response: Response) -> dict[str, str]:
    """Take the next step, or say why not."""
    match await migration.advance(to=to):
        case Ok(advanced):
            return {"phase": advanced.to_phase}
        case Err(refusal):
            response.status_code = 409
            return {"refused": refusal.message}
