"""Feeds of backends that exist, and lines as their engines would have written them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from models_catalog.engines.feeds import FeedFormat
from models_catalog.models import UsageFeed
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.reconciliation.ingest.source import FeedSource, feed_source
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import make_backend, unique_name

NDJSON_OPTIONS: dict[str, Any] = {
    "columns": {
        name: name
        for name in (
            *("wire_id", "part", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"),
            *("finish", "finished_at", "event_id", "unit"),
        )
    }
}
CSV_HEADER = list(NDJSON_OPTIONS["columns"])
CSV_OPTIONS: dict[str, Any] = {**NDJSON_OPTIONS, "header": CSV_HEADER}


def make_feed(
    format: FeedFormat = FeedFormat.NDJSON,
    *,
    backend_id: UUID | None = None,
    folder: Path | str = "",
    options: dict[str, Any] | None = None,
) -> FeedSource:
    """A feed of a backend of its own, or of that one."""
    if options is None:
        usual: dict[FeedFormat, dict[str, Any]] = {
            FeedFormat.NDJSON: NDJSON_OPTIONS,
            FeedFormat.CSV: CSV_OPTIONS,
        }
        options = usual.get(format, {})
    backend_id = backend_id or make_backend()
    with role_scope("operator"):
        feed = UsageFeed.objects.create(
            code=unique_name("feed"),
            backend_id=backend_id,
            format=format.value,
            folder=str(folder),
            columns=options,
        )
        return feed_source(feed.id)


def attempt_name(attempt_id: UUID | None = None) -> str:
    return public_id(PREFIXES["attempt"], attempt_id or uuid7())


def entry_dict(wire_id: str | None = None, **values: Any) -> dict[str, Any]:
    return {
        "wire_id": wire_id or attempt_name(),
        "prompt_tokens": 18,
        "cached_tokens": 0,
        "completion_tokens": 16,
        "reasoning_tokens": 0,
        "finish": "stop",
        "finished_at": moment().isoformat(),
        "unit": "tokens",
        **values,
    }


def ndjson_line(wire_id: str | None = None, **values: Any) -> bytes:
    """A whole line, with its end."""
    return json.dumps(entry_dict(wire_id, **values)).encode() + b"\n"


def moment(**back: float) -> datetime:
    """A while ago, to the millisecond, and surely today's or yesterday's."""
    now = utc_now() - timedelta(**(back or {"seconds": 1}))
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def records_of(feed: FeedSource) -> set[tuple[Any, ...]]:
    """What is known of the feed's backend, without when it came and how it stands to the gateway's word."""
    return {
        (
            *(row["subject_id"], row["content_id"], row["part"], row["prompt_tokens"], row["cached_tokens"]),
            *(row["completion_tokens"], row["reasoning_tokens"], row["finish"]),
        )
        for row in rows_of("quotas_feedrecord", backend_id=feed.backend_id)
    }


def quarantine_of(feed: FeedSource) -> list[dict[str, Any]]:
    return sorted(rows_of("quotas_feedquarantine", feed_id=feed.id), key=lambda row: row["offset"])


def files_of(feed: FeedSource) -> list[dict[str, Any]]:
    return sorted(rows_of("quotas_feedfile", feed_id=feed.id), key=lambda row: row["name"])


def state_of(feed: FeedSource) -> dict[str, Any]:
    (row,) = rows_of("quotas_feedstate", feed_id=feed.id)
    return row
