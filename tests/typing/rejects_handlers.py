"""Wrong phases, wrong signatures and wrong calls around handlers."""

from datetime import timedelta
from enum import StrEnum
from typing import Literal

from phyxius import (
    HandlerEvent,
    Instant,
    Journal,
    Migration,
    create_controlled_clock,
    dual_write,
    observe,
    recorded,
    shadow,
)

Phase = Literal["expand", "contract"]
journal = Journal(clock=create_controlled_clock())


class Step(StrEnum):
    EXPAND = "expand"
    CONTRACT = "contract"


async def read(key: str) -> int:
    return 1


async def read_by_number(key: int) -> int:
    return key


async def read_both(key: str, other: str) -> int:
    return 1


async def read_text(key: str) -> str:
    return key


def count(key: str) -> int:
    return 1


# -- by_phase


async def routed(migration: Migration[Phase], steps: Migration[Step]) -> None:
    migration.by_phase({"expand": read, "contrcat": read})  # E: mypy, pyright
    migration.by_phase({"expand": read, "contract": read, "flip": read})  # E: mypy, pyright
    steps.by_phase({"expand": read, "contract": read})  # E: mypy, pyright
    migration.by_phase({"expand": read, "contract": read_by_number})  # E: mypy, pyright
    migration.by_phase({"expand": read, "contract": read_both})  # E: mypy, pyright
    migration.by_phase({"expand": read, "contract": 1})  # E: mypy, pyright
    migration.by_phase({"expand": read, "contract": read("q")})  # E: mypy, pyright
    migration.by_phase(expand=read, contract=read)  # E: mypy, pyright
    migration.by_phase([read, read])  # E: mypy, pyright
    migration.by_phase(handlers={"expand": read, "contract": read})  # E: mypy, pyright
    get = migration.by_phase({"expand": read, "contract": read})
    await get(1)  # E: mypy, pyright
    await get()  # E: mypy, pyright
    await get("q", "r")  # E: mypy, pyright
    await get(kye="q")  # E: mypy, pyright
    get("q")  # E: mypy, pyright
    unawaited: int = get("q")  # E: mypy, pyright
    text: str = await get("q")  # E: mypy, pyright
    plain = migration.by_phase({"expand": count, "contract": count})
    still_async: int = plain("q")  # E: mypy, pyright
    mixed_answers: int = await migration.by_phase({"expand": read, "contract": read_text})("q")  # E: mypy, pyright


# -- recorded


@recorded(journal, "quote.read")
async def recorded_read(key: str) -> int:
    return 1


@recorded(journal, "quote.count")
def recorded_count(key: str) -> int:
    return 1


@recorded  # E: mypy, pyright
async def without_arguments(key: str) -> int:
    return 1


@recorded(journal)  # E: mypy, pyright
async def without_a_name(key: str) -> int:
    return 1


class Service:
    @recorded(journal, "service.read")
    async def read(self, key: str) -> int:
        return 1


async def recorded_calls(service: Service) -> None:
    await recorded_read(1)  # E: mypy, pyright
    recorded_read("q")  # E: mypy, pyright
    await recorded_count("q")  # E: mypy, pyright
    await service.read()  # E: mypy, pyright
    text: str = await service.read("q")  # E: mypy, pyright
    recorded("quote.read", journal)  # E: mypy, pyright
    recorded(journal, "quote.read", observed=["rows"])  # E: mypy, pyright
    observe({"rows": 1})  # E: mypy, pyright
    async with recorded(journal, "quote.read"):  # E: mypy, pyright
        pass
    with recorded(journal, "quote.read") as call:
        call.observde["rows"] = 1  # E: mypy, pyright
        call.observed[1] = 1  # E: mypy, pyright


# -- shadow (where the two sides differ, mypy solves the parameters of `shadow` to `Never` or `Any`)

shadow(journal, "p", old=read, new=read_by_number)  # E: pyright
shadow(journal, "p", old=read, new=read_both)  # E: pyright
shadow(journal, "p", old=read)  # E: mypy, pyright
shadow(journal, "p", read, read)  # E: mypy, pyright
shadow(journal, "p", old=read, new=read, compare=lambda old: True)  # E: mypy, pyright
shadow(journal, "p", old=read, new=read, compare=lambda old, new: "same")  # E: mypy, pyright
shadow(journal, "p", old=read, new=read, sample="10%")  # E: mypy, pyright
shadow(journal, "p", old=read, new=read, timeout=5)  # E: mypy, pyright
shadowed = shadow(journal, "p", old=read, new=read_text)


async def shadowed_calls() -> None:
    await shadowed(1)  # E: mypy, pyright
    text: str = await shadowed("q")  # E: mypy, pyright
    shadowed("q")  # E: mypy, pyright


# -- events


def events(at: Instant) -> None:
    HandlerEvent("quote.read", "failed", at)  # E: mypy, pyright
    HandlerEvent("quote.read", "success")  # E: mypy, pyright
    HandlerEvent("quote.read", "success", 1_700_000_000)  # E: mypy, pyright
    HandlerEvent("quote.read", "success", at, observed={1: 1}).outcome = "failure"  # E: mypy, pyright
    HandlerEvent("quote.read", "success", at, duration=timedelta(seconds=1))  # E: mypy, pyright
    HandlerEvent("quote.read", "success", at).observed["rows"] = 1  # E: mypy, pyright


# -- dual_write

dual_write(journal, "p", authoritative=read)  # E: mypy, pyright
dual_write(journal, "p", authoritative=read, secondary=read_by_number)  # E: pyright
dual_write(journal, "p", authoritative=read, secondary=read, on_failure="ignore")  # E: mypy, pyright
dual_write(journal, "p", authoritative=read, secondary=read, rejections=(int,))  # E: mypy, pyright
written: int = dual_write(journal, "p", authoritative=count, secondary=count)(1)  # E: mypy, pyright
