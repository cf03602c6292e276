"""What an engine adapter does: write a call the way the engine wants it, and read what it counts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from models_catalog.engines.counters import ALL_DIALECTS, CounterNames, CounterReading, read_counters
from models_catalog.engines.endpoints import PATHS, Endpoint
from models_catalog.engines.feed_formats import GENERIC_FORMATS, FeedFormat
from models_catalog.engines.fields import RESERVED_FIELDS


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """An HTTP request to a backend, complete but for its address and credential."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Counts that a backend reported. `prompt_tokens` includes cached ones, `completion_tokens`
    includes reasoning. is_final: the engine's last word on the call, not a running count."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    is_final: bool


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One attempt as the gateway has decided it. `content` (messages, a prompt, an input) and `fields` are
    validated and passed on; the cap is in tokens, and counts for nothing where there is no output."""

    endpoint: Endpoint
    attempt_id: str
    upstream_model: str
    content: Mapping[str, Any]
    fields: Mapping[str, Any]
    output_cap_tokens: int
    stream: bool


class EngineAdapter(Protocol):
    """One engine. `endpoints` is what it speaks, `extra_fields` are request fields that it takes beyond the
    common ones; `reuses_connections` says whether a connection may serve another call; `feed_formats` are the
    ways in which it tells of single calls, its own ones first."""

    name: str
    endpoints: frozenset[Endpoint]
    extra_fields: Mapping[str, Any]
    reuses_connections: bool
    metrics_path: str
    health_path: str
    feed_formats: Sequence[FeedFormat]

    def write(self, call: EngineCall) -> UpstreamCall: ...

    def reports_usage(self, event: bytes) -> bool:
        """Whether a raw server-sent event carries counts; a cheap look, without decoding it."""
        ...

    def read_usage(self, data: bytes) -> UsageReport | None:
        """The counts in a plain answer or in the data of an event, where they are OpenAI's; None when there
        are none."""
        ...

    def read_counters(self, text: str, headers: Mapping[str, str]) -> CounterReading:
        """The engine's own counters in the page at `metrics_path`, given its text and its headers under
        lower-case names. Raises UnreadableCounters."""
        ...


class PromptDetails(Struct):
    cached_tokens: int | None = None


class CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class Usage(Struct):
    prompt_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    # SGLang names reasoning tokens at the top level too.
    reasoning_tokens: int | None = None


class Choice(Struct):
    finish_reason: str | None = None


class UsageBearer(Struct):
    usage: Usage | None = None
    choices: list[Choice] | None = None
    object: str | None = None


# The counts' key with an object behind it. Quotes in JSON strings are escaped: text cannot look like this.
_HAS_USAGE = re.compile(rb'"usage":\s?\{')

_decode_usage = msgspec.json.Decoder(UsageBearer).decode

# The field in which engines obey a cap. Embeddings have no output.
_CAPS: Mapping[Endpoint, str] = {
    Endpoint.CHAT: "max_tokens",
    Endpoint.COMPLETIONS: "max_tokens",
    Endpoint.RESPONSES: "max_output_tokens",
    Endpoint.MESSAGES: "max_tokens",
}
# Where usage in a stream has to be asked for, and running counts can be.
_ASKS_FOR_USAGE = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS})


class OpenAIEngine:
    """What all OpenAI-compatible engines have in common; the adapters say where they differ."""

    name = "generic"
    # What every compatible server has; the catalog can say that one of them speaks more.
    endpoints = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})
    extra_fields: Mapping[str, Any] = {}
    reuses_connections = True
    metrics_path = "/metrics"
    # Every compatible server has it; what it lists does not matter.
    health_path = "/v1/models"
    # An engine that we know only as compatible may well be one of those whose counters we can read.
    counter_dialects: Sequence[CounterNames] = ALL_DIALECTS
    feed_formats: Sequence[FeedFormat] = GENERIC_FORMATS

    def body(self, call: EngineCall) -> dict[str, Any]:
        body: dict[str, Any] = {
            **{name: value for name, value in call.fields.items() if name not in RESERVED_FIELDS},
            "model": call.upstream_model,
            **call.content,
        }
        if call.endpoint in _CAPS:
            body["stream"] = call.stream
            body[_CAPS[call.endpoint]] = call.output_cap_tokens
        if call.endpoint == Endpoint.RESPONSES:
            # Some engines keep answers unless they are told not to.
            body["store"] = False
        if call.stream and call.endpoint in _ASKS_FOR_USAGE:
            body |= self.usage_options()
        return body

    def usage_options(self) -> dict[str, Any]:
        """What makes a stream carry counts."""
        return {"stream_options": {"include_usage": True}}

    def headers(self, call: EngineCall) -> dict[str, str]:
        # Whether the engine heeds the id or not: it, or a proxy before it, can write it into a usage feed.
        return {"Content-Type": "application/json", "X-Request-Id": call.attempt_id}

    def write(self, call: EngineCall) -> UpstreamCall:
        return UpstreamCall(PATHS[call.endpoint], self.headers(call), msgspec.json.encode(self.body(call)))

    def reports_usage(self, event: bytes) -> bool:
        return _HAS_USAGE.search(event) is not None

    def read_usage(self, data: bytes) -> UsageReport | None:
        try:
            bearer = _decode_usage(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        usage = bearer.usage
        if usage is None:
            return None
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        details = usage.completion_tokens_details
        reasoning = details.reasoning_tokens if details else usage.reasoning_tokens
        return UsageReport(
            usage.prompt_tokens, cached or 0, usage.completion_tokens or 0, reasoning or 0, _is_final(bearer)
        )

    def read_counters(self, text: str, headers: Mapping[str, str]) -> CounterReading:
        return read_counters(text, headers, self.counter_dialects)


def _is_final(bearer: UsageBearer) -> bool:
    """A running count stands beside a choice that goes on; the last word has no choices, or is a whole
    answer. Of a text completion, the event that ends it may be the last word as well."""
    if not bearer.choices or bearer.object == "chat.completion":
        return True
    return bearer.object == "text_completion" and all(choice.finish_reason for choice in bearer.choices)
