"""Which reader reads which format."""

from collections.abc import Callable, Mapping

from models_catalog.engines.feed_formats import FeedFormat
from models_catalog.engines.feeds.bodies import EventsReader, LinesReader
from models_catalog.engines.feeds.cloudevents import CloudEventsReader
from models_catalog.engines.feeds.entry import BodyReader, LineReader, NoLineFormat
from models_catalog.engines.feeds.mapped import CsvReader, NdjsonReader
from models_catalog.engines.feeds.options import FeedOptions, check_options
from models_catalog.engines.feeds.sglang import SglangExportReader, SglangLogReader
from models_catalog.engines.feeds.vllm import VllmMiddlewareReader

_READERS: Mapping[FeedFormat, Callable[[FeedOptions], LineReader]] = {
    FeedFormat.SGLANG_LOG: SglangLogReader,
    FeedFormat.SGLANG_EXPORT: SglangExportReader,
    FeedFormat.VLLM_MIDDLEWARE: VllmMiddlewareReader,
    FeedFormat.CLOUDEVENTS: CloudEventsReader,
    FeedFormat.NDJSON: NdjsonReader,
    FeedFormat.CSV: CsvReader,
}
LINE_FORMATS = frozenset(_READERS)


def reader_of(format: FeedFormat, options: FeedOptions) -> LineReader:
    """A reader of this format's lines; it keeps nothing from one line to the next.

    Raises BadFeedOptions when the options do not fit, NoLineFormat for what comes as whole bodies only.
    """
    check_options(format, options)
    if format not in _READERS:
        raise NoLineFormat(f"{format.value} comes as whole bodies")
    return _READERS[format](options)


def body_reader_of(format: FeedFormat, options: FeedOptions) -> BodyReader:
    """A reader of this format's pushed bodies. Raises BadFeedOptions when the options do not fit."""
    check_options(format, options)
    if format is FeedFormat.VLLM_OTLP:
        # Here, because only who takes OTLP needs protobuf in memory.
        from models_catalog.engines.feeds.otlp import OtlpReader

        return OtlpReader(options)
    reader = _READERS[format](options)
    return EventsReader(reader) if format is FeedFormat.CLOUDEVENTS else LinesReader(reader)
