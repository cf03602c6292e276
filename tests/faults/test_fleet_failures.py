"""One of three backends is killed in the middle of load and comes back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import pytest
from django.db import transaction

from devstack.engines.testing import RunningEngine, sim, start_engine
from models_catalog.models import CancelPolicy, CatalogModel, Deployment, FleetState
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import TenantFixture, enable, make_backend, make_model, make_tenant
from tests.faults.evidence import (
    assert_audit_holds,
    posted_nanos,
    price_nanos,
    usage_of,
    wait_nothing_held,
)
from tests.faults.streams import StreamClient, chat_body, join_all, many_connections
from tests.gateway_process import RunningGateway, client, running_gateway
from tests.waiting import wait_for

WORKERS = 18
TOKENS, RATE_PER_S = 60, 40
POLICIES = (CancelPolicy.DELIVERED, CancelPolicy.INPUT, CancelPolicy.NOTHING)


@dataclass(slots=True)
class FleetStage:
    """Three engines and a model for each cancel policy, each on all of them."""

    engines: list[RunningEngine]
    tenant: TenantFixture
    slugs: dict[CancelPolicy, str]
    policies: dict[str, CancelPolicy] = field(default_factory=dict)


@pytest.fixture
def fleet(database: None) -> Iterator[FleetStage]:
    with ExitStack() as stack:
        # SGLang serves whatever model it is asked for, so that its books tell the policies apart.
        engines = [stack.enter_context(start_engine("sglang")) for _ in range(3)]
        backends = [make_backend(engine="sglang", base_url=one.url, max_concurrency=16) for one in engines]
        tenant = make_tenant(granted="50.00")
        slugs: dict[CancelPolicy, str] = {}
        with role_scope("operator"), transaction.atomic(using="operator"):
            models = {
                policy: make_model(backend_id=backends[0], cancel_policy=policy, upstream_model=policy.value)
                for policy in POLICIES
            }
            for policy, model in models.items():
                slugs[policy] = model.slug
                for backend_id in backends[1:]:
                    Deployment.objects.create(
                        model_id=model.id, backend_id=backend_id, upstream_model=policy.value
                    )
        for model in models.values():
            enable(tenant, model)
        yield FleetStage(engines, tenant, slugs, {slug: policy for policy, slug in slugs.items()})


class Load:
    """Workers that stream one call after the other until they are told to stop."""

    def __init__(self, gateway: RunningGateway, stage: FleetStage) -> None:
        self._gateway = gateway
        self._stage = stage
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._http = many_connections()
        self.calls: list[tuple[CancelPolicy, StreamClient]] = []
        self._threads = [
            threading.Thread(target=self._work, args=(POLICIES[number % len(POLICIES)],), daemon=True)
            for number in range(WORKERS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No new calls; returns when the last ones have ended."""
        self._stopping.set()
        join_all(self._threads)
        self._http.close()

    def _work(self, policy: CancelPolicy) -> None:
        slug, directive = self._stage.slugs[policy], sim(tokens=TOKENS, rate=RATE_PER_S)
        while not self._stopping.is_set():
            # No two begin alike: otherwise they would stay where the first of them was served.
            body = chat_body(slug, f"{uuid7()} {directive}", max_tokens=TOKENS)
            call = StreamClient(self._gateway.api_base, self._stage.tenant.key.token, body, http=self._http)
            call.run()
            with self._lock:
                self.calls.append((policy, call))
            if call.ending not in ("done", "error_event"):
                # It has failed the test already; thousands like it would only hide it.
                return


def streams_all_policies(engine: RunningEngine) -> bool:
    """Whether a call of each policy has got a part of its answer and waits for more."""
    streaming = {
        record["model"]
        for record in engine.requests()
        if record["ended"] == "running" and 5 < record["sent_tokens"] < TOKENS / 2
    }
    return streaming >= {policy.value for policy in POLICIES}


def served(engine: RunningEngine) -> int:
    requests: int = engine.totals()["requests"]
    return requests


