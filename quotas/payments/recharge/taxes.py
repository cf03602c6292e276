"""Tax of a recharge, where the installation takes tax: Stripe calculates it before anything is charged."""

from __future__ import annotations

from dataclasses import dataclass

import stripe

from portal.kit.money import from_minor_units, to_minor_units
from quotas.payments.client import stripe_client
from quotas.payments.sending import StripeUnavailable, error_text, require_no_transaction


class NoTaxAddress(ValueError):
    """Stripe does not know where the customer is, so that nobody knows which tax is due."""


class TaxRefused(RuntimeError):
    """Stripe refuses to calculate it, for a reason of this customer's."""


@dataclass(frozen=True, slots=True)
class RechargeTax:
    """amount_nanos: the credit that it was calculated for; tax_nanos comes on top. id: at Stripe."""

    id: str
    amount_nanos: int
    tax_nanos: int


def calculate_tax(*, customer_id: str, amount_nanos: int, currency: str) -> RechargeTax:
    """The tax on buying this much credit now. It changes nothing at Stripe, so it needs no row of ours.

    Errors: NoTaxAddress, TaxRefused, quotas.payments.sending.StripeUnavailable and TransactionOpen.
    """
    require_no_transaction()
    amount = to_minor_units(amount_nanos, currency)
    try:
        calculated = stripe_client().v1.tax.calculations.create(
            {
                "currency": currency.lower(),
                "customer": customer_id,
                "line_items": [{"amount": amount, "reference": "credit", "tax_behavior": "exclusive"}],
            }
        )
    except stripe.InvalidRequestError as error:
        if error.code == "customer_tax_location_invalid":
            raise NoTaxAddress("the customer has no address at Stripe") from error
        raise TaxRefused(error_text(error)) from error
    except stripe.StripeError as error:
        raise StripeUnavailable(error_text(error)) from error
    tax = calculated.tax_amount_exclusive
    if calculated.id is None or tax < 0 or calculated.amount_total != amount + tax:
        raise TaxRefused("the calculated tax does not add up")
    return RechargeTax(calculated.id, amount_nanos, from_minor_units(tax, currency))
