"""What anybody may see: the start page, the catalog, a model. Prices are those of the list, nobody's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe
from django_htmx.http import push_url

from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.queries import (
    Facet,
    ModelList,
    ModelNotFound,
    ModelPage,
    ModelRow,
    list_models,
    model_page,
)
from models_catalog.queries.prices import version_at
from portal.kit.clock import utc_now
from portal.pages.access import Organization
from portal.pages.samples import call_samples
from portal.pages.tags import count_text
from portal.storefront.figures import service_figures
from portal.storefront.filters import (
    CONTEXT_STEPS,
    MAX_SLUG_LENGTH,
    SORTS,
    CatalogFilters,
    address_of,
    read_filters,
)
from portal.storefront.rows import shown_models
from portal.storefront.tariff import change_of, models_text, tariff_of
from portal.storefront.visitors import Visitor, visitor_of
from portal.storefront.words import capability
from quotas.metering.queries.activity import MIN_SPEED_SAMPLES, SPEED_DAYS
from tenants.permissions import Permission
from tenants.scope import role_scope, tenant_scope

LANDING_MODELS: Final = 8
PAGE_SIZE: Final = 50
SUGGESTIONS: Final = 5
FACETS_IN_SIGHT: Final = 12
RESULTS: Final = "catalog-results"
MEASURED: Final = {"speed_days": SPEED_DAYS, "min_samples": MIN_SPEED_SAMPLES}


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    """The public pages are for everybody; the rest needs a person who is signed in."""
    closed = ("/o/", "/accounts/", "/invitations/", "/operator/", "/admin/")
    lines = ("User-agent: *", *(f"Disallow: {path}" for path in closed), "")
    return HttpResponse("\n".join(lines), content_type="text/plain; charset=utf-8")


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """The promise, a few models with their prices now, a first call, and three numbers."""
    visitor = visitor_of(request)
    now = utc_now()
    with role_scope("auth"):
        # Whatever has a price costs at most this much; what has none is no advertisement.
        found = list_models(
            currency=visitor.currency,
            now=now,
            max_input_price=MAX_PRICE_NANOS_PER_MILLION,
            sort="name",
            limit=LANDING_MODELS,
        )
    figures = service_figures(now=now)
    slug = found.rows[0].slug if found.rows else "vendor/model"
    context: dict[str, Any] = {
        "currency": visitor.currency,
        "currencies": settings.CURRENCIES,
        "figures": figures,
        "found": found,
        "models_text": models_text(found.total),
        "shown": shown_models(found.rows, figures.speeds),
        "sample": call_samples(api_base=settings.API_BASE, slug=slug)[0],
        "present": visitor.present,
        **MEASURED,
    }
    return render(request, "storefront/landing.html", context)


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a facet. count: how many models there would be with it."""

    value: str
    name: str
    count: int
    is_chosen: bool


@require_safe
def catalog(request: HttpRequest) -> HttpResponse:
    """The models on offer. In the address: q (words), vendor and capability (several), min_context (tokens),
    max_price (units of the currency per million tokens), currency, sort, after (the next page).

    htmx gets the results with the count and the facets beside them.
    """
    visitor = visitor_of(request)
    filters = read_filters(request.GET, currency=visitor.currency)
    now = utc_now()
    with role_scope("auth"):
        found = list_models(
            currency=filters.currency,
            now=now,
            search=filters.search,
            capabilities=filters.capabilities,
            vendors=filters.vendors,
            max_input_price=filters.max_input_price,
            min_context=filters.min_context,
            sort=filters.sort,
            after=filters.after or None,
            limit=PAGE_SIZE,
        )
    context = {**_catalog_context(filters, found, visitor), **MEASURED}
    context["shown"] = shown_models(found.rows, service_figures(now=now).speeds)
    htmx = request.htmx  # type: ignore[attr-defined]
    if not (htmx and htmx.target == RESULTS and not htmx.history_restore_request):
        return _vary(render(request, "storefront/catalog.html", context))
    response = _vary(render(request, "storefront/_answer.html", context))
    address = address_of(filters, chosen_currency=visitor.chosen_currency)
    return push_url(response, f"{request.path}?{address}" if address else request.path)


def _vary(response: HttpResponse) -> HttpResponse:
    patch_vary_headers(response, ["HX-Request"])
    return response


