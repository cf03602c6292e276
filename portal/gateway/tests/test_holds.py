"""Whatever is asked, at whatever endpoint: what a backend can honestly count costs no more than was held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.gateway.tests.endpoints import call, embeddings_of
from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Stage, make_stage, stored
from tests.gateway_process import RunningGateway

CAPS = ("max_tokens", "max_output_tokens")


def texts_in(value: Any) -> Iterator[str | int]:
    """Every text and token id, wherever it stands."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from () if name in ("type", "role", "id", "model") else texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, str) or type(value) is int:
        yield value


def worst_case(exchange: Exchange) -> None:
    """A backend whose tokenizer makes a token of every byte, and which answers as long as it may."""
    asked = json.loads(exchange.body)
    said = {
        name: asked[name]
        for name in ("messages", "prompt", "input", "system", "instructions")
        if name in asked
    }
    prompt = sum(1 if isinstance(text, int) else len(text.encode()) for text in texts_in(said)) + 8
    cap = next((asked[name] for name in CAPS if name in asked), 0)
    openai: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": cap, "total_tokens": prompt + cap}
    anthropic = {"input_tokens": prompt, "output_tokens": cap}
    choice: dict[str, Any] = {
        "index": 0,
        "text": "a",
        "message": {"role": "assistant", "content": "a"},
        "finish_reason": "length",
    }
    body: dict[str, Any]
    if "max_output_tokens" in asked:
        body = {"object": "response", "status": "incomplete", "output": [], "usage": anthropic}
    elif "messages" in asked and "system" in asked:
        body = {"type": "message", "content": [{"type": "text", "text": "a"}], "usage": anthropic}
    elif not cap:
        body = {"object": "list", "data": embeddings_of([0], "float"), "usage": openai}
    else:
        body = {"object": "chat.completion", "choices": [choice], "usage": openai}
    exchange.answer("application/json", json.dumps({"id": "x", "model": "tiny", **body}).encode())


@pytest.fixture(scope="module")
def backend() -> Iterator[ScriptedBackend]:
    with ScriptedBackend(worst_case) as running:
        yield running


@pytest.fixture(scope="module")
def stage(gateway: RunningGateway, backend: ScriptedBackend) -> Stage:
    return make_stage(
        gateway,
        ("vllm", backend.url),
        upstream_model="tiny",
        granted="100.00",
        capabilities=["chat", "embeddings"],
        template_overhead_tokens=0,
    )


words = st.text(max_size=30).filter(lambda text: "\0" not in text)
caps = st.integers(1, 500)
prompts = (
    words | st.lists(words, min_size=1, max_size=4) | st.lists(st.integers(0, 9), min_size=1, max_size=9)
)
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words}),
    min_size=1,
    max_size=4,
)
calls = st.one_of(
    st.tuples(
        st.just("chat.completions"),
        st.fixed_dictionaries({"messages": turns, "n": st.integers(1, 3)}, optional={"max_tokens": caps}),
    ),
    st.tuples(
        st.just("completions"),
        st.fixed_dictionaries({"prompt": prompts, "n": st.integers(1, 2)}, optional={"max_tokens": caps}),
    ),
    st.tuples(st.just("embeddings"), st.fixed_dictionaries({"input": prompts})),
    st.tuples(
        st.just("responses"),
        st.fixed_dictionaries(
            {"input": words | turns, "instructions": words}, optional={"max_output_tokens": caps}
        ),
    ),
    st.tuples(
        st.just("messages"),
        st.fixed_dictionaries({"messages": turns, "max_tokens": caps, "system": words}),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=calls)
def test_no_cost_exceeds_its_hold(stage: Stage, asked: tuple[str, dict[str, Any]]) -> None:
    endpoint, fields = asked
    answer = call(stage, endpoint, **fields)
    assert answer.status == 200, answer.body
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert kept.usage["overrun_nanos"] == 0
    assert 0 < kept.usage["charged_nanos"] <= kept.hold["amount_nanos"]
