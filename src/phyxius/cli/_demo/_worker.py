"""The process of the shop: it is asked on one pipe, a JSON object a line, and answers on another."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any


def main(name: str) -> None:
    """Serve until the pipe is closed."""
    sys.path.insert(0, str(Path.cwd()))
    asyncio.run(_serve(importlib.import_module("shop"), name))


async def _serve(shop: Any, name: str) -> None:
    requests: set[asyncio.Task[None]] = set()
    async with shop.stores, shop.stores.recorder(shop.journal, name=name, durable=shop.DURABLE) as recorder:
        _tell(ready=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            match json.loads(line):
                case {"request": request}:
                    task = asyncio.create_task(_answer(shop, *request))
                    requests.add(task)
                    task.add_done_callback(requests.discard)
                case {"copy": [after, last]}:
                    shop.sql(shop.COPY, values=[after, last])  # one statement, so that it never writes what is stale
                    _tell(copied=last)
                case {"elapse": seconds}:
                    await shop.clock.elapse(timedelta(seconds=seconds))
                    await recorder.flush()  # under a clock that leaps its lease has run out by now
                    _tell(now=shop.clock.now().wall.isoformat())
        await asyncio.gather(*requests, shop.clock.elapse(timedelta(seconds=1)))


async def _answer(shop: Any, key: int, kind: str, row: list[Any]) -> None:
    try:
        match kind:
            case "save":
                await shop.save(tuple(row))
            case "read":
                row = await shop.read(row[0])
            case reader:
                row = await shop.read_old(row[0], reader)
        _tell(key=key, row=row)
    except Exception as error:  # noqa: BLE001 - the shop goes on serving
        _tell(key=key, error=repr(error))


def _tell(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
