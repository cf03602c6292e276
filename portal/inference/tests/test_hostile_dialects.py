"""Bodies that are made to cost more than they pay for, to hold others up, or to reach what is not theirs; and
engines that count badly."""

from __future__ import annotations

import json
import time
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.inference.dialects import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Dialect
from portal.inference.dialects.reading import check_passable, text_bound
from portal.inference.errors import CallError
from portal.inference.tests.dialect_cases import ENTRY, Reader, captured, read, refused, sent
from quotas.models import Basis

BIG = replace(ENTRY, context_tokens=10**8)
HELLO = [{"role": "user", "content": "hello"}]

# Bounds, and the time it takes to know them.

signs = st.sampled_from(
    "aeK<\u0301\u0323\u0338\u0344\u0345\u0958\u1e69\u1100\u1161\u11a8\uac00\u212a\ufb1d\U0001d15e"
)


@settings(max_examples=300, deadline=None)
@given(text=st.text(signs, max_size=60) | st.text(max_size=60))
def test_the_bound_covers_what_tokenizers_compose(text: str) -> None:
    assert len(text.encode()) <= text_bound(text) <= 3 * len(text.encode())
    assert len(unicodedata.normalize("NFC", text).encode()) <= text_bound(text)


def test_marks_in_the_wrong_order_hold_nobody_up() -> None:
    """Putting them in order takes time quadratic in their number: minutes for a quarter of a megabyte."""
    text = "a" + "\u0301" * 60_000 + "\u0323" * 60_000
    started_s = time.process_time()
    assert text_bound(text) >= len(text.encode())
    assert time.process_time() - started_s < 1


def test_megabytes_of_inputs_hold_nobody_up() -> None:
    body = {"input": ["中文字, and words 123. " * 200] * 2000}
    started_s = time.process_time()
    assert read(EMBEDDINGS, body, entry=BIG).estimated_prompt_tokens > 10**6
    assert time.process_time() - started_s < 2


def test_millions_of_numbers_hold_nobody_up() -> None:
    function = {"name": "f", "parameters": {"enum": [1] * 2_000_000}}
    started_s = time.process_time()
    check_passable("tools", [{"type": "function", "function": function}], is_schema=True)
    assert time.process_time() - started_s < 1


def nested(depth: int, inner: Any) -> Any:
    """So many lists around a value."""
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
@pytest.mark.parametrize("depth", [0, 1, 2, 30])
def test_numbers_that_not_every_backend_can_read(number: int, depth: int) -> None:
    with pytest.raises(CallError, match="64 bits"):
        check_passable("x", nested(depth, number))
    with pytest.raises(CallError, match="64 bits"):
        check_passable("x", nested(depth, {"a": "b", "c": number}))
    check_passable("x", nested(depth, [True, "a", 2**63 - 1, -(2**63), 1e300, None]))


def test_what_is_too_deep() -> None:
    check_passable("x", nested(31, 1))
    with pytest.raises(CallError):
        check_passable("x", nested(32, 1))


# What an engine must not be told.


@pytest.mark.parametrize(
    "name",
    [
        *("n_predict", "n_cmpl", "max_new_tokens", "use_beam_search", "ignore_eos", "chat_template"),
        *(
            "prompt",
            "input",
            "input_ids",
            "prompt_embeds",
            "session_params",
            "echo",
            "suffix",
            "data_parallel_rank",
        ),
    ],
)
@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_no_catalog_can_allow_what_would_beat_our_caps_and_prompts(dialect: Dialect, name: str) -> None:
    entry = replace(ENTRY, extra_fields=frozenset({name}))
    bodies: list[tuple[Dialect, dict[str, Any]]] = [
        (CHAT, {"messages": HELLO}),
        (COMPLETIONS, {"prompt": "a"}),
        (EMBEDDINGS, {"input": "a"}),
    ]
    body = next(body for each, body in bodies if each is dialect)
    if name not in body:
        refused(dialect, body | {name: 5}, entry=entry)


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "messages", "conversation", "tokenizer"])
def test_the_templates_arguments_cannot_replace_the_template(name: str) -> None:
    arguments: dict[str, Any] = {"enable_thinking": False}
    body = {"messages": HELLO, "chat_template_kwargs": arguments}
    assert sent(read(CHAT, body), "vllm")[2]["chat_template_kwargs"] == arguments
    arguments[name] = "{% for i in range(9**9) %}a{% endfor %}"
    error = refused(CHAT, body)
    assert (error.param, error.code) == ("chat_template_kwargs", "unsupported_field")
    assert name in error.message


