"""The fleet's pages: what operators see and change there, and that nobody else does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from models_catalog.models import (
    CapacityVersion,
    Deployment,
    FleetState,
    PoolCostVersion,
    ServingBackend,
    ServingPool,
)
from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import AuditEvent, Role
from tenants.scope import role_scope
from tests.factories import make_backend, make_model, make_tenant, unique_name
from tests.people import make_member, signed_in

pytestmark = pytest.mark.usefixtures("database")

EARLIER = utc_now().replace(second=0, microsecond=0) - timedelta(hours=2)
WHY = {"reason": "for the test"}
COST = {
    "currency": "USD",
    "accelerators": "8",
    "depreciation_nanos_per_accelerator_hour": "2",
    "other_nanos_per_accelerator_hour": "0.5",
    "power_watts": "10",
    "pue_thousandths": "1.25",
    "energy_nanos_per_kwh": "0.12",
    "owner": "ours",
    "region": "eu-1",
}
CAPACITY = {
    "reserved_ppm": "62.5",
    "capacity_tokens_per_s": "2000",
    "input_weight": "0.25",
    "cached_weight": "0.025",
    "output_weight": "1",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A pool with a backend and a deployment on it, by public ids."""

    pool: str
    backend: str
    deployment: str
    pool_id: UUID
    backend_id: UUID
    deployment_id: UUID
    backend_code: str
    slug: str


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@pytest.fixture
def stage(database: None) -> Stage:
    backend_id = make_backend(engine="vllm")
    model = make_model(backend_id=backend_id, upstream_model="served-name")
    with role_scope("operator"):
        backend = ServingBackend.objects.get(id=backend_id)
    return Stage(
        public_id(PREFIXES["pool"], backend.pool_id),
        public_id(PREFIXES["backend"], backend_id),
        public_id(PREFIXES["deployment"], model.deployment_id),
        backend.pool_id,
        backend_id,
        model.deployment_id,
        backend.code,
        model.slug,
    )


def minute_text(moment: datetime) -> str:
    """As browsers send it."""
    return moment.strftime("%Y-%m-%dT%H:%M")


def url(name: str, *arguments: str) -> str:
    return reverse(f"backoffice:{name}", args=arguments)


def text_of(answer: Any) -> str:
    return re.sub(r"\s+", " ", answer.content.decode()).strip()


def saved(client: Client, address: str, values: dict[str, str], back: str) -> None:
    """Post a form as a page without scripts does."""
    answer = client.post(address, values | WHY)
    assert answer.status_code == 302, text_of(answer)
    assert answer["Location"] == back


def refused(client: Client, address: str, values: dict[str, str], words: str) -> HttpResponse:
    answer = client.post(address, values | WHY)
    assert answer.status_code == 422
    assert words in text_of(answer).replace("&#x27;", "'")
    return answer  # type: ignore[return-value]


def last_event(kind: str, row_id: UUID) -> AuditEvent:
    with role_scope("operator"):
        found = AuditEvent.objects.filter(target=public_id(PREFIXES[kind], row_id)).order_by("at").last()
    assert found is not None
    return found


def pages_of(stage: Stage) -> list[str]:
    return [
        url("fleet"),
        url("pool-new"),
        *(
            url(name, stage.pool)
            for name in ("pool", "pool-edit", "pool-cost", "pool-cost-end", "backend-new")
        ),
        *(
            url(name, stage.backend)
            for name in ("backend", "backend-edit", "backend-credential", "deployment-new")
        ),
        f"{url('backend-state', stage.backend)}?to=DRAINING",
        *(
            url(name, stage.deployment)
            for name in ("deployment", "deployment-edit", "deployment-capacity", "deployment-abilities")
        ),
        f"{url('deployment-state', stage.deployment)}?to=ACTIVE",
    ]


def test_every_page_is_there_for_operators_alone(client: Client, stage: Stage) -> None:
    strangers = [signed_in(make_member(make_tenant(), role)) for role in (Role.OWNER, Role.VIEWER)]
    for address in pages_of(stage):
        assert client.get(address).status_code == 200, address
        assert Client().get(address).status_code == 302, address
        for stranger in strangers:
            assert stranger.get(address).status_code == 404, address
            assert stranger.post(address, WHY).status_code == 404, address
    assert strangers[0].post(url("backend-probe", stage.backend)).status_code == 404


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pool", "pool"),
        ("pool-edit", "pool"),
        ("pool-cost", "pool"),
        ("backend-new", "pool"),
        ("backend", "backend"),
        ("backend-credential", "backend"),
        ("deployment-new", "backend"),
        ("deployment", "deployment"),
        ("deployment-capacity", "deployment"),
        ("deployment-abilities", "deployment"),
    ],
)
def test_what_is_not_there(client: Client, name: str, kind: str) -> None:
    for text in (public_id(PREFIXES[kind], uuid7()), "nothing", public_id("org", uuid7())):
        assert client.get(url(name, text)).status_code == 404
    if kind == "backend":
        assert client.post(url("backend-probe", public_id(PREFIXES[kind], uuid7()))).status_code == 404
        assert client.get(url("backend-state", public_id(PREFIXES[kind], uuid7()))).status_code == 404


