"""The simulators' messages have the keys and types of recorded ones, and the same habits."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devstack.engines.options import Flavour
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tests.raw import RawClient, ask, chat, streamed

FIXTURES: dict[Flavour, dict[str, Any]] = {
    flavour: json.loads((Path(__file__).parent / "fixtures" / f"{flavour}.json").read_text())
    for flavour in ("llamacpp", "vllm", "sglang")
}
LONG_TEXT = "word " * 3000
# Well below the five seconds after which an idle connection is closed anyway.
CLOSED_WITHIN_S = 2.0
EngineOf = Callable[[Flavour], RunningEngine]


def cases(group: str) -> list[Any]:
    return [
        pytest.param(flavour, recorded, id=f"{flavour}-{name}")
        for flavour, groups in FIXTURES.items()
        for name, recorded in groups[group].items()
    ]


def shape(value: Any) -> Any:
    """Keys and JSON types, of the first element in a list."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return str(value)
    return "number" if isinstance(value, int | float) else "string"


def request_of(recorded: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The recorded request, for our model name."""
    body = copy.deepcopy(recorded["request"])
    if body.get("model") != "gpt-nope" and "model" in body:
        body["model"] = "sim-model"
    given_id = recorded.get("request_id")
    return body, {} if given_id is None else {"X-Request-Id": given_id}


@pytest.mark.parametrize(("flavour", "recorded"), cases("plain"))
async def test_plain(engine_of: EngineOf, flavour: Flavour, recorded: dict[str, Any]):
    body, headers = request_of(recorded)
    answer = await ask(engine_of(flavour), body, headers=headers)
    assert answer.status == recorded["status"]
    assert shape(answer.json()) == shape(recorded["json"])
    assert {name for name, _ in answer.headers} == set(recorded["header_names"])
    assert len(answer.json()["choices"]) == len(recorded["json"]["choices"])


@pytest.mark.parametrize(("flavour", "recorded"), cases("stream"))
async def test_stream(engine_of: EngineOf, flavour: Flavour, recorded: dict[str, Any]):
    body, headers = request_of(recorded)
    answer = await ask(engine_of(flavour), body, headers=headers)
    assert answer.ending == "complete"
    assert {name for name, _ in answer.headers} == set(recorded["header_names"])
    assert answer.events()[-1] == "[DONE]"
    seen: dict[str, Any] = {}
    for chunk in answer.objects():
        seen.setdefault(kind_of(chunk), chunk)
    assert {kind: shape(chunk) for kind, chunk in seen.items()} == {
        kind: shape(chunk) for kind, chunk in recorded["chunks"].items()
    }


def kind_of(chunk: dict[str, Any]) -> str:
    if not chunk["choices"]:
        return "usage"
    choice = chunk["choices"][0]
    if choice["delta"].get("role"):
        return "role"
    if choice["finish_reason"] is None:
        return "token"
    return "last_token" if choice["delta"].get("content") else "finish"


@pytest.mark.parametrize(("flavour", "recorded"), cases("errors"))
async def test_errors(engine_of: EngineOf, flavour: Flavour, recorded: dict[str, Any]):
    body, headers = request_of(recorded)
    if "repeated" in str(body.get("messages")):
        body["messages"][0]["content"] = LONG_TEXT
    path = "/v1/nope" if "messages" not in body and "model" not in body else "/v1/chat/completions"
    engine = engine_of(flavour)
    answer = await ask(engine, body, headers=headers, path=path)
    assert answer.status == recorded["status"]
    assert shape(answer.json()) == shape(recorded["json"])
    said, expected = answer.json(), recorded["json"]
    inner, wanted = said.get("error", said), expected.get("error", expected)
    for key in ("type", "code", "param"):
        assert inner.get(key) == wanted.get(key)
    assert engine.totals()["generated_tokens"] == 0


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "sglang"])
async def test_models(engine_of: EngineOf, flavour: Flavour):
    async with await RawClient.connect(engine_of(flavour)) as client:
        await client.send(b"", method="GET", path="/v1/models")
        answer = await client.read()
    recorded = FIXTURES[flavour]["models"]
    assert {name for name, _ in answer.headers} == set(recorded["header_names"])
    said, expected = answer.json(), recorded["json"]
    assert said["object"] == "list"
    assert said["data"][0]["id"] == "sim-model"
    assert set(said["data"][0]) <= set(expected["data"][0])


# Ids.


async def test_llamacpp_draws_its_ids(llamacpp: RunningEngine):
    ids = [
        (await ask(llamacpp, chat("hi", rid="mine"), headers={"X-Request-Id": "mine"})).json()["id"]
        for _ in range(2)
    ]
    assert all(drawn.startswith("chatcmpl-") and len(drawn) == 41 for drawn in ids)
    assert ids[0] != ids[1]


async def test_vllm_takes_the_header_before_the_body(vllm: RunningEngine):
    answer = await ask(vllm, chat("hi", request_id="body"), headers={"X-Request-Id": "header"})
    assert (answer.json()["id"], answer.header("x-request-id")) == ("chatcmpl-header", "header")
    assert (await ask(vllm, chat("hi", request_id="body"))).json()["id"] == "chatcmpl-body"
    assert vllm.requests()[0]["wire_id"] == "chatcmpl-header"


async def test_sglang_takes_rid_and_refuses_a_live_one(sglang: RunningEngine):
    assert (await ask(sglang, chat("hi", rid="a-1"), headers={"X-Request-Id": "x"})).json()["id"] == "a-1"
    async with await RawClient.connect(sglang) as first:
        await first.send(streamed(sim(tokens=5000, rate=1000), rid="a-1"))
        await first.read_events(1)
        refused = await ask(sglang, chat("hi", rid="a-1"))
        assert refused.status == 400
        assert "Duplicate request ID detected: a-1" in refused.json()["message"]
    sglang.wait_idle()
    assert (await ask(sglang, chat("hi", rid="a-1"))).status == 200


async def test_sglang_loses_rid_with_several_choices(sglang: RunningEngine):
    assert (await ask(sglang, chat("hi", rid="a-2", n=2))).json()["id"] != "a-2"


# Lengths.


@pytest.mark.parametrize(
    ("flavour", "caps", "expected"),
    [
        ("llamacpp", {"n_predict": 12, "max_tokens": 5}, 12),
        ("llamacpp", {"max_tokens": 12, "n_predict": 5}, 5),
        ("llamacpp", {"max_tokens": -1, "n_predict": 7}, 7),
        ("llamacpp", {"max_completion_tokens": 5, "max_tokens": 12}, 5),
        ("llamacpp", {"max_tokens": 0}, 1),
        ("llamacpp", {"max_tokens": 6, "n_predict": None}, 6),
        ("vllm", {"max_completion_tokens": 12, "max_tokens": 5, "n_predict": 2}, 12),
        ("vllm", {"max_completion_tokens": 5, "max_tokens": 12}, 5),
        ("sglang", {"max_completion_tokens": 5, "max_tokens": 12}, 5),
        ("sglang", {"max_tokens": 0}, 0),
        ("generic", {"max_completion_tokens": 5, "max_tokens": 12}, 5),
    ],
)
async def test_cap_precedence(engine_of: EngineOf, flavour: Flavour, caps: dict[str, Any], expected: int):
    body = (await ask(engine_of(flavour), chat(sim(tokens=40), **caps))).json()
    assert body["usage"]["completion_tokens"] == expected
    assert len(body["choices"][0]["message"]["content"].split()) == expected
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "sglang", "generic"])
async def test_lengths_are_what_was_asked_for(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    text = f"one two {sim(tokens=7, cached=4, reasoning=2)}"
    answer = await ask(engine, streamed(text, max_tokens=50))
    usage = answer.objects()[-1]["usage"]
    reasoning_field = "reasoning" if flavour == "vllm" else "reasoning_content"
    assert answer.words() == ["w1", "w2", "w3", "w4", "w5"]
    assert answer.words(kind=reasoning_field) == ["r1", "r2"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (3 + 4 + len(text.split()), 7)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    assert {choice["finish_reason"] for chunk in answer.objects() for choice in chunk["choices"]} == {
        None,
        "stop",
    }
    # Every event is a chunk of its own, [DONE] included.
    assert len(answer.chunks) == len(answer.events())
    record = engine.requests()[0]
    expected = {
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": 4,
        "reasoning_tokens": 2,
        "generated_tokens": 7,
        "sent_tokens": 7,
        "reported_completion_tokens": 7,
        "aborted": False,
        "ended": "stop",
        "cap_tokens": 50,
    }
    assert {key: record[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("flavour", "reported"), [("llamacpp", 3), ("vllm", 6), ("sglang", 6), ("generic", 6)]
)
async def test_usage_with_two_choices(engine_of: EngineOf, flavour: Flavour, reported: int):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(tokens=3), n=2))
    usages = [chunk["usage"] for chunk in answer.objects() if chunk.get("usage")]
    assert [usage["completion_tokens"] for usage in usages] == ([3, 3] if flavour == "llamacpp" else [6])
    assert answer.words(0) == answer.words(1) == ["w1", "w2", "w3"]
    record = engine.requests()[0]
    assert (record["generated_tokens"], record["reported_completion_tokens"]) == (6, reported)


async def test_llamacpp_checkpoints_stand_on_every_token(llamacpp: RunningEngine):
    answer = await ask(llamacpp, streamed(sim(tokens=5, cached=3), timings_per_token=True))
    timings = [chunk["timings"] for chunk in answer.objects() if "timings" in chunk]
    assert [timing["predicted_n"] for timing in timings] == [1, 2, 3, 4, 5, 5]
    assert {timing["cache_n"] for timing in timings} == {3}


@pytest.mark.parametrize("flavour", ["vllm", "sglang"])
async def test_continuous_usage_counts_up(engine_of: EngineOf, flavour: Flavour):
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = await ask(engine_of(flavour), chat(sim(tokens=4), stream=True, stream_options=options))
    counts = [chunk["usage"]["completion_tokens"] for chunk in answer.objects() if "usage" in chunk]
    assert counts == ([0] if flavour == "vllm" else []) + [1, 2, 3, 4, 4]


@pytest.mark.parametrize("flavour", ["vllm", "sglang", "generic"])
async def test_prompt_and_cap_must_fit_together(engine_of: EngineOf, flavour: Flavour):
    answer = await ask(engine_of(flavour), chat(sim(prompt=2000), max_tokens=49))
    assert answer.status == 400
    assert "maximum context length" in answer.body.decode()
    assert (await ask(engine_of(flavour), chat(sim(prompt=2000), max_tokens=48))).status == 200


async def test_llamacpp_stops_at_the_end_of_its_context(llamacpp: RunningEngine):
    body = (await ask(llamacpp, chat(sim(prompt=2040, tokens=100), max_tokens=50))).json()
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (8, "length")


# Unknown models, fields, bodies.


@pytest.mark.parametrize(
    ("flavour", "status", "model"),
    [("llamacpp", 200, "sim-model"), ("sglang", 200, "nope"), ("vllm", 404, None), ("generic", 404, None)],
)
async def test_unknown_model(engine_of: EngineOf, flavour: Flavour, status: int, model: str | None):
    answer = await ask(engine_of(flavour), chat("hi") | {"model": "nope"})
    assert (answer.status, answer.json().get("model")) == (status, model)


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "sglang", "generic"])
async def test_unknown_fields_are_taken_and_broken_bodies_are_not(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    assert (await ask(engine, chat("hi", frobnicate={"a": 1}))).status == 200
    for broken in (b'{"model": "x", "messages": [', b"", b"\xff\xfe", b"[]", b"7"):
        assert (await ask(engine, broken)).status == 400
    wrong_directive = await ask(engine, chat("[[sim tokns=4]]"))
    assert wrong_directive.status == 400
    assert "sim_directive_error" in wrong_directive.body.decode()
    assert engine.totals()["ended"] == {"stop": 1, "rejected": 6}


# Connections.


async def test_llamacpp_closes_after_a_stream_that_announced_otherwise(llamacpp: RunningEngine):
    async with await RawClient.connect(llamacpp) as client:
        await client.send(chat("hi"), keep=True)
        assert (await client.read()).header("keep-alive") == "timeout=5, max=100"
        await client.send(streamed("hi"), keep=True)
        answer = await client.read()
        assert (answer.ending, answer.header("keep-alive")) == ("complete", "timeout=5, max=100")
        assert await client.read_piece(CLOSED_WITHIN_S) == b""


async def test_llamacpp_closes_after_an_error_and_after_100_requests(llamacpp: RunningEngine):
    async with await RawClient.connect(llamacpp) as client:
        await client.send(b"{", keep=True)
        assert (await client.read()).header("connection") == "close"
        assert await client.read_piece(CLOSED_WITHIN_S) == b""
    async with await RawClient.connect(llamacpp) as client:
        seen = []
        for _ in range(100):
            await client.send(chat("hi"), keep=True)
            seen.append((await client.read()).header("connection"))
        assert seen == [None] * 99 + ["close"]
        assert await client.read_piece(CLOSED_WITHIN_S) == b""


@pytest.mark.parametrize("flavour", ["vllm", "sglang", "generic"])
async def test_others_keep_the_connection_after_a_stream(engine_of: EngineOf, flavour: Flavour):
    async with await RawClient.connect(engine_of(flavour)) as client:
        for _ in range(2):
            await client.send(streamed("hi"), keep=True)
            assert (await client.read()).ending == "complete"
