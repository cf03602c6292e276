"""Runs over real sockets: what is delivered, what is stopped, and what is billed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from devstack.engines.testing import RunningEngine, sim, start_engine
from portal.playground.tests.stage import (
    Stage,
    cost_nanos,
    database,
    make_stage,
    member_of,
    requests_of,
    settled,
)
from quotas.models import LimitKind
from quotas.tests.limit_rows import set_limit
from tenants.models import Role
from tests.database import money_of, rows_of
from tests.factories import make_model
from tests.web_process import RunningWeb


def words(count: int) -> str:
    return " ".join(f"w{number}" for number in range(1, count + 1))


async def test_a_run_streams_and_ends_with_its_receipt(stage: Stage) -> None:
    async with stage.page() as page:
        ran = await page.run(sim(tokens=12, prompt=40, cached=8), temperature=0.5, seed=7, max_tokens=50)
    assert ran.text == words(12)
    done, started = ran.one("done"), ran.one("started")
    expected = cost_nanos(40, 12, cached=8)
    assert (done["prompt_tokens"], done["cached_tokens"], done["completion_tokens"]) == (40, 8, 12)
    assert (done["cost_nanos"], done["settled"], done["provenance"]) == (expected, True, "MEASURED")
    assert done["finish_reason"] == "stop"
    assert started["request_id"] == done["request_id"] == ran.one("queued")["request_id"]
    hold = settled(ran.request_id)
    assert hold["usage"]["charged_nanos"] == expected
    (request,) = rows_of("quotas_inferencerequest", id=ran.request_id)
    assert request["endpoint"] == "playground"
    assert money_of(stage.tenant.id).granted == 10**9 - expected
    assert money_of(stage.tenant.id).pending == 0


async def test_the_meter_runs_and_ends_below_the_receipt(slow_stage: Stage) -> None:
    async with slow_stage.page() as page:
        ran = await page.run(sim(tokens=120, prompt=30))
    meters = ran.of("meter")
    counts = [meter["completion_tokens"] for meter in meters]
    assert len(meters) >= 3
    assert counts == sorted(counts)
    assert all(meter["exact"] for meter in meters)
    assert meters[-1]["cost_nanos"] == cost_nanos(30, counts[-1])
    assert ran.one("done")["cost_nanos"] == cost_nanos(30, 120) >= meters[-1]["cost_nanos"]
    assert ran.one("done")["tokens_per_s"] > 0


async def test_reasoning_is_told_apart(stage: Stage) -> None:
    async with stage.page() as page:
        ran = await page.run(sim(tokens=6, reasoning=2))
    assert (ran.reasoning, ran.text) == ("r1 r2", "w1 w2 w3 w4")


async def test_fifty_sockets_stream_at_once_and_each_gets_exactly_its_text(web: RunningWeb) -> None:
    with start_engine("vllm", tokens_per_s=200) as engine:
        stage = await database(make_stage, web, engine.url, flavour="vllm", granted="5.00")
        people = await database(lambda: [member_of(stage.tenant) for _ in range(13)])
        all_open = asyncio.Barrier(50)

        async def chat(number: int) -> tuple[str, int]:
            async with stage.page(people[number % len(people)]) as page:
                await all_open.wait()
                ran = await page.run(sim(tokens=200 + number, prompt=20))
                assert ran.messages[-1]["type"] == "done", ran.messages[-1]
                return ran.text, ran.one("done")["cost_nanos"]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(chat(number)) for number in range(50)]
        answers = [task.result() for task in tasks]
        assert [text for text, _ in answers] == [words(200 + number) for number in range(50)]
        assert [cost for _, cost in answers] == [cost_nanos(20, 200 + number) for number in range(50)]
        assert engine.totals()["generated_tokens"] == sum(200 + number for number in range(50))
    assert money_of(stage.tenant.id).granted == 5 * 10**9 - sum(cost for _, cost in answers)


async def test_stop_ends_the_backend_and_bills_what_was_delivered(
    slow_stage: Stage, slow_engine: RunningEngine
) -> None:
    async with slow_stage.page() as page:
        await page.begin(sim(tokens=2000, prompt=25), max_tokens=2000)
        ran = await page.hear_until("delta")
        while len(ran.text.split()) < 20:
            ran.messages.append(await page.hear())
        await page.say({"type": "stop"})
        ran.messages += (await page.hear_until("done")).messages
        slow_engine.wait_idle()
        done = ran.one("done")
        assert done["finish_reason"] == "stopped"
        assert 20 <= done["completion_tokens"] <= len(ran.text.split()) < 200
        assert done["cost_nanos"] == cost_nanos(25, done["completion_tokens"])
        assert settled(ran.request_id)["usage"]["charged_nanos"] == done["cost_nanos"]
        # The socket serves the next run as if nothing had been.
        assert (await page.run(sim(tokens=3), number=2)).text == words(3)
    record = [found for found in slow_engine.requests() if found["aborted"]][-1]
    assert record["generated_tokens"] < 2000


async def test_a_run_that_is_stopped_before_its_first_token_costs_nothing(
    slow_stage: Stage, slow_engine: RunningEngine
) -> None:
    async with slow_stage.page() as page:
        await page.begin(sim(tokens=5, ttft_ms=60_000))
        slow_engine.wait_running()
        await page.say({"type": "stop"})
        ran = await page.hear_until("done", "error")
    done = ran.one("done")
    assert (done["finish_reason"], done["completion_tokens"], done["cost_nanos"]) == ("stopped", 0, 0)
    assert settled(ran.request_id)["state"] == "VOIDED"


@pytest.mark.parametrize("how", ["closes", "vanishes"])
async def test_a_page_that_goes_ends_its_run_and_says_so_to_the_next(
    slow_stage: Stage, slow_engine: RunningEngine, how: str
) -> None:
    async with slow_stage.page() as page:
        await page.begin(sim(tokens=3000, prompt=25), max_tokens=3000)
        ran = await page.hear_until("delta")
        while len(ran.text.split()) < 20:
            ran.messages.append(await page.hear())
        if how == "vanishes":
            page.connection.transport.abort()
    slow_engine.wait_idle()
    usage = settled(ran.request_id)["usage"]
    assert 20 <= usage["completion_tokens"] < 300
    assert usage["charged_nanos"] == cost_nanos(25, usage["completion_tokens"])
    assert rows_of("quotas_attempt", request_id=ran.request_id)[0]["outcome"] == "CLIENT_GONE"
    public = ran.one("queued")["request_id"]
    for asked in (public, None):
        async with slow_stage.page() as page:
            await page.say({"type": "ended", "request_id": asked})
            told = await page.hear()
        assert (told["found"], told["request_id"]) == (True, public)
        assert f"{usage['completion_tokens']} tokens were delivered and billed with $0.0" in told["text"]
    await _nobody_else_is_told(slow_stage, public)


async def _nobody_else_is_told(stage: Stage, request_id: str) -> None:
    colleague = await database(member_of, stage.tenant, Role.OWNER)
    async with stage.page(colleague) as page:
        for asked in (request_id, None, "req_nonsense"):
            await page.say({"type": "ended", "request_id": asked})
            assert not (await page.hear())["found"]


async def test_one_run_at_a_time(slow_stage: Stage) -> None:
    async with slow_stage.page() as page:
        await page.begin(sim(tokens=100), number=1)
        await page.hear_until("delta")
        await page.begin("another", number=2)
        refused = (await page.hear_until("error")).one("error")
        assert (refused["code"], refused["id"]) == ("busy", 2)
        ran = await page.hear_until("done")
    assert ran.one("done")["finish_reason"] == "stop"
    assert len(requests_of(slow_stage.tenant)) == 1


async def test_a_balance_that_is_too_low_names_a_cap_that_fits(
    web: RunningWeb, fast_engine: RunningEngine
) -> None:
    stage = await database(make_stage, web, fast_engine.url, flavour="llamacpp", granted="0.001")
    async with stage.page() as page:
        error = (await page.run(sim(tokens=4), max_tokens=4000)).one("error")
        assert error["code"] == "insufficient_balance"
        fits = error["action"]["max_tokens"]
        assert 0 < fits < 4000
        assert f"Lower max tokens to {fits} or add credit." in error["message"]
        assert "$0.001 is available" in error["message"]
        assert (await page.run(sim(tokens=4), max_tokens=fits)).text == words(4)


async def test_a_quota_that_is_reached_names_a_cap_that_fits(stage: Stage) -> None:
    await database(set_limit, stage.tenant.id, LimitKind.TOKENS_MONTH, 1_000)
    async with stage.page() as page:
        error = (await page.run(sim(tokens=4), max_tokens=4000)).one("error")
        assert error["code"] == "quota_exceeded"
        assert "1000 tokens" in error["detail"]
        fits = error["action"]["max_tokens"]
        assert (await page.run(sim(tokens=4), max_tokens=fits)).text == words(4)
    await database(set_limit, stage.tenant.id, LimitKind.TOKENS_MONTH, 0)
    async with stage.page() as page:
        error = (await page.run(sim(tokens=4), max_tokens=10)).one("error")
    assert error["code"] == "quota_exceeded"
    assert error["action"]["url"].endswith("/limits")


async def test_a_model_that_is_not_enabled_leads_to_the_models(stage: Stage) -> None:
    other = await database(make_model, backend_id=stage.model.backend_id, upstream_model="sim-model")
    async with stage.page() as page:
        error = (await page.run("hello", model=other.slug)).one("error")
    assert error["code"] == "model_not_enabled"


async def test_a_backend_that_breaks_off_is_told_and_billed_as_far_as_it_came(stage: Stage) -> None:
    async with stage.page() as page:
        await page.begin(sim(tokens=20, fault="reset_after:7"))
        ran = await page.hear_until("done")
    assert ran.text == words(7)
    assert ran.one("error")["code"] == "backend_failed"
    done = ran.one("done")
    assert (done["finish_reason"], done["completion_tokens"]) == ("error", 7)


async def test_a_backend_that_refuses_is_told_without_a_bill(stage: Stage) -> None:
    async with stage.page() as page:
        ran = await page.run(sim(tokens=20, fault="status:500"))
    assert ran.messages[-1]["type"] == "error"
    assert settled(ran.request_id)["usage"] is None


@pytest.fixture(scope="module")
def engine_of_long_lines() -> Iterator[RunningEngine]:
    with start_engine("generic", tokens_per_s=0) as engine:
        yield engine


async def test_a_line_of_a_megabyte_passes_whole(
    web: RunningWeb, engine_of_long_lines: RunningEngine
) -> None:
    stage = await database(make_stage, web, engine_of_long_lines.url)
    async with stage.page() as page:
        ran = await page.run(sim(tokens=3, fault=f"big_line:{2**20}"))
    assert 2**20 <= len(ran.text) < 2**20 + 100
