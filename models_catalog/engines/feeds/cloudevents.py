"""Our own schema in CloudEvents 1.0 (JSON): what an engine that nobody thought of can push, without code."""

from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines.feeds.assembly import assemble
from models_catalog.engines.feeds.entry import MAX_EVENT_ID, MAX_PART, FeedEntry, LineProblem, UnreadableLine
from models_catalog.engines.feeds.lines import decode, line_of
from models_catalog.engines.feeds.options import FeedOptions
from models_catalog.engines.feeds.values import count, finish_of, moment_of_text
from models_catalog.engines.feeds.wire_ids import check_id

TYPE = "sluice.usage.v1"
SPEC_VERSION = "1.0"
UNIT = "tokens"


class UsageData(Struct):
    wire_id: Any = None
    part: Any = None
    prompt_tokens: Any = None
    cached_tokens: Any = None
    completion_tokens: Any = None
    reasoning_tokens: Any = None
    finish: Any = None
    unit: Any = UNIT


class Event(Struct):
    specversion: Any = None
    type: Any = None
    source: Any = None
    id: Any = None
    time: Any = None
    data: UsageData | None = None


_decoder = msgspec.json.Decoder(Event)


class CloudEventsReader:
    """A structured event a line. `source` and `id` together are the event's id, as the standard has it."""

    def __init__(self, options: FeedOptions) -> None:
        self._zone = options.zone()

    def read(self, line: bytes) -> FeedEntry | None:
        text = line_of(line)
        return self._entry(decode(_decoder, text)) if text else None

    def _entry(self, event: Event) -> FeedEntry:
        if event.specversion != SPEC_VERSION:
            raise UnreadableLine(LineProblem.UNKNOWN_TYPE, "specversion")
        if event.type != TYPE:
            raise UnreadableLine(LineProblem.UNKNOWN_TYPE, "type")
        source = check_id(event.source, "source", max_length=MAX_EVENT_ID)
        if " " in source:
            # A source is a URI reference. Without blanks in it, one joins both without doubt.
            raise UnreadableLine(LineProblem.BAD_ID, "source")
        event_id = f"{source} {check_id(event.id, 'id', max_length=MAX_EVENT_ID)}"
        data = event.data
        if data is None:
            raise UnreadableLine(LineProblem.MISSING_FIELD, "data")
        if data.unit != UNIT:
            raise UnreadableLine(LineProblem.WRONG_UNIT, "data.unit")
        return assemble(
            wire_id=data.wire_id,
            part=None if data.part is None else count(data.part, "data.part", MAX_PART),
            prompt_tokens=data.prompt_tokens,
            cached_tokens=data.cached_tokens,
            completion_tokens=data.completion_tokens,
            reasoning_tokens=data.reasoning_tokens,
            finish=finish_of(data.finish),
            finished_at=None if event.time is None else moment_of_text(event.time, "time", self._zone),
            event_id=event_id,
        )
