"""Calls of any endpoint for tests, and a backend that answers them in the words of real engines."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Answer, Stage, make_stage
from portal.inference.tests.dialect_cases import captured
from portal.kit.sse import EventSplitter
from tests.gateway_process import RunningGateway, client

PATHS = {
    "chat.completions": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "messages": "/messages",
}
HELLO: dict[str, dict[str, Any]] = {
    "chat.completions": {"messages": [{"role": "user", "content": "Say hi."}]},
    "completions": {"prompt": "Once upon a time"},
    "embeddings": {"input": ["hello", "world"]},
    "responses": {"input": "Say hi."},
    "messages": {"messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 50},
}


def call(
    stage: Stage,
    endpoint: str,
    *,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    **fields: Any,
) -> Answer:
    """A call of an endpoint, plain or streamed as its fields say."""
    body = {"model": model or stage.model.slug} | HELLO[endpoint] | fields
    with client(stage.gateway, token or stage.tenant.key.token) as http:
        if headers is not None and "x-api-key" in headers:
            http.headers.pop("authorization", None)
        answer = http.post(PATHS[endpoint], json=body, headers=headers)
    splitter = EventSplitter(2**20)
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    events = splitter.feed(answer.content) if is_stream else []
    return Answer(answer.status_code, answer.headers, answer.content, events)


@contextmanager
def recorded(
    gateway: RunningGateway, endpoint: str, engine: str, name: str, *, upto: int | None = None, **fields: Any
) -> Iterator[Stage]:
    """A stage whose backend answers every call as an engine was recorded to; `upto` so many events and
    then no more."""
    capture = captured(endpoint)[engine, name]

    def script(exchange: Exchange) -> None:
        if "answer" in capture:
            exchange.answer("application/json", json.dumps(capture["answer"]).encode())
            return
        exchange.begin_stream()
        for event in capture["events"][:upto]:
            exchange.chunk(event.encode())
        if upto is None:
            exchange.end_stream()
        exchange.close()

    with ScriptedBackend(script) as backend:
        yield make_stage(gateway, (engine, backend.url), upstream_model=upstream_of(engine), **fields)


def upstream_of(engine: str) -> str:
    """What the recorded engines call their models."""
    return "smollm2-135m-instruct" if engine == "llamacpp" else "tiny"


def embeddings_of(texts: list[Any], encoding_format: str) -> list[dict[str, Any]]:
    """As an engine answers them: a short vector for each text."""
    vectors: list[Any] = [[float(number), 0.5] for number, _ in enumerate(texts)]
    if encoding_format == "base64":
        vectors = [base64.b64encode(struct.pack("<2f", *vector)).decode() for vector in vectors]
    return [
        {"object": "embedding", "index": number, "embedding": vector} for number, vector in enumerate(vectors)
    ]
