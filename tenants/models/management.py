"""Credentials of the management API, and what programs have already written with them."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models.people import Role, Tenant, User
from tenants.scope import TenantManager

MAX_OPERATOR_KEY_DAYS = 90
MAX_IDEMPOTENCY_KEY_LENGTH = 255


class ManagementScope(models.TextChoices):
    """What a management key is for. It narrows what the key's role, or an operator, may do."""

    # Of an organization.
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    USAGE_READ = "usage:read"
    BALANCE_READ = "balance:read"
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    # Of operators.
    TENANTS_READ = "tenants:read"
    TENANTS_WRITE = "tenants:write"
    PRICES_READ = "prices:read"
    PRICES_WRITE = "prices:write"
    CREDIT_WRITE = "credit:write"
    FLEET_READ = "fleet:read"
    FLEET_WRITE = "fleet:write"
    BUSINESS_READ = "business:read"
    AUDIT_READ = "audit:read"


TENANT_SCOPES = (
    ManagementScope.KEYS_READ,
    ManagementScope.KEYS_WRITE,
    ManagementScope.MODELS_READ,
    ManagementScope.MODELS_WRITE,
    ManagementScope.USAGE_READ,
    ManagementScope.BALANCE_READ,
    ManagementScope.LIMITS_READ,
    ManagementScope.LIMITS_WRITE,
)
OPERATOR_SCOPES = tuple(scope for scope in ManagementScope if scope not in TENANT_SCOPES)


class ManagementKey(models.Model):
    """A credential for /api/v1: a public id and the HMAC of a secret that is shown once.

    It acts in the name of the person who made it, with a role of an organization, or, without an
    organization, as an operator; never for longer than that person could. `last_used_at` is written at most
    once a minute. A trigger keeps what a key is, and revoked ones revoked.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(
        Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="management_keys"
    )
    name = models.CharField(max_length=100)
    role = models.CharField(max_length=16, choices=Role, blank=True, help_text="Empty for operators' keys.")
    scopes = ArrayField(models.CharField(max_length=32, choices=ManagementScope))
    pepper_number = models.PositiveSmallIntegerField()
    digest = models.BinaryField(max_length=32)
    secret_hint = models.CharField(max_length=4, help_text="The last characters, to recognise a key by.")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            # The target of composite foreign keys: what was written belongs to the key's own tenant.
            models.UniqueConstraint(fields=["tenant", "id"], name="managementkey_tenant_id"),
            models.CheckConstraint(condition=Q(pepper_number__gte=1), name="managementkey_pepper_number"),
            models.CheckConstraint(condition=~Q(name=""), name="managementkey_named"),
            models.CheckConstraint(
                condition=Q(tenant__isnull=False, role__in=Role.values) | Q(tenant__isnull=True, role=""),
                name="managementkey_role_or_operator",
            ),
            models.CheckConstraint(
                condition=Q(scopes__len__gte=1)
                & (
                    Q(tenant__isnull=False, scopes__contained_by=list(TENANT_SCOPES))
                    | Q(tenant__isnull=True, scopes__contained_by=list(OPERATOR_SCOPES))
                ),
                name="managementkey_scopes_fit",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("created_at")),
                name="managementkey_period_forward",
            ),
            models.CheckConstraint(
                condition=Q(tenant__isnull=False)
                | Q(
                    expires_at__isnull=False,
                    expires_at__lte=F("created_at") + timedelta(days=MAX_OPERATOR_KEY_DAYS),
                ),
                name="managementkey_operators_expire",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["management_key"], self.id)


class IdempotentWrite(models.Model):
    """The answer to a write that was sent with an idempotency key; it commits with what the write did.

    `fingerprint` is the SHA-256 of method, address and body. `answer` is encrypted, because it may hold a
    secret that is shown once. Rows are never changed, and go after a while.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    management_key = models.ForeignKey(
        ManagementKey, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    idempotency_key = models.CharField(max_length=MAX_IDEMPOTENCY_KEY_LENGTH)
    fingerprint = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField()
    answer = models.TextField()
    created_at = models.DateTimeField(db_index=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["management_key", "idempotency_key"], name="idempotentwrite_once"
            ),
            models.CheckConstraint(condition=~Q(idempotency_key=""), name="idempotentwrite_key_given"),
            # What failed did nothing, so trying it again is right.
            models.CheckConstraint(
                condition=Q(status__gte=200, status__lt=300), name="idempotentwrite_succeeded"
            ),
        ]

    def __str__(self) -> str:
        return public_id("idw", self.id)
