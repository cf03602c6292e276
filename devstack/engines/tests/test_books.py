"""Books and counters: normal ends, clients that leave, and what each flavour counts then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from devstack.engines.options import FLAVOURS, Flavour
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tests.raw import RawClient, ask, chat, streamed

EngineOf = Callable[[Flavour], RunningEngine]

VLLM = 'engine="0",model_name="sim-model"'
SGLANG = 'engine_type="unified"'


def moved(engine: RunningEngine, before: dict[str, float]) -> dict[str, float]:
    """The token and request counters that moved, by short name."""
    found: dict[str, float] = {}
    for series, value in engine.metrics().items():
        name = series.partition("{")[0].rpartition(":")[2]
        delta = value - before.get(series, 0.0)
        if delta and name in COUNTERS:
            found[name] = found.get(name, 0.0) + delta
    return found


COUNTERS = {
    "prompt_tokens_total",
    "prompt_tokens_cached_total",
    "tokens_predicted_total",
    "generation_tokens_total",
    "request_success_total",
    "cached_tokens_total",
    "num_requests_total",
    "num_aborted_requests_total",
}


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        (
            "llamacpp",
            {"prompt_tokens_total": 4, "prompt_tokens_cached_total": 6, "tokens_predicted_total": 5},
        ),
        (
            "vllm",
            {
                "prompt_tokens_total": 10,
                "prompt_tokens_cached_total": 6,
                "generation_tokens_total": 5,
                "request_success_total": 1,
            },
        ),
        (
            "sglang",
            {
                "prompt_tokens_total": 10,
                "cached_tokens_total": 6,
                "generation_tokens_total": 5,
                "num_requests_total": 1,
            },
        ),
    ],
)
@pytest.mark.parametrize("make", [chat, streamed])
async def test_counters_of_a_finished_call(
    engine_of: EngineOf, flavour: Flavour, expected: dict[str, int], make: Callable[..., dict[str, Any]]
):
    engine = engine_of(flavour)
    before = engine.metrics()
    await ask(engine, make(sim(prompt=10, cached=6, tokens=5)))
    assert moved(engine, before) == expected


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        ("llamacpp", {"prompt_tokens_total": 10, "tokens_predicted_total": 6}),
        ("vllm", {"prompt_tokens_total": 20, "generation_tokens_total": 6, "request_success_total": 2}),
        ("sglang", {"prompt_tokens_total": 30, "generation_tokens_total": 6, "num_requests_total": 3}),
    ],
)
async def test_counters_of_two_choices(engine_of: EngineOf, flavour: Flavour, expected: dict[str, int]):
    engine = engine_of(flavour)
    before = engine.metrics()
    await ask(engine, chat(sim(prompt=10, tokens=3), n=2))
    assert moved(engine, before) == expected


async def test_llamacpp_names_its_incarnation_in_a_header(llamacpp: RunningEngine):
    async with await RawClient.connect(llamacpp) as client:
        await client.send(b"", method="GET", path="/metrics")
        answer = await client.read()
    assert int(answer.header("process-start-time-unix") or 0) > 0


async def test_generic_has_no_metrics(generic: RunningEngine):
    with pytest.raises(RuntimeError, match="404"):
        generic.metrics()


# Clients that leave.


@pytest.mark.parametrize(
    ("flavour", "overrun"), [("llamacpp", 1), ("vllm", 0), ("sglang", 4), ("generic", 0)]
)
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_cut_stream_stops_as_the_engine_does(
    engine_of: EngineOf, flavour: Flavour, overrun: int, leave: str
):
    engine = engine_of(flavour)
    before = {} if flavour == "generic" else engine.metrics()
    async with await RawClient.connect(engine) as client:
        await client.send(streamed(sim(prompt=10, tokens=1000, rate=100)))
        received = len((await client.read_events(6)).words())
        getattr(client, leave)()
    engine.wait_idle()
    (record,) = engine.requests()
    generated = record["generated_tokens"]
    assert (record["ended"], record["aborted"]) == ("client_gone", True)
    assert received <= record["sent_tokens"] == generated - overrun < 1000
    assert record["reported_completion_tokens"] is None
    expected = {
        "llamacpp": {"prompt_tokens_total": 10, "tokens_predicted_total": generated},
        "vllm": {"prompt_tokens_total": 10, "generation_tokens_total": generated},
        "sglang": {
            "prompt_tokens_total": 10,
            "generation_tokens_total": generated,
            "num_requests_total": 1,
            "num_aborted_requests_total": 1,
        },
    }
    if flavour != "generic":
        assert moved(engine, before) == expected[flavour]


async def test_the_overrun_can_be_chosen(vllm: RunningEngine):
    async with await RawClient.connect(vllm) as client:
        await client.send(streamed(sim(tokens=1000, rate=500, overrun=11)))
        await client.read_events(3)
    vllm.wait_idle()
    (record,) = vllm.requests()
    assert record["generated_tokens"] == record["sent_tokens"] + 11


async def test_counters_move_while_a_stream_runs_on_vllm_only(vllm: RunningEngine, llamacpp: RunningEngine):
    for engine, moving in ((vllm, True), (llamacpp, False)):
        before = engine.metrics()
        async with await RawClient.connect(engine) as client:
            await client.send(streamed(sim(tokens=1000, rate=200)))
            await client.read_events(4)
            delta = moved(engine, before)
            assert delta["prompt_tokens_total"] > 0
            assert (delta.get("generation_tokens_total", 0) >= 3) is moving
            assert "tokens_predicted_total" not in delta


@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        ("llamacpp", {"prompt_tokens_total": 10, "tokens_predicted_total": 2}),
        ("vllm", {}),
        ("sglang", {"num_aborted_requests_total": 1}),
    ],
)
async def test_a_client_that_leaves_before_the_first_token(
    engine_of: EngineOf, flavour: Flavour, expected: dict[str, int]
):
    engine = engine_of(flavour)
    before = engine.metrics()
    async with await RawClient.connect(engine) as client:
        await client.send(streamed(sim(prompt=10, tokens=100, rate=500, ttft_ms=300)))
        engine.wait_running()
    engine.wait_idle()
    assert moved(engine, before) == expected
    assert engine.requests()[0]["ended"] == "client_gone"


async def test_a_cut_plain_call_runs_on_with_llamacpp(llamacpp: RunningEngine):
    async with await RawClient.connect(llamacpp) as client:
        await client.send(chat(sim(tokens=60, rate=200)))
        llamacpp.wait_running()
    llamacpp.wait_idle()
    (record,) = llamacpp.requests()
    assert (record["generated_tokens"], record["sent_tokens"]) == (60, 0)
    assert (record["ended"], record["aborted"]) == ("client_gone", False)


@pytest.mark.parametrize("flavour", ["vllm", "generic"])
async def test_a_cut_plain_call_is_aborted_by_others(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    async with await RawClient.connect(engine) as client:
        await client.send(chat(sim(tokens=1000, rate=100)))
        engine.wait_running()
    engine.wait_idle()
    (record,) = engine.requests()
    assert record["generated_tokens"] < 1000
    assert (record["ended"], record["aborted"], record["sent_tokens"]) == ("client_gone", True, 0)


async def test_sglang_notices_a_cut_plain_call_late(sglang: RunningEngine):
    async with await RawClient.connect(sglang) as client:
        await client.send(chat(sim(tokens=1000, rate=1000)))
        sglang.wait_running()
    sglang.wait_idle()
    # 3.5 s of decoding are more than this call has.
    assert sglang.requests()[0]["generated_tokens"] == 1000


# The pages.


async def test_what_reached_the_backend(vllm: RunningEngine):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    first = chat("hi", tools=tools, response_format={"type": "json_object"}, max_tokens=5)
    raw = json.dumps(first).encode()
    await ask(vllm, raw, headers={"Authorization": "Bearer secret", "X-Request-Id": "r-1"})
    await ask(vllm, chat("second"))
    earlier, later = vllm.requests()
    assert vllm.last_body()["messages"][0]["content"] == "second"
    assert vllm.last_body(seq=earlier["seq"]) == first
    assert earlier["body_sha256"] == hashlib.sha256(raw).hexdigest()
    assert earlier["body_bytes"] == len(raw)
    headers = dict(earlier["headers"])
    assert headers["x-request-id"] == "r-1"
    assert "authorization" not in headers
    assert vllm.requests(since_seq=earlier["seq"]) == [later]
    vllm.reset()
    with pytest.raises(LookupError):
        vllm.last_body()


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_totals_are_the_sums_of_the_records(engine_of: EngineOf, flavour: Flavour):
    engine = engine_of(flavour)
    for text in (
        sim(tokens=3),
        sim(tokens=9, cached=2, reasoning=4),
        sim(fault="close_after:2"),
        "[[sim bad",
    ):
        await ask(engine, streamed(text, max_tokens=6))
    records, totals = engine.requests(), engine.totals()
    for key in ("prompt_tokens", "cached_tokens", "reasoning_tokens", "generated_tokens", "sent_tokens"):
        assert totals[key] == sum(record[key] for record in records)
    assert totals["generated_tokens"] == 3 + 6 + 2
    assert totals["ended"] == {"stop": 1, "length": 1, "fault": 1, "rejected": 1}
    assert (totals["requests"], totals["running"], totals["aborted"]) == (4, 0, 1)
