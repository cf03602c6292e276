"""One inference call and what it used. Partitioned by day on the request's UUIDv7."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from models_catalog.models import (
    CancelPolicy,
    CatalogModel,
    Deployment,
    PriceVersion,
    PriceWindow,
    ServiceTier,
)
from portal.kit.ids import PREFIXES, public_id
from tenants.models import ApiKey, Tenant
from tenants.scope import TenantManager


class InferenceRequest(models.Model):
    """One admitted call, with everything its price depends on frozen at admission."""

    id = models.UUIDField(primary_key=True)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    model = models.ForeignKey(
        CatalogModel, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    price_version = models.ForeignKey(
        PriceVersion, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    price_window = models.ForeignKey(
        PriceWindow,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    service_tier = models.CharField(max_length=16, choices=ServiceTier)
    endpoint = models.CharField(max_length=32)
    is_stream = models.BooleanField()
    choices = models.PositiveSmallIntegerField(default=1)
    prompt_bound_tokens = models.PositiveIntegerField()
    output_cap_tokens = models.PositiveIntegerField(help_text="Per choice, as sent to the backend.")
    payload_sha256 = models.BinaryField(max_length=32)
    admitted_at = models.DateTimeField()
    max_cost_nanos = models.BigIntegerField(null=True, blank=True, help_text="The caller's ceiling.")
    cancel_policy = models.CharField(
        max_length=16, choices=CancelPolicy, default=CancelPolicy.DELIVERED, db_default=CancelPolicy.DELIVERED
    )

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "tenant"], name="request_id_tenant"),
            models.CheckConstraint(condition=Q(max_cost_nanos__gt=0), name="request_ceiling_positive"),
            models.CheckConstraint(
                condition=Q(cancel_policy__in=CancelPolicy.values), name="request_cancel_policy_known"
            ),
        ]
        indexes = [models.Index(fields=["tenant", "id"], name="request_tenant_id")]

    def __str__(self) -> str:
        return public_id(PREFIXES["request"], self.id)


class AttemptOutcome(models.TextChoices):
    COMPLETED = "COMPLETED"
    CLIENT_GONE = "CLIENT_GONE"
    BACKEND_REFUSED = "BACKEND_REFUSED"
    BACKEND_FAILED = "BACKEND_FAILED"
    BACKEND_TIMEOUT = "BACKEND_TIMEOUT"
    UNREACHABLE = "UNREACHABLE"
    STALE = "STALE"  # a pooled connection was found closed
    CUT = "CUT"
    LOST = "LOST"


class Attempt(models.Model):
    """One try of a call on one deployment. Its id is ours and is what the backend is given."""

    id = models.UUIDField(primary_key=True)
    # Constraints are composite, with the tenant: see the migration.
    request = models.ForeignKey(
        InferenceRequest, on_delete=models.PROTECT, related_name="attempts", db_constraint=False
    )
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    deployment = models.ForeignKey(
        Deployment, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    ordinal = models.PositiveSmallIntegerField()
    choice_index = models.PositiveSmallIntegerField(default=0)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, choices=AttemptOutcome, null=True, blank=True)  # noqa: DJ001
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    ttft_ms = models.PositiveIntegerField(null=True, blank=True)
    duration_ms = models.PositiveIntegerField(null=True, blank=True)
    wire_id = models.CharField(max_length=200, blank=True, help_text="The id the backend answered with.")
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome__isnull=True, ended_at__isnull=True)
                | Q(outcome__in=AttemptOutcome.values, ended_at__isnull=False),
                name="attempt_ends_with_outcome",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["attempt"], self.id)


class HoldState(models.TextChoices):
    PENDING = "PENDING"
    POSTED = "POSTED"
    VOIDED = "VOIDED"
    EXPIRED = "EXPIRED"


class Hold(models.Model):
    """Money reserved for a call, with a lease and the last durable checkpoint of what was delivered.

    Resolved at most once (trigger): POSTED or VOIDED by the gateway, EXPIRED (settled to the
    checkpoint) or VOIDED by the sweeper.
    """

    # Constraints are composite, with the tenant: see the migration.
    request = models.OneToOneField(
        InferenceRequest, primary_key=True, on_delete=models.PROTECT, related_name="hold", db_constraint=False
    )
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    currency = models.CharField(max_length=3)
    amount_nanos = models.BigIntegerField()
    state = models.CharField(max_length=16, choices=HoldState, default=HoldState.PENDING)
    lease_until = models.DateTimeField()
    checkpoint_at = models.DateTimeField(null=True, blank=True)
    checkpoint_prompt_tokens = models.PositiveIntegerField(default=0)
    checkpoint_cached_tokens = models.PositiveIntegerField(default=0)
    checkpoint_completion_tokens = models.PositiveIntegerField(default=0)
    checkpoint_reasoning_tokens = models.PositiveIntegerField(default=0)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=16, blank=True)
    max_cost_nanos = models.BigIntegerField(null=True, blank=True, help_text="The request's ceiling.")

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount_nanos__gte=0), name="hold_amount_positive"),
            models.CheckConstraint(
                condition=Q(amount_nanos__lte=F("max_cost_nanos")), name="hold_within_ceiling"
            ),
            models.CheckConstraint(condition=Q(state__in=HoldState.values), name="hold_state_known"),
            models.CheckConstraint(
                condition=Q(state=HoldState.PENDING, resolved_at__isnull=True)
                | (~Q(state=HoldState.PENDING) & Q(resolved_at__isnull=False)),
                name="hold_resolved_with_time",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant"], condition=Q(state=HoldState.PENDING), name="hold_pending"),
        ]

    def __str__(self) -> str:
        return f"hold of {public_id(PREFIXES['request'], self.request_id)}"


class Basis(models.TextChoices):
    """What the counted tokens rest on."""

    FINAL_USAGE = "FINAL_USAGE"  # the backend's own usage at the end
    CHECKPOINT = "CHECKPOINT"  # the backend's running count of what was delivered
    EVENTS = "EVENTS"  # counted by us from the delivered events
    NOTHING = "NOTHING"  # nothing was delivered


class Provenance(models.TextChoices):
    MEASURED = "MEASURED"
    ESTIMATED = "ESTIMATED"
    CORRECTED = "CORRECTED"  # set right by a later witness


class UsageSource(models.TextChoices):
    GATEWAY = "GATEWAY"
    SWEEPER = "SWEEPER"
    FEED = "FEED"


class UsageRecord(models.Model):
    """What a call used, as known at one revision. The newest revision is the truth; none is edited.

    Amounts are totals of the revision, not differences: cost = charged + overrun + waived, and charged =
    paid + granted + receivable parts. billed: of a whole answer, and where the policy says so, what was
    delivered; of a call that broke off what its cancel policy says, and the rest is waived.
    """

    pk = models.CompositePrimaryKey("request_id", "revision")
    request = models.ForeignKey(
        InferenceRequest, on_delete=models.PROTECT, related_name="usage", db_constraint=False, db_index=False
    )
    revision = models.PositiveSmallIntegerField()
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    prompt_tokens = models.PositiveIntegerField()
    cached_tokens = models.PositiveIntegerField()
    image_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField()
    reasoning_tokens = models.PositiveIntegerField()
    cost_nanos = models.BigIntegerField()
    charged_nanos = models.BigIntegerField()
    granted_nanos = models.BigIntegerField()
    receivable_nanos = models.BigIntegerField()
    overrun_nanos = models.BigIntegerField()
    basis = models.CharField(max_length=16, choices=Basis)
    provenance = models.CharField(max_length=16, choices=Provenance)
    source = models.CharField(max_length=16, choices=UsageSource)
    payload_sha256 = models.BinaryField(max_length=32)
    transfer_id = models.UUIDField(null=True, blank=True)
    recorded_at = models.DateTimeField()
    waived_nanos = models.BigIntegerField(default=0, db_default=0)
    billed = models.CharField(
        max_length=16, choices=CancelPolicy, default=CancelPolicy.DELIVERED, db_default=CancelPolicy.DELIVERED
    )
    max_cost_nanos = models.BigIntegerField(null=True, blank=True, help_text="The request's ceiling.")

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(cost_nanos=F("charged_nanos") + F("overrun_nanos") + F("waived_nanos"))
                & Q(charged_nanos__gte=F("granted_nanos") + F("receivable_nanos"))
                & Q(granted_nanos__gte=0, receivable_nanos__gte=0, overrun_nanos__gte=0, waived_nanos__gte=0),
                name="usage_amounts_add_up",
            ),
            models.CheckConstraint(
                condition=Q(charged_nanos__lte=F("max_cost_nanos")), name="usage_within_ceiling"
            ),
            models.CheckConstraint(
                condition=Q(billed=CancelPolicy.DELIVERED, waived_nanos=0)
                | Q(billed=CancelPolicy.INPUT)
                | Q(billed=CancelPolicy.NOTHING, charged_nanos=0, overrun_nanos=0),
                name="usage_waived_by_policy",
            ),
            models.CheckConstraint(
                condition=Q(cached_tokens__lte=F("prompt_tokens") - F("image_tokens"))
                & Q(reasoning_tokens__lte=F("completion_tokens")),
                name="usage_parts_within_whole",
            ),
            models.CheckConstraint(
                condition=Q(basis__in=Basis.values)
                & Q(provenance__in=Provenance.values)
                & Q(source__in=UsageSource.values),
                name="usage_kinds_known",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "request"], name="usage_tenant_request")]

    def __str__(self) -> str:
        return f"{public_id(PREFIXES['request'], self.request_id)} r{self.revision}"


class UsageRollup(models.Model):
    """Hourly sums of the newest usage records, by the hour of admission (UTC)."""

    pk = models.CompositePrimaryKey("tenant_id", "hour", "model_id", "api_key_id")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    hour = models.DateTimeField()
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="+", db_index=False)
    api_key = models.ForeignKey(
        ApiKey, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    requests = models.BigIntegerField()
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost_nanos = models.BigIntegerField()
    charged_nanos = models.BigIntegerField()

    objects = TenantManager()

    class Meta:
        # What the hours of all tenants came to.
        indexes = [models.Index(fields=["hour"], name="rollup_hour")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%dT%H}"
