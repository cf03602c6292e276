"""Pushed bodies: each record on its own, whole bodies refused as a whole."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from models_catalog.engines.feeds import (
    BodyReader,
    FeedEntry,
    FeedFormat,
    FeedOptions,
    Finish,
    LineProblem,
    NoLineFormat,
    UnknownContentType,
    UnreadableItem,
    UnreadableLine,
    body_reader_of,
    reader_of,
)
from models_catalog.engines.feeds.tests.samples import (
    ATTEMPT_ID,
    OURS,
    VALUES,
    cloudevent,
    csv_line,
    options_of,
)

BATCH = "application/cloudevents-batch+json"
PROTOBUF = "application/x-protobuf"
OTLP = body_reader_of(FeedFormat.VLLM_OTLP, FeedOptions())
EVENTS = body_reader_of(FeedFormat.CLOUDEVENTS, FeedOptions())


def span(attributes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    told = [{"key": key, "value": value} for key, value in attributes.items()]
    return {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "endTimeUnixNano": "1795478482500000000",
        "attributes": told,
        **fields,
    }


USED = {
    "gen_ai.request.id": {"stringValue": f"chatcmpl-{OURS}"},
    "gen_ai.usage.prompt_tokens": {"intValue": "18"},
    "gen_ai.usage.completion_tokens": {"intValue": "16"},
}


def otlp(*spans: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


def read_span(told: Any) -> FeedEntry | UnreadableItem:
    (item,) = OTLP.read_body(otlp(told), "application/json")
    return item


def test_otlp_comes_as_bodies_only() -> None:
    with pytest.raises(NoLineFormat):
        reader_of(FeedFormat.VLLM_OTLP, FeedOptions())


def test_a_span() -> None:
    entry = read_span(span(USED))
    assert isinstance(entry, FeedEntry)
    assert (entry.attempt_id, entry.prompt_tokens, entry.completion_tokens) == (ATTEMPT_ID, 18, 16)
    assert (entry.finish, entry.cached_tokens) == (Finish.STOP, None)
    assert entry.event_id == "5b8efff798038103d269b633813fc60c:eee19b7ec3c1b174"
    numbers = {**USED, "gen_ai.usage.prompt_tokens": {"intValue": 18}}
    assert read_span(span(numbers, endTimeUnixNano=1795478482500000000)) == entry


@pytest.mark.parametrize(
    ("more", "finish"),
    [
        ({"gen_ai.request.max_tokens": {"intValue": "16"}}, Finish.LENGTH),
        ({"gen_ai.request.max_tokens": {"intValue": "17"}}, Finish.STOP),
        (
            {"gen_ai.response.finish_reasons": {"arrayValue": {"values": [{"stringValue": "abort"}]}}},
            Finish.ABORT,
        ),
    ],
)
def test_how_a_span_ended(more: dict[str, Any], finish: Finish) -> None:
    entry = read_span(span(USED | more))
    assert isinstance(entry, FeedEntry)
    assert entry.finish is finish


def test_a_span_with_the_later_names() -> None:
    later = {
        "gen_ai.request.id": USED["gen_ai.request.id"],
        "gen_ai.usage.input_tokens": {"intValue": "18"},
        "gen_ai.usage.output_tokens": {"intValue": "16"},
        "gen_ai.request.max_tokens": {"intValue": "16"},
    }
    entry = read_span(span(later))
    assert isinstance(entry, FeedEntry)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.finish) == (18, 16, Finish.LENGTH)


def test_a_failed_span() -> None:
    entry = read_span(span(USED, status={"code": 2}))
    assert isinstance(entry, FeedEntry)
    assert entry.finish is Finish.ERROR


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gen_ai.usage.prompt_tokens": {"intValue": "-1"}}, LineProblem.NEGATIVE),
        ({"gen_ai.usage.prompt_tokens": {"intValue": "1.5"}}, LineProblem.NOT_WHOLE),
        ({"gen_ai.usage.prompt_tokens": {"intValue": "2147483648"}}, LineProblem.TOO_BIG),
        ({"gen_ai.usage.prompt_tokens": {"doubleValue": 18.0}}, LineProblem.WRONG_SHAPE),
        ({"gen_ai.usage.completion_tokens": {"stringValue": "16"}}, LineProblem.WRONG_SHAPE),
        ({"gen_ai.usage.completion_tokens": None}, LineProblem.WRONG_SHAPE),
        ({"gen_ai.request.id": {"stringValue": ""}}, LineProblem.BAD_ID),
        ({"gen_ai.request.id": {"intValue": "5"}}, LineProblem.WRONG_SHAPE),
    ],
)
def test_a_bad_span_is_told_and_its_neighbours_are_read(changes: dict[str, Any], reason: LineProblem) -> None:
    body = otlp(span(USED), span(USED | changes), span({"http.route": {"stringValue": "/x"}}), span(USED))
    first, bad, last = OTLP.read_body(body, "application/json")
    assert isinstance(first, FeedEntry)
    assert isinstance(last, FeedEntry)
    assert isinstance(bad, UnreadableItem)
    assert (bad.index, bad.reason) == (1, reason)
    raw = json.dumps(span(USED | changes)).encode()
    assert (bad.length_bytes, bad.digest) == (len(raw), hashlib.sha256(raw).digest())


def test_a_bad_span_in_protobuf() -> None:
    export = ExportTraceServiceRequest()
    spans = export.resource_spans.add().scope_spans.add().spans
    for prompt_tokens in (18, -1, 2**40):
        told = spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, end_time_unix_nano=1795478482500000000)
        told.attributes.add(key="gen_ai.request.id").value.string_value = OURS
        told.attributes.add(key="gen_ai.usage.prompt_tokens").value.int_value = prompt_tokens
        told.attributes.add(key="gen_ai.usage.completion_tokens").value.int_value = 1
    entry, negative, big = OTLP.read_body(export.SerializeToString(), PROTOBUF)
    assert isinstance(entry, FeedEntry)
    assert isinstance(negative, UnreadableItem)
    assert isinstance(big, UnreadableItem)
    assert (negative.reason, big.reason) == (LineProblem.NEGATIVE, LineProblem.TOO_BIG)
    assert negative.digest == hashlib.sha256(spans[1].SerializeToString(deterministic=True)).digest()


def test_an_empty_export_says_nothing() -> None:
    assert OTLP.read_body(b"", PROTOBUF) == []
    assert OTLP.read_body(b'{"resourceSpans":[]}', "application/json") == []


def event_with(**changes: Any) -> Any:
    return {**json.loads(cloudevent(VALUES)), **changes}


@pytest.mark.parametrize("kind", ["resources", "scopes"])
def test_an_export_of_nothing_but_envelopes_is_refused_as_a_whole(kind: str) -> None:
    many: list[dict[str, Any]] = [{}] * 10_001
    told = {"resourceSpans": many if kind == "resources" else [{"scopeSpans": many}]}
    request = ExportTraceServiceRequest()
    groups = request.resource_spans if kind == "resources" else request.resource_spans.add().scope_spans
    for _ in many:
        groups.add()
    for body, content_type in (
        (json.dumps(told).encode(), "application/json"),
        (request.SerializeToString(), PROTOBUF),
    ):
        with pytest.raises(UnreadableLine) as caught:
            OTLP.read_body(body, content_type)
        assert (caught.value.reason, caught.value.detail) == (LineProblem.TOO_LONG, "resources or scopes")


def test_a_span_of_nothing_but_attributes_is_told_alone() -> None:
    crumbs = span(USED)
    crumbs["attributes"] += [{}] * 1_000
    first, second = OTLP.read_body(otlp(crumbs, span(USED)), "application/json")
    assert isinstance(first, UnreadableItem)
    assert (first.reason, first.detail) == (LineProblem.TOO_LONG, "attributes")
    assert isinstance(second, FeedEntry)
    request = ExportTraceServiceRequest()
    made = request.resource_spans.add().scope_spans.add().spans.add()
    for _ in range(1_001):
        made.attributes.add()
    (item,) = OTLP.read_body(request.SerializeToString(), PROTOBUF)
    assert isinstance(item, UnreadableItem)


def test_a_batch_of_events() -> None:
    events = [event_with(id=str(number)) for number in range(3)]
    events[1]["data"]["prompt_tokens"] = -1
    first, bad, last = EVENTS.read_body(json.dumps(events).encode(), BATCH + "; charset=UTF-8")
    assert isinstance(first, FeedEntry)
    assert isinstance(last, FeedEntry)
    assert (first.event_id, last.event_id) == ("/centre/node-1 0", "/centre/node-1 2")
    assert isinstance(bad, UnreadableItem)
    assert (bad.index, bad.reason) == (1, LineProblem.NEGATIVE)
    assert EVENTS.read_body(cloudevent(VALUES), "application/cloudevents+json") == [
        reader_of(FeedFormat.CLOUDEVENTS, FeedOptions()).read(cloudevent(VALUES))
    ]


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"specversion": "0.3"}, LineProblem.UNKNOWN_TYPE, "specversion"),
        ({"type": "com.example.usage"}, LineProblem.UNKNOWN_TYPE, "type"),
        ({"source": None}, LineProblem.MISSING_FIELD, "source"),
        ({"source": "a b"}, LineProblem.BAD_ID, "source"),
        ({"id": ""}, LineProblem.BAD_ID, "id"),
        ({"id": 5}, LineProblem.WRONG_SHAPE, "id"),
        ({"id": "x" * 399}, LineProblem.BAD_ID, "event_id"),
        ({"time": "noon"}, LineProblem.BAD_TIME, "time"),
        ({"data": None}, LineProblem.MISSING_FIELD, "data"),
        ({"data": "eyJ9"}, LineProblem.WRONG_SHAPE, ""),
        ({"data": {"wire_id": OURS, "unit": "kilo-tokens"}}, LineProblem.WRONG_UNIT, "data.unit"),
        ({"data": {"wire_id": OURS, "part": -1}}, LineProblem.NEGATIVE, "data.part"),
        ({"data": {"wire_id": OURS, "part": 10_000}}, LineProblem.TOO_BIG, "data.part"),
    ],
)
def test_events_that_are_not_ours(changes: dict[str, Any], reason: LineProblem, detail: str) -> None:
    (item,) = EVENTS.read_body(json.dumps([event_with(**changes)]).encode(), BATCH)
    assert isinstance(item, UnreadableItem)
    assert (item.reason, item.detail) == (reason, detail)


def test_lines_can_be_pushed_too() -> None:
    reader = body_reader_of(FeedFormat.CSV, options_of(FeedFormat.CSV))
    body = b"\r\n".join([csv_line(VALUES), csv_line({**VALUES, "prompt_tokens": "x"}), csv_line(VALUES), b""])
    first, bad, last = reader.read_body(body, "text/csv; header=absent")
    assert first == last
    assert isinstance(bad, UnreadableItem)
    assert bad.index == 1


BODIES: list[tuple[BodyReader, str]] = [
    (OTLP, PROTOBUF),
    (OTLP, "application/json"),
    (EVENTS, BATCH),
    (EVENTS, "application/cloudevents+json"),
]


@pytest.mark.parametrize("content_type", ["", "text/html", "application/cloudevents", "application/json+x"])
@pytest.mark.parametrize("reader", [OTLP, EVENTS])
def test_other_content_types_are_refused(reader: BodyReader, content_type: str) -> None:
    with pytest.raises(UnknownContentType):
        reader.read_body(b"[]", content_type)


@pytest.mark.parametrize(
    ("reader", "content_type", "body"),
    [
        (OTLP, PROTOBUF, b"\xff" * 20),
        (OTLP, "application/json", b"[]"),
        (OTLP, "application/json", b"{}"),
        (OTLP, "application/json", b'{"resourceSpans":7}'),
        (OTLP, "application/json", b"{"),
        (EVENTS, BATCH, b"{}"),
        (EVENTS, BATCH, b"[{]"),
        (EVENTS, BATCH, b"[" * 200_000),
    ],
)
def test_a_body_that_is_no_such_thing_is_refused_as_a_whole(
    reader: BodyReader, content_type: str, body: bytes
) -> None:
    with pytest.raises(UnreadableLine) as caught:
        reader.read_body(body, content_type)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("reader", "content_type", "body"),
    [
        (EVENTS, BATCH, b"[" + b"1," * 250_000 + b"1]"),
        (OTLP, "application/json", otlp().replace(b"[]", b"[" + b"1," * 250_000 + b"1]")),
        (body_reader_of(FeedFormat.NDJSON, options_of(FeedFormat.NDJSON)), "text/plain", b"\n" * 250_001),
    ],
)
def test_a_body_of_crumbs_is_refused_as_a_whole(reader: BodyReader, content_type: str, body: bytes) -> None:
    with pytest.raises(UnreadableLine) as caught:
        reader.read_body(body, content_type)
    assert caught.value.reason is LineProblem.TOO_LONG


@given(st.sampled_from(BODIES), st.binary(max_size=400))
def test_any_body_is_read_or_refused(kind: tuple[BodyReader, str], body: bytes) -> None:
    reader, content_type = kind
    try:
        items = reader.read_body(body, content_type)
    except UnreadableLine:
        return
    assert all(isinstance(item, FeedEntry | UnreadableItem) for item in items)


@given(st.binary(min_size=1, max_size=4), st.integers(0, 200), st.integers(0, 3))
def test_any_damage_to_an_export_is_survived(damage: bytes, place: int, cut: int) -> None:
    export = ExportTraceServiceRequest()
    told = export.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8)
    told.attributes.add(key="gen_ai.request.id").value.string_value = OURS
    told.attributes.add(key="gen_ai.usage.prompt_tokens").value.int_value = 18
    body = export.SerializeToString()
    place %= len(body)
    try:
        items = OTLP.read_body(body[:place] + damage + body[place + cut :], PROTOBUF)
    except UnreadableLine:
        return
    assert all(isinstance(item, FeedEntry | UnreadableItem) for item in items)
