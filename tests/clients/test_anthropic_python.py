"""Anthropic's official SDK: messages, streams, tools and thinking, as its documents show them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from devstack.engines.testing import sim
from tests.clients.simulated import Scene
from tests.gateway_process import RunningGateway

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ARGUMENTS = {"city": "city"}


@pytest.fixture
def sdk(scene: Scene) -> Iterator[anthropic.Anthropic]:
    with make_sdk(scene.gateway, scene.token) as client:
        yield client


def make_sdk(gateway: RunningGateway, token: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=token, max_retries=0, timeout=30)


def asking(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_message(sdk: anthropic.Anthropic, scene: Scene) -> None:
    """Cached tokens are counted beside the input; the bill knows both."""
    raw = sdk.messages.with_raw_response.create(
        model=scene.model.slug,
        max_tokens=100,
        system="Be brief.",
        messages=asking("Hello " + sim(tokens=3, cached=4)),
    )
    assert raw.headers["x-request-id"].startswith("req_")
    message = raw.parse()
    (block,) = message.content
    assert (block.type, getattr(block, "text", None)) == ("text", "w1 w2 w3")
    assert (message.stop_reason, message.model) == ("end_turn", scene.model.slug)
    (row,) = scene.settled(1)
    assert row["cached_tokens"] == message.usage.cache_read_input_tokens == 4
    assert row["prompt_tokens"] == message.usage.input_tokens + 4


def test_a_stream(sdk: anthropic.Anthropic, scene: Scene) -> None:
    with sdk.messages.stream(
        model=scene.model.slug, max_tokens=100, messages=asking(sim(tokens=4, cached=3))
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "w1 w2 w3 w4"
    assert (message.usage.output_tokens, message.stop_reason) == (4, "end_turn")
    assert message.model == scene.model.slug
    (row,) = scene.settled(1)
    assert row["cached_tokens"] == 3


def test_a_cap_and_raw_events(sdk: anthropic.Anthropic, scene: Scene) -> None:
    with sdk.messages.create(
        model=scene.model.slug, max_tokens=2, messages=asking(sim(tokens=9)), stream=True
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    scene.settled(1)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_tools_are_used_and_answered(sdk: anthropic.Anthropic, scene: Scene, is_streamed: bool) -> None:
    messages = asking("Weather in Paris? " + sim(tools=1))
    common: dict[str, Any] = {"model": scene.model.slug, "max_tokens": 200, "tools": [WEATHER]}
    if is_streamed:
        with sdk.messages.stream(messages=messages, **common) as stream:
            answer = stream.get_final_message()
    else:
        answer = sdk.messages.create(messages=messages, tool_choice={"type": "auto"}, **common)
    assert answer.stop_reason == "tool_use"
    (use,) = answer.content
    assert use.type == "tool_use"
    assert (use.name, use.input) == ("get_weather", ARGUMENTS)
    messages += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Sunny."}]},
    ]
    spoken = sdk.messages.create(messages=messages, **common)
    assert spoken.stop_reason == "end_turn"
    scene.settled(2)


def test_an_image(sdk: anthropic.Anthropic, scene: Scene) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What? " + sim(tokens=2)}]
    sdk.messages.create(
        model=scene.model.slug, max_tokens=10, messages=[{"role": "user", "content": content}]
    )
    (row,) = scene.settled(1)
    assert row["prompt_tokens"] == 16 + 1 + 2 + 4 + 3


def test_errors_are_anthropics(sdk: anthropic.Anthropic, scene: Scene) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        sdk.messages.create(model="nobody/nothing", max_tokens=5, messages=asking("hi"))
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError):
        sdk.messages.create(
            model=scene.model.slug, max_tokens=5, messages=asking("hi"), extra_body={"n_predict": 5}
        )
    with pytest.raises(anthropic.AuthenticationError), make_sdk(scene.gateway, "sk-wrong") as stranger:
        stranger.messages.create(model=scene.model.slug, max_tokens=5, messages=asking("hi"))


def test_a_stream_that_breaks_off_raises(sdk: anthropic.Anthropic, scene: Scene) -> None:
    messages = asking(sim(tokens=9, fault="error_event_after:3"))
    seen: list[str] = []
    with (
        sdk.messages.stream(model=scene.model.slug, max_tokens=50, messages=messages) as stream,
        pytest.raises(anthropic.APIError),
    ):
        seen.extend(stream.text_stream)
    assert "".join(seen) == "w1 w2 w3"
