"""What answers consist of besides words: calls of tools, thoughts, JSON that fits a schema, logprobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from devstack.engines.options import FLAVOURS, Flavour
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tests.raw import Answer, ask, chat, streamed
from devstack.engines.tests.test_endpoints import body_for, named_events

EngineOf = Callable[[Flavour], RunningEngine]
TOOLS = [
    {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
    {"name": "stop", "parameters": {"type": "object", "properties": {}}},
]
ARGUMENTS = {"city": "city", "days": 1}
# The name is a token, and each four characters of the arguments.
CALL_TOKENS = 1 + len('{"city":"city","days":1}') // 4


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("stream", [False, True])
async def test_chats_call_tools(engine_of: EngineOf, flavour: Flavour, stream: bool):
    engine = engine_of(flavour)
    tools = [{"type": "function", "function": tool} for tool in TOOLS]
    make = streamed if stream else chat
    answer = await ask(engine, make(sim(tools=2, reasoning=1), tools=tools))
    if stream:
        calls = streamed_calls(answer)
        finish = [choice["finish_reason"] for chunk in answer.objects() for choice in chunk["choices"]]
        assert finish[-1] == "tool_calls"
        usage = answer.objects()[-1]["usage"]
    else:
        choice = answer.json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        calls = [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in choice["message"]["tool_calls"]
        ]
        usage = answer.json()["usage"]
    assert [(name, json.loads(arguments)) for _, name, arguments in calls] == [
        ("look_up", ARGUMENTS),
        ("stop", {}),
    ]
    assert len({call_id for call_id, _, _ in calls}) == 2
    assert usage["completion_tokens"] == 1 + CALL_TOKENS + 2
    (record,) = engine.requests()
    assert record["generated_tokens"] == record["sent_tokens"] == usage["completion_tokens"]


def streamed_calls(answer: Answer) -> list[tuple[str, str, str]]:
    calls: list[list[str]] = []
    for chunk in answer.objects():
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls") or []:
                if "id" in call:
                    calls.append([call["id"], call["function"]["name"], ""])
                calls[call["index"]][2] += call["function"]["arguments"]
    return [(call_id, name, arguments) for call_id, name, arguments in calls]


async def test_when_a_tool_is_called(generic: RunningEngine):
    tools = [{"type": "function", "function": tool} for tool in TOOLS]

    async def called(**fields: Any) -> list[str]:
        message = (await ask(generic, chat("hi", tools=tools) | fields)).json()["choices"][0]["message"]
        return [call["function"]["name"] for call in message.get("tool_calls", [])]

    assert await called() == []
    assert await called(tool_choice="required") == ["look_up"]
    assert await called(tool_choice={"type": "function", "function": {"name": "stop"}}) == ["stop"]
    assert await called(tool_choice="none") == []
    result = [
        {"role": "user", "content": sim(tools=1)},
        {"role": "assistant", "content": None},
        {"role": "tool", "tool_call_id": "x", "content": "sunny"},
    ]
    assert await called(messages=result) == []
    assert (await ask(generic, chat(sim(tools=1)))).status == 400


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("stream", [False, True])
async def test_messages_call_tools_and_think(engine_of: EngineOf, flavour: Flavour, stream: bool):
    engine = engine_of(flavour)
    tools = [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in TOOLS]
    body = body_for("/v1/messages", sim(tools=1, reasoning=2), stream=stream, tools=tools)
    answer = await ask(engine, body, path="/v1/messages")
    if stream:
        events = named_events(answer)
        starts = [data["content_block"] for name, data in events if name == "content_block_start"]
        assert [(block["type"], block.get("name")) for block in starts] == [
            ("thinking", None),
            ("tool_use", "look_up"),
        ]
        deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
        assert "".join(delta.get("thinking", "") for delta in deltas) == "r1 r2"
        assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == ARGUMENTS
        assert [data["index"] for name, data in events if name == "content_block_stop"] == [0, 1]
        assert events[-2][1]["delta"]["stop_reason"] == "tool_use"
        assert events[-1][0] == "message_stop"
    else:
        thinking, call = answer.json()["content"]
        assert (thinking["type"], thinking["thinking"]) == ("thinking", "r1 r2")
        assert (call["type"], call["name"], call["input"]) == ("tool_use", "look_up", ARGUMENTS)
        assert answer.json()["stop_reason"] == "tool_use"
    (record,) = engine.requests()
    assert record["generated_tokens"] == record["sent_tokens"] == 2 + CALL_TOKENS


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("stream", [False, True])
async def test_responses_call_tools_and_think(engine_of: EngineOf, flavour: Flavour, stream: bool):
    engine = engine_of(flavour)
    tools = [{"type": "function", **tool} for tool in TOOLS]
    body = body_for("/v1/responses", sim(tools=1, reasoning=2), stream=stream, tools=tools)
    answer = await ask(engine, body, path="/v1/responses")
    if stream:
        events = named_events(answer)
        assert events[-1][0] == "response.completed"
        items = events[-1][1]["response"]["output"]
        pieces = [data["delta"] for name, data in events if name == "response.function_call_arguments.delta"]
        assert json.loads("".join(pieces)) == ARGUMENTS
        if flavour != "llamacpp":
            assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    else:
        items = answer.json()["output"]
    assert [item["type"] for item in items] == ["reasoning", "function_call"]
    assert (items[1]["name"], json.loads(items[1]["arguments"])) == ("look_up", ARGUMENTS)
    (record,) = engine.requests()
    assert record["generated_tokens"] == record["sent_tokens"] == 2 + CALL_TOKENS


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 3},
        "kind": {"enum": ["a", "b"]},
        "size": {"anyOf": [{"type": "integer", "minimum": 7}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 2},
        "fixed": {"const": 1.5},
        "sure": {"type": ["boolean", "null"]},
    },
    "$defs": {"tag": {"type": "object", "properties": {"label": {"type": "string"}}}},
}
INSTANCE = {
    "name": "nam",
    "kind": "a",
    "size": 7,
    "tags": [{"label": "label"}] * 2,
    "fixed": 1.5,
    "sure": True,
}


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_an_answer_fits_its_schema(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    answer = await ask(engine, chat("hi", response_format=wanted))
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == INSTANCE
    wanted = {"type": "json_schema", "name": "thing", "schema": SCHEMA}
    answer = await ask(
        engine, body_for("/v1/responses", "hi") | {"text": {"format": wanted}}, path="/v1/responses"
    )
    assert json.loads(answer.json()["output"][0]["content"][0]["text"]) == INSTANCE
    cut = await ask(engine, chat("hi", response_format={"type": "json_object"}, max_tokens=1))
    assert (cut.json()["choices"][0]["message"]["content"], cut.json()["choices"][0]["finish_reason"]) == (
        "{}",
        "stop",
    )


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs(engine_of: EngineOf, flavour: Flavour, stream: bool):
    make = streamed if stream else chat
    answer = await ask(engine_of(flavour), make(sim(tokens=3), logprobs=True, top_logprobs=2))
    objects = answer.objects() if stream else [answer.json()]
    found = [
        entry
        for part in objects
        for choice in part["choices"]
        for entry in (choice.get("logprobs") or {}).get("content", [])
    ]
    assert [entry["token"] for entry in found] == ["w1", " w2", " w3"]
    assert {len(entry["top_logprobs"]) for entry in found} == {2}


async def test_logprobs_and_echo_of_completions(vllm: RunningEngine):
    body = body_for("/v1/completions", sim(tokens=2), logprobs=1, echo=True)
    choice = (await ask(vllm, body, path="/v1/completions")).json()["choices"][0]
    assert choice["logprobs"]["tokens"] == ["w1", " w2"]
    assert choice["logprobs"]["text_offset"] == [0, 2]
    assert choice["text"].endswith("]]w1 w2")


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/v1/chat/completions", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}),
        ("/v1/responses", {"type": "input_image", "image_url": "data:image/png;base64,AA"}),
        (
            "/v1/messages",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
        ),
    ],
)
async def test_images_count_as_sixteen_tokens(generic: RunningEngine, path: str, part: dict[str, Any]):
    kind = "input_text" if path == "/v1/responses" else "text"
    message = {"role": "user", "content": [{"type": kind, "text": f"what is it {sim(tokens=1)}"}, part]}
    body = {"model": "sim-model", "max_tokens": 5}
    body |= {"input": [message]} if path == "/v1/responses" else {"messages": [message]}
    assert (await ask(generic, body, path=path)).status == 200
    # Three words, the directive's two, one message, one prompt.
    assert generic.requests()[0]["prompt_tokens"] == 16 + 5 + 4 + 3
