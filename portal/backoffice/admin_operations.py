"""The Django admin's read-only pages of what operators' work leaves behind: audit, limits, costs, orders."""

from django.contrib import admin

from models_catalog.models import CapacityVersion, DeploymentCurve, PoolCostVersion, PriceNotice
from portal.backoffice.read_only import read_only
from quotas.models import (
    AllocatedHour,
    BudgetAlert,
    CreditLot,
    CreditOrder,
    Limit,
    LimitRevision,
    PriceReplay,
    Tier,
    TierAssignment,
    TierLimit,
    TierRule,
)
from tenants.models import AuditEvent, IdempotentWrite, ManagementKey, TenantNote

site = admin.site

# WHAT
site.register(
    PoolCostVersion,
    read_only(
        "id",
        "pool",
        "currency",
        "accelerators",
        "power_watts",
        "active_from",
        "active_to",
        filters=("currency",),
        id_prefix="pool_cost",
    ),
)
site.register(
    CapacityVersion,
    read_only(
        "id",
        "deployment",
        "reserved_ppm",
        "capacity_tokens_per_s",
        "active_from",
        "active_to",
        id_prefix="capacity",
    ),
)
site.register(
    DeploymentCurve,
    read_only(
        "id",
        "deployment",
        "measured_at",
        "engine_version",
        "certified_concurrency",
        "certified_tokens_per_s",
        "note",
        id_prefix="curve",
    ),
)

# WHO
site.register(
    ManagementKey,
    read_only(
        "name",
        "tenant",
        "role",
        "created_by",
        "secret_hint",
        "expires_at",
        "revoked_at",
        "last_used_at",
        hidden=("digest",),
        search=("name",),
        filters=("role",),
        id_prefix="management_key",
    ),
)
site.register(
    IdempotentWrite,
    read_only("management_key", "tenant", "idempotency_key", "status", "created_at", hidden=("answer",)),
)

# HOW MUCH
site.register(Tier, read_only("code", "name", "rank", "is_default", newest_first=False, id_prefix="tier"))
site.register(TierRule, read_only("tier", "currency", "lifetime_paid_nanos", filters=("currency",)))
site.register(TierLimit, read_only("tier", "model", "kind", "currency", "value", filters=("kind",)))
site.register(
    TierAssignment, read_only("tenant", "tier", "is_automatic", "starts_at", "ends_at", "set_by", "reason")
)
site.register(
    Limit,
    read_only(
        "id",
        "tenant",
        "origin",
        "kind",
        "model",
        "api_key",
        "value",
        "is_hard",
        "starts_at",
        "ends_at",
        id_prefix="limit",
    ),
)
site.register(
    BudgetAlert, read_only("tenant", "kind", "period_start", "percent", "value", "used", "created_at")
)
site.register(LimitRevision, read_only("id", "revision"))

# Prices: whom a dearer one was announced to, and what-ifs.
site.register(
    PriceNotice,
    read_only("tenant", "version", "kind", "takes_effect_at", "mailed_at", "mails", filters=("kind",)),
)
site.register(
    PriceReplay,
    read_only(
        "id",
        "version",
        "state",
        "days_done",
        "days",
        "asked_by",
        "created_at",
        hidden=("content_sha256",),
        filters=("state",),
        id_prefix="replay",
    ),
)

site.register(
    AllocatedHour, read_only("hour", "covered_until", "is_final", "allocated_at", filters=("is_final",))
)

# WHO did what to whom, and what credit was ordered
site.register(
    AuditEvent,
    read_only(
        "id",
        "at",
        "actor_kind",
        "actor",
        "action",
        "outcome",
        "tenant",
        "target",
        filters=("outcome", "actor_kind"),
        id_prefix="audit",
    ),
)
site.register(TenantNote, read_only("id", "tenant", "author", "created_at"))
site.register(
    CreditLot,
    read_only("id", "tenant", "amount_nanos", "left_nanos", "expired_nanos", "currency", "expires_at"),
)
site.register(
    CreditOrder,
    read_only(
        "id",
        "tenant",
        "kind",
        "amount_nanos",
        "currency",
        "state",
        "ordered_by",
        "ordered_at",
        "decided_by",
        filters=("state", "kind"),
        id_prefix="credit_order",
    ),
)
