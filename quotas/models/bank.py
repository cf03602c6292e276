"""Bank transfers and invoices on request. Written by quotas.payments; what moved is in the ledger.

Amounts are nano-units of the wallet's currency.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Func, Q, Value

from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.models.credit import MAX_ORDER_NANOS
from quotas.models.payments import TopUp
from tenants.models import Tenant, User
from tenants.scope import TenantManager

MINOR_UNIT_NANOS = 10**7
"""What an invoice is made out in: hundredths. The rest waits for the next invoice."""
MAX_DOCUMENT_BYTES = 2 * 2**20
REFERENCE_LENGTH = 12
# A reference as it is spelled: without the signs that people mix up.
REFERENCE_PATTERN = r"^SL[2-9A-HJKMNP-TV-Z]{2}-[2-9A-HJKMNP-TV-Z]{4}-[0-9]{2}$"


class BankReference(models.Model):
    """What an organization writes into its bank transfers, so that they find it. Made once, never given to
    anybody else; its last two digits check the rest (a constraint of the migration)."""

    reference = models.CharField(primary_key=True, max_length=REFERENCE_LENGTH)
    tenant = models.OneToOneField(Tenant, on_delete=models.PROTECT, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    created_at = models.DateTimeField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["reference", "tenant"], name="bankreference_tenant"),
            models.CheckConstraint(
                condition=Q(reference__regex=REFERENCE_PATTERN), name="bankreference_spelling"
            ),
        ]

    def __str__(self) -> str:
        return self.reference


class ReceiptState(models.TextChoices):
    WAITING = "WAITING"  # for a second operator
    APPROVED = "APPROVED"  # and credited
    REFUSED = "REFUSED"
    WITHDRAWN = "WITHDRAWN"


class BankReceipt(models.Model):
    """A line of our bank's statement: money that came in for an organization, as an operator recorded it.

    A second operator approves it; that credits the top-up that has the receipt's own id, so no receipt is
    credited twice. `bank_transaction_id` is the bank's name for the line: as long as it counts, nobody
    records the line again. amount_nanos: what came in; tax_nanos of it is tax and becomes no credit.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    # None when the payer forgot it, and an operator named the organization.
    reference = models.ForeignKey(
        BankReference, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    amount_nanos = models.BigIntegerField()
    tax_nanos = models.BigIntegerField(default=0)
    value_date = models.DateField()
    bank_transaction_id = models.CharField(max_length=100)
    payer_name = models.CharField(max_length=200)
    reason = models.CharField(max_length=500)
    recorded_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    recorded_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=ReceiptState, default=ReceiptState.WAITING)
    decided_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=500, blank=True)
    top_up = models.OneToOneField(TopUp, null=True, blank=True, on_delete=models.PROTECT, related_name="+")

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=ReceiptState.values), name="bankreceipt_state_known"
            ),
            models.CheckConstraint(
                condition=Q(tax_nanos__gte=0, amount_nanos__gt=F("tax_nanos"))
                & Q(amount_nanos__lte=MAX_ORDER_NANOS),
                name="bankreceipt_amounts",
            ),
            models.CheckConstraint(
                condition=~Q(bank_transaction_id="") & ~Q(payer_name="") & ~Q(reason=""),
                name="bankreceipt_said",
            ),
            # Spelled in one way, so that the same line is the same text.
            models.CheckConstraint(
                condition=Q(
                    bank_transaction_id=Func(
                        Func(F("bank_transaction_id"), function="upper"),
                        Value(r"\s"),
                        Value(""),
                        Value("g"),
                        function="regexp_replace",
                        output_field=models.CharField(),
                    )
                ),
                name="bankreceipt_line_spelling",
            ),
            models.UniqueConstraint(
                fields=["currency", "bank_transaction_id"],
                condition=Q(state__in=[ReceiptState.WAITING, ReceiptState.APPROVED]),
                name="bankreceipt_line_once",
            ),
            models.CheckConstraint(
                condition=Q(state=ReceiptState.WAITING, decided_at__isnull=True, decided_by__isnull=True)
                | ~Q(state=ReceiptState.WAITING) & Q(decided_at__isnull=False, decided_by__isnull=False),
                name="bankreceipt_decided",
            ),
            # Always two: there is no amount that one operator credits alone.
            models.CheckConstraint(
                condition=Q(decided_by__isnull=True)
                | Q(state=ReceiptState.WITHDRAWN, decided_by=F("recorded_by"))
                | ~Q(state=ReceiptState.WITHDRAWN) & ~Q(decided_by=F("recorded_by")),
                name="bankreceipt_decided_by_another",
            ),
            models.CheckConstraint(
                condition=Q(state=ReceiptState.APPROVED, top_up__isnull=False, top_up=F("id"))
                | ~Q(state=ReceiptState.APPROVED) & Q(top_up__isnull=True),
                name="bankreceipt_credited_once",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="bankreceipt_tenant"),
            models.Index(
                fields=["recorded_at"], condition=Q(state=ReceiptState.WAITING), name="bankreceipt_waiting"
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["bank_receipt"], self.id)


