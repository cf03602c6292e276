"""llama.cpp's server.

It closes the connection after each stream while announcing keep-alive, takes no id from us, and lets
`n_predict` beat `max_tokens`, which is why that field is nobody's to send. With `timings_per_token`
every content event of a chat or completion carries running counts: our checkpoints.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from models_catalog.engines.base import OpenAIEngine, UsageReport
from models_catalog.engines.counters import LLAMACPP
from models_catalog.engines.endpoints import Endpoint
from models_catalog.engines.feed_formats import GENERIC_FORMATS


class Timings(Struct):
    predicted_n: int
    prompt_n: int
    cache_n: int = 0


class TimingsBearer(Struct):
    timings: Timings | None = None


_decode_timings = msgspec.json.Decoder(TimingsBearer).decode


class LlamaCppEngine(OpenAIEngine):
    name = "llamacpp"
    health_path = "/health"
    reuses_connections = False
    counter_dialects = (LLAMACPP,)
    # The server itself tells of no single call. A proxy in front of it could, by the ids of its answers.
    feed_formats = GENERIC_FORMATS
    endpoints = frozenset(Endpoint)
    extra_fields: Mapping[str, Any] = {
        "repeat_penalty": Annotated[float, Meta(ge=0, le=10)] | None,
        "typical_p": Annotated[float, Meta(ge=0, le=1)] | None,
    }

    def usage_options(self) -> dict[str, Any]:
        return {**super().usage_options(), "timings_per_token": True}

    def reports_usage(self, event: bytes) -> bool:
        return b'"timings"' in event or super().reports_usage(event)

    def read_usage(self, data: bytes) -> UsageReport | None:
        report = super().read_usage(data)
        if report is not None:
            return report
        try:
            timings = _decode_timings(data).timings
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if timings is None:
            return None
        return UsageReport(
            timings.cache_n + timings.prompt_n, timings.cache_n, timings.predicted_n, 0, is_final=False
        )
