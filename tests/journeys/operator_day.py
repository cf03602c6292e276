"""The first half of an operator's day: hardware and its cost, what runs on it, and what that costs others."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import httpx2 as httpx
from playwright.sync_api import Page, expect

from devstack.engines.options import DEFAULT_MODEL
from devstack.engines.testing import RunningEngine, sim
from portal.backoffice.prices.forms import next_monday
from portal.backoffice.tests.people import Operator
from portal.kit.clock import utc_now
from tests.database import rows_of
from tests.factories import TenantFixture, unique_name
from tests.gateway_process import RunningGateway, client
from tests.journeys import hooks
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks, go, hook, nanos
from tests.journeys.operating import RELOADED_MS, fill, open_form, send
from tests.journeys.stages import PRICES, cost_nanos
from tests.journeys.story import Told
from tests.journeys.visits import Visits
from tests.journeys.watch import wait_for_models
from tests.people import Person
from tests.waiting import wait_for

SETTLED_WITHIN_S: Final = 20.0
WORKED_OUT_MS: Final = 60_000
EARLIER: Final = f"{utc_now() - timedelta(hours=2):%Y-%m-%dT%H:%M}"
DRAFTED: Final = {"input": "0.25", "cached_input": "0.025", "output": "1.00"}
DRAFTED_NANOS: Final = {"input": 250_000_000, "cached_input": 25_000_000, "output": 10**9}


@dataclass
class Day:
    """One operator's day: who, in which window, with which model and tenants, and what the log must tell."""

    page: Page
    album: Album
    visits: Visits
    backstage: Backstage
    language: str
    operator: Operator
    gateways: list[RunningGateway]
    slug: str
    tenant: TenantFixture
    owner: Person
    other: TenantFixture
    story: list[Told] = field(default_factory=list)
    calls: int = 0

    def tell(self, action: str, reason: str = "", **more: object) -> None:
        self.story.append(Told(action, reason, **more))  # type: ignore[arg-type]


def put_into_service(day: Day, engine: RunningEngine) -> None:
    """A pool with its cost, a backend, a deployment and its capacity."""
    page, why = day.page, "the new hall"
    pool, backend = unique_name("hall"), unique_name("engine")
    go(page, "backoffice:fleet")
    assert_speaks(page, day.language)
    day.album.take(page, "fleet")
    dialog = open_form(page, "pool-new")
    fill(dialog, code=pool, name="Hall one", accelerator_kind="Xeon 6", region="eu-1", reason=why)
    day.album.take(page, "pool-new", full_page=False)
    send(dialog, "fleet-submit")
    day.tell("pool.create", why, after={"code": pool, "accelerator_kind": "Xeon 6"})
    hook(page, "fleet-pool", code=pool).locator("h2 a").click()

    dialog = open_form(page, "pool-cost")
    fill(
        dialog,
        currency="USD",
        accelerators="4",
        depreciation_nanos_per_accelerator_hour="0.30",
        other_nanos_per_accelerator_hour="0.05",
        power_watts="2.4",
        pue_thousandths="1.25",
        energy_nanos_per_kwh="0.11",
        active_from=EARLIER,
        reason=why,
    )
    day.album.take(page, "pool-cost", full_page=False)
    send(dialog, "fleet-submit")
    # 4 × (0.30 + 0.05) and 2.4 kW × 1.25 × 0.11.
    assert nanos(hook(page, "pool-hour-cost")) == 1_730_000_000
    day.tell("pool.cost", why, after={"accelerators": 4, "currency": "USD", "power_watts": 2400})

    dialog = open_form(page, "backend-new")
    fill(dialog, code=backend, engine="vllm", base_url=engine.url, max_concurrency="8", reason=why)
    day.album.take(page, "backend-new", full_page=False)
    send(dialog, "fleet-submit")
    day.tell("backend.create", why, after={"code": backend, "base_url": engine.url, "max_concurrency": 8})
    assert_speaks(page, day.language)
    day.album.take(page, "pool")
    hook(page, "fleet-backend", code=backend).locator("th a").click()

    dialog = open_form(page, "deployment-new")
    fill(dialog, model_id=day.slug, upstream_model=DEFAULT_MODEL, reason=why)
    send(dialog, "fleet-submit")
    day.tell("deployment.create", why, after={"upstream_model": DEFAULT_MODEL})
    hook(page, "backend-probe").click()
    expect(hook(page, "probe-result")).to_be_visible()
    day.album.take(page, "backend")

    hook(page, "deployment-row").locator("a").first.click()
    dialog = open_form(page, "capacity-set")
    fill(dialog, reserved_ppm="62.5", capacity_tokens_per_s="320", active_from=EARLIER, reason=why)
    day.album.take(page, "capacity", full_page=False)
    send(dialog, "fleet-submit")
    expect(hook(page, "capacity-now")).to_contain_text("62.5")
    day.tell("deployment.capacity", why, after={"reserved_ppm": 625_000, "capacity_tokens_per_s": 320})
    assert_speaks(page, day.language)
    day.album.take(page, "deployment")


