"""SGLang's request log and its per-request metrics export."""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines.feeds.assembly import assemble
from models_catalog.engines.feeds.entry import FeedEntry, Finish, LineProblem, UnreadableLine
from models_catalog.engines.feeds.lines import decode, line_of
from models_catalog.engines.feeds.options import FeedOptions
from models_catalog.engines.feeds.values import finish_of, moment_of_text, moment_of_unix


class FinishReason(Struct):
    type: Any = None


class MetaInfo(Struct):
    """What both files say of a finished call. Nothing beside these fields is ever decoded: prompts stand
    there. Numbers are checked by us, which tells better what is wrong with them."""

    id: Any = None
    prompt_tokens: Any = None
    cached_tokens: Any = None
    completion_tokens: Any = None
    reasoning_tokens: Any = None
    finish_reason: FinishReason | None = None
    request_finished_ts: Any = None


class Out(Struct):
    meta_info: MetaInfo | None = None


class Headers(Struct):
    request_id: Any = msgspec.field(default=None, name="x-request-id")


class LogEvent(Struct):
    event: str
    timestamp: Any = None
    headers: Headers | None = None
    out: Out | None = None


_log_decoder = msgspec.json.Decoder(LogEvent)
_export_decoder = msgspec.json.Decoder(MetaInfo)

_FINISHED = "request.finished"
# The bracket holds a time and nothing else.
_MAX_BRACKET = 40


class SglangLogReader:
    """`[2026-11-24 00:01:22] {…}`, an event a line. The bracket and the event's own timestamp are local times
    without an offset; the absolute one within the counts is preferred, which `--enable-metrics` adds."""

    def __init__(self, options: FeedOptions) -> None:
        self._zone = options.zone()

    def read(self, line: bytes) -> FeedEntry | None:
        text = line_of(line)
        if not text:
            return None
        if text[:1] == b"[":
            bracket = text.find(b"]", 0, _MAX_BRACKET)
            if bracket < 0:
                raise UnreadableLine(LineProblem.WRONG_SHAPE, "time in brackets")
            text = text[bracket + 1 :]
        event = decode(_log_decoder, text)
        if event.event != _FINISHED:
            return None
        meta = event.out.meta_info if event.out is not None else None
        if meta is None:
            raise UnreadableLine(LineProblem.MISSING_FIELD, "out.meta_info")
        finished_at = _finished_at(meta)
        if finished_at is None and event.timestamp is not None:
            finished_at = moment_of_text(event.timestamp, "timestamp", self._zone)
        return _entry(meta, finished_at, event.headers.request_id if event.headers is not None else None)


class SglangExportReader:
    """A flat object a line. The request's parameters stand in it as one text, the prompt among them."""

    def __init__(self, options: FeedOptions) -> None:
        del options

    def read(self, line: bytes) -> FeedEntry | None:
        text = line_of(line)
        if not text:
            return None
        meta = decode(_export_decoder, text)
        return _entry(meta, _finished_at(meta), None)


def _finished_at(meta: MetaInfo) -> datetime | None:
    if meta.request_finished_ts is None:
        return None
    return moment_of_unix(meta.request_finished_ts, "request_finished_ts")


def _entry(meta: MetaInfo, finished_at: datetime | None, header: object) -> FeedEntry | None:
    finish = finish_of(meta.finish_reason.type) if meta.finish_reason is not None else Finish.UNKNOWN
    completion_tokens = meta.completion_tokens
    if completion_tokens is None and meta.cached_tokens is None and meta.reasoning_tokens is None:
        if meta.prompt_tokens is None and finish is Finish.ABORT:
            # It was given up while it waited: no token was touched, none is named.
            return None
        # The three come and go together: embeddings have no output.
        completion_tokens = 0
    return assemble(
        wire_id=meta.id,
        named_by=header,
        prompt_tokens=meta.prompt_tokens,
        cached_tokens=meta.cached_tokens,
        completion_tokens=completion_tokens,
        reasoning_tokens=meta.reasoning_tokens,
        finish=finish,
        finished_at=finished_at,
    )
