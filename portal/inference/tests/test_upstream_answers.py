"""What backends say when they refuse, in words fit for clients; forms as recorded from real engines."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from models_catalog.engines import ADAPTERS, Endpoint
from portal.inference.stream_events import read_opening, read_run
from portal.inference.upstream_answers import UNREADABLE, read_plain_answer, refusal_of

LLAMA: dict[str, Any] = {
    "error": {
        "code": 400,
        "message": "request (3031 tokens) exceeds the available context size (2048 tokens)",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 3031,
        "n_ctx": 2048,
    }
}
VLLM: dict[str, Any] = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, your prompt is longer.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}
SGLANG: dict[str, Any] = {
    "object": "error",
    "message": "The input (6013 tokens) is longer than the model's context length (2048 tokens).",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
TALKATIVE: dict[str, Any] = {
    "object": "error",
    "message": '1 validation error\n\n  File "<site-packages>/sglang/srt/http_server.py", line 1870',
    "type": "Bad Request",
}


@pytest.mark.parametrize("body", [LLAMA, VLLM, SGLANG])
def test_a_prompt_that_is_too_long(body: dict[str, Any]) -> None:
    error, elsewhere = refusal_of(400, json.dumps(body).encode())
    assert (error.status, error.code, elsewhere) == (400, "context_length_exceeded", False)
    assert "tokens" in error.message
    if body is LLAMA:
        assert error.details == {"n_prompt_tokens": 3031, "n_ctx": 2048}


def test_internals_are_not_told() -> None:
    error, elsewhere = refusal_of(400, json.dumps(TALKATIVE).encode())
    assert (error.code, elsewhere) == ("backend_refused", False)
    assert "sglang" not in error.message


@pytest.mark.parametrize(
    "words",
    [
        "cannot reach http://gpu-7:8000",
        "10.3.0.7 refused",
        "connect to fd00::1:8000 failed",
        "see localhost:30000",
        "no such file: C:\\models\\x.gguf",
        "token hf_abc is wrong at /srv/models",
    ],
)
@pytest.mark.parametrize("prefix", ["", "context: "])
def test_addresses_and_paths_are_not_told(words: str, prefix: str) -> None:
    error, _ = refusal_of(400, json.dumps({"error": {"message": prefix + words}}).encode())
    assert words not in error.message
    assert error.message


def test_ordinary_words_are_told() -> None:
    for words in ("temperature must be in [0, 2]; got 2.5", "1/2 of the images failed: a: b", "e.g. 1.5.2"):
        assert refusal_of(400, json.dumps({"message": words}).encode())[0].message == words


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"<html>", b"[]", b'{"error":"no"}', b"[" * 10_000])
@pytest.mark.parametrize(
    ("status", "told", "elsewhere"),
    [
        (400, 400, False),
        (413, 400, False),
        (422, 400, False),
        (401, 502, True),
        (403, 502, True),
        (404, 502, True),
        (302, 502, True),
        (429, 503, True),
        (500, 502, True),
        (503, 503, True),
    ],
)
def test_every_status_has_an_answer(body: bytes, status: int, told: int, elsewhere: bool) -> None:
    error, may_go_on = refusal_of(status, body)
    assert (error.status, may_go_on) == (told, elsewhere)
    assert error.message


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_engine_without_an_endpoint_is_well(status: int) -> None:
    """llama.cpp answers 501 for embeddings, vLLM 404: no reason to send it no chats any more."""
    error, elsewhere = refusal_of(status, b'{"detail":"Not Found"}', Endpoint.EMBEDDINGS)
    assert (error.status, error.code, elsewhere) == (400, "endpoint_not_offered", False)
    assert refusal_of(status, b"", Endpoint.CHAT)[0].status == 502


@pytest.mark.parametrize("endpoint", Endpoint)
def test_an_engine_without_the_model_is_not_well(endpoint: Endpoint) -> None:
    """Then our catalog is wrong about it, and another backend may have the model."""
    body = {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model"}}
    error, elsewhere = refusal_of(404, json.dumps(body).encode(), endpoint)
    assert (error.code, elsewhere) == ("backend_failed", True)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"choices":5}', b'{"id":"\xff","choices":[]}', b"[" * 9999]
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UNREADABLE):
        read_plain_answer(body)
    with pytest.raises(msgspec.DecodeError):
        read_opening(b"data: " + body + b"\n\n")


def test_a_comment_opens_nothing() -> None:
    assert read_opening(b": still thinking\n\n") is None
    assert read_opening(b'data: {"id":"c1","choices":[]}\n\n') == "c1"


def test_an_error_event_ends_the_run() -> None:
    token = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    events = [token, b'data: {"error": {"message": "see /opt/x.py"}}\n\n', token, b"data: [DONE]\n\n"]
    run = read_run(events, engine=ADAPTERS["generic"], include_usage=True)
    assert (run.outgoing, run.content_events, run.has_failed, run.is_done) == ([token], 1, True, False)


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', 1),
        (b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning_content":"a"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning":"a"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"reasoning_content":null,"content":"a"}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}\n\n', 1),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n', 0),
        (b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n', 0),
        (b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n', 0),
        (b"data: [DONE]\n\n", 0),
        (b": comment\n\n", 0),
    ],
)
def test_what_counts_as_content(event: bytes, counts: int) -> None:
    assert read_run([event], engine=ADAPTERS["generic"], include_usage=True).content_events == counts
