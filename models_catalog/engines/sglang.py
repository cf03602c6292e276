"""SGLang. Our attempt id travels as `rid`; it aborts by prefix, so ids are random and of fixed length.

Where it takes no `rid` it makes ids of its own; its request log can name our X-Request-Id then.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from models_catalog.engines.base import EngineCall, OpenAIEngine
from models_catalog.engines.counters import SGLANG
from models_catalog.engines.endpoints import Endpoint
from models_catalog.engines.feed_formats import GENERIC_FORMATS, FeedFormat

# The others give their answers ids of their own.
_TAKES_RID = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS})


class SglangEngine(OpenAIEngine):
    name = "sglang"
    health_path = "/health"
    counter_dialects = (SGLANG,)
    feed_formats = (FeedFormat.SGLANG_LOG, FeedFormat.SGLANG_EXPORT, *GENERIC_FORMATS)
    endpoints = frozenset(Endpoint)
    extra_fields: Mapping[str, Any] = {
        "repetition_penalty": Annotated[float, Meta(gt=0, le=10)] | None,
        "min_tokens": Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        "stop_token_ids": Annotated[list[int], Meta(max_length=64)] | None,
    }

    def body(self, call: EngineCall) -> dict[str, Any]:
        body = super().body(call)
        if call.endpoint in _TAKES_RID:
            body["rid"] = call.attempt_id
        if call.endpoint == Endpoint.EMBEDDINGS:
            _name_inputs(body, call.attempt_id)
        return body

    def usage_options(self) -> dict[str, Any]:
        return {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def _name_inputs(body: dict[str, Any], attempt_id: str) -> None:
    """Of a list of inputs SGLang wants one id each, and fails at one id for all of them; a list with a single
    input is the same as that input."""
    inputs = body["input"]
    if not isinstance(inputs, list) or isinstance(inputs[0], int):
        return
    if len(inputs) == 1:
        body["input"] = inputs[0]
    else:
        # As it numbers prompts by itself.
        body["rid"] = [f"{attempt_id}_{number}" for number in range(len(inputs))]
