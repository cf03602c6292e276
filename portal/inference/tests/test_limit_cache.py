"""Which limits apply, as a process remembers them: how long, and what happens when it cannot ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest

from portal.inference import limits
from portal.inference.database import Database
from portal.inference.limits import RateCache, TenantRates
from portal.kit.ids import uuid7
from quotas.limits.rate import RateLimit
from quotas.models import ANY, LimitKind

# A model or key that no limit names.
ELSE = UUID(int=1)


class FakeDatabase:
    """Answers with `rows` of (model, key, kind, value) for every organization that is asked for."""

    def __init__(self) -> None:
        self.rows: list[tuple[UUID, UUID, str, int]] = []
        self.questions: list[list[UUID]] = []
        self.is_away = False
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[FakeDatabase]:
        if self.is_away:
            raise psycopg.OperationalError("away")
        yield self

    async def execute(self, _query: str, params: tuple[Any, ...], *, prepare: bool) -> FakeDatabase:
        assert prepare
        self.questions.append(params[3])
        self.asked.set()
        await self.answers.wait()
        return self

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return [(tenant_id, *row) for tenant_id in self.questions[-1] for row in self.rows]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    return clock


def cache_on(database: FakeDatabase, *, default_rpm: int = 0) -> RateCache:
    return RateCache(cast(Database, database), default_rpm=default_rpm)


def values(rates: TenantRates | None, model_id: UUID = ELSE, api_key_id: UUID = ELSE) -> list[int]:
    assert rates is not None
    return [limit.value for limit in rates.of_call(model_id, api_key_id)]


async def test_every_scope_of_a_call_counts_and_no_other() -> None:
    database, model_id, key_id, other = FakeDatabase(), uuid7(), uuid7(), uuid7()
    database.rows = [
        (ANY, ANY, "REQUESTS_RPM", 1),
        (model_id, ANY, "TOKENS_TPM", 2),
        (ANY, key_id, "CONCURRENCY", 3),
        (model_id, key_id, "REQUESTS_RPM", 4),
        (other, ANY, "REQUESTS_RPM", 5),
        (model_id, other, "REQUESTS_RPM", 6),
    ]
    rates = await cache_on(database).load(uuid7())
    assert values(rates, model_id, key_id) == [1, 2, 3, 4]
    assert values(rates, other, other) == [1, 5]
    assert values(rates, uuid7(), uuid7()) == [1]


async def test_the_default_holds_where_no_requests_are_limited() -> None:
    database = FakeDatabase()
    cache = cache_on(database, default_rpm=9)
    assert (await cache.load(uuid7())).of_call(uuid7(), uuid7()) == [RateLimit(LimitKind.REQUESTS_RPM, 9)]
    database.rows = [(ANY, ANY, "TOKENS_TPM", 5)]
    assert values(await cache.load(uuid7())) == [5, 9]
    database.rows = [(ANY, ANY, "REQUESTS_RPM", 5)]
    assert values(await cache.load(uuid7())) == [5]
    assert (await cache_on(FakeDatabase()).load(uuid7())).of_call(uuid7(), uuid7()) == []


async def test_callers_at_the_same_time_share_one_question() -> None:
    database, tenants = FakeDatabase(), [uuid7() for _ in range(30)]
    database.rows = [(ANY, ANY, "REQUESTS_RPM", 1)]
    database.answers.clear()
    cache = cache_on(database)
    first = asyncio.create_task(cache.load(tenants[0]))
    await database.asked.wait()
    rest = [asyncio.create_task(cache.load(tenant_id)) for tenant_id in tenants[1:] * 3]
    await asyncio.sleep(0)
    database.answers.set()
    assert all(values(rates) == [1] for rates in await asyncio.gather(first, *rest))
    assert [len(question) for question in database.questions] == [1, 29]
    await cache.close()


async def test_an_entry_ends_with_a_change_and_after_ten_seconds(clock: Clock) -> None:
    database, tenant_id = FakeDatabase(), uuid7()
    cache = cache_on(database)
    cache.note_revision(1, clock.now_s - 1)
    await cache.load(tenant_id)
    clock.now_s += 5
    assert cache.get(tenant_id) is not None
    cache.note_revision(1, clock.now_s)
    assert cache.get(tenant_id) is not None
    cache.note_revision(2, clock.now_s)
    assert cache.get(tenant_id) is None
    clock.now_s += 0.1
    await cache.load(tenant_id)
    assert cache.get(tenant_id) is not None
    clock.now_s += 10.1
    assert cache.get(tenant_id) is None


async def test_what_is_in_use_is_asked_again_before_anybody_waits(clock: Clock) -> None:
    database, tenant_id = FakeDatabase(), uuid7()
    cache = cache_on(database)
    await cache.load(tenant_id)
    database.rows = [(ANY, ANY, "REQUESTS_RPM", 7)]
    clock.now_s += 8
    assert values(cache.get(tenant_id)) == []
    for _ in range(100):
        cache.get(tenant_id)
        await asyncio.sleep(0)
    assert values(cache.get(tenant_id)) == [7]
    assert len(database.questions) == 2
    clock.now_s += 6
    assert values(cache.get(tenant_id)) == [7]


async def test_without_the_database_what_was_known_goes_on(clock: Clock) -> None:
    database, known, unknown = FakeDatabase(), uuid7(), uuid7()
    database.rows = [(ANY, ANY, "REQUESTS_RPM", 7)]
    cache = cache_on(database)
    await cache.load(known)
    database.is_away = True
    clock.now_s += 60
    assert cache.get(known) is None
    assert values(await cache.load(known)) == [7]
    # For a moment nobody asks, and so nobody waits.
    assert values(cache.get(known)) == [7]
    assert values(await cache.load(unknown)) == []
    clock.now_s += 2
    database.is_away = False
    database.rows = [(ANY, ANY, "REQUESTS_RPM", 8)]
    assert cache.get(known) is None
    assert values(await cache.load(known)) == [8]


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOOK_UP_TIMEOUT_S", 0.05)
    database = FakeDatabase()
    database.answers.clear()
    cache = cache_on(database, default_rpm=3)
    assert values(await cache.load(uuid7())) == [3]
    await cache.close()


async def test_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CACHED", 3)
    cache, tenants = cache_on(FakeDatabase()), [uuid7() for _ in range(5)]
    for tenant_id in tenants:
        await cache.load(tenant_id)
    assert [cache.get(tenant_id) is not None for tenant_id in tenants] == [False, False, True, True, True]
