"""What real engines wrote of an exchange, against the usage that they answered in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from models_catalog.engines.feeds import (
    FeedEntry,
    FeedFormat,
    FeedOptions,
    Finish,
    body_reader_of,
    reader_of,
)
from models_catalog.engines.feeds.tests import usage_log
from models_catalog.engines.feeds.tests.samples import CAPTURES

SGLANG, VLLM = CAPTURES["sglang"], CAPTURES["vllm"]
# The client left: SGLang writes nothing about such a call.
CUT = {"disconnect/stream_cut_after_5_events", "disconnect/nonstream_cut_0.5s"}
# Of two choices SGLang writes three records, and the answer counts the prompt once.
PROMPT_COUNTED_MORE_OFTEN = {"chat_n2": 3}


def sglang_entries(name: str, kind: str) -> list[FeedEntry]:
    format = FeedFormat.SGLANG_LOG if kind == "log" else FeedFormat.SGLANG_EXPORT
    reader = reader_of(format, FeedOptions())
    lines = [line if isinstance(line, str) else json.dumps(line) for line in SGLANG[name][kind]]
    return [entry for line in lines if (entry := reader.read(line.encode() + b"\n")) is not None]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name, capture in SGLANG.items()
        for kind in ("log", "export")
        if capture[kind] and capture["usage"] and name not in CUT
    ],
)
def test_sglang_counts_what_it_answered(name: str, kind: str) -> None:
    capture = SGLANG[name]
    entries = sglang_entries(name, kind)
    usage = capture["usage"]
    times = PROMPT_COUNTED_MORE_OFTEN.get(name, 1)
    assert sum(entry.prompt_tokens for entry in entries) == usage["prompt_tokens"] * times
    assert sum(entry.completion_tokens for entry in entries) == usage["completion_tokens"]
    if usage["cached_tokens"] is not None and times == 1:
        assert sum(entry.cached_tokens or 0 for entry in entries) == usage["cached_tokens"]
    assert all(entry.finish in {Finish.LENGTH, Finish.STOP} for entry in entries)
    assert all(entry.finished_at and entry.finished_at.year == 2026 for entry in entries)


@pytest.mark.parametrize("name", [name for name, capture in SGLANG.items() if capture["log"]])
def test_both_files_of_sglang_say_the_same(name: str) -> None:
    assert sglang_entries(name, "log") == sglang_entries(name, "export")


@pytest.mark.parametrize("name", sorted(CUT))
def test_sglang_says_nothing_of_calls_that_were_cut(name: str) -> None:
    assert SGLANG[name]["log"], "the request was received"
    assert sglang_entries(name, "log") == []


def test_an_aborted_call_has_its_counts_and_says_so() -> None:
    entries = sglang_entries("disconnect/abort_request_prefix", "log")
    assert [(entry.wire_id, entry.completion_tokens, entry.finish) for entry in entries] == [
        ("gw-ab-1", 79, Finish.ABORT),
        ("gw-ab-12", 79, Finish.ABORT),
        ("gw-ab-2", 1200, Finish.LENGTH),
    ]


def test_sglangs_other_calls_keep_the_id_of_the_answer() -> None:
    """Of /v1/responses the answer's id is the record's; it is an alias by which the attempt is found."""
    for name in ("responses_plain", "responses_stream"):
        (entry,) = sglang_entries(name, "log")
        assert entry.wire_id == SGLANG[name]["id"]


WITH_SPANS = [name for name, capture in VLLM.items() if capture["spans"]]


def export_of(spans: Sequence[dict[str, Any]]) -> ExportTraceServiceRequest:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}
    export = ExportTraceServiceRequest()
    ParseDict(body, export)
    return export


def json_of(export: ExportTraceServiceRequest) -> bytes:
    """OTLP's own JSON: ids in hexadecimal, where protobuf's JSON has base64."""
    body = MessageToDict(export, use_integers_for_enums=True)
    spans = [span for scope in body["resourceSpans"][0]["scopeSpans"] for span in scope["spans"]]
    of_protobuf = export.resource_spans[0].scope_spans[0].spans
    for span, original in zip(spans, of_protobuf, strict=True):
        span |= {"traceId": original.trace_id.hex(), "spanId": original.span_id.hex()}
    return json.dumps(body).encode()


@pytest.mark.parametrize("name", WITH_SPANS)
def test_vllms_spans_count_what_it_answered(name: str) -> None:
    capture = VLLM[name]
    export = export_of(capture["spans"])
    reader = body_reader_of(FeedFormat.VLLM_OTLP, FeedOptions())
    entries = reader.read_body(export.SerializeToString(), "application/x-protobuf")
    assert reader.read_body(json_of(export), "application/json; charset=utf-8") == entries
    told = [entry for entry in entries if isinstance(entry, FeedEntry)]
    assert len(told) == len(entries) == len(capture["spans"])
    # Each of several choices has a span, with the whole prompt in it.
    times = len(told) if name.startswith("chat_n2") else 1
    assert sum(entry.prompt_tokens for entry in told) == capture["usage"]["prompt_tokens"] * times
    assert sum(entry.completion_tokens for entry in told) == capture["usage"]["completion_tokens"]
    assert {entry.finish for entry in told} == {Finish.LENGTH}
    assert all(entry.cached_tokens is None for entry in told)
    assert len({entry.event_id for entry in told}) == len(told)


@pytest.mark.parametrize("name", VLLM)
def test_the_middleware_writes_what_vllm_answered(name: str, tmp_path: Path) -> None:
    """The recorded state of each request goes by the middleware again, and what it writes is read."""
    capture = VLLM[name]
    record = capture["middleware"]
    entries = written_by_middleware(record, capture.get("answer", "").encode(), tmp_path)
    if name.startswith(("disconnect", "errors", "embeddings")):
        assert entries == []
        return
    (entry,) = entries
    usage = record["final_usage_info"] or capture["usage"]
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    if capture["usage"]:
        assert entry.prompt_tokens == capture["usage"]["prompt_tokens"]
        assert entry.completion_tokens == capture["usage"]["completion_tokens"]
        # Of chat streams vLLM keeps no details.
        assert entry.cached_tokens in {None, capture["usage"]["cached_tokens"]}
    assert entry.wire_id == record["metadata_request_id"]
    assert entry.finish is Finish.STOP


def written_by_middleware(record: dict[str, Any], answer: bytes, folder: Path) -> list[FeedEntry]:
    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        if record["metadata_request_id"] is not None:
            scope["state"]["request_metadata"] = SimpleNamespace(
                request_id=record["metadata_request_id"], final_usage_info=record["final_usage_info"]
            )
        await send({"type": "http.response.start", "status": record["status"], "headers": []})
        pieces = [answer[at : at + 700] for at in range(0, len(answer), 700)] or [b""]
        for number, piece in enumerate(pieces):
            more = number + 1 < len(pieces) or not record["more_body_false_sent"]
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def send(message: Any) -> None:
        pass

    module = usage_log.load()
    middleware = module.UsageLog(vllm, str(folder))
    headers = [(b"x-request-id", record["x_request_id"].encode())]
    scope = {"type": "http", "path": record["path"], "headers": headers}
    asyncio.run(middleware(scope, None, send))
    middleware.lines.close()
    reader = reader_of(FeedFormat.VLLM_MIDDLEWARE, FeedOptions())
    lines = [line for file in folder.iterdir() for line in file.read_bytes().splitlines()]
    return [entry for line in lines if (entry := reader.read(line)) is not None]
