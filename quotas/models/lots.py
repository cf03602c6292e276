"""Free credit that expires."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from quotas.models.ledger import AccountKind
from tenants.models import Tenant
from tenants.scope import TenantManager


class CreditLot(models.Model):
    """Free credit of one organization that was granted together and expires together.

    Only organizations that were ever granted credit that expires have lots: one for each such grant, whose id
    is the grant's transfer, and one without an end for all the rest. What expires first is spent first, so
    `left_nanos` is worked out whenever something is granted or expires (quotas_settle_lots); in between the
    wallet knows better. Written by SQL functions of quotas.ledger.
    """

    id = models.UUIDField(primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    source = models.CharField(
        max_length=24, choices=AccountKind, help_text="Where it came from and goes back to."
    )
    amount_nanos = models.BigIntegerField()
    left_nanos = models.BigIntegerField()
    expired_nanos = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(left_nanos__gte=0, expired_nanos__gte=0)
                & Q(amount_nanos__gte=F("left_nanos") + F("expired_nanos")),
                name="lot_parts_within_whole",
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=False) | Q(expired_nanos=0),
                name="lot_without_end_never_expires",
            ),
            models.CheckConstraint(
                condition=Q(source__in=(AccountKind.PROMOTION, AccountKind.GOODWILL)), name="lot_source_known"
            ),
            models.UniqueConstraint(
                fields=["tenant"], condition=Q(expires_at=None), name="lot_one_without_end"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "expires_at"], name="lot_tenant"),
            models.Index(
                fields=["expires_at"], condition=Q(left_nanos__gt=0, expires_at__isnull=False), name="lot_due"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.left_nanos} {self.currency} until {self.expires_at}"
