"""vLLM (and vLLM-Ascend). Our attempt id travels as X-Request-Id and comes back inside the answer's id; only
responses have ids of their own."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from models_catalog.engines.base import OpenAIEngine
from models_catalog.engines.counters import VLLM
from models_catalog.engines.endpoints import Endpoint
from models_catalog.engines.feed_formats import GENERIC_FORMATS, FeedFormat


class VllmEngine(OpenAIEngine):
    name = "vllm"
    health_path = "/health"
    counter_dialects = (VLLM,)
    feed_formats = (FeedFormat.VLLM_OTLP, FeedFormat.VLLM_MIDDLEWARE, *GENERIC_FORMATS)
    endpoints = frozenset(Endpoint)
    extra_fields: Mapping[str, Any] = {
        "repetition_penalty": Annotated[float, Meta(gt=0, le=10)] | None,
        "min_tokens": Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        "stop_token_ids": Annotated[list[int], Meta(max_length=64)] | None,
    }

    def usage_options(self) -> dict[str, Any]:
        return {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
