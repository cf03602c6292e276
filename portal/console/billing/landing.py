"""Where people come back to after paying: what became of their top-up, as soon as it is known."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from portal.console.billing.balance import shown
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import show
from quotas.ledger.queries import wallet_balance
from quotas.payments.fulfilment import TopUpNotFound
from quotas.payments.landing import give_up_top_up, look_up_top_up
from quotas.payments.top_ups import TopUpRow
from tenants.operations import audit
from tenants.permissions import Permission
from tenants.scope import tenant_scope

POLLS: Final = 90
"""How often, a second apart, the page asks what became of it; then it says that credit comes by itself."""
ASK_EVERY: Final = 10
"""At each so-manieth of them the provider is asked, too: its own message may be lost."""


@organization_page(Permission.SEE_BILLING, opens_scope=False)
def top_up(request: HttpRequest, organization: Organization, top_up: str) -> HttpResponse:
    """The page. The address says which top-up, never how it went: that is asked of the provider."""
    row = _look_up(organization, top_up, asks_stripe=True)
    return _show(request, organization, row, "console/billing/landing.html", polled=0)


@organization_page(Permission.SEE_BILLING, opens_scope=False)
def top_up_state(request: HttpRequest, organization: Organization, top_up: str) -> HttpResponse:
    """The part that changes, and the balance, which the page asks for while the top-up is open."""
    text = request.GET.get("polled", "")
    polled = min(int(text), POLLS) if text.isascii() and text.isdigit() and len(text) < 4 else POLLS
    row = _look_up(organization, top_up, asks_stripe=polled % ASK_EVERY == 0)
    return _show(request, organization, row, "console/billing/_landing_answer.html", polled=polled)


@organization_page(Permission.PAY, methods=("POST",), opens_scope=False)
def cancel_top_up(request: HttpRequest, organization: Organization, top_up: str) -> HttpResponse:
    """POST: nobody wants to pay it any more. What was paid meanwhile is credited; its page says so."""
    top_up_id = parse_id("top_up", top_up)
    try:
        give_up_top_up(
            tenant_id=organization.tenant_id,
            top_up_id=top_up_id,
            actor=audit.member(organization.user_id, organization.role),
            now=utc_now(),
        )
    except TopUpNotFound:
        raise Http404 from None
    return HttpResponseRedirect(reverse("console:top-up", args=[organization.public_id, top_up]))


def _look_up(organization: Organization, text: str, *, asks_stripe: bool) -> TopUpRow:
    """Raises Http404 for what is not the organization's own."""
    try:
        return look_up_top_up(
            tenant_id=organization.tenant_id,
            top_up_id=parse_id("top_up", text),
            asks_stripe=asks_stripe,
            now=utc_now(),
        )
    except TopUpNotFound:
        raise Http404 from None


def _show(
    request: HttpRequest, organization: Organization, row: TopUpRow, template: str, *, polled: int
) -> HttpResponse:
    has_left = request.GET.get("left") == "1" and row.state == "OPEN"
    context: dict[str, Any] = {
        "section": "billing",
        **shown(row),
        "has_left": has_left,
        "waits": row.is_open and not has_left,
        "polls_on": row.is_open and not has_left and polled < POLLS,
        "polled": polled + 1,
    }
    with tenant_scope(organization.tenant_id):
        context["wallet"] = wallet_balance(tenant_id=organization.tenant_id)
        return show(request, template, context, private=True)
