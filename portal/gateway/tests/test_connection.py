"""What the gateway's own server makes of its sockets: what has left, who is woken, what is never read."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from portal.gateway.direct_client import DirectClient
from portal.gateway.protocol import MAX_HEAD_BYTES, GatewayProtocol

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


class Handler:
    """Hands each request over to the test, which answers it."""

    def __init__(self) -> None:
        self.clients: asyncio.Queue[DirectClient] = asyncio.Queue()
        self.may_end = asyncio.Event()

    async def serve(self, client: DirectClient) -> None:
        self.clients.put_nowait(client)
        await self.may_end.wait()


class Stage:
    def __init__(self, handler: Handler, address: Any) -> None:
        self.handler = handler
        self._address = address

    def connect(self, sent: bytes) -> socket.socket:
        connection = socket.create_connection(self._address, timeout=5)
        connection.sendall(sent)
        return connection

    async def client(self) -> DirectClient:
        return await asyncio.wait_for(self.handler.clients.get(), 5)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    handler = Handler()
    config: Any = SimpleNamespace(app=handler)
    state: Any = SimpleNamespace(connections=set(), default_headers=[])
    server = await asyncio.get_running_loop().create_server(
        lambda: GatewayProtocol(config, state, {}), "127.0.0.1", 0
    )
    yield Stage(handler, server.sockets[0].getsockname())
    handler.may_end.set()
    for connection in list(state.connections):
        connection.transport.abort()
    server.close()
    await asyncio.sleep(0.01)


async def fill(client: DirectClient) -> None:
    """Write until the kernel takes no more."""
    await client.start(status=200, content_type=b"text/plain")
    while client.write(b"x" * 100_000):
        pass


async def test_what_a_reset_connection_refused_has_not_left(stage: Stage) -> None:
    connection = stage.connect(GET)
    client = await stage.client()
    await client.start(status=200, content_type=b"text/plain")
    assert client.write(b"first")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    # The loop has had no turn to hear of it.
    assert not client.write(b"second")


async def test_everybody_who_waits_for_a_slow_client_goes_on(stage: Stage) -> None:
    connection = stage.connect(GET)
    client = await stage.client()
    await fill(client)
    waiting = [asyncio.ensure_future(client.send(piece)) for piece in (b"a", b"b", b"c")]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    async with asyncio.timeout(5):
        while not all(task.done() for task in waiting):
            await loop.sock_recv(connection, 2**20)
    connection.close()


async def test_what_had_not_left_when_the_client_did_is_not_said_to_have(stage: Stage) -> None:
    connection = stage.connect(GET)
    client = await stage.client()
    gone = asyncio.Event()
    client.on_gone = gone.set
    await fill(client)
    sending = asyncio.ensure_future(client.send(b"last"))
    await asyncio.sleep(0.01)
    connection.close()
    await asyncio.wait_for(gone.wait(), 5)
    await asyncio.sleep(0.01)
    assert not sending.done()
    # As the call is, by on_gone.
    sending.cancel()


async def test_a_body_that_nobody_asked_for_is_read_away(stage: Stage) -> None:
    body = b"x" * 3_000_000
    connection = stage.connect(b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    sending = asyncio.ensure_future(loop.sock_sendall(connection, body + GET))
    client = await stage.client()
    await asyncio.sleep(0.05)
    await client.answer(b"{}", status=401, content_type=b"application/json")
    # All of it leaves, and the next request is understood.
    await asyncio.wait_for(sending, 5)
    assert (await stage.client()).method == "GET"
    connection.close()


async def test_what_follows_a_body_is_no_part_of_the_head(stage: Stage) -> None:
    connection = stage.connect(
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer\r\n\r\n"
    )
    client = await stage.client()
    assert (client.whole_body(), client.header(b"authorization")) == (b"a", None)
    connection.close()


@pytest.mark.parametrize("endless", [b"X: ", b"1;x=", b"0" * 100])
async def test_neither_trailers_nor_chunks_may_be_endless(stage: Stage, endless: bytes) -> None:
    end = b"0\r\n" if endless == b"X: " else b""
    connection = stage.connect(
        b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n" + end + endless
    )
    connection.setblocking(False)
    await stage.client()
    much = b"0" * (100 * MAX_HEAD_BYTES)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(connection, much), 5)
    connection.close()


async def test_a_request_behind_another_is_not_taken_for_a_part_of_it(stage: Stage) -> None:
    second = b"POST /y HTTP/1.1\r\nAuthorization: Bearer y\r\nContent-Length: 3\r\n\r\nabc"
    connection = stage.connect(b"POST /x HTTP/1.1\r\nContent-Length: 1\r\n\r\na" + second)
    client = await stage.client()
    assert (client.path, client.header(b"authorization")) == ("/x", None)
    assert client.whole_body() == b"a"
    connection.close()


async def test_a_client_that_was_not_asked_for_its_body_cannot_go_on(stage: Stage) -> None:
    connection = stage.connect(b"POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
    client = await stage.client()
    await client.answer(b"{}", status=401, content_type=b"application/json")
    connection.setblocking(False)
    received = b""
    async with asyncio.timeout(5):
        while piece := await asyncio.get_running_loop().sock_recv(connection, 2**16):
            received += piece
    assert b"\r\nconnection: close\r\n" in received
    connection.close()
