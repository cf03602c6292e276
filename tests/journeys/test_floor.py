"""An operator looks at the factory floor while calls stream: the bar fills, and the money follows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from playwright.sync_api import Page, expect

from devstack.engines.testing import RunningEngine, sim, start_engine
from models_catalog.models import CatalogModel, Deployment
from portal.backoffice.floor.tests.halls import Hall, make_hall
from portal.backoffice.tests.people import make_operator, signed_in_operator
from portal.kit.clock import utc_now
from quotas.business.operations import allocate_hour
from quotas.business.tests.centre import Call, Try, make
from tenants.scope import role_scope
from tests.factories import TenantFixture, enable, make_tenant, unique_name
from tests.gateway_process import RunningGateway, client
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import go, hook, nanos
from tests.journeys.visits import Visits

LIVE_WITHIN_MS = 20_000
MAX_ON_ONE_SCREEN = 8


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with start_engine("vllm", tokens_per_s=0, model="upstream") as running:
        yield running


def make_operator_session() -> str:
    return signed_in_operator(make_operator()).cookies[settings.SESSION_COOKIE_NAME].value


def make_customer(halls: list[Hall]) -> TenantFixture:
    tenant = make_tenant(granted=None, paid="5.00")
    for hall in halls:
        enable(tenant, hall.model)
    return tenant


def sell(hall: Hall, tenant: TenantFixture, *, ago: timedelta) -> None:
    """A call a while ago, in an hour that is allocated: it says what a weighted token earns."""
    with role_scope("operator"):
        model = CatalogModel.objects.get(id=hall.model.id)
        deployment = Deployment.objects.get(id=hall.model.deployment_id)
    at = utc_now() - ago
    make(Call(at, tenant, model, (Try(deployment, 2_000, 900),), 2_000, 900))
    assert allocate_hour(hour=_hour_of(at), now=utc_now())


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def end_session(key: str) -> None:
    SessionStore(key).delete()


def say(gateway: RunningGateway, tenant: TenantFixture, hall: Hall, tokens: int, rate: int) -> int:
    """Stream one answer to its end; how much of it came."""
    body = {
        "model": hall.model.slug,
        "messages": [{"role": "user", "content": sim(tokens=tokens, rate=rate, prompt=300, cached=100)}],
        "max_tokens": tokens,
        "stream": True,
    }
    with (
        client(gateway, tenant.key.token) as http,
        http.stream("POST", "/chat/completions", json=body) as answer,
    ):
        assert answer.status_code == 200
        return sum(1 for line in answer.iter_lines() if line.startswith("data: {"))


def fits(page: Page) -> bool:
    return bool(
        page.evaluate("() => document.documentElement.scrollHeight <= document.documentElement.clientHeight")
    )


def test_the_bar_fills_while_calls_stream(
    visits: Visits, backstage: Backstage, gateway: RunningGateway, engine: RunningEngine, artifacts: Path
) -> None:
    session = backstage(make_operator_session)
    nvidia = backstage(make_hall, engine.url, code=unique_name("a-nvidia"), capacity_tokens_per_s=600)
    ascend = backstage(make_hall, engine.url, code=unique_name("b-ascend"), depreciation_nanos=310_000_000)
    xeon = backstage(make_hall, engine.url, code=unique_name("c-xeon"), is_complete=False)
    tenant = backstage(make_customer, [nvidia, ascend, xeon])
    for hall in (nvidia, ascend):
        # Lately: what was read of earlier minutes is remembered, and other tests have looked at the floor.
        backstage(sell, hall, tenant, ago=timedelta(seconds=20))

    page = visits.open(session=session)
    with ThreadPoolExecutor(4, thread_name_prefix="customer") as customers:
        calls = [customers.submit(say, gateway, tenant, nvidia, 900, 50) for _ in range(2)]
        calls.append(customers.submit(say, gateway, tenant, ascend, 900, 50))
        calls.append(customers.submit(say, gateway, tenant, xeon, 600, 50))
        go(page, "backoffice:floor")
        state = hook(page, "floor-state")
        expect(state).to_have_attribute("data-state", "live")
        row = hook(page, "floor-pool").and_(page.locator(f'[data-pool="{nvidia.pool_id}"]'))
        expect(hook(row, "floor-calls")).to_have_text("2", timeout=LIVE_WITHIN_MS)
        # Two calls of 50 tokens a second that weigh four each, of 600.
        expect(hook(row, "floor-share")).to_have_text(re.compile(r"^[67]\d\.\d$"), timeout=LIVE_WITHIN_MS)
        width = float(row.locator("[data-fill]").get_attribute("width") or 0)
        assert 60 <= width < 80
        # Nothing of it is announced: the only words in a live region are those of the connection.
        assert page.locator("#floor [aria-live], #floor [role=status], #floor [role=alert]").count() == 0
        bare = page.locator(f'[data-pool="{xeon.pool_id}"]')
        expect(bare.locator('[data-note="no_cost"]')).to_be_visible()
        expect(hook(bare, "floor-now")).to_have_text("–")
        if hook(page, "floor-pool").count() <= MAX_ON_ONE_SCREEN:
            assert fits(page)
        page.screenshot(path=artifacts / "floor-light.png")
        dark = visits.open(session=session, theme="dark")
        go(dark, "backoffice:floor")
        expect(hook(dark, "floor-state")).to_have_attribute("data-state", "live")
        dark.screenshot(path=artifacts / "floor-dark.png")
        dark.close()
        assert all(call.result(60) for call in calls)

    expect(hook(row, "floor-calls")).to_have_text("0", timeout=LIVE_WITHIN_MS)
    expect(hook(row, "floor-now")).to_have_text("0.0", timeout=LIVE_WITHIN_MS)
    # Sold before, and two calls just now; what is cached costs as much as other input.
    sold, streamed = 2_000 * 1_000 + 900 * 2_000, 2 * (300 * 1_000 + 900 * 2_000)
    expect(hook(row, "floor-earned").locator("data")).to_have_attribute(
        "value", str(sold + streamed), timeout=LIVE_WITHIN_MS
    )
    assert nanos(hook(row, "floor-margin")) == sold + streamed - nvidia.cost_nanos_per_hour

    hook(page, "floor-pause").click()
    expect(state).to_have_attribute("data-state", "paused")
    hook(page, "floor-pause").click()
    expect(state).to_have_attribute("data-state", "live")

    backstage(end_session, session)
    expect(state).to_have_attribute("data-state", "stopped", timeout=LIVE_WITHIN_MS)
    expect(hook(page, "floor-signed-out")).to_be_visible()
    page.screenshot(path=artifacts / "floor-stopped.png")


def test_a_tab_that_nobody_sees_asks_for_nothing(visits: Visits, backstage: Backstage) -> None:
    page = visits.open(session=backstage(make_operator_session))
    go(page, "backoffice:floor")
    state = hook(page, "floor-state")
    expect(state).to_have_attribute("data-state", "live")
    # And it goes on when it is seen again.
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    page.evaluate(f"{hide} document.dispatchEvent(new Event('visibilitychange')); }}", True)
    said = hook(page, "floor-at").get_attribute("datetime")
    page.wait_for_timeout(2_500)
    assert hook(page, "floor-at").get_attribute("datetime") == said
    page.evaluate(f"{hide} document.dispatchEvent(new Event('visibilitychange')); }}", False)
    expect(hook(page, "floor-at")).not_to_have_attribute("datetime", said or "")
    expect(state).to_have_attribute("data-state", "live")
