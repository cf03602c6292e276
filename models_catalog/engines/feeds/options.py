"""What a feed's owner says about it in the catalog file."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from enum import StrEnum
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct

from models_catalog.engines.feed_formats import FeedFormat
from models_catalog.engines.feeds.entry import Finish

MAPPED_FORMATS = frozenset({FeedFormat.NDJSON, FeedFormat.CSV})
# Fields of an entry that a column can be named for; the first three must be.
COLUMN_FIELDS = (
    "wire_id",
    "prompt_tokens",
    "completion_tokens",
    "part",
    "cached_tokens",
    "reasoning_tokens",
    "finish",
    "finished_at",
    "event_id",
    "unit",
)
REQUIRED_COLUMNS = COLUMN_FIELDS[:3]


class BadFeedOptions(ValueError):
    """The options do not fit the format. The message is for the catalog's author."""


class TimeUnit(StrEnum):
    """How a column tells moments. ISO texts without an offset are in the feed's time zone."""

    ISO = "iso"
    UNIX_S = "unix_s"
    UNIX_MS = "unix_ms"
    UNIX_US = "unix_us"
    UNIX_NS = "unix_ns"


class FeedOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of one feed. Only `time_zone` concerns the engines' own formats.

    time_zone: an IANA name, for moments without an offset. columns: our field to the name of a CSV column or
    to the dotted path of a JSON member. header: the CSV file's columns in their order (each line is read on
    its own, from any place of a file, so the first line cannot be asked). finishes: the engine's own words
    for how a call ended. count_unit: there is just one; others are refused, never converted.
    """

    time_zone: str = "UTC"
    columns: Mapping[str, str] = {}
    header: Sequence[str] = ()
    delimiter: str = ","
    finishes: Mapping[str, Finish] = {}
    time_unit: TimeUnit = TimeUnit.ISO
    count_unit: Literal["tokens"] = "tokens"

    def zone(self) -> tzinfo:
        return ZoneInfo(self.time_zone)


def parse_options(format: FeedFormat, raw: Mapping[str, Any]) -> FeedOptions:
    """The options as they stand in a catalog file; of a database row, what UsageFeed.columns holds and the
    time zone beside it. Raises BadFeedOptions."""
    try:
        options = msgspec.convert(raw, FeedOptions)
    except msgspec.ValidationError as error:
        raise BadFeedOptions(str(error)) from error
    check_options(format, options)
    return options


def check_options(format: FeedFormat, options: FeedOptions) -> None:
    """Raises BadFeedOptions when the options do not fit the format."""
    try:
        options.zone()
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadFeedOptions("time_zone is no IANA time zone") from error
    if format not in MAPPED_FORMATS:
        if options.columns or options.header:
            raise BadFeedOptions(f"the format {format.value} has columns of its own")
        return
    unknown = sorted(set(options.columns) - set(COLUMN_FIELDS))
    if unknown:
        raise BadFeedOptions(f"columns has the unknown field {unknown[0]!r}")
    missing = [field for field in REQUIRED_COLUMNS if not options.columns.get(field)]
    if missing:
        raise BadFeedOptions(f"columns lacks {missing[0]!r}")
    if format is FeedFormat.CSV:
        _check_header(options)


def _check_header(options: FeedOptions) -> None:
    if len(options.delimiter) != 1 or options.delimiter in '"\r\n\0':
        raise BadFeedOptions("delimiter is one character, and neither a quote nor a line end")
    if len(set(options.header)) != len(options.header):
        raise BadFeedOptions("header names a column twice")
    absent = [column for column in options.columns.values() if column not in options.header]
    if absent:
        raise BadFeedOptions(f"header lacks the column {absent[0]!r}")
