"""Tiers, limits, and how much of the limits of a period is used.

One limit is a ceiling of one kind for one scope: the organization, one of its models, one of its keys, or
one model through one key. Every scope that a call falls in applies. In each scope an operator's limit
replaces the tier's, and the organization's own can only lower what is left: see quotas_effective_limits.
"""

from __future__ import annotations

from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from models_catalog.models import CatalogModel
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import ApiKey, Tenant, User
from tenants.scope import TenantManager

# Stands in columns that are part of a key for "every model" and "every key".
ANY = UUID(int=0)
MAX_LIMIT = 10**18


class LimitKind(models.TextChoices):
    """The unit comes last. Rates are kept in Valkey, the rest in the database with the hold."""

    REQUESTS_RPM = "REQUESTS_RPM"
    TOKENS_TPM = "TOKENS_TPM"
    CONCURRENCY = "CONCURRENCY"
    TOKENS_DAY = "TOKENS_DAY"
    TOKENS_MONTH = "TOKENS_MONTH"
    MONEY_DAY = "MONEY_DAY"
    MONEY_MONTH = "MONEY_MONTH"


RATE_KINDS = (LimitKind.REQUESTS_RPM, LimitKind.TOKENS_TPM, LimitKind.CONCURRENCY)
QUOTA_KINDS = (LimitKind.TOKENS_DAY, LimitKind.TOKENS_MONTH)
BUDGET_KINDS = (LimitKind.MONEY_DAY, LimitKind.MONEY_MONTH)


class LimitOrigin(models.TextChoices):
    """Who set a limit. A tier's limits are in TierLimit."""

    OPERATOR = "OPERATOR"
    TENANT = "TENANT"


class Tier(models.Model):
    """A named set of limits. Organizations rise to it by what they have paid (TierRule); the default one
    is that of everybody else."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.SlugField(max_length=32, unique=True)
    name = models.CharField(max_length=64)
    rank = models.PositiveSmallIntegerField(unique=True, help_text="The higher, the more it allows.")
    is_default = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"], condition=Q(is_default=True), name="tier_one_default"
            ),
        ]

    def __str__(self) -> str:
        return self.code


class TierRule(models.Model):
    """How much an organization must have paid in its lifetime, in one currency, to rise to a tier."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, related_name="rules")
    currency = models.CharField(max_length=3)
    lifetime_paid_nanos = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tier", "currency"], name="tierrule_once"),
            models.CheckConstraint(condition=Q(lifetime_paid_nanos__gt=0), name="tierrule_positive"),
            models.CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="tierrule_currency_code"),
        ]

    def __str__(self) -> str:
        return f"{self.lifetime_paid_nanos} {self.currency}"


class TierLimit(models.Model):
    """One limit of a tier: for the organization, or for one model. Money is in nano-units of `currency`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, related_name="limits")
    model = models.ForeignKey(CatalogModel, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=16, choices=LimitKind)
    currency = models.CharField(max_length=3, blank=True, help_text="Of a ceiling of money; empty otherwise.")
    value = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tier", "model", "kind", "currency"], nulls_distinct=False, name="tierlimit_once"
            ),
            models.CheckConstraint(condition=Q(kind__in=LimitKind.values), name="tierlimit_kind_known"),
            models.CheckConstraint(
                condition=Q(value__gte=0, value__lte=MAX_LIMIT), name="tierlimit_value_bounded"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=BUDGET_KINDS, currency__regex=r"^[A-Z]{3}$")
                | (~Q(kind__in=BUDGET_KINDS) & Q(currency="")),
                name="tierlimit_currency_of_money",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


class TierAssignment(models.Model):
    """The tier of an organization during a half-open period. An operator's assignment beats an automatic one.

    Periods of one organization and origin never overlap (exclusion constraint); only an open end may be set.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="+")
    is_automatic = models.BooleanField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    set_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gte=F("starts_at")),
                name="tierassignment_forward",
            ),
            models.CheckConstraint(
                condition=Q(is_automatic=True, set_by__isnull=True)
                | (Q(is_automatic=False, set_by__isnull=False) & ~Q(reason="")),
                name="tierassignment_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"tier of {public_id(PREFIXES['organization'], self.tenant_id)}"


class Limit(models.Model):
    """A ceiling that an operator or the organization set, during a half-open period.

    Rows are not edited: a new value ends the old row and begins another (exclusion constraint: no overlap
    for one scope, kind and origin). `is_hard`: calls are refused at the ceiling; a soft budget only alerts.
    `alert_percents`: of a budget, when mails are sent.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    model = models.ForeignKey(CatalogModel, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    # The constraint is composite, with the tenant: see the migration.
    api_key = models.ForeignKey(
        ApiKey, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_constraint=False
    )
    kind = models.CharField(max_length=16, choices=LimitKind)
    origin = models.CharField(max_length=16, choices=LimitOrigin)
    value = models.BigIntegerField()
    is_hard = models.BooleanField(default=True)
    alert_percents = ArrayField(models.PositiveSmallIntegerField(), default=list, blank=True)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    set_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=LimitKind.values), name="limit_kind_known"),
            models.CheckConstraint(condition=Q(origin__in=LimitOrigin.values), name="limit_origin_known"),
            models.CheckConstraint(
                condition=Q(value__gte=0, value__lte=MAX_LIMIT), name="limit_value_bounded"
            ),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gte=F("starts_at")), name="limit_forward"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=BUDGET_KINDS) | Q(is_hard=True, alert_percents__len=0),
                name="limit_alerts_are_of_budgets",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["limit"], self.id)


class LimitUse(models.Model):
    """How much of a period is used and reserved in one scope, for quotas (TOKENS) and budgets (MONEY).

    Made at the first admission that needs it, from the rollups and the open holds; from then on admission and
    settlement keep it, under the wallet's lock. Periods begin at midnight UTC.
    """

    pk = models.CompositePrimaryKey("tenant_id", "model_id", "api_key_id", "kind", "period_start")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    # ANY stands for all of them, so these cannot be foreign keys.
    model_id = models.UUIDField(default=ANY)
    api_key_id = models.UUIDField(default=ANY)
    kind = models.CharField(max_length=16, choices=LimitKind)
    period_start = models.DateField()
    used = models.BigIntegerField(default=0)
    pending = models.BigIntegerField(default=0)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=(*QUOTA_KINDS, *BUDGET_KINDS)), name="limituse_kind_known"
            ),
            models.CheckConstraint(condition=Q(pending__gte=0), name="limituse_pending_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.period_start}"


class BudgetAlert(models.Model):
    """A threshold of a budget was reached in a period. Once a scope, period and percentage."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    model_id = models.UUIDField(default=ANY)
    api_key_id = models.UUIDField(default=ANY)
    kind = models.CharField(max_length=16, choices=LimitKind)
    period_start = models.DateField()
    percent = models.PositiveSmallIntegerField()
    value = models.BigIntegerField(help_text="The budget at that moment, in nano-units.")
    used = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "model_id", "api_key_id", "kind", "period_start", "percent"],
                name="budgetalert_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.percent} % of {self.kind}"


class LimitRevision(models.Model):
    """One row. Triggers raise it with every change of a limit or tier, so that caches know when to reload."""

    id = models.SmallIntegerField(primary_key=True)
    revision = models.BigIntegerField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="limitrevision_one_row")]

    def __str__(self) -> str:
        return f"revision {self.revision}"
