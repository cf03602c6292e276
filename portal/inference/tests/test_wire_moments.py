"""Exchanges with a backend that end at a bad moment: nobody else may meet what is left of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from portal.inference.tests.test_wire import CHUNKED, OK, Pushed, backend, pool, post, read
from portal.inference.wire import Unreachable


@pytest.mark.parametrize("is_answered_first", [True, False])
async def test_a_caller_that_leaves_too_late_harms_nobody_else(is_answered_first: bool) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with backend(silent) as seen, pool(seen.url) as to:
        asking = asyncio.create_task(post(to))
        await asyncio.wait_for(seen.asked.wait(), 5)
        (connection,) = to._open
        # The end of the answer, the next exchange and the cancellation, all in one turn of the loop.
        if is_answered_first:
            connection.data_received(OK)
            asking.cancel()
        else:
            asking.cancel()
            connection.data_received(OK)
        assert to._take() is connection
        connection.send(b"", b"")
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not connection.is_closed


async def test_a_connection_that_ends_before_it_is_used_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def connect_and_lose(*arguments: Any, **options: Any) -> Any:
        transport, connection = await connect(*arguments, **options)
        transport.abort()
        await asyncio.sleep(0.01)
        return transport, connection

    async with backend(OK) as seen, pool(seen.url) as to:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "create_connection", connect_and_lose)
            with pytest.raises(Unreachable):
                await post(to)
        assert not to.is_used
        assert await read(await post(to)) == b"{}"


async def test_a_pool_that_is_closed_while_it_connects_keeps_nothing() -> None:
    async with backend(OK) as seen, pool(seen.url) as to:
        asking = asyncio.create_task(post(to))
        await asyncio.sleep(0)
        to.close()
        with pytest.raises(Unreachable):
            await asking
        assert not to.is_used


async def test_an_answer_before_its_request_has_left_ends_the_connection() -> None:
    """What the backend takes the rest of the body for, nobody knows."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        await is_read.wait()
        writer.transport.abort()
        is_over.set()

    is_read, is_over = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1000)
    host, port = server.sockets[0].getsockname()
    async with pool(f"http://{host}:{port}") as to:
        assert await read(await post(to, b"x" * 30_000_000)) == b"{}"
        assert not to._idle
    is_read.set()
    await asyncio.wait_for(is_over.wait(), 5)
    server.close()


async def test_a_receiver_that_holds_the_backend_back_at_once() -> None:
    """With what waited for it there is more than it can take."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    class Full(Pushed):
        def received(self, data: bytes) -> None:
            super().received(data)
            response.pause()

    async with backend(stream) as seen, pool(seen.url) as to:
        response = await post(to)
        await asyncio.sleep(0.05)
        assert response._pieces
        response.attach(Full())
        assert response._is_paused
        response.release()
        await asyncio.wait_for(seen.ended.wait(), 5)
