"""Money that comes in through Stripe and goes back. Written by quotas.payments; what moved is in the ledger.

Stripe's ids are text of at most 255 characters. Amounts are nano-units of the wallet's currency.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.models.credit import MAX_ORDER_NANOS
from tenants.models import Tenant, User
from tenants.scope import TenantManager

STRIPE_ID_LENGTH = 255


class StripeCustomer(models.Model):
    """The customer that stands for an organization at Stripe."""

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.PROTECT, related_name="+")
    customer_id = models.CharField(max_length=STRIPE_ID_LENGTH, unique=True)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(customer_id=""), name="stripecustomer_id_given"),
        ]

    def __str__(self) -> str:
        return self.customer_id


class OperationKind(models.TextChoices):
    """What a request to Stripe that changes something is for."""

    CUSTOMER = "CUSTOMER"
    CHECKOUT = "CHECKOUT"
    EXPIRE_CHECKOUT = "EXPIRE_CHECKOUT"
    SETUP = "SETUP"
    RECHARGE = "RECHARGE"
    CANCEL_INTENT = "CANCEL_INTENT"
    REFUND = "REFUND"
    INVOICE = "INVOICE"
    INVOICE_ITEM = "INVOICE_ITEM"
    FINALIZE_INVOICE = "FINALIZE_INVOICE"
    CREDIT_NOTE = "CREDIT_NOTE"


class OperationState(models.TextChoices):
    PENDING = "PENDING"  # to be sent, or its answer is unknown: sent again with the same key
    DONE = "DONE"
    REFUSED = "REFUSED"  # Stripe said no, for good
    ABANDONED = "ABANDONED"  # its key is too old to be sent again, and nothing of it is to be found at Stripe


class StripeOperation(models.Model):
    """One request to Stripe that changes something there: committed before it is sent, its id is the
    idempotency key. A trigger lets it end once and never changes what it asks for."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    kind = models.CharField(max_length=24, choices=OperationKind)
    # What it is done to or for: the id of a top-up, refund or invoice of ours.
    subject_id = models.UUIDField(null=True, blank=True)
    parameters = models.JSONField()
    state = models.CharField(max_length=16, choices=OperationState, default=OperationState.PENDING)
    # Of what Stripe made or changed.
    object_id = models.CharField(max_length=STRIPE_ID_LENGTH, blank=True)
    error_code = models.CharField(max_length=100, blank=True)
    error_text = models.CharField(max_length=500, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=models.functions.Now())
    sent_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=OperationKind.values), name="stripeoperation_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(state=OperationState.PENDING, finished_at__isnull=True)
                | Q(state=OperationState.DONE, finished_at__isnull=False) & ~Q(object_id="")
                | Q(state=OperationState.REFUSED, finished_at__isnull=False) & ~Q(error_text="")
                | Q(state=OperationState.ABANDONED, finished_at__isnull=False),
                name="stripeoperation_ended",
            ),
            # A lost answer to a second request for the same thing must not make it twice.
            models.UniqueConstraint(
                fields=["kind", "subject_id"],
                condition=~Q(state__in=[OperationState.REFUSED, OperationState.ABANDONED]),
                name="stripeoperation_once_a_subject",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="stripeoperation_tenant"),
            models.Index(
                fields=["created_at"],
                condition=Q(state=OperationState.PENDING),
                name="stripeoperation_pending",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class TopUpSource(models.TextChoices):
    CHECKOUT = "CHECKOUT"  # on Stripe's page
    RECHARGE = "RECHARGE"  # automatically, with a saved method
    BANK = "BANK"  # by bank transfer
    INVOICE = "INVOICE"  # by paying a monthly invoice


class TopUpState(models.TextChoices):
    OPEN = "OPEN"  # nothing is paid yet
    PROCESSING = "PROCESSING"  # paid by a method that takes its time
    ACTION_NEEDED = "ACTION_NEEDED"  # the bank wants to see the customer
    PAID = "PAID"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"  # abandoned


OPEN_TOP_UP_STATES = (TopUpState.OPEN, TopUpState.PROCESSING, TopUpState.ACTION_NEEDED)


class TopUp(models.Model):
    """Buying credit once. `amount_nanos` is the credit, net of tax; what was paid is known when it is.

    The transfer is the one that the id stands for, so that a top-up can be credited once only.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    source = models.CharField(max_length=16, choices=TopUpSource)
    amount_nanos = models.BigIntegerField()
    state = models.CharField(max_length=16, choices=TopUpState, default=TopUpState.OPEN)
    # What came in, and how much of it is tax; amount_nanos is the difference once it is paid.
    gross_nanos = models.BigIntegerField(null=True, blank=True)
    tax_nanos = models.BigIntegerField(null=True, blank=True)
    session_id = models.CharField(max_length=STRIPE_ID_LENGTH, null=True, blank=True, unique=True)
    payment_intent_id = models.CharField(max_length=STRIPE_ID_LENGTH, null=True, blank=True, unique=True)
    charge_id = models.CharField(max_length=STRIPE_ID_LENGTH, blank=True)
    # As people know the method: "visa ···· 4242", "alipay".
    method = models.CharField(max_length=64, blank=True)
    # Stripe's pages about it: where to pay while it is open, receipt and invoice afterwards.
    pay_url = models.URLField(max_length=2000, blank=True)
    receipt_url = models.URLField(max_length=2000, blank=True)
    invoice_url = models.URLField(max_length=2000, blank=True)
    failure_code = models.CharField(max_length=100, blank=True)
    created_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    created_at = models.DateTimeField(db_default=models.functions.Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    # When the poller last asked Stripe about it.
    checked_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    # The foreign key is composite, with the currency: see the migration.
    transfer_id = models.UUIDField(null=True, blank=True, unique=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "tenant", "currency"], name="topup_id_tenant_currency"),
            models.CheckConstraint(condition=Q(source__in=TopUpSource.values), name="topup_source_known"),
            models.CheckConstraint(condition=Q(state__in=TopUpState.values), name="topup_state_known"),
            models.CheckConstraint(
                condition=Q(amount_nanos__gt=0, amount_nanos__lte=MAX_ORDER_NANOS),
                name="topup_amount_bounded",
            ),
            models.CheckConstraint(
                condition=Q(state=TopUpState.PAID, transfer_id__isnull=False, ended_at__isnull=False)
                | ~Q(state=TopUpState.PAID) & Q(transfer_id__isnull=True),
                name="topup_credited_when_paid",
            ),
            models.CheckConstraint(
                condition=~Q(state=TopUpState.PAID)
                | Q(tax_nanos__gte=0, gross_nanos=F("amount_nanos") + F("tax_nanos")),
                name="topup_net_of_tax",
            ),
            models.CheckConstraint(
                condition=Q(state__in=OPEN_TOP_UP_STATES, ended_at__isnull=True)
                | ~Q(state__in=OPEN_TOP_UP_STATES) & Q(ended_at__isnull=False),
                name="topup_ended",
            ),
            # However many spends cross the threshold at once: one recharge is under way.
            models.UniqueConstraint(
                fields=["tenant"],
                condition=Q(source=TopUpSource.RECHARGE, state__in=OPEN_TOP_UP_STATES),
                name="topup_one_recharge",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="topup_tenant"),
            models.Index(fields=["charge_id"], condition=~Q(charge_id=""), name="topup_charge"),
            models.Index(fields=["created_at"], condition=Q(state__in=OPEN_TOP_UP_STATES), name="topup_open"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["top_up"], self.id)


class EventState(models.TextChoices):
    RECEIVED = "RECEIVED"
    PROCESSED = "PROCESSED"
    IGNORED = "IGNORED"  # nothing that concerns us
    FAILED = "FAILED"  # tried again until it is given up


class EventSource(models.TextChoices):
    WEBHOOK = "WEBHOOK"
    POLLER = "POLLER"


class StripeEvent(models.Model):
    """The inbox: an event of Stripe, stored once however often it comes. It is a hint about an object; the
    object itself is read again when it is processed."""

    id = models.CharField(primary_key=True, max_length=STRIPE_ID_LENGTH)
    type = models.CharField(max_length=100)
    object_id = models.CharField(max_length=STRIPE_ID_LENGTH, blank=True)
    account = models.CharField(max_length=STRIPE_ID_LENGTH, blank=True)
    api_version = models.CharField(max_length=64, blank=True)
    payload = models.JSONField()
    source = models.CharField(max_length=16, choices=EventSource)
    created_at = models.DateTimeField()  # at Stripe
    received_at = models.DateTimeField(db_default=models.functions.Now())
    state = models.CharField(max_length=16, choices=EventState, default=EventState.RECEIVED)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=models.functions.Now())
    error = models.CharField(max_length=500, blank=True)
    processed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=EventState.values), name="stripeevent_state_known"),
            models.CheckConstraint(
                condition=~Q(state__in=[EventState.PROCESSED, EventState.IGNORED])
                | Q(processed_at__isnull=False),
                name="stripeevent_processed",
            ),
        ]
        indexes = [
            models.Index(fields=["-created_at"], name="stripeevent_newest"),
            models.Index(fields=["object_id"], name="stripeevent_object"),
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(state__in=[EventState.RECEIVED, EventState.FAILED]),
                name="stripeevent_due",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class PollCursor(models.Model):
    """How far a poller has read a list at Stripe. It reads again with an overlap: what it knows already
    changes nothing."""

    name = models.CharField(primary_key=True, max_length=32)
    read_to = models.DateTimeField()
    polled_at = models.DateTimeField()
    error = models.CharField(max_length=500, blank=True)

    def __str__(self) -> str:
        return self.name


class RefundState(models.TextChoices):
    PENDING = "PENDING"  # debited; Stripe is to be asked, or is at it
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"  # refused by Stripe or the bank: the money is the organization's again


class Refund(models.Model):
    """Money of one top-up that goes back. Debited before Stripe is asked; what fails is credited again.

    ordered_by: the operator; none when it was made at Stripe. amount_nanos: the credit taken, net of tax.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    top_up = models.ForeignKey(TopUp, on_delete=models.PROTECT, related_name="refunds")
    amount_nanos = models.BigIntegerField()
    tax_nanos = models.BigIntegerField()
    gross_nanos = models.BigIntegerField()
    reason = models.CharField(max_length=500)
    state = models.CharField(max_length=16, choices=RefundState, default=RefundState.PENDING)
    refund_id = models.CharField(max_length=STRIPE_ID_LENGTH, null=True, blank=True, unique=True)
    failure_code = models.CharField(max_length=100, blank=True)
    ordered_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    ordered_at = models.DateTimeField(db_default=models.functions.Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    # Foreign keys are composite, with the currency: see the migration.
    transfer_id = models.UUIDField(unique=True)
    reversal_id = models.UUIDField(null=True, blank=True, unique=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=RefundState.values), name="refund_state_known"),
            models.CheckConstraint(
                condition=Q(amount_nanos__gte=0, tax_nanos__gte=0, gross_nanos__gt=0)
                & Q(gross_nanos=F("amount_nanos") + F("tax_nanos")),
                name="refund_amounts",
            ),
            models.CheckConstraint(
                condition=Q(state=RefundState.FAILED, reversal_id__isnull=False)
                | ~Q(state=RefundState.FAILED) & Q(reversal_id__isnull=True),
                name="refund_reversed_when_failed",
            ),
            models.CheckConstraint(
                condition=Q(state=RefundState.PENDING, ended_at__isnull=True)
                | ~Q(state=RefundState.PENDING) & Q(ended_at__isnull=False),
                name="refund_ended",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="refund_reason_given"),
        ]
        indexes = [models.Index(fields=["tenant", "-id"], name="refund_tenant")]

    def __str__(self) -> str:
        return public_id(PREFIXES["refund"], self.id)


