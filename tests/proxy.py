"""A TCP proxy between a client and its server that cuts the line, or lets it hang, after so many bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import attrs

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Then = Literal["serve", "refuse"]
CHUNK = 1 << 16


def reset_on_close(client: socket.socket) -> None:
    """Let its close be an RST: without this, the abort of a transport is mostly a FIN."""
    with suppress(OSError):  # it is closed already
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@attrs.define(eq=False)
class Limit:
    """How many bytes may still pass, and what comes after them."""

    left: int
    then: Then | Literal["hang"]

    def take(self, chunk: bytes) -> bytes:
        """The part of the chunk that may pass."""
        taken = chunk[: self.left]
        self.left -= len(taken)
        return taken


@attrs.define(eq=False)
class Line:
    """A connection of a client, and the one to the server that belongs to it."""

    client: socket.socket
    broken: bool = False  # whether anything was withheld from one of its sides
    task: asyncio.Task[None] | None = None
    _writers: list[asyncio.StreamWriter] = attrs.field(factory=list, init=False)
    _ending: bool = attrs.field(default=False, init=False)

    async def add(self, opening: Awaitable[Streams]) -> Streams:
        """Open one of its sides."""
        reader, writer = await opening
        writer.transport.set_write_buffer_limits(high=0)  # drained means that the kernel has it all
        self._writers.append(writer)
        return reader, writer

    async def drain(self) -> None:
        for writer in self._writers:
            with suppress(OSError):
                await writer.drain()

    def abort(self) -> None:
        """Drop both sides at once; the client sees a reset."""
        reset_on_close(self.client)
        for writer in self._writers:
            writer.transport.abort()
        if self.task is not None and not self._ending:
            self._ending = True
            self.task.cancel()

    async def close(self) -> None:
        """Close both sides, and return once they are closed."""
        self._ending = True
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(OSError):
                await writer.wait_closed()


class CuttingProxy:
    """A proxy on a port of the loopback interface.

    It counts the bytes of all connections, in both directions, in the order in which they arrive here. A new order
    (`cut_after`, `hang_after`) replaces the one before. A cut waits until the kernel took all that may pass; what
    the kernel of the client has no room for then is lost to the client, as with any reset.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self.connections = 0
        self.forwarded = 0
        self.port = 0
        self._connect = connect
        self._limit: Limit | None = None
        self._refusing = False
        self._lines: set[Line] = set()

    @classmethod
    def tcp(cls, host: str, port: int) -> CuttingProxy:
        return cls(lambda: asyncio.open_connection(host, port))

    @classmethod
    def unix(cls, path: str) -> CuttingProxy:
        return cls(lambda: asyncio.open_unix_connection(path))

    def count(self) -> None:
        """Count what is forwarded from 0 again; an order that stands is not touched."""
        self.forwarded = 0

    def cut_after(self, n: int, then: Then = "serve") -> None:
        """Cut once exactly `n` more bytes have passed; 0 cuts as the next byte arrives, which does not pass."""
        self._arm(Limit(n, then))

    def hang_after(self, n: int) -> None:
        """Be a black hole once exactly `n` more bytes have passed: nothing passes, nothing is closed, until `heal`."""
        self._arm(Limit(n, "hang"))

    def cut(self, then: Then = "serve") -> None:
        """Abort every connection now, and serve or refuse those to come."""
        self._limit = None
        self._refusing = then == "refuse"
        for line in self._lines:
            line.abort()

    def heal(self) -> None:
        """Be a plain proxy again; connections from which something was withheld are aborted."""
        self._limit = None
        self._refusing = False
        for line in self._lines:
            if line.broken:
                line.abort()

    async def __aenter__(self) -> CuttingProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self.cut()
        if tasks := [line.task for line in self._lines if line.task is not None]:
            await asyncio.wait(tasks)

    def _arm(self, limit: Limit) -> None:
        self.heal()
        self.count()
        self._limit = limit

    @property
    def _hanging(self) -> bool:
        return self._limit is not None and self._limit.then == "hang" and not self._limit.left

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # the client is gone already
            return
        client.setblocking(False)
        self.connections += 1
        if self._refusing:
            reset_on_close(client)
            client.close()
        else:
            self._start(Line(client, broken=self._hanging))

    def _start(self, line: Line) -> None:
        def ended(_: asyncio.Task[None]) -> None:
            line.client.close()  # a task that is cancelled before its first step closes nothing itself
            self._lines.discard(line)

        self._lines.add(line)
        line.task = asyncio.create_task(self._serve(line))
        line.task.add_done_callback(ended)

    async def _serve(self, line: Line) -> None:
        try:
            if line.broken:
                await _forever()
            client = await line.add(asyncio.open_connection(sock=line.client))
            server = await line.add(self._connect())
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(line, client[0], server[1]))
                pumps.create_task(self._pump(line, server[0], client[1]))
        except* OSError:
            line.abort()
        finally:
            await line.close()

    async def _pump(self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await self._read(line, reader):
            await self._forward(line, chunk, writer)
        writer.write_eof()

    async def _read(self, line: Line, reader: asyncio.StreamReader) -> bytes:
        """The next chunk; a black hole does not let through that one side has ended, either."""
        try:
            chunk = await reader.read(CHUNK)
        except OSError:
            if not self._hanging:
                raise
            chunk = b""
        if self._hanging:
            line.broken = True
            await _forever()
        return chunk

    async def _forward(self, line: Line, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        limit = self._limit
        passing = chunk if limit is None else limit.take(chunk)
        line.broken |= len(passing) < len(chunk)
        self.forwarded += len(passing)
        writer.write(passing)
        if limit is not None and limit.then != "hang" and not limit.left:
            await self._cut_by(limit, limit.then)
        else:
            await writer.drain()
        if line.broken:
            await _forever()

    async def _cut_by(self, limit: Limit, then: Then) -> None:
        """Cut as soon as all that may pass has passed, unless another order came in between."""
        await asyncio.gather(*(line.drain() for line in self._lines))
        if self._limit is limit:
            self.cut(then)


async def _forever() -> None:
    """Wait until we are cancelled."""
    await asyncio.get_running_loop().create_future()
