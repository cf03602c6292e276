"""Reading chat requests: whatever comes, it is a request within its bounds or a 400 that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models_catalog.engines import ADAPTERS
from models_catalog.engines.fields import COMMON_FIELDS, GATEWAY_FIELDS, RESERVED_FIELDS
from portal.inference.dialects import CHAT, ModelRequest, decode_body, read_model, reading
from portal.inference.dialects.reading import MAX_DEPTH
from portal.inference.errors import CallError
from portal.inference.snapshot import ModelEntry

ResultT = TypeVar("ResultT")

ENTRY = ModelEntry(
    id=uuid4(),
    slug="test/model",
    context_tokens=4096,
    max_output_tokens=1000,
    default_output_cap_tokens=200,
    template_overhead_tokens=32,
    image_allowance_tokens=None,
    capabilities=frozenset(),
    extra_fields=frozenset({"chat_template_kwargs", "n_predict", "priority"}),
    routes=(),
)
OURS = {"model", "messages", "stream", "stream_options", "max_tokens", "rid", "timings_per_token"}


def read(body: dict[str, Any], *, engine: str = "generic", entry: ModelEntry = ENTRY) -> ModelRequest:
    raw = json.dumps(body).encode()
    return CHAT.read_request(decode_body(raw), raw=raw, entry=entry, engines=[ADAPTERS[engine]])


def hello(**fields: Any) -> dict[str, Any]:
    return {"model": "test/model", "messages": [{"role": "user", "content": "hello"}], **fields}


def sent_body(request: ModelRequest, engine: str) -> dict[str, Any]:
    """What the engine is sent for the request's first choice."""
    upstream = request.upstream_call(
        engine=ADAPTERS[engine],
        attempt_id="att_x",
        upstream_model="upstream",
        output_cap_tokens=request.output_cap_tokens,
        index=0,
    )
    body: dict[str, Any] = json.loads(upstream.body)
    return body


def refused(body: dict[str, Any]) -> CallError:
    with pytest.raises(CallError) as caught:
        read(body)
    assert caught.value.status == 400
    return caught.value


# Anything at all.

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    sorted(
        {
            *GATEWAY_FIELDS,
            *COMMON_FIELDS,
            *RESERVED_FIELDS,
            *ENTRY.extra_fields,
            "min_tokens",
            "stop_token_ids",
        }
    )
)
contents = st.one_of(
    st.text(max_size=50),
    st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]), "text": st.text()}), max_size=3
    ),
    values,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "system", "developer", "assistant", "tool", "root"]),
            "content": contents,
        }
    ),
    max_size=4,
)
likely = st.fixed_dictionaries(
    {"model": st.just("test/model"), "messages": messages},
    optional={
        "max_tokens": st.one_of(st.integers(-2, 1100), values),
        "max_completion_tokens": st.one_of(st.integers(-2, 1100), values),
        "n": st.one_of(st.just(1), values),
        "stream": st.booleans(),
        "stream_options": st.one_of(st.just({"include_usage": True}), values),
        "temperature": st.one_of(st.floats(0, 2), values),
        "tools": st.one_of(
            st.lists(
                st.fixed_dictionaries(
                    {
                        "type": st.just("function"),
                        "function": st.fixed_dictionaries(
                            {"name": st.just("f"), "parameters": st.dictionaries(st.text(max_size=5), values)}
                        ),
                    }
                ),
                max_size=2,
            ),
            values,
        ),
    },
)
bodies = st.one_of(
    likely,
    st.dictionaries(names | st.text(max_size=12), values, max_size=6),
    st.tuples(likely, st.dictionaries(names, values, max_size=3)).map(lambda pair: {**pair[0], **pair[1]}),
)


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies, engine=st.sampled_from(sorted(ADAPTERS)))
@example(body=hello(max_tokens=1000, max_completion_tokens=999), engine="sglang")
@example(body=hello(n_predict=5), engine="llamacpp")
@example(body=hello(chat_template_kwargs={"a": 2**64}), engine="vllm")
@example(body=hello(stop_token_ids=[2**70]), engine="vllm")
def test_a_body_is_a_bounded_request_or_a_400(body: dict[str, Any], engine: str) -> None:
    read_or_refuse = outcome(lambda: read(body, engine=engine))
    if isinstance(read_or_refuse, CallError):
        assert read_or_refuse.status == 400
        assert 0 < len(read_or_refuse.message) <= 700
    else:
        check_request(read_or_refuse, engine)


def outcome(function: Callable[[], ResultT]) -> ResultT | CallError:
    """What it returns, or the refusal that it raises; anything else goes through."""
    try:
        return function()
    except CallError as error:
        return error


