"""What /v1 tells of a model beside its calls: its entry in the list, and that its end is near."""

from datetime import datetime
from email.utils import format_datetime
from typing import Any

from portal.inference.snapshot import ModelEntry

Headers = tuple[tuple[bytes, bytes], ...]


def model_object(slug: str, created: int, entry: ModelEntry | None, now: datetime) -> dict[str, Any] | None:
    """OpenAI's object of a model, with what we add to it; None for one that is not served any more.

    created: Unix seconds. entry: None while this process has not heard of a model that is new.
    """
    shown: dict[str, Any] = {
        "id": slug,
        "object": "model",
        "created": created,
        "owned_by": slug.partition("/")[0],
    }
    if entry is None:
        return shown
    if entry.is_retired(now):
        return None
    return shown | {
        "context_length": entry.context_tokens,
        "max_output_tokens": entry.max_output_tokens,
        "capabilities": sorted(entry.capabilities),
        "endpoints": [endpoint.value for endpoint in entry.offered()],
        "aliases": list(entry.aliases),
        "deprecation": _deprecation(entry),
    }


def _deprecation(entry: ModelEntry) -> dict[str, Any] | None:
    if entry.deprecated_at is None:
        return None
    return {
        "deprecated_at": _moment(entry.deprecated_at),
        "sunset_at": _moment(entry.sunset_at) if entry.sunset_at else None,
        "successor": entry.successor,
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def end_headers(entry: ModelEntry, now: datetime) -> Headers:
    """On each answer of a deprecated model: since when it is (RFC 9745), until when it is served (RFC 8594)
    and what follows it. None before the moment of its deprecation."""
    if entry.deprecated_at is None or entry.deprecated_at > now:
        return ()
    headers = [(b"deprecation", b"@%d" % int(entry.deprecated_at.timestamp()))]
    if entry.sunset_at is not None:
        headers.append((b"sunset", format_datetime(entry.sunset_at, usegmt=True).encode()))
    if entry.successor is not None:
        headers.append((b"link", f'</v1/models/{entry.successor}>; rel="successor-version"'.encode()))
    return tuple(headers)
