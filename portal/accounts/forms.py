"""The forms of sign-up and sign-in, on top of allauth's."""

from typing import Any

from allauth.account.forms import LoginForm as BaseLoginForm
from allauth.account.forms import SignupForm as BaseSignupForm
from allauth.mfa.webauthn.forms import AddWebAuthnForm
from allauth.socialaccount.forms import SignupForm as BaseSocialSignupForm
from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from portal.accounts.people import cleaned_name
from tenants.models import User


class LoginForm(BaseLoginForm):  # type: ignore[misc]
    """Address, password, and whether to stay signed in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _describe(self.fields["login"], label=_("E-mail"), autocomplete="username", inputmode="email")
        _describe(self.fields["password"], label=_("Password"))
        self.fields["remember"].label = _("Stay signed in on this device")


class SignupForm(BaseSignupForm):  # type: ignore[misc]
    """Sign-up with an address and a password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _describe(self.fields["email"], label=_("E-mail"), autocomplete="email", inputmode="email")
        _describe(self.fields["password1"], label=_("Password"))
        self.fields["password1"].help_text = _(
            "At least 10 characters, not a common one, not like your address."
        )
        # Hidden by a class: style attributes are refused by the content security policy.
        trap = self.fields[settings.ACCOUNT_SIGNUP_FORM_HONEYPOT_FIELD].widget
        trap.attrs = {"tabindex": "-1", "autocomplete": "off"}

    def save(self, request: HttpRequest) -> User:
        self.vouch_for_address(request)
        user: User = super().save(request)
        return user


class SocialSignupForm(BaseSocialSignupForm):  # type: ignore[misc]
    """Sign-up with an account elsewhere: what that does not say, the person adds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _describe(self.fields["email"], label=_("E-mail"), autocomplete="email", inputmode="email")

    def save(self, request: HttpRequest) -> User:
        self.vouch_for_address(request)
        user: User = super().save(request)
        return user


class AddPasskeyForm(AddWebAuthnForm):  # type: ignore[misc]
    """A passkey, or a key that is a second step only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].label = _("Name")
        self.fields["passwordless"].label = _("Sign in with it alone")
        self.fields["passwordless"].initial = True
        self.fields["passwordless"].help_text = _("Without this it is asked after the password.")


class NameForm(forms.ModelForm):  # type: ignore[type-arg]
    """How a person is called."""

    class Meta:
        model = User
        fields = ["full_name"]
        labels = {"full_name": _("Your name")}
        widgets = {"full_name": forms.TextInput(attrs={"autocomplete": "name"})}

    def clean_full_name(self) -> str:
        name = str(self.cleaned_data["full_name"])
        return cleaned_name(name) if name else name


class TermsForm(forms.Form):
    """Acceptance of the present terms."""

    terms = forms.BooleanField(label=_("I accept the terms of service and have read the privacy notice"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.terms_url, self.privacy_url = settings.TERMS_URL, settings.PRIVACY_URL


def _describe(field: forms.Field, *, label: Any, **attributes: str) -> None:
    """Name a field by its label alone: placeholders vanish when people need them."""
    field.label = label
    field.widget.attrs.pop("placeholder", None)
    field.widget.attrs.update(attributes)
