"""Reads the environment: every value is validated, and an unknown SLUICE_ variable is refused.

A typo in a setting that concerns money or access must stop the start, not be ignored.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

ENVIRONMENTS = ("development", "production", "test")

# The database roles of the design. Each process names the one that its `default` alias uses.
DATABASE_ROLES = ("owner", "tenant", "operator", "auth", "dataplane", "ingest")

# Every tunable: name → (default, lowest, highest). Seconds, bytes and counts as the suffix says.
TUNABLES: Mapping[str, tuple[int, int, int]] = {
    "SLUICE_LEASE_S": (20, 4, 600),
    "SLUICE_CHECKPOINT_S": (2, 1, 60),
    "SLUICE_SWEEP_S": (20, 2, 3600),
    "SLUICE_DRAIN_S": (15, 0, 3600),
    "SLUICE_MAX_BODY_BYTES": (8 * 2**20, 1024, 256 * 2**20),
    "SLUICE_BODY_TIMEOUT_S": (20, 1, 600),
    "SLUICE_ADMISSION_DEADLINE_S": (5, 1, 60),
    "SLUICE_CONNECT_TIMEOUT_S": (5, 1, 60),
    "SLUICE_FIRST_BYTE_TIMEOUT_S": (120, 1, 3600),
    "SLUICE_IDLE_TIMEOUT_S": (60, 1, 3600),
    "SLUICE_CALL_TIMEOUT_S": (900, 1, 86400),
    "SLUICE_MAX_CALLS": (4000, 1, 100000),
    "SLUICE_GATEWAY_POOL": (10, 8, 64),
    "SLUICE_KEY_OVERLAP_S": (86400, 0, 30 * 86400),
    "SLUICE_SAMPLE_S": (15, 1, 3600),
    # How often watched folders of usage feeds are read (quotas/reconciliation/ingest).
    "SLUICE_FEED_S": (5, 1, 3600),
    # Control totals of the counters (quotas/reconciliation/windows).
    "SLUICE_WINDOW_S": (300, 10, 86400),
    "SLUICE_RECONCILE_S": (60, 1, 3600),
    "SLUICE_WATERMARK_MAX_WAIT_S": (3 * 86400, 60, 30 * 86400),
    "SLUICE_UNEXPLAINED_ALERT_PPM": (1000, 0, 1_000_000),
    "SLUICE_HEALTH_S": (5, 0, 3600),
    "SLUICE_AFFINITY_PERCENT": (150, 0, 1000),
    "SLUICE_ALLOCATE_S": (300, 10, 3600),
    "SLUICE_ALLOCATION_GRACE_S": (3600, 60, 7 * 86400),
    "SLUICE_RATE_LIMIT_RPM": (0, 0, 10_000_000),
    "SLUICE_PRICE_NOTICE_DAYS": (7, 0, 365),
    "SLUICE_ELEVATED_S": (3600, 60, 86400),
    "SLUICE_CREDIT_LIMIT_UNITS": (100, 0, 1_000_000),
    "SLUICE_CREDIT_LINE_LIMIT_UNITS": (0, 0, 1_000_000),
    "SLUICE_API_LIMIT_RPM": (300, 1, 10_000_000),
    # Payments (quotas/payments/policy.py); 0 and 1 are no and yes.
    "SLUICE_TOP_UP_FREE": (1, 0, 1),
    "SLUICE_TOP_UP_LOWEST_UNITS": (5, 1, 1_000_000),
    "SLUICE_TOP_UP_HIGHEST_UNITS": (10_000, 1, 1_000_000),
    "SLUICE_OPEN_TOP_UPS": (10, 1, 1000),
    "SLUICE_CHECKOUT_S": (3600, 1860, 86400),
    "SLUICE_PAYMENTS_TAX": (0, 0, 1),
    "SLUICE_PAYMENTS_INVOICES": (1, 0, 1),
    "SLUICE_RECEIVABLE_LIMIT_UNITS": (0, 0, 1_000_000),
    "SLUICE_REFUND_LIMIT_UNITS": (1000, 0, 1_000_000),
    # Monthly invoices (quotas/payments/postpaid/policy.py).
    "SLUICE_INVOICE_GRACE_S": (3600, 0, 7 * 86400),
    "SLUICE_INVOICE_LAG_S": (900, 0, 86400),
    "SLUICE_INVOICE_LOWEST_UNITS": (1, 0, 1000),
    "SLUICE_INVOICE_SUSPEND_DAYS": (21, 0, 365),
    "SLUICE_INVOICES_S": (3600, 1, 86400),
    # What backends' records correct without anybody being asked (quotas/reconciliation/policy.py).
    "SLUICE_CORRECTION_LIMIT_UNITS": (1, 0, 1_000_000),
    "SLUICE_CORRECTION_DAY_UNITS": (5, 0, 1_000_000),
    "SLUICE_CORRECTION_DAYS": (35, 0, 365),
    "SLUICE_MATCH_S": (10, 1, 3600),
    # Corrections of at least so much are told by mail (quotas/reconciliation/notices.py).
    "SLUICE_CORRECTION_MAIL_UNITS": (1, 0, 1_000_000),
    # Verifiable bills (quotas/bundles): how long one can be downloaded.
    "SLUICE_BUNDLE_DAYS": (30, 1, 3650),
    "SLUICE_PAYMENTS_POLL_S": (30, 1, 3600),
    "SLUICE_TOP_UPS_POLL_S": (5, 1, 3600),
    "SLUICE_BOOKS_S": (3600, 1, 86400),
    "SLUICE_BOOKS_MATCH_S": (86400, 60, 7 * 86400),
    "SLUICE_RECEIVABLES_S": (60, 1, 3600),
    "SLUICE_RECHARGE_S": (5, 1, 3600),
    "SLUICE_RECHARGE_RETRY_S": (3600, 1, 30 * 86400),
    "SLUICE_RECHARGE_LAST_RETRY_S": (86400, 1, 30 * 86400),
}

KNOWN_SLUICE_NAMES = frozenset(TUNABLES) | {
    "SLUICE_ENV",
    "SLUICE_CURRENCIES",
    "SLUICE_LOG_LEVEL",
    "SLUICE_TOP_UP_AMOUNTS",
    "SLUICE_INVOICE_REMINDER_DAYS",
    # Of accounts (portal/settings/accounts.py).
    "SLUICE_SIGNUP",
    "SLUICE_SIGNUPS_PER_HOUR",
    "SLUICE_WELCOME",
    "SLUICE_WELCOME_APPROVAL",
    "SLUICE_WELCOME_DAYS",
    "SLUICE_WELCOME_PER_DOMAIN_DAY",
    "SLUICE_WELCOME_PER_HOUR",
    "SLUICE_DISPOSABLE_DOMAINS",
}


def select_settings(*, database_role: str) -> None:
    """Point Django at the settings module of SLUICE_ENV and name this process's database role.

    Raises ImproperlyConfigured for an unknown environment. Does not override what is already set.
    """
    name = os.environ.get("SLUICE_ENV", "development")
    if name not in ENVIRONMENTS:
        raise ImproperlyConfigured(f"SLUICE_ENV is {name!r}; it must be one of {', '.join(ENVIRONMENTS)}")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"portal.settings.{name}")
    os.environ.setdefault("DATABASE_ROLE", database_role)


@dataclass(frozen=True, slots=True)
class Environment:
    """One reading of the environment.

    Errors: ImproperlyConfigured, naming the variable and what it may be.
    """

    values: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        unknown = sorted(
            name for name in self.values if name.startswith("SLUICE_") and name not in KNOWN_SLUICE_NAMES
        )
        if unknown:
            raise ImproperlyConfigured(f"Unknown setting: {', '.join(unknown)}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.values.get(name, "")
        if value:
            return value
        if default is None:
            raise ImproperlyConfigured(f"{name} must be set")
        return default

    def optional(self, name: str) -> str | None:
        return self.values.get(name) or None

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.text(name, default)
        if value not in allowed:
            raise ImproperlyConfigured(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
        return value

    def names(self, name: str, default: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name, default).split(",") if part.strip())

    def path(self, name: str) -> Path | None:
        value = self.optional(name)
        return Path(value) if value else None

    def tunable(self, name: str) -> int:
        return self.number(name, *TUNABLES[name])

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        text = self.values.get(name, "")
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            raise ImproperlyConfigured(f"{name} is {text!r}; it must be a whole number") from None
        if not lowest <= value <= highest:
            raise ImproperlyConfigured(f"{name} is {value}; it must be from {lowest} to {highest}")
        return value

    def tunables(self) -> dict[str, int]:
        values = {name: self.tunable(name) for name in TUNABLES}
        # A call is cut one checkpoint before its lease ends, and a checkpoint may take a quarter of a lease.
        lease_s, checkpoint_s = values["SLUICE_LEASE_S"], values["SLUICE_CHECKPOINT_S"]
        if lease_s < 3 * checkpoint_s:
            raise ImproperlyConfigured(
                f"SLUICE_LEASE_S is {lease_s}; it must be at least 3 × SLUICE_CHECKPOINT_S ({checkpoint_s})"
            )
        return values


def database_config(
    url: str, *, role: str | None, application: str, pool_size: int = 0, statement_timeout_s: int = 0
) -> dict[str, object]:
    """A Django DATABASES entry of a postgresql:// URL.

    role: the PostgreSQL role that the session takes at its start; None keeps the login's own.
    pool_size: connections that threads share; 0 gives each thread one of its own, for a minute.
    statement_timeout_s: after which PostgreSQL gives a statement up; 0 is never.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise ImproperlyConfigured("DATABASE_URL must start with postgresql://")
    query = dict(parse_qsl(parts.query))
    startup = "-c timezone=UTC" if role is None else f"-c timezone=UTC -c role={role}"
    if statement_timeout_s:
        startup += f" -c statement_timeout={statement_timeout_s}s"
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 0 if pool_size else 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **query,
            "options": startup,
            "application_name": application,
            **({"pool": {"min_size": 0, "max_size": pool_size, "timeout": 10}} if pool_size else {}),
        },
        "TEST": {"MIRROR": None},
    }
