"""The lines that `deploy/vllm/usage_log.py` writes inside vLLM."""

from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines.feeds.assembly import assemble
from models_catalog.engines.feeds.entry import FeedEntry, Finish, LineProblem, UnreadableLine
from models_catalog.engines.feeds.lines import decode, line_of
from models_catalog.engines.feeds.options import FeedOptions
from models_catalog.engines.feeds.values import moment_of_unix

VERSION = 1


class Usage(Struct):
    prompt_tokens: Any = None
    cached_tokens: Any = None
    completion_tokens: Any = None
    reasoning_tokens: Any = None


class UsageLine(Struct):
    v: int
    # The id inside vLLM, and the one that came with the request.
    request_id: Any = None
    x_request_id: Any = None
    finished_unix: Any = None
    usage: Usage | None = None


_decoder = msgspec.json.Decoder(UsageLine)


class VllmMiddlewareReader:
    def __init__(self, options: FeedOptions) -> None:
        del options

    def read(self, line: bytes) -> FeedEntry | None:
        text = line_of(line)
        if not text:
            return None
        record = decode(_decoder, text)
        if record.v != VERSION:
            raise UnreadableLine(LineProblem.UNKNOWN_TYPE, "v")
        usage = record.usage
        if usage is None:
            # vLLM adds up what was used at the end of a whole answer only: this one broke off.
            return None
        return assemble(
            wire_id=record.request_id,
            named_by=record.x_request_id,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            # A whole answer; whether it ended by itself or at its cap is not told.
            finish=Finish.STOP,
            finished_at=moment_of_unix(record.finished_unix, "finished_unix"),
        )
