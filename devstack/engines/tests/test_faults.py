"""Each scripted misbehaviour, seen by a client that counts bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from devstack.engines.options import FLAVOURS, Flavour
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tests.raw import RawClient, ask, chat, streamed

EngineOf = Callable[[Flavour], RunningEngine]


def record_of(engine: RunningEngine, **expected: Any) -> None:
    """The only record has these values."""
    (record,) = engine.requests()
    assert {key: record[key] for key in expected} == expected


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("make", [chat, streamed])
async def test_reset_and_close_before_any_byte(
    engine_of: EngineOf, flavour: Flavour, make: Callable[..., dict[str, Any]]
):
    for fault, ending in (("reset_before", "reset"), ("close_before", "closed")):
        engine = engine_of(flavour)
        answer = await ask(engine, make(sim(fault=fault)))
        assert (answer.raw_bytes, answer.ending) == (0, ending)
        record_of(engine, fault=fault, ended="fault", generated_tokens=0, prompt_tokens=0, status=None)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("name", "ending"), [("reset_after", "reset"), ("close_after", "closed")])
async def test_stream_cut_after_7_tokens(engine_of: EngineOf, flavour: Flavour, name: str, ending: str):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(tokens=40, fault=f"{name}:7")))
    assert (answer.status, answer.ending) == (200, ending)
    assert answer.words() == [f"w{number}" for number in range(1, 8)]
    assert "[DONE]" not in answer.events()
    record_of(engine, ended="fault", aborted=True, generated_tokens=7, sent_tokens=7)


async def test_stream_cut_before_its_first_token(vllm: RunningEngine):
    answer = await ask(vllm, streamed(sim(fault="close_after:0")))
    assert (answer.ending, answer.words(), len(answer.events())) == ("closed", [], 1)


@pytest.mark.parametrize(("name", "ending"), [("reset_after", "reset"), ("close_after", "closed")])
async def test_plain_cut_in_its_middle(vllm: RunningEngine, name: str, ending: str):
    answer = await ask(vllm, chat(sim(tokens=40, fault=f"{name}:7")))
    assert (answer.status, answer.ending) == (200, ending)
    assert 0 < len(answer.body) < int(answer.header("content-length") or 0)
    record_of(vllm, ended="fault", generated_tokens=7, sent_tokens=0, reported_completion_tokens=None)


@pytest.mark.parametrize("make", [chat, streamed])
async def test_hang_before_until_the_client_leaves(
    llamacpp: RunningEngine, make: Callable[..., dict[str, Any]]
):
    async with await RawClient.connect(llamacpp) as client:
        await client.send(make(sim(fault="hang_before")))
        with pytest.raises(TimeoutError):
            await client.read_piece(timeout_s=0.2)
    llamacpp.wait_idle()
    record_of(llamacpp, ended="client_gone", generated_tokens=0, status=None)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_hang_in_the_middle_of_a_stream(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    async with await RawClient.connect(engine) as client:
        await client.send(streamed(sim(tokens=40, fault="hang_after:3")))
        answer = await client.read_events(4)
        with pytest.raises(TimeoutError):
            await client.read_piece(timeout_s=0.2)
        assert answer.words() == ["w1", "w2", "w3"]
        client.reset()
    engine.wait_idle()
    record_of(engine, ended="client_gone", aborted=True, generated_tokens=3, sent_tokens=3)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_status(engine_of: EngineOf, flavour: Flavour, status: int):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(fault=f"status:{status}")))
    assert (answer.status, answer.ending) == (status, "complete")
    body = answer.json()
    assert body.get("error", body)["message"] == f"Simulated failure {status}."
    record_of(engine, ended="fault", status=status, generated_tokens=0)


@pytest.mark.parametrize(
    ("make", "fault", "kind"),
    [
        (chat, "nonsense", "text/html; charset=utf-8"),
        (streamed, "nonsense", "text/event-stream; charset=utf-8"),
        (streamed, "nonsense:html", "text/html; charset=utf-8"),
        (streamed, "nonsense:json", "application/json"),
    ],
)
async def test_nonsense(vllm: RunningEngine, make: Callable[..., dict[str, Any]], fault: str, kind: str):
    answer = await ask(vllm, make(sim(fault=fault)))
    assert (answer.status, answer.header("content-type"), answer.ending) == (200, kind, "complete")
    if kind != "application/json":
        with pytest.raises(ValueError, match=r"."):
            json.loads(answer.body)
    record_of(vllm, ended="fault", generated_tokens=0)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_usage_null(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(tokens=3, fault="usage_null")))
    last = answer.objects()[-1]
    assert (last["choices"], last["usage"], answer.events()[-1]) == ([], None, "[DONE]")
    assert (await ask(engine, chat(sim(tokens=3, fault="usage_null")))).json()["usage"] is None
    assert [record["reported_completion_tokens"] for record in engine.requests()] == [None, None]


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_no_usage(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = chat(sim(tokens=3, fault="no_usage"), stream=True, stream_options=options, timings_per_token=True)
    answer = await ask(engine, asked)
    assert answer.words() == ["w1", "w2", "w3"]
    assert answer.events()[-1] == "[DONE]"
    assert not any("usage" in chunk or "timings" in chunk for chunk in answer.objects())
    plain = (await ask(engine, chat(sim(tokens=3, fault="no_usage")))).json()
    assert not {"usage", "timings"} & plain.keys()
    assert [record["generated_tokens"] for record in engine.requests()] == [3, 3]


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_usage_lies_beyond_the_cap(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(tokens=9, fault="usage_lies:+5"), max_tokens=4))
    assert len(answer.words()) == 4
    assert answer.objects()[-1]["usage"]["completion_tokens"] == 9
    plain = (await ask(engine, chat(sim(tokens=9, fault="usage_lies:-2"), max_tokens=4))).json()
    assert plain["usage"]["completion_tokens"] == 2
    seen = [
        (record["generated_tokens"], record["reported_completion_tokens"]) for record in engine.requests()
    ]
    assert seen == [(4, 9), (4, 2)]


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_error_event(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(tokens=40, fault="error_event_after:5")))
    *tokens, error, done = answer.events()
    assert (len(tokens), done, answer.ending) == (6, "[DONE]", "complete")
    assert "error" in json.loads(error)
    plain = await ask(engine, chat(sim(tokens=40, fault="error_event_after:5")))
    assert plain.status == 500
    assert [record["generated_tokens"] for record in engine.requests()] == [5, 5]


async def test_big_line(sglang: RunningEngine):
    answer = await ask(sglang, streamed(sim(tokens=3, fault="big_line:300000")))
    assert max(len(event) for event in answer.events()) > 300_000
    assert [word.rstrip("x") for word in answer.words()] == ["w1", "w2", "w3"]
    plain = (await ask(sglang, chat(sim(tokens=3, fault="big_line:300000")))).json()
    assert len(plain["choices"][0]["message"]["content"]) == len("w1 w2 w3") + 300_000


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("make", [chat, streamed])
async def test_slow_headers(engine_of: EngineOf, flavour: Flavour, make: Callable[..., dict[str, Any]]):
    engine = engine_of(flavour)
    started_s = time.perf_counter()
    async with await RawClient.connect(engine) as client:
        await client.send(make(sim(tokens=3, fault="slow_headers:200")), keep=True)
        first = await client.read_piece()
        assert b"\r\n\r\n" not in first
        client.push_back(first)
        answer = await client.read()
        assert await client.read_piece(timeout_s=2.0) == b""
    assert time.perf_counter() - started_s >= 0.19
    assert (answer.status, answer.ending, answer.header("connection")) == (200, "complete", "close")
    record_of(engine, ended="stop", generated_tokens=3, sent_tokens=3)


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_no_done(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    answer = await ask(engine, streamed(sim(tokens=3, fault="no_done")))
    assert answer.ending == "complete"
    assert "[DONE]" not in answer.events()
    assert answer.objects()[-1]["usage"]["completion_tokens"] == 3
    record_of(engine, ended="stop", reported_completion_tokens=3)