def test_the_one_screen(client: Client, stage: Stage) -> None:
    text = text_of(client.get(url("fleet")))
    assert 'hx-trigger="every 5s"' in text
    assert stage.backend_code in text
    assert stage.slug in text
    assert "No cost set" in text
    fragment = text_of(client.get(url("fleet"), headers={"HX-Request": "true"}))
    assert fragment.startswith('<div id="fleet"')
    assert stage.backend_code in fragment


def test_a_pool_is_added_and_changed(client: Client) -> None:
    code = unique_name("hall")
    values = {"code": code, "name": "Hall one", "accelerator_kind": "H100", "region": "eu-1"}
    saved(client, url("pool-new"), values, url("fleet"))
    with role_scope("operator"):
        pool = ServingPool.objects.get(code=code)
    page = url("pool", public_id(PREFIXES["pool"], pool.id))
    text = text_of(client.get(page))
    assert 'data-testid="cost-empty"' in text
    assert "No backend runs on this pool yet." in text
    refused(client, url("pool-new"), values, "Another one has this code.")
    refused(client, url("pool-new"), values | {"code": "a b"}, "Use letters, digits")
    saved(client, f"{page}/edit", values | {"name": "Hall two"}, page)
    event = last_event("pool", pool.id)
    assert (event.action, event.after, event.reason) == ("pool.change", {"name": "Hall two"}, "for the test")
    assert event.actor_id is not None


def test_a_reason_is_asked(client: Client, stage: Stage) -> None:
    answer = client.post(url("pool-edit", stage.pool), {"name": "x", "accelerator_kind": "y", "region": "z"})
    assert answer.status_code == 422
    assert "This field is required." in text_of(answer)


def test_a_backend_and_a_deployment_are_added(client: Client, stage: Stage) -> None:
    code = unique_name("engine")
    values = {
        "code": code,
        "engine": "sglang",
        "engine_version": "0.5.4",
        "base_url": "http://10.0.0.7:30000/",
        "max_concurrency": "48",
        "configuration": "--tp 8\r\n--fp8",
        "credential": "token-that-nobody-sees",
    }
    saved(client, url("backend-new", stage.pool), values, url("pool", stage.pool))
    with role_scope("operator"):
        row = ServingBackend.objects.get(code=code)
    assert (row.base_url, row.configuration) == ("http://10.0.0.7:30000", "--tp 8\n--fp8")
    assert settings.SECRET_STORE is not None
    assert settings.SECRET_STORE.decrypt(row.credential_encrypted) == "token-that-nobody-sees"
    backend = public_id(PREFIXES["backend"], row.id)
    text = text_of(client.get(url("backend", backend)))
    assert 'data-testid="deployments-empty"' in text
    assert re.search(r'data-testid="backend-credential"><span class="badge badge-ok">set<', text)
    assert "--tp 8" in text

    other = make_model(prices=None)
    values = {"model_id": public_id(PREFIXES["model"], other.id), "upstream_model": "at-the-backend"}
    saved(client, url("deployment-new", backend), values, url("backend", backend))
    with role_scope("operator"):
        deployment = Deployment.objects.get(backend_id=row.id)
    assert (deployment.model_id, deployment.upstream_model) == (other.id, "at-the-backend")
    refused(client, url("deployment-new", backend), values, "is not one of the available choices")


def test_a_credential_is_never_shown(client: Client, stage: Stage) -> None:
    change = url("backend-credential", stage.backend)
    saved(client, change, {"credential": "first-secret"}, url("backend", stage.backend))
    answers = [
        client.get(url("fleet")),
        client.get(url("pool", stage.pool)),
        client.get(url("backend", stage.backend)),
        client.get(change),
        client.get(url("backend-edit", stage.backend)),
        refused(client, change, {"credential": "second-secret", "remove": "on"}, "Enter the new credential"),
        refused(client, change, {"credential": "third secret"}, "visible ASCII characters"),
        refused(client, change, {}, "Enter the new credential"),
    ]
    assert not any(re.search("(first|second|third).secret", text_of(answer)) for answer in answers)
    event = last_event("backend", stage.backend_id)
    assert (event.before, event.after) == ({"credential": "none"}, {"credential": "changed"})
    saved(client, change, {"remove": "on"}, url("backend", stage.backend))
    with role_scope("operator"):
        assert ServingBackend.objects.get(id=stage.backend_id).credential_encrypted == ""


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.1:8000", "begins with http:// or https://"),
        ("http://me:secret@10.0.0.1", "Leave the credential out of the address"),
        ("http://10.0.0.1/v1/", "Leave /v1 out"),
        ("http://10.0.0.1/?a", "no query"),
    ],
)
def test_addresses_that_are_refused(client: Client, stage: Stage, address: str, words: str) -> None:
    values = {"engine": "vllm", "base_url": address, "max_concurrency": "1"}
    refused(client, url("backend-edit", stage.backend), values, words)


