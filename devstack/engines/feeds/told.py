"""What one record of a usage feed tells of one call, before it is put into words."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

FeedFormat = Literal[
    "sglang_log", "sglang_export", "vllm_middleware", "vllm_otlp", "ndjson", "csv", "cloudevents"
]
Finish = Literal["stop", "length", "abort"]
# Of OTLP.
Encoding = Literal["protobuf", "json"]

FEED_FORMATS: tuple[FeedFormat, ...] = get_args(FeedFormat)
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
CHATS = "/v1/chat/completions"


class Told(msgspec.Struct, frozen=True):
    """One record. A line is a function of it, whoever writes it.

    `prompt_tokens` includes cached ones, `completion_tokens` reasoning; the latter is None for embeddings.
    Times are Unix seconds by a clock that is right. `header_id` is the X-Request-Id of the request, ""
    without one. `part` counts what one call had several of. `shows_cached` is false where the engine does
    not tell.
    """

    wire_id: str
    prompt_tokens: int
    completion_tokens: int | None
    finish: Finish = "stop"
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    received_unix: float = 0.0
    first_token_unix: float = 0.0
    finished_unix: float = 0.0
    part: int = 0
    stream: bool = False
    path: str = CHATS
    header_id: str = ""
    cap_tokens: int | None = None
    status: int = 200
    shows_cached: bool = True
