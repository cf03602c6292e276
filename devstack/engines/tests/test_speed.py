"""Slots, queues and a speed that falls as more share it; and what a whole engine can be told to do."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator

import pytest

from devstack.engines.call import Call, EngineRequest
from devstack.engines.directive import Directive
from devstack.engines.machine import Machine
from devstack.engines.options import Speeds
from devstack.engines.prompts import Prompt, Wish
from devstack.engines.testing import RunningEngine, sim, start_engine
from devstack.engines.tests.raw import RawClient, ask, chat, streamed


@pytest.fixture(scope="module")
def narrow() -> Iterator[RunningEngine]:
    """Two slots."""
    with start_engine("vllm", tokens_per_s=0, slots=2) as engine:
        yield engine


async def take(engine: RunningEngine, count: int) -> list[RawClient]:
    """Streams that do not end by themselves soon."""
    clients = []
    for _ in range(count):
        client = await RawClient.connect(engine)
        await client.send(streamed(sim(tokens=100_000, rate=100), max_tokens=8000))
        await client.read_events(2)
        clients.append(client)
    return clients


async def test_what_finds_no_slot_waits_its_turn(narrow: RunningEngine):
    narrow.reset()
    busy = await take(narrow, 2)
    async with await RawClient.connect(narrow) as waiting, await RawClient.connect(narrow) as leaving:
        before = narrow.metrics()
        await leaving.send(streamed(sim(prompt=99, tokens=5)))
        await asyncio.to_thread(narrow.wait_running, 3)
        await waiting.send(streamed(sim(prompt=7, tokens=5)))
        await asyncio.to_thread(narrow.wait_running, 4)
        metrics = narrow.metrics()
        labels = 'engine="0",model_name="sim-model"'
        assert metrics[f"vllm:num_requests_running{{{labels}}}"] == 2
        assert metrics[f"vllm:num_requests_waiting{{{labels}}}"] == 2
        leaving.close()
        busy[0].close()
        answer = await waiting.read()
        assert len(answer.words()) == 5
        moved = narrow.metrics()[f"vllm:prompt_tokens_total{{{labels}}}"]
        assert moved - before[f"vllm:prompt_tokens_total{{{labels}}}"] == 7, (
            "who waits and leaves costs nothing"
        )
    busy[1].close()
    narrow.wait_idle()
    by_prompt = {record["prompt_tokens"]: record for record in narrow.requests()}
    assert by_prompt[7]["waited_ms"] > 0
    assert (by_prompt[0]["ended"], by_prompt[0]["generated_tokens"]) == ("client_gone", 0)


async def test_together_they_are_slower_than_alone():
    """Alone 200 a second; four at a time 1 / (1/200 + 3/200) = 50 each."""
    with start_engine("generic", tokens_per_s=200, total_tokens_per_s=200, slots=4) as engine:
        body = streamed(sim(tokens=21), max_tokens=100)

        async def timed() -> float:
            started_s = time.perf_counter()
            await ask(engine, body)
            return time.perf_counter() - started_s

        alone_s = await timed()
        together_s = await asyncio.gather(*(timed() for _ in range(4)))
        assert alone_s >= 0.1
        # Only the lower bound is a promise.
        assert min(together_s) >= 0.3
        assert engine.totals()["generated_tokens"] == 5 * 21


def make_call(tokens: int = 10, *, prompt_tokens: int = 10, cached_tokens: int = 0) -> Call:
    request = EngineRequest("chat", Prompt((prompt_tokens,), ""), Wish(), "m", stream=True)
    return Call(
        request=request,
        directive=Directive(),
        record=None,  # type: ignore[arg-type]  # Nobody looks at it here.
        wire_id="x",
        model="m",
        created_unix=0,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        target_steps=tokens,
        reasoning_tokens=0,
        finish_reason="stop",
        rate_per_s=100.0,
    )


def test_speed_by_the_number_of_those_that_run():
    machine = Machine(Speeds(tokens_per_s=100, total_tokens_per_s=400))
    rates = []
    for running in (1, 2, 5, 401):
        machine.running = running
        rates.append(round(machine.rate_per_s, 6))
    assert rates == [100, 80, 50, pytest.approx(1 / 1.01, abs=1e-6)]
    assert rates[-1] * 401 < 400
    machine.speeds.total_tokens_per_s = 0
    assert machine.rate_per_s == 100


def test_prompts_are_computed_one_after_another():
    machine = Machine(Speeds(tokens_per_s=100, prefill_tokens_per_s=1000))
    first, second = make_call(prompt_tokens=500), make_call(prompt_tokens=500, cached_tokens=400)
    first.started_s = second.started_s = 1000.0
    assert machine.pace(first).first_s == pytest.approx(1000.5)
    assert machine.pace(second).first_s == pytest.approx(1000.6)


# What a whole engine is told.


async def test_behaviour_can_be_changed_while_it_runs():
    with start_engine("llamacpp", tokens_per_s=0) as engine:
        engine.behave(fault="status:503", healthy=False)
        assert (await ask(engine, chat("hi"))).status == 503
        async with await RawClient.connect(engine) as client:
            await client.send(b"", method="GET", path="/health")
            assert (await client.read()).status == 503
        # What a call names itself comes first.
        assert (await ask(engine, chat(sim(fault="status:429")))).status == 429
        engine.behave(fault=None, healthy=True, slots=1, tokens_per_s=5000, total_tokens_per_s=5000)
        assert (await ask(engine, chat("hi"))).status == 200
        assert [record["fault"] for record in engine.requests()] == ["status:503", "status:429", None]
        for wrong in ({"fault": "explode"}, {"colour": "red"}):
            with pytest.raises(ValueError, match="sim"):
                engine.behave(**wrong)


async def until_the_end(client: RawClient) -> None:
    while await client.read_piece(0.3):
        pass


async def test_an_engine_that_hangs_on_sigterm():
    """As vLLM does: nobody gets another byte or an end; it exits when its clients have left."""
    engine = start_engine("vllm", tokens_per_s=200, shutdown="hang")
    try:
        async with await RawClient.connect(engine) as streaming, await RawClient.connect(engine) as plain:
            await plain.send(chat(sim(tokens=1000)))
            await streaming.send(streamed(sim(tokens=100_000), max_tokens=8000))
            await streaming.read_events(3)
            await asyncio.to_thread(engine.wait_running, 2)
            engine.terminate()
            with pytest.raises(TimeoutError):
                await until_the_end(streaming)
            with pytest.raises(TimeoutError):
                await plain.read_piece(0.1)
            assert engine.is_running
    finally:
        # Nobody is left to wait for.
        assert await asyncio.to_thread(engine.stop) == -signal.SIGTERM


async def test_an_engine_that_drains_on_sigterm():
    engine = start_engine("sglang", tokens_per_s=200, shutdown="drain")
    async with await RawClient.connect(engine) as client:
        await client.send(streamed(sim(tokens=60), max_tokens=100))
        await client.read_events(3)
        engine.terminate()
        answer = await client.read()
        assert (answer.ending, len(answer.words()), answer.events()[-1]) == ("complete", 60, "[DONE]")
    assert await asyncio.to_thread(engine.stop) == -signal.SIGTERM


# Nonsense.


async def test_an_answer_without_a_body(generic: RunningEngine):
    for make in (chat, streamed):
        answer = await ask(generic, make(sim(fault="nonsense:empty")))
        assert (answer.status, answer.body, answer.ending) == (200, b"", "complete")


async def test_a_right_answer_of_the_wrong_type(generic: RunningEngine):
    plain = await ask(generic, chat(sim(tokens=2, fault="nonsense:type")))
    assert plain.header("content-type") == "text/plain; charset=utf-8"
    assert plain.json()["usage"]["completion_tokens"] == 2
    stream = await ask(generic, streamed(sim(tokens=2, fault="nonsense:type")))
    assert stream.header("content-type") == "text/plain; charset=utf-8"
    assert stream.words() == ["w1", "w2"]


async def test_garbage_in_the_middle(generic: RunningEngine):
    stream = await ask(generic, streamed(sim(tokens=4, fault="garbage_after:2")))
    whole = stream.body
    assert whole.count(b"\x00\xff\xfe") == 1
    assert whole.index(b'" w2"') < whole.index(b"\x00\xff\xfe") < whole.index(b'" w3"')
    assert whole.endswith(b"data: [DONE]\n\n")
    plain = await ask(generic, chat(sim(fault="garbage_after:2")))
    assert (plain.status, plain.ending) == (200, "complete")
    with pytest.raises(ValueError, match="codec"):
        json.loads(plain.body)
