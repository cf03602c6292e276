"""OTLP/HTTP: the spans that vLLM exports, as protobuf or as JSON."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue as ProtoValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from models_catalog.engines.feeds.assembly import assemble
from models_catalog.engines.feeds.bodies import JSON, PROTOBUF, check_items, media_type, read_items
from models_catalog.engines.feeds.entry import (
    MAX_COUNT,
    FeedEntry,
    Finish,
    LineProblem,
    UnknownContentType,
    UnreadableItem,
    UnreadableLine,
)
from models_catalog.engines.feeds.lines import decode
from models_catalog.engines.feeds.options import FeedOptions
from models_catalog.engines.feeds.values import count, count_in_text, finish_of, moment_of_unix

T = TypeVar("T")

_ID = "gen_ai.request.id"
_PROMPT = "gen_ai.usage.prompt_tokens"
_COMPLETION = "gen_ai.usage.completion_tokens"
# The semantic conventions' later names, and counts that newer engines may add.
_PROMPT_LATER = "gen_ai.usage.input_tokens"
_COMPLETION_LATER = "gen_ai.usage.output_tokens"
_CACHED = "gen_ai.usage.cache_read.input_tokens"
_CAP = "gen_ai.request.max_tokens"
_FINISHES = "gen_ai.response.finish_reasons"
_WANTED = frozenset({_ID, _PROMPT, _COMPLETION, _PROMPT_LATER, _COMPLETION_LATER, _CACHED, _CAP, _FINISHES})
_ERROR_STATUS = 2
# fixed64, as protobuf has it.
_MAX_NANOS = 2**64 - 1
# Exporters write one resource, few scopes, and no more attributes than the standard's 128.
_MAX_GROUPS = 10_000
_MAX_ATTRIBUTES = 1_000
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,32}")


class Value(Struct, rename="camel"):
    """A value that is a text, a number or a list of texts; of others nothing is kept."""

    string_value: Any = None
    # In JSON a text of digits, by the rules of protobuf; some exporters write a number.
    int_value: Any = None
    array_value: "Values | None" = None


class Values(Struct):
    values: list[Value] = []


class Attribute(Struct):
    key: Any = None
    value: Value | None = None


class Status(Struct):
    code: Any = None


class Span(Struct, rename="camel"):
    trace_id: Any = None
    span_id: Any = None
    end_time_unix_nano: Any = None
    attributes: list[Attribute] = []
    status: Status | None = None


class ScopeSpans(Struct):
    spans: list[msgspec.Raw] = []


class ResourceSpans(Struct, rename="camel"):
    scope_spans: list[ScopeSpans] = []


class Export(Struct, rename="camel"):
    resource_spans: list[ResourceSpans]


_export_decoder = msgspec.json.Decoder(Export)
_span_decoder = msgspec.json.Decoder(Span)


class Facts(Struct):
    """A span in either encoding. event_id: trace and span in hexadecimal digits."""

    event_id: str
    end_unix_nano: int
    attributes: dict[str, Any]
    is_error: bool


class OtlpReader:
    """Spans without an id of a request are other parts of the engine's work, and left out."""

    def __init__(self, options: FeedOptions) -> None:
        del options

    def read_body(self, body: bytes, content_type: str) -> Sequence[FeedEntry | UnreadableItem]:
        kind = media_type(content_type)
        if kind == PROTOBUF:
            return read_items(_protobuf_spans(body), _entry_of_protobuf, _bytes_of_protobuf)
        if kind == JSON:
            return read_items(_json_spans(body), _entry_of_json, bytes)
        raise UnknownContentType(f"{PROTOBUF} or {JSON}")


def _entry(facts: Facts) -> FeedEntry | None:
    told = facts.attributes
    if _ID not in told:
        return None
    return assemble(
        wire_id=told[_ID],
        prompt_tokens=told.get(_PROMPT, told.get(_PROMPT_LATER)),
        cached_tokens=told.get(_CACHED),
        completion_tokens=told.get(_COMPLETION, told.get(_COMPLETION_LATER)),
        reasoning_tokens=None,
        finish=_finish(facts),
        finished_at=moment_of_unix(facts.end_unix_nano, "endTimeUnixNano", per_second=10**9),
        event_id=facts.event_id,
    )


