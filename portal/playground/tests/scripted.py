"""A backend that streams exactly the events that a test gives it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import randrange

from devstack import ports


def event(text: str) -> bytes:
    """One piece of an answer, spelled with escapes as some engines do."""
    chunk = {"id": "scripted", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


END = (
    b'data: {"id":"scripted","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"scripted","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9}}\n\n'
    b"data: [DONE]\n\n"
)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class Backend:
    """`sent_bytes` counts what the other side's kernel has taken, about."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.url = ""
        self.sent_bytes = 0
        self._pieces = pieces

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_HEAD)
            for piece in self._pieces:
                writer.write(piece)
                await writer.drain()
                self.sent_bytes += len(piece)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def backend_of(pieces: Sequence[bytes]) -> AsyncIterator[Backend]:
    backend = Backend(pieces)
    port = ports.choose(randrange(20_000, 27_000))
    async with await asyncio.start_server(backend.serve, "127.0.0.1", port):
        backend.url = f"http://127.0.0.1:{port}"
        yield backend
