"""Completions, embeddings, responses and messages through the gateway: what clients get and what it costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devstack.engines.testing import start_engine
from portal.gateway.tests.endpoints import HELLO, call, embeddings_of, recorded
from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Answer, cost_nanos, held_nanos, make_stage, stored
from portal.inference.tests.dialect_cases import captured
from tests.database import rows_of
from tests.gateway_process import RunningGateway

# Prompt with its cached part, cached and completion tokens.
RECORDED = [
    ("completions", "llamacpp", "completions_plain", (4, 0, 8)),
    ("completions", "vllm", "completions_plain", (6, 0, 8)),
    ("completions", "vllm", "completions_stream_usage", (6, 0, 8)),
    ("responses", "llamacpp", "responses_plain", (33, 32, 8)),
    ("responses", "llamacpp", "responses_stream", (33, 32, 8)),
    ("responses", "vllm", "responses_stream", (17, 0, 8)),
    ("responses", "sglang", "responses_stream", (17, 4, 4)),
    ("messages", "llamacpp", "messages_plain", (33, 32, 8)),
    ("messages", "llamacpp", "messages_stream", (33, 32, 8)),
    ("messages", "vllm", "messages_long_cached", (654, 640, 8)),
    ("messages", "vllm", "messages_stream", (17, 0, 8)),
    ("messages", "sglang", "messages_stream", (17, 0, 6)),
]


def check_charged(answer: Answer, prompt: int, cached: int, completion: int) -> dict[str, Any]:
    """The request's row, when the call was settled to these counts and within its hold."""
    kept = stored(answer.request_id)
    assert kept.usage is not None
    facts = tuple(kept.usage[f"{name}_tokens"] for name in ("prompt", "cached", "completion"))
    assert facts == (prompt, cached, completion)
    charged = cost_nanos(prompt, completion, cached=cached)
    assert (kept.usage["charged_nanos"], kept.usage["overrun_nanos"]) == (charged, 0)
    assert kept.hold["amount_nanos"] >= charged
    (request,) = rows_of("quotas_inferencerequest", id=answer.request_id)
    return request


@pytest.mark.parametrize(("endpoint", "engine", "name", "counts"), RECORDED)
def test_recorded_answers(
    gateway: RunningGateway, endpoint: str, engine: str, name: str, counts: tuple[int, int, int]
) -> None:
    stream = "stream" in name
    asks = stream and endpoint == "completions"
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}
    text: dict[str, Any] = (
        {"messages": [{"role": "user", "content": "word " * 700}]} if "long" in name else {}
    )
    with recorded(gateway, endpoint, engine, name) as stage:
        answer = call(stage, endpoint, stream=stream, **options, **text)
        assert answer.status == 200
        # Under our name of the model, and whole.
        assert b"smollm2" not in answer.body
        assert b'"tiny"' not in answer.body
        assert stage.model.slug.encode() in answer.body
        if stream:
            assert len(answer.events) == len(captured(endpoint)[engine, name]["events"])
        request = check_charged(answer, *counts)
    assert (request["endpoint"], request["is_stream"]) == (endpoint, stream)
    assert held_nanos(stage.tenant) == 0


def test_usage_of_a_completions_stream_is_left_out_unasked(gateway: RunningGateway) -> None:
    with recorded(gateway, "completions", "vllm", "completions_stream_usage") as stage:
        answer = call(stage, "completions", stream=True)
        assert all(chunk["choices"] for chunk in answer.chunks)
        check_charged(answer, 6, 0, 8)


# Streams that break off.


def test_a_responses_stream_that_breaks_off(gateway: RunningGateway) -> None:
    with recorded(gateway, "responses", "vllm", "responses_stream", upto=6) as stage:
        answer = call(stage, "responses", stream=True)
        last = answer.chunks[-1]
        assert answer.events[-1].startswith(b"event: error\n")
        assert (last["type"], last["code"]) == ("error", "backend_failed")
        assert last["error"]["request_id"] == answer.headers["x-request-id"]
        kept = stored(answer.request_id)
        assert kept.usage is not None
        assert (kept.usage["completion_tokens"], kept.usage["basis"]) == (2, "EVENTS")
        assert kept.usage["provenance"] == "ESTIMATED"
        assert 0 < kept.usage["charged_nanos"] <= kept.hold["amount_nanos"]


def test_a_messages_stream_that_breaks_off(gateway: RunningGateway) -> None:
    """Its beginning has told the prompt, cached tokens and all."""
    with recorded(gateway, "messages", "llamacpp", "messages_stream", upto=5) as stage:
        answer = call(stage, "messages", stream=True)
        last = answer.chunks[-1]
        assert answer.events[-1].startswith(b"event: error\n")
        assert (last["type"], last["error"]["type"]) == ("error", "api_error")
        assert last["request_id"] == answer.headers["x-request-id"]
        kept = stored(answer.request_id)
        assert kept.usage is not None
        names = ("prompt_tokens", "cached_tokens", "completion_tokens")
        assert tuple(kept.usage[name] for name in names) == (33, 32, 3)
        assert kept.usage["provenance"] == "ESTIMATED"


