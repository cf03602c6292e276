"""Reading completions, embeddings, responses and messages: what may be asked, and how large it can get."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_catalog.engines import ADAPTERS, Endpoint
from portal.inference.dialects import (
    CHAT,
    COMPLETIONS,
    DIALECTS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Dialect,
    ModelRequest,
)
from portal.inference.errors import CallError
from portal.inference.tests.dialect_cases import ENTRY, read, refused, sent

HELLO: dict[Endpoint, dict[str, Any]] = {
    Endpoint.CHAT: {"messages": [{"role": "user", "content": "hello"}]},
    Endpoint.COMPLETIONS: {"prompt": "hello"},
    Endpoint.EMBEDDINGS: {"input": "hello"},
    Endpoint.RESPONSES: {"input": "hello"},
    Endpoint.MESSAGES: {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50},
}
CAPS = {
    Endpoint.CHAT: "max_tokens",
    Endpoint.COMPLETIONS: "max_tokens",
    Endpoint.RESPONSES: "max_output_tokens",
    Endpoint.MESSAGES: "max_tokens",
}
ALL = list(DIALECTS.values())
BIG = replace(ENTRY, context_tokens=10**8, image_allowance_tokens=500)
PNG = "iVBORw0KGgo="


def hello(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    return HELLO[dialect.endpoint] | fields


def ids(value: object) -> str | None:
    return value.endpoint.value if hasattr(value, "endpoint") else None


# What is sent.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("engine", ADAPTERS)
@pytest.mark.parametrize("dialect", ALL, ids=ids)
def test_caps_ids_and_options_are_ours(dialect: Dialect, engine: str, stream: bool) -> None:
    if dialect is EMBEDDINGS and stream:
        return
    fields: dict[str, Any] = {"stream": True} if stream else {}
    if dialect is not EMBEDDINGS:
        fields[CAPS[dialect.endpoint]] = 17
    request = read(dialect, hello(dialect, **fields), engine=engine)
    path, headers, body = sent(request, engine)
    assert DIALECTS[path] is dialect
    content = {name: value for name, value in HELLO[dialect.endpoint].items() if name != "max_tokens"}
    expected: dict[str, Any] = {"model": "upstream", **content}
    if dialect is not EMBEDDINGS:
        expected |= {"stream": stream, CAPS[dialect.endpoint]: 17}
    if dialect is RESPONSES:
        expected["store"] = False
    if engine == "sglang" and dialect in (CHAT, COMPLETIONS, EMBEDDINGS):
        expected["rid"] = "att_x"
    if stream and dialect in (CHAT, COMPLETIONS):
        usage = {"include_usage": True}
        if engine in ("vllm", "sglang"):
            usage["continuous_usage_stats"] = True
        expected["stream_options"] = usage
        if engine == "llamacpp":
            expected["timings_per_token"] = True
    assert body == expected
    assert headers["X-Request-Id"] == "att_x"


@pytest.mark.parametrize("dialect", [each for each in ALL if each is not EMBEDDINGS], ids=ids)
def test_a_cap_is_the_clients_or_the_models(dialect: Dialect) -> None:
    name = CAPS[dialect.endpoint]
    assert read(dialect, hello(dialect, **{name: 7})).output_cap_tokens == 7
    error = refused(dialect, hello(dialect, **{name: 1001}))
    assert (error.param, "1000" in error.message) == (name, True)
    assert refused(dialect, hello(dialect, **{name: 0})).param == name
    if dialect is MESSAGES:
        body = {"messages": HELLO[Endpoint.MESSAGES]["messages"]}
        assert refused(dialect, body).code == "missing_field"
    else:
        assert read(dialect, HELLO[dialect.endpoint]).output_cap_tokens == ENTRY.default_output_cap_tokens


def test_the_admitted_cap_is_the_one_that_is_sent() -> None:
    request = read(RESPONSES, hello(RESPONSES, max_output_tokens=100))
    upstream = request.upstream_call(
        engine=ADAPTERS["vllm"], attempt_id="a", upstream_model="u", output_cap_tokens=3, index=0
    )
    assert json.loads(upstream.body)["max_output_tokens"] == 3


# What is refused.


@pytest.mark.parametrize("dialect", [each for each in ALL if each is not EMBEDDINGS], ids=ids)
@pytest.mark.parametrize("tier", ["batch", "flex"])
def test_service_tiers_that_do_not_exist_yet(dialect: Dialect, tier: str) -> None:
    error = refused(dialect, hello(dialect, service_tier=tier))
    assert (error.code, error.param) == ("service_tier_not_offered", "service_tier")
    assert tier in error.message
    assert read(dialect, hello(dialect, service_tier="auto"))


@pytest.mark.parametrize(
    ("dialect", "field", "value"),
    [
        (COMPLETIONS, "echo", True),
        (COMPLETIONS, "best_of", 2),
        (COMPLETIONS, "suffix", "x"),
        (COMPLETIONS, "messages", []),
        (COMPLETIONS, "n_predict", 5),
        (EMBEDDINGS, "stream", True),
        (EMBEDDINGS, "max_tokens", 5),
        (RESPONSES, "store", True),
        (RESPONSES, "background", True),
        (RESPONSES, "previous_response_id", "resp_1"),
        (RESPONSES, "conversation", "conv_1"),
        (RESPONSES, "prompt", {"id": "p"}),
        (RESPONSES, "truncation", "auto"),
        (RESPONSES, "max_tokens", 5),
        (RESPONSES, "n", 2),
        (RESPONSES, "chat_template_kwargs", {}),
        (RESPONSES, "max_tool_calls", 2),
        (MESSAGES, "mcp_servers", []),
        (MESSAGES, "stop", ["x"]),
        (MESSAGES, "n", 2),
        (MESSAGES, "container", "c"),
        (MESSAGES, "repetition_penalty", 1.0),
        (CHAT, "store", True),
        (CHAT, "functions", []),
    ],
    ids=lambda value: ids(value) or str(value)[:20],
)
def test_what_is_not_offered_is_named(dialect: Dialect, field: str, value: Any) -> None:
    error = refused(dialect, hello(dialect, **{field: value}))
    assert error.param == field
    assert error.code in ("unsupported_field", "unsupported_value")
    assert error.message


@pytest.mark.parametrize("name", ["store", "background", "previous_response_id", "conversation", "prompt"])
def test_what_keeps_state_may_be_null(name: str) -> None:
    assert sent(read(RESPONSES, hello(RESPONSES, **{name: None})), "vllm")[2].keys() >= {"input", "store"}


def test_no_backend_is_sent_to_fetch_an_image() -> None:
    url = "http://10.0.0.1/x.png"
    chat = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    item = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    block = {"type": "image", "source": {"type": "url", "url": url}}
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
    for dialect, body in (
        (CHAT, {"messages": chat}),
        (RESPONSES, {"input": item}),
        (MESSAGES, {"messages": [{"role": "user", "content": [block]}], "max_tokens": 5}),
        (MESSAGES, {"messages": [{"role": "user", "content": [nested]}], "max_tokens": 5}),
    ):
        assert "Images must be sent as" in refused(dialect, body, entry=BIG).message
        assert refused(dialect, body).param in ("messages", "input")


def test_a_model_without_images_says_so() -> None:
    item = [
        {"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}]}
    ]
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    turns = [{"role": "user", "content": [block]}]
    assert "takes no images" in refused(RESPONSES, {"input": item}).message
    assert "takes no images" in refused(MESSAGES, {"messages": turns, "max_tokens": 5}).message
    for dialect, body in ((RESPONSES, {"input": item}), (MESSAGES, {"messages": turns, "max_tokens": 5})):
        request = read(dialect, body, entry=BIG)
        assert request.needs == {"vision"}
        assert 500 <= request.prompt_bound_tokens < 700, "an image is its allowance, not its bytes"


# What is passed on.

TOOL_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}


def test_a_chat_with_everything_passes() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}}
    call = {"type": "function", "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]
    fields = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": TOOL_PARAMETERS}}],
        "tool_choice": "required",
        "parallel_tool_calls": True,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
        },
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": -100.0},
        "seed": 7,
        "reasoning_effort": "low",
        "stop": ["x"],
    }
    request = read(CHAT, {"messages": messages, "max_completion_tokens": 9, **fields}, entry=BIG)
    assert request.needs == {"tools", "vision", "json_schema", "logprobs"}
    _, _, body = sent(request, "vllm")
    messages[1].pop("content")
    assert body == fields | {"model": "upstream", "messages": messages, "max_tokens": 9, "stream": False}


def test_a_whole_conversation_of_responses_passes() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]},
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "r"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"x"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]
    tool = {"type": "function", "name": "weather", "parameters": TOOL_PARAMETERS, "strict": True}
    schema = {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}
    fields = {
        "instructions": "be kind",
        "temperature": 0.5,
        "tools": [tool],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "text": {"format": schema, "verbosity": "low"},
        "reasoning": {"effort": "low"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 3,
    }
    dropped = {"metadata": {"a": "b"}, "user": "u", "prompt_cache_key": "k", "safety_identifier": "s"}
    request = read(RESPONSES, {"input": items, **fields, **dropped}, entry=BIG)
    assert request.needs == {"tools", "json_schema", "logprobs"}
    _, _, body = sent(request, "vllm")
    items[0] = {"type": "message", **items[0]}
    items[2]["content"] = [{"type": "output_text", "text": "hello", "annotations": []}]
    assert body.pop("input") == items
    assert body == fields | {"model": "upstream", "stream": False, "store": False, "max_output_tokens": 200}


def test_a_whole_conversation_of_messages_passes() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "let me look"},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sunny"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "none", "is_error": True},
                {"type": "tool_result", "tool_use_id": "t3"},
            ],
        },
    ]
    fields = {
        "system": [{"type": "text", "text": "be kind"}],
        "tools": [{"name": "weather", "description": "tells", "input_schema": TOOL_PARAMETERS}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "stop_sequences": ["x"],
        "temperature": 0.5,
        "top_k": 5,
        "thinking": {"type": "enabled", "budget_tokens": 8},
    }
    asked = json.loads(json.dumps(fields))
    asked["system"][0] |= cached
    asked["tools"][0] |= cached | {"type": "custom"}
    body = {"messages": turns, "max_tokens": 9, "metadata": {"user_id": "u"}, **asked}
    request = read(MESSAGES, body, entry=BIG)
    assert request.needs == {"tools"}
    _, _, out = sent(request, "vllm")
    out["tools"][0].pop("type")
    assert out == fields | {"model": "upstream", "messages": turns, "max_tokens": 9, "stream": False}


# Several prompts and choices.


def test_each_prompt_and_choice_is_a_call_of_its_own() -> None:
    request = read(COMPLETIONS, {"prompt": ["aa", "b", [1, 2, 3]], "n": 2, "seed": 7, "max_tokens": 5})
    assert (request.choices, len(request.prompts)) == (6, 3)
    calls = [sent(request, "sglang", index=index)[2] for index in range(6)]
    assert [call["prompt"] for call in calls] == ["aa", "aa", "b", "b", [1, 2, 3], [1, 2, 3]]
    assert [call["seed"] for call in calls] == [7, 8, 7, 8, 7, 8], "choices of one prompt differ"
    assert not any("n" in call for call in calls)
    assert [request.is_first_of_prompt(index) for index in range(6)] == [True, False] * 3
    assert request.prompt_bound_tokens == (2 + 16) + (1 + 16) + (3 + 16)
    assert request.estimated_prompt_tokens <= request.prompt_bound_tokens


def test_chat_choices_have_seeds_of_their_own() -> None:
    request = read(CHAT, hello(CHAT, n=3, seed=2**63 - 1))
    assert [sent(request, "vllm", index=index)[2]["seed"] for index in range(3)] == [2**63 - 1, 0, 1]


def test_prompts_times_choices_are_bounded() -> None:
    assert read(COMPLETIONS, {"prompt": ["a"] * 8}).choices == 8
    assert refused(COMPLETIONS, {"prompt": ["a"] * 9}).param == "prompt"
    assert refused(COMPLETIONS, {"prompt": ["a"] * 3, "n": 3}).param == "n"


@pytest.mark.parametrize("value", [[], [[]], [["a"]], [1, "a"], ["a", 1], [1.5], [-1], [True], {}, 5, None])
@pytest.mark.parametrize(("dialect", "name"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")], ids=ids)
def test_what_is_no_text(dialect: Dialect, name: str, value: Any) -> None:
    assert refused(dialect, {name: value}).param == name


def test_embeddings_are_one_call_without_output() -> None:
    request = read(EMBEDDINGS, {"input": ["aa", "b"], "encoding_format": "base64", "dimensions": 8})
    assert (request.choices, request.output_cap_tokens, request.stream) == (1, 0, False)
    assert request.prompt_bound_tokens == (2 + 16 + 32) + (1 + 16 + 32)
    assert sent(request, "generic")[2] == {
        "model": "upstream",
        "input": ["aa", "b"],
        "encoding_format": "base64",
        "dimensions": 8,
    }
    assert read(EMBEDDINGS, {"input": [[1, 2], [3]]}).prompt_bound_tokens == (2 + 48) + (1 + 48)
    assert refused(EMBEDDINGS, {"input": ["a"] * 2049}).param == "input"


# Whatever comes.

words = st.text(max_size=40)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), words)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
blocks = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "input_text", "output_text"]), "text": words}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": words, "name": words, "input": st.dictionaries(words, values)}
    ),
    st.fixed_dictionaries({"type": st.just("tool_result"), "tool_use_id": words, "content": words}),
    values,
)
turns = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": words | st.lists(blocks, max_size=3),
        }
    )
    | st.fixed_dictionaries(
        {"type": st.just("function_call"), "call_id": words, "name": words, "arguments": words}
    ),
    max_size=4,
)
texts = st.one_of(words, st.lists(words, max_size=9), st.lists(st.integers(-1, 2**25), max_size=9), values)
names = st.sampled_from(
    [
        *("max_tokens", "max_output_tokens", "n", "stream", "stream_options", "service_tier", "store"),
        *("tools", "tool_choice", "text", "reasoning", "system", "instructions", "temperature", "seed"),
        *("stop", "logprobs", "echo", "suffix", "best_of", "dimensions", "include", "thinking", "rid"),
    ]
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    dialect=st.sampled_from(ALL),
    content=st.fixed_dictionaries(
        {"prompt": texts, "input": texts | turns, "messages": turns, "max_tokens": st.integers(1, 1000)}
    ),
    further=st.dictionaries(names, values, max_size=3),
    engine=st.sampled_from(sorted(ADAPTERS)),
)
def test_a_body_is_a_bounded_request_or_a_400(
    dialect: Dialect, content: dict[str, Any], further: dict[str, Any], engine: str
) -> None:
    body = {name: content[name] for name in HELLO[dialect.endpoint]} | further
    request = outcome(dialect, body, engine)
    if isinstance(request, CallError):
        assert request.status == 400
        assert 0 < len(request.message) <= 700
    else:
        check_bounds(request, engine)


def outcome(dialect: Dialect, body: dict[str, Any], engine: str) -> ModelRequest | CallError:
    """The request, or the refusal that it raises; anything else goes through."""
    try:
        return read(dialect, body, engine=engine)
    except CallError as error:
        return error


def check_bounds(request: ModelRequest, engine: str) -> None:
    has_output = request.dialect is not EMBEDDINGS
    assert request.output_cap_tokens <= ENTRY.max_output_tokens
    assert (request.output_cap_tokens >= 1) is has_output
    assert 1 <= request.estimated_prompt_tokens <= request.prompt_bound_tokens
    assert 1 <= request.choices <= 8
    for index in range(request.choices):
        _, _, body = sent(request, engine, index=index)
        assert body["model"] == "upstream"
        assert body.get("rid", "att_x") == "att_x"
        assert not {"n", "echo", "best_of", "suffix", "service_tier", "user", "metadata"} & body.keys()
        if has_output:
            assert body[CAPS[request.dialect.endpoint]] == request.output_cap_tokens


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.text(max_size=100), min_size=1, max_size=6), system=st.text(max_size=100))
def test_the_bound_covers_every_byte(parts: list[str], system: str) -> None:
    """No tokenizer makes more tokens than bytes, so bytes are a bound, whatever the endpoint."""
    written = sum(len(part.encode()) for part in parts)
    turns = [{"role": "user", "content": part} for part in parts]
    blocks = [{"role": "user", "content": [{"type": "text", "text": part} for part in parts]}]
    with_system = written + len(system.encode())
    for dialect, body, least in (
        (COMPLETIONS, {"prompt": parts}, written),
        (EMBEDDINGS, {"input": parts}, written),
        (RESPONSES, {"input": turns, "instructions": system}, with_system),
        (MESSAGES, {"messages": turns, "system": system, "max_tokens": 5}, with_system),
        (
            MESSAGES,
            {"messages": blocks, "system": [{"type": "text", "text": system}], "max_tokens": 5},
            with_system,
        ),
    ):
        assert read(dialect, body, entry=BIG).prompt_bound_tokens > least


def test_conversations_that_begin_alike_are_told_by_their_key() -> None:
    def key(dialect: Dialect, first: str, last: str) -> int:
        turns = [{"role": "user", "content": first}, {"role": "assistant", "content": "a"}]
        turns.append({"role": "user", "content": last})
        bodies: dict[Endpoint, dict[str, Any]] = {
            Endpoint.CHAT: {"messages": turns},
            Endpoint.RESPONSES: {"input": turns},
            Endpoint.MESSAGES: {"messages": turns, "max_tokens": 5},
        }
        return read(dialect, bodies[dialect.endpoint]).prefix_key

    for dialect in (CHAT, RESPONSES, MESSAGES):
        assert key(dialect, "hello", "b") == key(dialect, "hello", "c") != key(dialect, "other", "b")
