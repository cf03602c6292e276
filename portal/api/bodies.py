"""Bodies: of bounded size, JSON, an object without repeated names."""

from __future__ import annotations

import json
from typing import Any, Final

from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request

from portal.api import problems
from portal.api.problems import Problem

MAX_BODY_BYTES: Final = 64 * 1024


def read_body(request: Request) -> Any:
    """The JSON of a request, an empty object without a body.

    Errors: Problem 400 and 413, UnsupportedMediaType for what does not say that it is JSON.
    """
    raw = _read(request)
    if not raw.strip():
        return {}
    media_type = request.content_type.partition(";")[0].strip().lower() if request.content_type else ""
    if media_type != "application/json":
        raise UnsupportedMediaType(media_type or "nothing")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _RepeatedName) else "It cannot be read as JSON in UTF-8."
        raise Problem(problems.BAD_JSON, reason) from None


def canonical(body: Any) -> bytes:
    """The same for bodies that say the same, however they are written down."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")


class _RepeatedName(ValueError):
    """An object has a name twice."""


def _read(request: Request) -> bytes:
    # What is said to be too long is not even read; what says nothing is read no further than the limit.
    said = str(request.META.get("CONTENT_LENGTH") or "0")
    if not (said.isascii() and said.isdigit()) or int(said) > MAX_BODY_BYTES:
        raise Problem(problems.TOO_LARGE, f"A body has at most {MAX_BODY_BYTES} bytes.")
    raw: bytes = request._request.read(MAX_BODY_BYTES + 1)
    if len(raw) > MAX_BODY_BYTES:
        raise Problem(problems.TOO_LARGE, f"A body has at most {MAX_BODY_BYTES} bytes.")
    return raw


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedName("A name stands twice in one object.")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
