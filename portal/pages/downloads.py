"""Files that are written while they are read."""

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, StreamingHttpResponse


def csv_download(request: HttpRequest, pieces: Iterator[str], filename: str) -> StreamingHttpResponse:
    """Text of comma-separated values as a file. A byte order mark tells spreadsheets that it is UTF-8."""
    encoded = (piece.encode() for piece in _marked(pieces))
    return file_download(request, encoded, filename, content_type="text/csv; charset=utf-8")


def file_download(
    request: HttpRequest, pieces: Iterator[bytes], filename: str, *, content_type: str
) -> StreamingHttpResponse:
    """The pieces as a file, each made when it is sent."""
    # An asynchronous server would read a plain iterator to its end before it sends a byte.
    content = _one_by_one(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response["Cache-Control"] = "no-store, private"
    return response


def _marked(pieces: Iterator[str]) -> Iterator[str]:
    yield "\ufeff"
    yield from pieces


async def _one_by_one(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await sync_to_async(_next)(pieces)) is not None:
        yield piece


def _next(pieces: Iterator[bytes]) -> bytes | None:
    try:
        return next(pieces, None)
    finally:
        # The reader may pause for as long as it likes, and pages share few connections: those of a pool go
        # back to it meanwhile, also what the view has asked before.
        close_old_connections()
