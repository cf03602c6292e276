"""A price changes while 1,000 calls run: each is charged with the line it was admitted with."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from devstack.engines.testing import sim, start_engine
from models_catalog.pricing.tests.shops import line, make_draft, publish_from
from models_catalog.queries.prices import version_at
from portal.kit.clock import utc_now
from quotas import audit
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import enable, make_backend, make_model, make_tenant
from tests.gateway_process import client, running_gateway
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("database")

CALLS = 1000
THREADS = 16
LEAD = timedelta(seconds=2)
# Prices of a token that leave a rounding in every line, before and after.
BEFORE: Mapping[str, int] = {"input": 333_333_333, "output": 1_234_567_891}
AFTER: Mapping[str, int] = {"input": 456_789_123, "output": 987_654_321}


def cost_nanos(prices: Mapping[str, int], usage: Mapping[str, Any]) -> int:
    """Each line rounds half up, once; cached input and reasoning have no lines of their own."""
    parts = {
        "input": [usage["prompt_tokens"] - usage["cached_tokens"], usage["cached_tokens"]],
        "output": [usage["completion_tokens"] - usage["reasoning_tokens"], usage["reasoning_tokens"]],
    }
    return sum(
        (units * prices[name] + 500_000) // 1_000_000 for name, counts in parts.items() for units in counts
    )


@pytest.mark.timeout(300)
def test_a_price_change_while_a_thousand_calls_run(tmp_path: Path) -> None:
    with start_engine("generic", tokens_per_s=0) as engine, running_gateway(tmp_path) as gateway:
        tenant = make_tenant(granted="100.00")
        backend_id = make_backend(base_url=engine.url, max_concurrency=512)
        model = make_model(backend_id=backend_id, prices=BEFORE, upstream_model="sim-model")
        enable(tenant, model)
        draft = make_draft(model.id, [line(name, price) for name, price in AFTER.items()])
        body = {
            "model": model.slug,
            "messages": [{"role": "user", "content": sim(tokens=3)}],
            "max_tokens": 8,
        }
        statuses: Counter[int] = Counter()
        lock, is_over = threading.Lock(), threading.Event()

        def keep_calling() -> None:
            with client(gateway, tenant.key.token) as http:
                while not is_over.is_set():
                    status = http.post("/chat/completions", json=body).status_code
                    with lock:
                        statuses[status] += 1

        def answered() -> int:
            with lock:
                return statuses.total()

        with ThreadPoolExecutor(THREADS) as pool:
            callers = [pool.submit(keep_calling) for _ in range(THREADS)]
            try:
                wait_for(lambda: answered() >= CALLS // 10, 60, "the first calls")
                active_from = utc_now() + LEAD
                publish_from(draft, active_from, lead=LEAD / 2)
                reached = wait_for(lambda: utc_now() >= active_from and answered(), 60, "the change")
                enough = max(CALLS, reached + CALLS // 10)
                wait_for(lambda: answered() >= enough, 200, "a thousand calls")
            finally:
                is_over.set()
            for caller in callers:
                caller.result(30)
        # No gap: nobody was told that the model has no price.
        assert set(statuses) == {200}
        wait_for(lambda: not rows_of("quotas_hold", tenant_id=tenant.id, state="PENDING"), 30, "settlements")
    assert model.price_version_id is not None
    _check_every_call(tenant.id, model.price_version_id, draft, active_from, statuses.total())


def _check_every_call(tenant_id: UUID, old: UUID, new: UUID, active_from: datetime, answered: int) -> None:
    calls = {row["id"]: row for row in rows_of("quotas_inferencerequest", tenant_id=tenant_id)}
    usages = rows_of("quotas_usagerecord", tenant_id=tenant_id)
    assert len(calls) == len(usages) == answered >= CALLS
    counted: Counter[UUID] = Counter()
    for usage in usages:
        call = calls[usage["request_id"]]
        version = call["price_version_id"]
        counted[version] += 1
        assert version == (new if call["admitted_at"] >= active_from else old)
        assert usage["cost_nanos"] == cost_nanos(AFTER if version == new else BEFORE, usage)
        assert usage["charged_nanos"] == usage["cost_nanos"]
    assert set(counted) == {old, new}
    assert min(counted.values()) >= CALLS // 20
    # At any moment exactly one version counts.
    model_id = next(iter(calls.values()))["model_id"]
    with role_scope("operator"):
        for offset in (-1, 0, 1):
            at = active_from + timedelta(microseconds=offset)
            found = version_at(model_id=model_id, tenant_id=tenant_id, currency="USD", at=at)
            assert found == (old if offset < 0 else new)
    violated = [each for each in audit.run() if not each.holds]
    assert not violated


def test_one_price_charged_for_the_other_would_show() -> None:
    usage = {"prompt_tokens": 9, "cached_tokens": 0, "completion_tokens": 3, "reasoning_tokens": 0}
    assert cost_nanos(BEFORE, usage) != cost_nanos(AFTER, usage)
