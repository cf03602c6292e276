"""Whom invoices are made out to."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page
from portal.pages.answers import done, show_dialog
from quotas.models import ProfileState
from quotas.payments import billing_profiles
from quotas.payments.billing_profiles import ProfileFacts, ProfileRow
from tenants.operations import audit
from tenants.permissions import Permission


class ProfileForm(forms.Form):
    """What stands on an invoice."""

    legal_name = forms.CharField(
        label=gettext_lazy("Legal name"),
        max_length=billing_profiles.MAX_NAME_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
        help_text=gettext_lazy("As it is registered."),
    )
    tax_id = forms.CharField(
        label=gettext_lazy("Tax ID"),
        max_length=billing_profiles.MAX_TAX_ID_LENGTH,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text=gettext_lazy("Another legal name or tax ID has to be verified again."),
    )
    address = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=billing_profiles.MAX_TEXT_LENGTH,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "street-address"}),
    )
    bank_details = forms.CharField(
        label=gettext_lazy("Your bank and account"),
        max_length=billing_profiles.MAX_TEXT_LENGTH,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=gettext_lazy("Where invoices have to name them."),
    )


@organization_page(Permission.PAY, methods=("GET", "HEAD", "POST"))
def invoice_profile(request: HttpRequest, organization: Organization) -> HttpResponse:
    """GET the form; POST legal_name, tax_id, address, bank_details. Errors: 422 with the form."""
    known = billing_profiles.profile_of(tenant_id=organization.tenant_id)
    form = ProfileForm(
        request.POST if request.method == "POST" else None, initial=_initial(known), auto_id="profile_%s"
    )
    if request.method == "POST" and form.is_valid():
        try:
            state = billing_profiles.save_profile(
                tenant_id=organization.tenant_id,
                facts=ProfileFacts(**form.cleaned_data),
                actor=audit.member(organization.user_id, organization.role),
                now=utc_now(),
            )
        except billing_profiles.InvalidProfile:
            form.add_error(None, _("Only what can be printed stands on an invoice."))
        else:
            address = reverse("console:requested-invoices", args=[organization.public_id])
            waits = state != ProfileState.VERIFIED
            text = _("Saved. An operator verifies the legal name and the tax ID.") if waits else _("Saved.")
            return done(request, address, text)
    context = {"form": form, "post_url": request.path, "is_known": known is not None}
    return show_dialog(
        request,
        "console/invoices/_profile.html",
        context,
        title=_("Whom invoices are made out to"),
        section="billing",
        status=422 if form.errors else 200,
    )


def _initial(known: ProfileRow | None) -> dict[str, Any]:
    if known is None:
        return {}
    facts = known.facts
    return {
        "legal_name": facts.legal_name,
        "tax_id": facts.tax_id,
        "address": facts.address,
        "bank_details": facts.bank_details,
    }
