"""Credentials of programs."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models.people import Tenant, User
from tenants.scope import TenantManager


class KeyPurpose(models.TextChoices):
    API = "API"  # of a program, which knows its secret
    PLAYGROUND = "PLAYGROUND"  # of a person in the playground; nobody knows its secret


class ApiKey(models.Model):
    """A credential for /v1: a public id and the HMAC of a secret that is shown once.

    `restricts_models` says that only the models listed for the key may be used; the list itself
    belongs to the catalog, which knows models. `last_used_at` is written by nobody: when a key was
    last used follows from the usage of it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="api_keys")
    purpose = models.CharField(
        max_length=16, choices=KeyPurpose, default=KeyPurpose.API, db_default=KeyPurpose.API
    )
    name = models.CharField(max_length=100)
    labels = models.JSONField(default=dict, blank=True)
    pepper_number = models.PositiveSmallIntegerField()
    digest = models.BinaryField(max_length=32)
    secret_hint = models.CharField(max_length=4, help_text="The last characters, to recognise a key by.")
    restricts_models = models.BooleanField(default=False)
    created_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    created_at = models.DateTimeField(db_default=models.functions.Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    rotated_from = models.OneToOneField(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="rotated_to",
        db_constraint=False,
    )

    objects = TenantManager()

    class Meta:
        constraints = [
            # The target of composite foreign keys: a request's key is always its own tenant's key.
            models.UniqueConstraint(fields=["tenant", "id"], name="apikey_tenant_id"),
            models.CheckConstraint(condition=Q(pepper_number__gte=1), name="apikey_pepper_number"),
            models.CheckConstraint(condition=Q(purpose__in=KeyPurpose.values), name="apikey_purpose_known"),
            models.CheckConstraint(
                condition=~Q(purpose=KeyPurpose.PLAYGROUND) | Q(created_by__isnull=False),
                name="apikey_playground_of_somebody",
            ),
            models.UniqueConstraint(
                fields=["tenant", "created_by"],
                condition=Q(purpose=KeyPurpose.PLAYGROUND, revoked_at__isnull=True),
                name="apikey_playground_once",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["api_key"], self.id)
