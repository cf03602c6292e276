"""Completions, responses and messages as real engines were recorded to answer them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models_catalog.engines import UsageReport
from portal.inference.dialects import COMPLETIONS, MESSAGES, RESPONSES, Dialect
from portal.inference.tests.dialect_cases import SLUG, Reader, captured, read
from portal.kit.sse import event_data
from quotas.models import Basis, Provenance

CAPTURES = {name: captured(name) for name in ("completions", "responses", "messages")}
DIALECTS: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "completions": (COMPLETIONS, {"prompt": "Once upon a time", "max_tokens": 8}),
    "responses": (RESPONSES, {"input": "Say hi.", "max_output_tokens": 8}),
    "messages": (MESSAGES, {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 8}),
}
UPSTREAM = {"llamacpp": "smollm2-135m-instruct", "vllm": "tiny", "sglang": "tiny"}

# Prompt, cached and completion tokens; the prompt includes the cached ones, whoever counts.
WHOLE = {
    ("completions", "llamacpp", "completions_plain"): (4, 0, 8),
    ("completions", "vllm", "completions_plain"): (6, 0, 8),
    ("responses", "llamacpp", "responses_plain"): (33, 32, 8),
    ("responses", "vllm", "responses_plain"): (17, 0, 8),
    ("responses", "sglang", "responses_plain"): (17, 16, 6),
    ("messages", "llamacpp", "messages_plain"): (33, 32, 8),
    ("messages", "vllm", "messages_plain"): (17, 0, 8),
    ("messages", "vllm", "messages_long_cached"): (654, 640, 8),
    ("messages", "sglang", "messages_plain"): (17, 4, 8),
}
STREAMS = {
    ("completions", "vllm", "completions_stream_usage"): (6, 0, 8),
    ("responses", "llamacpp", "responses_stream"): (33, 32, 8),
    ("responses", "vllm", "responses_stream"): (17, 0, 8),
    ("responses", "sglang", "responses_stream"): (17, 4, 4),
    ("messages", "llamacpp", "messages_stream"): (33, 32, 8),
    ("messages", "vllm", "messages_stream"): (17, 0, 8),
    # SGLang says nothing of cached tokens in its streams.
    ("messages", "sglang", "messages_stream"): (17, 0, 6),
}
# Streams that the client left: what was delivered, the prompt as far as it was told by then.
CUTS = {
    ("completions", "vllm", "disconnect/completions_cut"): (5, 5, Basis.CHECKPOINT),
    ("responses", "vllm", "disconnect/responses_stream_cut"): (None, 4, Basis.EVENTS),
    ("messages", "vllm", "disconnect/messages_stream_cut"): (17, 6, Basis.EVENTS),
}


def reader(endpoint: str, engine: str, **fields: Any) -> Reader:
    dialect, body = DIALECTS[endpoint]
    return Reader(dialect, read(dialect, body | fields), engine=engine, upstream_model=UPSTREAM[engine])


def test_every_capture_is_read() -> None:
    known = {(endpoint, *key) for endpoint, captures in CAPTURES.items() for key in captures}
    assert known == {*WHOLE, *STREAMS, *CUTS}


@pytest.mark.parametrize(("endpoint", "engine", "name"), WHOLE)
def test_whole_answers(endpoint: str, engine: str, name: str) -> None:
    reading = reader(endpoint, engine)
    answer = CAPTURES[endpoint][engine, name]["answer"]
    shown = reading.whole(answer)
    prompt, cached, completion = WHOLE[endpoint, engine, name]
    assert reading.report == UsageReport(prompt, cached, completion, 0, is_final=True)
    facts = reading.delivery.facts()
    assert (facts.basis, facts.provenance) == (Basis.FINAL_USAGE, Provenance.MEASURED)
    assert (facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens) == (prompt, cached, completion)
    # The same answer under our name of the model, and without llama.cpp's timings.
    assert shown == {key: value for key, value in answer.items() if key != "timings"} | {"model": SLUG}


@pytest.mark.parametrize("at_a_time", [1, 3, 1000])
@pytest.mark.parametrize(("endpoint", "engine", "name"), STREAMS)
def test_streams(endpoint: str, engine: str, name: str, at_a_time: int) -> None:
    reading = reader(endpoint, engine, stream=True)
    events = CAPTURES[endpoint][engine, name]["events"]
    assert reading.stream(events, at_a_time=at_a_time).is_done
    prompt, cached, completion = STREAMS[endpoint, engine, name]
    assert reading.report == UsageReport(prompt, cached, completion, 0, is_final=True)
    facts = reading.delivery.facts()
    assert (facts.basis, facts.completion_tokens) == (Basis.FINAL_USAGE, completion)
    check_shown(reading, events, UPSTREAM[engine])


def check_shown(reading: Reader, events: list[str], upstream: str) -> None:
    """All events, unchanged but for the model's name."""
    assert len(reading.outgoing) == len(events)
    assert f'"{upstream}"'.encode() not in b"".join(reading.outgoing)
    for shown, event in zip(reading.outgoing, events, strict=True):
        told, was = event_data(shown), event_data(event.encode())
        assert shown.split(b"data:")[0] == event.encode().split(b"data:")[0]
        if was == b"[DONE]":
            assert told == was
            continue
        assert told is not None
        assert was is not None
        expected = json.loads(was.replace(json.dumps(upstream).encode(), json.dumps(SLUG).encode()))
        expected.pop("timings", None)
        assert json.loads(told) == expected