class ProfileState(models.TextChoices):
    UNVERIFIED = "UNVERIFIED"  # waits for an operator
    VERIFIED = "VERIFIED"
    REFUSED = "REFUSED"  # the organization has to correct it


class BillingProfile(models.Model):
    """Whom invoices of an organization are made out to.

    A trigger takes the verification away with every change of the legal name or the tax id.
    """

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.PROTECT, related_name="+")
    legal_name = models.CharField(max_length=200)
    tax_id = models.CharField(max_length=64)
    address = models.CharField(max_length=500, blank=True)
    # Of the organization's own bank, where invoices name it.
    bank_details = models.CharField(max_length=500, blank=True)
    changed_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    changed_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=ProfileState, default=ProfileState.UNVERIFIED)
    decided_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=500, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=~Q(legal_name="") & ~Q(tax_id=""), name="billingprofile_names_given"
            ),
            models.CheckConstraint(
                condition=Q(state=ProfileState.UNVERIFIED, decided_at__isnull=True, decided_by__isnull=True)
                | Q(state=ProfileState.VERIFIED, decided_at__isnull=False, decided_by__isnull=False)
                | Q(state=ProfileState.REFUSED, decided_at__isnull=False, decided_by__isnull=False)
                & ~Q(decision_reason=""),
                name="billingprofile_decided",
            ),
        ]
        indexes = [
            models.Index(
                fields=["changed_at"],
                condition=Q(state=ProfileState.UNVERIFIED),
                name="billingprofile_waiting",
            ),
        ]

    def __str__(self) -> str:
        return self.legal_name


class InvoiceState(models.TextChoices):
    REQUESTED = "REQUESTED"
    ISSUED = "ISSUED"  # has a number and a document
    REFUSED = "REFUSED"
    CANCELLED = "CANCELLED"  # by the organization, before it was issued
    CREDITED = "CREDITED"  # a credit note took it back


INVOICING_STATES = (InvoiceState.REQUESTED, InvoiceState.ISSUED)
"""Those whose amount is invoiced: nobody invoices it again."""


