"""Streams at their edges: odd bytes, odd usage, dead connections, and many at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tokens import count_prompt_tokens
from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Stage, cost_nanos, held_nanos, make_stage, on, stored
from tests.database import rows_of
from tests.gateway_process import RunningGateway

MEASURING = ("llamacpp", "vllm", "sglang")


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(flavour: str, gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines[flavour], flavour))


def prompt_tokens(text: str) -> int:
    return count_prompt_tokens([{"role": "user", "content": text}])


# Bytes.

ODD_EVENTS = (
    b'data: {"id":"c1","choices":[{"delta":{"role":"assistant","content":""},"index":0}]}\n\n',
    b": a comment\n\n",
    b'data: {"choices": [{"index": 0, "delta": {"content": "\\u6a21\xe5\x9e\x8b\xf0\x9f\xa6\x8a"}}]}\r\n\r\n',
    b'event: message\nid: 7\ndata: {"choices":[{"index":0,"delta":{"content":"data: [DONE]\\n\\n"}}]}\n\n',
    b'data:{"choices":[{"index":0,"delta":{"content":"\\"usage\\": {\\"choices\\":[]}"}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}\n\n',
    b"data: [DONE]\n\n",
)


@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
@pytest.mark.parametrize("include_usage", [False, True])
def test_bytes_pass_unchanged(gateway: RunningGateway, piece_bytes: int, include_usage: bool) -> None:
    """However the backend's bytes are cut, the client gets the same ones, less the usage unasked."""
    whole = b"".join(ODD_EVENTS)

    def script(exchange: Exchange) -> None:
        exchange.begin_stream()
        for start in range(0, len(whole), piece_bytes):
            exchange.chunk(whole[start : start + piece_bytes])
        exchange.end_stream()

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        answer = stage.stream("hello", stream_options={"include_usage": include_usage})
    expected = [event for event in ODD_EVENTS if include_usage or b'"prompt_tokens"' not in event]
    assert answer.body == b"".join(expected)
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert kept.usage["charged_nanos"] == cost_nanos(11, 3)
    assert kept.attempts[0]["wire_id"] == "c1"


def test_a_huge_event_passes(stage: Stage) -> None:
    answer = stage.play_stream(tokens=3, fault=f"big_line:{2 * 2**20}")
    assert answer.is_done
    assert len(answer.text) > 2 * 2**20
    usage = stored(answer.request_id).usage
    assert usage is not None
    assert usage["completion_tokens"] == 3


def test_an_event_beyond_the_limit_ends_the_answer(stage: Stage) -> None:
    answer = stage.play_stream(tokens=3, fault=f"big_line:{6 * 2**20}")
    assert len(answer.body) < 2**20
    assert answer.chunks[-1]["error"]["code"] == "backend_failed"
    assert stored(answer.request_id).usage is None, "only a role was delivered"


# Usage that is missing or wrong.


def test_an_end_without_done(stage: Stage) -> None:
    text = sim(tokens=5, fault="no_done")
    answer = stage.stream(text)
    assert answer.text.split() == [f"w{number}" for number in range(1, 6)]
    kept = stored(answer.request_id)
    assert kept.outcomes == ["COMPLETED"]
    assert kept.usage is not None
    assert kept.usage["charged_nanos"] == cost_nanos(prompt_tokens(text), 5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["no_usage", "usage_null"])