@pytest.mark.parametrize(
    ("endpoint", "name"), [("responses", "responses_stream"), ("messages", "messages_stream")]
)
def test_nothing_delivered_costs_nothing(gateway: RunningGateway, endpoint: str, name: str) -> None:
    with recorded(gateway, endpoint, "vllm", name, upto=2) as stage:
        answer = call(stage, endpoint, stream=True)
        assert answer.events[-1].startswith(b"event: error\n")
        kept = stored(answer.request_id)
        assert (kept.hold["state"], kept.usage) == ("VOIDED", None)


# Several prompts, and none but inputs.


def completion(exchange: Exchange) -> None:
    """Each prompt has so many tokens as letters, and two are the answer."""
    asked = json.loads(exchange.body)
    text = "".join(asked["prompt"]).upper()
    usage = {"prompt_tokens": len(text), "completion_tokens": 2}
    base = {"id": f"c{exchange.number}", "object": "text_completion", "created": 1, "model": "tiny"}
    choice = {"index": 0, "text": text, "finish_reason": "length", "logprobs": None}
    if not asked["stream"]:
        exchange.answer(
            "application/json", json.dumps({**base, "choices": [choice], "usage": usage}).encode()
        )
        return
    exchange.begin_stream()
    for value in ({**base, "choices": [choice]}, {**base, "choices": [], "usage": usage}):
        exchange.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")
    exchange.chunk(b"data: [DONE]\n\n")
    exchange.end_stream()


@pytest.mark.parametrize("stream", [False, True])
def test_each_prompt_is_charged_once(gateway: RunningGateway, stream: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    with ScriptedBackend(completion) as backend:
        stage = make_stage(gateway, ("vllm", backend.url), upstream_model="tiny")
        answer = call(stage, "completions", prompt=["a", "bbb"], n=2, max_tokens=5, stream=stream, **options)
        request = check_charged(answer, 1 + 3, 0, 4 * 2)
    assert (request["choices"], request["endpoint"]) == (4, "completions")
    assert len(stored(answer.request_id).attempts) == 4
    pieces = answer.chunks if stream else [answer.json]
    texts = {
        choice["index"]: choice["text"] for piece in pieces for choice in piece["choices"] if choice["text"]
    }
    assert texts == {0: "A", 1: "A", 2: "BBB", 3: "BBB"}
    assert {piece["model"] for piece in pieces} == {stage.model.slug}
    assert len({piece["id"] for piece in pieces}) == 1
    assert pieces[-1]["usage"]["prompt_tokens"] == 4
    assert pieces[-1]["usage"]["completion_tokens"] == 8


def embedding(exchange: Exchange) -> None:
    asked = json.loads(exchange.body)
    data = embeddings_of(asked["input"], asked.get("encoding_format", "float"))
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    body = {"object": "list", "data": data, "model": "tiny", "usage": usage, "id": "e1"}
    exchange.answer("application/json", json.dumps(body).encode())


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
@pytest.mark.parametrize("engine", ["generic", "vllm", "llamacpp"])
def test_embeddings(gateway: RunningGateway, engine: str, encoding_format: str) -> None:
    with ScriptedBackend(embedding) as backend:
        stage = make_stage(gateway, (engine, backend.url), upstream_model="tiny", capabilities=["embeddings"])
        answer = call(stage, "embeddings", encoding_format=encoding_format)
        assert answer.status == 200
        assert answer.json["data"] == embeddings_of(["hello", "world"], encoding_format)
        assert (answer.json["model"], answer.json["usage"]["prompt_tokens"]) == (stage.model.slug, 7)
        request = check_charged(answer, 7, 0, 0)
        assert (request["output_cap_tokens"], request["endpoint"]) == (0, "embeddings")
        error = call(stage, "chat.completions")
    assert (error.status, error.error["code"]) == (400, "endpoint_not_offered")
    assert error.error["endpoints"] == ["/v1/embeddings"]


@pytest.mark.parametrize("texts", ["one two", ["one two"], ["one two", "three"], [[5, 6], [7]]])
def test_embeddings_on_sglang(gateway: RunningGateway, texts: Any) -> None:
    """It fails at a list of inputs that has one id."""
    with start_engine("sglang", tokens_per_s=0, embeddings=True) as engine:
        stage = make_stage(
            gateway, ("sglang", engine.url), upstream_model="sim-model", capabilities=["embeddings"]
        )
        answer = call(stage, "embeddings", input=texts)
        assert answer.status == 200
        assert len(answer.json["data"]) == (len(texts) if isinstance(texts, list) else 1)
        check_charged(answer, engine.totals()["prompt_tokens"], 0, 0)


# Where a model is offered.


def test_an_endpoint_that_no_backend_speaks(gateway: RunningGateway) -> None:
    stage = make_stage(gateway, ("generic", "http://127.0.0.1:9"))
    answer = call(stage, "messages")
    assert answer.status == 400
    told = answer.json
    assert (told["type"], told["error"]["code"]) == ("error", "endpoint_not_offered")
    assert told["error"]["endpoints"] == ["/v1/chat/completions", "/v1/completions"]
    assert "/v1/chat/completions" in told["error"]["message"]
    assert rows_of("quotas_inferencerequest", tenant_id=stage.tenant.id) == []


def test_a_compatible_backend_speaks_what_the_catalog_says(gateway: RunningGateway) -> None:
    capture = captured("messages")["vllm", "messages_plain"]["answer"]

    def script(exchange: Exchange) -> None:
        exchange.answer("application/json", json.dumps(capture).encode())

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url), upstream_model="tiny", endpoints=["messages"])
        assert call(stage, "messages").status == 200
        assert call(stage, "chat.completions").error["endpoints"] == ["/v1/messages"]


