"""SGLang. Our attempt id travels as `rid`; it aborts by prefix, so ids are random and of fixed length."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from models_catalog.engines.base import ChatCall, OpenAIEngine
from models_catalog.engines.counters import SGLANG


class SglangEngine(OpenAIEngine):
    name = "sglang"
    counter_dialects = (SGLANG,)
    extra_fields: Mapping[str, Any] = {
        "repetition_penalty": Annotated[float, Meta(gt=0, le=10)] | None,
        "min_tokens": Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        "stop_token_ids": Annotated[list[int], Meta(max_length=64)] | None,
    }

    def body(self, call: ChatCall) -> dict[str, Any]:
        body = {**super().body(call), "rid": call.attempt_id}
        if call.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return body
