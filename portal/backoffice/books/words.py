"""What stands in the books, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext_lazy, pgettext_lazy

from portal.backoffice.payments.words import ACCOUNTS, TRANSFER_KINDS
from quotas.books.queries import Book, Step
from quotas.models import AccountKind, TransferKind

ACCOUNT_NAMES: Final[Mapping[str, Any]] = {
    **ACCOUNTS,
    AccountKind.REVENUE: gettext_lazy("Revenue"),
    AccountKind.GRANTED_USAGE: gettext_lazy("Granted credit used"),
    AccountKind.PROMOTION: pgettext_lazy("account", "Promotion"),
    AccountKind.GOODWILL: gettext_lazy("Goodwill"),
    AccountKind.OVERRUN_EXPENSE: gettext_lazy("Overrun"),
    AccountKind.WAIVED_EXPENSE: pgettext_lazy("account", "Waived"),
    AccountKind.UNBILLED_USAGE: pgettext_lazy("account", "Unbilled usage"),
}
KIND_NAMES: Final[Mapping[str, Any]] = {
    TransferKind.USAGE: gettext_lazy("Usage"),
    TransferKind.GRANT: pgettext_lazy("transfer", "Grant"),
    TransferKind.ADJUSTMENT: pgettext_lazy("transfer", "Adjustment"),
    **TRANSFER_KINDS,
}
BOOK_NAMES: Final = {
    Book.PAID: pgettext_lazy("books", "Deferred revenue: paid credit"),
    Book.GRANTED: gettext_lazy("Granted credit"),
    Book.TAX: pgettext_lazy("books", "Tax"),
    Book.STRIPE: pgettext_lazy("books", "Money at Stripe"),
    Book.BANK: pgettext_lazy("books", "Money at the bank"),
    Book.FEES: gettext_lazy("Payment fees"),
}
BOOK_NOTES: Final = {
    Book.PAID: gettext_lazy("What organizations paid and have not used, less what they owe."),
    Book.GRANTED: gettext_lazy("Free credit that is not used. It is no money of theirs."),
    Book.TAX: gettext_lazy("Collected with payments, and not paid to the tax office here."),
    Book.STRIPE: gettext_lazy("Payments less what went back, fees and payouts."),
    Book.BANK: gettext_lazy("Bank transfers and what Stripe paid out."),
    Book.FEES: gettext_lazy("What payments cost us."),
}
STEP_NAMES: Final = {
    Step.TOP_UPS: pgettext_lazy("books", "Topped up"),
    Step.USED: pgettext_lazy("books", "Used"),
    Step.REFUNDS: pgettext_lazy("books", "Refunded"),
    Step.REFUNDS_REVERSED: pgettext_lazy("books", "Refunds that did not arrive"),
    Step.CHARGEBACKS: pgettext_lazy("books", "Taken by disputes"),
    Step.REINSTATED: pgettext_lazy("books", "Given back by disputes"),
    Step.GRANTS: pgettext_lazy("books", "Granted"),
    Step.EXPIRED: pgettext_lazy("books", "Expired"),
    Step.FEES: pgettext_lazy("books", "Fees"),
    Step.PAYOUTS: pgettext_lazy("books", "Payouts"),
    Step.OTHER: pgettext_lazy("books", "Corrections"),
}
# What the same step is called where it is about something else.
OWN_STEP_NAMES: Final = {
    (Book.TAX, Step.TOP_UPS): pgettext_lazy("books", "Collected"),
    (Book.TAX, Step.REFUNDS): pgettext_lazy("books", "Paid back with refunds"),
    (Book.STRIPE, Step.TOP_UPS): pgettext_lazy("books", "Received"),
    (Book.BANK, Step.TOP_UPS): pgettext_lazy("books", "Received"),
}


def step_name(book: Book, step: Step) -> str:
    return str(OWN_STEP_NAMES.get((book, step), STEP_NAMES[step]))
