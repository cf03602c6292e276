"""What people agree to: invitations into organizations, and terms."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models.people import Role, Tenant, User
from tenants.scope import TenantManager


class Invitation(models.Model):
    """An offer to an e-mail address to join an organization with a role.

    Whoever has the token of the mail and has verified the address can accept it; only the SHA-256 of the
    token is stored. A trigger keeps accepted and revoked invitations as they are.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="invitations")
    email = models.EmailField(max_length=254)
    role = models.CharField(max_length=16, choices=Role)
    token_digest = models.BinaryField(max_length=32, unique=True)
    invited_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    created_at = models.DateTimeField()
    mailed_at = models.DateTimeField(help_text="When the newest mail with a token was written.")
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "email"],
                condition=Q(accepted_at__isnull=True, revoked_at__isnull=True),
                name="invitation_open_once",
            ),
            models.CheckConstraint(condition=Q(email=Lower("email")), name="invitation_email_lower"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="invitation_role_known"),
            models.CheckConstraint(
                condition=Q(accepted_at__isnull=True, accepted_by__isnull=True)
                | Q(accepted_at__isnull=False, accepted_by__isnull=False, revoked_at__isnull=True),
                name="invitation_accepted_by_somebody",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("mailed_at")) & Q(mailed_at__gte=F("created_at")),
                name="invitation_period_forward",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "created_at"], name="invitation_tenant_created"),
            # For the trigger that counts what a person sends from all organizations together.
            models.Index(fields=["invited_by", "created_at"], name="invitation_inviter_created"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["invitation"], self.id)


class TermsAcceptance(models.Model):
    """A person has accepted one version of the terms, once. Rows are never changed.

    `tenant` is the organization that the person opened with it, if any.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    version = models.CharField(max_length=64)
    accepted_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "version"], name="termsacceptance_once"),
            models.CheckConstraint(condition=~Q(version=""), name="termsacceptance_version_named"),
        ]

    def __str__(self) -> str:
        return public_id("trm", self.id)
