from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.proxy import CuttingProxy, Streams


class Echo:
    """A server that says back what it hears; `heard` has each chunk, and an empty one for each connection's end."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                self.heard.put_nowait(chunk)
                writer.write(chunk)
                await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self.heard.put_nowait(b"")


class Client:
    """A plain socket: unlike a stream, it keeps what it got before a reset."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setblocking(False)

    async def say(self, words: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, words)

    async def hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size and (chunk := await self._receive(size - len(heard))):
            heard += chunk
        return heard

    async def reset(self) -> bytes:
        """All that still comes before the reset that has to come."""
        heard = b""
        try:
            while chunk := await self._receive(1 << 16):
                heard += chunk
        except ConnectionResetError:
            return heard
        pytest.fail("it was closed in good order")

    async def asks(self, words: bytes) -> bytes:
        await self.say(words)
        return await self.hear(len(words))

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    async def _receive(self, size: int) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, size)


Connect = Callable[[], Client]


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    """An echo server on a unix socket."""
    echo = Echo()
    async with await asyncio.start_unix_server(echo.serve, tmp_path / "echo"):
        yield echo


@pytest.fixture
async def proxy(echo: Echo, tmp_path: Path) -> AsyncIterator[CuttingProxy]:
    """A proxy before the echo server."""
    async with CuttingProxy.unix(str(tmp_path / "echo")) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: CuttingProxy) -> Iterator[Connect]:
    """Makes clients of the proxy."""
    clients: list[Client] = []

    def connect() -> Client:
        clients.append(Client(proxy.port))
        return clients[-1]

    yield connect
    for each in clients:
        each.close()


async def test_it_counts_both_directions_of_all_connections(proxy: CuttingProxy, client: Connect) -> None:
    """What passes is counted, from 0 again on request, and so are the connections."""
    first, second = client(), client()
    assert [await first.asks(b"hello"), await second.asks(b"you")] == [b"hello", b"you"]
    assert (proxy.connections, proxy.forwarded) == (2, 16)
    proxy.count()
    await first.asks(b"again")
    assert (proxy.connections, proxy.forwarded) == (2, 10)


async def test_it_goes_over_tcp_to_the_server_as_well(echo: Echo) -> None:
    """A server on a port is served like one on a unix socket, and so is one that a function connects to."""
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        def connect() -> asyncio.Future[Streams]:
            return asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port))

        for made in (CuttingProxy.tcp("127.0.0.1", port), CuttingProxy(connect)):
            async with made as proxy:
                client = Client(proxy.port)
                assert await client.asks(b"hello") == b"hello"
                client.close()
                assert [await echo.heard.get() for _ in range(2)] == [b"hello", b""]


async def test_much_passes_whole(proxy: CuttingProxy, client: Connect) -> None:
    """Many megabytes pass without a loss, at the pace of the slower side."""
    asking, words = client(), bytes(range(256)) * (1 << 15)
    _, heard = await asyncio.gather(asking.say(words), asking.hear(len(words)))
    assert heard == words
    assert proxy.forwarded == 2 * len(words)


async def test_the_end_of_one_side_passes(echo: Echo, client: Connect) -> None:
    """A client that has said all still hears the answer, and then the end."""
    asking = client()
    await asking.say(b"hello")
    asking.end()
    assert await asking.hear(100) == b"hello"
    assert [await echo.heard.get() for _ in range(2)] == [b"hello", b""]


@pytest.mark.parametrize("n", range(11))
async def test_a_cut_comes_after_exactly_so_many_bytes(
    echo: Echo, proxy: CuttingProxy, client: Connect, n: int
) -> None:
    """Of five bytes and their echo, exactly the first n pass, wherever the cut falls, and the client is reset."""
    asking = client()
    proxy.cut_after(n)
    await asking.say(b"hello")
    assert await asking.reset() == b"hello"[: max(n - 5, 0)]
    heard = b""
    while chunk := await echo.heard.get():
        heard += chunk
    assert heard == b"hello"[:n]
    assert proxy.forwarded == n


