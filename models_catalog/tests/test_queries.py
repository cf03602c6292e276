"""The catalog as visitors and organizations see it: search, facets, prices now and to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from models_catalog import operations
from models_catalog.models import CatalogModel, ModelState, PriceVersion
from models_catalog.queries import (
    DailyTimes,
    Facet,
    ModelList,
    ModelNotFound,
    WeekSpan,
    Window,
    enabled_models,
    list_models,
    model_page,
)
from models_catalog.tests.price_drafts import Line, make_draft
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants.operations import KeyNotFound
from tenants.scope import ScopeMissing, role_scope, tenant_scope
from tests.factories import issue_key, make_model, make_price, make_tenant, unique_name

pytestmark = pytest.mark.usefixtures("database")

DOLLAR = 10**9
DAY = timedelta(days=1)


def model_of(vendor: str, name: str, *, display_name: str = "Test model", **fields: Any) -> str:
    """A priced model of a vendor of the test's own; its slug."""
    made = make_model(**fields)
    slug = f"{vendor}/{name}"
    with role_scope("operator"):
        CatalogModel.objects.filter(id=made.id).update(slug=slug, display_name=display_name)
    return slug


def model_id_of(slug: str) -> UUID:
    with role_scope("operator"):
        return CatalogModel.objects.get(slug=slug).id


@pytest.fixture
def vendor() -> str:
    return unique_name("maker")


def listed(vendor: str, **options: object) -> ModelList:
    values: dict[str, object] = {"currency": "USD", "now": utc_now(), "vendors": [vendor]}
    with role_scope("auth"):
        return list_models(**(values | options))  # type: ignore[arg-type]


def slugs(found: ModelList) -> list[str]:
    return [row.slug for row in found.rows]


def test_chinese_is_found_by_short_words(vendor: str) -> None:
    chinese = model_of(vendor, "qwen", description="通义千问大语言模型，擅长代码与推理。")
    model_of(vendor, "other", description="A model for code.")
    for word in ("推理", "码", "千问大语言模型", "通义 推理"):
        assert slugs(listed(vendor, search=word)) == [chinese], word
    assert slugs(listed(vendor, search="诗")) == []


def test_a_slip_of_the_finger_finds_names_but_not_descriptions(vendor: str) -> None:
    coder = model_of(vendor, "deepseek-coder", display_name="DeepSeek Coder", description="Unique zebra.")
    assert slugs(listed(vendor, search="depseek")) == [coder]
    assert slugs(listed(vendor, search="DEEPSEEK coder")) == [coder]
    assert slugs(listed(vendor, search="zebra")) == [coder]
    assert slugs(listed(vendor, search="zebbra")) == []
    assert slugs(listed(vendor, search="deepseek gemini")) == []


def test_what_is_special_in_patterns_is_ordinary_in_a_search(vendor: str) -> None:
    percent = model_of(vendor, "p", description="Costs 100% of it")
    under = model_of(vendor, "u", description="snake_case and back\\slash")
    assert slugs(listed(vendor, search="0%")) == [percent]
    assert slugs(listed(vendor, search="e_c")) == [under]
    assert slugs(listed(vendor, search="k\\s")) == [under]
    assert slugs(listed(vendor, search="'; DROP TABLE x --")) == []
    assert slugs(listed(vendor, search="\0" * 300)) == slugs(listed(vendor))


def test_names_rank_before_descriptions(vendor: str) -> None:
    described = model_of(vendor, "aa", display_name="Aa", description="Not a falcon.")
    named = model_of(vendor, "zz", display_name="Falcon", description="")
    assert slugs(listed(vendor, search="falcon")) == [named, described]


def test_facets_count_what_a_choice_would_leave(vendor: str) -> None:
    other = unique_name("maker")
    vision = model_of(vendor, "vision", capabilities=["vision", "tools"])
    model_of(vendor, "tools", capabilities=["tools"])
    model_of(other, "vision", capabilities=["vision"])
    both = listed(vendor)
    assert (both.total, both.capabilities) == (2, (Facet("tools", 2), Facet("vision", 1)))
    counts = {facet.value: facet.count for facet in both.vendors}
    assert (counts[vendor], counts[other]) == (2, 1)
    chosen = listed(vendor, capabilities=["vision"])
    assert slugs(chosen) == [vision]
    counts = {facet.value: facet.count for facet in chosen.vendors}
    assert (counts[vendor], counts[other]) == (1, 1)
    assert chosen.capabilities == (Facet("tools", 1), Facet("vision", 1))
    assert slugs(listed(vendor, capabilities=["vision", "audio"])) == []


