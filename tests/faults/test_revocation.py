"""What is taken away is refused at the very next call, whatever gateways have cached and Valkey does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2 as httpx
import pytest

from devstack.engines.testing import sim
from devstack.testing import Services
from models_catalog import operations as catalog_operations
from portal.kit.clock import utc_now
from tenants import operations as tenant_operations
from tenants.models import TenantState
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture, issue_key, set_state
from tests.faults.conftest import SetStage
from tests.faults.evidence import assert_audit_holds, wait_nothing_held
from tests.faults.streams import chat_body
from tests.gateway_process import RunningGateway, client, running_gateway

TakeAway = Callable[[TenantFixture, ModelFixture], None]


def revoke_key(tenant: TenantFixture, _: ModelFixture) -> None:
    tenant_operations.revoke_api_key(tenant_id=tenant.id, key_id=tenant.key.id, now=utc_now())


def suspend(tenant: TenantFixture, _: ModelFixture) -> None:
    set_state(tenant.id, TenantState.SUSPENDED)


def end_grant(tenant: TenantFixture, model: ModelFixture) -> None:
    catalog_operations.end_grant(tenant_id=tenant.id, slug=model.slug, now=utc_now())


def empty_the_list(tenant: TenantFixture, _: ModelFixture) -> None:
    catalog_operations.restrict_api_key(tenant_id=tenant.id, key_id=tenant.key.id, slugs=[])


CASES: list[tuple[TakeAway, int, str]] = [
    (revoke_key, 401, "api_key_revoked"),
    (suspend, 403, "organization_suspended"),
    (end_grant, 403, "model_not_enabled"),
    (empty_the_list, 403, "model_not_allowed"),
]


@pytest.fixture(params=["valkey-up", "valkey-down"])
def valkey_state(request: pytest.FixtureRequest, services: Services, database: None) -> Iterator[str]:
    if request.param == "valkey-up":
        yield request.param
        return
    services.valkey.stop()
    try:
        yield request.param
    finally:
        services.valkey.start()


@pytest.fixture(scope="module")
def gateways(
    database: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGateway, RunningGateway]]:
    """Two, with a rate limit, so that Valkey is on the way of every call."""
    folder = tmp_path_factory.mktemp("gateways")
    with (
        running_gateway(folder, SLUICE_RATE_LIMIT_RPM="100000") as one,
        running_gateway(folder, SLUICE_RATE_LIMIT_RPM="100000") as two,
    ):
        yield one, two


def ask(gateway: RunningGateway, token: str, model: ModelFixture) -> httpx.Response:
    with client(gateway, token) as http:
        return http.post(
            "/chat/completions",
            json=chat_body(model.slug, "go " + sim(tokens=2, rate=0), max_tokens=10, stream=False),
        )


def test_refused_at_the_very_next_call(
    set_stage: SetStage, gateways: tuple[RunningGateway, RunningGateway], valkey_state: str
) -> None:
    stage = set_stage("llamacpp")
    for take_away, status, code in CASES:
        tenant = stage.another_tenant()
        if take_away is empty_the_list:
            with role_scope("operator"):
                catalog_operations.restrict_api_key(
                    tenant_id=tenant.id, key_id=tenant.key.id, slugs=[stage.slug]
                )
        for gateway in gateways:
            warm = ask(gateway, tenant.key.token, stage.model)
            assert warm.status_code == 200, warm.text
        with role_scope("operator"):
            take_away(tenant, stage.model)
        served_before = stage.engine.totals()["requests"]
        for gateway in gateways:
            answer = ask(gateway, tenant.key.token, stage.model)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert stage.engine.totals()["requests"] == served_before
        print(f"{valkey_state}: {take_away.__name__} refused with {status} {code} on both gateways")
        wait_nothing_held(tenant.id)
    assert_audit_holds()


def test_other_keys_of_the_organization_go_on(
    set_stage: SetStage, gateways: tuple[RunningGateway, RunningGateway]
) -> None:
    gateway, _ = gateways
    stage = set_stage("llamacpp")
    other_key, _ = issue_key(stage.tenant_id)
    assert ask(gateway, stage.token, stage.model).status_code == 200
    with role_scope("operator"):
        revoke_key(stage.tenant, stage.model)
    assert ask(gateway, stage.token, stage.model).status_code == 401
    assert ask(gateway, other_key.token, stage.model).status_code == 200
    wait_nothing_held(stage.tenant_id)
