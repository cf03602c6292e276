"""Listed models and who has picked them."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from models_catalog.engines.endpoints import Endpoint
from portal.kit.ids import public_id, uuid7
from tenants.models import ApiKey, Tenant
from tenants.scope import TenantManager


class ModelState(models.TextChoices):
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"


class CancelPolicy(models.TextChoices):
    """What a call costs whose client left, or that broke off, before its end."""

    DELIVERED = "DELIVERED"  # the prompt and what was delivered
    INPUT = "INPUT"  # the prompt
    NOTHING = "NOTHING"


class CatalogModel(models.Model):
    """A model that tenants can pick. Token counts are per request unless the name says otherwise."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.CharField(max_length=120, unique=True, help_text="vendor/name, as clients write it.")
    display_name = models.CharField(max_length=120)
    description = models.TextField(blank=True, max_length=4000)
    context_tokens = models.PositiveIntegerField()
    max_output_tokens = models.PositiveIntegerField()
    default_output_cap_tokens = models.PositiveIntegerField(help_text="Applies when the client sends no cap.")
    template_overhead_tokens = models.PositiveIntegerField(
        default=256, help_text="Upper bound of what the chat template adds to the text of the messages."
    )
    image_allowance_tokens = models.PositiveIntegerField(
        null=True, blank=True, help_text="Upper bound of one image; empty when the model takes no images."
    )
    capabilities = ArrayField(models.CharField(max_length=32), default=list, blank=True)
    extra_fields = ArrayField(
        models.CharField(max_length=64),
        default=list,
        blank=True,
        help_text="Request fields allowed beyond those of the engine.",
    )
    endpoints = ArrayField(
        models.CharField(max_length=32),
        default=list,
        db_default=[],
        blank=True,
        help_text="Those of /v1 that the model is offered at; without any, what suits its capabilities.",
    )
    cancel_policy = models.CharField(
        max_length=16,
        choices=CancelPolicy,
        default=CancelPolicy.DELIVERED,
        db_default=CancelPolicy.DELIVERED.value,
    )
    deprecated_at = models.DateTimeField(null=True, blank=True, help_text="Since when it is discouraged.")
    sunset_at = models.DateTimeField(null=True, blank=True, help_text="From when on it is not served.")
    successor = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="What to use instead of a deprecated model.",
    )
    state = models.CharField(max_length=16, choices=ModelState, default=ModelState.ACTIVE)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=ModelState.values), name="model_state_known"),
            models.CheckConstraint(
                condition=Q(slug__regex=r"^[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._:-]*$"),
                name="model_slug_form",
            ),
            models.CheckConstraint(
                condition=Q(default_output_cap_tokens__gte=1)
                & Q(default_output_cap_tokens__lte=F("max_output_tokens"))
                & Q(max_output_tokens__lt=F("context_tokens")),
                name="model_output_within_context",
            ),
            # Prices and token counts multiply in 64 bits; this keeps the product far from the edge.
            models.CheckConstraint(condition=Q(context_tokens__lte=20_000_000), name="model_context_bounded"),
            models.CheckConstraint(
                condition=Q(endpoints__contained_by=[endpoint.value for endpoint in Endpoint]),
                name="model_endpoints_known",
            ),
            models.CheckConstraint(
                condition=Q(cancel_policy__in=CancelPolicy.values), name="model_cancel_policy_known"
            ),
            models.CheckConstraint(
                condition=Q(sunset_at__isnull=True)
                | Q(deprecated_at__isnull=False, deprecated_at__lte=F("sunset_at")),
                name="model_deprecated_before_sunset",
            ),
            models.CheckConstraint(condition=~Q(successor=F("id")), name="model_successor_is_another"),
        ]

    def __str__(self) -> str:
        return self.slug


class ModelAlias(models.Model):
    """Another name under which a model is called. Answers and receipts show the model's slug.

    Among slugs and aliases together a name is unique (trigger).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120, unique=True, help_text="As clients write it.")
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="aliases")
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(name__regex=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$"), name="alias_name_form"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ModelGrant(models.Model):
    """A tenant has picked a model. Ending it refuses the tenant's next call."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="grants")
    created_at = models.DateTimeField(db_default=models.functions.Now())
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "model"], condition=Q(ended_at__isnull=True), name="grant_open_once"
            ),
        ]

    def __str__(self) -> str:
        return public_id("grt", self.id)


class ApiKeyModel(models.Model):
    """One model that a restricted key may use."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    # The constraint is composite, with the tenant: see the migration.
    api_key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+", db_constraint=False)
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="+")

    objects = TenantManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["api_key", "model"], name="apikeymodel_once")]

    def __str__(self) -> str:
        return public_id("kmd", self.id)


class CatalogRevision(models.Model):
    """One row. Triggers raise it with every change of the catalog, so that caches know when to reload."""

    id = models.SmallIntegerField(primary_key=True)
    revision = models.BigIntegerField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="catalogrevision_one_row")]

    def __str__(self) -> str:
        return f"revision {self.revision}"