class Dispute(models.Model):
    """A customer's bank wants a payment back. Its movements are DisputeMovements.

    status: Stripe's word (needs_response, under_review, won, lost, warning_…).
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    top_up = models.ForeignKey(TopUp, on_delete=models.PROTECT, related_name="disputes")
    dispute_id = models.CharField(max_length=STRIPE_ID_LENGTH, unique=True)
    charge_id = models.CharField(max_length=STRIPE_ID_LENGTH)
    amount_nanos = models.BigIntegerField()
    status = models.CharField(max_length=64)
    reason = models.CharField(max_length=64, blank=True)
    opened_at = models.DateTimeField()
    evidence_due_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "tenant", "currency"], name="dispute_id_tenant_currency"),
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="dispute_amount_positive"),
        ]
        indexes = [models.Index(fields=["tenant", "-id"], name="dispute_tenant")]

    def __str__(self) -> str:
        return public_id(PREFIXES["dispute"], self.id)


class DisputeMovement(models.Model):
    """Money that a dispute took (positive) or gave back (negative), once a balance transaction of Stripe.

    tax_nanos: how much of it is tax, of the same sign; the rest is credit.
    """

    balance_transaction_id = models.CharField(primary_key=True, max_length=STRIPE_ID_LENGTH)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    dispute = models.ForeignKey(Dispute, on_delete=models.PROTECT, related_name="movements")
    taken_nanos = models.BigIntegerField()
    tax_nanos = models.BigIntegerField()
    transfer_id = models.UUIDField(unique=True)
    posted_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(taken_nanos=0), name="disputemovement_moves"),
            models.CheckConstraint(
                condition=Q(taken_nanos__gt=0, tax_nanos__gte=0, tax_nanos__lte=F("taken_nanos"))
                | Q(taken_nanos__lt=0, tax_nanos__lte=0, tax_nanos__gte=F("taken_nanos")),
                name="disputemovement_tax_within",
            ),
        ]

    def __str__(self) -> str:
        return self.balance_transaction_id


class BalanceTransaction(models.Model):
    """A line of Stripe's own books, as it stands there: amount = net + fee, positive is money for us.

    fee_transfer: what was posted of its fee. transfer: what was posted of its amount by nobody else, such as
    a payout's.
    """

    id = models.CharField(primary_key=True, max_length=STRIPE_ID_LENGTH)
    type = models.CharField(max_length=64)
    reporting_category = models.CharField(max_length=64, blank=True)
    currency = models.CharField(max_length=3)
    amount_nanos = models.BigIntegerField()
    fee_nanos = models.BigIntegerField()
    source_id = models.CharField(max_length=STRIPE_ID_LENGTH, blank=True)
    created_at = models.DateTimeField()
    available_at = models.DateTimeField()
    fee_transfer_id = models.UUIDField(null=True, blank=True, unique=True)
    transfer_id = models.UUIDField(null=True, blank=True, unique=True)

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="balancetransaction_created"),
            models.Index(fields=["source_id"], name="balancetransaction_source"),
        ]

    def __str__(self) -> str:
        return self.id


class RechargeState(models.TextChoices):
    OFF = "OFF"
    ON = "ON"
    PAUSED = "PAUSED"  # the bank wants to see the customer first


class AutoRecharge(models.Model):
    """An organization's wish to buy `amount_nanos` of credit whenever its balance falls below a threshold,
    at most `monthly_cap_nanos` a calendar month (UTC), with a saved method of payment."""

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=16, choices=RechargeState, default=RechargeState.OFF)
    threshold_nanos = models.BigIntegerField()
    amount_nanos = models.BigIntegerField()
    monthly_cap_nanos = models.BigIntegerField()
    payment_method_id = models.CharField(max_length=STRIPE_ID_LENGTH, blank=True)
    method = models.CharField(max_length=64, blank=True)
    # When the method was given at Stripe: one that was given before never takes its place.
    method_at = models.DateTimeField(null=True, blank=True)
    # In a row; the third switches it off. After one, nothing is tried before retry_at.
    declines = models.PositiveSmallIntegerField(default=0)
    retry_at = models.DateTimeField(null=True, blank=True)
    state_reason = models.CharField(max_length=100, blank=True)
    changed_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    changed_at = models.DateTimeField(db_default=models.functions.Now())

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=RechargeState.values), name="autorecharge_state_known"
            ),
            models.CheckConstraint(
                condition=Q(threshold_nanos__gte=0, amount_nanos__gt=0, amount_nanos__lte=MAX_ORDER_NANOS),
                name="autorecharge_amounts",
            ),
            models.CheckConstraint(
                condition=Q(monthly_cap_nanos__gte=F("amount_nanos")), name="autorecharge_cap_allows_one"
            ),
            models.CheckConstraint(
                condition=Q(state=RechargeState.OFF) | ~Q(payment_method_id=""),
                name="autorecharge_has_method",
            ),
            models.CheckConstraint(
                condition=~Q(state=RechargeState.ON) | Q(declines__lt=3), name="autorecharge_declined_thrice"
            ),
        ]

    def __str__(self) -> str:
        return f"auto-recharge of {public_id(PREFIXES['organization'], self.tenant_id)}"
