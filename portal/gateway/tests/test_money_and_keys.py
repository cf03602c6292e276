"""What a key may do and what a balance covers, through the gateway."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devstack.engines.options import FLAVOURS
from devstack.engines.testing import RunningEngine, sim
from models_catalog import operations as catalog_operations
from portal.gateway.tests.stage import Stage, held_nanos, make_stage, on, requests_of, stored
from portal.kit.clock import utc_now
from portal.kit.money import parse_amount
from tenants.scope import role_scope
from tests.database import money_of
from tests.factories import enable, issue_key, make_model, make_tenant
from tests.gateway_process import RunningGateway, client


@pytest.fixture
def stage(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines["vllm"], "vllm"), granted="0.01")


def test_an_exhausted_balance_says_what_would_fit(stage: Stage) -> None:
    """A hundredth of a dollar cannot hold 8,192 tokens; what is said to fit fits, and one more does not."""
    text = "hello " + sim(tokens=1)
    refused = stage.ask(text, max_tokens=8192)
    assert refused.status == 402
    error = refused.error
    assert (error["code"], error["type"], error["currency"]) == (
        "insufficient_balance",
        "insufficient_quota",
        "USD",
    )
    assert error["request_id"] == refused.headers["x-request-id"]
    available = money_of(stage.tenant.id).granted
    assert parse_amount(error["available"]) == available
    assert parse_amount(error["pending"]) == 0
    assert parse_amount(error["needed"]) > available
    assert requests_of(stage.tenant) == []

    fits = error["max_tokens_that_fit"]
    assert 0 < fits < 8192
    assert str(fits) in error["message"]
    assert stage.ask(text, max_tokens=fits + 1).status == 402
    answer = stage.ask(text, max_tokens=fits)
    assert answer.status == 200
    assert stored(answer.request_id).hold["amount_nanos"] <= available


def test_nothing_fits_any_more(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> None:
    stage = make_stage(gateway, on(engines["vllm"], "vllm"), granted="0.000001")
    error = stage.ask("hello").error
    assert error["max_tokens_that_fit"] == 0
    assert held_nanos(stage.tenant) == 0


def test_a_key_with_an_allow_list(stage: Stage) -> None:
    other = make_model(backend_id=stage.model.backend_id, upstream_model="sim-model")
    enable(stage.tenant, other)
    key, _ = issue_key(stage.tenant.id)
    with role_scope("operator"):
        catalog_operations.restrict_api_key(tenant_id=stage.tenant.id, key_id=key.id, slugs=[other.slug])
    refused = stage.post(stage.body(sim(tokens=1)), token=key.token)
    assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    allowed = stage.post({**stage.body(sim(tokens=1)), "model": other.slug}, token=key.token)
    assert allowed.status == 200
    assert _listed(stage, key.token) == [other.slug]


def test_an_expired_key(stage: Stage) -> None:
    key, _ = issue_key(stage.tenant.id, expires_at=utc_now() + timedelta(seconds=0.2))
    answer = stage.post(stage.body(sim(tokens=1)), token=key.token)
    while answer.status == 200:
        answer = stage.post(stage.body(sim(tokens=1)), token=key.token)
    assert (answer.status, answer.error["code"]) == (401, "api_key_expired")
    with client(stage.gateway, key.token) as http:
        assert http.get("/models").status_code == 401


def _listed(stage: Stage, token: str) -> list[str]:
    with client(stage.gateway, token) as http:
        answer = http.get("/models")
    assert answer.status_code == 200
    assert answer.json()["object"] == "list"
    return [model["id"] for model in answer.json()["data"]]


def test_models_are_the_tenants_own(stage: Stage, gateway: RunningGateway) -> None:
    """A stranger sees only what it has enabled itself, in the list and by name."""
    stranger, own = make_tenant(), make_model(backend_id=stage.model.backend_id)
    enable(stranger, own)
    assert _listed(stage, stage.tenant.key.token) == [stage.model.slug]
    assert _listed(stage, stranger.key.token) == [own.slug]
    assert _listed(stage, make_tenant().key.token) == []
    with client(gateway, stranger.key.token) as http:
        found = http.get(f"/models/{own.slug}")
        hidden = http.get(f"/models/{stage.model.slug}")
        encoded = http.get("/models/" + own.slug.replace("/", "%2F"))
    assert found.status_code == encoded.status_code == 200
    assert found.json() == encoded.json()
    assert found.json()["id"] == own.slug
    assert found.json()["owned_by"] == "test"
    assert isinstance(found.json()["created"], int)
    assert hidden.status_code == 404
    assert hidden.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_prompt_beyond_the_context(
    gateway: RunningGateway, engines: dict[str, RunningEngine], flavour: str
) -> None:
    """The backend refuses it, the client hears why in our words, and nothing is charged."""
    stage = make_stage(gateway, on(engines[flavour], flavour), granted="100.00")
    answer = stage.ask("word " * 9000, max_tokens=5)
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert stored(answer.request_id).hold["state"] == "VOIDED"
    assert held_nanos(stage.tenant) == 0
