"""The Django admin: operators see every table of ours, and change none of them here."""

from typing import Final

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.views import redirect_to_login
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.urls import reverse

from models_catalog.models import (
    ApiKeyModel,
    CatalogModel,
    CatalogRevision,
    Deployment,
    ModelAlias,
    ModelGrant,
    PriceLine,
    PriceVersion,
    PriceWindow,
    PriceWindowSpan,
    ServingBackend,
    ServingPool,
)
from portal.backoffice.read_only import MAX_RELATED, Related, read_only
from quotas.models import (
    Attempt,
    BillBundlePart,
    BusinessHour,
    Correction,
    CorrectionNotice,
    CounterSample,
    DeploymentHour,
    FeedRecord,
    Hold,
    InferenceRequest,
    LedgerAccount,
    LedgerEntry,
    LedgerTransfer,
    LimitUse,
    PoolHour,
    UsageRecord,
    UsageRollup,
    Wallet,
    WelcomeGrant,
)
from tenants.models import ApiKey, Invitation, Membership, OutboxMessage, Tenant, TermsAcceptance, User

# Models whose key has several columns, and where their rows are shown instead.
SHOWN_ELSEWHERE: Final = {
    PoolHour: "on the business page",
    DeploymentHour: "on the business page",
    BusinessHour: "on the business page",
    UsageRecord: "on the page of its request",
    UsageRollup: "on the page of its wallet",
    LimitUse: "on the page of its wallet",
    LedgerEntry: "on the page of its transfer",
    FeedRecord: "on the page of its discrepancy",
    Correction: "on the page of its request",
    CorrectionNotice: "in the outbox",
    BillBundlePart: "in the file of its bundle",
}

site = admin.site
site.site_header = "Sluice — OPERATOR"
site.site_title = "Sluice — OPERATOR"
site.site_url = "/operator/witness"

# Whatever other apps have registered can be edited and holds secrets: providers' keys, second factors,
# sessions.
for foreign in list(site._registry):
    site.unregister(foreign)


def _sign_in(request: HttpRequest, extra_context: object = None) -> HttpResponse:
    """There is one way to sign in, with its second factor and its limits; the admin has none of its own."""
    if request.user.is_authenticated:
        return HttpResponseRedirect(reverse("admin:index"))
    return redirect_to_login(reverse("admin:index"), resolve_url(settings.LOGIN_URL))


def _change_password(request: HttpRequest, extra_context: object = None) -> HttpResponse:
    return HttpResponseRedirect(reverse("account_change_password"))


def _sign_out(request: HttpRequest, extra_context: object = None) -> HttpResponse:
    return HttpResponseRedirect(reverse("account_logout"))


def _log_entries(request: HttpRequest) -> QuerySet[LogEntry]:
    """Without the people of the entries, whose passwords would be read with them."""
    return LogEntry.objects.select_related("content_type")


site.get_log_entries = _log_entries  # type: ignore[method-assign]
site.login = _sign_in  # type: ignore[method-assign]
site.password_change = _change_password  # type: ignore[method-assign, assignment]
site.logout = _sign_out  # type: ignore[method-assign, assignment]

_USAGE = Related(
    "usage",
    (
        "revision",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "reasoning_tokens",
        "cost_nanos",
        "charged_nanos",
        "overrun_nanos",
        "basis",
        "provenance",
        "source",
        "recorded_at",
    ),
    lambda request: UsageRecord.objects.filter(request_id=request.pk).defer("payload_sha256")[:MAX_RELATED],
)
_ATTEMPTS = Related(
    "attempts",
    (
        "id",
        "choice_index",
        "ordinal",
        "started_at",
        "ended_at",
        "outcome",
        "http_status",
        "ttft_ms",
        "prompt_tokens",
        "completion_tokens",
    ),
    lambda request: Attempt.objects.filter(request_id=request.pk).order_by("choice_index", "ordinal")[
        :MAX_RELATED
    ],
)
_ENTRIES = Related(
    "entries",
    ("account", "amount_nanos", "currency"),
    lambda transfer: LedgerEntry.objects.filter(transfer_id=transfer.pk).select_related("account")[
        :MAX_RELATED
    ],
)
_ROLLUPS = Related(
    "usage by the hour, newest first",
    (
        "hour",
        "model",
        "api_key",
        "requests",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "cost_nanos",
        "charged_nanos",
    ),
    lambda wallet: (
        UsageRollup.objects.filter(tenant_id=wallet.pk)
        .select_related("model", "api_key")
        .defer("api_key__digest")
        .order_by("-hour")[:MAX_RELATED]
    ),
)
_LIMIT_USES = Related(
    "used of quotas and budgets, newest period first",
    ("kind", "model_id", "api_key_id", "period_start", "used", "pending"),
    lambda wallet: LimitUse.objects.filter(tenant_id=wallet.pk).order_by("-period_start")[:MAX_RELATED],
)

