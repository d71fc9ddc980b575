"""What wraps a function keeps its signature: `by_phase`, `recorded`, `shadow`."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from typing_extensions import assert_type

from phyxius import (
    HandlerEvent,
    Journal,
    Migration,
    Recording,
    SecondaryWriteError,
    correlated,
    create_controlled_clock,
    current_correlation_id,
    dual_write,
    event_serializer,
    observe,
    recorded,
    shadow,
)

journal = Journal(clock=create_controlled_clock())


class Quote:
    def __init__(self, total: int) -> None:
        self.total = total


# -- by_phase

Route = Callable[[Quote], Awaitable[int]]
Phase = Literal["expand", "dual_write", "contract"]


async def write_old(quote: Quote, *, user: str = "ada") -> int:
    return quote.total


async def write_both(quote: Quote, *, user: str = "ada") -> int:
    return quote.total


def write_plain(quote: Quote, *, user: str = "ada") -> int:
    return quote.total


def write_later(quote: Quote, *, user: str = "ada") -> Awaitable[int]:
    return write_both(quote, user=user)


async def routed(migration: Migration[Phase], quote: Quote) -> None:
    write = migration.by_phase({"expand": write_old, "dual_write": write_both, "contract": write_both})
    assert_type(await write(quote), int)
    assert_type(await write(quote, user="eve"), int)
    as_annotated: Callable[[Quote], Coroutine[Any, Any, int]] = write
    as_awaitable: Callable[[Quote], Awaitable[int]] = write
    assert_type(await asyncio.create_task(write(quote)), int)

    all_plain = migration.by_phase({"expand": write_plain, "dual_write": write_plain, "contract": write_plain})
    assert_type(await all_plain(quote, user="eve"), int)

    awaitables = migration.by_phase({"expand": write_later, "dual_write": write_later, "contract": write_later})
    assert_type(await awaitables(quote, user="eve"), int)

    # A mix of async and plain: mypy joins the values of a dict to `object` unless the result is annotated.
    mixed: Route = migration.by_phase({"expand": write_old, "dual_write": write_plain, "contract": write_both})
    assert_type(await mixed(quote), int)

    plain_first: Callable[[Quote], Coroutine[Any, Any, int]] = migration.by_phase(
        {"expand": write_plain, "dual_write": write_both, "contract": write_plain}
    )
    assert_type(await plain_first(quote), int)

    with_awaitable: Route = migration.by_phase(
        {"expand": write_later, "dual_write": write_both, "contract": write_plain}
    )
    assert_type(await with_awaitable(quote), int)

    prepared: dict[Phase, Callable[[Quote], Awaitable[int]]] = {"expand": write_old, "dual_write": write_both}
    assert_type(await migration.by_phase(prepared)(quote), int)
    assert_type(await migration.by_phase(prepared, record_as="quote.write")(quote), int)
    either: dict[Phase, Callable[[Quote], int | Awaitable[int]]] = {"expand": write_old, "dual_write": write_plain}
    assert_type(await migration.by_phase(either)(quote), int)
    nothing: dict[Phase, Callable[[], None]] = {}
    assert_type(migration.by_phase(nothing), Callable[[], Coroutine[Any, Any, None]])
    await as_annotated(quote)
    await as_awaitable(quote)


class Repository:
    def __init__(self, migration: Migration[Phase]) -> None:
        self.read = migration.by_phase({"expand": self._old, "dual_write": self._old, "contract": self._new})

    async def _old(self, key: str) -> Quote:
        return Quote(1)

    async def _new(self, key: str) -> Quote:
        return Quote(2)

    async def total(self, key: str) -> int:
        return (await self.read(key)).total


class Step(StrEnum):
    EXPAND = "expand"
    CONTRACT = "contract"


async def routed_by_enum(migration: Migration[Step], quote: Quote) -> int:
    return await migration.by_phase({Step.EXPAND: write_plain, Step.CONTRACT: write_plain})(quote)


async def routed_by_text(migration: Migration, quote: Quote) -> int:
    return await migration.by_phase({"expand": write_old, "contract": write_both})(quote, user="eve")


# -- recorded


@recorded(journal, "quote.read")
async def read(quote_id: str, /, *, fresh: bool = False) -> Quote:
    observe(tenant="acme", rows=1)
    return Quote(1)


@recorded(journal, "quote.count", observed={"table": "quotes"})
def count(*tables: str) -> int:
    return len(tables)


class Service:
    @recorded(journal, "service.read")
    async def read(self, quote_id: str) -> Quote:
        return Quote(1)

    @recorded(journal, "service.count")
    def count(self, table: str = "quotes") -> int:
        return 1

    @staticmethod
    @recorded(journal, "service.ping")
    def ping(host: str) -> bool:
        return True

    @classmethod
    @recorded(journal, "service.make")
    async def make(cls, url: str) -> "Service":
        return cls()


@recorded(journal, "quotes")
class Quotes:
    def read(self, quote_id: str) -> Quote:
        return Quote(1)

    async def count(self) -> int:
        return 1


async def recorded_methods(quotes: Quotes) -> None:
    assert_type(Quotes(), Quotes)
    assert_type(quotes.read("q-1"), Quote)
    assert_type(await quotes.count(), int)


def redact(key: str, value: object) -> object:
    return "***" if key == "card" else value


def correlations() -> None:
    Journal(clock=create_controlled_clock(), redact=redact)
    with correlated("request-1") as correlation_id:
        assert_type(correlation_id, str)
    with correlated(), correlated(None):
        assert_type(current_correlation_id(), str | None)


async def recorded_calls(service: Service) -> None:
    assert_type(await read("q-1"), Quote)
    assert_type(await read("q-1", fresh=True), Quote)
    later: Coroutine[Any, Any, Quote] = read("q-1")
    assert_type(await later, Quote)
    assert_type(count("a", "b"), int)
    assert_type(await service.read("q-1"), Quote)
    assert_type(service.count(), int)
    assert_type(service.count(table="sales"), int)
    assert_type(Service.ping("db"), bool)
    assert_type(await Service.make("url"), Service)
    in_place = recorded(journal, "in.place")(write_old)
    assert_type(await in_place(Quote(1), user="eve"), int)


def received(url: str) -> int:
    with recorded(journal, "sqs.consume", observed={"queue_url": url}) as call:
        assert_type(call, Recording)
        assert_type(call.observed, dict[str, object])
        call.observed["messages"] = 3
        return 1


async def received_async(url: str) -> int:
    with recorded(journal, "sqs.consume", observed={"queue_url": url}):
        await asyncio.sleep(0)
        return 1


typed_journal = Journal[HandlerEvent](clock=journal.clock, serializer=event_serializer)
recorded(typed_journal, "quote.read")

# -- shadow


async def old_read(quote_id: str, *, fresh: bool = False) -> Quote:
    return Quote(1)


async def new_read(quote_id: str, *, fresh: bool = False) -> dict[str, int]:
    return {"total": 1}


def new_plain_read(quote_id: str, *, fresh: bool = False) -> Quote:
    return Quote(1)


def old_count(table: str) -> int:
    return 1


def new_count(table: str, schema: str = "public") -> float:
    return 1.0


def same(old: Quote, new: dict[str, int]) -> bool:
    return old.total == new["total"]


shadow_read = shadow(
    journal,
    "quote.read.parity",
    old=old_read,
    new=new_read,
    compare=same,
    ignore=lambda old, new: old.total == 0,
    sample=0.1,
    timeout=timedelta(seconds=1),
)
shadow_with_plain = shadow(journal, "quote.read.parity", old=old_read, new=new_plain_read, sample=1)
shadow_count = shadow(typed_journal, "quote.count.parity", old=old_count, new=new_count)


async def shadowed() -> None:
    assert_type(await shadow_read("q-1"), Quote)
    assert_type(await shadow_read("q-1", fresh=True), Quote)
    assert_type(await shadow_with_plain("q-1", fresh=True), Quote)
    assert_type(shadow_count("quotes"), int)
    assert_type(shadow_count(table="quotes"), int)


async def both(migration: Migration[Phase]) -> None:
    get = migration.by_phase({"expand": old_read, "dual_write": shadow_read, "contract": shadow_with_plain})
    assert_type(await get("q-1", fresh=True), Quote)


# -- dual_write

both_read = dual_write(
    journal,
    "quote.write.parity",
    authoritative=old_read,
    secondary=new_plain_read,
    on_failure="carry_on",
    compare=lambda old, new: old.total == new.total,
    rejections=(ValueError, LookupError),
    timeout=timedelta(seconds=1),
)
both_count = dual_write(journal, "quote.count.parity", authoritative=old_count, secondary=new_count)


async def written() -> None:
    assert_type(await both_read("q-1", fresh=True), Quote)
    assert_type(both_count(table="quotes"), int)
    try:
        both_count("quotes")
    except SecondaryWriteError as error:
        assert_type(error.why, str)
