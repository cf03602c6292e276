"""The HTTP client towards backends, against servers that send exactly the bytes of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.inference.wire import (
    BrokenOff,
    Response,
    StaleConnection,
    TooLarge,
    Unreachable,
    Unreadable,
    WireError,
    WirePool,
)
from portal.inference.wire.connection import MAX_HEAD_BYTES
from portal.inference.wire.response import MAX_UNREAD_BYTES

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Backend:
    """Serves each request on each connection with `script`; a script that returns True goes on."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self.url = ""


@asynccontextmanager
async def backend(*answers: bytes | Script) -> AsyncIterator[Backend]:
    """The nth request gets the nth answer, the last one from then on; bytes are sent, and then the
    connection is closed unless they are a whole answer."""
    seen = Backend()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                seen.bodies.append(await reader.readexactly(length))
                seen.heads.append(head)
                seen.asked.set()
                answer = answers[min(len(seen.heads), len(answers)) - 1]
                if not isinstance(answer, bytes):
                    await answer(reader, writer)
                    break
                writer.write(answer)
                await writer.drain()
                if not answer.endswith((b"\r\n0\r\n\r\n", OK)):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            seen.ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    seen.url = f"http://{host}:{port}"
    try:
        yield seen
    finally:
        server.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def pool(url: str) -> AsyncIterator[WirePool]:
    made = WirePool(url, connect_timeout_s=1.0)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


async def post(to: WirePool, body: bytes = b"{}", **options: bool) -> Response:
    async with asyncio.timeout(5):
        return await to.post("/v1/x", {"Authorization": "Bearer k"}, body, **options)


async def read(response: Response, max_bytes: int = 2**20) -> bytes:
    async with asyncio.timeout(5):
        return await response.read(max_bytes=max_bytes)


class Pushed:
    """Notes what is pushed to it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.errors: list[WireError | None] = []
        self.over = asyncio.Event()

    def received(self, data: bytes) -> None:
        assert data
        self.pieces.append(data)

    def ended(self, error: WireError | None) -> None:
        self.errors.append(error)
        self.over.set()


async def test_a_request_carries_what_it_should() -> None:
    async with backend(OK) as seen, pool(seen.url + "/engine/") as to:
        response = await post(to, b'{"a":1}')
        assert (response.status, response.content_type) == (200, b"application/json")
        assert await read(response) == b"{}"
    head = seen.heads[0].decode()
    assert head.startswith("POST /engine/v1/x HTTP/1.1\r\n")
    assert f"Host: {seen.url.removeprefix('http://')}\r\n" in head
    assert "Authorization: Bearer k\r\n" in head
    assert "Connection" not in head
    assert seen.bodies == [b'{"a":1}']


async def test_a_large_request_arrives_whole() -> None:
    body = b"x" * 5_000_000
    async with backend(OK) as seen, pool(seen.url) as to:
        assert await read(await post(to, body)) == b"{}"
    assert seen.bodies == [body]


async def test_a_connection_serves_again_unless_it_may_not() -> None:
    async with backend(OK) as seen, pool(seen.url) as to:
        for _ in range(3):
            await read(await post(to))
        assert seen.connections == 1
        await read(await post(to, is_fresh=True))
        assert seen.connections == 2
        await read(await post(to, reuses=False))
        assert seen.connections == 3
        assert b"Connection: close\r\n" in seen.heads[-1]


async def test_concurrent_requests_have_connections_of_their_own() -> None:
    async with backend(OK) as seen, pool(seen.url) as to:
        answers = await asyncio.gather(*(post(to) for _ in range(20)))
        assert [await read(answer) for answer in answers] == [b"{}"] * 20
        assert seen.connections <= 20


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n", b"hello world"),
        (CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
@pytest.mark.parametrize("way", ["read", "next", "attach"])
async def test_bodies_of_every_kind(answer: bytes, body: bytes, way: str) -> None:
    async with backend(answer) as seen, pool(seen.url) as to:
        response = await post(to)
        if way == "read":
            found = await read(response)
        elif way == "next":
            found = b""
            while piece := await response.next():
                found += piece
        else:
            pushed = Pushed()
            response.attach(pushed)
            await asyncio.wait_for(pushed.over.wait(), 5)
            assert pushed.errors == [None]
            found = b"".join(pushed.pieces)
    assert found == body
    assert response.has_ended


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (b"", BrokenOff),
        (b"HTTP/1.1 200 OK\r\nContent-", BrokenOff),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unreadable),
        (b"\x16\x03\x01\x00\xa5", Unreadable),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (MAX_HEAD_BYTES + 1), Unreadable),
        (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 4000, Unreadable),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", Unreadable),
        (b"HTTP/1.1 abc\r\n\r\n", Unreadable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", Unreadable),
    ],
)
async def test_a_head_that_is_none(answer: bytes, wanted: type[WireError]) -> None:
    async with backend(answer) as seen, pool(seen.url) as to:
        with pytest.raises(wanted):
            await post(to)


@pytest.mark.parametrize(
    ("answer", "wanted", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", BrokenOff, b"hello"),
        (CHUNKED + b"5\r\nhello\r\n", BrokenOff, b"hello"),
        (CHUNKED + b"5\r\nhel", BrokenOff, b"hel"),
        (CHUNKED + b"5\r\nhello\r\nzz\r\n", Unreadable, b"hello"),
        (CHUNKED + b"-1\r\nhello\r\n", Unreadable, b""),
        (CHUNKED + b"5\r\nhello world\r\n", Unreadable, b"hello"),
    ],
)
async def test_a_body_that_breaks_off(answer: bytes, wanted: type[WireError], body: bytes) -> None:
    async with backend(answer) as seen, pool(seen.url) as to:
        response = await post(to)
        pushed = Pushed()
        response.attach(pushed)
        await asyncio.wait_for(pushed.over.wait(), 5)
        assert [type(error) for error in pushed.errors] == [wanted]
        assert b"".join(pushed.pieces) == body
        with pytest.raises(wanted):
            await read(response)


async def test_a_connection_that_was_closed_meanwhile_says_nothing_about_the_backend() -> None:
    """The backend closes at the very moment at which the next request comes."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with backend(OK, hang_up, OK) as seen, pool(seen.url) as to:
        await read(await post(to))
        with pytest.raises(StaleConnection):
            await post(to)
        assert await read(await post(to, is_fresh=True)) == b"{}"
        assert seen.connections == 2


