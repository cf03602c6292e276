"""The formats in which usage is fed to us. Apart from their parsers, which the gateway has no use for."""

from enum import StrEnum


class FeedFormat(StrEnum):
    # SGLang's request log and its metrics export, files of lines.
    SGLANG_LOG = "sglang_log"
    SGLANG_EXPORT = "sglang_export"
    # Spans that vLLM sends to an OTLP endpoint: whole bodies, never lines.
    VLLM_OTLP = "vllm_otlp"
    # The lines that `deploy/vllm/usage_log.py` writes inside vLLM.
    VLLM_MIDDLEWARE = "vllm_middleware"
    # Our own schema, for engines that nobody thought of.
    CLOUDEVENTS = "cloudevents"
    # Anybody's lines, with a mapping of columns.
    NDJSON = "ndjson"
    CSV = "csv"


# What anybody's engine can be connected with, without code.
GENERIC_FORMATS = (FeedFormat.CLOUDEVENTS, FeedFormat.NDJSON, FeedFormat.CSV)
