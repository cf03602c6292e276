"""The fleet: pools of like accelerators, the engines that run on them, and which model each serves."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import LessThanOrEqual

from models_catalog.models.catalog import CatalogModel
from portal.kit.ids import PREFIXES, public_id, uuid7

MAX_CONFIGURATION_LENGTH = 8000
MAX_CAPABILITIES = 32


class Engine(models.TextChoices):
    SGLANG = "sglang"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    GENERIC = "generic"


class FleetState(models.TextChoices):
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    DISABLED = "DISABLED"


class ServingPool(models.Model):
    """A group of like accelerators."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=120)
    accelerator_kind = models.CharField(max_length=64)
    region = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.code


class ServingBackend(models.Model):
    """One running engine. Its credential is stored encrypted and never shown again."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.SlugField(max_length=64, unique=True)
    pool = models.ForeignKey(ServingPool, on_delete=models.PROTECT, related_name="backends")
    engine = models.CharField(max_length=16, choices=Engine)
    engine_version = models.CharField(max_length=64, blank=True)
    base_url = models.URLField(max_length=500, help_text="Without /v1.")
    credential_encrypted = models.TextField(blank=True, max_length=4000)
    max_concurrency = models.PositiveIntegerField(help_text="Calls at a time that the engine serves well.")
    state = models.CharField(max_length=16, choices=FleetState, default=FleetState.ACTIVE)
    configuration = models.TextField(
        blank=True,
        default="",
        db_default="",
        max_length=MAX_CONFIGURATION_LENGTH,
        help_text="What operators note about it: flags, quantisation, driver versions. No secrets.",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=LessThanOrEqual(Length("configuration"), MAX_CONFIGURATION_LENGTH),
                name="backend_configuration_bounded",
            ),
            models.CheckConstraint(condition=Q(engine__in=Engine.values), name="backend_engine_known"),
            models.CheckConstraint(condition=Q(state__in=FleetState.values), name="backend_state_known"),
            models.CheckConstraint(condition=Q(max_concurrency__gte=1), name="backend_capacity"),
        ]

    def __str__(self) -> str:
        return self.code


class Deployment(models.Model):
    """A model on a backend, under the name that the backend knows it by."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    model = models.ForeignKey(CatalogModel, on_delete=models.PROTECT, related_name="deployments")
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="deployments")
    upstream_model = models.CharField(max_length=200)
    state = models.CharField(max_length=16, choices=FleetState, default=FleetState.ACTIVE)
    context_tokens = models.PositiveIntegerField(
        null=True, blank=True, help_text="Where it has less room than the model; empty when it has all."
    )
    capabilities = ArrayField(
        models.CharField(max_length=32),
        null=True,
        blank=True,
        help_text="Where it cannot do all that the model can; empty when it can.",
    )
    quantisation = models.CharField(
        max_length=64, blank=True, default="", db_default="", help_text="Of its weights, such as FP8 or AWQ."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "backend"], name="deployment_once"),
            models.CheckConstraint(
                condition=Q(context_tokens=None) | Q(context_tokens__gte=1),
                name="deployment_context_positive",
            ),
            models.CheckConstraint(
                condition=Q(capabilities=None) | Q(capabilities__len__lte=MAX_CAPABILITIES),
                name="deployment_capabilities_bounded",
            ),
            models.CheckConstraint(condition=Q(state__in=FleetState.values), name="deployment_state_known"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["deployment"], self.id)
