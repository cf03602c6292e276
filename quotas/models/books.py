"""Months whose books are closed, with the trial balance that they closed with.

Written by quotas.books.closing. Months are UTC. Triggers let one month be closed after the other, each an
hour after its end at the earliest, let nothing be changed afterwards, and nothing be posted into it.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from portal.kit.ids import uuid7
from quotas.models.ledger import AccountKind
from tenants.models import User


class ClosedMonth(models.Model):
    """A month to which nothing is posted any more. month: its first day."""

    month = models.DateField(primary_key=True)
    closed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    closed_at = models.DateTimeField(db_default=models.functions.Now())
    reason = models.CharField(max_length=500)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(month__day=1), name="closedmonth_first_day"),
            models.CheckConstraint(condition=~Q(reason=""), name="closedmonth_reason_given"),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class ClosedBalance(models.Model):
    """What all accounts of one kind had together when a month was closed, in nano-units of `currency`.

    Positive is what the accounts' owners have: a credit. debits_nanos took, credits_nanos gave.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    month = models.ForeignKey(ClosedMonth, on_delete=models.PROTECT, related_name="balances", db_index=False)
    currency = models.CharField(max_length=3)
    account = models.CharField(max_length=24, choices=AccountKind)
    opening_nanos = models.BigIntegerField()
    debits_nanos = models.BigIntegerField()
    credits_nanos = models.BigIntegerField()
    closing_nanos = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["month", "currency", "account"], name="closedbalance_once"),
            models.CheckConstraint(
                condition=Q(account__in=AccountKind.values), name="closedbalance_account_known"
            ),
            models.CheckConstraint(
                condition=Q(debits_nanos__gte=0, credits_nanos__gte=0), name="closedbalance_sides_positive"
            ),
            models.CheckConstraint(
                condition=Q(closing_nanos=F("opening_nanos") + F("credits_nanos") - F("debits_nanos")),
                name="closedbalance_adds_up",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account} {self.currency}"
