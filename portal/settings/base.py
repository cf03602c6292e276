"""Settings that every environment shares. The environment decides; nothing here is secret."""

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from csp.constants import NONCE, SELF
from csp.constants import NONE as NONE_SOURCE

from portal.kit.secrets import SecretStore
from portal.settings.environment import DATABASE_ROLES, Environment, database_config

BASE_DIR = Path(__file__).resolve().parent.parent.parent
environment = Environment()

# --- Where things are -----------------------------------------------------------------------------
DATABASE_URL = environment.text("DATABASE_URL", "postgresql://sluice@127.0.0.1:5432/sluice")
VALKEY_URL = environment.text("VALKEY_URL", "redis://127.0.0.1:6379/0")
PORTAL_URL = environment.text("PORTAL_URL", "http://127.0.0.1:8000")
_PORTAL = urlsplit(PORTAL_URL)
# Browsers differ on whether 'self' covers sockets, so the origin is named.
WEBSOCKET_ORIGINS = [f"{'wss' if _PORTAL.scheme == 'https' else 'ws'}://{_PORTAL.netloc}"]
API_BASE = environment.text("API_BASE", "http://127.0.0.1:8001/v1")
DEMO_ENV_FILE = environment.path("DEMO_ENV_FILE")
CATALOG_FILE = environment.path("CATALOG_FILE")
DEVSTACK_MODEL_URL = environment.optional("DEVSTACK_MODEL_URL")
DEVSTACK_MODEL_KEY = environment.optional("DEVSTACK_MODEL_KEY")
METRICS_TOKEN = environment.optional("METRICS_TOKEN")

# --- Stripe, or what stands in for it (quotas/payments/client.py) -----------------------------------
STRIPE_SECRET_KEY = environment.optional("STRIPE_SECRET_KEY") or ""
STRIPE_WEBHOOK_SECRETS = environment.names("STRIPE_WEBHOOK_SECRETS", ",")
STRIPE_API_BASE = environment.optional("STRIPE_API_BASE") or ""
STRIPE_ACCOUNT = environment.optional("STRIPE_ACCOUNT") or ""

# --- Secrets: numbered peppers and encryption keys, so that they can be rotated --------------------
SECRETS_DIR = environment.path("SECRETS_DIR")
SECRET_STORE: SecretStore | None = SecretStore.load(SECRETS_DIR) if SECRETS_DIR else None
# Without a store (commands that need none) the key lives as long as the process.
SECRET_KEY = SECRET_STORE.django_secret_key if SECRET_STORE else secrets.token_urlsafe(50)

# --- What may be tuned ----------------------------------------------------------------------------
TUNING = environment.tunables()
CURRENCIES = environment.names("SLUICE_CURRENCIES", "USD,CNY")
# What can be bought at a click, in units; `CNY:100` is of one currency, which then has a list of its own.
TOP_UP_AMOUNTS = environment.names(
    "SLUICE_TOP_UP_AMOUNTS", "10,20,50,100,500,CNY:50,CNY:100,CNY:200,CNY:500,CNY:1000"
)
# So many days after a monthly invoice is due its organization is reminded of it.
INVOICE_REMINDER_DAYS = environment.names("SLUICE_INVOICE_REMINDER_DAYS", "0,7,14")
LOG_LEVEL = environment.choice("SLUICE_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")

# --- Django ---------------------------------------------------------------------------------------
DEBUG = False
ALLOWED_HOSTS = environment.names("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.socialaccount.providers.github",
    "allauth.socialaccount.providers.google",
    "allauth.usersessions",
    "csp",
    "django_htmx",
    "channels",
    "drf_spectacular",
    "tenants",
    "models_catalog",
    "quotas",
    "portal",
]
MIDDLEWARE = [
    "portal.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "portal.middleware.PrivateAnswersMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
    "portal.accounts.terms.TermsMiddleware",
    "portal.backoffice.middleware.OperatorScopeMiddleware",
]
ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "builtins": ["django.templatetags.i18n", "django.templatetags.static", "portal.pages.tags"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "portal.pages.context.page",
            ],
        },
    },
]
AUTH_USER_MODEL = "tenants.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/o/"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_THOUSAND_SEPARATOR = False
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": VALKEY_URL,
        # A cache that hangs must not hang pages.
        "OPTIONS": {"socket_timeout": 2, "socket_connect_timeout": 2},
    }
}
# What a page may load and where it may send forms. There is no exception: neither inline nor evaluated code.
CONTENT_SECURITY_POLICY: dict[str, dict[str, list[Any]]] = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF, *WEBSOCKET_ORIGINS],
        "object-src": [NONE_SOURCE],
        "base-uri": [NONE_SOURCE],
        "form-action": [SELF],
        "frame-ancestors": [NONE_SOURCE],
    }
}
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

