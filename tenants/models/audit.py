"""What was done to what belongs to somebody, by whom and why. Rows are never changed."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models.people import Tenant, User
from tenants.scope import TenantManager


class ActorKind(models.TextChoices):
    OPERATOR = "OPERATOR"
    MEMBER = "MEMBER"
    SYSTEM = "SYSTEM"


class AuditOutcome(models.TextChoices):
    DONE = "DONE"
    REFUSED = "REFUSED"


class AuditEvent(models.Model):
    """One change, or one that was refused, with what was there before and after.

    `action` is a dotted word (`tenant.suspend`), `target` the public id of what was acted on. `key_id` names
    the management key when a program acted in somebody's name. Internal events are hidden from their
    organization.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(db_default=models.functions.Now())
    actor_kind = models.CharField(max_length=16, choices=ActorKind)
    actor = models.ForeignKey(User, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    actor_role = models.CharField(max_length=16, blank=True)
    key_id = models.UUIDField(null=True, blank=True)
    action = models.CharField(max_length=64)
    outcome = models.CharField(max_length=16, choices=AuditOutcome, default=AuditOutcome.DONE)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    target = models.CharField(max_length=200, blank=True)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    is_internal = models.BooleanField(default=False)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(actor_kind__in=ActorKind.values), name="audit_actor_known"),
            models.CheckConstraint(condition=Q(outcome__in=AuditOutcome.values), name="audit_outcome_known"),
            models.CheckConstraint(
                condition=Q(actor_kind=ActorKind.SYSTEM, actor__isnull=True)
                | (~Q(actor_kind=ActorKind.SYSTEM) & Q(actor__isnull=False)),
                name="audit_actor_fits_kind",
            ),
            models.CheckConstraint(
                condition=Q(action__regex=r"^[a-z_]+(\.[a-z_]+)+$"), name="audit_action_form"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="audit_tenant"),
            models.Index(fields=["action", "-id"], name="audit_action"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["audit"], self.id)


class TenantNote(models.Model):
    """What operators write down about an organization; it never sees them. Rows are never changed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    text = models.TextField(max_length=4000)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [models.CheckConstraint(condition=~Q(text=""), name="note_not_empty")]

    def __str__(self) -> str:
        return f"note of {public_id(PREFIXES['organization'], self.tenant_id)}"
