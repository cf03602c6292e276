"""What the states and failures of top-ups are called."""

from __future__ import annotations

from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy, pgettext_lazy

from quotas.models import TopUpSource, TopUpState

STATES: Final = {
    TopUpState.OPEN: pgettext_lazy("top-up", "Not paid yet"),
    TopUpState.PROCESSING: pgettext_lazy("top-up", "Payment under way"),
    TopUpState.ACTION_NEEDED: pgettext_lazy("top-up", "Your bank asks for confirmation"),
    TopUpState.PAID: pgettext_lazy("top-up", "Paid"),
    TopUpState.FAILED: pgettext_lazy("top-up", "Failed"),
    TopUpState.EXPIRED: pgettext_lazy("top-up", "Expired"),
}
# How the lamp beside them burns.
LAMPS: Final = {
    TopUpState.OPEN: "badge-quiet",
    TopUpState.PROCESSING: "badge-warn",
    TopUpState.ACTION_NEEDED: "badge-warn",
    TopUpState.PAID: "badge-ok",
    TopUpState.FAILED: "badge-bad",
    TopUpState.EXPIRED: "badge-quiet",
}
SOURCES: Final = {
    TopUpSource.CHECKOUT: gettext_lazy("Payment page"),
    TopUpSource.RECHARGE: gettext_lazy("Auto-recharge"),
    TopUpSource.BANK: gettext_lazy("Bank transfer"),
    TopUpSource.INVOICE: gettext_lazy("Monthly invoice"),
}
# Reasons that people can do something about, by Stripe's codes.
FAILURES: Final = {
    "card_declined": gettext_lazy("The bank declined the card."),
    "generic_decline": gettext_lazy("The bank declined the card."),
    "insufficient_funds": gettext_lazy("There was not enough money on the card or account."),
    "expired_card": gettext_lazy("The card has expired."),
    "incorrect_cvc": gettext_lazy("The security code of the card was wrong."),
    "processing_error": gettext_lazy("The bank could not process the payment. Try again in a while."),
    "authentication_required": gettext_lazy("The bank wanted a confirmation that was not given."),
    "payment_intent_authentication_failure": gettext_lazy(
        "The bank wanted a confirmation that was not given."
    ),
    "payment_intent_payment_attempt_failed": gettext_lazy("The payment did not go through."),
    "payment_intent_payment_attempt_expired": gettext_lazy("The payment was not finished in time."),
}
# The codes that quotas.payments.fulfilment gives what was paid otherwise than it was asked for.
UNCLEAR: Final = "mismatch_"
UNCLEAR_FAILURE: Final = gettext_lazy(
    "What the payment provider says about this payment is not what was asked for."
)
OTHER_FAILURE: Final = gettext_lazy("The payment did not go through.")


def is_unclear(code: str) -> bool:
    """Whether operators have to see what was paid: nobody is told that nothing was charged."""
    return code.startswith(UNCLEAR)


def failure_text(code: str) -> str | Promise:
    """Why it failed, in words, as far as the code says it."""
    if is_unclear(code):
        return UNCLEAR_FAILURE
    return FAILURES.get(code, OTHER_FAILURE)