def test_no_usage_is_estimated(stage: Stage, flavour: str, fault: str, stream: bool) -> None:
    """Never more than the cap; where running counts were there, the last of them counts."""
    text = "some words to count " + sim(tokens=50, fault=fault)
    answer = stage.stream(text, max_tokens=12) if stream else stage.ask(text, max_tokens=12)
    assert answer.status == 200
    assert all(chunk["choices"] for chunk in answer.chunks)
    kept = stored(answer.request_id)
    assert kept.outcomes == ["COMPLETED"]
    assert kept.usage is not None
    assert held_nanos(stage.tenant) == 0
    # Where the end has no counts, the last running ones stand; llama.cpp has them in plain answers too.
    if fault == "usage_null" and flavour in (MEASURING if stream else ("llamacpp",)):
        assert (kept.usage["basis"], kept.usage["provenance"]) == ("CHECKPOINT", "MEASURED")
        assert (kept.usage["prompt_tokens"], kept.usage["completion_tokens"]) == (prompt_tokens(text), 12)
    else:
        assert (kept.usage["basis"], kept.usage["provenance"]) == ("EVENTS", "ESTIMATED")
        assert 1 <= kept.usage["completion_tokens"] <= 12
    if stream:
        assert kept.usage["completion_tokens"] == 12
    charged = cost_nanos(kept.usage["prompt_tokens"], kept.usage["completion_tokens"])
    assert kept.usage["charged_nanos"] == charged <= kept.hold["amount_nanos"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_that_claims_more_than_the_cap(stage: Stage, stream: bool) -> None:
    """The tenant pays its hold, the rest is our overrun."""
    text = sim(tokens=5, fault="usage_lies:+100000")
    answer = stage.stream(text, max_tokens=10) if stream else stage.ask(text, max_tokens=10)
    assert answer.status == 200
    kept = stored(answer.request_id)
    assert kept.usage is not None
    cost = cost_nanos(prompt_tokens(text), 100_005)
    assert kept.usage["cost_nanos"] == cost
    assert kept.usage["charged_nanos"] == kept.hold["amount_nanos"]
    assert kept.usage["overrun_nanos"] == cost - kept.hold["amount_nanos"] > 0
    assert held_nanos(stage.tenant) == 0


@pytest.mark.parametrize(
    "usage",
    [
        '{"prompt_tokens":-5,"completion_tokens":-5}',
        '{"prompt_tokens":5,"completion_tokens":1000000000000}',
        '{"prompt_tokens":99999999999999999999999999,"completion_tokens":1}',
        '{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9}}',
        '{"prompt_tokens":"5","completion_tokens":1}',
        '{"prompt_tokens":5,"completion_tokens":1.5}',
        '{"completion_tokens":1}',
        '"lots"',
        "[]",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_absurd_counts_are_settled(gateway: RunningGateway, usage: str, stream: bool) -> None:
    """Whatever a backend claims, the call is settled within its hold."""
    choice = {"index": 0, "delta" if stream else "message": {"role": "assistant", "content": "hi"}}
    answer_json = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]})
    body = f'{answer_json[:-1]},"usage":{usage}}}'

    def script(exchange: Exchange) -> None:
        if not stream:
            exchange.answer("application/json", body.encode())
            return
        exchange.begin_stream()
        exchange.chunk(b"data: " + body.encode() + b"\n\n")
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.end_stream()

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        answer = stage.stream("hi") if stream else stage.ask("hi")
    assert answer.status == 200
    kept = stored(answer.request_id)
    assert kept.hold["state"] == "POSTED"
    assert kept.usage is not None
    assert 0 <= kept.usage["charged_nanos"] <= kept.hold["amount_nanos"]
    assert held_nanos(stage.tenant) == 0


# Many.


def test_a_backend_that_closes_after_each_stream(stage: Stage, flavour: str) -> None:
    """A hundred streams one after another, none of which meets a dead connection."""
    for _ in range(100 if flavour == "llamacpp" else 25):
        answer = stage.play_stream(tokens=2)
        assert (answer.status, answer.is_done, answer.text) == (200, True, "w1 w2")


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_that_was_closed_meanwhile(gateway: RunningGateway, stream: bool) -> None:
    """Keep-alive is announced and then not kept: the call goes out again, and nobody notices."""
    body = b'{"id":"x","object":"chat.completion","choices":[{"message":{"content":"hi"}}],'
    body += b'"usage":{"prompt_tokens":1,"completion_tokens":1}}'

    def script(exchange: Exchange) -> None:
        if exchange.ordinal > 1:
            exchange.reset()
        elif stream:
            exchange.begin_stream()
            exchange.chunk(b"data: " + body + b"\n\ndata: [DONE]\n\n")
            exchange.end_stream()
        else:
            exchange.answer("application/json", body)

    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        answers = [stage.stream("hi") if stream else stage.ask("hi") for _ in range(20)]
        assert [answer.status for answer in answers] == [200] * 20
        assert backend.requests > 20, "no connection was ever reused, so nothing was shown"
    outcomes = [stored(answer.request_id).outcomes for answer in answers]
    assert all(found in (["COMPLETED"], ["STALE", "COMPLETED"]) for found in outcomes)
    # Whatever a backend is sent has an attempt of its own.
    assert sum(len(found) for found in outcomes) == backend.requests


@pytest.mark.parametrize("turn", [1, 2])
def test_fifty_streams_at_once(gateway: RunningGateway, engines: dict[str, RunningEngine], turn: int) -> None:
    """No chunk is lost, doubled or in another's stream, and each is charged for what it is."""
    stages = {flavour: make_stage(gateway, on(engine, flavour)) for flavour, engine in engines.items()}

    def run(number: int) -> None:
        flavour, tokens = FLAVOURS[number % len(FLAVOURS)], 20 + number
        text = f"call {number} of turn {turn} " + sim(tokens=tokens, rate=400)
        answer = stages[flavour].stream(text)
        assert answer.is_done
        assert answer.text.split() == [f"w{word}" for word in range(1, tokens + 1)]
        assert len({chunk["id"] for chunk in answer.chunks}) == 1
        usage = stored(answer.request_id).usage
        assert usage is not None
        assert usage["charged_nanos"] == cost_nanos(prompt_tokens(text), tokens)

    with ThreadPoolExecutor(50) as pool:
        for _ in pool.map(run, range(50)):
            pass
    for stage in stages.values():
        charged = sum(
            row["charged_nanos"] for row in rows_of("quotas_usagerecord", tenant_id=stage.tenant.id)
        )
        (wallet,) = rows_of("quotas_wallet", tenant_id=stage.tenant.id)
        assert wallet["granted_nanos"] == 10**9 - charged
        assert wallet["pending_nanos"] == 0