def test_only_backends_that_speak_it_are_asked(gateway: RunningGateway) -> None:
    """The first route would be tried first, if it were one for this endpoint."""
    capture = captured("responses")["vllm", "responses_plain"]["answer"]

    def script(exchange: Exchange) -> None:
        exchange.answer("application/json", json.dumps(capture).encode())

    with ScriptedBackend(script) as backend:
        routes = [("generic", "http://127.0.0.1:9"), ("vllm", backend.url)]
        stage = make_stage(gateway, *routes, upstream_model="tiny")
        for _ in range(5):
            answer = call(stage, "responses")
            assert answer.status == 200
            assert stored(answer.request_id).outcomes == ["COMPLETED"]


# Errors.


@pytest.mark.parametrize(
    ("fields", "status", "kind", "code"),
    [
        ({"model": "nobody/nothing"}, 404, "not_found_error", "model_not_found"),
        ({"max_tokens": 0}, 400, "invalid_request_error", "invalid_value"),
        ({"mcp_servers": []}, 400, "invalid_request_error", "unsupported_field"),
        ({"service_tier": "flex"}, 400, "invalid_request_error", "service_tier_not_offered"),
        ({"token": "slc_nonsense"}, 401, "authentication_error", "invalid_api_key"),
        ({"max_tokens": 8000, "poor": True}, 402, "billing_error", "insufficient_balance"),
    ],
)
def test_anthropics_form_of_errors(
    gateway: RunningGateway, fields: dict[str, Any], status: int, kind: str, code: str
) -> None:
    granted = "0.000001" if fields.pop("poor", False) else "1.00"
    stage = make_stage(gateway, ("vllm", "http://127.0.0.1:9"), granted=granted)
    answer = call(stage, "messages", **fields)
    told = answer.json
    assert (answer.status, told["type"]) == (status, "error")
    assert (told["error"]["type"], told["error"]["code"]) == (kind, code)
    assert told["error"]["message"]
    assert told["request_id"] == answer.headers["x-request-id"]


def test_a_failed_backend_in_anthropics_form(gateway: RunningGateway) -> None:
    stage = make_stage(gateway, ("vllm", "http://127.0.0.1:9"))
    answer = call(stage, "messages")
    assert answer.status in (502, 503)
    assert answer.json["error"]["type"] in ("api_error", "overloaded_error")
    assert stored(answer.request_id).usage is None


def test_keys_in_anthropics_header(gateway: RunningGateway) -> None:
    with recorded(gateway, "messages", "vllm", "messages_plain") as stage:
        headers = {"x-api-key": stage.tenant.key.token, "anthropic-version": "2023-06-01"}
        answer = call(stage, "messages", headers=headers)
        assert (answer.status, answer.headers["request-id"]) == (200, answer.headers["x-request-id"])
        headers["x-api-key"] = "slc_wrong"
        assert call(stage, "messages", headers=headers).status == 401


@pytest.mark.parametrize("endpoint", list(HELLO))
def test_whole_answers_that_are_none(gateway: RunningGateway, endpoint: str) -> None:
    """A backend that answers with something else, or with an error under 200, is not passed on."""
    bodies = [b"<html>", b"{}", b'{"error":{"message":"see /opt/x.py"}}', b'{"object":"error","message":"x"}']
    bodies.append(b'{"object":"response","status":"failed","output":[],"error":{"code":"x"}}')

    def script(exchange: Exchange) -> None:
        exchange.answer("application/json", bodies[(exchange.number - 1) % len(bodies)])

    with ScriptedBackend(script) as backend:
        for _ in bodies:
            # One each: a backend that fails again and again is not asked any more.
            stage = make_stage(gateway, ("vllm", backend.url), capabilities=["chat", "embeddings"])
            answer = call(stage, endpoint)
            assert answer.status in (502, 503)
            assert b"/opt" not in answer.body
            assert stored(answer.request_id).usage is None
