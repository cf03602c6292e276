"""An operator puts an engine into service in the browser, says what it costs, and takes it out again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import settings
from playwright.sync_api import Locator, Page, expect

from devstack.engines.testing import RunningEngine, start_engine
from models_catalog.models import Deployment, FleetState, ServingBackend
from portal.backoffice.tests.people import make_operator
from portal.backoffice.tests.people import sign_in as sign_operator_in
from portal.kit.clock import utc_now
from tenants.scope import role_scope
from tests.factories import make_model, unique_name
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import field, go, hook, nanos
from tests.journeys.visits import Visits

WHY = "for the journey"
EARLIER = f"{utc_now() - timedelta(hours=2):%Y-%m-%dT%H:%M}"


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with start_engine("llamacpp", tokens_per_s=40) as running:
        yield running


def operator_session() -> str:
    client = sign_operator_in(make_operator())
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def state_of(backend_id: UUID) -> str:
    with role_scope("operator"):
        return ServingBackend.objects.get(id=backend_id).state


def stored(code: str) -> ServingBackend:
    with role_scope("operator"):
        return ServingBackend.objects.get(code=code)


def deployed_on(backend_id: UUID) -> list[str]:
    with role_scope("operator"):
        return list(Deployment.objects.filter(backend_id=backend_id).values_list("upstream_model", flat=True))


def fill(page: Page, opener: str, **values: str) -> Locator:
    """Open the dialog and fill in its form; the reason is the same everywhere."""
    hook(page, opener).first.click()
    dialog = hook(page, "fleet-dialog")
    field(dialog, "reason").fill(WHY)
    for name, value in values.items():
        found = field(dialog, name)
        if found.evaluate("element => element.localName") == "select":
            found.select_option(label=value)
        else:
            found.fill(value)
    return dialog


def send(dialog: Locator) -> None:
    """Send the form; the page behind it is loaded anew."""
    hook(dialog, "fleet-submit").click()
    expect(dialog).to_be_hidden()


def test_an_engine_comes_into_service_and_out_again(
    visits: Visits, backstage: Backstage, engine: RunningEngine, artifacts: Path
) -> None:
    page = visits.open(session=backstage(operator_session))
    model = backstage(make_model)
    pool, backend = unique_name("hall"), unique_name("engine")

    go(page, "backoffice:fleet")
    send(fill(page, "pool-new", code=pool, name="Hall one", accelerator_kind="Xeon 6", region="eu-1"))
    hook(page, "fleet-pool", code=pool).get_by_role("link", name=pool).click()

    expect(hook(page, "cost-empty")).to_be_visible()
    cost = {
        "currency": "USD",
        "accelerators": "4",
        "depreciation_nanos_per_accelerator_hour": "0.30",
        "other_nanos_per_accelerator_hour": "0.05",
        "power_watts": "2.4",
        "pue_thousandths": "1.25",
        "energy_nanos_per_kwh": "0.11",
    }
    # Long enough ago to be in force: nothing was before.
    send(fill(page, "pool-cost", **cost, active_from=EARLIER))
    assert nanos(hook(page, "pool-hour-cost")) == 1_730_000_000

    address = {"engine": "llama.cpp", "base_url": f"{engine.url}/v1", "max_concurrency": "8"}
    dialog = fill(page, "backend-new", code=backend, **address, credential="journey-secret")
    visits.complaints.expect(r"status of 422")
    hook(dialog, "fleet-submit").click()
    expect(dialog.locator(".errors")).to_contain_text("/v1")
    field(dialog, "base_url").fill(engine.url)
    field(dialog, "credential").fill("journey-secret")
    send(dialog)
    hook(page, "fleet-backend", code=backend).get_by_role("link", name=backend).click()
    assert "journey-secret" not in page.content()

    expect(hook(page, "deployments-empty")).to_be_visible()
    send(fill(page, "deployment-new", model_id=model.slug, upstream_model="any-model"))
    expect(hook(page, "deployment-row")).to_contain_text("any-model")
    row = backstage(stored, backend)
    assert backstage(deployed_on, row.id) == ["any-model"]

    hook(page, "backend-probe").click()
    expect(hook(page, "probe-result")).to_be_visible()
    page.screenshot(path=artifacts / "fleet-backend.png", full_page=True)

    dialog = fill(page, "state-drain", confirm=backend)
    page.screenshot(path=artifacts / "fleet-drain.png")
    send(dialog)
    expect(hook(page, "state-enable")).to_be_visible()
    assert backstage(state_of, row.id) == FleetState.DRAINING

    hook(page, "deployment-row").get_by_role("link").click()
    share = {"reserved_ppm": "62.5", "capacity_tokens_per_s": "320"}
    send(fill(page, "capacity-set", **share, active_from=EARLIER))
    expect(hook(page, "capacity-now")).to_contain_text("62.5")
    go(page, "backoffice:fleet")
    expect(hook(page, "fleet-backend", code=backend)).to_contain_text(model.slug)
    page.screenshot(path=artifacts / "fleet.png", full_page=True)
