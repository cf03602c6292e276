"""Lines and bodies of feeds have exactly the members, in their order and types, that real engines wrote."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devstack.engines.feeds.formats import make_line_format
from devstack.engines.feeds.generic import CloudEvents
from devstack.engines.feeds.otlp import SpanWriter
from devstack.engines.feeds.sglang import SglangExport, SglangLog
from devstack.engines.feeds.told import FeedFormat, Told

CAPTURED: dict[str, str] = json.loads(
    (Path(__file__).parent / "captured_feeds.json").read_text(encoding="utf-8")
)
TOLD = Told(
    wire_id="gw-01JABC0001",
    prompt_tokens=18,
    completion_tokens=16,
    finish="length",
    received_unix=1795478482.905601,
    first_token_unix=1795478482.937731,
    finished_unix=1795478482.994705,
    header_id="xreq-1",
    cap_tokens=16,
)
UNNAMED = Told(
    wire_id="gw-2",
    prompt_tokens=17,
    completion_tokens=8,
    finish="length",
    cached_tokens=16,
    received_unix=1795478487.7938304,
    first_token_unix=1795478487.82,
    finished_unix=1795478487.846,
)


def shape(value: Any) -> Any:
    """Members with their types, in their order."""
    if isinstance(value, dict):
        return [(key, shape(member)) for key, member in value.items()]
    return [shape(member) for member in value] if isinstance(value, list) else type(value).__name__


def parts_of(line: bytes | str) -> tuple[str, dict[str, Any]]:
    """The bracket and the object of a line of SGLang's log."""
    text = line.decode() if isinstance(line, bytes) else line
    bracket, _, rest = text.partition("] ")
    decoded: dict[str, Any] = json.loads(rest)
    return bracket + "]", decoded


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_utc")
def test_sglang_log_of_a_finished_call() -> None:
    bracket, line = parts_of(SglangLog().line(TOLD))
    captured_bracket, captured = parts_of(CAPTURED["sglang_finished"])
    assert shape(line) == shape(captured)
    assert bracket == captured_bracket == "[2026-11-24 00:01:22]"
    assert line["timestamp"] == "2026-11-24T00:01:22.994705"
    meta, captured_meta = line["out"]["meta_info"], captured["out"]["meta_info"]
    for member in (
        "id",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "cached_tokens",
        "weight_versions",
    ):
        assert meta[member] == captured_meta[member]
    assert line["rid"] == line["obj"]["rid"] == "gw-01JABC0001"
    assert meta["request_finished_ts"] == TOLD.finished_unix


def test_sglang_log_without_a_logged_header_and_with_cached_tokens() -> None:
    _, line = parts_of(SglangLog().line(UNNAMED))
    _, captured = parts_of(CAPTURED["sglang_finished_choice"])
    # Of several choices the engine forgets the modalities.
    line["obj"]["modalities"] = None
    assert shape(line) == shape(captured)
    assert line["out"]["meta_info"]["cached_tokens_details"] == {"device": 16, "host": 0}


@pytest.mark.parametrize(
    ("name", "wire_ids", "told"),
    [
        ("sglang_received", ("gw-01JABC0001",), TOLD),
        ("sglang_received_two_choices", ("gw-n2-0001_0", "gw-n2-0001_1"), UNNAMED),
        (
            "sglang_received_two_prompts",
            ("a", "b"),
            msgspec.structs.replace(UNNAMED, path="/v1/completions"),
        ),
    ],
)
def test_sglang_log_of_a_call_that_begins(name: str, wire_ids: tuple[str, ...], told: Told) -> None:
    _, line = parts_of(SglangLog().opening(wire_ids, told))
    _, captured = parts_of(CAPTURED[name])
    assert shape(line) == shape(captured)
    assert line["rid"] == (wire_ids[0] if len(wire_ids) == 1 else list(wire_ids))


def test_sglang_export() -> None:
    line, captured = json.loads(SglangExport().line(TOLD)), json.loads(CAPTURED["sglang_export"])
    assert shape(line) == shape(captured)
    parameters, captured_parameters = (
        json.loads(record["request_parameters"]) for record in (line, captured)
    )
    assert shape(parameters) == shape(captured_parameters)
    assert parameters["rid"] == line["id"] == "gw-01JABC0001"


def test_sglang_tells_of_embeddings_what_only_prompts_have() -> None:
    told = Told("e_0", 7, None, "length", finished_unix=1795478482.0)
    meta = parts_of(SglangLog().line(told))[1]["out"]["meta_info"]
    assert meta["prompt_tokens"] == 7
    assert not {"completion_tokens", "cached_tokens", "reasoning_tokens"} & set(meta)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Told("a", 1, 5, "stop"), {"type": "stop", "matched": 2}),
        (Told("a", 1, 5, "length"), {"type": "length", "length": 5}),
        (
            Told("a", 1, 5, "abort"),
            {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None},
        ),
    ],
)
def test_sglang_finish_reasons(told: Told, reason: dict[str, Any]) -> None:
    assert json.loads(SglangExport().line(told))["finish_reason"] == reason


