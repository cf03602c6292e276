"""Engine adapters, one module an engine."""

from collections.abc import Mapping

from models_catalog.engines.base import ChatCall, EngineAdapter, OpenAIEngine, UpstreamCall, UsageReport
from models_catalog.engines.counters import CounterReading, UnreadableCounters
from models_catalog.engines.llamacpp import LlamaCppEngine
from models_catalog.engines.sglang import SglangEngine
from models_catalog.engines.vllm import VllmEngine

__all__ = [
    "ADAPTERS",
    "ChatCall",
    "CounterReading",
    "EngineAdapter",
    "UnreadableCounters",
    "UpstreamCall",
    "UsageReport",
]

ADAPTERS: Mapping[str, EngineAdapter] = {
    adapter.name: adapter for adapter in (OpenAIEngine(), LlamaCppEngine(), VllmEngine(), SglangEngine())
}
