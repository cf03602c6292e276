"""A thousand random calls, each under a random ceiling: none costs more, and a receipt explains each."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2 as httpx
import pytest

from devstack.engines.testing import RunningEngine, sim, start_engine
from portal.gateway.tests.stage import AWKWARD_PRICES
from portal.gateway.tests.test_costs import recomputed
from portal.kit.money import amount_to_decimal_text, parse_amount
from tests.factories import (
    LineSpec,
    ModelFixture,
    TenantFixture,
    enable,
    make_backend,
    make_model,
    make_tenant,
)
from tests.gateway_process import RunningGateway

CALLS = 1_000
AT_A_TIME = 24
SEED = 20_260_105
# Bands that a prompt's bound reaches and its tokens may not, a price by the request, classes without a price.
PRICES: tuple[tuple[dict[str, int], list[LineSpec]], ...] = (
    (dict(AWKWARD_PRICES), []),
    (
        {"output": 1_234_567_891, "request": 5_000_001},
        [
            LineSpec("input", 333_333_333, input_to_tokens=60),
            LineSpec("input", 777_777_777, input_from_tokens=60, input_to_tokens=200),
            LineSpec("input", 99_999_999, input_from_tokens=200),
            LineSpec("cached_input", 33_333_337, input_to_tokens=200),
        ],
    ),
    ({"input": 1, "output": 0}, []),
)


@dataclass(slots=True)
class Seen:
    """What became of the calls. A failure is remembered with the number of its call, to be run alone."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, number: int, what: str) -> None:
        if not holds:
            self.failures.append(f"call {number}: {what}")


@dataclass(frozen=True, slots=True)
class Plan:
    """One call. ceiling: nano-units."""

    number: int
    body: dict[str, Any]
    ceiling: int
    wants_cost: bool


@pytest.fixture(scope="module")
def backend() -> Iterator[RunningEngine]:
    with start_engine("vllm", tokens_per_s=0) as engine:
        yield engine


def plan(rng: Random, number: int, models: list[ModelFixture]) -> Plan:
    """Streams and plain ones, several choices, cached and reasoning tokens, lying counts, broken answers."""
    prompt = rng.choice((rng.randrange(1, 60), rng.randrange(60, 300)))
    directive: dict[str, Any] = {
        "tokens": rng.randrange(1, 40),
        "prompt": prompt,
        "cached": rng.randrange(0, prompt + 1),
        "reasoning": rng.choice((0, 0, 1, 3)),
    }
    fault = rng.random()
    if fault < 0.06:
        directive["fault"] = f"reset_after:{rng.randrange(1, 20)}"
    elif fault < 0.12:
        directive["fault"] = f"usage_lies:+{rng.randrange(1, 2_000)}"
    elif fault < 0.15:
        directive["fault"] = "no_usage"
    stream = rng.random() < 0.5
    body: dict[str, Any] = {
        "model": models[number % len(models)].slug,
        "messages": [{"role": "user", "content": "x" * rng.randrange(0, 120) + sim(**directive)}],
        "max_tokens": rng.randrange(1, 60),
        "stream": stream,
    }
    if rng.random() < 0.3:
        body["n"] = rng.randrange(2, 4)
    if stream and rng.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    # From far too little to more than anything costs; a whole prompt is a few hundred thousand.
    return Plan(number, body, int(10 ** rng.uniform(4.8, 6.0)), rng.random() < 0.3)


async def run(http: httpx.AsyncClient, planned: Plan, seen: Seen) -> None:
    headers = {"x-max-cost": amount_to_decimal_text(planned.ceiling)}
    if planned.wants_cost:
        headers["x-include-cost"] = "true"
    answer = await http.post("/chat/completions", json=planned.body, headers=headers)
    if answer.status_code == 400:
        error = answer.json()["error"]
        least = parse_amount(error.get("least_max_cost", "0"))
        seen.check(error["code"] == "max_cost_too_low", planned.number, f"refused with {error}")
        seen.check(least > planned.ceiling, planned.number, f"{least} would do, and was refused")
        seen.outcomes["refused"] += 1
        return
    seen.outcomes[str(answer.status_code)] += 1
    receipt = await settled(http, answer.headers["x-request-id"])
    check(planned, answer, receipt, seen)