# --- Mail: rows of an outbox, which the worker sends ------------------------------------------------
# Without a mail server mails stay in the outbox, and a page of a development instance shows them.
EMAIL_HOST = environment.optional("EMAIL_HOST") or ""
EMAIL_PORT = environment.number("EMAIL_PORT", 587, 1, 65535)
EMAIL_HOST_USER = environment.optional("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = environment.optional("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = environment.choice("EMAIL_SECURITY", ("starttls", "tls", "none"), "starttls") == "starttls"
EMAIL_USE_SSL = environment.choice("EMAIL_SECURITY", ("starttls", "tls", "none"), "starttls") == "tls"
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = environment.text("DEFAULT_FROM_EMAIL", "Sluice <no-reply@sluice.example>")
MAILBOX = False

# --- Database: one alias a role; `default` is the role that this process names ---------------------
# The lowest supported server: NULLS NOT DISTINCT and multi-column partition keys in constraints.
MIN_POSTGRESQL_VERSION = 15
DATABASE_ROLE = environment.choice("DATABASE_ROLE", DATABASE_ROLES, "auth")


# Where a thread lives as long as a request, as in the web process, connections are shared.
DATABASE_POOL = environment.number("DATABASE_POOL", 0, 0, 64)
# Nobody waits longer for a page, and no page holds a shared connection longer.
DATABASE_STATEMENT_TIMEOUT_S = environment.number("DATABASE_STATEMENT_TIMEOUT_S", 0, 0, 3600)


def _role_config(role: str) -> dict[str, object]:
    # A deployment may give each role a login of its own; without it the owner's login takes the role.
    own_login = environment.optional(f"DATABASE_URL_{role.upper()}")
    if own_login:
        return database_config(own_login, role=None, application=f"sluice-{role}", pool_size=DATABASE_POOL)
    return database_config(
        DATABASE_URL,
        role=None if role == "owner" else f"sluice_{role}",
        application=f"sluice-{role}",
        pool_size=DATABASE_POOL,
        statement_timeout_s=DATABASE_STATEMENT_TIMEOUT_S,
    )


DATABASES = {"default": _role_config(DATABASE_ROLE), **{role: _role_config(role) for role in DATABASE_ROLES}}
DATABASE_ROUTERS = ["tenants.scope.ScopeRouter"]

# --- Celery: messages are wake-ups, the truth is a row ---------------------------------------------
CELERY = {
    "broker_url": VALKEY_URL,
    "task_ignore_result": True,
    "task_default_queue": "default",
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "task_soft_time_limit": 240,
    "task_time_limit": 300,
    "broker_transport_options": {"visibility_timeout": 900},
    "broker_connection_retry_on_startup": True,
    "timezone": "UTC",
    "beat_schedule": {
        "sweep-expired-holds": {
            "task": "quotas.tasks.sweep_expired_holds",
            "schedule": float(TUNING["SLUICE_SWEEP_S"]),
            "options": {"queue": "ledger", "expires": TUNING["SLUICE_SWEEP_S"]},
        },
        "sample-counters": {
            "task": "quotas.tasks.sample_counters",
            "schedule": float(TUNING["SLUICE_SAMPLE_S"]),
            "options": {"queue": "default", "expires": TUNING["SLUICE_SAMPLE_S"]},
        },
        "tail-feeds": {
            "task": "quotas.tasks.tail_feeds",
            "schedule": float(TUNING["SLUICE_FEED_S"]),
            "options": {"queue": "reconciliation", "expires": TUNING["SLUICE_FEED_S"]},
        },
        "match-feeds": {
            "task": "quotas.tasks.match_feeds",
            "schedule": float(TUNING["SLUICE_MATCH_S"]),
            "options": {"queue": "reconciliation", "expires": TUNING["SLUICE_MATCH_S"]},
        },
        "reconcile-windows": {
            "task": "quotas.tasks.reconcile_windows",
            "schedule": float(TUNING["SLUICE_RECONCILE_S"]),
            "options": {"queue": "reconciliation", "expires": TUNING["SLUICE_RECONCILE_S"]},
        },
        "thin-counter-samples": {
            "task": "quotas.tasks.thin_counter_samples",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
        "sweep-price-replays": {
            "task": "quotas.tasks.sweep_price_replays",
            "schedule": 60.0,
            "options": {"queue": "default", "expires": 60},
        },
        "sweep-bill-bundles": {
            "task": "quotas.tasks.sweep_bill_bundles",
            "schedule": 60.0,
            "options": {"queue": "default", "expires": 60},
        },
        "mail-price-notices": {
            "task": "quotas.tasks.mail_price_notices",
            "schedule": 15.0,
            "options": {"queue": "default", "expires": 15},
        },
        "tell-corrections": {
            "task": "quotas.tasks.tell_corrections",
            "schedule": 60.0,
            "options": {"queue": "default", "expires": 60},
        },
        "prune-mail": {
            "task": "tenants.tasks.prune_mail",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
        "prune-writes": {
            "task": "tenants.tasks.prune_writes",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
        "deliver-mail": {
            "task": "tenants.tasks.deliver_mail",
            "schedule": 15.0,
            "options": {"queue": "default", "expires": 15},
        },
        "expire-credit": {
            "task": "quotas.tasks.expire_credit",
            "schedule": 600.0,
            "options": {"queue": "ledger", "expires": 600},
        },
        "make-partitions": {
            "task": "quotas.tasks.make_partitions",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
        "raise-budget-alerts": {
            "task": "quotas.tasks.raise_budget_alerts",
            "schedule": 30.0,
            "options": {"queue": "default", "expires": 30},
        },
        "raise-all-budget-alerts": {
            "task": "quotas.tasks.raise_all_budget_alerts",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
        "promote-tiers": {
            "task": "quotas.tasks.promote_tiers",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
        "allocate-hours": {
            "task": "quotas.tasks.allocate_hours",
            "schedule": float(TUNING["SLUICE_ALLOCATE_S"]),
            "options": {"queue": "default", "expires": TUNING["SLUICE_ALLOCATE_S"]},
        },
        "process-stripe-events": {
            "task": "quotas.tasks.process_stripe_events",
            "schedule": 15.0,
            "options": {"queue": "payments", "expires": 15},
        },
        "poll-stripe-events": {
            "task": "quotas.tasks.poll_stripe_events",
            "schedule": float(TUNING["SLUICE_PAYMENTS_POLL_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_PAYMENTS_POLL_S"]},
        },
        "poll-open-top-ups": {
            "task": "quotas.tasks.poll_open_top_ups",
            "schedule": float(TUNING["SLUICE_TOP_UPS_POLL_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_TOP_UPS_POLL_S"]},
        },
        "start-recharges": {
            "task": "quotas.tasks.start_recharges",
            "schedule": float(TUNING["SLUICE_RECHARGE_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_RECHARGE_S"]},
        },
        "read-stripe-books": {
            "task": "quotas.tasks.read_stripe_books",
            "schedule": float(TUNING["SLUICE_BOOKS_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_BOOKS_S"]},
        },
        "match-stripe-books": {
            "task": "quotas.tasks.match_stripe_books",
            "schedule": float(TUNING["SLUICE_BOOKS_MATCH_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_BOOKS_MATCH_S"]},
        },
        "review-receivables": {
            "task": "quotas.tasks.review_receivables",
            "schedule": float(TUNING["SLUICE_RECEIVABLES_S"]),
            "options": {"queue": "default", "expires": TUNING["SLUICE_RECEIVABLES_S"]},
        },
        "draw-up-invoices": {
            "task": "quotas.tasks.draw_up_invoices",
            "schedule": float(TUNING["SLUICE_INVOICES_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_INVOICES_S"]},
        },
        "remind-overdue": {
            "task": "quotas.tasks.remind_overdue",
            "schedule": float(TUNING["SLUICE_INVOICES_S"]),
            "options": {"queue": "payments", "expires": TUNING["SLUICE_INVOICES_S"]},
        },
        "sweep-stripe-operations": {
            "task": "quotas.tasks.sweep_stripe_operations",
            "schedule": 15.0,
            "options": {"queue": "payments", "expires": 15},
        },
        "issue-invoices": {
            "task": "quotas.tasks.issue_invoices",
            "schedule": 300.0,
            "options": {"queue": "default", "expires": 300},
        },
        "audit": {
            "task": "quotas.tasks.run_audit",
            "schedule": 3600.0,
            "options": {"queue": "default", "expires": 3600},
        },
    },
}

LOGGING_CONFIG = None  # portal.kit.logs.configure() sets logging up, the same for every process.

from portal.settings.accounts import *  # noqa: E402, F403
from portal.settings.accounts import ACCOUNT_REAUTHENTICATION_TIMEOUT, SIGN_IN_ORIGINS  # noqa: E402
from portal.settings.api import *  # noqa: E402, F403
from portal.settings.bank import *  # noqa: E402, F403

CONTENT_SECURITY_POLICY["DIRECTIVES"]["form-action"] += SIGN_IN_ORIGINS
# Where second factors are added and recovery codes shown, an old proof counts no longer than in the
# operators' area: with either of them that would open again.
ACCOUNT_REAUTHENTICATION_TIMEOUT = min(ACCOUNT_REAUTHENTICATION_TIMEOUT, TUNING["SLUICE_ELEVATED_S"])
