"""Tax calculations: what a charge without a checkout session would cost with its tax."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.errors import invalid, missing
from devstack.stripe_standin.expansion import included
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import taxes
from devstack.stripe_standin.resources.customers import read_address
from devstack.stripe_standin.routing import Call, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

LIVES_S = 90 * 86_400


@route("POST", "/v1/tax/calculations", "tax_calculation_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    currency = params.currency()
    named = params.text("customer")
    customer = world.get("customer", named, param="customer") if named else None
    address = _address(params, customer)
    identifier = new_id("taxcalc")
    lines = [_line(world, part, customer) for part in params.children("line_items")]
    if not lines:
        raise missing("line_items")
    taxes_by = {
        behavior: sum(line["amount_tax"] for line in lines if line["tax_behavior"] == behavior)
        for behavior in ("exclusive", "inclusive")
    }
    amount = sum(line["amount"] for line in lines)
    return world.put(
        {
            "id": identifier,
            "object": "tax.calculation",
            "amount_total": amount + taxes_by["exclusive"],
            "currency": currency,
            "customer": named,
            "customer_details": {
                "address": address,
                "address_source": "billing",
                "ip_address": None,
                "tax_ids": [],
                "taxability_override": "none",
            },
            "expires_at": world.now() + LIVES_S,
            "livemode": False,
            "ship_from_details": None,
            "shipping_cost": None,
            "tax_amount_exclusive": taxes_by["exclusive"],
            "tax_amount_inclusive": taxes_by["inclusive"],
            "tax_breakdown": [
                _breakdown(world, tax, amount, behavior) for behavior, tax in taxes_by.items() if tax
            ],
            "tax_date": world.now(),
            "_lines": lines,
        }
    )


def _address(params: Params, customer: Obj | None) -> Obj:
    details = params.child("customer_details")
    details.choice("address_source", ("billing", "shipping"))
    address = read_address(details) or (customer or {}).get("address") or {}
    if not address.get("country"):
        raise invalid(
            "customer_details[address]",
            "We could not determine the customer's tax location: give an address with a country.",
            code="customer_tax_location_invalid",
        )
    return dict(address)


def _line(world: World, part: Params, customer: Obj | None) -> Obj:
    behavior = part.choice("tax_behavior", ("exclusive", "inclusive"), "exclusive") or ""
    amount = part.amount("amount")
    tax, _ = taxes.split(world, amount, behavior=behavior, customer=customer)
    identifier = new_id("tax_li")
    return {
        "id": identifier,
        "object": "tax.calculation_line_item",
        "amount": amount,
        "amount_tax": tax,
        "livemode": False,
        "metadata": part.metadata(),
        "product": None,
        "quantity": part.integer("quantity", 1),
        "reference": part.text("reference", identifier),
        "tax_behavior": behavior,
        "tax_breakdown": None,
        "tax_code": part.text("tax_code", "txcd_10000000"),
    }


def _breakdown(world: World, tax: int, taxable: int, behavior: str) -> Obj:
    return {
        "amount": tax,
        "inclusive": behavior == "inclusive",
        "tax_rate_details": {
            "country": "US",
            "flat_amount": None,
            "percentage_decimal": str(world.settings.tax_percent),
            "rate_type": "percentage",
            "state": None,
            "tax_type": "sales_tax",
        },
        "taxability_reason": "standard_rated",
        "taxable_amount": taxable,
    }


@included("tax.calculation", "line_items")
def show_lines(world: World, calculation: Obj) -> Any:
    url = f"/v1/tax/calculations/{calculation['id']}/line_items"
    return {"object": "list", "data": calculation["_lines"], "has_more": False, "url": url}


@route("GET", "/v1/tax/calculations/{calculation}", "tax_calculation_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("tax.calculation", call.id)