def test_filters_and_orders(vendor: str) -> None:
    cheap = model_of(vendor, "b-cheap", prices={"input": 5, "output": 5}, display_name="B")
    dear = model_of(
        vendor, "a-dear", prices={"input": 50, "output": 5}, display_name="C", context_tokens=99_000
    )
    free = model_of(vendor, "c-none", prices=None, display_name="A")
    assert slugs(listed(vendor, max_input_price=49)) == [cheap]
    assert slugs(listed(vendor, max_input_price=50, sort="input_price")) == [cheap, dear]
    assert slugs(listed(vendor, min_context=99_000)) == [dear]
    assert slugs(listed(vendor, sort="input_price")) == [cheap, dear, free]
    assert slugs(listed(vendor, sort="name")) == [free, cheap, dear]
    assert slugs(listed(vendor, sort="newest")) == [free, dear, cheap]
    assert slugs(listed(vendor, sort="context"))[0] == dear
    assert listed(vendor, currency="CNY").rows[0].price is None


def test_pages_follow_each_other(vendor: str) -> None:
    made = [model_of(vendor, f"m{index}", display_name=f"M{index}") for index in range(5)]
    seen, after, sizes = [], None, []
    while True:
        page = listed(vendor, limit=2, after=after, sort="name")
        assert page.total == 5
        seen += slugs(page)
        sizes.append(len(page.rows))
        if page.next is None:
            break
        after = page.next
    assert (seen, sizes) == (made, [2, 2, 1])


def test_retired_models_are_gone(vendor: str) -> None:
    slug = model_of(vendor, "old")
    with role_scope("operator"):
        CatalogModel.objects.filter(slug=slug).update(state=ModelState.RETIRED)
    assert slugs(listed(vendor)) == []
    with role_scope("auth"), pytest.raises(ModelNotFound):
        model_page(slug=slug, currency="USD", now=utc_now())
    with role_scope("auth"), pytest.raises(ModelNotFound):
        model_page(slug="no/such", currency="USD", now=utc_now())


def test_a_private_price_is_its_tenants_only(vendor: str) -> None:
    slug = model_of(vendor, "m", prices={"input": 100, "output": 200})
    mine, theirs = make_tenant(), make_tenant()
    make_price(model_id_of(slug), prices={"input": 7, "output": 9}, tenant_id=mine.id)
    now = utc_now()
    for tenant, expected, is_private in ((mine, 7, True), (theirs, 100, False)):
        with tenant_scope(tenant.id):
            (row,) = list_models(currency="USD", now=now, vendors=[vendor], tenant_id=tenant.id).rows
            page = model_page(slug=slug, currency="USD", now=now, tenant_id=tenant.id)
        assert row.price is not None
        assert (row.price.input.now, row.price.is_private) == (expected, is_private)
        # Without a line of its own, cached input costs what input does.
        assert row.price.cached_input.now == expected
        assert page.model == row
        assert page.price is not None
        assert page.price.lines[0].price_nanos_per_million == expected
    (public,) = listed(vendor).rows
    assert public.price is not None
    assert public.price.input.now == 100
    # Not even by naming the organization.
    (asked,) = listed(vendor, tenant_id=None).rows
    assert asked.price == public.price


def test_enabled_models_of_tenants_and_keys(vendor: str) -> None:
    first, second = (model_of(vendor, name, display_name=name.upper()) for name in ("a", "b"))
    model_of(vendor, "c")
    tenant, other = make_tenant(), make_tenant()
    now = utc_now()
    with role_scope("operator"):
        for slug in (first, second):
            operations.enable_model(tenant_id=tenant.id, slug=slug)
    key, _ = issue_key(tenant.id)
    with role_scope("operator"):
        operations.restrict_api_key(tenant_id=tenant.id, key_id=key.id, slugs=[second])
    with tenant_scope(tenant.id):
        every = enabled_models(tenant_id=tenant.id, currency="USD", now=now)
        of_key = enabled_models(tenant_id=tenant.id, currency="USD", now=now, api_key_id=key.id)
        open_key = enabled_models(tenant_id=tenant.id, currency="USD", now=now, api_key_id=tenant.key.id)
        marks = [
            row.is_enabled
            for row in list_models(
                currency="USD", now=now, vendors=[vendor], tenant_id=tenant.id, sort="name"
            ).rows
        ]
    assert [row.slug for row in every] == [row.slug for row in open_key] == [first, second]
    assert [row.slug for row in of_key] == [second]
    assert all(row.is_enabled and row.price for row in every)
    assert sorted(marks) == [False, True, True]
    with tenant_scope(other.id):
        assert enabled_models(tenant_id=other.id, currency="USD", now=now) == ()
        assert enabled_models(tenant_id=tenant.id, currency="USD", now=now) == ()
        with pytest.raises(KeyNotFound):
            enabled_models(tenant_id=other.id, currency="USD", now=now, api_key_id=key.id)
    with role_scope("operator"):
        operations.end_grant(tenant_id=tenant.id, slug=first, now=now)
    with tenant_scope(tenant.id):
        assert [row.slug for row in enabled_models(tenant_id=tenant.id, currency="USD", now=now)] == [second]


