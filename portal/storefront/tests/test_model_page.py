"""A model's page: its tariff to the last line, samples that run, what its reader may do, and 404."""

from __future__ import annotations

import ast
import re
import subprocess
from datetime import timedelta
from html import unescape

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client

from models_catalog.models import CatalogModel, ModelState, PriceVersion
from models_catalog.tests.price_drafts import Line, make_draft
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.storefront import figures
from portal.storefront.figures import Figures
from portal.storefront.tests.shops import DOLLAR, list_model, page_of, text_in
from quotas.metering.queries import ModelSpeed
from tenants.models import Role
from tenants.scope import role_scope
from tests.factories import make_price, make_tenant, unique_name
from tests.people import add_member, make_member, make_person, signed_in

pytestmark = pytest.mark.usefixtures("database")

WEEK_MINUTES = 7 * 1440
ROW = re.compile(r'<tr data-testid="model-price".*?</tr>', re.DOTALL)


@pytest.fixture
def vendor() -> str:
    return unique_name("shop")


def sample(page: str, name: str) -> str:
    found = re.search(rf'data-testid="sample-{name}">(.*?)</code>', page, re.DOTALL)
    assert found
    return unescape(found.group(1))


def publish(slug: str, lines: list[Line], **fields: object) -> None:
    with role_scope("operator"):
        model = CatalogModel.objects.get(slug=slug)
        draft = make_draft(lines, model=model, **fields)  # type: ignore[arg-type]
        PriceVersion.objects.filter(id=draft.version_id).update(published_at=utc_now())


def test_every_line_of_the_tariff_is_shown(vendor: str) -> None:
    slug = list_model(vendor, "m", prices=None)
    lines = [
        Line("input", 3_000, end=128_000),
        Line("input", 6_000, start=128_000),
        Line("input", 1_500, window="open", end=128_000),
        Line("output", 9_000),
        Line("output", 7_000, window="closed"),
        Line("request", 11_000),
        Line("input", 2_000, tier="batch"),
        Line("output", 4_000, tier="batch"),
    ]
    # One window is open at all times but the last minute of the week, when the other one is.
    spans = [("open", 0, WEEK_MINUTES - 1), ("closed", WEEK_MINUTES - 1, WEEK_MINUTES)]
    publish(slug, lines, spans=spans, time_zone="Asia/Shanghai")
    page = page_of(Client(), f"/models/{slug}")
    rows = [text_in(row) for row in ROW.findall(page)]
    # A column has the same precision all the way.
    assert rows == [
        "Input Up to 127,999 tokens At other times $0.0000030",
        "Input Up to 127,999 tokens open now $0.0000015",
        "Input From 128,000 tokens At other times now $0.0000060",
        "Output Any length At other times now $0.0000090",
        "Output Any length closed $0.0000070",
        "Request Any length At all times now $0.0000110 per 1M requests",
        "Input $0.0000020",
        "Output $0.0000040",
    ]
    text = text_in(page)
    assert "Asia/Shanghai" in text
    assert "open open now" in text
    assert "Sun 23:59–24:00" in text
    assert "Batch" in text
    assert "No change is published" in text


def test_the_next_published_change_is_announced(vendor: str) -> None:
    slug = list_model(vendor, "m", prices=None)
    change_at = utc_now() + timedelta(days=3)
    publish(slug, [Line("input", 3 * DOLLAR), Line("output", DOLLAR)], active_to=change_at)
    ends = text_in(page_of(Client(), f"/models/{slug}"))
    assert "has no price in USD any more" in ends
    publish(slug, [Line("input", 2 * DOLLAR), Line("output", DOLLAR)], active_from=change_at)
    page = page_of(Client(), f"/models/{slug}")
    change = text_in(page[page.index('data-testid="model-change"') :])
    assert f'datetime="{change_at:%Y-%m-%dT%H:%M}' in page
    assert "Input $3.00 → becomes $2.00" in change
    assert "Output $1.00" not in change


def test_limits_and_what_was_not_measured_are_said(vendor: str) -> None:
    slug = list_model(
        vendor, "m", context_tokens=131_072, max_output_tokens=8_192, default_output_cap_tokens=2_048,
        capabilities=["tools"],
    )  # fmt: skip
    text = text_in(page_of(Client(), f"/models/{slug}"))
    for said in ("131,072 tokens", "8,192 tokens", "2,048 tokens", "Calls functions", "Not enough data yet"):
        assert said in text


