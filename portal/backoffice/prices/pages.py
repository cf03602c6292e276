"""Every price by model and currency, and one version with what it says and would change, and its trail."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from models_catalog.pricing import queries
from models_catalog.pricing.affected import increases
from models_catalog.pricing.queries import VersionPage, VersionState
from portal.backoffice.audit.rows import shown_events
from portal.backoffice.pages import operator_page
from portal.backoffice.prices.rows import board_rows, increase_rows, tariff_of
from portal.backoffice.prices.what_if import replay_context
from portal.backoffice.prices.words import FILTERS, STATES, gap_text
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id
from portal.pages.access import parse_id
from portal.pages.answers import is_fragment, show
from tenants.audit_queries import AuditFilter, audit_page
from tenants.search import TenantRow, find_tenant

SECTION: Final = "prices"
PAGE_MODELS: Final = 25
MAX_EVENTS: Final = 50


@operator_page()
def prices(request: HttpRequest) -> HttpResponse:
    """The board. In the address: q (words), currency, only (see FILTERS), organization, after."""
    query = request.GET
    currency = query.get("currency", "") if query.get("currency") in settings.CURRENCIES else ""
    only = query.get("only", "") if query.get("only", "") in FILTERS else ""
    text = query.get("q", "").replace("\0", "").strip()[:200]
    tenant = _tenant_of(query.get("organization", ""))
    context: dict[str, Any] = {
        "section": SECTION,
        "filters": {"q": text, "currency": currency, "only": only},
        "choices": FILTERS,
        "currencies": settings.CURRENCIES,
        "tenant": tenant,
        "is_filtered": bool(text or currency or only or tenant or query.get("after")),
    }
    try:
        board = queries.price_board(
            now=utc_now(),
            search=text,
            currency=currency,
            only=only,
            tenant_id=tenant.id if tenant else None,
            after=query.get("after", "").replace("\0", "")[:120],
            limit=PAGE_MODELS,
        )
    except OperationalError:
        context["has_failed"] = True
    else:
        context |= {"rows": board_rows(board.groups), "next": board.next}
    part = is_fragment(request) and request.headers.get("HX-Target") == "price-rows"
    return show(request, f"backoffice/prices/{'_board' if part else 'list'}.html", context)


@operator_page()
def price(request: HttpRequest, price: str) -> HttpResponse:
    """One version, whatever its state."""
    page = find_page(price)
    row = page.row
    tone, word = STATES[row.state]
    is_draft = row.state == VersionState.DRAFT
    compares = is_draft or row.state == VersionState.SCHEDULED
    now_content = page.current_content if compares and page.current else None
    context: dict[str, Any] = {
        "section": SECTION,
        "page": page,
        "row": row,
        "tone": tone,
        "word": word,
        "is_draft": is_draft,
        "can_end": row.is_private and row.state in (VersionState.SCHEDULED, VersionState.IN_FORCE),
        "gaps": [gap_text(gap) for gap in page.gaps],
        "tariff": tariff_of(page.content, now_content),
        "dearer": _dearer(page) if compares and not page.gaps else [],
        "events": shown_events(audit_page(filters=AuditFilter(target=row.public_id), limit=MAX_EVENTS).rows),
        **replay_context(row.id, row.public_id),
    }
    return show(request, "backoffice/prices/price.html", context)


def find_page(price: str) -> VersionPage:
    """The version of a public id. Raises Http404."""
    try:
        return queries.version_page(version_id=parse_id("price", price), now=utc_now())
    except queries.PriceNotFound:
        raise Http404 from None


def title_of(page: VersionPage) -> str:
    """`Qwen 3 32B, USD`, with the organization of a private price."""
    name = _("%(model)s, %(currency)s") % {"model": page.row.model_name, "currency": page.row.currency}
    return f"{name} · {page.row.tenant_name}" if page.row.is_private else name


def _dearer(page: VersionPage) -> list[Any]:
    against: UUID | None = page.current.id if page.current else None
    return increase_rows(increases(version_id=page.row.id, against=against))


def _tenant_of(text: str) -> TenantRow | None:
    try:
        return find_tenant(tenant_id=parse_public_id(PREFIXES["organization"], text))
    except InvalidPublicId:
        return None
