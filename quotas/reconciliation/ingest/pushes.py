"""Bodies that are pushed: what can be read of one is taken, the rest is quarantined, and whoever sent it
hears."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from models_catalog.engines.feeds import (
    BadFeedOptions,
    FeedEntry,
    FeedFormat,
    FeedOptions,
    UnreadableItem,
    body_reader_of,
)
from quotas.reconciliation.ingest.batch import Batch, Refused
from quotas.reconciliation.ingest.identity import NotTaken, Stager, record_bounds
from quotas.reconciliation.ingest.redaction import redacted
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.taking import Taken, checked_complete_to, take_batch

# In a body; more say that it is not of this format at all.
MAX_UNREADABLE: Final = 1_000
_LINES: Final = frozenset({FeedFormat.NDJSON, FeedFormat.CSV})


class _Scope(msgspec.Struct):
    spans: list[msgspec.Raw] = []


class _Resource(msgspec.Struct):
    scopeSpans: list[_Scope] = []


class _Export(msgspec.Struct):
    resourceSpans: list[_Resource] = []


_export_decoder = msgspec.json.Decoder(_Export)
_events_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class FeedNotReady(ValueError):
    """The feed is switched off, or what the catalog says of it does not fit its format."""


class TooManyUnreadable(ValueError):
    """Next to nothing in the body is of this format; nothing of it was taken."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An item of a body that was not taken. index: from 0. Names fields, never what they hold."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of a body."""

    taken: Taken
    problems: Sequence[Problem]


def take_push(
    *, feed: FeedSource, body: bytes, content_type: str, now: datetime, complete_to: datetime | None = None
) -> Pushed:
    """Take what a body says. now: by the database's clock. complete_to: what ended before then has been sent;
    without it, all has been that the feed says.

    Errors: UnreadableLine for a body that is none of this format as a whole, UnknownContentType,
    TooManyUnreadable, FeedNotReady, BadCompleteTo.
    """
    complete_to = now if complete_to is None else checked_complete_to(complete_to, now=now)
    if not feed.is_enabled:
        raise FeedNotReady("the feed is switched off")
    try:
        options = feed.options()
        reader = body_reader_of(feed.format, options)
    except BadFeedOptions as error:
        raise FeedNotReady("the catalog's options of this feed do not fit its format") from error
    told = reader.read_body(body, content_type)
    batch = Batch(Stager(backend_id=feed.backend_id, bounds=record_bounds(now=now), received_at=now))
    batch.lines = len(told)
    items = _Items(feed.format, body, options)
    for place, item in enumerate(told):
        if isinstance(item, UnreadableItem):
            batch.refuse(items.unreadable(item))
        elif (problem := batch.add(item)) is not None:
            batch.refuse(_not_taken(place, item, problem))
        if len(batch.refused) > MAX_UNREADABLE:
            raise TooManyUnreadable(f"more than {MAX_UNREADABLE} items cannot be read")
    taken = take_batch(feed=feed, batch=batch, received_at=now, complete_to=complete_to)
    return Pushed(taken, [Problem(one.offset, one.reason, one.detail) for one in batch.refused])


class _Items:
    """The items of a body once more, where one could not be read; mostly none is asked for."""

    def __init__(self, format: FeedFormat, body: bytes, options: FeedOptions) -> None:
        self._format = format
        self._body = body
        self._options = options
        self._items: Sequence[bytes] | None = None

    def unreadable(self, item: UnreadableItem) -> Refused:
        if self._items is None:
            self._items = self._split()
        raw = self._items[item.index] if item.index < len(self._items) else b""
        kept = redacted(raw, options=self._options) if raw else ""
        return Refused(item.index, item.length_bytes, item.reason, item.detail, item.digest, kept)

    def _split(self) -> Sequence[bytes]:
        """As readers count them. Of protobuf nothing is kept, which is no text to take anything out of."""
        if self._format in _LINES:
            return self._body.split(b"\n")
        try:
            if self._format is FeedFormat.VLLM_OTLP:
                export = _export_decoder.decode(self._body)
                return [
                    bytes(span)
                    for resource in export.resourceSpans
                    for scope in resource.scopeSpans
                    for span in scope.spans
                ]
            return [bytes(event) for event in _events_decoder.decode(self._body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return [self._body] if self._format is FeedFormat.CLOUDEVENTS else []


def _not_taken(place: int, entry: FeedEntry, problem: NotTaken) -> Refused:
    """An entry that was read and has no place here: its counts are kept, its ids are not. Of which item it
    was is not told, so its place among all that were read stands for it."""
    raw = msgspec.json.encode(entry)
    counts = {
        "part": entry.part,
        "prompt_tokens": entry.prompt_tokens,
        "cached_tokens": entry.cached_tokens,
        "completion_tokens": entry.completion_tokens,
        "reasoning_tokens": entry.reasoning_tokens,
        "finished_at": entry.finished_at.isoformat() if entry.finished_at else None,
    }
    return Refused(place, len(raw), problem, "", hashlib.sha256(raw).digest(), json.dumps(counts))
