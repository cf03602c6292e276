"""Pushed bodies: records one by one, each read or told unreadable on its own."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from models_catalog.engines.feeds.entry import (
    FeedEntry,
    LineProblem,
    LineReader,
    UnknownContentType,
    UnreadableItem,
    UnreadableLine,
)
from models_catalog.engines.feeds.lines import decode

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
EVENT = "application/cloudevents+json"
EVENT_BATCH = "application/cloudevents-batch+json"
# No body within a door's bounds has more records that say anything.
MAX_ITEMS = 250_000
LINES = ("application/x-ndjson", "text/csv", "text/plain")

T = TypeVar("T")

_batch_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def media_type(content_type: str) -> str:
    """The type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def check_items(number: int) -> None:
    """Raises UnreadableLine for a body that is all small pieces: each would cost as much as a record."""
    if number > MAX_ITEMS:
        raise UnreadableLine(LineProblem.TOO_LONG, "records")


def read_items(
    items: Iterable[T], read: Callable[[T], FeedEntry | None], bytes_of: Callable[[T], bytes]
) -> Sequence[FeedEntry | UnreadableItem]:
    """What each item says; those that cannot be read do not disturb the others."""
    told: list[FeedEntry | UnreadableItem] = []
    for index, item in enumerate(items):
        try:
            entry = read(item)
        except UnreadableLine as problem:
            raw = bytes_of(item)
            told.append(
                UnreadableItem(index, problem.reason, problem.detail, len(raw), hashlib.sha256(raw).digest())
            )
        else:
            if entry is not None:
                told.append(entry)
    return told


class EventsReader:
    """CloudEvents: a batch, or one structured event."""

    def __init__(self, reader: LineReader) -> None:
        self._reader = reader

    def read_body(self, body: bytes, content_type: str) -> Sequence[FeedEntry | UnreadableItem]:
        kind = media_type(content_type)
        if kind == EVENT_BATCH:
            batch = decode(_batch_decoder, body)
            check_items(len(batch))
            events = [bytes(event) for event in batch]
        elif kind == EVENT:
            events = [body]
        else:
            raise UnknownContentType(f"{EVENT_BATCH} or {EVENT}")
        return read_items(events, self._reader.read, bytes)


class LinesReader:
    """Lines of any format, sent instead of written to a file; their index counts from 0."""

    def __init__(self, reader: LineReader) -> None:
        self._reader = reader

    def read_body(self, body: bytes, content_type: str) -> Sequence[FeedEntry | UnreadableItem]:
        if media_type(content_type) not in LINES:
            raise UnknownContentType(" or ".join(LINES))
        check_items(body.count(b"\n"))
        return read_items(body.split(b"\n"), self._reader.read, bytes)
