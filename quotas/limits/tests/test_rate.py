"""The request rate on a real Valkey: one bucket for all processes, and a local one when it is away."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from devstack.testing import Services
from portal.kit import valkey
from portal.kit.ids import uuid7
from quotas.limits.rate import RequestRate


@pytest.fixture
async def server(services: Services) -> AsyncIterator[Redis]:
    client = valkey.connect(services.valkey_url)
    yield client
    await client.aclose()


async def test_a_minute_s_worth_passes_and_the_next_is_told_when(server: Redis) -> None:
    rate, tenant_id = RequestRate(server, limit_rpm=5), uuid7()
    assert [(await rate.check(tenant_id)).allowed for _ in range(5)] == [True] * 5
    refused = await rate.check(tenant_id)
    assert not refused.allowed
    assert 0 < refused.retry_after_s <= 12


async def test_two_processes_share_one_bucket(server: Redis) -> None:
    one, other, tenant_id = RequestRate(server, limit_rpm=4), RequestRate(server, limit_rpm=4), uuid7()
    allowed = [(await rate.check(tenant_id)).allowed for rate in (one, other, one, other, one, other)]
    assert sum(allowed) == 4


async def test_tenants_do_not_share_a_bucket(server: Redis) -> None:
    rate = RequestRate(server, limit_rpm=1)
    assert (await rate.check(uuid7())).allowed
    assert (await rate.check(uuid7())).allowed


async def test_a_refused_request_takes_nothing(server: Redis) -> None:
    rate, tenant_id = RequestRate(server, limit_rpm=1), uuid7()
    await rate.check(tenant_id)
    first, second = await rate.check(tenant_id), await rate.check(tenant_id)
    assert second.retry_after_s <= first.retry_after_s


async def test_without_valkey_the_process_counts_for_itself() -> None:
    client = valkey.connect("redis://127.0.0.1:1/0")
    rate, tenant_id = RequestRate(client, limit_rpm=3), uuid7()
    allowed = [(await rate.check(tenant_id)).allowed for _ in range(5)]
    await client.aclose()
    assert allowed == [True, True, True, False, False]
