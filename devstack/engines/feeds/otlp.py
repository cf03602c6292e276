"""OTLP/HTTP as vLLM exports its spans, in protobuf or JSON.

Only calls that ended whole have a span, one for each answer that was generated; prompts of /v1/completions
are numbered `-0`, `-1`. Cached and reasoning tokens are not told.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from devstack.engines.feeds.told import Encoding, Told

CONTENT_TYPES: dict[Encoding, str] = {"protobuf": "application/x-protobuf", "json": "application/json"}
_FLAGS = 256
_NAME = "llm_request"
_SCOPE = "vllm.tracing.otel"

Value = str | int | float


class SpanWriter:
    """Makes bodies. The ids of a span are a function of its record, its number and `seed`: sent twice, it is
    the same span. `instance_id` names the process."""

    def __init__(self, *, instance_id: str = "", seed: int = 0, skew_s: float = 0.0) -> None:
        self._seed = seed
        self._skew_s = skew_s
        self._resource: list[tuple[str, Value]] = [
            ("telemetry.sdk.language", "python"),
            ("telemetry.sdk.name", "opentelemetry"),
            ("telemetry.sdk.version", "1.45.2"),
            ("service.instance.id", instance_id or "00000000-0000-4000-8000-000000000000"),
            ("service.name", "vllm"),
            ("vllm.instrumenting_module_name", "vllm.llm_engine"),
            ("vllm.process_id", str(os.getpid())),
        ]

    def body(self, records: Sequence[tuple[Told, int]], encoding: Encoding) -> bytes:
        """One export. The number beside a record keeps the answers of one call apart."""
        return self._protobuf(records) if encoding == "protobuf" else self._json(records)

    def _json(self, records: Sequence[tuple[Told, int]]) -> bytes:
        # Ids in hexadecimal digits and 64-bit numbers as text, as OTLP/JSON wants them.
        spans = []
        for told, number in records:
            trace_id, span_id = self._ids(told, number)
            spans.append(
                {
                    "traceId": trace_id.hex(),
                    "spanId": span_id.hex(),
                    "name": _NAME,
                    "kind": Span.SPAN_KIND_SERVER,
                    "startTimeUnixNano": str(self._nano(told.received_unix)),
                    "endTimeUnixNano": str(self._nano(told.finished_unix)),
                    "attributes": _json_attributes(_attributes(told)),
                    "status": {},
                    "flags": _FLAGS,
                }
            )
        scope = {"scope": {"name": _SCOPE}, "spans": spans}
        resource = {"attributes": _json_attributes(self._resource)}
        return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]})

    def _protobuf(self, records: Sequence[tuple[Told, int]]) -> bytes:
        export = ExportTraceServiceRequest()
        resource = export.resource_spans.add()
        resource.resource.attributes.extend(_protobuf_attributes(self._resource))
        scope = resource.scope_spans.add()
        scope.scope.name = _SCOPE
        for told, number in records:
            trace_id, span_id = self._ids(told, number)
            span = scope.spans.add(
                trace_id=trace_id,
                span_id=span_id,
                name=_NAME,
                kind=Span.SPAN_KIND_SERVER,
                start_time_unix_nano=self._nano(told.received_unix),
                end_time_unix_nano=self._nano(told.finished_unix),
                flags=_FLAGS,
            )
            span.status.SetInParent()
            span.attributes.extend(_protobuf_attributes(_attributes(told)))
        body: bytes = export.SerializeToString()
        return body

    def _ids(self, told: Told, number: int) -> tuple[bytes, bytes]:
        text = f"{self._seed}/{told.wire_id}/{told.finished_unix!r}/{number}"
        digest = hashlib.blake2b(text.encode(), digest_size=24).digest()
        return digest[:16], digest[16:]

    def _nano(self, unix: float) -> int:
        # A float tells no more than microseconds of it.
        return round((unix + self._skew_s) * 1e6) * 1000


def _attributes(told: Told) -> list[tuple[str, Value]]:
    to_first = told.first_token_unix - told.received_unix
    queued = to_first / 8
    decode = told.finished_unix - told.first_token_unix
    return [
        ("gen_ai.latency.time_to_first_token", to_first),
        ("gen_ai.latency.e2e", to_first + decode),
        ("gen_ai.latency.time_in_queue", queued),
        ("gen_ai.usage.prompt_tokens", told.prompt_tokens),
        ("gen_ai.usage.completion_tokens", told.completion_tokens or 0),
        ("gen_ai.latency.time_in_model_prefill", to_first - queued),
        ("gen_ai.latency.time_in_model_decode", decode),
        ("gen_ai.latency.time_in_model_inference", to_first - queued + decode),
        ("gen_ai.request.id", told.wire_id),
        ("gen_ai.request.top_p", 1.0),
        ("gen_ai.request.max_tokens", told.cap_tokens or 0),
        ("gen_ai.request.temperature", 1.0),
        ("gen_ai.request.n", 1),
    ]


def _json_attributes(pairs: Iterable[tuple[str, Value]]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _json_value(value)} for key, value in pairs]


def _json_value(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}


def _protobuf_attributes(pairs: Iterable[tuple[str, Value]]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_protobuf_value(value)) for key, value in pairs]


def _protobuf_value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)
