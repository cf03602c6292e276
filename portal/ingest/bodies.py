"""Bodies of bounded size, unpacked where they were packed."""

from __future__ import annotations

import zlib
from typing import Final

from django.http import HttpRequest
from django.http.request import UnreadablePostError

MAX_BYTES: Final = 8 * 2**20
# Spans cost much more than lines do, and exporters send a few hundred at a time.
MAX_OTLP_BYTES: Final = 2 * 2**20
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class BodyRefused(Exception):
    """The body is too large, does not arrive, or is packed in a way that is not known. status: of the
    answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def sent_body(request: HttpRequest, *, most: int = MAX_BYTES) -> bytes:
    """The body as it was sent, of at most that many bytes. Errors: BodyRefused."""
    try:
        if int(request.headers.get("Content-Length") or 0) > most:
            raise BodyRefused(413, "body_too_large")
        body = request.read(most + 1)
    except (UnreadablePostError, ValueError):
        raise BodyRefused(400, "body_unreadable") from None
    if len(body) > most:
        raise BodyRefused(413, "body_too_large")
    return body


def unpacked(body: bytes, encoding: str, *, most: int = MAX_BYTES) -> bytes:
    """What a body holds, of at most that many bytes. Errors: BodyRefused."""
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return body
    if kind != "gzip":
        raise BodyRefused(415, "unknown_content_encoding")
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        content = unpacker.decompress(body, most + 1)
    except zlib.error:
        raise BodyRefused(400, "broken_gzip") from None
    if len(content) > most:
        raise BodyRefused(413, "body_too_large")
    if not unpacker.eof or unpacker.unused_data:
        raise BodyRefused(400, "broken_gzip")
    return content
