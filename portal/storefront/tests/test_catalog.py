"""The catalog as a visitor finds it: words, filters, orders, pages, and what must never show."""

from __future__ import annotations

import re

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from models_catalog.models import CatalogModel
from portal.kit.clock import utc_now
from portal.storefront import pages
from portal.storefront.figures import service_figures
from portal.storefront.tests.shops import DOLLAR, list_model, page_of, slugs_in, speaking, text_in
from tenants.models import Role
from tenants.scope import role_scope
from tests.factories import make_price, make_tenant, unique_name
from tests.people import make_member, signed_in

pytestmark = pytest.mark.usefixtures("database")

FRAGMENT = {"HX-Request": "true", "HX-Target": "catalog-results"}


@pytest.fixture
def vendor() -> str:
    return unique_name("shop")


def found(vendor: str, **query: object) -> list[str]:
    return slugs_in(page_of(Client(), "/models", {"vendor": vendor, **query}))


def test_chinese_descriptions_are_found_by_their_words(vendor: str) -> None:
    light = list_model(vendor, "light", description="适合中文客服的轻量模型")
    list_model(vendor, "other", description="A model for code.")
    for word in ("客服", "轻", "中文 模型"):
        assert found(vendor, q=word) == [light], word
    assert found(vendor, q="诗") == []
    page = page_of(Client(), "/models", {"vendor": vendor, "q": "诗"})
    assert 'data-testid="catalog-empty"' in page
    assert "Clear filters" in page


