"""What was asked of Stripe: the list of requests, and sending one again whose answer never came."""

from __future__ import annotations

from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.payments.filters import choice
from portal.backoffice.payments.shown import shown_operations
from portal.backoffice.payments.words import OPERATION_KINDS, OPERATION_STATES, choices
from portal.backoffice.tenants.forms import ReasonForm
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import done, show
from quotas.models import OperationKind, OperationState
from quotas.payments.client import PaymentsNotConfigured
from quotas.payments.inbox_queries import find_operation, list_operations
from quotas.payments.interventions import NotPending, send_again

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")


@operator_page()
def operations(request: HttpRequest) -> HttpResponse:
    """The list. In the address: organization, state, kind, before."""
    query = request.GET
    tenant_id = optional_id("organization", query.get("organization", ""))
    state = choice(OperationState, query.get("state", ""))
    kind = choice(OperationKind, query.get("kind", ""))
    page = list_operations(
        tenant_id=tenant_id,
        state=state,
        kind=kind,
        before=optional_id("stripe_operation", query.get("before", "")),
        limit=PAGE_ROWS,
    )
    context: dict[str, Any] = {
        "section": "payments",
        "tab": "operations",
        "rows": shown_operations(page.rows),
        "next": public_id(PREFIXES["stripe_operation"], page.next) if page.next else "",
        "is_first": not query.get("before"),
        "filters": {name: query.get(name, "")[:255] for name in ("organization", "state", "kind")},
        "is_filtered": any((tenant_id, state, kind)),
        "states": choices(OPERATION_STATES),
        "kinds": choices(OPERATION_KINDS),
    }
    return show(request, "backoffice/payments/operations.html", context)


@operator_page(methods=FORM_METHODS, atomic=False)
def send(request: HttpRequest, operation: str) -> HttpResponse:
    """GET the question; POST reason. The same request with the same key: Stripe does it once."""
    found = find_operation(operation_id=parse_id("stripe_operation", operation))
    if found is None:
        raise Http404
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="send_%s")
    address = f"{reverse('backoffice:stripe-operations')}?state={OperationState.PENDING}"
    if request.method == "POST" and form.is_valid():
        try:
            state = send_again(
                operation_id=found.id,
                reason=form.cleaned_data["reason"],
                actor=operator_actor(request),
                now=utc_now(),
            )
        except NotPending:
            form.add_error(None, _("It has ended already."))
        except PaymentsNotConfigured:
            form.add_error(None, _("This installation has no key of Stripe."))
        else:
            return done(request, address, _sent_text(state, found.public_id))
    (shown,) = shown_operations([found])
    context = {"form": form, "shown": shown, "back_url": address, "post_url": request.path}
    return show_dialog(
        request,
        "backoffice/payments/_send_again.html",
        context,
        title=_("Send the request again?"),
        section="payments",
        status=422 if form.errors else 200,
    )


def _sent_text(state: OperationState, operation: str) -> str:
    if state == OperationState.DONE:
        return _("The request %(id)s is done.") % {"id": operation}
    if state == OperationState.PENDING:
        return _("Stripe still gives no answer about %(id)s. It is tried again by itself.") % {
            "id": operation
        }
    return _("Stripe has refused %(id)s.") % {"id": operation}
