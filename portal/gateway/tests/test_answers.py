"""Plain and streamed answers on every engine: what the client gets, what is stored, what is charged."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tokens import count_prompt_tokens
from portal.gateway.tests.stage import Answer, Stage, cost_nanos, make_stage, on, stored
from portal.kit.ids import PREFIXES, public_id
from tests.database import rows_of
from tests.gateway_process import RunningGateway

REASONING = {"llamacpp": 0, "vllm": 2, "sglang": 2, "generic": 2}


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(flavour: str, gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines[flavour], flavour))


def check_charge(
    answer: Answer, text: str, *, completion: int, cached: int, reasoning: int, basis: str
) -> None:
    """The stored facts are the engine's, and the charge is tokens times price to the nano-unit."""
    kept = stored(answer.request_id)
    prompt = count_prompt_tokens([{"role": "user", "content": text}])
    assert kept.usage is not None
    assert kept.outcomes == ["COMPLETED"]
    assert kept.hold["state"] == "POSTED"
    facts = {name: kept.usage[f"{name}_tokens"] for name in ("prompt", "cached", "completion", "reasoning")}
    assert facts == {"prompt": prompt, "cached": cached, "completion": completion, "reasoning": reasoning}
    assert (kept.usage["basis"], kept.usage["provenance"]) == (basis, "MEASURED")
    expected = cost_nanos(prompt, completion, cached=cached, reasoning=reasoning)
    assert (kept.usage["charged_nanos"], kept.usage["overrun_nanos"]) == (expected, 0)
    assert kept.hold["amount_nanos"] >= expected
    (attempt,) = kept.attempts
    assert (attempt["prompt_tokens"], attempt["completion_tokens"]) == (prompt, completion)
    assert attempt["wire_id"]
    assert attempt["http_status"] == 200


def test_a_plain_answer(stage: Stage, flavour: str) -> None:
    text = "please " + sim(tokens=9, cached=3, reasoning=2)
    answer = stage.ask(text)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json["usage"]["completion_tokens"] == 9
    assert answer.json["choices"][0]["message"]["content"] == "w1 w2 w3 w4 w5 w6 w7"
    check_charge(answer, text, completion=9, cached=3, reasoning=REASONING[flavour], basis="FINAL_USAGE")


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_streamed_answer(stage: Stage, flavour: str, include_usage: bool) -> None:
    text = "please " + sim(tokens=40, cached=3, reasoning=2)
    options: dict[str, Any] = {"stream_options": {"include_usage": include_usage}}
    answer = stage.stream(text, **options)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.is_done
    assert answer.text.split() == ["r1", "r2w1", *(f"w{number}" for number in range(2, 39))]
    finals = [chunk for chunk in answer.chunks if not chunk["choices"]]
    if include_usage:
        assert [final["usage"]["completion_tokens"] for final in finals] == [40]
    else:
        assert finals == []
    check_charge(answer, text, completion=40, cached=3, reasoning=REASONING[flavour], basis="FINAL_USAGE")


def test_what_the_backend_is_sent(stage: Stage, flavour: str, engines: dict[str, RunningEngine]) -> None:
    """Model, cap and id are ours; the rest is what the client asked for, and nothing else."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
    }
    engine = engines[flavour]
    answer = stage.ask(
        sim(tokens=2),
        max_tokens=7,
        max_completion_tokens=5,
        user="someone",
        metadata={"a": "b"},
        temperature=0.5,
        stop=["x"],
        tools=[tool],
        tool_choice="auto",
        response_format=schema,
    )
    assert answer.status == 200
    (attempt,) = stored(answer.request_id).attempts
    attempt_id = public_id(PREFIXES["attempt"], attempt["id"])
    record = next(row for row in reversed(engine.requests()) if row["wire_id"] == attempt["wire_id"])
    sent = engine.last_body(seq=record["seq"])
    assert sent.pop("messages") == [{"role": "user", "content": sim(tokens=2)}]
    assert sent.pop("max_tokens") == 7, "the larger of the two caps was priced"
    if flavour == "sglang":
        assert sent.pop("rid") == attempt_id
    headers = {name.lower(): value for name, value in record["headers"]}
    assert headers["x-request-id"] == attempt_id
    assert sent == {
        "model": "sim-model",
        "stream": False,
        "temperature": 0.5,
        "stop": ["x"],
        "tools": [tool],
        "tool_choice": "auto",
        "response_format": schema,
    }


def test_the_default_cap_is_sent_and_cuts(stage: Stage) -> None:
    answer = make_stage(
        stage.gateway, ("generic", _url(stage)), default_output_cap_tokens=11, max_output_tokens=50
    ).play(tokens=200)
    assert answer.json["usage"]["completion_tokens"] == 11
    assert answer.json["choices"][0]["finish_reason"] == "length"


def _url(stage: Stage) -> str:
    (backend,) = rows_of("models_catalog_servingbackend", id=stage.model.backend_id)
    return str(backend["base_url"])