def check_request(request: ModelRequest, engine: str) -> None:
    """What money depends on holds, and what is passed on is listed."""
    adapter = ADAPTERS[engine]
    assert 1 <= request.output_cap_tokens <= ENTRY.max_output_tokens
    assert 1 <= request.prompt_bound_tokens <= ENTRY.context_tokens
    assert request.choices == 1
    assert 1 <= request.estimated_prompt_tokens <= request.prompt_bound_tokens
    allowed = set(COMMON_FIELDS) | set(adapter.extra_fields) | {"chat_template_kwargs"}
    assert set(request.fields) <= allowed
    sent = sent_body(request, engine)
    assert set(sent) <= allowed | OURS
    assert sent["model"] == "upstream"
    assert sent["max_tokens"] == request.output_cap_tokens
    assert sent.get("rid", "att_x") == "att_x"
    assert not set(sent) & (RESERVED_FIELDS - OURS)


@settings(max_examples=500, deadline=None)
@given(raw=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
@example(raw=b"[" * 200_000)
@example(raw=b'{"a":' * 200_000)
@example(raw=b'{"model":"\\ud800"}')
@example(raw=b'{"model":1e999}')
@example(raw=b'"' + b"9" * 10_000)
@example(raw=b"9" * 10_000)
def test_bytes_are_an_object_or_a_400(raw: bytes) -> None:
    model = outcome(lambda: read_model(decode_body(raw)))
    if isinstance(model, CallError):
        assert model.status == 400
        assert json.loads(model.body("req_x"))["error"]["request_id"] == "req_x"
    else:
        assert 1 <= len(model) <= 200


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.text(max_size=200), min_size=1, max_size=5),
    asked=st.none() | st.integers(1, 1000),
    also_asked=st.none() | st.integers(1, 1000),
)
def test_the_bound_covers_every_byte(texts: list[str], asked: int | None, also_asked: int | None) -> None:
    """No tokenizer makes more tokens than bytes, so bytes are a bound; and the larger cap is the one."""
    body: dict[str, Any] = {"model": "x", "messages": [{"role": "user", "content": text} for text in texts]}
    body |= {"max_tokens": asked, "max_completion_tokens": also_asked}
    request = read(body, entry=replace(ENTRY, context_tokens=10**9))
    assert request.prompt_bound_tokens >= sum(len(text.encode()) for text in texts) + 32
    assert request.output_cap_tokens == (max(asked or 0, also_asked or 0) or 200)


# Single rules.


def test_the_default_cap_never_exceeds_the_largest_output() -> None:
    assert read(hello(), entry=replace(ENTRY, max_output_tokens=50)).output_cap_tokens == 50


def test_a_cap_above_the_models_names_its_field() -> None:
    assert refused(hello(max_tokens=1001)).param == "max_tokens"
    assert refused(hello(max_tokens=5, max_completion_tokens=1001)).param == "max_completion_tokens"


@pytest.mark.parametrize("name", ["n_predict", "priority", "rid"])
def test_a_reserved_field_is_refused_even_when_the_catalog_lists_it(name: str) -> None:
    error = refused(hello(**{name: 5}))
    assert (error.param, error.code) == (name, "unsupported_field")


def test_a_field_that_the_catalog_adds_is_passed_on() -> None:
    assert read(hello(chat_template_kwargs={"thinking": True})).fields == {
        "chat_template_kwargs": {"thinking": True}
    }


def test_depth_ends_where_it_is_said_to() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert read(hello(chat_template_kwargs=nested(MAX_DEPTH - 1)))
    assert "nested" in refused(hello(chat_template_kwargs=nested(MAX_DEPTH))).message


def test_images_are_counted_and_must_be_inline() -> None:
    entry = replace(ENTRY, image_allowance_tokens=500)

    def with_image(url: str) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": url}}
        return {"model": "x", "messages": [{"role": "user", "content": [part, part]}]}

    request = read(with_image("data:image/png;base64,AAAA"), entry=entry)
    assert request.prompt_bound_tokens == 2 * 500 + 16 + 32
    assert sent_body(request, "vllm")["messages"] == with_image("data:image/png;base64,AAAA")["messages"]
    with pytest.raises(CallError, match="data: URLs"):
        read(with_image("http://10.0.0.1/x.png"), entry=entry)


def test_every_kind_of_message_passes_unchanged() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "模型"}]},
        {"role": "user", "content": "a\u0000b", "name": "someone"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}}
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": "done"},
    ]
    request = read({"model": "x", "messages": messages})
    sent = sent_body(request, "vllm")
    # An assistant's content is null when it is left out, in OpenAI's words too.
    messages[3].pop("content")
    assert sent["messages"] == messages


def test_fields_are_read_alike_at_once_and_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    body = hello(
        temperature=1, stop=["a"], stream=True, stream_options={"include_usage": True}, seed=None, n=2,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        response_format={"type": "json_object"}, logit_bias={"5": 1}, max_tokens=7,
    )  # fmt: skip
    at_once = read(body)
    monkeypatch.setattr(reading, "_converted_whole", lambda body, rules: None)
    assert read(body) == at_once
