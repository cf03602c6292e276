"""Organizations that pay afterwards: the agreement, an invoice a month, and credit notes on it.

Written by quotas.payments.postpaid; what moved is in the ledger. Amounts are nano-units of the wallet's
currency. An invoice of a month says what calls that were admitted before its end came to; what is settled
after it was drawn up stands on the next one.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from models_catalog.models import CatalogModel
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.models.credit import MAX_ORDER_NANOS
from quotas.models.payments import STRIPE_ID_LENGTH, TopUp
from tenants.models import Tenant, User
from tenants.scope import TenantManager

MAX_DAYS_UNTIL_DUE = 120


class PostpaidAgreement(models.Model):
    """An operator lets an organization pay afterwards, by a monthly invoice. Usage that was posted since
    `since` stands on invoices; `since` never changes, so that nothing falls between two agreements."""

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.PROTECT, related_name="+")
    currency = models.CharField(max_length=3)
    is_on = models.BooleanField(default=True)
    since = models.DateTimeField()
    days_until_due = models.PositiveSmallIntegerField()
    changed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    changed_at = models.DateTimeField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(days_until_due__gte=0, days_until_due__lte=MAX_DAYS_UNTIL_DUE),
                name="postpaidagreement_days_bounded",
            ),
        ]

    def __str__(self) -> str:
        return f"agreement of {public_id(PREFIXES['organization'], self.tenant_id)}"


class MonthlyInvoiceState(models.TextChoices):
    COVERED = "COVERED"  # nothing is due: paid in advance, or so little that it is carried over
    DRAFT = "DRAFT"  # on its way to Stripe
    OPEN = "OPEN"  # can be paid
    PAID = "PAID"
    VOID = "VOID"  # taken back at Stripe: what it was about stands on the next one
    UNCOLLECTIBLE = "UNCOLLECTIBLE"  # given up, can still be paid


OWED_INVOICE_STATES = (MonthlyInvoiceState.OPEN, MonthlyInvoiceState.UNCOLLECTIBLE)
_FINALIZED = (MonthlyInvoiceState.OPEN, MonthlyInvoiceState.PAID, MonthlyInvoiceState.UNCOLLECTIBLE)


class DunningState(models.TextChoices):
    CLEAR = "CLEAR"  # not due yet, or not told yet
    REMINDED = "REMINDED"
    EXHAUSTED = "EXHAUSTED"  # reminded as often as it is done: a reason to suspend


class MonthlyInvoice(models.Model):
    """What an organization owes of the months until `to_at`; its lines add up to amount_nanos.

    It covers calls admitted before `to_at` as far as they were settled before `cut_at` (the database's
    clock), without those that the invoice before covers (`from_at`, `from_cut_at`). due = brought_nanos +
    usage_nanos - payments_nanos; of that amount_nanos, in whole minor units, is asked for (net of tax), and
    the rest is carried over. payments_nanos: money that came in meanwhile, less what went back.
    credited_nanos: credit notes before it was paid. top_up: has the invoice's own id, credits its payment.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    month = models.DateField()
    from_at = models.DateTimeField()
    from_cut_at = models.DateTimeField()
    to_at = models.DateTimeField()
    cut_at = models.DateTimeField()
    usage_nanos = models.BigIntegerField()
    brought_nanos = models.BigIntegerField()
    payments_nanos = models.BigIntegerField()
    amount_nanos = models.BigIntegerField()
    credited_nanos = models.BigIntegerField(default=0)
    days_until_due = models.PositiveSmallIntegerField()
    state = models.CharField(max_length=16, choices=MonthlyInvoiceState)
    dunning = models.CharField(max_length=16, choices=DunningState, default=DunningState.CLEAR)
    reminders = models.PositiveSmallIntegerField(default=0)
    reminded_at = models.DateTimeField(null=True, blank=True)
    exhausted_at = models.DateTimeField(null=True, blank=True)
    stripe_invoice_id = models.CharField(max_length=STRIPE_ID_LENGTH, null=True, blank=True, unique=True)
    # As it stands on paper, and where it can be paid and read.
    number = models.CharField(max_length=64, blank=True)
    pay_url = models.URLField(max_length=2000, blank=True)
    pdf_url = models.URLField(max_length=2000, blank=True)
    # Why it is not at Stripe yet, or not as it should be: for operators.
    failure_text = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()
    finalized_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    top_up = models.OneToOneField(TopUp, null=True, blank=True, on_delete=models.PROTECT, related_name="+")

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["id", "tenant", "currency"], name="monthlyinvoice_id_tenant_currency"
            ),
            models.UniqueConstraint(fields=["tenant", "month"], name="monthlyinvoice_once_a_month"),
            models.CheckConstraint(
                condition=Q(state__in=MonthlyInvoiceState.values), name="monthlyinvoice_state_known"
            ),
            models.CheckConstraint(
                condition=Q(dunning=DunningState.CLEAR, reminders=0, exhausted_at__isnull=True)
                | Q(dunning=DunningState.REMINDED, reminders__gt=0, exhausted_at__isnull=True)
                | Q(dunning=DunningState.EXHAUSTED, exhausted_at__isnull=False),
                name="monthlyinvoice_dunning",
            ),
            models.CheckConstraint(
                condition=Q(month__day=1, from_at__lt=F("to_at"), from_cut_at__lte=F("cut_at")),
                name="monthlyinvoice_period",
            ),
            models.CheckConstraint(
                condition=Q(amount_nanos__gte=0, amount_nanos__lte=MAX_ORDER_NANOS)
                & (
                    Q(amount_nanos=0)
                    | Q(amount_nanos__lte=F("brought_nanos") + F("usage_nanos") - F("payments_nanos"))
                ),
                name="monthlyinvoice_asks_what_is_due",
            ),
            models.CheckConstraint(
                condition=Q(credited_nanos__gte=0, credited_nanos__lte=F("amount_nanos")),
                name="monthlyinvoice_credited_within",
            ),
            models.CheckConstraint(
                condition=Q(state=MonthlyInvoiceState.COVERED, amount_nanos=0)
                | ~Q(state=MonthlyInvoiceState.COVERED) & Q(amount_nanos__gt=0),
                name="monthlyinvoice_covered_asks_nothing",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=_FINALIZED)
                | Q(stripe_invoice_id__isnull=False, finalized_at__isnull=False, due_at__isnull=False),
                name="monthlyinvoice_finalized",
            ),
            models.CheckConstraint(
                condition=Q(state=MonthlyInvoiceState.PAID, top_up__isnull=False, top_up=F("id"))
                | Q(
                    state=MonthlyInvoiceState.PAID,
                    top_up__isnull=True,
                    credited_nanos=F("amount_nanos"),
                )
                | ~Q(state=MonthlyInvoiceState.PAID) & Q(top_up__isnull=True),
                name="monthlyinvoice_credited_once",
            ),
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=Q(state=MonthlyInvoiceState.OPEN),
                name="monthlyinvoice_open",
            ),
            models.Index(
                fields=["tenant"],
                condition=Q(state__in=OWED_INVOICE_STATES, dunning=DunningState.EXHAUSTED),
                name="monthlyinvoice_overdue",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["monthly_invoice"], self.id)

    @property
    def due_nanos(self) -> int:
        """What was owed, before it is rounded to what can be asked for."""
        return self.brought_nanos + self.usage_nanos - self.payments_nanos

    @property
    def payable_nanos(self) -> int:
        """What is to be paid, net of tax, after credit notes."""
        return self.amount_nanos - self.credited_nanos


