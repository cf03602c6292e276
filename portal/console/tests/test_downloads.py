"""Files that are written while they are read hold nothing that others need."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections

from portal.pages.downloads import csv_download


def _pieces() -> Iterator[str]:
    for number in range(2):
        with connections["tenant"].cursor() as cursor:
            cursor.execute("SELECT 1")
        yield f"{number}\n"


async def test_a_download_holds_no_connection_while_its_reader_pauses(
    database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The web process shares few connections, so a handful of paused downloads would stop every page."""
    # As where connections come from a pool: closing one gives it back.
    monkeypatch.setitem(connections["tenant"].settings_dict, "CONN_MAX_AGE", 0)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    response = csv_download(ASGIRequest(scope, BytesIO()), _pieces(), "x.csv")
    is_free, text = [], b""
    async for piece in response:
        text += piece
        is_free.append(await sync_to_async(lambda: connections["tenant"].connection is None)())
    assert text.decode("utf-8-sig") == "0\n1\n"
    assert all(is_free)
