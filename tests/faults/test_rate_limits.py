"""Rate limits over two gateway processes: under parallel calls, when one is killed, and without Valkey."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx2 as httpx
import pytest

from devstack.engines.testing import sim
from devstack.testing import Services
from quotas import operations
from quotas.models import LimitKind
from tests.database import rows_of
from tests.faults.conftest import SetStage
from tests.faults.evidence import assert_audit_holds, is_nothing_held, wait_nothing_held
from tests.faults.stage import Stage
from tests.faults.streams import StreamClient, chat_body, join_all, streaming
from tests.gateway_process import RunningGateway, running_gateway, start_gateway
from tests.limits import limit_calls
from tests.waiting import wait_for

LEASE_S = 4
TUNING = {"SLUICE_LEASE_S": str(LEASE_S), "SLUICE_CHECKPOINT_S": "1", "SLUICE_DRAIN_S": "1"}
PARALLEL = 40
CODES = {
    LimitKind.REQUESTS_RPM: "rate_limit_exceeded",
    LimitKind.TOKENS_TPM: "rate_limit_exceeded",
    LimitKind.CONCURRENCY: "concurrency_limit_exceeded",
}

Two = tuple[RunningGateway, RunningGateway]


@pytest.fixture(scope="module")
def gateways(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("gateways")
    with running_gateway(folder, **TUNING) as one, running_gateway(folder, **TUNING) as two:
        yield one, two


def one_call(gateway: RunningGateway, stage: Stage, *, tokens: int = 2, max_tokens: int = 10) -> StreamClient:
    """A short streamed call, to its end."""
    body = chat_body(stage.slug, "go " + sim(tokens=tokens, rate=0), max_tokens=max_tokens)
    call = StreamClient(gateway.api_base, stage.token, body)
    call.run()
    return call


def failed_open(gateway: RunningGateway) -> float:
    text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
    found = re.search(r"^sluice_rate_limits_failed_open_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("kind", CODES)
def test_parallel_calls_on_two_gateways_never_pass_a_limit(
    set_stage: SetStage, gateways: Two, kind: LimitKind
) -> None:
    stage = set_stage("llamacpp")
    limit = 8_000 if kind == LimitKind.TOKENS_TPM else 8
    limit_calls(stage.tenant_id, kind, limit)
    body = chat_body(stage.slug, "count " + sim(tokens=800, rate=25), max_tokens=800)
    calls = [StreamClient(gateways[number % 2].api_base, stage.token, body) for number in range(PARALLEL)]
    started_s = time.monotonic()
    for call in calls:
        call.start()
    try:
        wait_for(lambda: all(call.status for call in calls), 25, "an answer to every call")
        took_s = time.monotonic() - started_s
    finally:
        for call in calls:
            call.leave()
        join_all(calls)
    endings = Counter((call.status, call.error.get("code")) for call in calls)
    print(f"{kind}: {dict(endings)} within {took_s:.1f} s")
    assert set(endings) == {(200, None), (429, CODES[kind])}
    requests = rows_of("quotas_inferencerequest", tenant_id=stage.tenant_id)
    assert len(requests) == endings[200, None]
    each = requests[0]["prompt_bound_tokens"] + 800 if kind == LimitKind.TOKENS_TPM else 1
    # What leaks out of a bucket while the calls are sent may be taken again.
    leaked = 0 if kind == LimitKind.CONCURRENCY else limit * took_s / 60
    assert limit // each <= endings[200, None] <= (limit + leaked) / each
    wait_nothing_held(stage.tenant_id)


def test_the_slots_of_a_killed_gateway_come_back_with_its_leases(
    set_stage: SetStage, gateways: Two, tmp_path: Path
) -> None:
    """Slots are kept for as long as a call runs, here twice its lease, and no longer than a lease after."""
    stage = set_stage("llamacpp")
    limit_calls(stage.tenant_id, LimitKind.CONCURRENCY, 3)
    doomed = start_gateway(tmp_path, **TUNING)
    with streaming(
        doomed.api_base, stage.token, stage.slug, count=3, tokens=4_000, rate=25, min_words=25 * 2 * LEASE_S
    ):
        assert one_call(gateways[0], stage).status == 429
        doomed.kill()
        killed_s = time.monotonic()
        assert one_call(gateways[0], stage).status == 429
        wait_for(lambda: one_call(gateways[1], stage).status == 200, LEASE_S + 2, "a slot")
        print(f"a slot was free {time.monotonic() - killed_s:.1f} s after the kill; the lease is {LEASE_S} s")
    # Three calls at a time fit again, and no more.
    with streaming(gateways[0].api_base, stage.token, stage.slug, count=3, tokens=4_000, rate=25):
        assert one_call(gateways[1], stage).status == 429
    wait_for(lambda: is_swept(stage.tenant_id), LEASE_S + 4, "sweeps")
    assert_audit_holds()


def is_swept(tenant_id: UUID) -> bool:
    """Sweep once; whether nothing of the organization is held any more."""
    operations.sweep_expired_holds(lease_s=LEASE_S)
    return is_nothing_held(tenant_id)


def test_without_valkey_calls_are_served_and_counted_by_each_process(
    set_stage: SetStage, services: Services, gateways: Two
) -> None:
    gateway, _ = gateways
    stage = set_stage("llamacpp")
    unlimited = stage.another_tenant()
    limit_calls(stage.tenant_id, LimitKind.REQUESTS_RPM, 6)
    limit_calls(stage.tenant_id, LimitKind.CONCURRENCY, 2)
    crowded = Stage(stage.engine, stage.another_tenant(), stage.model)
    limit_calls(crowded.tenant_id, LimitKind.CONCURRENCY, 1)
    with streaming(gateway.api_base, crowded.token, stage.slug, count=1, tokens=4_000, rate=25):
        before = failed_open(gateway)
        services.valkey.stop()
        try:
            calls = [one_call(gateway, stage) for _ in range(8)]
            free = StreamClient(
                gateway.api_base,
                unlimited.key.token,
                chat_body(stage.slug, "go " + sim(tokens=2, rate=0), max_tokens=10),
            )
            free.run()
            # The process knows of the slots that its calls have taken in Valkey.
            assert one_call(gateway, crowded).status == 429
        finally:
            services.valkey.start()
    counted = failed_open(gateway) - before
    print(f"{Counter(call.status for call in calls)}, slowest {max(call.took_s for call in calls):.2f} s")
    assert [call.status for call in calls] == [200] * 6 + [429] * 2
    assert free.status == 200
    assert max(call.took_s for call in calls) < 8
    assert counted == 9
    wait_nothing_held(stage.tenant_id, crowded.tenant_id, unlimited.id)