def test_a_killed_backend_fails_nobody_who_had_nothing_yet_and_gets_its_traffic_back(
    fleet: FleetStage, tmp_path: Path
) -> None:
    victim = fleet.engines[1]
    port = int(victim.url.rpartition(":")[2])
    with running_gateway(tmp_path, SLUICE_HEALTH_S="1") as gateway, Load(gateway, fleet) as load:
        wait_for(lambda: all(served(engine) > 6 for engine in fleet.engines), 30, "calls at all three")
        wait_for(lambda: streams_all_policies(victim), 30, "streams of all policies")
        victim.kill()
        killed_s = time.monotonic()
        others = [fleet.engines[0], fleet.engines[2]]
        before = [served(engine) for engine in others]
        wait_for(
            lambda: all(served(engine) > count + 12 for engine, count in zip(others, before, strict=True)),
            30,
            "calls at the other two",
        )
        with start_engine("sglang", port=port) as again:
            back_s = time.monotonic()
            wait_for(lambda: served(again) > 0, 20, "a call at the one that is back")
            first_s = time.monotonic() - back_s
            wait_for(lambda: again.totals()["running"] >= WORKERS // 6, 30, "its part of the traffic")
            whole_s = time.monotonic() - back_s
            load.stop()
    endings = Counter(call.ending for _, call in load.calls)
    print(
        f"{dict(endings)} of {len(load.calls)} calls; down for {back_s - killed_s:.1f} s, "
        f"first call {first_s:.1f} s and its part {whole_s:.1f} s after its return"
    )
    assert set(endings) == {"done", "error_event"}
    assert {call.words for _, call in load.calls if call.ending == "done"} == {TOKENS}
    assert any(ordinal > 1 for ordinal in _ordinals(fleet.tenant)), "nobody was served elsewhere"
    wait_nothing_held(fleet.tenant.id)
    _check_cut_calls(gateway, fleet, load, tmp_path)
    assert_audit_holds()


def _ordinals(tenant: TenantFixture) -> list[int]:
    return [row["ordinal"] for row in rows_of("quotas_attempt", tenant_id=tenant.id)]


def _check_cut_calls(gateway: RunningGateway, fleet: FleetStage, load: Load, folder: Path) -> None:
    """Each was cut by the kill, is billed by its model's policy, and its receipt says so."""
    cut = [(policy, call) for policy, call in load.calls if call.ending == "error_event"]
    assert {policy for policy, _ in cut} == set(POLICIES)
    usage = usage_of(fleet.tenant.id)
    with running_gateway(folder) as still_there, client(still_there, fleet.tenant.key.token) as http:
        for policy, call in cut:
            assert call.error["code"] == "backend_failed"
            (record,) = usage[call.call_id]
            assert record["completion_tokens"] == call.words
            owed = {
                CancelPolicy.DELIVERED: price_nanos(record["prompt_tokens"], call.words),
                CancelPolicy.INPUT: price_nanos(record["prompt_tokens"], 0),
                CancelPolicy.NOTHING: 0,
            }[policy]
            assert sum(posted_nanos(call.call_id)) == owed, policy
            _check_receipt(http, call, policy)
    by_policy = Counter(policy for policy, _ in cut)
    print(f"cut: {dict(by_policy)}")


def _check_receipt(http: httpx.Client, call: StreamClient, policy: CancelPolicy) -> None:
    receipt = http.get(f"/requests/{public_id(PREFIXES['request'], call.call_id)}").json()
    assert receipt["cancel_policy"] == policy.value
    assert receipt["attempts"][-1]["outcome"] == "BACKEND_FAILED"


def test_a_draining_deployment_ends_its_calls_and_gets_no_more(fleet: FleetStage, tmp_path: Path) -> None:
    slug = fleet.slugs[CancelPolicy.DELIVERED]
    with running_gateway(tmp_path) as gateway:

        def stream(tokens: int) -> StreamClient:
            body = chat_body(slug, f"{uuid7()} {sim(tokens=tokens, rate=RATE_PER_S)}", max_tokens=tokens)
            return StreamClient(gateway.api_base, fleet.tenant.key.token, body)

        running = [stream(200) for _ in range(6)]
        for call in running:
            call.start()
        wait_for(lambda: all(call.words > 2 for call in running), 20, "streams")
        drained = next(engine for engine in fleet.engines if served(engine))
        loaded = catalogs_loaded(gateway)
        with role_scope("operator"):
            states = Deployment.objects.filter(
                model__slug=slug, backend__base_url=drained.url, state=FleetState.ACTIVE
            )
            assert states.update(state=FleetState.DRAINING) == 1
        wait_for(lambda: catalogs_loaded(gateway) > loaded, 10, "a gateway that follows")
        before = served(drained)
        for _ in range(4):
            call = stream(3)
            call.run()
            assert call.ending == "done"
        assert served(drained) == before
        join_all(running)
    assert {(call.ending, call.words) for call in running} == {("done", 200)}


def catalogs_loaded(gateway: RunningGateway) -> int:
    return gateway.child.log_path.read_text(errors="replace").count("inference.catalog.loaded")


def test_the_model_says_what_a_cut_call_costs(fleet: FleetStage) -> None:
    with role_scope("operator"):
        stored = dict(
            CatalogModel.objects.filter(slug__in=fleet.policies).values_list("slug", "cancel_policy")
        )
    assert stored == {slug: policy.value for slug, policy in fleet.policies.items()}