# WHO
site.register(
    User,
    read_only(
        "email",
        "full_name",
        "is_active",
        "is_staff",
        "date_joined",
        "last_login",
        hidden=("password",),
        search=("email", "full_name"),
        filters=("is_staff", "is_active"),
    ),
)
site.register(
    Tenant,
    read_only(
        "name",
        "state",
        "currency",
        "created_at",
        search=("name",),
        filters=("state", "currency"),
        id_prefix="organization",
    ),
)
site.register(
    Membership, read_only("tenant", "user", "role", "created_at", filters=("role",), search=("user__email",))
)
site.register(
    Invitation,
    read_only(
        "tenant",
        "email",
        "role",
        "created_at",
        "expires_at",
        "accepted_at",
        "revoked_at",
        hidden=("token_digest",),
        search=("email",),
    ),
)
site.register(TermsAcceptance, read_only("user", "version", "tenant", "accepted_at", search=("user__email",)))
site.register(
    ApiKey,
    read_only(
        "name",
        "tenant",
        "purpose",
        "secret_hint",
        "expires_at",
        "revoked_at",
        "last_used_at",
        hidden=("digest",),
        search=("name",),
        id_prefix="api_key",
    ),
)
site.register(
    OutboxMessage,
    read_only(
        "to_email",
        "subject",
        "created_at",
        "sent_at",
        "attempts",
        "last_error",
        hidden=("text_body", "html_body"),
        search=("to_email",),
    ),
)

# How people sign in: what there is, without the secrets in it.
site.register(EmailAddress, read_only("email", "user", "verified", "primary", search=("email",)))
site.register(
    Authenticator,
    read_only(
        "id",
        "user",
        "type",
        "created_at",
        "last_used_at",
        hidden=("data",),
        search=("user__email",),
        is_list_only=True,
    ),
)
site.register(
    SocialAccount,
    read_only(
        "user", "provider", "last_login", "date_joined", hidden=("extra_data",), search=("user__email",)
    ),
)
site.register(
    UserSession,
    read_only(
        "user", "ip", "created_at", "last_seen_at", hidden=("session_key", "data"), search=("user__email",)
    ),
)

# WHAT
site.register(
    CatalogModel,
    read_only("slug", "context_tokens", "max_output_tokens", "state", search=("slug",), filters=("state",)),
)
site.register(ModelGrant, read_only("tenant", "model", "created_at", "ended_at"))
site.register(ApiKeyModel, read_only("tenant", "api_key", "model"))
site.register(ModelAlias, read_only("name", "model", "created_at"))
site.register(CatalogRevision, read_only("id", "revision"))
site.register(
    PriceVersion,
    read_only(
        "model", "tenant", "currency", "active_from", "active_to", "published_at", filters=("currency",)
    ),
)
site.register(
    PriceLine, read_only("version", "token_class", "service_tier", "window", "price_nanos_per_million")
)
site.register(PriceWindow, read_only("version", "name"))
site.register(PriceWindowSpan, read_only("window", "version"))
site.register(ServingPool, read_only("code", "name", "accelerator_kind", "region", newest_first=False))
site.register(
    ServingBackend,
    read_only(
        "code",
        "pool",
        "engine",
        "engine_version",
        "base_url",
        "max_concurrency",
        "state",
        hidden=("credential_encrypted",),
        search=("code",),
        filters=("engine", "state"),
        newest_first=False,
    ),
)
site.register(Deployment, read_only("model", "backend", "upstream_model", "state", filters=("state",)))

# HOW MUCH
site.register(
    Wallet,
    read_only(
        "tenant",
        "currency",
        "paid_nanos",
        "granted_nanos",
        "receivable_nanos",
        "pending_nanos",
        filters=("currency",),
        related={"usage_by_hour": _ROLLUPS, "used_of_limits": _LIMIT_USES},
    ),
)
site.register(
    WelcomeGrant,
    read_only(
        "tenant", "user", "amount_nanos", "currency", "state", "reason", "created_at", filters=("state",)
    ),
)
site.register(LedgerAccount, read_only("id", "kind", "currency", "tenant", filters=("kind", "currency")))
site.register(
    LedgerTransfer,
    read_only(
        "id",
        "kind",
        "tenant",
        "currency",
        "reason",
        "posted_at",
        id_prefix="transfer",
        related={"entries": _ENTRIES},
    ),
)
site.register(
    InferenceRequest,
    read_only(
        "id",
        "tenant",
        "model",
        "api_key",
        "is_stream",
        "choices",
        "admitted_at",
        id_prefix="request",
        related={"attempt_rows": _ATTEMPTS, "usage_rows": _USAGE},
    ),
)
site.register(
    Attempt,
    read_only(
        "id",
        "tenant",
        "deployment",
        "started_at",
        "ended_at",
        "outcome",
        "http_status",
        "prompt_tokens",
        "completion_tokens",
        id_prefix="attempt",
    ),
)
site.register(
    Hold,
    read_only(
        "request", "tenant", "amount_nanos", "currency", "state", "lease_until", "resolved_at", "resolved_by"
    ),
)
site.register(
    CounterSample,
    read_only(
        "backend",
        "incarnation",
        "sampled_at",
        "prompt_tokens",
        "cached_tokens",
        "completion_tokens",
        "running",
        "error",
    ),
)

# What operators' work leaves behind is registered once the others' are gone.
from portal.backoffice import (  # noqa: E402
    admin_bank,  # noqa: F401
    admin_books,  # noqa: F401
    admin_operations,  # noqa: F401
    admin_payments,  # noqa: F401
    admin_reconciliation,  # noqa: F401
)