def serve(day: Day) -> None:
    """What was put into service serves, at both gateways and for both organizations."""
    for tenant, count in ((day.tenant, 3), (day.other, 1)):
        wait_for_models(day.gateways, tenant.key.token, day.slug, SETTLED_WITHIN_S)
        for number in range(count):
            with client(day.gateways[number % 2], tenant.key.token) as asking:
                answer = _ask(asking, day.slug, tokens=100 * (number + 1))
                assert answer.status_code == 200, answer.text
    day.calls = 3
    wait_settled(day.tenant, 3)
    wait_settled(day.other, 1)


def _ask(asking: httpx.Client, slug: str, *, tokens: int) -> httpx.Response:
    content = f"Hello {sim(tokens=tokens, rate=0)}"
    return asking.post(
        "/chat/completions", json={"model": slug, "messages": [{"role": "user", "content": content}]}
    )


def wait_settled(tenant: TenantFixture, calls: int) -> None:
    wait_for(
        lambda: len(rows_of("quotas_usagerecord", tenant_id=tenant.id)) == calls, SETTLED_WITHIN_S, "usage"
    )


def price(day: Day) -> None:
    """Draft a list price, see whom it reaches and how much, and publish it for next Monday."""
    page = day.page
    go(page, "backoffice:prices")
    assert_speaks(page, day.language)
    day.album.take(page, "prices")
    _draft(day, DRAFTED)
    expect(hook(page, "price-not-dearer")).to_be_visible()
    day.album.take(page, "price-draft")

    hook(page, "what-if-run").click()
    section = hook(page, "what-if")
    expect(section).to_have_attribute("data-state", re.compile("WAITING|RUNNING|DONE"))
    day.album.take(page, "what-if-running")
    expect(section).to_have_attribute("data-state", "DONE", timeout=WORKED_OUT_MS)
    day.tell("price.replay")
    differences = {one.public_id: _difference(one) for one in (day.tenant, day.other)}
    assert nanos(hook(page, "what-if-effect")) == sum(differences.values()) < 0
    expect(hook(page, "what-if-row")).to_have_count(2)
    for public_id, difference in differences.items():
        row = hook(page, "what-if-row", organization=public_id)
        assert nanos(row.locator(".delta")) == difference
    assert_speaks(page, day.language)
    day.album.take(page, "what-if")

    monday, why = next_monday(utc_now() + timedelta(minutes=10), "UTC"), "hardware got cheaper"
    dialog = open_form(page, "price-publish")
    assert hooks.field(dialog, "date").input_value() == f"{monday:%Y-%m-%d}"
    assert hooks.field(dialog, "time").input_value() == "00:00"
    assert nanos(hook(dialog, "plan-effect")) == sum(differences.values())
    fill(dialog, reason=why)
    day.album.take(page, "publish", full_page=False)
    send(dialog, "publish-submit")
    expect(hook(page, "price-state")).to_have_attribute("data-state", "SCHEDULED")
    moment = hook(page, "price-from").locator("time").get_attribute("datetime") or ""
    assert datetime.fromisoformat(moment) == monday
    day.tell(
        "price.publish",
        why,
        before={"state": "DRAFT"},
        after={"active_from": monday.isoformat(), "affected": 2, "told": 0},
    )
    day.album.take(page, "price-scheduled")


def _draft(day: Day, prices: dict[str, str], organization: str = "") -> None:
    """A draft that begins as a copy of what is in force, with other prices."""
    page = day.page
    dialog = open_form(page, "price-new")
    fill(dialog, model=day.slug, currency="USD", organization=organization, begins="copy")
    day.album.take(page, "price-new", full_page=False)
    hook(dialog, "price-new-submit").click()
    expect(hook(page, "price-editor")).to_be_visible(timeout=RELOADED_MS)
    day.tell("price.draft", after={"model": day.slug, "currency": "USD"})
    for row in hook(page, "line-row").all():
        token_class = row.locator("select").first.input_value()
        hook(row, "line-price").fill(prices[token_class])
    day.album.take(page, "price-edit")
    hook(page, "editor-save").click()
    expect(hook(page, "price-state")).to_have_attribute("data-state", "DRAFT", timeout=RELOADED_MS)
    day.tell("price.edit")


def _difference(tenant: TenantFixture) -> int:
    """How much less the calls of an organization cost with the draft, in nano-units."""
    total = 0
    for row in rows_of("quotas_usagerecord", tenant_id=tenant.id):
        prompt, completion, cached = (
            int(str(row[name] or 0)) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
        )
        total += cost_nanos(prompt, completion, cached=cached, prices=DRAFTED_NANOS)
        total -= cost_nanos(prompt, completion, cached=cached, prices=PRICES)
    return total


def give_a_private_price(day: Day) -> None:
    page, why = day.page, "a committed buyer"
    go(page, "backoffice:prices")
    _draft(day, {**DRAFTED, "output": "0.75"}, day.tenant.public_id)
    dialog = open_form(page, "price-publish")
    fill(dialog, reason=why)
    day.album.take(page, "publish-private", full_page=False)
    send(dialog, "publish-submit")
    expect(hook(page, "price-state")).to_have_attribute("data-state", "SCHEDULED")
    day.tell("price.publish", why, before={"state": "DRAFT"}, after={"affected": 1})
    page.goto(f"/operator/prices?organization={day.tenant.public_id}")
    rows = hook(page, "price-row", slug=day.slug, state="SCHEDULED")
    expect(rows.filter(has=page.locator(f'a[href*="{day.tenant.public_id}"]'))).to_have_count(1)
    day.album.take(page, "prices-of-the-tenant")