async def test_the_first_request_of_a_connection_is_never_stale() -> None:
    async with backend(b"") as seen, pool(seen.url) as to:
        with pytest.raises(BrokenOff):
            await post(to)


async def test_an_idle_connection_that_the_backend_closes_is_not_used() -> None:
    async with backend(OK) as seen, pool(seen.url) as to:
        await read(await post(to))
        (connection,) = to._idle
        connection.connection_lost(None)
        assert await read(await post(to)) == b"{}"
        assert seen.connections == 2


async def test_bytes_behind_an_answer_end_the_connection_and_not_the_answer() -> None:
    async def chatter(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"HTTP/1.1 200 OK\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)

    async with backend(chatter, OK) as seen, pool(seen.url) as to:
        assert await read(await post(to)) == b"{}"
        assert await read(await post(to)) == b"{}"
        assert seen.connections == 2


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    async def gush(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()

    async with backend(gush) as seen, pool(seen.url) as to:
        response = await post(to)
        with pytest.raises(TooLarge):
            await read(response, max_bytes=200_000)
        assert response._size < 1_000_000
        response.release()
        await asyncio.wait_for(seen.ended.wait(), 5)


async def test_a_backend_is_held_back_while_nobody_reads() -> None:
    sent = 0

    async def gush(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 64_000)
            await writer.drain()
            sent += 64_000

    async with backend(gush) as seen, pool(seen.url) as to:
        response = await post(to)
        await asyncio.sleep(0.3)
        assert response._size < MAX_UNREAD_BYTES + 2**19
        assert sent < 32_000_000
        total = 0
        while piece := await response.next():
            total += len(piece)
        assert total == 64_000_000


async def test_a_released_answer_aborts_the_backend_or_lets_it_end() -> None:
    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    async with backend(stream) as seen, pool(seen.url) as to:
        response = await post(to)
        assert await response.next() == b"hello"
        response.release()
        await asyncio.wait_for(seen.ended.wait(), 5)

    async def end_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with backend(end_later) as seen, pool(seen.url) as to:
        response = await post(to)
        assert await response.next() == b"hello"
        response.release(linger_s=2.0)
        await asyncio.sleep(0.2)
        assert len(to._idle) == 1


async def test_a_caller_that_leaves_ends_the_connection() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with backend(silent) as seen, pool(seen.url) as to:
        asking = asyncio.create_task(post(to))
        await asyncio.wait_for(seen.asked.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(seen.ended.wait(), 5)
        await asyncio.sleep(0)
        assert not to._open


async def test_an_address_without_a_server() -> None:
    async with pool("http://127.0.0.1:9") as to:
        with pytest.raises(Unreachable):
            await post(to)
    async with pool("https://127.0.0.1:9") as to:
        with pytest.raises(Unreachable):
            await post(to)
    for url in ("ftp://x", "http://", "nonsense"):
        with pytest.raises(ValueError, match="address"):
            WirePool(url, connect_timeout_s=1.0)


async def test_a_server_without_tls_is_no_https() -> None:
    async with backend(OK) as seen, pool(seen.url.replace("http", "https")) as to:
        with pytest.raises(Unreachable):
            await post(to)


async def test_a_header_cannot_smuggle_another() -> None:
    async with backend(OK) as seen, pool(seen.url) as to:
        with pytest.raises(Unreachable):
            await to.post("/v1/x", {"Authorization": "Bearer a\r\nX-Evil: 1"}, b"{}")
        assert seen.connections == 0


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 400), max_size=12),
)
def test_a_body_arrives_as_it_was_however_it_is_cut(pieces: Sequence[bytes], cuts: Sequence[int]) -> None:
    async def once() -> None:
        whole = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

        async def dribble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            at = 0
            for cut in (*cuts, len(whole)):
                writer.write(whole[at : at + cut])
                await writer.drain()
                await asyncio.sleep(0)
                at += cut

        async with backend(dribble) as seen, pool(seen.url) as to:
            response = await post(to)
            pushed = Pushed()
            response.attach(pushed)
            await asyncio.wait_for(pushed.over.wait(), 5)
            assert pushed.errors == [None]
            assert b"".join(pushed.pieces) == b"".join(pieces)

    asyncio.run(once())