async def settled(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            answer = await http.get(f"/requests/{request_id}")
            if answer.status_code == 200 and answer.json()["is_settled"]:
                receipt: dict[str, Any] = answer.json()
                return receipt
            await asyncio.sleep(0.02)


def check(planned: Plan, answer: httpx.Response, receipt: dict[str, Any], seen: Seen) -> None:
    number = planned.number
    charged, held = parse_amount(receipt["charged"]), parse_amount(receipt["hold"]["amount"])
    seen.check(
        charged <= held <= planned.ceiling, number, f"{charged} of {held} held under {planned.ceiling}"
    )
    seen.check(parse_amount(receipt["max_cost"]) == planned.ceiling, number, "another ceiling on the receipt")
    seen.check(
        1 <= receipt["output_cap_tokens"] <= planned.body["max_tokens"], number, "a cap of another kind"
    )
    posted = sum(
        parse_amount(entry["amount"])
        for settlement in receipt["settlements"]
        if settlement["transfer"]
        for entry in settlement["transfer"]["entries"]
    )
    seen.check(posted == -charged, number, f"{posted} was posted for {charged}")
    if receipt["settlements"]:
        seen.check(recomputed(receipt) == charged, number, "its lines come to something else")
        seen.outcomes["capped"] += receipt["output_cap_tokens"] < planned.body["max_tokens"]
        seen.outcomes["overrun"] += parse_amount(receipt["settlements"][-1]["overrun"]) > 0
        seen.outcomes["broken"] += receipt["has_broken_off"]
    else:
        seen.check(charged == 0, number, "charged without a settlement")
    cost = said(answer) if planned.wants_cost and answer.status_code == 200 else None
    if cost is not None:
        seen.outcomes["said"] += 1
        seen.check(parse_amount(cost) == charged, number, f"said {cost}")


def said(answer: httpx.Response) -> str | None:
    """The cost that the answer names; None where it broke off before that."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["usage"]["cost"])
    for line in reversed(answer.text.splitlines()):
        if line.startswith("data: {") and (usage := json.loads(line[6:]).get("usage")):
            return str(usage["cost"])
    return None


def test_no_call_costs_more_than_its_ceiling(gateway: RunningGateway, backend: RunningEngine) -> None:
    backend_id = make_backend(engine="vllm", base_url=backend.url, max_concurrency=256)
    tenant = make_tenant(granted="0.05", paid="50.00")
    models = []
    for (prices, lines), policy in zip(PRICES, ("DELIVERED", "INPUT", "NOTHING"), strict=True):
        model = make_model(
            prices=prices,
            lines=lines,
            backend_id=backend_id,
            upstream_model="sim-model",
            cancel_policy=policy,
        )
        enable(tenant, model)
        models.append(model)
    rng = Random(SEED)
    plans = [plan(rng, number, models) for number in range(CALLS)]
    seen = Seen()
    asyncio.run(run_all(gateway, tenant, plans, seen))
    assert not seen.failures, seen.failures[:5]
    # The calls did meet what they were made for.
    counts = seen.outcomes
    assert counts["refused"] + counts["200"] + counts["502"] == CALLS, counts
    assert min(counts[name] for name in ("refused", "capped", "overrun", "broken", "said")) > 10, counts


async def run_all(gateway: RunningGateway, tenant: TenantFixture, plans: list[Plan], seen: Seen) -> None:
    limits = httpx.Limits(max_connections=AT_A_TIME)
    slots = asyncio.Semaphore(AT_A_TIME)
    async with httpx.AsyncClient(
        base_url=gateway.api_base,
        headers={"Authorization": f"Bearer {tenant.key.token}"},
        timeout=60,
        trust_env=False,
        limits=limits,
    ) as http:

        async def one(planned: Plan) -> None:
            async with slots:
                await run(http, planned, seen)

        await asyncio.gather(*(one(planned) for planned in plans))