async def test_a_cut_takes_every_connection(echo: Echo, proxy: CuttingProxy, client: Connect) -> None:
    """A limit that two connections use up together cuts them both, and one that is idle."""
    clients = first, second, _ = client(), client(), client()
    await asyncio.gather(*(each.asks(b"x") for each in clients))
    proxy.cut_after(11)
    assert await first.asks(b"hello") == b"hello"
    await second.say(b"hello")
    assert [await each.reset() for each in clients] == [b"", b"", b""]
    assert proxy.forwarded == 11


async def test_it_serves_after_a_cut(proxy: CuttingProxy, client: Connect) -> None:
    """After a cut, new connections are served, and the order is spent."""
    proxy.cut_after(0)
    first = client()
    await first.say(b"hello")
    await first.reset()
    assert await client().asks(b"hello") == b"hello"


async def test_it_refuses_after_a_cut_until_healed(proxy: CuttingProxy, client: Connect) -> None:
    """After a cut that refuses, new connections are reset at once, until it is healed."""
    proxy.cut_after(0, then="refuse")
    first = client()
    await first.say(b"hello")
    assert [await first.reset(), await client().reset(), await client().reset()] == [b"", b"", b""]
    proxy.heal()
    assert await client().asks(b"hello") == b"hello"
    assert proxy.connections == 4


async def test_it_cuts_at_once(proxy: CuttingProxy, client: Connect) -> None:
    """A cut may also come now, without a byte."""
    first = client()
    await first.asks(b"hello")
    proxy.cut(then="refuse")
    assert [await first.reset(), await client().reset()] == [b"", b""]


async def test_an_order_is_taken_back(proxy: CuttingProxy, client: Connect) -> None:
    """An order that is healed before its time never comes true."""
    first = client()
    proxy.cut_after(3)
    proxy.heal()
    assert await first.asks(b"hello") == b"hello"


async def test_it_hangs_after_exactly_so_many_bytes(echo: Echo, proxy: CuttingProxy, client: Connect) -> None:
    """A black hole lets n bytes pass and then nothing, neither a byte nor an end, until it is healed."""
    asking = client()
    proxy.hang_after(3)
    await asking.say(b"hello")
    asking.end()
    assert await echo.heard.get() == b"hel"
    assert (echo.heard.empty(), proxy.forwarded) == (True, 3)
    proxy.heal()
    assert await asking.reset() == b""
    assert await echo.heard.get() == b""
    assert await client().asks(b"hello") == b"hello"


async def test_new_connections_hang_too(echo: Echo, tmp_path: Path, proxy: CuttingProxy, client: Connect) -> None:
    """A connection made to a black hole gets no server; one that was idle all the time is as good as before."""
    idle = client()
    await idle.asks(b"x")
    proxy.hang_after(0)
    late = client()
    await late.say(b"hello")
    reader, writer = await asyncio.open_unix_connection(tmp_path / "echo")
    writer.write(b"beside")
    await reader.readexactly(6)
    proxy.heal()
    assert await late.reset() == b""
    assert await idle.asks(b"still") == b"still"
    assert [echo.heard.get_nowait() for _ in range(3)] == [b"x", b"beside", b"still"]
    writer.close()
    await writer.wait_closed()


async def test_a_server_that_is_not_there_resets_the_client() -> None:
    """A client is reset when the server cannot be reached."""
    async with CuttingProxy.unix("/nowhere/at/all") as proxy:
        client = Client(proxy.port)
        assert await client.reset() == b""
        client.close()


async def test_nothing_stays_behind(echo: Echo, tmp_path: Path) -> None:
    """Whatever its connections are doing, a proxy that ends leaves no task, and its clients are reset."""
    before = asyncio.all_tasks()
    async with CuttingProxy.unix(str(tmp_path / "echo")) as proxy:
        clients = [Client(proxy.port) for _ in range(3)]
        await clients[0].asks(b"hello")
        proxy.hang_after(0)
        await clients[0].say(b"hello")
        clients += [Client(proxy.port) for _ in range(3)]
    assert [await each.reset() for each in clients] == [b""] * 6
    for each in clients:
        each.close()
    while asyncio.all_tasks() != before:
        assert await asyncio.wait_for(echo.heard.get(), 5) in {b"hello", b""}
