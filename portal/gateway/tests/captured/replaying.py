"""What real engines answered, sent again byte by byte by a backend that says nothing of its own.

The fixtures hold the bodies as they were recorded; a body of events is sent event by event. Which one a call
gets stands in its prompt. Never recorded, as the gateway never asks for it: several choices or prompts in one
call. What the engines' own pages and counters say is tested beside the adapters.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2 as httpx

from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Answer, Stage
from portal.kit.sse import EventSplitter, event_data
from tests.gateway_process import client

# complete: properly, whatever becomes of the connection then. closed: the connection ends in the middle.
# silent: nothing more until the other side leaves.
Ending = Literal["complete", "closed", "silent"]

MAX_SILENCE_S = 30.0
_NAME = re.compile(rb"replay:([a-zA-Z0-9_/]+)")


@dataclass(frozen=True, slots=True)
class Capture:
    """One recorded answer."""

    engine: str
    name: str
    path: str
    status: int
    content_type: str | None
    body: bytes

    @property
    def is_stream(self) -> bool:
        return (self.content_type or "").startswith("text/event-stream")

    @property
    def events(self) -> list[bytes]:
        return [event + b"\n\n" for event in self.body.split(b"\n\n") if event]

    def __str__(self) -> str:
        return f"{self.engine}-{self.name}"


def _load(engine: str) -> dict[str, Capture]:
    stored = json.loads((Path(__file__).parent / "fixtures" / f"{engine}.json").read_text(encoding="utf-8"))
    return {
        name: Capture(
            engine, name, entry["path"], entry["status"], entry["content_type"], entry["body"].encode()
        )
        for name, entry in stored.items()
    }


CAPTURES = {engine: _load(engine) for engine in ("llamacpp", "vllm", "sglang")}


@contextmanager
def replaying(engine: str, ending: Ending = "complete") -> Iterator[ScriptedBackend]:
    """A backend that answers with the capture that the prompt names."""

    def script(exchange: Exchange) -> None:
        found = _NAME.search(exchange.body)
        assert found is not None, exchange.body
        capture = CAPTURES[engine][found[1].decode()]
        if capture.is_stream:
            _send_stream(exchange, capture, ending)
        else:
            exchange.answer(capture.content_type or "", capture.body, status=f"{capture.status} Replayed")
            if capture.status >= 400 and engine == "llamacpp":
                exchange.close()

    with ScriptedBackend(script) as backend:
        yield backend


def _send_stream(exchange: Exchange, capture: Capture, ending: Ending) -> None:
    exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
        % (capture.content_type or "").encode()
    )
    for event in capture.events:
        exchange.chunk(event)
    if ending == "silent":
        _wait_for_the_end(exchange)
    elif ending == "complete":
        exchange.end_stream()
    # llama.cpp closes after every stream, whatever it announced.
    if ending != "complete" or capture.engine == "llamacpp":
        exchange.close()


def _wait_for_the_end(exchange: Exchange) -> None:
    deadline_s = time.monotonic() + MAX_SILENCE_S
    while time.monotonic() < deadline_s:
        try:
            if not exchange.connection.recv(1):
                return
        except TimeoutError:
            continue


def body_for(stage: Stage, capture: Capture, *, include_usage: bool = False) -> dict[str, Any]:
    """A call of the capture's endpoint that is answered with it."""
    text = f"replay:{capture.name}"
    body: dict[str, Any] = {"model": stage.model.slug, "stream": capture.is_stream}
    match capture.path:
        case "/v1/responses" | "/v1/embeddings":
            body["input"] = text
            if capture.path == "/v1/embeddings":
                del body["stream"]
            return body
        case "/v1/messages":
            return body | {"max_tokens": 100, "messages": [{"role": "user", "content": text}]}
        case "/v1/completions":
            body["prompt"] = text
        case _:
            body["messages"] = [{"role": "user", "content": text}]
    if include_usage and capture.is_stream:
        body["stream_options"] = {"include_usage": True}
    return body


def replay(stage: Stage, capture: Capture, *, include_usage: bool = False) -> Answer:
    """A call, read to its end."""
    path = capture.path.removeprefix("/v1") if capture.path != "/v1/nope" else "/chat/completions"
    body = body_for(stage, capture, include_usage=include_usage)
    with client(stage.gateway, stage.tenant.key.token) as http:
        answer = http.post(path, json=body)
    return _answer(answer)


def _answer(answer: httpx.Response) -> Answer:
    events: list[bytes] = []
    if answer.headers["content-type"].startswith("text/event-stream"):
        splitter = EventSplitter(2**20)
        events = splitter.feed(answer.content)
        assert not splitter.tail()
    return Answer(answer.status_code, answer.headers, answer.content, events)


def shown(stage: Stage, event: bytes) -> Any:
    """What an event tells, with our name of the model; llama.cpp's timings may be there or not."""
    data = event_data(event)
    if data is None or data == b"[DONE]":
        return event.strip()
    return [event.partition(b"data:")[0], renamed(stage, json.loads(data))]


def renamed(stage: Stage, value: dict[str, Any]) -> dict[str, Any]:
    """An answer or event as the client is to see it."""
    told = {name: inner for name, inner in value.items() if name != "timings"}
    for holder in (told, told.get("response"), told.get("message")):
        if isinstance(holder, dict) and "model" in holder:
            holder["model"] = stage.model.slug
    return told
