"""Several choices of one call: each a call of its own to a backend, one answer and one charge together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim
from devstack.engines.tokens import count_prompt_tokens
from portal.gateway.tests.stage import Answer, Stage, cost_nanos, make_stage, on, stored
from tests.database import connected
from tests.factories import enable, make_tenant
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for

CHOICES = 3
TOKENS = 5
TEXT = sim(tokens=TOKENS)


@pytest.fixture(params=FLAVOURS)
def stage(
    request: pytest.FixtureRequest, gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> Stage:
    return make_stage(gateway, on(engines[request.param], request.param))


def check_charged_once_for_the_prompt(answer: Answer) -> None:
    kept = stored(answer.request_id)
    prompt = count_prompt_tokens([{"role": "user", "content": TEXT}])
    assert kept.usage is not None
    assert (kept.usage["prompt_tokens"], kept.usage["completion_tokens"]) == (prompt, CHOICES * TOKENS)
    assert kept.usage["charged_nanos"] == cost_nanos(
        prompt, CHOICES * TOKENS, cached=kept.usage["cached_tokens"]
    )
    assert kept.outcomes == ["COMPLETED"] * CHOICES
    assert sorted(attempt["choice_index"] for attempt in kept.attempts) == list(range(CHOICES))
    assert kept.hold["state"] == "POSTED"


def test_whole_answers_are_merged(stage: Stage) -> None:
    answer = stage.ask(TEXT, n=CHOICES)
    assert answer.status == 200
    assert [choice["index"] for choice in answer.json["choices"]] == list(range(CHOICES))
    assert {choice["message"]["content"] for choice in answer.json["choices"]} == {"w1 w2 w3 w4 w5"}
    assert answer.json["usage"]["completion_tokens"] == CHOICES * TOKENS
    check_charged_once_for_the_prompt(answer)


@pytest.mark.parametrize("include_usage", [True, False])
def test_streams_are_merged_under_one_id(stage: Stage, include_usage: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if include_usage else {}
    answer = stage.stream(TEXT, n=CHOICES, **options)
    assert answer.status == 200
    assert answer.is_done
    assert sum(event.startswith(b"data: [DONE]") for event in answer.events) == 1
    texts = dict.fromkeys(range(CHOICES), "")
    for chunk in answer.chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert set(texts.values()) == {"w1 w2 w3 w4 w5"}
    assert len({chunk["id"] for chunk in answer.chunks}) == 1
    usages = [chunk["usage"] for chunk in answer.chunks if chunk.get("usage")]
    assert [usage["completion_tokens"] for usage in usages] == [CHOICES * TOKENS] * include_usage
    check_charged_once_for_the_prompt(answer)


def test_each_choice_reaches_the_backend_as_a_call_of_one(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    stage = make_stage(gateway, on(engines["sglang"], "sglang"))
    answer = stage.ask(TEXT, n=2)
    kept = stored(answer.request_id)
    bodies = [engines["sglang"].last_body(seq=record["seq"]) for record in engines["sglang"].requests()[-2:]]
    assert all("n" not in body for body in bodies)
    assert len({body["rid"] for body in bodies}) == 2
    assert len({attempt["wire_id"] for attempt in kept.attempts}) == 2


def _waits_for(backend_pid: int) -> bool:
    with connected("owner") as observer:
        row = observer.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid)))",
            (backend_pid,),
        ).fetchone()
    return row == (True,)


def test_the_first_attempt_is_sent_where_it_was_recorded(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    """While a call is admitted others begin, and what was the best deployment is it no more."""
    here, there = engines["sglang"], engines["vllm"]
    stage = make_stage(gateway, on(here, "sglang"), on(there, "vllm"))
    other = replace(stage, tenant=make_tenant(granted="1.00"))
    enable(other.tenant, stage.model)
    with ThreadPoolExecutor(3) as pool:
        with connected("owner", autocommit=False) as keeper:
            keeper.execute("SELECT 1 FROM quotas_wallet WHERE tenant_id = %s FOR UPDATE", (stage.tenant.id,))
            call = pool.submit(stage.ask, TEXT, n=2)
            wait_for(lambda: _waits_for(keeper.info.backend_pid), 10, "an admission that waits")
            # Without usage it says nothing about how fast its backend is.
            short = pool.submit(other.ask, sim(tokens=2, ttft_ms=1000, fault="no_usage"))
            there.wait_running()
            long = pool.submit(other.ask, sim(tokens=2, ttft_ms=3000))
            here.wait_running()
            short.result()
        attempts = stored(call.result().request_id).attempts
        long.result()
    (first,) = [attempt for attempt in attempts if attempt["choice_index"] == 0]
    assert first["deployment_id"] == stage.model.deployment_id
    assert first["wire_id"] in {record["wire_id"] for record in here.requests()}


def test_a_choice_that_breaks_off_ends_the_others_and_only_what_was_delivered_is_billed(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    stage = make_stage(gateway, on(engines["llamacpp"], "llamacpp"))
    answer = stage.stream(sim(tokens=9, fault="close_after:4"), n=2)
    delivered = sum(
        bool(choice["delta"].get("content")) for chunk in answer.chunks for choice in chunk.get("choices", [])
    )
    assert answer.chunks[-1]["error"]["code"] == "backend_failed"
    kept = stored(answer.request_id)
    assert kept.usage is not None
    assert kept.usage["completion_tokens"] == delivered
    assert kept.hold["state"] == "POSTED"


def test_a_whole_answer_of_which_a_part_is_missing_is_not_delivered_and_costs_nothing(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    stage = make_stage(gateway, on(engines["generic"], "generic"))
    answer = stage.ask(sim(tokens=4, fault="status:500"), n=2)
    assert answer.status == 502
    kept = stored(answer.request_id)
    assert (kept.hold["state"], kept.usage) == ("VOIDED", None)


def test_the_hold_covers_every_choice(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> None:
    stage = make_stage(gateway, on(engines["vllm"], "vllm"))
    one = stored(stage.ask(TEXT, max_tokens=100).request_id).hold["amount_nanos"]
    four = stored(stage.ask(TEXT, max_tokens=100, n=4).request_id).hold["amount_nanos"]
    assert four - one == pytest.approx(300 * 2_345_678_917 / 1e6, abs=2)


def test_too_many_choices_are_refused(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> None:
    stage = make_stage(gateway, on(engines["vllm"], "vllm"))
    answer = stage.ask(TEXT, n=9)
    assert (answer.status, answer.error["param"]) == (400, "n")
