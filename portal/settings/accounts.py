"""Sign-up, sign-in and what a new customer is given, as the environment says. Imported by base."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from django.core.exceptions import ImproperlyConfigured

from portal.kit.money import parse_amount
from portal.settings.environment import Environment

_environment = Environment()
_IS_PRODUCTION = _environment.text("SLUICE_ENV", "development") == "production"

# --- Who may come in --------------------------------------------------------------------------------
# "invitation": only people whom a member of an organization has invited may sign up.
SIGNUP = _environment.choice("SLUICE_SIGNUP", ("open", "invitation"), "open")
# The version that people accept; when it changes, signed-in people are asked again.
TERMS_VERSION = _environment.text("TERMS_VERSION", "2026-11")
TERMS_URL = _environment.text("TERMS_URL", "/terms")
PRIVACY_URL = _environment.text("PRIVACY_URL", "/privacy")


def _amounts(name: str, default: str) -> dict[str, int]:
    """`USD=1.00,CNY=7.00` as nano-units by currency."""
    amounts: dict[str, int] = {}
    for part in _environment.names(name, default):
        currency, separator, amount = part.partition("=")
        try:
            amounts[currency.strip()] = parse_amount(amount.strip())
        except ValueError:
            separator = ""
        if not separator:
            raise ImproperlyConfigured(f"{name} is a list such as USD=1.00,CNY=7.00, not {part!r}")
    return amounts


# --- Welcome credit: once a person and organization, only after the address is verified --------------
# A laptop gives some, so that a newcomer's first call works; a centre decides for itself.
WELCOME_AMOUNTS = _amounts("SLUICE_WELCOME", "none=0" if _IS_PRODUCTION else "USD=1.00,CNY=7.00")
WELCOME_AMOUNTS.pop("none", None)
# What is left of it so many days later goes; 0 for never.
WELCOME_DAYS = _environment.number("SLUICE_WELCOME_DAYS", 0, 0, 3660)
WELCOME_APPROVAL = _environment.choice("SLUICE_WELCOME_APPROVAL", ("automatic", "operator"), "automatic")
# Beyond these, within a day and within an hour, an operator decides.
WELCOME_PER_DOMAIN_DAY = _environment.number("SLUICE_WELCOME_PER_DOMAIN_DAY", 5, 0, 1_000_000)
WELCOME_PER_HOUR = _environment.number("SLUICE_WELCOME_PER_HOUR", 100, 0, 1_000_000)
WELCOME_DISPOSABLE_DOMAINS = frozenset(
    domain.lower()
    for domain in _environment.names(
        "SLUICE_DISPOSABLE_DOMAINS",
        "10minutemail.com,dispostable.com,getnada.com,guerrillamail.com,mailinator.com,maildrop.cc,"
        "moakt.com,sharklasers.com,temp-mail.org,tempmail.com,throwawaymail.com,trashmail.com,yopmail.com",
    )
)

# --- allauth: accounts ------------------------------------------------------------------------------
ACCOUNT_ADAPTER = "portal.accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {
    "signup": "portal.accounts.forms.SignupForm",
    "login": "portal.accounts.forms.LoginForm",
}
ACCOUNT_SIGNUP_FORM_CLASS = "portal.accounts.customer_fields.CustomerFields"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_DISPLAY = "portal.accounts.people.display_name"
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_CONFIRMATION_EXPIRE_DAYS = 3
# Mail scanners open links; only a person presses the button.
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Sluice] "
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 900
ACCOUNT_SESSION_REMEMBER = None
ACCOUNT_SIGNUP_FORM_HONEYPOT_FIELD = "homepage"
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if _IS_PRODUCTION else "http"
_SIGNUPS_PER_HOUR = _environment.number("SLUICE_SIGNUPS_PER_HOUR", 30, 1, 100_000)
ACCOUNT_RATE_LIMITS = {
    "signup": f"{_SIGNUPS_PER_HOUR}/h/ip",
    "login": "30/m/ip",
    "login_failed": "10/m/ip,5/5m/key",
    "reset_password": "20/m/ip,5/h/key",
    "confirm_email": "1/m/key",
}
# How many proxies in front are ours; without one, what X-Forwarded-For says is not believed.
ALLAUTH_TRUSTED_PROXY_COUNT = _environment.number("TRUSTED_PROXY_COUNT", 0, 0, 10)

USERSESSIONS_TRACK_ACTIVITY = False
SESSION_COOKIE_AGE = int(timedelta(days=14).total_seconds())

# --- allauth: second factors --------------------------------------------------------------------------
MFA_ADAPTER = "portal.accounts.adapter.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes", "webauthn"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Sluice"
MFA_TOTP_TOLERANCE = 1
MFA_FORMS = {"add_webauthn": "portal.accounts.forms.AddPasskeyForm"}

# --- allauth: sign-in with other accounts, when configured ---------------------------------------------
SOCIALACCOUNT_ADAPTER = "portal.accounts.adapter.SocialAccountAdapter"
SOCIALACCOUNT_FORMS = {"signup": "portal.accounts.forms.SocialSignupForm"}
# New customers name their organization and accept the terms, wherever they come from.
SOCIALACCOUNT_AUTO_SIGNUP = False
# Whoever configures a provider trusts what it says of addresses; only addresses it has verified count.
SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_REQUESTS_TIMEOUT = 5


def _oidc_apps(path: Path | None) -> list[dict[str, Any]]:
    """The providers of a JSON or YAML file: a list of id, name, client_id, secret and server_url."""
    if path is None:
        return []
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ImproperlyConfigured(f"OIDC_PROVIDERS_FILE cannot be read: {type(error).__name__}") from None
    needed = {"id", "name", "client_id", "secret", "server_url"}
    if not isinstance(listed, list) or not all(
        isinstance(one, dict) and set(one) == needed for one in listed
    ):
        raise ImproperlyConfigured(f"OIDC_PROVIDERS_FILE must be a list of {', '.join(sorted(needed))}")
    return [
        {
            "provider_id": str(one["id"]),
            "name": str(one["name"]),
            "client_id": str(one["client_id"]),
            "secret": str(one["secret"]),
            "settings": {"server_url": str(one["server_url"]), "oauth_pkce_enabled": True},
        }
        for one in listed
    ]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _own_app(prefix: str) -> dict[str, Any]:
    client_id, secret = (
        _environment.optional(f"{prefix}_CLIENT_ID"),
        _environment.optional(f"{prefix}_SECRET"),
    )
    if bool(client_id) != bool(secret):
        raise ImproperlyConfigured(f"{prefix}_CLIENT_ID and {prefix}_SECRET are set together or not at all")
    return {"APPS": [{"client_id": client_id, "secret": secret, "settings": {}}] if client_id else []}


SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {
    "openid_connect": {"APPS": _oidc_apps(_environment.path("OIDC_PROVIDERS_FILE"))},
    "github": {**_own_app("GITHUB"), "SCOPE": ["user:email"]},
    "google": {**_own_app("GOOGLE"), "SCOPE": ["profile", "email"]},
}

# A form that leads to a provider ends there, and browsers hold that against form-action.
SIGN_IN_ORIGINS = sorted(
    {_origin(app["settings"]["server_url"]) for app in SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"]}
    | ({"https://github.com"} if SOCIALACCOUNT_PROVIDERS["github"]["APPS"] else set())
    | ({"https://accounts.google.com"} if SOCIALACCOUNT_PROVIDERS["google"]["APPS"] else set())
)
