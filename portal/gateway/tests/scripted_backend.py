"""A backend of a few lines that answers with exactly the bytes that a test gives it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from random import randrange
from typing import Self

from devstack import ports

Script = Callable[["Exchange"], None]


class Exchange:
    """One request on a connection. `number` counts the requests of the backend, from 1."""

    def __init__(self, connection: socket.socket, number: int, ordinal: int, body: bytes) -> None:
        self.connection = connection
        self.number = number
        self.ordinal = ordinal
        self.body = body
        self.closes = False

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def answer(self, content_type: str, body: bytes, *, status: str = "200 OK") -> None:
        """A whole answer on a connection that goes on."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)

    def begin_stream(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """End the connection after this exchange, whatever its head said."""
        self.closes = True

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.closes = True


class ScriptedBackend:
    """Serves each connection in a thread of its own. `requests` counts what came in."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", _free_port()), backlog=256)
        self._listener.settimeout(0.1)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.requests = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0.1)
        with connection, contextlib.suppress(OSError):
            for ordinal, body in enumerate(self._bodies(connection), start=1):
                with self._lock:
                    self.requests += 1
                    number = self.requests
                exchange = Exchange(connection, number, ordinal, body)
                self._script(exchange)
                if exchange.closes:
                    return

    def _bodies(self, connection: socket.socket) -> Iterator[bytes]:
        """The bodies of the requests on a connection, until it ends or the backend stops."""
        data = b""
        while not self._stopping.is_set():
            head, found, rest = data.partition(b"\r\n\r\n")
            length = _content_length(head) if found else 0
            if found and len(rest) >= length:
                data = rest[length:]
                yield rest[:length]
                continue
            try:
                received = connection.recv(65536)
            except TimeoutError:
                continue
            if not received:
                return
            data += received


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _free_port() -> int:
    return ports.choose(randrange(20_000, 27_000))
