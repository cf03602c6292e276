"""A backend that says exactly the words that a test puts into its mouth."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import randrange
from typing import Any

from devstack import ports


class Speaker(ThreadingHTTPServer):
    """Streams `pieces` as the answer to every call."""

    daemon_threads = False
    pieces: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{ports.HOST}:{self.server_port}"

    def says(self, *pieces: str) -> None:
        """What it answers from now on, one event each."""
        self.pieces = pieces


class _Handler(BaseHTTPRequestHandler):
    server: Speaker

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in self.server.pieces:
            self._send({"choices": [{"index": 0, "delta": {"content": piece}}]})
        self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        tokens = len(self.server.pieces)
        self._send({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps({"id": "scripted", **event}).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: what a test asked for is no news."""


@contextmanager
def speaking() -> Iterator[Speaker]:
    """A speaker on loopback, in a thread."""
    port = ports.choose(randrange(28_000, 32_000))
    with Speaker((ports.HOST, port), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)
