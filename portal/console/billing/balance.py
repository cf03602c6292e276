"""The billing page: what the balance is made of, adding credit, and the top-ups so far."""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.console.billing import words
from portal.console.billing.forms import AddCreditForm
from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page, parse_id
from portal.pages.answers import leave_for, person_id, show
from quotas.ledger.lots import expiring_credit
from quotas.ledger.queries import wallet_balance
from quotas.payments import checkout, customer_portal, top_ups
from quotas.payments.client import PaymentsNotConfigured, takes_cards
from quotas.payments.policy import payment_policy
from quotas.payments.sending import StripeRefused, StripeUnavailable
from quotas.payments.top_ups import TopUpRow
from tenants.operations import audit
from tenants.permissions import Permission
from tenants.scope import tenant_scope

logger = logging.getLogger(__name__)

PAGE_ROWS: Final = 20


@organization_page(Permission.SEE_BILLING)
def billing(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The whole page. In the address: before (older top-ups)."""
    return _show(request, organization, _form(organization))


@organization_page(Permission.PAY, methods=("POST",), opens_scope=False)
def add_credit(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST the amount; leads on to the page where it is paid. What cannot be shows the form again."""
    form = _form(organization, request.POST)
    answer = _start(request, organization, form) if form.is_valid() else None
    if answer is not None:
        return answer
    with tenant_scope(organization.tenant_id):
        return _show(request, organization, form, status=422)


@organization_page(Permission.PAY, methods=("POST",), opens_scope=False)
def payment_methods(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST; leads on to the provider's pages about saved methods, the billing address and tax ids."""
    form = _form(organization)
    address = billing_url(organization)
    try:
        url = customer_portal.open_customer_portal(
            tenant_id=organization.tenant_id,
            return_url=request.build_absolute_uri(address),
            actor=audit.member(organization.user_id, organization.role),
            now=utc_now(),
        )
    except (PaymentsNotConfigured, StripeUnavailable, StripeRefused) as error:
        logger.warning("console.billing.no_customer_portal", extra={"error": str(error)})
        with tenant_scope(organization.tenant_id):
            return _show(request, organization, form, portal_failed=True, status=422)
    return leave_for(request, url)


def billing_url(organization: Organization) -> str:
    return reverse("console:billing", args=[organization.public_id])


def shown(row: TopUpRow) -> dict[str, Any]:
    """A top-up with the words that pages say of it. is_unclear: what was paid may be more than nothing."""
    unclear = words.is_unclear(row.failure_code)
    return {
        "row": row,
        "state": words.STATES[row.state],
        "lamp": words.LAMPS[row.state],
        "source": words.SOURCES[row.source],
        "failure": words.failure_text(row.failure_code) if row.state == "FAILED" or unclear else "",
        "is_unclear": unclear,
    }


def _form(organization: Organization, data: QueryDict | None = None) -> AddCreditForm:
    return AddCreditForm(data, policy=payment_policy(), currency=organization.currency)


def _start(request: HttpRequest, organization: Organization, form: AddCreditForm) -> HttpResponse | None:
    """None, and the form says why, when it cannot be."""
    place = checkout.TOP_UP_PLACE
    landing = reverse("console:top-up", args=[organization.public_id, place]).replace(quote(place), place)
    landing_url = f"{request.scheme}://{request.get_host()}{landing}"
    try:
        started = checkout.start_top_up(
            tenant_id=organization.tenant_id,
            user_id=person_id(request),
            amount_nanos=form.cleaned_data["amount_nanos"],
            keeps_method=form.cleaned_data["keeps_method"],
            success_url=landing_url,
            cancel_url=f"{landing_url}?left=1",
            now=utc_now(),
        )
    except checkout.OrganizationClosed:
        form.add_error(None, _("This organization is closed; no credit can be added."))
    except checkout.AmountNotOffered:
        form.refuse_amount()
    except checkout.TooManyOpenTopUps:
        form.add_error(
            None, _("Too many top-ups wait to be paid. Continue one of them below, or wait a while.")
        )
    except PaymentsNotConfigured:
        form.add_error(None, _("This installation takes no payments by card."))
    except (StripeUnavailable, StripeRefused) as error:
        logger.warning("console.billing.top_up_not_started", extra={"error": str(error)})
        form.add_error(
            None, _("The payment provider could not be reached. Nothing was charged; try again in a moment.")
        )
    else:
        return leave_for(request, started.pay_url)
    return None


def _show(
    request: HttpRequest,
    organization: Organization,
    form: AddCreditForm,
    *,
    portal_failed: bool = False,
    status: int = 200,
) -> HttpResponse:
    before = request.GET.get("before", "")
    page = top_ups.list_top_ups(
        tenant_id=organization.tenant_id,
        before=parse_id("top_up", before) if before else None,
        limit=PAGE_ROWS,
    )
    context: dict[str, Any] = {
        "section": "billing",
        "wallet": wallet_balance(tenant_id=organization.tenant_id),
        "expiring": expiring_credit(tenant_id=organization.tenant_id),
        "form": form,
        "adds_tax": form.policy.takes_tax,
        "takes_cards": takes_cards(),
        "portal_failed": portal_failed,
        "top_ups": [shown(row) for row in page.rows],
        "next": page.next,
        "is_first": not before,
    }
    return show(request, "console/billing/page.html", context, status=status, private=True)
