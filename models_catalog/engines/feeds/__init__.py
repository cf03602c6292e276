"""Usage feeds: what engines tell of single calls, read strictly. Each way in is text from another machine.

`reader_of` reads lines, `body_reader_of` pushed bodies. No parser keeps, answers or names anything of a
record but its counts and ids: some feeds carry prompts.
"""

from models_catalog.engines.feed_formats import GENERIC_FORMATS, FeedFormat
from models_catalog.engines.feeds.entry import (
    MAX_COUNT,
    MAX_EVENT_ID,
    MAX_LINE_BYTES,
    MAX_PART,
    MAX_WIRE_ID,
    BodyReader,
    FeedEntry,
    Finish,
    LineProblem,
    LineReader,
    NoLineFormat,
    UnknownContentType,
    UnreadableItem,
    UnreadableLine,
)
from models_catalog.engines.feeds.options import BadFeedOptions, FeedOptions, TimeUnit, parse_options
from models_catalog.engines.feeds.readers import LINE_FORMATS, body_reader_of, reader_of

__all__ = [
    "GENERIC_FORMATS",
    "LINE_FORMATS",
    "MAX_COUNT",
    "MAX_EVENT_ID",
    "MAX_LINE_BYTES",
    "MAX_PART",
    "MAX_WIRE_ID",
    "BadFeedOptions",
    "BodyReader",
    "FeedEntry",
    "FeedFormat",
    "FeedOptions",
    "Finish",
    "LineProblem",
    "LineReader",
    "NoLineFormat",
    "TimeUnit",
    "UnknownContentType",
    "UnreadableItem",
    "UnreadableLine",
    "body_reader_of",
    "parse_options",
    "reader_of",
]
