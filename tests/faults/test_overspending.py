"""More calls at once than the balance covers, through two gateways."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

import httpx2 as httpx

from devstack.engines.testing import sim
from portal.kit.money import parse_amount
from tests.database import connected, money_of
from tests.factories import add_granted
from tests.faults.conftest import SetStage
from tests.faults.evidence import assert_audit_holds, usage_of, wait_nothing_held
from tests.faults.streams import chat_body
from tests.gateway_process import client, running_gateway

CALLS = 200
COVERED = 20


class WalletWatcher(threading.Thread):
    """Reads a wallet as fast as it can and remembers the least that was ever available."""

    def __init__(self, tenant_id: object) -> None:
        super().__init__(daemon=True)
        self._tenant_id, self._stopping = tenant_id, threading.Event()
        self.readings, self.least_nanos, self.most_pending_nanos = 0, 10**18, 0

    def run(self) -> None:
        query = (
            "SELECT paid_nanos + granted_nanos - pending_nanos, pending_nanos "
            "FROM quotas_wallet WHERE tenant_id = %s"
        )
        with connected("operator") as connection:
            while not self._stopping.is_set():
                row = connection.execute(query, (self._tenant_id,), prepare=True).fetchone()
                assert row is not None
                self.readings += 1
                self.least_nanos = min(self.least_nanos, row[0])
                self.most_pending_nanos = max(self.most_pending_nanos, row[1])

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
        assert not self.is_alive()


async def call_all(bases: list[str], token: str, model: str) -> list[httpx.Response]:
    """All calls at once, each gateway in turn, plain and streamed in turn."""
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False, limits=limits) as http:
        return await asyncio.gather(
            *(
                http.post(
                    f"{bases[number % len(bases)]}/chat/completions",
                    json=chat_body(
                        model, "go " + sim(tokens=20, rate=100), max_tokens=200, stream=number % 4 < 2
                    ),
                )
                for number in range(CALLS)
            )
        )


def test_two_gateways_never_spend_more_than_there_is(set_stage: SetStage, tmp_path: Path) -> None:
    stage = set_stage("llamacpp")
    tenant = stage.another_tenant(granted=None)
    with running_gateway(tmp_path) as one, running_gateway(tmp_path) as two:
        with client(one, tenant.key.token) as http:
            body = chat_body(stage.slug, "go " + sim(tokens=20, rate=100), max_tokens=200)
            refused = http.post("/chat/completions", json=body)
        assert refused.status_code == 402, refused.text
        hold_nanos = parse_amount(refused.json()["error"]["needed"])
        add_granted(tenant.id, COVERED * hold_nanos)
        watcher = WalletWatcher(tenant.id)
        watcher.start()
        try:
            answers = asyncio.run(call_all([one.api_base, two.api_base], tenant.key.token, stage.slug))
            wait_nothing_held(tenant.id)
        finally:
            watcher.stop()
    statuses = Counter(answer.status_code for answer in answers)
    print(
        f"{dict(statuses)}; {watcher.readings} readings of the wallet: at least {watcher.least_nanos} nanos "
        f"free, at most {watcher.most_pending_nanos / hold_nanos:.1f} holds pending"
    )
    assert set(statuses) == {200, 402}
    assert statuses[200] >= COVERED
    assert watcher.readings > 100
    assert watcher.least_nanos >= 0
    records = usage_of(tenant.id)
    assert len(records) == statuses[200]
    charged_nanos = sum(revisions[-1]["charged_nanos"] for revisions in records.values())
    assert money_of(tenant.id).granted == COVERED * hold_nanos - charged_nanos
    assert_audit_holds()
