"""The official OpenAI SDK on every endpoint: what its documents show, unchanged but for address and model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall
from pydantic import BaseModel

from devstack.engines.testing import sim
from tests.clients.simulated import Scene

# 1 × 1 pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJ"
    "RU5ErkJggg=="
)
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ARGUMENTS = {"city": "city"}


class Step(BaseModel):
    explanation: str
    output: str


class Solution(BaseModel):
    steps: list[Step]
    answer: int


@pytest.fixture
def sdk(scene: Scene) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=scene.gateway.api_base, api_key=scene.token, max_retries=0, timeout=30
    ) as client:
        yield client


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_chat_and_a_stream(sdk: openai.OpenAI, scene: Scene) -> None:
    text = "Say it. " + sim(tokens=5, cached=2, reasoning=2)
    plain = sdk.chat.completions.create(model=scene.model.slug, messages=asking(text), seed=7)
    assert plain.choices[0].message.content == "w1 w2 w3"
    assert plain.model == scene.model.slug
    said = ""
    with sdk.chat.completions.stream(
        model=scene.model.slug, messages=asking(text), stream_options={"include_usage": True}
    ) as stream:
        for event in stream:
            if event.type == "content.delta":
                said += event.delta
        final = stream.get_final_completion()
    assert said == final.choices[0].message.content == "w1 w2 w3"
    assert final.usage is not None
    assert final.usage.completion_tokens == 5
    assert final.model == scene.model.slug
    scene.settled(2)


def test_several_choices_and_logprobs(sdk: openai.OpenAI, scene: Scene) -> None:
    answer = sdk.chat.completions.create(
        model=scene.model.slug, messages=asking(sim(tokens=3)), n=2, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.logprobs is not None
        tokens = [entry.token for entry in choice.logprobs.content or []]
        assert tokens == ["w1", " w2", " w3"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_tools_are_called_and_answered(sdk: openai.OpenAI, scene: Scene, is_streamed: bool) -> None:
    """The loop of every guide: the model calls, the program answers, the model speaks."""
    tools: Any = [{"type": "function", "function": WEATHER}]
    messages = asking("Weather in Paris? " + sim(tools=1))
    if is_streamed:
        with sdk.chat.completions.stream(model=scene.model.slug, messages=messages, tools=tools) as stream:
            message: Any = stream.get_final_completion().choices[0].message
    else:
        message = (
            sdk.chat.completions.create(
                model=scene.model.slug, messages=messages, tools=tools, parallel_tool_calls=True
            )
            .choices[0]
            .message
        )
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", ARGUMENTS)
    messages += [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    spoken = sdk.chat.completions.create(model=scene.model.slug, messages=messages, tools=tools)
    assert spoken.choices[0].finish_reason == "stop"
    assert spoken.choices[0].message.content
    scene.settled(2)


def test_an_answer_of_a_type(sdk: openai.OpenAI, scene: Scene) -> None:
    parsed = sdk.chat.completions.parse(
        model=scene.model.slug, messages=asking("Solve 8x + 7 = -23"), response_format=Solution
    )
    assert parsed.choices[0].message.parsed == Solution(
        steps=[Step(explanation="explanation", output="output")], answer=1
    )
    response = sdk.responses.parse(model=scene.model.slug, input="Solve it", text_format=Solution)
    assert response.output_parsed == parsed.choices[0].message.parsed
    scene.settled(2)


def test_an_image(sdk: openai.OpenAI, scene: Scene) -> None:
    content = [
        {"type": "text", "text": "What is this? " + sim(tokens=2)},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]
    messages: Any = [{"role": "user", "content": content}]
    answer = sdk.chat.completions.create(model=scene.model.slug, messages=messages)
    assert answer.usage is not None
    # Words, the directive's two, the image's sixteen, one message, one prompt.
    assert answer.usage.prompt_tokens == 3 + 2 + 16 + 4 + 3
    scene.settled(1)


@pytest.mark.parametrize("prompt", ["Once upon a time", [9, 8, 7]])
def test_completions(sdk: openai.OpenAI, scene: Scene, prompt: Any) -> None:
    plain = sdk.completions.create(model=scene.model.slug, prompt=prompt, max_tokens=4)
    assert plain.choices[0].text == "w1 w2 w3 w4"
    assert plain.choices[0].finish_reason == "length"
    with sdk.completions.create(
        model=scene.model.slug,
        prompt=prompt,
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "w1 w2 w3 w4"
    assert plain.usage is not None
    assert chunks[-1].usage is not None
    assert plain.usage.completion_tokens == chunks[-1].usage.completion_tokens == 4
    scene.settled(2)


def test_completions_of_several_prompts(sdk: openai.OpenAI, scene: Scene) -> None:
    answer = sdk.completions.create(
        model=scene.model.slug, prompt=["once upon a time", "in a galaxy"], max_tokens=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 6)
    scene.settled(1)


def test_embeddings(sdk: openai.OpenAI, scene: Scene) -> None:
    """The SDK asks for base64 unless it is told otherwise; both are the same vectors."""
    packed = sdk.embeddings.create(model=scene.model.slug, input=["one two", "three"], dimensions=8)
    listed = sdk.embeddings.create(
        model=scene.model.slug, input=["one two", "three"], dimensions=8, encoding_format="float"
    )
    assert [entry.index for entry in packed.data] == [0, 1]
    for left, right in zip(packed.data, listed.data, strict=True):
        assert left.embedding == pytest.approx(right.embedding)
        assert len(left.embedding) == 8
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 3
    assert packed.model == scene.model.slug
    assert [row["completion_tokens"] for row in scene.settled(2)] == [0, 0]


def test_responses(sdk: openai.OpenAI, scene: Scene) -> None:
    plain = sdk.responses.create(
        model=scene.model.slug, instructions="Be brief.", input=sim(tokens=3, cached=4), max_output_tokens=50
    )
    assert (plain.output_text, plain.status) == ("w1 w2 w3", "completed")
    assert plain.usage is not None
    assert (plain.usage.input_tokens_details.cached_tokens, plain.usage.output_tokens) == (4, 3)
    with sdk.responses.stream(model=scene.model.slug, input=sim(tokens=3)) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") == 3
    assert kinds[-1] == "response.completed"
    assert final.output_text == "w1 w2 w3"
    assert final.model == scene.model.slug
    scene.settled(2)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_responses_call_tools(sdk: openai.OpenAI, scene: Scene, is_streamed: bool) -> None:
    tools: Any = [{"type": "function", **WEATHER}]
    history: list[Any] = [{"role": "user", "content": "Weather in Paris? " + sim(tools=1)}]
    if is_streamed:
        with sdk.responses.stream(model=scene.model.slug, input=history, tools=tools) as stream:
            answer: Any = stream.get_final_response()
    else:
        answer = sdk.responses.create(model=scene.model.slug, input=history, tools=tools)
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)) == ("get_weather", ARGUMENTS)
    history += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."},
    ]
    spoken = sdk.responses.create(model=scene.model.slug, input=history, tools=tools)
    assert spoken.output_text
    scene.settled(2)


async def test_the_asynchronous_client(scene: Scene) -> None:
    async with openai.AsyncOpenAI(
        base_url=scene.gateway.api_base, api_key=scene.token, max_retries=0
    ) as client:
        stream = await client.chat.completions.create(
            model=scene.model.slug, messages=asking(sim(tokens=3)), stream=True
        )
        text = ""
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        models = [model.id async for model in client.models.list()]
    assert text == "w1 w2 w3"
    assert models == [scene.model.slug]


def test_what_is_not_offered_says_so(sdk: openai.OpenAI, scene: Scene) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model=scene.model.slug, messages=asking("hi"), service_tier="flex")
    assert caught.value.param == "service_tier"
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=scene.model.slug, input="hi", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"
