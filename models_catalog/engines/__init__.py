"""Engine adapters, one module an engine."""

from collections.abc import Mapping

from models_catalog.engines.base import EngineAdapter, EngineCall, OpenAIEngine, UpstreamCall, UsageReport
from models_catalog.engines.counters import CounterReading, UnreadableCounters
from models_catalog.engines.endpoints import PATHS, Endpoint
from models_catalog.engines.llamacpp import LlamaCppEngine
from models_catalog.engines.sglang import SglangEngine
from models_catalog.engines.vllm import VllmEngine

__all__ = [
    "ADAPTERS",
    "PATHS",
    "CounterReading",
    "Endpoint",
    "EngineAdapter",
    "EngineCall",
    "UnreadableCounters",
    "UpstreamCall",
    "UsageReport",
]

ADAPTERS: Mapping[str, EngineAdapter] = {
    adapter.name: adapter for adapter in (OpenAIEngine(), LlamaCppEngine(), VllmEngine(), SglangEngine())
}