FAR = {"type": "object", "properties": {"a": {"$ref": "http://10.0.0.1/schema.json"}}}
NEAR = {
    "$defs": {"b": {"type": "string"}},
    "properties": {"a": {"$ref": "#/$defs/b"}, "$ref": {"type": "string"}},
}


def with_schema(schema: dict[str, Any]) -> list[tuple[Dialect, dict[str, Any], str]]:
    function = {"name": "f", "parameters": schema}
    answer = {"name": "a", "schema": schema}
    return [
        (CHAT, {"messages": HELLO, "tools": [{"type": "function", "function": function}]}, "tools"),
        (
            CHAT,
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": answer}},
            "response_format",
        ),
        (RESPONSES, {"input": "hi", "tools": [{"type": "function", **function}]}, "tools"),
        (RESPONSES, {"input": "hi", "text": {"format": {"type": "json_schema", **answer}}}, "text"),
        (
            MESSAGES,
            {"messages": HELLO, "max_tokens": 5, "tools": [{"name": "f", "input_schema": schema}]},
            "tools",
        ),
    ]


@pytest.mark.parametrize(("dialect", "body", "param"), with_schema(FAR))
def test_no_backend_is_sent_to_fetch_a_schema(dialect: Dialect, body: dict[str, Any], param: str) -> None:
    error = refused(dialect, body)
    assert (error.param, "$ref" in error.message) == (param, True)


@pytest.mark.parametrize(("dialect", "body", "param"), with_schema(NEAR))
def test_schemas_may_refer_to_themselves(dialect: Dialect, body: dict[str, Any], param: str) -> None:
    assert sent(read(dialect, body), "vllm")[2][param]


def test_thinking_fits_into_the_answer() -> None:
    def body(budget: int) -> dict[str, Any]:
        thinking = {"type": "enabled", "budget_tokens": budget}
        return {"messages": HELLO, "max_tokens": 100, "thinking": thinking}

    assert sent(read(MESSAGES, body(99)), "vllm")[2]["thinking"]["budget_tokens"] == 99
    error = refused(MESSAGES, body(100))
    assert (error.param, "max_tokens" in error.message) == ("thinking", True)


def test_sglang_gets_an_id_for_each_of_several_inputs() -> None:
    """One id for a list fails there."""
    for value, passed, ids in (
        ("a", "a", "att_x"),
        (["a"], "a", "att_x"),
        ([5, 6], [5, 6], "att_x"),
        ([[5, 6]], [5, 6], "att_x"),
        (["a", "b"], ["a", "b"], ["att_x_0", "att_x_1"]),
        ([[5], [6]], [[5], [6]], ["att_x_0", "att_x_1"]),
    ):
        body = sent(read(EMBEDDINGS, {"input": value}), "sglang")[2]
        assert (body["input"], body["rid"]) == (passed, ids)


def test_the_estimate_knows_of_tools_and_schemas() -> None:
    """A response that is cut has no usage: what it was asked with would be free."""
    properties = {
        f"property_{number}": {"type": "string", "description": "what it is"} for number in range(500)
    }
    for dialect, body, _ in with_schema({"type": "object", "properties": properties}):
        request = read(dialect, body, entry=BIG)
        assert 4_000 < request.estimated_prompt_tokens < 12_000 < request.prompt_bound_tokens


# What engines count.


