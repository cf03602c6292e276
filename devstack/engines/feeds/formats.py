"""Which formats an engine can write, and the one that it writes unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from devstack.engines.feeds.generic import DEFAULT_SOURCE, CloudEvents, Csv, Ndjson
from devstack.engines.feeds.lines import LineFormat
from devstack.engines.feeds.sglang import SglangExport, SglangLog
from devstack.engines.feeds.told import FeedFormat
from devstack.engines.feeds.vllm import VllmMiddleware
from devstack.engines.options import Flavour

LINE_FORMATS: Mapping[Flavour, tuple[FeedFormat, ...]] = {
    "sglang": ("sglang_log", "sglang_export"),
    "vllm": ("vllm_middleware",),
    "generic": ("ndjson", "csv", "cloudevents"),
    "llamacpp": (),
}
"""Those that are written to files; the first one is the default. llama.cpp has nothing but its counters."""


def make_line_format(
    name: FeedFormat, *, skew_s: float = 0.0, hostname: str | None = None, source: str = DEFAULT_SOURCE
) -> LineFormat:
    """Raises ValueError for a format that is no file of lines."""
    match name:
        case "sglang_log":
            return SglangLog(skew_s=skew_s, hostname=hostname)
        case "sglang_export":
            return SglangExport(skew_s=skew_s)
        case "vllm_middleware":
            return VllmMiddleware(skew_s=skew_s, hostname=hostname)
        case "ndjson":
            return Ndjson(skew_s=skew_s)
        case "csv":
            return Csv(skew_s=skew_s)
        case "cloudevents":
            return CloudEvents(skew_s=skew_s, source=source)
        case _:
            raise ValueError(f"{name} is no file of lines")