class MonthlyLineKind(models.TextChoices):
    USAGE = "USAGE"  # of one model and token class
    BROUGHT = "BROUGHT"  # from before; negative: paid in advance
    PAYMENTS = "PAYMENTS"  # money that came in meanwhile, as a negative amount
    CARRIED = "CARRIED"  # what is left for the next invoice, as a negative amount


class MonthlyInvoiceLine(models.Model):
    """A line of a monthly invoice. amount = cost - free; asked_nanos is the amount as it stands at Stripe, in
    whole minor units: the line CARRIED takes up what rounding leaves, so both add up to the invoice.

    units: tokens (or calls, of class `request`) that are billed; cost_nanos: what they cost by their prices;
    free_nanos: what of it granted credit paid, or was served beyond the hold and is ours.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    # The foreign key is composite, with the tenant: see the migration.
    invoice = models.ForeignKey(
        MonthlyInvoice, on_delete=models.PROTECT, related_name="lines", db_constraint=False, db_index=False
    )
    currency = models.CharField(max_length=3)
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=MonthlyLineKind)
    model = models.ForeignKey(
        CatalogModel, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    token_class = models.CharField(max_length=16, blank=True)
    units = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    free_nanos = models.BigIntegerField(default=0)
    amount_nanos = models.BigIntegerField()
    asked_nanos = models.BigIntegerField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["invoice", "kind", "model", "token_class"],
                nulls_distinct=False,
                name="monthlyinvoiceline_once",
            ),
            models.CheckConstraint(
                condition=Q(kind=MonthlyLineKind.USAGE, model__isnull=False)
                & ~Q(token_class="")
                & Q(amount_nanos=F("cost_nanos") - F("free_nanos"))
                | Q(kind__in=[kind for kind in MonthlyLineKind.values if kind != "USAGE"])
                & Q(model__isnull=True, token_class="", units=0, cost_nanos=0, free_nanos=0),
                name="monthlyinvoiceline_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.token_class}".strip()


class CreditNoteState(models.TextChoices):
    PENDING = "PENDING"  # Stripe is to be asked
    ISSUED = "ISSUED"
    FAILED = "FAILED"  # Stripe refused it, and nothing moved


class CreditNote(models.Model):
    """A correction of an invoice that is final: the invoice stays as it is. What it gives back lowers what is
    to be paid, or is paid credit where the invoice is paid (is_after_payment).

    ordered_by: the operator; none when it was made at Stripe. amount_nanos: net of tax.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    # The foreign key is composite, with tenant and currency: see the migration.
    invoice = models.ForeignKey(
        MonthlyInvoice, on_delete=models.PROTECT, related_name="credit_notes", db_constraint=False
    )
    amount_nanos = models.BigIntegerField()
    is_after_payment = models.BooleanField()
    reason = models.CharField(max_length=500)
    ordered_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    ordered_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=CreditNoteState, default=CreditNoteState.PENDING)
    credit_note_id = models.CharField(max_length=STRIPE_ID_LENGTH, null=True, blank=True, unique=True)
    number = models.CharField(max_length=64, blank=True)
    pdf_url = models.URLField(max_length=2000, blank=True)
    failure_text = models.CharField(max_length=500, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    # The foreign key is composite, with the currency: see the migration.
    transfer_id = models.UUIDField(null=True, blank=True, unique=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="creditnote_amount_positive"),
            models.CheckConstraint(condition=~Q(reason=""), name="creditnote_reason_given"),
            models.CheckConstraint(
                condition=Q(state=CreditNoteState.PENDING, ended_at__isnull=True, transfer_id__isnull=True)
                | Q(
                    state=CreditNoteState.ISSUED,
                    ended_at__isnull=False,
                    transfer_id__isnull=False,
                    credit_note_id__isnull=False,
                )
                | Q(state=CreditNoteState.FAILED, ended_at__isnull=False, transfer_id__isnull=True),
                name="creditnote_posted_when_issued",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-id"], name="creditnote_tenant")]

    def __str__(self) -> str:
        return public_id(PREFIXES["credit_note"], self.id)
