"""Bodies that no honest client sends. Each is refused before admission, and the backend never hears of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Maker = Callable[[str], bytes]

HELLO = [{"role": "user", "content": "hello"}]


def _with(**fields: Any) -> Maker:
    """A good body with further fields; NaN and infinities are written as Python writes them."""
    return lambda slug: json.dumps({"model": slug, "messages": HELLO, **fields}).encode()


def _messages(messages: Any) -> Maker:
    return lambda slug: json.dumps({"model": slug, "messages": messages}).encode()


def _content(content: Any, role: str = "user") -> Maker:
    return _messages([{"role": role, "content": content}])


def _raw(text: str) -> Maker:
    """JSON text with SLUG for the model's name."""
    return lambda slug: text.replace("SLUG", slug).encode()


def _spliced(inner: bytes) -> Maker:
    """A good body with raw bytes inside the text of its message."""
    return lambda slug: (
        b'{"model":"' + slug.encode() + b'","messages":[{"role":"user","content":"' + inner + b'"}]}'
    )


def _nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + closing * depth


def _tool(**function: Any) -> Maker:
    return _with(tools=[{"type": "function", "function": function}])


def _schema(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


BODIES: Mapping[str, Maker] = {
    # Not JSON, or not an object.
    "empty": lambda slug: b"",
    "whitespace": lambda slug: b" \n\t ",
    "cut in the middle": lambda slug: _with()(slug)[:-7],
    "two objects": lambda slug: _with()(slug) * 2,
    "form data": lambda slug: b"model=" + slug.encode() + b"&messages=hello",
    "single quotes": _raw("{'model': 'SLUG'}"),
    "byte order mark": lambda slug: b"\xef\xbb\xbf" + _with()(slug),
    "utf-16": lambda slug: _with()(slug).decode().encode("utf-16"),
    "an array": lambda slug: b"[" + _with()(slug) + b"]",
    "a string": _raw('"SLUG"'),
    "null": _raw("null"),
    "binary": lambda slug: bytes(range(256)) * 8,
    "invalid utf-8 in a text": _spliced(b"\xff\xfe"),
    "utf-8 of a surrogate": _spliced(b"\xed\xa0\x80"),
    "overlong utf-8": _spliced(b"\xc0\xaf"),
    "lone surrogate": _spliced(b"\\ud800"),
    "surrogates in the wrong order": _spliced(b"\\udc00\\ud800"),
    "raw nul in a text": _spliced(b"a\x00b"),
    "deep array": lambda slug: b'{"model":"' + slug.encode() + b'","messages":' + b"[" * 100_000,
    "deep object": _raw('{"model":"SLUG","messages":' + _nested('{"a":', "}", 100_000) + "}"),
    "number of 5000 digits": _raw('{"model":"SLUG","max_tokens":' + "9" * 5000 + "}"),
    # Caps.
    "max_tokens zero": _with(max_tokens=0),
    "max_tokens negative": _with(max_tokens=-1),
    "max_tokens absurd": _with(max_tokens=10**9),
    "max_tokens beyond 32 bits": _with(max_tokens=2**31),
    "max_tokens beyond 64 bits": _with(max_tokens=2**70),
    "max_tokens float": _with(max_tokens=5.0),
    "max_tokens fraction": _with(max_tokens=0.5),
    "max_tokens string": _with(max_tokens="5"),
    "max_tokens bool": _with(max_tokens=True),
    "max_tokens NaN": _with(max_tokens=float("nan")),
    "max_tokens infinity": _with(max_tokens=float("inf")),
    "max_tokens 1e400": _raw(
        '{"model":"SLUG","messages":[{"role":"user","content":"x"}],"max_tokens":1e400}'
    ),
    "max_tokens list": _with(max_tokens=[5]),
    "max_completion_tokens zero": _with(max_completion_tokens=0),
    "max_completion_tokens above the model's": _with(max_completion_tokens=8193, max_tokens=5),
    "duplicate caps, the last absurd": _raw(
        '{"model":"SLUG","messages":[{"role":"user","content":"x"}],"max_tokens":5,"max_tokens":999999999}'
    ),
    # Fields that would move caps, ids, priorities, adapters or hosts.
    "n_predict": _with(n_predict=100_000),
    "n_predict endless": _with(n_predict=-1),
    "rid": _with(rid="someone-else"),
    "request_id": _with(request_id="someone-else"),
    "priority": _with(priority=-1000),
    "lora": _with(lora=[{"id": 0, "scale": 1.0}]),
    "lora_path": _with(lora_path="/etc"),
    "cache_prompt": _with(cache_prompt=False),
    "id_slot": _with(id_slot=0),
    "ignore_eos": _with(ignore_eos=True),
    "custom_logit_processor": _with(custom_logit_processor="x"),
    "bootstrap_host": _with(bootstrap_host="10.0.0.1"),
    "kv_transfer_params": _with(kv_transfer_params={"do_remote_decode": True}),
    "chat_template": _with(chat_template="{{ messages }}"),
    "timings_per_token": _with(timings_per_token=True),
    "extra_body": _with(extra_body={"n_predict": 5}),
    "unknown field": _with(frobnicate=1),
    "unknown field of 10 kB": _with(**{"x" * 10_000: 1}),
    "empty field name": _with(**{"": 1}),
    "field name with line breaks": _with(**{"a\r\nX-Injected: 1": 1}),
    # Choices.
    "n 1000": _with(n=1000),
    "n 9": _with(n=9),
    "n zero": _with(n=0),
    "n negative": _with(n=-5),
    "n string": _with(n="1"),
    "best_of": _with(best_of=3),
    "functions": _with(functions=[{"name": "f"}]),
    # Messages.
    "no messages": lambda slug: json.dumps({"model": slug}).encode(),
    "messages empty": _messages([]),
    "messages null": _messages(None),
    "messages string": _messages("hello"),
    "messages object": _messages({"role": "user", "content": "hello"}),
    "messages of strings": _messages(["hello"]),
    "messages nested": _messages([HELLO]),
    "5000 messages": _messages(HELLO * 5000),
    "unknown role": _content("x", role="root"),
    "role missing": _messages([{"content": "x"}]),
    "role number": _messages([{"role": 1, "content": "x"}]),
    "content missing": _messages([{"role": "user"}]),
    "content number": _content(7),
    "content null": _content(None),
    "content object": _content({"text": "x"}),
    "unknown part": _content([{"type": "video_url", "video_url": {"url": "x"}}]),
    "part without type": _content([{"text": "x"}]),
    "audio part": _content([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]),
    "image of an internal host": _content(
        [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}]
    ),
    "image of a file": _content([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
    "image in a system message": _content(
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}], role="system"
    ),
    "image for a model without eyes": _content(
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    ),
    "tool message without id": _content("x", role="tool"),
    "tool call of wrong shape": _messages([{"role": "assistant", "tool_calls": [{"id": "a"}]}]),
    # Streams and sampling.
    "stream string": _with(stream="true"),
    "stream number": _with(stream=1),
    "stream list": _with(stream=[True]),
    "stream_options without stream": _with(stream_options={"include_usage": True}),
    "stream_options string": _with(stream=True, stream_options="yes"),
    "stream_options unknown": _with(stream=True, stream_options={"continuous_usage_stats": True}),
    "temperature hot": _with(temperature=99),
    "temperature NaN": _with(temperature=float("nan")),
    "top_p negative": _with(top_p=-0.1),
    "seed beyond 64 bits": _with(seed=2**64),
    "10,000 stop strings": _with(stop=["x"] * 10_000),
    "stop of 1 MB": _with(stop="x" * 2**20),
    "stop numbers": _with(stop=[1, 2]),
    "huge logit_bias": _with(logit_bias={str(number): 1 for number in range(100_000)}),
    "logit_bias beyond": _with(logit_bias={"5": 1000}),
    "logit_bias list": _with(logit_bias=[[5, 1]]),
    "service tier": _with(service_tier="reserved"),
    "store": _with(store=True),
    "modalities": _with(modalities=["text", "audio"]),
    "metadata numbers": _with(metadata={"a": 1}),
    # Tools and formats.
    "tools object": _with(tools={"type": "function"}),
    "tool of unknown type": _with(tools=[{"type": "web_search"}]),
    "tool without name": _tool(description="x"),
    "tool with a bad name": _tool(name="a b"),
    "tool with unknown field": _tool(name="a", code="import os"),
    "tool with a list as schema": _tool(name="a", parameters=[1]),
    "tool with a deep schema": _tool(name="a", parameters=_schema(100)),
    "tool with a number beyond 64 bits": _tool(name="a", parameters={"minimum": 10**30}),
    "200 tools": _with(tools=[{"type": "function", "function": {"name": "a"}}] * 200),
    "tool_choice unknown": _with(tool_choice="any"),
    "response_format unknown": _with(response_format={"type": "grammar", "grammar": "root ::= x"}),
    "response_format without schema": _with(response_format={"type": "json_schema"}),
    "response_format string": _with(response_format="json"),
    # Models.
    "model missing": lambda slug: json.dumps({"messages": HELLO}).encode(),
    "model number": _with(model=5),
    "model null": _with(model=None),
    "model list": _with(model=["a"]),
    "model empty": _with(model=""),
    "model of 1 MB": _with(model="x" * 2**20),
}

UNKNOWN_MODELS: Mapping[str, str] = {
    "unknown": "nobody/nothing",
    "header injection": "a/b\r\nX-Injected: 1\r\n\r\n<html>",
    "nul": "a/b\x00c",
    "path": "../../etc/passwd",
    "sql": "' OR 1=1 --",
    "unicode": "模型/🦊\u202e",
    "upstream name": "sim-model",
}
