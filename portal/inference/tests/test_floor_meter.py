"""The factory floor's meter: single seconds in Valkey, from several processes, and from real calls."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from devstack.engines.testing import sim, start_engine
from devstack.testing import Services
from portal.inference import measures
from portal.inference.floor_meter import FloorFlow, FloorMeter, read_floor, seconds_until_written
from portal.kit import valkey
from portal.kit.ids import uuid7
from quotas.metering.facts import NOTHING, UsageFacts
from tests.factories import ModelFixture, enable, make_backend, make_model, make_tenant
from tests.gateway_process import RunningGateway

# Long ago, so that no gateway of another test writes there.
THEN = 1_000_000_000


@pytest.fixture
async def server(services: Services) -> AsyncIterator[Redis]:
    client = valkey.connect(services.valkey_url)
    yield client
    await client.delete(*[f"floor:{second}" for second in range(THEN - 20, THEN + 20)])
    await client.aclose()


def facts(prompt: int, cached: int, completion: int) -> UsageFacts:
    return UsageFacts(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)


async def test_processes_add_up_and_windows_are_averages(server: Redis) -> None:
    one, other, deployment_id, quiet_id = FloorMeter(server), FloorMeter(server), uuid7(), uuid7()
    for second in range(THEN, THEN + 4):
        for meter in (one, other):
            meter.add(deployment_id, facts(100, 40, 10))
            meter.add_live(deployment_id)
            await meter.write(second=second)
    one.add(quiet_id, facts(8, 0, 4))
    await one.write(second=THEN)
    # At THEN + 5.5 the second THEN + 4 may still be being written; the window ends before it.
    floor = await read_floor(server, now_s=THEN + 5.5, window_s=4)
    assert floor[deployment_id] == FloorFlow(200.0, 80.0, 20.0, 2)
    assert floor[quiet_id] == FloorFlow(2.0, 0.0, 1.0, 0)
    half = await read_floor(server, now_s=THEN + 5.5, window_s=8)
    assert half[deployment_id] == FloorFlow(100.0, 40.0, 10.0, 2)
    assert await read_floor(server, now_s=THEN + 9, window_s=4) == {}
    assert (await read_floor(server, now_s=THEN + 6.5, window_s=4))[deployment_id].live_calls == 0


async def test_only_what_is_new_counts_and_estimates_are_corrected(server: Redis) -> None:
    meter, deployment_id = FloorMeter(server), uuid7()
    seen = NOTHING
    for now in (facts(50, 0, 3), facts(50, 0, 9), facts(40, 16, 12)):
        meter.add(deployment_id, now, before=seen)
        seen = now
    await meter.write(second=THEN)
    floor = await read_floor(server, now_s=THEN + 2, window_s=1)
    assert floor[deployment_id] == FloorFlow(40.0, 16.0, 12.0, 0)
    meter.add(deployment_id, facts(39, 16, 12), before=seen)
    await meter.write(second=THEN + 1)
    assert (await read_floor(server, now_s=THEN + 3, window_s=1))[deployment_id].prompt_tokens_per_s == 0


async def test_nothing_is_written_when_nothing_happens_and_everything_ends(server: Redis) -> None:
    meter = FloorMeter(server)
    await meter.write(second=THEN)
    assert not await server.exists(f"floor:{THEN}")
    meter.add(uuid7(), facts(1, 0, 1))
    await meter.write(second=THEN)
    assert 0 < await server.ttl(f"floor:{THEN}") <= 300
    with pytest.raises(ValueError, match="window"):
        await read_floor(server, now_s=THEN, window_s=0)


async def test_without_valkey_it_is_counted_and_forgotten() -> None:
    client = valkey.connect("redis://127.0.0.1:1/0")
    meter, before = FloorMeter(client), measures.FLOOR_MISSED._value.get()
    meter.add(uuid7(), facts(1, 0, 1))
    await meter.write(second=THEN)
    await meter.write(second=THEN + 1)
    await client.aclose()
    assert measures.FLOOR_MISSED._value.get() - before == 1


@pytest.mark.parametrize("now_s", [THEN, THEN + 0.001, THEN + 0.5, THEN + 0.999])
def test_a_second_is_written_right_after_it(now_s: float) -> None:
    assert THEN + 1 < now_s + seconds_until_written(now_s) < THEN + 1.1


@pytest.fixture
def model(database: None) -> Iterator[tuple[str, ModelFixture]]:
    with start_engine("vllm", tokens_per_s=0, model="upstream") as engine:
        tenant = make_tenant()
        model = make_model(backend_id=make_backend(engine="vllm", base_url=engine.url))
        enable(tenant, model)
        yield tenant.key.token, model


async def written(server: Redis, deployment_id: UUID, *, since: int) -> dict[str, list[int]]:
    """What was written into each second since then, of a deployment."""
    found: dict[str, list[int]] = {"prompt": [], "cached": [], "completion": [], "live": []}
    for second in range(since, int(time.time()) + 1):
        counts: dict[bytes, bytes] = await server.hgetall(f"floor:{second}")  # type: ignore[assignment]
        for name, amount in counts.items():
            id_, _, kind = name.decode().partition(":")
            if id_ == str(deployment_id):
                found[kind].append(int(amount))
    return found


async def test_calls_are_metered_as_they_are_delivered(
    model: tuple[str, ModelFixture], server: Redis, gateway: RunningGateway
) -> None:
    token, offered = model
    since, usage = int(time.time()), []
    rates: list[float] = []
    text = "count " + sim(tokens=120, rate=40, prompt=70, cached=30)
    body = {
        "model": offered.slug,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 200,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with httpx.AsyncClient(
        base_url=gateway.api_base, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    ) as http:
        async with http.stream("POST", "/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if '"usage":{' in line.replace(" ", ""):
                    usage.append(json.loads(line.removeprefix("data: "))["usage"])
                floor = await read_floor(server, now_s=time.time(), window_s=1)
                if (flow := floor.get(offered.deployment_id)) is not None:
                    rates.append(flow.completion_tokens_per_s)
                    assert flow.live_calls == 1
        # A whole answer with two choices: the prompt counts once.
        whole = await http.post(
            "/chat/completions",
            json=body
            | {
                "stream": False,
                "stream_options": None,
                "n": 2,
                "messages": [{"role": "user", "content": "count " + sim(tokens=5, rate=0, prompt=70)}],
            },
        )
        assert whole.status_code == 200, whole.text
    print(f"tokens a second while it ran, at 40 a second: {sorted(set(rates))}")
    assert rates
    assert any(20 <= rate <= 60 for rate in rates)
    deadline_s = time.monotonic() + 5
    while sum((counts := await written(server, offered.deployment_id, since=since))["completion"]) < 130:
        assert time.monotonic() < deadline_s, counts
    assert usage[-1]["completion_tokens"] == 120
    assert (sum(counts["prompt"]), sum(counts["cached"]), sum(counts["completion"])) == (140, 30, 130)
    assert set(counts["live"]) == {1}