def messages_stream(*usages: dict[str, Any] | None, pieces: int = 3) -> list[bytes]:
    """A stream with the usage of its beginning, and of its end when there are two."""

    def event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()

    events = [
        event("message_start", message={"id": "m", "type": "message", "model": "tiny", "usage": usages[0]})
    ]
    delta = {"type": "text_delta", "text": "a"}
    events += [event("content_block_delta", index=0, delta=delta) for _ in range(pieces)]
    if len(usages) > 1:
        events += [
            event("message_delta", delta={"stop_reason": "end_turn"}, usage=usages[1]),
            event("message_stop"),
        ]
    return events


def reading(dialect: Dialect, **fields: Any) -> Reader:
    body = {"messages": HELLO, "max_tokens": 50} if dialect is MESSAGES else {"input": "hi"}
    return Reader(
        dialect, read(dialect, {**body, "stream": True, **fields}), engine="vllm", upstream_model="tiny"
    )


def test_the_beginning_of_a_message_says_nothing_of_its_output() -> None:
    """Anthropic itself reports the first token there; a stream that is cut later has delivered more."""
    cut = reading(MESSAGES)
    cut.stream(messages_stream({"input_tokens": 9, "output_tokens": 1}))
    facts = cut.delivery.facts()
    assert (facts.prompt_tokens, facts.completion_tokens, facts.basis) == (9, 3, Basis.EVENTS)


@pytest.mark.parametrize(
    "usage", [None, {}, {"output_tokens": None}, {"output_tokens": "3"}, {"output_tokens": 3.0}]
)
def test_a_message_whose_end_is_not_counted_is_estimated(usage: dict[str, Any] | None) -> None:
    whole = reading(MESSAGES)
    assert whole.stream(messages_stream({"input_tokens": 9, "output_tokens": 0}, usage)).is_done
    facts = whole.delivery.facts()
    assert (facts.completion_tokens, facts.basis) == (3, Basis.EVENTS)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"input_tokens": -5, "output_tokens": -5}, (0, 0, 0)),
        ({"input_tokens": 10**30, "output_tokens": 10**30}, (2**31 - 1, 0, 2**31 - 1)),
        ({"input_tokens": 5, "cache_read_input_tokens": -9, "output_tokens": 1}, (5, 0, 1)),
        ({"input_tokens": 5, "cache_creation_input_tokens": -9, "output_tokens": 1}, (5, 0, 1)),
    ],
)
def test_absurd_counts_of_a_message(usage: dict[str, Any], counts: tuple[int, int, int]) -> None:
    whole = reading(MESSAGES)
    whole.stream(messages_stream({"input_tokens": 9, "output_tokens": 0}, usage))
    facts = whole.delivery.facts()
    assert (facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens) == counts


@pytest.mark.parametrize("usage", [{"input_tokens": 9}, {"input_tokens": 9, "output_tokens": None}])
def test_a_response_whose_output_is_not_counted_is_estimated(usage: dict[str, Any]) -> None:
    events = []
    for event in captured("responses")["vllm", "responses_stream"]["events"]:
        kind, _, data = event.partition("\ndata: ")
        value = json.loads(data)
        if value["type"] == "response.completed":
            value["response"]["usage"] = usage
        events.append(f"{kind}\ndata: {json.dumps(value)}\n\n")
    whole = reading(RESPONSES)
    assert whole.stream(events).is_done
    facts = whole.delivery.facts()
    assert (facts.completion_tokens > 0, facts.basis) == (True, Basis.EVENTS)


def test_a_defect_in_reading_counts_keeps_nobody_from_being_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = reading(MESSAGES)
    cut.stream(messages_stream({"input_tokens": 9, "output_tokens": 1}))

    def fail(*_: object) -> None:
        raise TypeError("not what was expected")

    monkeypatch.setattr(cut.delivery, "_read_report", fail)
    facts = cut.delivery.facts()
    assert (facts.completion_tokens, facts.basis) == (3, Basis.EVENTS)
