"""Credit that operators give, take back or promise; above a limit with two of them."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import Tenant, User
from tenants.scope import TenantManager

MAX_ORDER_NANOS = 10**15
"""One order is about at most a million whole units."""


class CreditOrderKind(models.TextChoices):
    GRANT = "GRANT"  # free credit
    GOODWILL = "GOODWILL"  # free credit that makes up for something
    TAKE_BACK = "TAKE_BACK"  # free credit that was given by mistake
    CREDIT_LINE = "CREDIT_LINE"  # how far the balance may fall below zero


class CreditOrderState(models.TextChoices):
    WAITING = "WAITING"  # for a second operator
    POSTED = "POSTED"
    REFUSED = "REFUSED"
    WITHDRAWN = "WITHDRAWN"


GIVING_KINDS = (CreditOrderKind.GRANT, CreditOrderKind.GOODWILL)


class CreditOrder(models.Model):
    """One order of one operator about one organization's credit, in nano-units of its wallet.

    `amount_nanos` moves, or is the new credit line. `limit_nanos` is how much of it the operator could order
    alone at that moment: an order above it is carried out only when another operator has approved it.
    `transfer` is the one transfer that carried it out; a credit line has none. A trigger lets an order be
    decided once, and never changes what was ordered. Written by quotas.credit.operations.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    kind = models.CharField(max_length=16, choices=CreditOrderKind)
    amount_nanos = models.BigIntegerField()
    limit_nanos = models.BigIntegerField()
    reason = models.CharField(max_length=500)
    ordered_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    ordered_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=CreditOrderState, default=CreditOrderState.WAITING)
    decided_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=500, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Of granted credit and goodwill.")
    # The foreign key is composite, with the currency: see the migration.
    transfer_id = models.UUIDField(null=True, blank=True, unique=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=CreditOrderKind.values), name="creditorder_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(state__in=CreditOrderState.values), name="creditorder_state_known"
            ),
            models.CheckConstraint(
                condition=Q(amount_nanos__gt=0) | Q(amount_nanos=0, kind=CreditOrderKind.CREDIT_LINE),
                name="creditorder_amount_positive",
            ),
            models.CheckConstraint(
                condition=Q(amount_nanos__lte=MAX_ORDER_NANOS), name="creditorder_amount_bounded"
            ),
            models.CheckConstraint(condition=Q(limit_nanos__gte=0), name="creditorder_limit_positive"),
            models.CheckConstraint(
                condition=Q(expires_at=None) | Q(kind__in=GIVING_KINDS, expires_at__gt=F("ordered_at")),
                name="creditorder_end_of_what_is_given",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="creditorder_reason_given"),
            models.CheckConstraint(
                condition=Q(state=CreditOrderState.WAITING, decided_at__isnull=True, decided_by__isnull=True)
                | Q(state=CreditOrderState.POSTED, decided_at__isnull=False)
                | Q(
                    state__in=[CreditOrderState.REFUSED, CreditOrderState.WITHDRAWN],
                    decided_at__isnull=False,
                    decided_by__isnull=False,
                ),
                name="creditorder_decided",
            ),
            # Who decides about an order is somebody else than who gave it; who gave it takes it back.
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True)
                | Q(state=CreditOrderState.WITHDRAWN, decided_by=F("ordered_by"))
                | (~Q(state=CreditOrderState.WITHDRAWN) & ~Q(decided_by=F("ordered_by"))),
                name="creditorder_decided_by_another",
            ),
            models.CheckConstraint(
                condition=~Q(state=CreditOrderState.POSTED)
                | Q(amount_nanos__lte=F("limit_nanos"))
                | Q(decided_by__isnull=False),
                name="creditorder_above_limit_by_two",
            ),
            models.CheckConstraint(
                condition=Q(state=CreditOrderState.POSTED, transfer_id__isnull=False)
                & ~Q(kind=CreditOrderKind.CREDIT_LINE)
                | Q(transfer_id__isnull=True)
                & (~Q(state=CreditOrderState.POSTED) | Q(kind=CreditOrderKind.CREDIT_LINE)),
                name="creditorder_posted_once",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="creditorder_tenant"),
            models.Index(fields=["ordered_by", "ordered_at"], name="creditorder_by"),
            models.Index(
                fields=["ordered_at"], condition=Q(state=CreditOrderState.WAITING), name="creditorder_waiting"
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["credit_order"], self.id)
