"""The addresses of this door: allauth's below /accounts/, and ours."""

from allauth.mfa.recovery_codes.views import view_recovery_codes
from allauth.mfa.totp.views import activate_totp
from django.urls import URLPattern, URLResolver, include, path
from django.views.decorators.cache import never_cache

from portal.accounts import second_steps as _second_steps  # noqa: F401 - it listens
from portal.accounts import signing_up, views

OWN = (
    [
        path("accounts/", views.account_settings, name="settings"),
        path("accounts/accept-terms/", views.accept_terms, name="accept_terms"),
        path("invitations/<str:token>", views.invitation, name="invitation"),
        path("terms", views.terms, name="terms"),
        path("privacy", views.privacy, name="privacy"),
        path("mailbox", views.mailbox, name="mailbox"),
        path("mailbox/<str:mail_id>", views.mail, name="mail"),
    ],
    "accounts",
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include(OWN)),
    # In the place of allauth's views of the same names.
    path("accounts/signup/", signing_up.SignupView.as_view(), name="account_signup"),
    path("accounts/3rdparty/signup/", signing_up.SocialSignupView.as_view(), name="socialaccount_signup"),
    # Pages with secrets are kept by no cache and no history.
    path("accounts/2fa/totp/activate/", never_cache(activate_totp), name="mfa_activate_totp"),
    path("accounts/2fa/recovery-codes/", never_cache(view_recovery_codes), name="mfa_view_recovery_codes"),
    path("accounts/", include("allauth.urls")),
]
