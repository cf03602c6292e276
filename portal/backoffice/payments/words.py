"""What payments, and what becomes of them, are called on operators' pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext_lazy, pgettext_lazy

from quotas.models import (
    AccountKind,
    EventSource,
    EventState,
    OperationKind,
    OperationState,
    RefundState,
    TopUpSource,
    TopUpState,
    TransferKind,
)

# The tone of a badge, and the word in it.
TOP_UP_STATES: Final = {
    TopUpState.OPEN: ("quiet", pgettext_lazy("top-up", "Open")),
    TopUpState.PROCESSING: ("warn", pgettext_lazy("top-up", "Processing")),
    TopUpState.ACTION_NEEDED: ("warn", pgettext_lazy("top-up", "Waits for the customer")),
    TopUpState.PAID: ("ok", pgettext_lazy("top-up", "Paid")),
    TopUpState.FAILED: ("bad", pgettext_lazy("top-up", "Failed")),
    TopUpState.EXPIRED: ("quiet", pgettext_lazy("top-up", "Expired")),
}
TOP_UP_SOURCES: Final = {
    TopUpSource.CHECKOUT: pgettext_lazy("top-up", "Checkout"),
    TopUpSource.RECHARGE: pgettext_lazy("top-up", "Auto-recharge"),
    TopUpSource.BANK: pgettext_lazy("top-up", "Bank transfer"),
    TopUpSource.INVOICE: pgettext_lazy("top-up", "Monthly invoice"),
}
REFUND_STATES: Final = {
    RefundState.PENDING: ("warn", pgettext_lazy("refund", "On its way")),
    RefundState.SUCCEEDED: ("ok", pgettext_lazy("refund", "Paid back")),
    RefundState.FAILED: ("bad", pgettext_lazy("refund", "Failed, credited again")),
}
EVENT_STATES: Final = {
    EventState.RECEIVED: ("warn", pgettext_lazy("event", "Waiting")),
    EventState.PROCESSED: ("ok", pgettext_lazy("event", "Processed")),
    EventState.IGNORED: ("quiet", pgettext_lazy("event", "Ignored")),
    EventState.FAILED: ("bad", pgettext_lazy("event", "Failed")),
}
EVENT_SOURCES: Final = {
    EventSource.WEBHOOK: gettext_lazy("Webhook"),
    EventSource.POLLER: pgettext_lazy("event", "Poller"),
}
OPERATION_STATES: Final = {
    OperationState.PENDING: ("warn", pgettext_lazy("operation", "Pending")),
    OperationState.DONE: ("ok", pgettext_lazy("operation", "Done")),
    OperationState.REFUSED: ("bad", pgettext_lazy("operation", "Refused")),
    OperationState.ABANDONED: ("bad", pgettext_lazy("operation", "Abandoned")),
}
OPERATION_KINDS: Final[Mapping[str, Any]] = {
    OperationKind.CUSTOMER: pgettext_lazy("operation", "Make the customer"),
    OperationKind.CHECKOUT: pgettext_lazy("operation", "Open a checkout"),
    OperationKind.EXPIRE_CHECKOUT: pgettext_lazy("operation", "Close a checkout"),
    OperationKind.SETUP: pgettext_lazy("operation", "Save a method"),
    OperationKind.RECHARGE: pgettext_lazy("operation", "Recharge"),
    OperationKind.CANCEL_INTENT: pgettext_lazy("operation", "Cancel a payment"),
    OperationKind.REFUND: pgettext_lazy("operation", "Refund"),
    OperationKind.INVOICE: pgettext_lazy("operation", "Make an invoice"),
    OperationKind.INVOICE_ITEM: pgettext_lazy("operation", "Add a line to an invoice"),
    OperationKind.FINALIZE_INVOICE: pgettext_lazy("operation", "Issue an invoice"),
    OperationKind.CREDIT_NOTE: pgettext_lazy("operation", "Make a credit note"),
}
TRANSFER_KINDS: Final[Mapping[str, Any]] = {
    TransferKind.TOP_UP: pgettext_lazy("transfer", "Top-up"),
    TransferKind.REFUND: pgettext_lazy("transfer", "Refund"),
    TransferKind.REFUND_REVERSED: pgettext_lazy("transfer", "Refund reversed"),
    TransferKind.CHARGEBACK: pgettext_lazy("transfer", "Chargeback"),
    TransferKind.REINSTATED: pgettext_lazy("transfer", "Reinstated"),
    TransferKind.PAYMENT_FEE: pgettext_lazy("transfer", "Payment fee"),
    TransferKind.EXPIRY: pgettext_lazy("transfer", "Expired"),
    TransferKind.PAYOUT: pgettext_lazy("transfer", "Payout"),
}
ACCOUNTS: Final[Mapping[str, Any]] = {
    AccountKind.TOPPED_UP: gettext_lazy("Paid credit"),
    AccountKind.GRANTED: gettext_lazy("Granted credit"),
    AccountKind.RECEIVABLE: pgettext_lazy("account", "Receivable"),
    AccountKind.STRIPE_CLEARING: pgettext_lazy("account", "Stripe clearing"),
    AccountKind.CASH_CLEARING: pgettext_lazy("account", "Cash clearing"),
    AccountKind.PAYMENT_FEES: gettext_lazy("Payment fees"),
    AccountKind.TAX_PAYABLE: pgettext_lazy("account", "Tax payable"),
}
# Stripe's words for the state of a dispute.
DISPUTE_STATUSES: Final[Mapping[str, Any]] = {
    "needs_response": ("bad", pgettext_lazy("dispute", "Needs a response")),
    "under_review": ("warn", pgettext_lazy("dispute", "Under review")),
    "won": ("ok", pgettext_lazy("dispute", "Won")),
    "lost": ("bad", pgettext_lazy("dispute", "Lost")),
    "warning_needs_response": ("warn", pgettext_lazy("dispute", "Inquiry: needs a response")),
    "warning_under_review": ("warn", pgettext_lazy("dispute", "Inquiry: under review")),
    "warning_closed": ("quiet", pgettext_lazy("dispute", "Inquiry closed")),
    "prevented": ("quiet", pgettext_lazy("dispute", "Prevented")),
}


def word_of(words: Mapping[Any, Any], value: str) -> str:
    """The word for it; what nobody has a word for stays as it is spelled."""
    return str(words.get(value, value))


def badge_of(words: Mapping[Any, tuple[str, Any]], value: str) -> tuple[str, str]:
    """The tone and the word, as word_of."""
    tone, word = words.get(value, ("quiet", value))
    return tone, str(word)


def dispute_status(status: str) -> tuple[str, str]:
    """The tone and the word; Stripe may say what nobody has a word for."""
    return badge_of(DISPUTE_STATUSES, status)


def choices(words: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """For a filter: each value with its word."""
    return [(str(value), word[1] if isinstance(word, tuple) else word) for value, word in words.items()]
