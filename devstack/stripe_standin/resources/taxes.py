"""Automatic tax of the stand-in: one rate everywhere, none for customers that are exempt."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from devstack.stripe_standin.errors import invalid
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World


def split(world: World, amount: int, *, behavior: str, customer: Obj | None) -> tuple[int, int]:
    """(tax, total) of an amount in the smallest unit, which includes the tax when `behavior` says so."""
    if customer is not None and customer["tax_exempt"] != "none":
        return 0, amount
    percent = Decimal(str(world.settings.tax_percent))
    if behavior == "inclusive":
        return _rounded(amount * percent / (100 + percent)), amount
    tax = _rounded(amount * percent / 100)
    return tax, amount + tax


def _rounded(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def read(params: Params, customer: Obj | None, *, address_is_saved: bool = False) -> Obj:
    """The `automatic_tax` of an object from its parameters. ApiError without an address to tax by."""
    child = params.child("automatic_tax")
    enabled = child.flag("enabled")
    child.child("liability").take("type")
    if (
        enabled
        and customer is not None
        and not address_is_saved
        and not (customer["address"] or {}).get("country")
    ):
        raise invalid(
            "customer",
            "Automatic tax calculation requires a valid address on the Customer. Add a valid address to the "
            "Customer or set `customer_update[address]` to 'auto' to save the address entered in Checkout.",
            code="customer_tax_location_invalid",
        )
    return {
        "enabled": enabled,
        "liability": {"type": "self"} if enabled else None,
        "provider": "stripe" if enabled else None,
        "status": "complete" if enabled else None,
    }


def shown_tax(tax: int, taxable: int, behavior: str) -> Obj:
    """A tax as lines and totals of invoices show it."""
    return {
        "amount": tax,
        "tax_behavior": "inclusive" if behavior == "inclusive" else "exclusive",
        "tax_rate_details": {"tax_rate": "txr_standin"},
        "taxability_reason": "standard_rated" if tax else "customer_exempt",
        "taxable_amount": taxable,
        "type": "tax_rate_details",
    }
