"""What the states of calls, records and transfers are called on pages."""

import re
from typing import Final

from django.utils.translation import gettext_lazy, pgettext, pgettext_lazy

from models_catalog.models import CancelPolicy
from portal.kit.ids import BASE32_LENGTH, PREFIXES
from quotas.metering.queries import Sureness
from quotas.models import (
    AttemptOutcome,
    Basis,
    CorrectionCause,
    HoldState,
    InvoiceState,
    MonthlyInvoiceState,
    MonthlyLineKind,
    TransferKind,
    UsageSource,
)

TRANSFER_KINDS: Final = {
    TransferKind.USAGE: pgettext_lazy("transaction", "Usage"),
    TransferKind.TOP_UP: gettext_lazy("Top-up"),
    TransferKind.GRANT: pgettext_lazy("transaction", "Granted credit"),
    TransferKind.ADJUSTMENT: gettext_lazy("Adjustment"),
    TransferKind.REFUND: gettext_lazy("Refund"),
    TransferKind.REFUND_REVERSED: gettext_lazy("Refund that did not arrive"),
    TransferKind.CHARGEBACK: gettext_lazy("Chargeback"),
    TransferKind.REINSTATED: gettext_lazy("Chargeback returned"),
    TransferKind.EXPIRY: gettext_lazy("Granted credit expired"),
    TransferKind.PAYMENT_FEE: gettext_lazy("Payment fee"),
    TransferKind.PAYOUT: gettext_lazy("Payout"),
    TransferKind.SURPLUS: gettext_lazy("Served beyond the bill"),
}
# Those between accounts of the house are on no statement of an organization.
HOUSE_TRANSFERS: Final = frozenset({TransferKind.PAYMENT_FEE, TransferKind.PAYOUT, TransferKind.SURPLUS})
TENANT_TRANSFERS: Final = tuple(kind for kind in TransferKind if kind not in HOUSE_TRANSFERS)
# Of invoices on request: the tone of a badge, and the word in it.
INVOICE_STATES: Final = {
    InvoiceState.REQUESTED: ("warn", pgettext_lazy("invoice", "Requested")),
    InvoiceState.ISSUED: ("ok", pgettext_lazy("invoice", "Issued")),
    InvoiceState.REFUSED: ("bad", pgettext_lazy("invoice", "Refused")),
    InvoiceState.CANCELLED: ("quiet", pgettext_lazy("invoice", "Cancelled")),
    InvoiceState.CREDITED: ("quiet", pgettext_lazy("invoice", "Taken back")),
}
MONTHLY_INVOICE_STATES: Final = {
    MonthlyInvoiceState.COVERED: ("quiet", pgettext_lazy("invoice", "Nothing due")),
    MonthlyInvoiceState.DRAFT: ("warn", pgettext_lazy("invoice", "Being drawn up")),
    MonthlyInvoiceState.OPEN: ("warn", pgettext_lazy("invoice", "To be paid")),
    MonthlyInvoiceState.PAID: ("ok", pgettext_lazy("invoice", "Paid")),
    MonthlyInvoiceState.VOID: ("quiet", pgettext_lazy("invoice", "Void")),
    MonthlyInvoiceState.UNCOLLECTIBLE: ("bad", pgettext_lazy("invoice", "Not paid")),
}
MONTHLY_LINES: Final = {
    MonthlyLineKind.BROUGHT: gettext_lazy("Brought forward from before"),
    MonthlyLineKind.PAYMENTS: gettext_lazy("Paid in advance meanwhile"),
    MonthlyLineKind.CARRIED: gettext_lazy("Rounding, and carried over to the next invoice"),
}
OUTCOMES: Final = {
    AttemptOutcome.COMPLETED: gettext_lazy("Completed"),
    AttemptOutcome.CLIENT_GONE: gettext_lazy("Stopped by caller"),
    AttemptOutcome.BACKEND_REFUSED: gettext_lazy("Refused by the backend"),
    AttemptOutcome.BACKEND_FAILED: gettext_lazy("Backend failed"),
    AttemptOutcome.BACKEND_TIMEOUT: gettext_lazy("Backend timed out"),
    AttemptOutcome.UNREACHABLE: gettext_lazy("Backend not reached"),
    AttemptOutcome.STALE: gettext_lazy("Connection was closed"),
    AttemptOutcome.CUT: gettext_lazy("Cut by the service"),
    AttemptOutcome.LOST: gettext_lazy("Lost"),
}
GOOD_OUTCOMES: Final = frozenset({AttemptOutcome.COMPLETED})
NEUTRAL_OUTCOMES: Final = frozenset({AttemptOutcome.CLIENT_GONE, AttemptOutcome.BACKEND_REFUSED})
HOLD_STATES: Final = {
    HoldState.PENDING: gettext_lazy("Running"),
    HoldState.POSTED: gettext_lazy("Charged"),
    HoldState.VOIDED: gettext_lazy("Not charged"),
    HoldState.EXPIRED: gettext_lazy("Charged to the last checkpoint"),
}
SURENESSES: Final = {
    Sureness.MEASURED: gettext_lazy("Measured"),
    Sureness.CONFIRMED: gettext_lazy("Confirmed"),
    Sureness.ESTIMATED: gettext_lazy("Estimated"),
    Sureness.CORRECTED: gettext_lazy("Corrected"),
}
SURENESS_TEXTS: Final = {
    Sureness.MEASURED: gettext_lazy("The gateway metered it; the backend's own record has not come yet."),
    Sureness.CONFIRMED: gettext_lazy("The gateway metered it, and the backend's own record says the same."),
    Sureness.ESTIMATED: gettext_lazy("The backend did not say; we counted what was delivered."),
    Sureness.CORRECTED: gettext_lazy("Set right afterwards; the reason stands with the correction."),
}
CORRECTION_CAUSES: Final = {
    CorrectionCause.COUNTS_DIFFER: gettext_lazy("the backend's record says other counts"),
    CorrectionCause.SETTLEMENT_LOST: gettext_lazy(
        "the gateway was lost before it could settle the call; billed from the backend's record"
    ),
    CorrectionCause.BY_HAND: gettext_lazy("looked at and set right by an operator"),
}
BASES: Final = {
    Basis.FINAL_USAGE: gettext_lazy("the backend's final count"),
    Basis.CHECKPOINT: gettext_lazy("the backend's running count of what was delivered"),
    Basis.EVENTS: gettext_lazy("counted by us from what was delivered"),
    Basis.NOTHING: gettext_lazy("nothing was delivered"),
}
SOURCES: Final = {
    UsageSource.GATEWAY: gettext_lazy("the gateway"),
    UsageSource.SWEEPER: gettext_lazy("the sweeper, after the gateway was lost"),
    UsageSource.FEED: gettext_lazy("the backend's usage feed"),
}
CANCEL_POLICIES: Final = {
    CancelPolicy.DELIVERED: gettext_lazy("what was delivered"),
    CancelPolicy.INPUT: gettext_lazy("the input only"),
    CancelPolicy.NOTHING: gettext_lazy("nothing"),
}
TOKEN_CLASSES: Final = {
    "input": gettext_lazy("Input"),
    "cached_input": gettext_lazy("Cached input"),
    "image": gettext_lazy("Images"),
    "output": gettext_lazy("Output"),
    "reasoning": gettext_lazy("Reasoning"),
    "request": gettext_lazy("Request"),
}
# Whatever the ledger keeps as the reason of a transfer is English; these are the house's own.
STATEMENT_WORDS: Final = {
    "Welcome credit": pgettext_lazy("transaction", "Welcome credit"),
    "Granted credit": pgettext_lazy("transaction", "Granted credit"),
    "Goodwill credit": pgettext_lazy("transaction", "Goodwill credit"),
    "Granted credit taken back": pgettext_lazy("transaction", "Granted credit taken back"),
    "Top-up": gettext_lazy("Top-up"),
    "Auto-recharge": gettext_lazy("Auto-recharge"),
    "Bank transfer": gettext_lazy("Bank transfer"),
    "Invoice paid": pgettext_lazy("transaction", "Invoice paid"),
    "Credit note": pgettext_lazy("transaction", "Credit note"),
    "Refund that did not arrive": gettext_lazy("Refund that did not arrive"),
    "Disputed payment": pgettext_lazy("transaction", "Disputed payment"),
    "Disputed payment given back": pgettext_lazy("transaction", "Disputed payment given back"),
}
_CAUSES: Final = "|".join(
    PREFIXES[kind] for kind in ("credit_order", "top_up", "refund", "dispute", "credit_note")
)
_ID: Final = rf"(?:{_CAUSES})_[0-9a-z]{{{BASE32_LENGTH}}}"
_ORDERED: Final = re.compile(rf"(.+) \(({_ID})\)")
_REFUND: Final = re.compile(rf"Refund of ({_ID}) \(({_ID})\)")
ACCOUNTS: Final = {
    "TOPPED_UP": gettext_lazy("Paid credit"),
    "GRANTED": gettext_lazy("Granted credit"),
    "RECEIVABLE": gettext_lazy("Amount due"),
}


def statement_text(reason: str) -> str:
    """The reason of a transfer in the reader's language where it is the house's own, else as it is."""
    refund = _REFUND.fullmatch(reason)
    if refund is not None:
        names = {"top_up": refund[1], "refund": refund[2]}
        return pgettext("transaction", "Refund of %(top_up)s (%(refund)s)") % names
    ordered = _ORDERED.fullmatch(reason)
    what = STATEMENT_WORDS.get(ordered[1] if ordered else reason)
    if what is None:
        return reason
    return (
        pgettext("transaction", "%(what)s (%(order)s)") % {"what": what, "order": ordered[2]}
        if ordered
        else str(what)
    )