def test_filters_narrow_down_and_stand_in_the_address(vendor: str) -> None:
    cheap = list_model(
        vendor, "cheap", display_name="A", prices={"input": DOLLAR // 10, "output": DOLLAR},
        capabilities=["tools"], context_tokens=16_000,
    )  # fmt: skip
    dear = list_model(
        vendor, "dear", display_name="B", prices={"input": 3 * DOLLAR, "output": DOLLAR},
        capabilities=["tools", "vision"], context_tokens=200_000,
    )  # fmt: skip
    assert found(vendor) == [cheap, dear]
    assert found(vendor, capability=["tools", "vision"]) == [dear]
    assert found(vendor, min_context="128000") == [dear]
    assert found(vendor, max_price="0.10") == [cheap]
    assert found(vendor, max_price="0,099") == []
    assert found(vendor, sort="context") == [dear, cheap]
    assert found(vendor, sort="input_price") == [cheap, dear]
    assert found("nobody") == []
    page = page_of(Client(), "/models", {"vendor": vendor, "capability": "vision", "max_price": "3"})
    assert re.search(r'name="capability" value="vision" checked', page)
    assert re.search(rf'name="vendor" value="{vendor}" checked', page)
    assert 'name="max_price" inputmode="decimal" value="3"' in page
    assert "1 model found" in text_in(page)


def test_nonsense_in_the_address_is_left_aside(vendor: str) -> None:
    slug = list_model(vendor, "m")
    for query in (
        {"min_context": "many"},
        {"min_context": "-1"},
        {"min_context": "9" * 30},
        {"sort": "'; DROP TABLE x --"},
        {"currency": "XAU"},
        {"currency": "\0"},
        {"after": "\0"},
        {"after": "no/such-model"},
        {"capability": "\0"},
    ):
        assert found(vendor, **query) == [slug], query
    page = page_of(Client(), "/models", {"vendor": vendor, "max_price": "1e9"})
    assert slugs_in(page) == [slug]
    assert "not an amount" in page
    assert 'aria-invalid="true"' in page


@pytest.mark.parametrize(
    "words",
    ["'", "%", "_", "\\", '"><script>alert(1)</script>', "\0", "客" * 5_000, "a' OR '1'='1", "x " * 5_000],
)
def test_hostile_words_are_only_words(vendor: str, words: str) -> None:
    list_model(vendor, "plain", description="nothing special")
    page = page_of(Client(), "/models", {"vendor": vendor, "q": words, "capability": "<b>", "after": "'"})
    assert "<script>alert" not in page
    assert "<b>" not in page


def test_names_and_descriptions_are_shown_as_text(vendor: str) -> None:
    slug = list_model(
        vendor, "x", display_name="<img src=x onerror=alert(1)>",
        description="<script>alert(2)</script>\u202e", capabilities=["odd_one"],
    )  # fmt: skip
    for page in (page_of(Client(), "/models", {"vendor": vendor}), page_of(Client(), f"/models/{slug}")):
        assert "<img" not in page
        assert "<script>" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "odd one" in page


def test_prices_are_in_the_currency_of_the_reader(vendor: str) -> None:
    slug = list_model(vendor, "m", prices={"input": 111_000_000, "output": DOLLAR})
    with role_scope("operator"):
        model_id = CatalogModel.objects.get(slug=slug).id
    make_price(model_id, currency="CNY", prices={"input": 777_000_000, "output": 7 * DOLLAR})
    dollars, yuan = 'value="111000000"', 'value="777000000"'
    english = page_of(Client(), "/models", {"vendor": vendor})
    assert dollars in english
    assert yuan not in english
    assert yuan in page_of(speaking("zh-hans"), "/models", {"vendor": vendor})
    assert yuan in page_of(Client(), "/models", {"vendor": vendor, "currency": "CNY"})
    assert dollars in page_of(speaking("zh-hans"), "/models", {"vendor": vendor, "currency": "USD"})
    # Whoever is signed in can pay in the organization's currency only.
    member = signed_in(make_member(make_tenant("CNY"), Role.VIEWER))
    assert yuan in page_of(member, "/models", {"vendor": vendor})
    alone = list_model(vendor, "alone")
    page = page_of(Client(), "/models", {"vendor": vendor, "currency": "CNY"})
    assert alone in slugs_in(page)
    assert "No price in CNY" in page


def test_prices_of_organizations_are_nobody_elses_business(vendor: str) -> None:
    slug = list_model(vendor, "m")
    tenant = make_tenant()
    with role_scope("operator"):
        model_id = CatalogModel.objects.get(slug=slug).id
    make_price(model_id, prices={"input": 123_450_000, "output": DOLLAR}, tenant_id=tenant.id)
    member = signed_in(make_member(tenant, Role.OWNER))
    stranger = signed_in(make_member(make_tenant(), Role.OWNER))
    for client in (Client(), stranger, member):
        for path in ("/", "/models", f"/models/{slug}"):
            assert "123450000" not in page_of(client, path, {"vendor": vendor})
    # A price of one's own is named, and shown in the console.
    assert "a price of its own" in page_of(member, f"/models/{slug}")
    assert "a price of its own" not in page_of(stranger, f"/models/{slug}")


def test_htmx_gets_results_count_facets_and_a_short_address(vendor: str) -> None:
    slug = list_model(vendor, "m", capabilities=["tools"])
    query = {"vendor": vendor, "q": "", "min_context": "", "max_price": "", "sort": ""}
    response = Client().get("/models", query, headers=FRAGMENT)
    text = response.content.decode()
    assert "<html" not in text
    assert slugs_in(text) == [slug]
    assert 'id="catalog-count" hx-swap-oob="innerHTML"' in text
    assert 'id="catalog-facets" hx-swap-oob="true"' in text
    assert response["HX-Push-Url"] == f"/models?vendor={vendor}"
    assert "HX-Request" in response["Vary"]
    back = Client().get("/models", query, headers={**FRAGMENT, "HX-History-Restore-Request": "true"})
    assert "<html" in back.content.decode()


def test_pages_follow_each_other(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_SIZE", 2)
    made = [list_model(vendor, f"m{number}", display_name=f"M{number}") for number in range(5)]
    client, address, seen = Client(), f"/models?vendor={vendor}&sort=name", []
    while address:
        page = page_of(client, address)
        seen += slugs_in(page)
        assert "5 models" in text_in(page)
        link = re.search(r'rel="next" href="([^"]+)"', page)
        address = link.group(1).replace("&amp;", "&") if link else ""
    assert seen == made
    assert "First page" in page


def queries_of(client: Client, path: str) -> tuple[int, int, int]:
    """How many queries a page makes as the sign-in's role, as the operator and as the tenant."""
    with (
        CaptureQueriesContext(connections["default"]) as own,
        CaptureQueriesContext(connections["operator"]) as crossing,
        CaptureQueriesContext(connections["tenant"]) as tenant,
    ):
        page_of(client, path)
    return len(own), len(crossing), len(tenant)


def test_pages_ask_the_database_a_few_times_however_many_models(vendor: str) -> None:
    slug = list_model(vendor, "m0")
    list_model(vendor, "m1")
    service_figures(now=utc_now())
    paths = ("/", f"/models?vendor={vendor}", f"/models/{slug}")
    few = [queries_of(Client(), path) for path in paths]
    for number in range(6):
        list_model(vendor, f"n{number}")
    service_figures(now=utc_now())
    many = [queries_of(Client(), path) for path in paths]
    assert many == few
    assert [crossing for _, crossing, _ in many] == [0, 0, 0]
    assert [tenant for _, _, tenant in many] == [0, 0, 0]
    assert max(own for own, _, _ in many) <= 12, many
    member = signed_in(make_member(make_tenant(), Role.OWNER))
    for path in paths:
        own, crossing, tenant = queries_of(member, path)
        assert own + crossing + tenant <= 32, (path, own, crossing, tenant)


def test_the_address_answers_reading_only(vendor: str) -> None:
    slug = list_model(vendor, "m")
    for path in ("/", "/models", f"/models/{slug}", "/robots.txt"):
        assert Client().post(path).status_code == 405, path
        assert Client().head(path).status_code == 200, path