def test_a_backend_is_edited_and_keeps_its_code(client: Client, stage: Stage) -> None:
    values = {
        "code": "another",
        "engine": "vllm",
        "engine_version": "0.12.0",
        "base_url": "http://10.0.0.2",
        "max_concurrency": "16",
        "configuration": "",
        "credential": "ignored",
    }
    saved(client, url("backend-edit", stage.backend), values, url("backend", stage.backend))
    with role_scope("operator"):
        row = ServingBackend.objects.get(id=stage.backend_id)
    assert (row.code, row.engine_version, row.credential_encrypted) == (stage.backend_code, "0.12.0", "")


def test_stopping_names_the_thing_and_its_consequence(client: Client, stage: Stage) -> None:
    change = url("backend-state", stage.backend)
    text = text_of(client.get(f"{change}?to=DISABLED"))
    assert f"Type {stage.backend_code} to confirm" in text
    assert f"Nothing else serves {stage.slug}" in text
    refused(client, change, {"to": "DISABLED", "confirm": "something"}, "That is not its name.")
    saved(client, change, {"to": "DISABLED", "confirm": stage.backend_code}, url("backend", stage.backend))
    with role_scope("operator"):
        assert ServingBackend.objects.get(id=stage.backend_id).state == FleetState.DISABLED
    text = text_of(client.get(url("backend", stage.backend)))
    assert 'data-testid="state-enable"' in text
    assert 'data-testid="state-disable"' not in text
    saved(client, change, {"to": "ACTIVE"}, url("backend", stage.backend))
    assert last_event("backend", stage.backend_id).after == {"state": "ACTIVE"}
    assert client.post(change, {"to": "GONE"} | WHY).status_code == 404


def test_a_deployment_is_renamed_drained_and_enabled(client: Client, stage: Stage) -> None:
    page = url("deployment", stage.deployment)
    saved(client, f"{page}/edit", {"upstream_model": "other-name"}, page)
    saved(client, f"{page}/state", {"to": "DRAINING", "confirm": stage.slug}, page)
    with role_scope("operator"):
        row = Deployment.objects.get(id=stage.deployment_id)
    assert (row.upstream_model, row.state) == ("other-name", FleetState.DRAINING)
    assert "Draining" in text_of(client.get(page))
    saved(client, f"{page}/state", {"to": "ACTIVE"}, page)


def test_the_cost_of_a_pool(client: Client, stage: Stage) -> None:
    page = url("pool", stage.pool)
    saved(client, url("pool-cost", stage.pool), COST | {"active_from": minute_text(EARLIER)}, page)
    with role_scope("operator"):
        version = PoolCostVersion.objects.get(pool_id=stage.pool_id)
    assert version.active_from == EARLIER
    assert version.depreciation_nanos_per_accelerator_hour == 2 * 10**9
    assert (version.power_watts, version.pue_thousandths) == (10_000, 1250)
    text = text_of(client.get(url("pool-cost", stage.pool)))
    assert 'value="0.12"' in text
    past = {"active_from": minute_text(EARLIER + timedelta(hours=1))}
    refused(client, url("pool-cost", stage.pool), COST | past, "This moment has passed")
    half_past = (utc_now() + timedelta(days=1)).replace(minute=30)
    yuan = COST | {"currency": "CNY", "active_from": minute_text(half_past)}
    refused(client, url("pool-cost", stage.pool), yuan, "at a full hour (UTC)")
    before = utc_now()
    saved(client, url("pool-cost", stage.pool), COST | {"accelerators": "10"}, page)
    with role_scope("operator"):
        assert PoolCostVersion.objects.get(pool_id=stage.pool_id, accelerators=10).active_from >= before
    future = minute_text(utc_now() + timedelta(days=2))
    saved(client, url("pool-cost", stage.pool), COST | {"accelerators": "9", "active_from": future}, page)
    text = text_of(client.get(page))
    assert text.count('data-testid="cost-version"') == 3
    assert 'data-phase="PLANNED"' in text
    with role_scope("operator"):
        code = ServingPool.objects.get(id=stage.pool_id).code
    refused(client, url("pool-cost-end", stage.pool), {"confirm": "x"}, "That is not its name.")
    saved(client, url("pool-cost-end", stage.pool), {"confirm": code, "active_from": future}, page)
    assert 'data-phase="WITHDRAWN"' in text_of(client.get(page))


