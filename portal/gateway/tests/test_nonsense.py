"""Backends that answer with 200 and something that is no answer, or is one under a wrong name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim, start_engine
from devstack.engines.tokens import count_prompt_tokens
from portal.gateway.tests.stage import Answer, Stage, cost_nanos, held_nanos, make_stage, on, stored
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for


@pytest.fixture(params=FLAVOURS)
def stage(
    request: pytest.FixtureRequest, gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> Stage:
    return make_stage(gateway, on(engines[request.param], request.param))


def ask(stage: Stage, text: str, *, stream: bool) -> Answer:
    return stage.stream(text) if stream else stage.ask(text)


def check_refused(answer: Answer, stage: Stage) -> None:
    """502, nothing delivered, nothing charged."""
    assert (answer.status, answer.error["code"]) == (502, "backend_failed")
    kept = stored(answer.request_id)
    assert (kept.outcomes, kept.hold["state"], kept.usage) == (["BACKEND_FAILED"], "VOIDED", None)
    assert held_nanos(stage.tenant) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_empty_answer_is_none(stage: Stage, stream: bool) -> None:
    check_refused(ask(stage, sim(fault="nonsense:empty"), stream=stream), stage)


def test_a_stream_of_another_type_is_none(stage: Stage) -> None:
    check_refused(stage.stream(sim(fault="nonsense:type")), stage)


def test_a_whole_answer_is_known_by_what_it_says(stage: Stage) -> None:
    text = sim(tokens=4, fault="nonsense:type")
    answer = stage.ask(text)
    assert answer.json["choices"][0]["message"]["content"] == "w1 w2 w3 w4"
    assert answer.headers["content-type"] == "application/json"
    check_charged(answer, text, 4)


def test_a_whole_answer_that_turns_into_garbage_is_none(stage: Stage) -> None:
    check_refused(stage.play(tokens=4, fault="garbage_after:2"), stage)


def test_garbage_in_a_stream_costs_nothing_and_ends_nothing(stage: Stage) -> None:
    text = sim(tokens=6, fault="garbage_after:3")
    answer = stage.stream(text)
    assert answer.body.count(b"data: [DONE]") == 1
    assert answer.body.index(b'" w3"') < answer.body.index(b'" w4"')
    check_charged(answer, text, 6)


def check_charged(answer: Answer, text: str, tokens: int) -> None:
    kept = stored(answer.request_id)
    assert kept.outcomes == ["COMPLETED"]
    assert kept.usage is not None
    prompt = count_prompt_tokens([{"role": "user", "content": text}])
    assert kept.usage["charged_nanos"] == cost_nanos(prompt, tokens)


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_was_told_to_stop_and_hangs(impatient_gateway: RunningGateway, stream: bool) -> None:
    """vLLM on SIGTERM: its open calls end as calls that time out, and the tenant pays for what came."""
    with start_engine("vllm", tokens_per_s=0, shutdown="hang") as engine:
        stage = make_stage(impatient_gateway, on(engine, "vllm"))
        text = sim(tokens=500, rate=20)
        answer = _ask_while_it_stops(stage, engine, text, stream=stream)
    kept = stored(answer.request_id)
    assert kept.outcomes == ["BACKEND_TIMEOUT"]
    if stream:
        assert answer.chunks[-1]["error"]["code"] == "backend_timeout"
        assert kept.usage is not None
        assert kept.usage["completion_tokens"] == len(answer.text.split()) > 0
    else:
        assert (answer.status, answer.error["code"]) == (504, "backend_timeout")
        assert kept.usage is None


def _ask_while_it_stops(stage: Stage, engine: RunningEngine, text: str, *, stream: bool) -> Answer:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, stage, text, stream=stream)
        if stream:
            wait_for(lambda: engine.totals()["sent_tokens"] >= 2, 10, "the first tokens")
        else:
            engine.wait_running()
        engine.terminate()
        return asked.result(30)
