"""The catalog as an organization sees it, and picking from it."""

from __future__ import annotations

from html import unescape

import pytest

from models_catalog import operations as catalog_operations
from portal.console.tests.people import HTMX, Stage, open_stage, text_of
from portal.console.tests.test_keys import give_model, make_key
from portal.kit.ids import PREFIXES, parse_public_id
from tenants.models import Role
from tenants.scope import role_scope
from tests.factories import make_model, make_price


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def test_a_model_is_enabled_with_one_click(stage: Stage) -> None:
    slug = make_model().slug
    page = text_of(stage.get("models", query={"q": slug}))
    assert f'data-slug="{slug}" data-enabled="false"' in page
    row = stage.post("model-enable", slug, htmx=True)
    assert row.status_code == 200
    assert text_of(row).strip().startswith("<tr")
    assert f'data-slug="{slug}" data-enabled="true"' in text_of(row)
    assert "is enabled" in row["HX-Trigger"]
    again = stage.post("model-enable", slug)
    assert again.status_code == 302
    only = text_of(stage.get("models", query={"enabled": "1"}))
    assert only.count('data-testid="model-row"') == 1


def test_disabling_says_what_stops(stage: Stage) -> None:
    slug = give_model(stage)
    key = make_key(stage, "night & day")
    with role_scope("operator"):
        catalog_operations.restrict_api_key(
            tenant_id=stage.tenant_id, key_id=parse_public_id(PREFIXES["api_key"], key), slugs=[slug]
        )
    question = stage.get("model-disable", slug, headers=HTMX)
    assert "<html" not in text_of(question)
    assert "night &amp; day" in text_of(question)
    assert "is refused" in text_of(question)
    assert stage.post("model-disable", slug, htmx=True)["HX-Refresh"] == "true"
    page = text_of(stage.get("models", query={"q": slug}))
    assert 'data-enabled="false"' in page
    assert "is disabled" in page
    # Whoever comes too late is told how things are.
    assert stage.post("model-disable", slug).status_code == 302


def test_prices_are_those_of_the_organization(stage: Stage) -> None:
    model = make_model()
    make_price(model.id, prices={"input": 123_450_000, "output": 10**9}, tenant_id=stage.tenant_id)
    own = text_of(stage.get("models", query={"q": model.slug}))
    assert 'value="123450000"' in own
    assert "Your price" in own
    others = text_of(open_stage().get("models", query={"q": model.slug}))
    assert 'value="123450000"' not in others
    assert 'value="1000000000"' in others


def test_a_model_without_a_price_in_the_currency_says_so(stage: Stage) -> None:
    model = make_model(currency="CNY")
    assert "No price in USD" in text_of(stage.get("models", query={"q": model.slug}))


def test_filters_are_in_the_address_and_nothing_found_is_said(stage: Stage) -> None:
    slug = give_model(stage)
    other = give_model(stage)
    found = text_of(stage.get("models", query={"enabled": "1", "q": slug}))
    assert f'data-slug="{slug}"' in found
    assert f'data-slug="{other}"' not in found
    rows = stage.get("models", query={"q": "zzqqxxyy" * 3}, headers={**HTMX, "HX-Target": "model-rows"})
    assert "<html" not in text_of(rows)
    assert "No model matches" in text_of(rows)


@pytest.mark.parametrize("slug", ["nobody/nothing", "x", "nobody/\0", "a/b/c"])
def test_models_that_are_not_on_offer_do_not_exist(stage: Stage, slug: str) -> None:
    for answer in (
        stage.post("model-enable", slug),
        stage.get("model-disable", slug),
        stage.post("model-disable", slug),
    ):
        assert answer.status_code == 404


def test_who_may_not_enable_sees_no_button(stage: Stage) -> None:
    slug = make_model().slug
    viewer = stage.as_role(Role.VIEWER)
    page = unescape(text_of(viewer.get("models", query={"q": slug})))
    assert f'data-slug="{slug}"' in page
    assert "model-enable" not in page
    assert viewer.post("model-enable", slug).status_code == 403
    assert viewer.post("model-enable", slug, htmx=True).status_code == 403