def test_the_parts_of_an_hour_stand_apart(client: Client, stage: Stage) -> None:
    long_ago = {"active_from": minute_text(EARLIER)}
    saved(client, url("pool-cost", stage.pool), COST | long_ago, url("pool", stage.pool))
    text = text_of(client.get(url("pool", stage.pool)))
    for part, nanos in (("depreciation", 16 * 10**9), ("energy", 15 * 10**8), ("other", 4 * 10**9)):
        assert re.search(rf'data-part="{part}">.*?<data class="money" value="{nanos}"', text), part
    assert '<data class="money" value="21500000000"' in text
    assert "ours" in text


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("pue_thousandths", "0.9", "Enter a number from 1 to 10."),
        ("pue_thousandths", "1.2345", "At most 3 decimals"),
        ("power_watts", "-1", "Enter a plain decimal number."),
        ("energy_nanos_per_kwh", "11", "Enter a number from 0 to 10."),
        ("depreciation_nanos_per_accelerator_hour", "1e3", "Enter a plain decimal number."),
        ("currency", "XXX", "Select a valid choice."),
        ("accelerators", "0", "greater than or equal to 1"),
        ("active_from", "yesterday", "Enter a valid date/time."),
    ],
)
def test_costs_that_are_refused(client: Client, stage: Stage, field: str, value: str, words: str) -> None:
    refused(client, url("pool-cost", stage.pool), COST | {field: value}, words)


def test_the_capacity_of_a_deployment(client: Client, stage: Stage) -> None:
    page = url("deployment", stage.deployment)
    assert 'data-testid="capacity-empty"' in text_of(client.get(page))
    saved(client, f"{page}/capacity", CAPACITY | {"active_from": minute_text(EARLIER)}, page)
    with role_scope("operator"):
        version = CapacityVersion.objects.get(deployment_id=stage.deployment_id)
    assert (version.reserved_ppm, version.input_weight, version.cached_weight) == (625_000, 250, 25)
    assert 'data-testid="capacity-now"' in text_of(client.get(page))
    assert "62.5 % reserved" in text_of(client.get(url("pool", stage.pool)))
    assert 'value="62.5"' in text_of(client.get(f"{page}/capacity"))

    other = make_model(backend_id=stage.backend_id, prices=None)
    second = public_id(PREFIXES["deployment"], other.deployment_id)
    refused(client, url("deployment-capacity", second), CAPACITY, "more than the whole pool")
    refused(
        client,
        url("deployment-capacity", second),
        CAPACITY | {"output_weight": "0"},
        "Enter a number from 0.001",
    )


def test_a_probe_of_a_backend_that_is_not_there(client: Client, stage: Stage) -> None:
    probe = url("backend-probe", stage.backend)
    fragment = text_of(client.post(probe, headers={"HX-Request": "true"}))
    assert fragment.startswith('<div class="stack-small" data-testid="probe-result"')
    assert "It does not answer" in fragment
    assert "OPERATOR" in text_of(client.post(probe))
    assert client.get(probe).status_code == 405


def test_a_form_in_the_dialog_stays_until_it_is_right(client: Client, stage: Stage) -> None:
    as_htmx = {"HX-Request": "true"}
    form = text_of(client.get(url("pool-edit", stage.pool), headers=as_htmx))
    assert 'hx-target="#fleet-dialog-body"' in form
    assert "<html" not in form
    answer = client.post(url("pool-edit", stage.pool), {}, headers=as_htmx)
    assert answer.status_code == 422
    values = {"name": "Name", "accelerator_kind": "a", "region": "r"}
    answer = client.post(url("pool-edit", stage.pool), values | WHY, headers=as_htmx)
    assert (answer.status_code, answer["HX-Refresh"]) == (200, "true")


def test_a_stored_credential_is_not_sent_to_another_server(client: Client, stage: Stage) -> None:
    saved(
        client,
        url("backend-credential", stage.backend),
        {"credential": "first-secret"},
        url("backend", stage.backend),
    )
    change = url("backend-edit", stage.backend)
    values = {"engine": "vllm", "base_url": "http://203.0.113.9:9000", "max_concurrency": "8"}
    answer = refused(client, change, values, "Enter the credential again")
    assert "first-secret" not in text_of(answer)
    with role_scope("operator"):
        assert ServingBackend.objects.get(id=stage.backend_id).base_url != values["base_url"]
    saved(client, change, {**values, "credential": "second-secret"}, url("backend", stage.backend))
    with role_scope("operator"):
        row = ServingBackend.objects.get(id=stage.backend_id)
    assert settings.SECRET_STORE is not None
    assert (row.base_url, settings.SECRET_STORE.decrypt(row.credential_encrypted)) == (
        values["base_url"],
        "second-secret",
    )