def test_the_measured_speed_is_shown(vendor: str) -> None:
    slug = list_model(vendor, "m")
    speed = ModelSpeed(uuid7(), slug, 1_234, 310, 41.6)
    cache.set(figures.KEY, figures._write(Figures(utc_now(), speeds={slug: speed})), 60)
    try:
        text = text_in(page_of(Client(), f"/models/{slug}"))
        row = text_in(page_of(Client(), "/models", {"vendor": vendor}))
    finally:
        cache.delete(figures.KEY)
    assert "First token, median 310 ms" in text
    assert "Output, median 42 tokens/s" in text
    assert "Of 1,234 answers in the last 7 days." in text
    assert "$2.00 310 42" in row


def test_samples_name_the_address_and_the_model_and_are_well_formed(vendor: str) -> None:
    slug = list_model(vendor, "m")
    page = page_of(Client(), f"/models/{slug}")
    curl, python, javascript = (sample(page, name) for name in ("curl", "python", "javascript"))
    for text in (curl, python, javascript):
        assert settings.API_BASE in text
        assert slug in text
        assert "API_KEY" in text
    assert '"Authorization: Bearer $API_KEY"' in curl
    ast.parse(python)
    # The shell reads it as one command whose last word is the body.
    printed = subprocess.run(
        ["/bin/sh", "-c", curl.replace("curl ", "printf '%s\\n' ", 1)],
        capture_output=True, text=True, check=True, timeout=10, env={"API_KEY": "sk-test"},
    ).stdout.splitlines()  # fmt: skip
    assert printed[0] == f"{settings.API_BASE}/chat/completions"
    assert printed[2] == "Authorization: Bearer sk-test"
    assert ast.literal_eval(printed[-1])["model"] == slug


def test_a_model_sold_in_one_currency_is_shown_in_it(vendor: str) -> None:
    slug = list_model(vendor, "m", currency="CNY", prices={"input": 7 * DOLLAR, "output": 7 * DOLLAR})
    page = page_of(Client(), f"/models/{slug}")
    assert "¥7.00" in page
    assert "There is no list price in USD" in page_of(Client(), f"/models/{slug}", {"currency": "USD"})
    with role_scope("operator"):
        model_id = CatalogModel.objects.get(slug=slug).id
    make_price(model_id, prices={"input": DOLLAR, "output": DOLLAR})
    both = page_of(Client(), f"/models/{slug}", {"currency": "CNY"})
    assert "¥7.00" in both
    assert '?currency=USD"' in both
    assert "$1.00" in page_of(Client(), f"/models/{slug}")


def test_models_that_are_not_on_offer_are_404_with_what_is_like_them(vendor: str) -> None:
    slug = list_model(vendor, "falcon-mini", display_name="Falcon Mini")
    gone = list_model(vendor, "falcon-old")
    with role_scope("operator"):
        CatalogModel.objects.filter(slug=gone).update(state=ModelState.RETIRED)
    for path in (f"{vendor}/falcon-minni", gone):
        missing = Client().get(f"/models/{path}")
        assert missing.status_code == 404
        text = missing.content.decode()
        assert f'href="/models/{slug}"' in text
        assert 'data-status="404"' in text
    for path in ("nothing", "x" * 300, "%00", "a/%00", "..%2E", "'%20OR%201=1--", "%F0%9F%92%A7", "a//b"):
        assert Client().get(f"/models/{path}").status_code == 404, path
    hostile = Client().get("/models/<script>alert(1)</script>")
    assert hostile.status_code == 404
    assert "<script>alert" not in hostile.content.decode()


def test_what_a_reader_may_do_depends_on_who_reads(vendor: str) -> None:
    slug = list_model(vendor, "m")
    path = f"/models/{slug}"
    visitor = page_of(Client(), path)
    assert f"/accounts/signup/?next=/models/{vendor}/m" in visitor
    assert 'data-testid="model-enable"' not in visitor

    tenant = make_tenant()
    viewer = page_of(signed_in(make_member(tenant, Role.VIEWER)), path)
    assert 'data-testid="model-enable"' not in viewer
    assert 'data-testid="model-try"' not in viewer

    owner = make_member(tenant, Role.OWNER)
    browser = signed_in(owner)
    page = page_of(browser, path)
    action = re.search(r'<form method="post" action="([^"]+/enable)"', page)
    assert action
    assert browser.post(action.group(1)).status_code == 302
    page = page_of(browser, path)
    assert 'data-testid="model-enable"' not in page
    assert f"/o/{tenant.public_id}/playground/?model={vendor}%2Fm" in page
    assert "Enabled for" in page

    other = make_tenant()
    add_member(other, owner, Role.ADMIN)
    # The organization used last is the one that is meant.
    assert browser.get(f"/o/{tenant.public_id}/models/").status_code == 200
    assert f"/o/{other.public_id}/models/?q={vendor}%2Fm" in page_of(browser, path)
    assert "Open an organization" in page_of(signed_in(make_person()), path)
