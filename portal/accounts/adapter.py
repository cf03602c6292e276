"""How allauth's flows are bound to the domain: mails into the outbox, secrets encrypted, who may sign up."""

from typing import Any, Final
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core import context as allauth_context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from allauth.socialaccount.providers.base import Provider
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.translation import get_language, gettext

from portal.accounts import invitations, welcome
from portal.accounts.mailing import post_mail
from portal.accounts.second_steps import has_factor
from portal.kit.clock import utc_now
from portal.kit.secrets import SecretStore
from tenants.models import User

ADDRESS_TO_CONFIRM: Final = "address_to_confirm"
"""Key of the session: where the last link went, as `account/verification_sent.html` says."""


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Sign-up and sign-in by address and password."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return settings.SIGNUP == "open" or invitations.remembered(request) is not None

    def save_user(self, request: HttpRequest, user: User, form: Form, commit: bool = True) -> User:
        user.full_name = form.cleaned_data["full_name"]
        saved: User = super().save_user(request, user, form, commit)
        return saved

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> bool:
        """Whose address is verified gets the welcome credit that sign-up promised, once that is committed."""
        confirmed: bool = super().confirm_email(request, email_address)
        if confirmed:
            user_id, email = email_address.user_id, email_address.email
            transaction.on_commit(lambda: welcome.give(request, user_id=user_id, verified_email=email))
        return confirmed

    def post_login(self, request: HttpRequest, user: User, **how: Any) -> HttpResponse:
        response: HttpResponse = super().post_login(request, user, **how)
        verified = EmailAddress.objects.filter(user_id=user.id, verified=True, primary=True).first()
        if verified is not None:
            transaction.on_commit(
                lambda: welcome.give(request, user_id=user.id, verified_email=verified.email)
            )
        return response

    def send_confirmation_mail(self, request: HttpRequest, emailconfirmation: Any, signup: bool) -> None:
        """Also names the address on the page that asks to look into the mail: there a typing error shows."""
        request.session[ADDRESS_TO_CONFIRM] = emailconfirmation.email_address.email
        super().send_confirmation_mail(request, emailconfirmation, signup)

    def get_reauthentication_methods(self, user: User | AnonymousUser) -> list[dict[str, Any]]:
        """Who has a second factor proves to be there with it: whoever has found out the password alone could
        otherwise take the factor away."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        factors = [method for method in methods if method["id"] != "reauthenticate"]
        return factors if isinstance(user, User) and has_factor(user.pk) else methods

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Put the mail into the outbox, in the transaction of what it tells about."""
        request = allauth_context.request
        values = {"request": request, "email": email, "portal_url": settings.PORTAL_URL, **_links(context)}
        subject = " ".join(render_to_string(f"{template_prefix}_subject.txt", values).split())
        text = render_to_string(f"{template_prefix}_message.txt", values).strip()
        subject = self.format_email_subject(subject)
        html = render_to_string(
            "account/email/message.html", {"subject": subject, "text": text, "language": get_language()}
        )
        post_mail(to=email, subject=subject, text=text, html=html)


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Second factors. What the database keeps of authenticator apps and recovery codes is encrypted."""

    def encrypt(self, text: str) -> str:
        return _store().encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return _store().decrypt(encrypted_text)

    def generate_authenticator_name(self, user: User, type: Authenticator.Type) -> str:
        number = Authenticator.objects.filter(user_id=user.pk, type=type).count() + 1
        return gettext("Passkey %(number)d") % {"number": number}


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Sign-in with accounts elsewhere."""

    def get_provider(self, request: HttpRequest, provider: str, client_id: str | None = None) -> Provider:
        try:
            return super().get_provider(request, provider, client_id)
        except SocialApp.DoesNotExist:
            raise Http404("this provider is not configured") from None

    def authenticate_by_email(self, login: SocialLogin) -> Any:
        # An address counts as verified when the provider says exactly that: some spell `false` as a text.
        for address in login.email_addresses:
            address.verified = address.verified is True
        return super().authenticate_by_email(login)

    def new_user(self, request: HttpRequest, sociallogin: SocialLogin) -> User:
        # It waits in the session, as JSON, for the rest of the form: a default of the database cannot.
        user: User = super().new_user(request, sociallogin)
        user.date_joined = utc_now()
        return user

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: dict[str, Any]) -> User:
        user: User = super().populate_user(request, sociallogin, data)
        parts = (data.get("first_name"), data.get("last_name"))
        user.full_name = (data.get("name") or " ".join(part for part in parts if part))[:200]
        return user

    def get_signup_form_initial_data(self, sociallogin: SocialLogin) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_signup_form_initial_data(sociallogin)
        return {**initial, "full_name": sociallogin.user.full_name}


def _links(context: dict[str, Any]) -> dict[str, Any]:
    """The same with links to the portal's own address: whoever asks chooses that of the request.

    A development instance is reached under several names, and a session is good for one of them."""
    if settings.MAILBOX:
        return context
    portal = urlsplit(settings.PORTAL_URL)
    return {
        name: urlsplit(value)._replace(scheme=portal.scheme, netloc=portal.netloc).geturl()
        if name.endswith("_url") and isinstance(value, str)
        else value
        for name, value in context.items()
    }


def _store() -> SecretStore:
    store: SecretStore | None = settings.SECRET_STORE
    assert store is not None, "processes that sign people in have a secret store"
    return store