def _finish(facts: Facts) -> Finish:
    """vLLM exports spans of calls that ended whole, and does not say how: the cap tells."""
    told = facts.attributes
    reasons = told.get(_FINISHES)
    if isinstance(reasons, list) and reasons:
        return finish_of(reasons[-1])
    if facts.is_error:
        return Finish.ERROR
    cap = told.get(_CAP)
    generated = told.get(_COMPLETION, told.get(_COMPLETION_LATER))
    return Finish.LENGTH if cap is not None and cap == generated else Finish.STOP


def _protobuf_spans(body: bytes) -> list[ProtoSpan]:
    try:
        export = ExportTraceServiceRequest.FromString(body)
    except (DecodeError, RecursionError):
        raise UnreadableLine(LineProblem.NOT_PROTOBUF) from None
    return _spans_of([resource.scope_spans for resource in _few(export.resource_spans)])


def _few(groups: Sequence[T]) -> Sequence[T]:
    """Raises UnreadableLine for a body that is all envelopes."""
    if len(groups) > _MAX_GROUPS:
        raise UnreadableLine(LineProblem.TOO_LONG, "resources or scopes")
    return groups


def _spans_of(scopes_of_resources: Sequence[Sequence[Any]]) -> list[Any]:
    """Nothing is built before it was counted."""
    groups = sum(len(scopes) for scopes in scopes_of_resources)
    if groups > _MAX_GROUPS:
        raise UnreadableLine(LineProblem.TOO_LONG, "resources or scopes")
    check_items(sum(len(scope.spans) for scopes in scopes_of_resources for scope in scopes))
    return [span for scopes in scopes_of_resources for scope in scopes for span in scope.spans]


def _check_attributes(number: int) -> None:
    if number > _MAX_ATTRIBUTES:
        raise UnreadableLine(LineProblem.TOO_LONG, "attributes")


def _bytes_of_protobuf(span: ProtoSpan) -> bytes:
    return bytes(span.SerializeToString(deterministic=True))


def _entry_of_protobuf(span: ProtoSpan) -> FeedEntry | None:
    _check_attributes(len(span.attributes))
    return _entry(
        Facts(
            event_id=f"{span.trace_id.hex()}:{span.span_id.hex()}",
            end_unix_nano=span.end_time_unix_nano,
            attributes={
                attribute.key: _protobuf_value(attribute.value)
                for attribute in span.attributes
                if attribute.key in _WANTED
            },
            is_error=span.status.code == _ERROR_STATUS,
        )
    )


def _protobuf_value(value: ProtoValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return value.int_value
    if kind == "array_value":
        return [item.string_value for item in value.array_value.values]
    # No type that a count or an id has; it is told as the wrong shape where it stands.
    return kind or ""


def _json_spans(body: bytes) -> list[msgspec.Raw]:
    export = decode(_export_decoder, body)
    return _spans_of([resource.scope_spans for resource in _few(export.resource_spans)])


def _entry_of_json(raw: msgspec.Raw) -> FeedEntry | None:
    span = decode(_span_decoder, raw)
    _check_attributes(len(span.attributes))
    return _entry(
        Facts(
            event_id=f"{_hexadecimal(span.trace_id, 'traceId')}:{_hexadecimal(span.span_id, 'spanId')}",
            end_unix_nano=_json_count(span.end_time_unix_nano, "endTimeUnixNano", _MAX_NANOS),
            attributes={
                attribute.key: _json_value(attribute.key, attribute.value)
                for attribute in span.attributes
                # A key of another type would be no key of a set.
                if isinstance(attribute.key, str) and attribute.key in _WANTED
            },
            is_error=span.status is not None and span.status.code in (_ERROR_STATUS, "STATUS_CODE_ERROR"),
        )
    )


def _json_value(key: str, value: Value | None) -> Any:
    if value is None:
        return ""
    if value.int_value is not None:
        return _json_count(value.int_value, key, MAX_COUNT)
    if value.array_value is not None:
        return [item.string_value for item in value.array_value.values]
    return value.string_value if value.string_value is not None else ""


def _json_count(value: object, field: str, maximum: int) -> int:
    return count_in_text(value, field, maximum) if isinstance(value, str) else count(value, field, maximum)


def _hexadecimal(value: object, field: str) -> str:
    if not isinstance(value, str) or _HEXADECIMAL.fullmatch(value) is None:
        raise UnreadableLine(LineProblem.BAD_ID, field)
    return value.lower()