def _catalog_context(filters: CatalogFilters, found: ModelList, visitor: Visitor) -> dict[str, Any]:
    vendors = _choices(found.vendors, filters.vendors)
    contexts = sorted({*CONTEXT_STEPS, *([filters.min_context] if filters.min_context else [])})
    return {
        "filters": filters,
        "currency": filters.currency,
        "currencies": settings.CURRENCIES,
        "found": found,
        "count_text": models_text(found.total),
        "vendors": vendors[:FACETS_IN_SIGHT],
        "more_vendors": vendors[FACETS_IN_SIGHT:],
        "capabilities": _choices(found.capabilities, filters.capabilities, named=True),
        "contexts": [(value, count_text(value)) for value in contexts],
        "sorts": SORTS.items(),
        "present": visitor.present,
    }


def _choices(facets: Sequence[Facet], chosen: Sequence[str], *, named: bool = False) -> list[Choice]:
    """What is chosen comes first, also when it leaves nothing, so that it can be taken back."""
    counts = {facet.value: facet.count for facet in facets}
    values = [*chosen, *(value for value in counts if value not in chosen)]
    return [
        Choice(value, str(capability(value).name) if named else value, counts.get(value, 0), value in chosen)
        for value in values
    ]


@require_safe
def model(request: HttpRequest, slug: str) -> HttpResponse:
    """One model: its tariff, limits, speed and samples. In the address: currency. Unknown and retired models
    are answered with 404 and what is like them."""
    visitor = visitor_of(request)
    now = utc_now()
    if "\0" in slug or len(slug) > MAX_SLUG_LENGTH:
        raise Http404
    with role_scope("auth"):
        try:
            found = model_page(slug=slug, currency=visitor.currency, now=now)
        except ModelNotFound:
            return _missing(request, slug, visitor)
        currencies = [
            currency
            for currency in settings.CURRENCIES
            if version_at(model_id=found.model.id, tenant_id=None, currency=currency, at=now)
        ]
        if currencies and visitor.currency not in currencies and not visitor.chosen_currency:
            found = model_page(slug=slug, currency=currencies[0], now=now)
    price = found.price
    currency = price.currency if price else visitor.currency
    context: dict[str, Any] = {
        "model": found.model,
        "currency": currency,
        "currencies": currencies,
        "tariff": tariff_of(price) if price else None,
        "change": change_of(found.next_change, price) if found.next_change else None,
        "capabilities": [capability(value) for value in found.model.capabilities],
        "speed": service_figures(now=now).speeds.get(slug),
        "samples": call_samples(api_base=settings.API_BASE, slug=slug),
        **_actions(visitor, slug),
        **MEASURED,
    }
    return render(request, "storefront/model.html", context)


def _actions(visitor: Visitor, slug: str) -> dict[str, Any]:
    """What the reader can do with a model here: for the organization used last, and for the others."""
    present = visitor.present
    own = _as_seen_by(present, slug) if present else None
    return {
        "present": present,
        "own": own.model if own else None,
        "has_own_price": bool(own and own.price and own.price.is_private),
        "may_enable": present is not None and present.may(Permission.ENABLE_MODELS),
        "may_try": present is not None and present.may(Permission.USE_PLAYGROUND),
        "others": [
            one for one in visitor.organizations if one is not present and one.may(Permission.ENABLE_MODELS)
        ],
    }


def _as_seen_by(organization: Organization, slug: str) -> ModelPage | None:
    with tenant_scope(organization.tenant_id):
        try:
            return model_page(
                slug=slug, currency=organization.currency, now=utc_now(), tenant_id=organization.tenant_id
            )
        except ModelNotFound:
            return None


def _missing(request: HttpRequest, slug: str, visitor: Visitor) -> HttpResponse:
    context = {
        "slug": slug,
        "suggestions": _like(slug, visitor.currency),
    }
    return render(request, "storefront/missing.html", context, status=404)


def _like(slug: str, currency: str) -> tuple[ModelRow, ...]:
    """Models that are like the whole slug, or else like the name in it, or of the same vendor."""
    vendor, _, name = slug.partition("/")
    now = utc_now()
    for search in dict.fromkeys((slug, name, vendor)):
        if search.strip():
            found = list_models(currency=currency, now=now, search=search, limit=SUGGESTIONS)
            if found.rows:
                return found.rows
    return ()