def test_windows_bands_tiers_and_the_next_change(vendor: str) -> None:
    slug = model_of(vendor, "m", prices=None)
    lines = [
        Line("input", 100),
        Line("output", 200),
        Line("cached_input", 10),
        Line("input", 40, window="night"),
        Line("output", 80, window="night"),
        Line("input", 50, tier="batch"),
        Line("output", 100, tier="batch"),
    ]
    spans = [("night", day * 1440, day * 1440 + 480) for day in range(5)] + [
        ("night", 6 * 1440 - 60, 6 * 1440 + 60)
    ]
    now = datetime(2026, 3, 2, 20, 0, tzinfo=UTC)  # Tuesday 04:00 in Shanghai: night
    begin, end = now - 10 * DAY, now + 10 * DAY
    with role_scope("operator"), transaction.atomic(using="operator"):
        model = CatalogModel.objects.get(slug=slug)
        banded = [
            Line("input", 100),
            Line("output", 200, end=1_000),
            Line("output", 300, start=1_000),
        ]
        for draft in (
            make_draft(
                lines, spans=spans, model=model, time_zone="Asia/Shanghai", active_from=begin, active_to=end
            ),
            make_draft(banded, model=model, active_from=end, active_to=end + 5 * DAY),
        ):
            PriceVersion.objects.filter(id=draft.version_id).update(published_at=begin)
    with role_scope("auth"):
        page = model_page(slug=slug, currency="USD", now=now)
        by_day = model_page(slug=slug, currency="USD", now=now + timedelta(hours=8))
        later = model_page(slug=slug, currency="USD", now=end)
        after = model_page(slug=slug, currency="USD", now=end + 5 * DAY)
        before = model_page(slug=slug, currency="USD", now=begin - DAY)
    price = page.model.price
    assert price is not None
    assert (price.input.now, price.input.cheapest, price.input.dearest) == (40, 40, 100)
    # The class decides before the window does: cached input has no price of the night.
    assert (price.cached_input.now, price.cached_input.cheapest, price.output.now) == (10, 10, 80)
    assert by_day.model.price is not None
    assert (by_day.model.price.input.now, by_day.model.price.output.now) == (100, 200)
    assert page.price is not None
    (night,) = page.price.windows
    assert (night.is_open, by_day.price and by_day.price.windows[0].is_open) == (True, False)
    assert night.times == (
        DailyTimes((0, 1, 2, 3, 4), 0, 480),
        DailyTimes((5,), 1380, 1440),
        DailyTimes((6,), 0, 60),
    )
    assert [
        (line.token_class, line.service_tier, line.window, line.price_nanos_per_million)
        for line in page.price.lines
    ] == [
        ("input", "standard", None, 100),
        ("input", "standard", "night", 40),
        ("cached_input", "standard", None, 10),
        ("output", "standard", None, 200),
        ("output", "standard", "night", 80),
        ("input", "batch", None, 50),
        ("output", "batch", None, 100),
    ]
    assert page.price.time_zone == "Asia/Shanghai"
    assert page.next_change is not None
    assert page.next_change.at == end
    assert page.next_change.price is not None
    assert [line.price_nanos_per_million for line in page.next_change.price.lines] == [100, 200, 300]
    assert later.model.price is not None
    assert later.model.price.has_bands
    # The end of the last one is a change too, to no price at all.
    assert later.next_change is not None
    assert (later.next_change.at, later.next_change.price) == (end + 5 * DAY, None)
    assert (after.price, after.model.price, after.next_change) == (None, None, None)
    assert before.next_change is not None
    assert (before.price, before.next_change.at) == (None, begin)


def test_spans_are_written_as_opening_hours() -> None:
    whole = Window(uuid7(), "w", False, (WeekSpan(0, 10_080),))
    assert whole.times == (DailyTimes(tuple(range(7)), 0, 1440),)


def test_without_a_scope_nothing_is_read() -> None:
    with pytest.raises(ScopeMissing):
        list_models(currency="USD", now=utc_now())


def test_drafts_show_to_nobody(vendor: str) -> None:
    slug = model_of(vendor, "m", prices=None)
    with role_scope("operator"), transaction.atomic(using="operator"):
        make_draft([Line("input", 1), Line("output", 1)], model=CatalogModel.objects.get(slug=slug))
    assert listed(vendor).rows[0].price is None
    with role_scope("operator"):
        (row,) = list_models(currency="USD", now=utc_now(), vendors=[vendor]).rows
    assert row.price is None
