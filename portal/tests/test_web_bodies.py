"""Bodies that nobody would take: the web process stops reading them, whoever sends them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from devstack.testing import Services
from tests.web_process import RunningWeb, running_web

MOST = 8 * 2**20
WAIT_S = 20.0


@pytest.fixture(scope="module")
def web(services: Services, database: None) -> Iterator[RunningWeb]:
    with running_web() as web:
        yield web


def opened(web: RunningWeb, headers: str) -> socket.socket:
    parts = urlsplit(web.url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=WAIT_S)
    head = f"POST /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def answer_of(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(2**16):
        parts.append(part)
    return b"".join(parts)


def test_a_body_without_end(web: RunningWeb) -> None:
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    with opened(web, "Transfer-Encoding: chunked") as connection:
        sent = 0
        try:
            while sent < 16 * MOST:
                connection.sendall(chunk)
                sent += 2**20
        except OSError:
            # The connection was closed with some of it unread.
            pass
        assert MOST <= sent < 16 * MOST
    # What matters is that it still serves.
    with opened(web, "Content-Length: 2") as connection:
        connection.sendall(b"{}")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 ")


def test_it_is_answered_as_soon_as_it_is_too_long(web: RunningWeb) -> None:
    with opened(web, "Transfer-Encoding: chunked") as connection:
        # Not a byte more: a connection that is closed with some unread is reset, and the answer lost.
        connection.sendall(b"800001\r\n" + b"x" * (MOST + 1))
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'{"error": "body_too_large", "detail": ""}\n')


@pytest.mark.parametrize("length", [str(MOST + 1), "9" * 18, "9" * 19])
def test_one_that_says_so_is_not_even_read(web: RunningWeb, length: str) -> None:
    with opened(web, f"Content-Length: {length}") as connection:
        assert answer_of(connection).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_longest_that_a_view_takes_reaches_it(web: RunningWeb, is_chunked: bool) -> None:
    parts = urlsplit(web.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=WAIT_S)
    body = b"x" * MOST
    try:
        connection.request(
            "POST",
            "/ingest/v1/none/ndjson",
            body=iter([body]) if is_chunked else body,
            headers={"Content-Type": "application/x-ndjson"},
            encode_chunked=is_chunked,
        )
        assert connection.getresponse().status == 401
    finally:
        connection.close()
