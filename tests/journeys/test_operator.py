"""An operator's day, in both languages: hardware, price, a tenant in trouble, credit, and the trail of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from devstack.engines.testing import RunningEngine, start_engine
from portal.backoffice.tests.people import make_operator
from tests.celery_process import RunningCelery, running_celery
from tests.database import rows_of
from tests.gateway_process import RunningGateway, running_gateway
from tests.journeys import hooks
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks, go, hook
from tests.journeys.operating import sign_in
from tests.journeys.operator_day import Day, give_a_private_price, price, put_into_service, serve
from tests.journeys.operator_people import (
    approve,
    assign_after_the_session_ended,
    limit,
    make_tier,
    order_credit,
    see_credit,
    see_limits,
    suspend_and_resume,
)
from tests.journeys.stages import make_buyer, make_shelf_model
from tests.journeys.story import assert_story, read_story
from tests.journeys.visits import LANGUAGES, Visits


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with start_engine("vllm", tokens_per_s=0) as running:
        yield running


@pytest.fixture(scope="module")
def gateways(
    gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[RunningGateway]]:
    """The shared gateway and another process beside it."""
    with running_gateway(tmp_path_factory.mktemp("second-gateway")) as second:
        yield [gateway, second]


@pytest.fixture(scope="module")
def worker(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCelery]:
    """Works the what-if out when the page asks for it."""
    with running_celery(tmp_path_factory.mktemp("worker")) as running:
        yield running


@pytest.mark.timeout(420)
@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_operators_day(
    language: str,
    visits: Visits,
    backstage: Backstage,
    gateways: list[RunningGateway],
    engine: RunningEngine,
    artifacts: Path,
) -> None:
    _, slug = backstage(make_shelf_model)
    tenant, owner = backstage(make_buyer, slug)
    other, _ = backstage(make_buyer, slug)
    day = Day(
        page=visits.open(language=language),
        album=Album(artifacts / f"journey-operator-{language}"),
        visits=visits,
        backstage=backstage,
        language=language,
        operator=backstage(make_operator),
        gateways=gateways,
        slug=slug,
        tenant=tenant,
        owner=owner,
        other=other,
    )
    sign_in(day.page, day.operator)
    assert_speaks(day.page, language)
    day.album.take(day.page, "home")
    put_into_service(day, engine)
    serve(day)
    price(day)
    give_a_private_price(day)
    suspend_and_resume(day)
    before_nanos, order = order_credit(day)
    approve(day, order)
    see_credit(day, before_nanos)
    tier = make_tier(day)
    assign_after_the_session_ended(day, tier)
    limit(day)
    see_limits(day, tier)
    _read_the_log(day)


def _read_the_log(day: Day) -> None:
    """It tells the whole story in order, of the operator and of the tenant."""
    page, actor_id = day.page, day.operator.person.id
    stored = sorted(rows_of("tenants_auditevent", actor_id=actor_id), key=lambda row: str(row["id"]))
    assert_story(stored, day.story)
    go(page, "backoffice:audit")
    hooks.field(page, "actor").fill(day.operator.person.email)
    hooks.field(page, "actor").press("Enter")
    expect(hook(page, "audit-event")).to_have_count(len(day.story))
    assert_speaks(page, day.language)
    day.album.take(page, "audit-of-the-operator")
    nothing = "\N{EN DASH}"
    assert read_story(page) == [(one.action, one.outcome, one.reason or nothing) for one in day.story]
    suspended = hook(page, "audit-event", action="tenant.suspend")
    change = hook(suspended, "audit-change").filter(has=page.locator("del"))
    expect(change.locator("del")).to_contain_text("ACTIVE")
    expect(change.locator("ins")).to_contain_text("SUSPENDED")

    go(page, "backoffice:tenant", day.tenant.public_id)
    hook(page, "tenant-audit").click()
    expect(page).to_have_url(re.compile("organization="))
    theirs = [
        "price.draft",
        "price.edit",
        "price.publish",
        "tenant.suspend",
        "tenant.resume",
        "credit.order",
        "credit.order",
        "credit.approve",
        "credit.approve",
        "operator.tenant_tier",
        "tier.assign",
        "limit.set",
    ]
    assert [action for action, _, _ in read_story(page)] == theirs
    day.album.take(page, "audit-of-the-tenant")
