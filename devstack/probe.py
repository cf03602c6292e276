"""Asking a local server whether it serves."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

_TIMEOUT_S = 3.0


def answers_ok(url: str) -> bool:
    """Whether a GET of this address is answered with 200 now. Proxies of the environment are not used."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
