"""What is told about a run's cost is what the ledger says, or that it is not known yet."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from django.conf import settings

from portal.inference.config import inference_config
from portal.inference.credentials import Credential
from portal.inference.database import Database
from portal.kit.clock import utc_now
from portal.kit.ids import partition_bound, uuid7
from portal.playground import receipts
from portal.playground.receipts import Receipts
from quotas.tests.doors import admitted, settle_one
from tests.database import connected, connection_info
from tests.factories import TenantFixture, admission_row, enable, make_model, make_tenant, settlement_row


def _database(conninfo: str) -> Database:
    assert settings.SECRET_STORE is not None
    config = inference_config(
        database=settings.DATABASES["dataplane"],
        secrets=settings.SECRET_STORE,
        valkey_url=settings.VALKEY_URL,
        tuning=settings.TUNING,
    )
    return Database(replace(config, conninfo=conninfo, pool_size=4))


def _credential(tenant: TenantFixture) -> Credential:
    return Credential(tenant.key.id, tenant.id, tenant.digest_hex)


@pytest.fixture
def settled_elsewhere(database: None) -> TenantFixture:
    return make_tenant()


@pytest.fixture
def called(database: None) -> tuple[TenantFixture, UUID]:
    """An organization with one settled call of 10 and 5 tokens at the default prices."""
    tenant, model = make_tenant(), make_model()
    enable(tenant, model)
    with connected("dataplane") as doors:
        row = admitted(doors, admission_row(tenant, model))
        settle_one(doors, settlement_row(row, prompt_tokens=10, completion_tokens=5))
    return tenant, row.request_id


async def test_a_receipt_is_what_was_settled(called: tuple[TenantFixture, UUID]) -> None:
    tenant, request_id = called
    database = _database(connection_info("dataplane"))
    await database.open()
    try:
        found = Receipts(database)
        receipt = await found.settled(_credential(tenant), request_id)
        assert receipt is not None
        assert (receipt.is_settled, receipt.charged_nanos, receipt.completion_tokens) == (True, 20_000, 5)
        assert receipt.outcome == "COMPLETED"
        assert await found.newest(_credential(tenant), since_s=60) == request_id
        for nobodys in (uuid7(), UUID(int=0), UUID(int=2**128 - 1), partition_bound(utc_now())):
            assert await found.settled(_credential(tenant), nobodys) is None
    finally:
        await database.close()


async def test_one_member_takes_one_slot(
    called: tuple[TenantFixture, UUID], settled_elsewhere: TenantFixture
) -> None:
    """Many sockets that wait for receipts leave others a way to the database."""
    (tenant, _), other = called, settled_elsewhere
    order: list[str] = []
    database = _database(connection_info("dataplane"))
    await database.open()

    async def ask(whose: TenantFixture) -> None:
        await found._ask(_credential(whose), "SELECT pg_sleep(0.1)", {})
        order.append("mine" if whose is tenant else "other")

    try:
        found = Receipts(database)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(ask(tenant))
            group.create_task(ask(other))
    finally:
        await database.close()
    assert order.index("other") <= 2


async def test_a_database_that_is_away_says_nothing_of_a_cost(
    called: tuple[TenantFixture, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that there was no such run, which pages show as a run that cost nothing."""
    monkeypatch.setattr(receipts, "SETTLED_WITHIN_S", 1.5)
    tenant, request_id = called
    database = _database("host=127.0.0.1 port=9 user=nobody dbname=nothing connect_timeout=1")
    await database.open()
    try:
        receipt = await Receipts(database).settled(_credential(tenant), request_id)
    finally:
        await database.close()
    assert receipt is not None
    assert not receipt.is_settled


async def test_the_newest_run_is_looked_for_among_the_newest_only(
    called: tuple[TenantFixture, UUID],
) -> None:
    """Of a customer with a million calls, a page that is loaded must not read all of them."""
    tenant, _ = called
    with connected("dataplane") as connection:
        plan = "\n".join(
            line
            for (line,) in connection.execute(
                "EXPLAIN " + receipts._NEWEST, receipts._newest_parameters(_credential(tenant), 60, utc_now())
            )
        )
    assert plan.count("quotas_inferencerequest_") <= 2 * 2, plan
