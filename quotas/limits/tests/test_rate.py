"""The rate limits on a real Valkey: one bucket for all processes, all limits or none, and local ones when it
is away."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from devstack.testing import Services
from portal.kit import valkey
from portal.kit.ids import uuid7
from quotas.limits import rate
from quotas.limits.rate import RateLimit, RateLimits, RateRefusal, RateTicket
from quotas.models import LimitKind

LEASE_S = 20


def rpm(value: int, **scope: UUID) -> RateLimit:
    return RateLimit(LimitKind.REQUESTS_RPM, value, **scope)


def tpm(value: int, **scope: UUID) -> RateLimit:
    return RateLimit(LimitKind.TOKENS_TPM, value, **scope)


def slots(value: int, **scope: UUID) -> RateLimit:
    return RateLimit(LimitKind.CONCURRENCY, value, **scope)


@pytest.fixture
async def server(services: Services) -> AsyncIterator[Redis]:
    client = valkey.connect(services.valkey_url)
    yield client
    await client.aclose()


Opening = Callable[..., RateLimits]


@pytest.fixture
async def opening() -> AsyncIterator[Opening]:
    """Makes the limits of one process; their connections end with the test."""
    opened: list[RateLimits] = []

    def make(server: Redis, *, lease_s: int = LEASE_S) -> RateLimits:
        opened.append(RateLimits(server, lease_s=lease_s))
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


@pytest.fixture
async def limits(server: Redis, opening: Opening) -> RateLimits:
    return opening(server)


async def take(
    limits: RateLimits, tenant_id: UUID, asked: Sequence[RateLimit], *, tokens: int = 1
) -> RateTicket | RateRefusal:
    return await limits.take(tenant_id=tenant_id, request_id=uuid7(), tokens=tokens, limits=asked)


async def taken(
    limits: RateLimits, tenant_id: UUID, asked: Sequence[RateLimit], *, tokens: int = 1
) -> RateTicket:
    answer = await take(limits, tenant_id, asked, tokens=tokens)
    assert isinstance(answer, RateTicket), answer
    return answer


async def refused(
    limits: RateLimits, tenant_id: UUID, asked: Sequence[RateLimit], *, tokens: int = 1
) -> RateRefusal:
    answer = await take(limits, tenant_id, asked, tokens=tokens)
    assert isinstance(answer, RateRefusal), answer
    return answer


async def slots_of(server: Redis, tenant_id: UUID, limit: RateLimit) -> int:
    found: int = await server.zcard(limit.key(tenant_id))
    return found


async def level_of(server: Redis, tenant_id: UUID, limit: RateLimit) -> float:
    """As it was written last, without what has leaked since."""
    stored = await server.get(limit.key(tenant_id))
    return float(stored.split()[0]) if stored else 0.0


async def test_a_minute_s_worth_passes_and_the_next_is_told_when(limits: RateLimits) -> None:
    tenant_id, limit = uuid7(), rpm(5)
    for _ in range(5):
        await taken(limits, tenant_id, [limit])
    answer = await refused(limits, tenant_id, [limit])
    assert answer.limit is limit
    assert 0 < answer.wait_s <= 12


async def test_processes_share_buckets_and_slots(server: Redis, opening: Opening) -> None:
    one, other, tenant_id = opening(server, lease_s=9), opening(server, lease_s=9), uuid7()
    for asked in ([rpm(4)], [slots(4)]):
        answers = [await take(limits, tenant_id, asked) for limits in (one, other, one, other, one, other)]
        assert sum(isinstance(answer, RateTicket) for answer in answers) == 4


async def test_organizations_and_scopes_do_not_share_a_bucket(limits: RateLimits) -> None:
    tenant_id, model_id, key_id = uuid7(), uuid7(), uuid7()
    await taken(limits, uuid7(), [rpm(1)])
    scopes: tuple[dict[str, UUID], ...] = (
        {},
        {"model_id": model_id},
        {"api_key_id": key_id},
        {"model_id": model_id, "api_key_id": key_id},
    )
    for scope, name in zip(scopes, ("organization", "model", "key", "model_and_key"), strict=True):
        await taken(limits, tenant_id, [rpm(1, **scope)])
        assert (await refused(limits, tenant_id, [rpm(1, **scope)])).limit.scope == name


async def test_a_refused_call_takes_nothing_anywhere(limits: RateLimits, server: Redis) -> None:
    tenant_id, model_id = uuid7(), uuid7()
    wide: list[RateLimit] = [rpm(10), tpm(1000), slots(10)]
    narrow = rpm(1, model_id=model_id)
    await taken(limits, tenant_id, [*wide, narrow], tokens=100)
    first = await refused(limits, tenant_id, [*wide, narrow], tokens=100)
    second = await refused(limits, tenant_id, [narrow, *wide], tokens=100)
    assert first.limit is second.limit is narrow
    assert second.wait_s <= first.wait_s
    assert await level_of(server, tenant_id, wide[0]) == 1
    assert await level_of(server, tenant_id, wide[1]) == 100
    assert await slots_of(server, tenant_id, wide[2]) == 1


async def test_of_several_that_refuse_the_longest_wait_is_told(limits: RateLimits) -> None:
    tenant_id = uuid7()
    asked = [rpm(60), tpm(10), slots(1)]
    await taken(limits, tenant_id, asked, tokens=8)
    answer = await refused(limits, tenant_id, asked, tokens=8)
    assert answer.limit.kind == LimitKind.TOKENS_TPM
    assert 30 < answer.wait_s <= 36
    assert (await refused(limits, tenant_id, asked, tokens=11)).wait_s == float("inf")
    assert (await refused(limits, tenant_id, [rpm(60), slots(1)])).wait_s == 0


async def test_zero_refuses_for_good(limits: RateLimits) -> None:
    for limit in (rpm(0), tpm(0), slots(0)):
        assert (await refused(limits, uuid7(), [limit])).wait_s == float("inf")


async def test_what_was_not_used_comes_back(limits: RateLimits, server: Redis) -> None:
    tenant_id, asked = uuid7(), [rpm(3), tpm(1000), slots(1)]
    first = await taken(limits, tenant_id, asked, tokens=900)
    await refused(limits, tenant_id, asked[1:], tokens=900)
    limits.end(first, used_tokens=50)
    limits.end(first, used_tokens=50)
    await limits.close()
    assert await level_of(server, tenant_id, asked[0]) == 1
    assert 0 < await level_of(server, tenant_id, asked[1]) <= 50
    assert await slots_of(server, tenant_id, asked[2]) == 0
    second = await taken(limits, tenant_id, asked, tokens=900)
    limits.undo(second)
    await limits.close()
    assert await level_of(server, tenant_id, asked[0]) < 1
    assert await level_of(server, tenant_id, asked[1]) <= 50
    assert await slots_of(server, tenant_id, asked[2]) == 0


async def test_a_bucket_is_never_emptier_than_empty(limits: RateLimits, server: Redis) -> None:
    tenant_id, limit = uuid7(), tpm(60_000_000)
    ticket = await taken(limits, tenant_id, [limit], tokens=1000)
    # A thousand tokens leak within a millisecond.
    await asyncio.sleep(0.002)
    limits.undo(ticket)
    await limits.close()
    assert await level_of(server, tenant_id, limit) == 0


async def test_a_lowered_limit_is_full_and_not_more(limits: RateLimits) -> None:
    tenant_id = uuid7()
    for _ in range(50):
        await taken(limits, tenant_id, [rpm(100)])
    answer = await refused(limits, tenant_id, [rpm(10)])
    assert 0 < answer.wait_s <= 6


async def test_a_slot_outlives_its_lease_only_when_renewed(server: Redis, opening: Opening) -> None:
    tenant_id, limit = uuid7(), slots(1)
    dead, living, third = (opening(server, lease_s=1) for _ in range(3))
    await taken(dead, tenant_id, [limit])
    await asyncio.sleep(1.05)
    ticket = await taken(living, tenant_id, [limit])
    for _ in range(4):
        await asyncio.sleep(0.4)
        await living.renew()
    await refused(third, tenant_id, [limit])
    assert 0 < await server.pttl(limit.key(tenant_id)) <= 1000
    living.end(ticket, used_tokens=0)
    await living.close()
    await taken(third, tenant_id, [limit])


async def test_a_slot_that_is_freed_while_it_is_renewed_stays_free(limits: RateLimits, server: Redis) -> None:
    tenant_id, limit = uuid7(), slots(1)
    ticket = await taken(limits, tenant_id, [limit])
    renewing = asyncio.create_task(limits.renew())
    await asyncio.sleep(0)
    limits.end(ticket, used_tokens=0)
    await renewing
    await limits.close()
    assert await slots_of(server, tenant_id, limit) == 0


async def test_a_slot_that_is_freed_before_its_turn_to_be_renewed_stays_free(
    limits: RateLimits, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "RENEW_CHUNK", 1)
    tenant_id, limit = uuid7(), slots(5)
    tickets = [await taken(limits, tenant_id, [limit]) for _ in range(3)]
    renewing = asyncio.create_task(limits.renew())
    await asyncio.sleep(0)
    for ticket in tickets[1:]:
        limits.end(ticket, used_tokens=0)
    await renewing
    await limits.close()
    assert await slots_of(server, tenant_id, limit) == 1


async def test_a_call_leaves_nothing_to_the_garbage_collector(limits: RateLimits, server: Redis) -> None:
    gc.collect()
    gc.disable()
    try:
        ticket = await taken(limits, uuid7(), [slots(1), rpm(10)])
        left = weakref.ref(ticket.request_id)
        limits.end(ticket, used_tokens=0)
        await limits.close()
        del ticket
        assert left() is None
    finally:
        gc.enable()


async def test_a_caller_that_leaves_while_it_asks_keeps_nothing(limits: RateLimits, server: Redis) -> None:
    tenant_id, asked = uuid7(), [tpm(100), slots(1)]
    asking = asyncio.create_task(take(limits, tenant_id, asked, tokens=100))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await limits.close()
    assert await slots_of(server, tenant_id, asked[1]) == 0
    assert await level_of(server, tenant_id, asked[0]) == 0


async def test_a_caller_that_leaves_when_the_answer_is_there_keeps_nothing(
    limits: RateLimits, server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id, limit = uuid7(), slots(1)
    ask = limits._line.ask_encoded

    def ask_and_leave(command: bytes, **options: Any) -> asyncio.Future[Any]:
        answer = ask(command, **options)
        answer.add_done_callback(lambda _: asking.cancel())
        return answer

    monkeypatch.setattr(limits._line, "ask_encoded", ask_and_leave)
    asking = asyncio.create_task(take(limits, tenant_id, [limit]))
    with pytest.raises(asyncio.CancelledError):
        await asking
    await limits.close()
    assert await slots_of(server, tenant_id, limit) == 0


async def test_a_crowd_is_let_in_one_by_one_and_none_fails_open(server: Redis, opening: Opening) -> None:
    one, other, tenant_id = opening(server, lease_s=9), opening(server, lease_s=9), uuid7()
    before = rate.FAILED_OPEN._value.get()
    asked = [slots(30), rpm(1_000)]
    answers = await asyncio.gather(*(take(limits, tenant_id, asked) for limits in (one, other) * 500))
    tickets = [answer for answer in answers if isinstance(answer, RateTicket)]
    assert len(tickets) == await slots_of(server, tenant_id, asked[0]) == 30
    assert rate.FAILED_OPEN._value.get() == before


async def test_the_next_call_of_a_client_finds_the_slot_of_its_last_one_free(limits: RateLimits) -> None:
    tenant_id, limit = uuid7(), slots(1)
    for _ in range(50):
        limits.end(await taken(limits, tenant_id, [limit]), used_tokens=0)


async def test_a_server_that_has_lost_the_scripts_is_taught_them(limits: RateLimits, server: Redis) -> None:
    tenant_id, limit = uuid7(), slots(2)
    before = rate.FAILED_OPEN._value.get()
    ticket = await taken(limits, tenant_id, [limit])
    await server.script_flush()
    limits.end(ticket, used_tokens=0)
    answers = await asyncio.gather(*(take(limits, tenant_id, [limit]) for _ in range(3)))
    assert sum(isinstance(answer, RateTicket) for answer in answers) == 2
    await server.script_flush()
    await limits.renew()
    assert rate.FAILED_OPEN._value.get() == before


async def test_a_key_that_is_something_else_fails_open_for_that_call_alone(
    limits: RateLimits, server: Redis
) -> None:
    spoilt, fine, limit = uuid7(), uuid7(), slots(1)
    await server.set(limit.key(spoilt), "a string", px=5_000)
    before = rate.FAILED_OPEN._value.get()
    await asyncio.gather(taken(limits, spoilt, [limit]), taken(limits, fine, [limit]))
    await refused(limits, fine, [limit])
    assert rate.FAILED_OPEN._value.get() - before == 1


async def test_every_key_carries_the_organization_and_an_end(limits: RateLimits, server: Redis) -> None:
    tenant_id, asked = uuid7(), [rpm(9), tpm(900), slots(9, api_key_id=uuid7())]
    await taken(limits, tenant_id, asked)
    keys = [key async for key in server.scan_iter(match=f"*{tenant_id}*")]
    assert sorted(keys) == sorted(limit.key(tenant_id).encode() for limit in asked)
    for key in keys:
        assert f"{{{tenant_id}}}".encode() in key
        assert 0 < await server.pttl(key) <= 61_000


async def test_without_valkey_the_process_counts_for_itself(opening: Opening) -> None:
    client = valkey.connect("redis://127.0.0.1:1/0")
    limits, tenant_id = opening(client), uuid7()
    before = rate.FAILED_OPEN._value.get()
    answers = [await take(limits, tenant_id, [rpm(3)]) for _ in range(5)]
    assert [isinstance(answer, RateTicket) for answer in answers] == [True, True, True, False, False]
    ticket = await taken(limits, tenant_id, [slots(1), tpm(10)], tokens=10)
    await refused(limits, tenant_id, [slots(1)])
    assert (await refused(limits, tenant_id, [tpm(10)], tokens=5)).wait_s <= 30
    limits.end(ticket, used_tokens=3)
    await taken(limits, tenant_id, [slots(1), tpm(10)], tokens=5)
    await limits.renew()
    await limits.close()
    await client.aclose()
    assert rate.FAILED_OPEN._value.get() - before == 9


async def test_an_outage_finds_the_slots_of_this_process_counted(
    services: Services, opening: Opening
) -> None:
    client = valkey.connect(services.valkey_url)
    limits, tenant_id, limit = opening(client), uuid7(), slots(2)
    first = await taken(limits, tenant_id, [limit])
    services.valkey.stop()
    try:
        second = await taken(limits, tenant_id, [limit])
        await refused(limits, tenant_id, [limit])
        limits.end(first, used_tokens=0)
        await taken(limits, tenant_id, [limit])
    finally:
        services.valkey.start()
    await limits.close()
    # What was let in meanwhile is told to Valkey when it is back.
    name = str(second.request_id).encode()
    members: list[object] = []
    for _ in range(20):
        # A round may find the connection that went with the server; the next one has a fresh one.
        limits._line.forgive()
        await limits.renew()
        members = list(await client.zrange(limit.key(tenant_id), 0, -1))
        if name in members:
            break
    assert name in members
    await client.aclose()
