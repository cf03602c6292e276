"""Answers as exporters of spans expect them: in the encoding that they sent."""

from __future__ import annotations

import json
from typing import Final

from django.http import HttpResponse

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
# Codes of google.rpc.Status by the status of the answer.
_CODES: Final = {400: 3, 401: 16, 409: 9, 413: 8, 415: 3, 429: 8, 503: 14}


def accepted(*, content_type: str, rejected: int, message: str) -> HttpResponse:
    """An ExportTraceServiceResponse; with rejected spans it says partial_success."""
    if _is_json(content_type):
        told = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}}
        return HttpResponse(json.dumps(told if rejected else {}), content_type=JSON)
    # Here, because only who takes OTLP needs protobuf in memory.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = message
    return HttpResponse(answer.SerializeToString(), content_type=PROTOBUF)


def refused(*, content_type: str, status: int, reason: str) -> HttpResponse:
    """A google.rpc.Status, of which a number and a short text are all that exporters look at."""
    code = _CODES.get(status, 2)
    if _is_json(content_type):
        return HttpResponse(json.dumps({"code": code, "message": reason}), status=status, content_type=JSON)
    text = reason.encode()[:127]
    message = bytes((0x08, code, 0x12, len(text))) + text
    return HttpResponse(message, status=status, content_type=PROTOBUF)


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == JSON
