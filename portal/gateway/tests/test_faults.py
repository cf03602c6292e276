"""Backends that fail in every way: what the client is told, what is retried, what is charged."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tokens import count_prompt_tokens
from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Answer, Stage, Stored, cost_nanos, held_nanos, make_stage, on, stored
from tests.database import rows_of
from tests.gateway_process import RunningGateway

MEASURING = ("llamacpp", "vllm", "sglang")
"""Engines that report running counts; of the others only the events can be counted."""


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(flavour: str, gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines[flavour], flavour))


@pytest.fixture
def impatient_stage(
    flavour: str, impatient_gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> Stage:
    return make_stage(impatient_gateway, on(engines[flavour], flavour))


def prompt_tokens(text: str) -> int:
    return count_prompt_tokens([{"role": "user", "content": text}])


def check_void(answer: Answer, stage: Stage, *, outcomes: list[str]) -> Stored:
    """Nothing was delivered, so nothing is charged and nothing held."""
    kept = stored(answer.request_id)
    assert kept.hold["state"] == "VOIDED"
    assert kept.usage is None
    assert kept.outcomes == outcomes
    assert held_nanos(stage.tenant) == 0
    return kept


def check_error(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer.body
    assert answer.error["code"] == code
    assert answer.error["request_id"] == answer.headers["x-request-id"]


def check_delivered(
    answer: Answer, stage: Stage, text: str, tokens: int, *, outcome: str, measured: bool
) -> None:
    """What was delivered is charged, neither more nor less; estimates are marked as such."""
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert kept.outcomes == [outcome]
    assert kept.usage["completion_tokens"] == tokens
    assert held_nanos(stage.tenant) == 0
    if measured:
        assert (kept.usage["basis"], kept.usage["provenance"]) == ("CHECKPOINT", "MEASURED")
        assert kept.usage["prompt_tokens"] == prompt_tokens(text)
    else:
        assert (kept.usage["basis"], kept.usage["provenance"]) == ("EVENTS", "ESTIMATED")
        assert 1 <= kept.usage["prompt_tokens"] <= _bound(answer)
    assert kept.usage["charged_nanos"] == cost_nanos(kept.usage["prompt_tokens"], tokens)
    assert kept.usage["overrun_nanos"] == 0


def _bound(answer: Answer) -> int:
    (request,) = rows_of("quotas_inferencerequest", id=answer.request_id)
    bound: int = request["prompt_bound_tokens"]
    return bound


# Before the first byte.

BEFORE: dict[str, tuple[int, str]] = {
    "reset_before": (502, "backend_failed"),
    "close_before": (502, "backend_failed"),
    "status:500": (502, "backend_failed"),
    "status:503": (503, "backend_unavailable"),
    "status:429": (503, "backend_unavailable"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", BEFORE)
def test_a_fault_before_the_first_byte(stage: Stage, fault: str, stream: bool) -> None:
    status, code = BEFORE[fault]
    answer = stage.play_stream(fault=fault) if stream else stage.play(fault=fault)
    check_error(answer, status, code)
    assert "retry-after" in answer.headers
    check_void(answer, stage, outcomes=["BACKEND_FAILED"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_clients_to_hear(stage: Stage, stream: bool) -> None:
    answer = stage.play_stream(fault="status:400") if stream else stage.play(fault="status:400")
    check_error(answer, 400, "backend_refused")
    kept = check_void(answer, stage, outcomes=["BACKEND_REFUSED"])
    assert kept.attempts[0]["http_status"] == 400


@pytest.mark.parametrize("kind", ["html", "json", "sse"])
@pytest.mark.parametrize("stream", [False, True])
def test_nonsense_is_no_answer(stage: Stage, kind: str, stream: bool) -> None:
    fault = f"nonsense:{kind}"
    answer = stage.play_stream(fault=fault) if stream else stage.play(fault=fault)
    check_error(answer, 502, "backend_failed")
    check_void(answer, stage, outcomes=["BACKEND_FAILED"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_that_says_nothing(impatient_stage: Stage, stream: bool) -> None:
    stage = impatient_stage
    answer = stage.play_stream(fault="hang_before") if stream else stage.play(fault="hang_before")
    check_error(answer, 504, "backend_timeout")
    check_void(answer, stage, outcomes=["BACKEND_TIMEOUT"])


def test_an_unreachable_backend(gateway: RunningGateway) -> None:
    stage = make_stage(gateway, ("generic", "http://127.0.0.1:9"))
    answer = stage.ask()
    check_error(answer, 502, "backend_failed")
    check_void(answer, stage, outcomes=["UNREACHABLE"])


# Another backend takes over.


def _rude(exchange: Exchange) -> None:
    exchange.reset()


def _polite(exchange: Exchange) -> None:
    exchange.close()


def _confused(exchange: Exchange) -> None:
    exchange.answer("text/html", b"<html>It works!</html>")


def _locked(exchange: Exchange) -> None:
    exchange.answer("application/json", b'{"error":{"message":"no"}}', status="401 Unauthorized")


def _sad(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.chunk(b'data: {"error": {"message": "out of memory in /opt/engine.py"}}\n\n')
    exchange.end_stream()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [_rude, _polite, _confused, _locked, _sad, None])
def test_another_backend_takes_over(
    gateway: RunningGateway, engines: dict[str, RunningEngine], script: Any, stream: bool
) -> None:
    """Two attempts, one charge, and a client that notices nothing."""
    with ScriptedBackend(script or _rude) as failing:
        url = failing.url if script else "http://127.0.0.1:9"
        stage = make_stage(gateway, ("llamacpp", url), on(engines["llamacpp"], "llamacpp"))
        text = sim(tokens=6)
        answer = stage.stream(text) if stream else stage.ask(text)
    assert answer.status == 200
    kept = stored(answer.request_id)
    assert kept.outcomes == ["BACKEND_FAILED" if script else "UNREACHABLE", "COMPLETED"]
    assert [attempt["ordinal"] for attempt in kept.attempts] == [1, 2]
    assert len({attempt["deployment_id"] for attempt in kept.attempts}) == 2
    assert kept.usage is not None
    assert kept.usage["charged_nanos"] == cost_nanos(prompt_tokens(text), 6)
    assert held_nanos(stage.tenant) == 0


def test_nobody_takes_over_once_the_answer_has_begun(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    urls = on(engines["vllm"], "vllm"), on(engines["sglang"], "sglang")
    stage = make_stage(gateway, *urls)
    text = sim(tokens=20, fault="reset_after:5")
    answer = stage.stream(text)
    check_delivered(answer, stage, text, 5, outcome="BACKEND_FAILED", measured=True)


def test_a_failed_backend_is_tried_last_for_a_while(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    with ScriptedBackend(_rude) as failing:
        stage = make_stage(gateway, ("llamacpp", failing.url), on(engines["llamacpp"], "llamacpp"))
        assert [stage.play(tokens=1).status for _ in range(5)] == [200] * 5
        assert failing.requests == 1


# In the middle of an answer.


@pytest.mark.parametrize("fault", ["reset_after:7", "close_after:7", "error_event_after:7"])
def test_a_stream_that_breaks_off(stage: Stage, flavour: str, fault: str) -> None:
    """The client gets every token, then an error in our words; it pays for what it got."""
    text = sim(tokens=30, fault=fault)
    answer = stage.stream(text)
    assert answer.status == 200
    assert answer.text.split() == [f"w{number}" for number in range(1, 8)]
    error = answer.chunks[-1]["error"]
    assert error["code"] == "backend_failed"
    assert error["request_id"] == answer.headers["x-request-id"]
    assert not answer.is_done
    check_delivered(answer, stage, text, 7, outcome="BACKEND_FAILED", measured=flavour in MEASURING)


def test_a_stream_that_falls_silent(impatient_stage: Stage, flavour: str) -> None:
    stage, text = impatient_stage, sim(tokens=30, fault="hang_after:7")
    answer = stage.stream(text)
    assert answer.text.split()[-1] == "w7"
    assert answer.chunks[-1]["error"]["code"] == "backend_timeout"
    check_delivered(answer, stage, text, 7, outcome="BACKEND_TIMEOUT", measured=flavour in MEASURING)


@pytest.mark.parametrize("fault", ["reset_after:7", "close_after:7", "error_event_after:7"])
def test_a_plain_answer_that_breaks_off(stage: Stage, fault: str) -> None:
    answer = stage.play(tokens=30, fault=fault)
    check_error(answer, 502, "backend_failed")
    check_void(answer, stage, outcomes=["BACKEND_FAILED"])


def test_a_plain_answer_that_falls_silent(impatient_stage: Stage) -> None:
    answer = impatient_stage.play(tokens=30, fault="hang_after:7")
    check_error(answer, 504, "backend_timeout")
    check_void(answer, impatient_stage, outcomes=["BACKEND_TIMEOUT"])


def test_slow_headers_are_waited_for(stage: Stage) -> None:
    assert stage.play(tokens=2, fault="slow_headers:300").status == 200
    assert stage.play_stream(tokens=2, fault="slow_headers:300").is_done