@pytest.mark.parametrize(("endpoint", "engine", "name"), CUTS)
def test_streams_that_were_cut(endpoint: str, engine: str, name: str) -> None:
    reading = reader(endpoint, engine, stream=True)
    run = reading.stream(CAPTURES[endpoint][engine, name]["events"])
    assert not run.is_done
    facts = reading.delivery.facts()
    prompt, completion, basis = CUTS[endpoint, engine, name]
    assert (facts.completion_tokens, facts.basis) == (completion, basis)
    assert facts.prompt_tokens == (prompt or facts.prompt_tokens) >= 1


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_nothing_is_delivered_before_there_is_content(endpoint: str) -> None:
    reading = reader(endpoint, "vllm", stream=True)
    name = {"responses": "responses_stream", "messages": "messages_stream"}[endpoint]
    reading.stream(CAPTURES[endpoint]["vllm", name]["events"][:2])
    assert reading.delivery.facts().basis == Basis.NOTHING


@pytest.mark.parametrize(("endpoint", "engine", "name"), STREAMS)
def test_a_stream_opens_with_the_engines_id(endpoint: str, engine: str, name: str) -> None:
    dialect, _ = DIALECTS[endpoint]
    first, *rest = (event.encode() for event in CAPTURES[endpoint][engine, name]["events"])
    wire_id = dialect.read_opening(first)
    assert wire_id
    assert wire_id.encode() in first
    assert dialect.read_opening(b": thinking\n\n") is None
    if endpoint != "completions":
        with pytest.raises(Exception, match=r".") as caught:
            dialect.read_opening(rest[1])
        assert caught.type.__module__.startswith("msgspec")


FAILURES = {
    "responses": [
        b'event: response.failed\ndata: {"type":"response.failed","response":{"id":"r"}}\n\n',
        b'event: error\ndata: {"type":"error","message":"see /opt/x.py"}\n\n',
        b'data: {"sequence_number":1,"type":"error"}\n\n',
    ],
    "messages": [
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"see /opt/x.py"}}\n\n',
        b'data: {"type": "error"}\n\n',
    ],
}


@pytest.mark.parametrize(
    ("endpoint", "event"), [(name, each) for name in FAILURES for each in FAILURES[name]]
)
def test_an_engines_failure_ends_a_stream_and_is_not_told(endpoint: str, event: bytes) -> None:
    reading = reader(endpoint, "vllm", stream=True)
    name = {"responses": "responses_stream", "messages": "messages_stream"}[endpoint]
    begun = CAPTURES[endpoint]["vllm", name]["events"][:6]
    run = reading.stream([*begun, event, *begun])
    assert run.has_failed
    assert len(reading.outgoing) == len(begun)
    assert not any(b"/opt" in shown for shown in reading.outgoing)


def test_a_schema_cannot_pretend_to_be_a_failure() -> None:
    """What clients define is told back in a response, and may look like anything."""
    tools = [{"type": "function", "parameters": {"error": {"type": "response.failed"}, "model": "tiny"}}]
    response = {"id": "r", "object": "response", "model": "tiny", "tools": tools, "usage": None}
    reading = reader("responses", "vllm", stream=True)
    event = (
        f"event: response.created\ndata: {json.dumps({'type': 'response.created', 'response': response})}\n\n"
    )
    assert not reading.stream([event]).has_failed
    data = event_data(reading.outgoing[0])
    assert data is not None
    assert json.loads(data)["response"] == response | {"model": SLUG}