class InvoiceRequest(models.Model):
    """An invoice that an organization asked for: over paid credit that was consumed and that no invoice
    covers yet, at Stripe neither. A trigger keeps all of them together within that, and never changes what
    an invoice is about.

    amount_nanos: net of tax, whole minor units. to_at: what was consumed before. Names are those of the
    profile at that moment. decided_by: the operator who issued or refused it; none when an adapter did.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    currency = models.CharField(max_length=3)
    amount_nanos = models.BigIntegerField()
    to_at = models.DateTimeField()
    legal_name = models.CharField(max_length=200)
    tax_id = models.CharField(max_length=64)
    address = models.CharField(max_length=500, blank=True)
    bank_details = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    requested_at = models.DateTimeField()
    state = models.CharField(max_length=16, choices=InvoiceState, default=InvoiceState.REQUESTED)
    # As the tax office knows it.
    number = models.CharField(max_length=64, null=True, blank=True, unique=True)
    decided_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.CharField(max_length=500, blank=True)
    cancelled_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    cancelled_at = models.DateTimeField(null=True, blank=True)
    credit_number = models.CharField(max_length=64, null=True, blank=True, unique=True)
    credited_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    credited_at = models.DateTimeField(null=True, blank=True)
    credit_reason = models.CharField(max_length=500, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "tenant"], name="invoicerequest_id_tenant"),
            models.CheckConstraint(
                condition=Q(state__in=InvoiceState.values), name="invoicerequest_state_known"
            ),
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="invoicerequest_amount_positive"),
            models.CheckConstraint(
                condition=~Q(legal_name="") & ~Q(tax_id=""), name="invoicerequest_names_given"
            ),
            # Whoever may only cancel (the organization's role in the database) can bring about nothing else.
            models.CheckConstraint(
                condition=Q(
                    state__in=[InvoiceState.REQUESTED, InvoiceState.CANCELLED],
                    decided_at__isnull=True,
                    decided_by__isnull=True,
                    number__isnull=True,
                )
                | Q(state=InvoiceState.REFUSED, decided_at__isnull=False, decided_by__isnull=False)
                & Q(number__isnull=True)
                & ~Q(decision_reason="")
                | Q(state__in=[InvoiceState.ISSUED, InvoiceState.CREDITED], decided_at__isnull=False)
                & Q(number__isnull=False)
                & ~Q(number=""),
                name="invoicerequest_decided",
            ),
            models.CheckConstraint(
                condition=Q(
                    state=InvoiceState.CANCELLED, cancelled_at__isnull=False, cancelled_by__isnull=False
                )
                | ~Q(state=InvoiceState.CANCELLED) & Q(cancelled_at__isnull=True, cancelled_by__isnull=True),
                name="invoicerequest_cancelled",
            ),
            models.CheckConstraint(
                condition=Q(state=InvoiceState.CREDITED, credited_at__isnull=False, credited_by__isnull=False)
                & Q(credit_number__isnull=False)
                & ~Q(credit_number="")
                & ~Q(credit_reason="")
                | ~Q(state=InvoiceState.CREDITED)
                & Q(credited_at__isnull=True, credited_by__isnull=True, credit_number__isnull=True),
                name="invoicerequest_credited",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="invoicerequest_tenant"),
            models.Index(
                fields=["requested_at"],
                condition=Q(state=InvoiceState.REQUESTED),
                name="invoicerequest_waiting",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["invoice"], self.id)


class InvoiceLine(models.Model):
    """The part of an invoice that was consumed in one month (its first day, UTC). The lines of an invoice
    add up to it; the oldest one also has what was consumed before."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    # The foreign key is composite, with the tenant: see the migration.
    invoice = models.ForeignKey(
        InvoiceRequest,
        on_delete=models.PROTECT,
        related_name="lines",
        db_constraint=False,
        db_index=False,
    )
    month = models.DateField()
    amount_nanos = models.BigIntegerField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["invoice", "month"], name="invoiceline_once_a_month"),
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="invoiceline_amount_positive"),
            models.CheckConstraint(condition=Q(month__day=1), name="invoiceline_first_of_month"),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class DocumentKind(models.TextChoices):
    INVOICE = "INVOICE"
    CREDIT_NOTE = "CREDIT_NOTE"


class InvoiceDocument(models.Model):
    """The PDF of an invoice, or of the credit note that took it back. Never changed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+", db_index=False)
    # The foreign key is composite, with the tenant: see the migration.
    invoice = models.ForeignKey(
        InvoiceRequest,
        on_delete=models.PROTECT,
        related_name="documents",
        db_constraint=False,
        db_index=False,
    )
    kind = models.CharField(max_length=16, choices=DocumentKind)
    content = models.BinaryField()
    size_bytes = models.PositiveIntegerField()
    created_at = models.DateTimeField()

    objects = TenantManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["invoice", "kind"], name="invoicedocument_once"),
            models.CheckConstraint(
                condition=Q(kind__in=DocumentKind.values), name="invoicedocument_kind_known"
            ),
            models.CheckConstraint(
                condition=Q(size_bytes__gt=0, size_bytes__lte=MAX_DOCUMENT_BYTES),
                name="invoicedocument_size",
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["invoice_document"], self.id)
