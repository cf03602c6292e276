"""What a new customer says of themselves, however they sign up. allauth's sign-up forms inherit from this."""

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.core import context as allauth_context
from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from portal.accounts import invitations, welcome
from portal.accounts.people import cleaned_name
from portal.kit.clock import utc_now
from quotas import operations as quota_operations
from tenants import operations as tenant_operations
from tenants.models import User
from tenants.scope import role_scope


def default_currency() -> str:
    """The currency that readers of the present language expect, if it is sold in."""
    expected = "CNY" if (get_language() or "").startswith("zh") else "USD"
    return expected if expected in settings.CURRENCIES else str(settings.CURRENCIES[0])


class CustomerFields(forms.Form):
    """Name, organization, currency and terms. Whoever comes with an invitation joins that organization, with
    the address that was invited, and opens none."""

    full_name = forms.CharField(
        label=_("Your name"), max_length=200, widget=forms.TextInput(attrs={"autocomplete": "name"})
    )
    organization = forms.CharField(
        label=_("Organization"),
        max_length=200,
        help_text=_("Your company or team. You can change it later."),
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )
    currency = forms.ChoiceField(
        label=_("Currency"), help_text=_("Of your prices and your balance. It stays as it is.")
    )
    terms = forms.BooleanField(label=_("I accept the terms of service and have read the privacy notice"))

    field_order = ("full_name", "organization", "email", "password1", "currency", "terms")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.terms_url, self.privacy_url = settings.TERMS_URL, settings.PRIVACY_URL
        self.remembered = invitations.remembered(allauth_context.request)
        currency = self.fields["currency"]
        assert isinstance(currency, forms.ChoiceField)
        currency.choices = [(code, code) for code in settings.CURRENCIES]
        currency.initial = default_currency()
        if self.remembered:
            del self.fields["organization"], self.fields["currency"]
            # A disabled field takes its initial value, whatever is posted.
            self.initial["email"] = self.remembered.invitation.email
            self.fields["email"].disabled = True
        elif len(settings.CURRENCIES) == 1:
            del self.fields["currency"]

    def clean_full_name(self) -> str:
        return cleaned_name(str(self.cleaned_data["full_name"]))

    def clean_organization(self) -> str:
        return cleaned_name(str(self.cleaned_data["organization"]))

    def vouch_for_address(self, request: HttpRequest) -> None:
        """The link of an invitation was sent to its address: who has it has the address."""
        if self.remembered:
            get_adapter().stash_verified_email(request, self.remembered.invitation.email)

    def signup(self, request: HttpRequest, user: User) -> None:
        """The one domain call of a sign-up, in the transaction that makes the person."""
        now = utc_now()
        with role_scope("auth"):
            if self.remembered:
                tenant_operations.accept_terms(user_id=user.id, version=settings.TERMS_VERSION)
                tenant_operations.accept_invitation(
                    token=self.remembered.token,
                    user_id=user.id,
                    verified_emails=[self.remembered.invitation.email],
                    now=now,
                )
                invitations.forget(request)
                joined = _("You are now a member of %(organization)s.")
                messages.success(request, joined % {"organization": self.remembered.invitation.organization})
                return
            currency = self.cleaned_data.get("currency") or settings.CURRENCIES[0]
            quota_operations.open_tenant(
                name=self.cleaned_data["organization"],
                currency=currency,
                currencies=settings.CURRENCIES,
                owner_id=user.id,
                accepted_terms=settings.TERMS_VERSION,
                welcome=welcome.offer(currency),
            )
