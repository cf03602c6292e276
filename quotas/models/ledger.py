"""The double-entry ledger. Rows are written by quotas.ledger's SQL functions only."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from portal.kit.ids import PREFIXES, public_id
from tenants.models import Tenant
from tenants.scope import TenantManager


class AccountKind(models.TextChoices):
    """Signed entries: positive is what the account's owner has. A tenant's three kinds come first."""

    TOPPED_UP = "TOPPED_UP"  # paid credit
    GRANTED = "GRANTED"  # free credit
    RECEIVABLE = "RECEIVABLE"  # what the tenant owes us, as a negative balance
    REVENUE = "REVENUE"  # usage that paid credit (or a receivable) covered
    GRANTED_USAGE = "GRANTED_USAGE"  # usage that free credit covered
    PROMOTION = "PROMOTION"  # free credit handed out
    GOODWILL = "GOODWILL"  # free credit handed out to make up for something
    CASH_CLEARING = "CASH_CLEARING"  # money that came in by another way than Stripe
    STRIPE_CLEARING = "STRIPE_CLEARING"  # money at Stripe
    PAYMENT_FEES = "PAYMENT_FEES"  # what payments cost us
    TAX_PAYABLE = "TAX_PAYABLE"  # collected with payments, owed to the tax office
    OVERRUN_EXPENSE = "OVERRUN_EXPENSE"  # served beyond what was held: our cost, at list price
    WAIVED_EXPENSE = (
        "WAIVED_EXPENSE"  # delivered of calls that broke off and, by policy, not billed: our cost
    )
    UNBILLED_USAGE = "UNBILLED_USAGE"  # the other side of OVERRUN_EXPENSE and WAIVED_EXPENSE


TENANT_ACCOUNT_KINDS = (AccountKind.TOPPED_UP, AccountKind.GRANTED, AccountKind.RECEIVABLE)


class TransferKind(models.TextChoices):
    USAGE = "USAGE"
    TOP_UP = "TOP_UP"
    GRANT = "GRANT"
    ADJUSTMENT = "ADJUSTMENT"
    REFUND = "REFUND"  # paid credit goes back to where it came from
    REFUND_REVERSED = "REFUND_REVERSED"  # a refund that did not arrive
    CHARGEBACK = "CHARGEBACK"  # a dispute took a payment back
    REINSTATED = "REINSTATED"  # a dispute gave it back
    PAYMENT_FEE = "PAYMENT_FEE"
    EXPIRY = "EXPIRY"  # what was left of granted credit when its time was over
    PAYOUT = "PAYOUT"  # from Stripe to our bank
    SURPLUS = "SURPLUS"  # what a backend served beyond what is billed: between accounts of the house


class Wallet(models.Model):
    """The stored balance of one tenant: the only row that admissions and settlements lock.

    paid + granted − pending ≥ −overdraft at every commit. `receivable_nanos` is never positive.
    Balances and `pending_nanos` are kept by triggers on the entries and holds they sum up.
    """

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.PROTECT, related_name="wallet")
    currency = models.CharField(max_length=3)
    paid_nanos = models.BigIntegerField(default=0)
    granted_nanos = models.BigIntegerField(default=0)
    receivable_nanos = models.BigIntegerField(default=0)
    pending_nanos = models.BigIntegerField(default=0)
    overdraft_nanos = models.BigIntegerField(default=0)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    paid_nanos__gte=F("pending_nanos") - F("granted_nanos") - F("overdraft_nanos"),
                ),
                name="wallet_never_overdrawn",
            ),
            models.CheckConstraint(condition=Q(granted_nanos__gte=0), name="wallet_granted_positive"),
            models.CheckConstraint(condition=Q(pending_nanos__gte=0), name="wallet_pending_positive"),
            models.CheckConstraint(condition=Q(overdraft_nanos__gte=0), name="wallet_overdraft_positive"),
            models.CheckConstraint(condition=Q(receivable_nanos__lte=0), name="wallet_receivable_owed"),
        ]

    def __str__(self) -> str:
        return f"wallet of {public_id(PREFIXES['organization'], self.tenant_id)}"


class LedgerAccount(models.Model):
    """An account. Its id is a function of tenant, kind and currency (quotas_account_id in SQL)."""

    id = models.UUIDField(primary_key=True)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=24, choices=AccountKind)
    currency = models.CharField(max_length=3)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "kind", "currency"], nulls_distinct=False, name="account_once"
            ),
            models.UniqueConstraint(fields=["id", "currency"], name="account_id_currency"),
            models.CheckConstraint(
                condition=Q(kind__in=TENANT_ACCOUNT_KINDS, tenant__isnull=False)
                | (~Q(kind__in=TENANT_ACCOUNT_KINDS) & Q(tenant__isnull=True)),
                name="account_owner_fits_kind",
            ),
            models.CheckConstraint(condition=Q(kind__in=AccountKind.values), name="account_kind_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.currency}"


class LedgerTransfer(models.Model):
    """A movement of money. The primary key is the idempotency key; rows are never changed."""

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=16, choices=TransferKind)
    tenant = models.ForeignKey(
        Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    currency = models.CharField(max_length=3)
    request_id = models.UUIDField(null=True, blank=True)
    revision = models.PositiveSmallIntegerField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    payload_sha256 = models.BinaryField(max_length=32)
    posted_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "currency"], name="transfer_id_currency"),
            models.CheckConstraint(
                condition=Q(kind=TransferKind.USAGE, request_id__isnull=False, revision__isnull=False)
                | (~Q(kind=TransferKind.USAGE) & Q(request_id__isnull=True, revision__isnull=True)),
                name="transfer_request_fits_kind",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "posted_at"], name="transfer_tenant_posted"),
            # All that is not usage is little, and is looked for over all tenants.
            models.Index(
                fields=["posted_at"], condition=~Q(kind=TransferKind.USAGE), name="transfer_posted_otherwise"
            ),
            models.Index(
                fields=["tenant"], condition=~Q(kind=TransferKind.USAGE), name="transfer_tenant_otherwise"
            ),
            # The books read all that was posted in a period, in order; it grows at its end only.
            models.Index(fields=["posted_at", "id"], name="transfer_posted"),
            # Corrections of usage: the only usage of which somebody may owe.
            models.Index(fields=["posted_at"], condition=Q(revision__gt=1), name="transfer_corrections"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["transfer"], self.id)


class LedgerEntry(models.Model):
    """One leg of a transfer. The entries of a transfer sum to zero; rows are never changed."""

    pk = models.CompositePrimaryKey("transfer_id", "account_id")
    # Constraints are composite, with the currency: see the migration.
    transfer = models.ForeignKey(
        LedgerTransfer, on_delete=models.PROTECT, related_name="entries", db_constraint=False, db_index=False
    )
    account = models.ForeignKey(
        LedgerAccount, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    tenant = models.ForeignKey(
        Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    currency = models.CharField(max_length=3)
    amount_nanos = models.BigIntegerField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(amount_nanos=0), name="entry_not_zero"),
        ]

    def __str__(self) -> str:
        return f"{self.amount_nanos} {self.currency}"
