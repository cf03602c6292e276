"""Models: the catalog as this organization sees it, and picking from it."""

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from models_catalog import allow_lists
from models_catalog import operations as catalog_operations
from models_catalog import queries as catalog_queries
from models_catalog.queries import ModelRow
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page
from portal.pages.answers import done, is_fragment, show, show_dialog, with_toast
from tenants import queries
from tenants.permissions import Permission

PAGE_SIZE: Final = 50


@organization_page(Permission.SEE_MODELS)
def models(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The list. In the address: q (words), enabled=1 (only those picked), after (the next page)."""
    text = request.GET.get("q", "").strip()[:200]
    only_enabled = request.GET.get("enabled") == "1"
    context: dict[str, Any] = {
        "section": "models",
        "filters": {"q": text, "enabled": only_enabled},
        "is_filtered": bool(text) or only_enabled,
        **_rows(organization, text, only_enabled, request.GET.get("after", "").replace("\0", "")[:120]),
    }
    if is_fragment(request) and request.headers.get("HX-Target") == "model-rows":
        return show(request, "console/models/_rows.html", context)
    return show(request, "console/models/list.html", context)


@organization_page(Permission.ENABLE_MODELS, methods=("POST",))
def enable(request: HttpRequest, organization: Organization, slug: str) -> HttpResponse:
    """POST: pick a model. htmx gets its row."""
    _model(organization, slug)
    try:
        catalog_operations.enable_model(tenant_id=organization.tenant_id, slug=slug)
    except catalog_operations.ModelNotFound:
        raise Http404 from None
    row = _model(organization, slug)
    text = _("%(model)s is enabled: try it here, or call it with an API key.") % {"model": row.display_name}
    if is_fragment(request):
        return with_toast(show(request, "console/models/_row.html", {"row": row}), text)
    return done(request, _models_url(organization), text)


@organization_page(Permission.ENABLE_MODELS, methods=("GET", "HEAD", "POST"))
def disable(request: HttpRequest, organization: Organization, slug: str) -> HttpResponse:
    """GET the question; POST takes the model away."""
    row = _model(organization, slug)
    if not row.is_enabled:
        # Somebody was quicker; what was wanted is the case.
        text = _("%(model)s is not enabled.") % {"model": row.display_name}
        return done(request, _models_url(organization), text)
    if request.method == "POST":
        catalog_operations.end_grant(tenant_id=organization.tenant_id, slug=slug, now=utc_now())
        text = _("%(model)s is disabled: its next call is refused.") % {"model": row.display_name}
        return done(request, _models_url(organization), text)
    return show_dialog(
        request,
        "console/models/_disable.html",
        {"row": row, "key_names": _keys_that_list(organization, slug)},
        title=_("Disable %(model)s?") % {"model": row.display_name},
        section="models",
    )


def _rows(organization: Organization, text: str, only_enabled: bool, after: str) -> dict[str, Any]:
    """rows, how many there are, and the address of what follows."""
    now = utc_now()
    if only_enabled:
        enabled = catalog_queries.enabled_models(
            tenant_id=organization.tenant_id, currency=organization.currency, now=now
        )
        rows = [row for row in enabled if _matches(row, text)]
        return {"rows": rows, "total": len(rows), "next": None}
    found = catalog_queries.list_models(
        currency=organization.currency,
        now=now,
        search=text,
        sort="relevance" if text else "name",
        tenant_id=organization.tenant_id,
        after=after or None,
        limit=PAGE_SIZE,
    )
    return {"rows": found.rows, "total": found.total, "next": found.next, "after": after}


def _model(organization: Organization, slug: str) -> ModelRow:
    """Raises Http404 for what is not on offer."""
    if "\0" in slug:
        raise Http404
    try:
        page = catalog_queries.model_page(
            slug=slug, currency=organization.currency, now=utc_now(), tenant_id=organization.tenant_id
        )
    except catalog_queries.ModelNotFound:
        raise Http404 from None
    return page.model


def _keys_that_list(organization: Organization, slug: str) -> list[str]:
    """Names of the live keys whose lists name the model: what stops working with it."""
    listing = set(allow_lists.keys_that_list(tenant_id=organization.tenant_id, slug=slug))
    keys = queries.list_api_keys(tenant_id=organization.tenant_id, now=utc_now())
    return [key.name for key in keys if key.id in listing and key.is_live]


def _matches(row: ModelRow, text: str) -> bool:
    where = f"{row.slug} {row.display_name} {row.description}".lower()
    return all(word in where for word in text.lower().split())


def _models_url(organization: Organization) -> str:
    return reverse("console:models", args=[organization.public_id])
