"""Letting an organization pay afterwards, and ending that."""

from __future__ import annotations

from typing import Any, Final

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.pages import operator_actor, operator_page, show_dialog
from portal.backoffice.tenants.forms import ReasonForm, reason_field
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import done
from quotas.models import MAX_DAYS_UNTIL_DUE
from quotas.payments.postpaid import agreements
from quotas.payments.postpaid.queries import AgreementRow, find_agreement

FORM_METHODS: Final = ("GET", "HEAD", "POST")
DEFAULT_DAYS: Final = 30


class AgreeForm(forms.Form):
    days_until_due = forms.IntegerField(
        label=gettext_lazy("Days until an invoice is due"),
        min_value=0,
        max_value=MAX_DAYS_UNTIL_DUE,
        initial=DEFAULT_DAYS,
    )
    reason = reason_field(gettext_lazy("Stands in the audit log; the organization does not see it."))


@operator_page(methods=FORM_METHODS)
def agree(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the form; POST days_until_due and reason. Also changes the days of an agreement."""
    found = _found(organization)
    form = AgreeForm(
        request.POST if request.method == "POST" else None,
        initial={"days_until_due": found.days_until_due or DEFAULT_DAYS},
        auto_id="agree_%s",
    )
    if request.method == "POST" and form.is_valid():
        try:
            agreements.agree(
                tenant_id=found.tenant_id,
                days_until_due=form.cleaned_data["days_until_due"],
                reason=form.cleaned_data["reason"],
                actor=operator_actor(request),
                now=utc_now(),
            )
        except agreements.NoCreditLine:
            form.add_error(None, _("It has no credit line: set one on its page first."))
        else:
            text = _("%(name)s is invoiced monthly.") % {"name": found.organization}
            return done(request, reverse("backoffice:postpaid"), text)
    title = _("Invoice %(name)s monthly?") % {"name": found.organization}
    return _dialog(request, "agree", found, form, title)


@operator_page(methods=FORM_METHODS)
def end(request: HttpRequest, organization: str) -> HttpResponse:
    """GET the question; POST reason."""
    found = _found(organization)
    form = ReasonForm(request.POST if request.method == "POST" else None, auto_id="end_%s")
    if request.method == "POST" and form.is_valid():
        try:
            agreements.end_agreement(
                tenant_id=found.tenant_id,
                reason=form.cleaned_data["reason"],
                actor=operator_actor(request),
                now=utc_now(),
            )
        except agreements.NoAgreement:
            form.add_error(None, _("It does not pay afterwards."))
        else:
            text = _("%(name)s is invoiced no more.") % {"name": found.organization}
            return done(request, reverse("backoffice:postpaid"), text)
    title = _("Invoice %(name)s no more?") % {"name": found.organization}
    return _dialog(request, "end", found, form, title)


def _found(organization: str) -> AgreementRow:
    found = find_agreement(tenant_id=parse_id("organization", organization))
    if found is None:
        raise Http404
    return found


def _dialog(
    request: HttpRequest, name: str, found: AgreementRow, form: forms.Form, title: str
) -> HttpResponse:
    context: dict[str, Any] = {
        "form": form,
        "found": found,
        "back_url": reverse("backoffice:postpaid"),
        "post_url": request.path,
    }
    return show_dialog(
        request,
        f"backoffice/postpaid/_{name}.html",
        context,
        title=title,
        section="payments",
        status=422 if form.errors else 200,
    )
