"""Suspense: tokens that backends served and that are on nobody's bill until somebody explains them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.payments.words import badge_of, choices, word_of
from portal.backoffice.reconciliation.filters import ALL, SUSPENSE_NAMES, given, suspense_filter
from portal.backoffice.reconciliation.words import SUSPENSE_KINDS, SUSPENSE_STATES
from portal.backoffice.tenants.forms import ReasonForm
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id, parse_id
from portal.pages.answers import done, show
from quotas.models import SuspenseState
from quotas.reconciliation import suspense as operations
from quotas.reconciliation.corrections import NotOpen
from quotas.reconciliation.review.discrepancies import backend_codes
from quotas.reconciliation.review.suspense import SuspenseRow, find_suspense, list_suspense

PAGE_ROWS: Final = 50
FORM_METHODS: Final = ("GET", "HEAD", "POST")


@operator_page()
def suspense(request: HttpRequest) -> HttpResponse:
    """The list. In the address: state (OPEN without one, all), kind, backend, before."""
    query = request.GET
    filters = suspense_filter(query)
    before = optional_id("suspense", query.get("before", ""))
    page = list_suspense(filters=filters, before=before, limit=PAGE_ROWS)
    typed = given(query, SUSPENSE_NAMES)
    context: dict[str, Any] = {
        "section": "reconciliation",
        "tab": "suspense",
        "rows": [
            (row, word_of(SUSPENSE_KINDS, row.kind), *badge_of(SUSPENSE_STATES, row.state))
            for row in page.rows
        ],
        "next": public_id(PREFIXES["suspense"], page.next) if page.next else "",
        "is_first": before is None,
        "filters": typed,
        "is_filtered": any(
            value for name, value in typed.items() if (name, value) != ("state", SuspenseState.OPEN)
        ),
        "states": [*choices(SUSPENSE_STATES), (ALL, _("All"))],
        "kinds": choices(SUSPENSE_KINDS),
        "backends": backend_codes(),
    }
    return show(request, "backoffice/reconciliation/suspense.html", context)


@operator_page(methods=FORM_METHODS, atomic=False)
def explain(request: HttpRequest, suspense_item: str) -> HttpResponse:
    """GET the question; POST reason. It is known whose they were, and there is nothing to bill."""
    return _decide(
        request,
        _found(suspense_item),
        operations.explain,
        title=_("Explain these tokens?"),
        text=_("You know where they come from, and they are on nobody's bill. Say what it is."),
        label=_("They are explained"),
        told=_("The item %(id)s is explained."),
    )


@operator_page(methods=FORM_METHODS, atomic=False)
def write_off(request: HttpRequest, suspense_item: str) -> HttpResponse:
    """GET the question; POST reason. Nobody knows whose they were."""
    return _decide(
        request,
        _found(suspense_item),
        operations.write_off,
        title=_("Write these tokens off?"),
        text=_("Nobody will be billed for them, and nobody looks for their cause any more."),
        label=_("Write off"),
        told=_("The item %(id)s is written off."),
    )


def _found(text: str) -> SuspenseRow:
    row = find_suspense(suspense_id=parse_id("suspense", text))
    if row is None:
        raise Http404
    return row


def _decide(
    request: HttpRequest,
    row: SuspenseRow,
    operation: Callable[..., Any],
    *,
    title: str,
    text: str,
    label: str,
    told: str,
) -> HttpResponse:
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="suspense_%s")
    address = reverse("backoffice:suspense")
    if request.method == "POST" and form.is_valid():
        try:
            operation(
                suspense_id=row.id,
                actor=operator_actor(request),
                reason=form.cleaned_data["reason"],
                now=utc_now(),
            )
        except NotOpen:
            form.add_error(None, _("Somebody has decided about it already."))
        else:
            return done(request, address, told % {"id": row.public_id})
    context = {"form": form, "text": text, "label": label, "back_url": address, "post_url": request.path}
    return show_dialog(
        request,
        "backoffice/reconciliation/_reason.html",
        context,
        title=title,
        section="reconciliation",
        status=422 if form.errors else 200,
    )