@pytest.mark.usefixtures("in_utc")
def test_names_of_files() -> None:
    unix = 1795478482.9
    assert SglangLog(hostname="node-1").file_name(unix) == "node-1_0.log"
    assert SglangLog(hostname="node-1").aside_name(unix) == "node-1_0.log.2026-11-24_00"
    assert SglangExport().file_name(unix) == "sglang-request-metrics-20261124_00.log"
    assert SglangExport(skew_s=3600).file_name(unix) == "sglang-request-metrics-20261124_01.log"


def test_otlp_json_is_what_was_captured() -> None:
    """The capture shows protobuf as its library prints it: kind as a word, ids in base64."""
    body = json.loads(SpanWriter().body([(TOLD, 0)], "json"))
    captured = json.loads(CAPTURED["vllm_export"])
    (resource,), (captured_resource,) = body["resourceSpans"], captured["resourceSpans"]
    assert shape(resource["resource"]) == shape(captured_resource["resource"])
    (span,), (captured_span,) = (part["scopeSpans"][0]["spans"] for part in (resource, captured_resource))
    assert captured_span["kind"] == "SPAN_KIND_SERVER"
    assert span["kind"] == 2
    assert shape(span | {"kind": ""}) == shape(captured_span)
    told, captured_told = (
        {entry["key"]: entry["value"] for entry in one["attributes"]} for one in (span, captured_span)
    )
    for key in ("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens", "gen_ai.request.max_tokens"):
        assert told[key] == captured_told[key]
    assert told["gen_ai.request.id"] == {"stringValue": "gw-01JABC0001"}
    assert span["endTimeUnixNano"] == "1795478482994705000"


def test_both_encodings_of_otlp_say_the_same() -> None:
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    writer = SpanWriter(seed=3)
    records = [(TOLD, 0), (UNNAMED, 1)]
    decoded = MessageToDict(ExportTraceServiceRequest.FromString(writer.body(records, "protobuf")))
    said = json.loads(writer.body(records, "json"))
    for body in (decoded, said):
        for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            # Base64 of bytes here, hexadecimal digits there; a word here, a number there.
            assert all(span.pop(member) for member in ("traceId", "spanId", "kind"))
    assert decoded == said


@pytest.mark.parametrize("name", ["ndjson", "csv", "cloudevents", "vllm_middleware"])
def test_generic_lines_carry_the_counts(name: FeedFormat) -> None:
    form = make_line_format(name)
    line = form.line(TOLD).decode()
    if name == "csv":
        (found,) = csv.DictReader([form.header.decode(), line])
    else:
        found = json.loads(line)
        found = found | found.get("data", {}) | found.get("usage", {})
    assert (int(found["prompt_tokens"]), int(found["completion_tokens"])) == (18, 16)
    assert found.get("wire_id", found.get("request_id")) == "gw-01JABC0001"
    if name != "vllm_middleware":
        assert found["finish"] == "length"
        assert found.get("time", found.get("finished_at")) == "2026-11-24T00:01:22.994705Z"


def test_vllm_tells_no_usage_of_what_broke_off() -> None:
    form = make_line_format("vllm_middleware")
    line = json.loads(form.line(Told("chatcmpl-a", 5, 3, "abort", stream=True, finished_unix=1.0)))
    assert (line["whole"], line["usage"]) == (False, None)
    hidden = json.loads(form.line(Told("chatcmpl-a", 5, 3, cached_tokens=2, shows_cached=False)))
    assert hidden["usage"]["cached_tokens"] is None


def test_a_skewed_clock_shifts_all_times() -> None:
    early, late = (make_line_format("ndjson", skew_s=skew_s).line(TOLD) for skew_s in (0.0, 90.0))
    assert json.loads(early)["finished_at"] == "2026-11-24T00:01:22.994705Z"
    assert json.loads(late)["finished_at"] == "2026-11-24T00:02:52.994705Z"
    assert json.loads(early) | {"finished_at": ""} == json.loads(late) | {"finished_at": ""}


def test_a_batch_of_events_is_an_array() -> None:
    events = json.loads(CloudEvents(source="/centre/1").batch([TOLD, UNNAMED]))
    assert [event["data"]["wire_id"] for event in events] == ["gw-01JABC0001", "gw-2"]
    assert {event["source"] for event in events} == {"/centre/1"}
    assert len({event["id"] for event in events}) == 2
