"""Line items of a checkout session, from prices that are made on the spot."""

from __future__ import annotations

from devstack.stripe_standin.errors import invalid, missing
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import taxes
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id


def read_line_items(world: World, params: Params, is_taxed: bool, customer: Obj | None) -> list[Obj]:
    """At least one, all in one currency."""
    lines = [_line(world, item, is_taxed, customer) for item in params.children("line_items")]
    if not lines:
        raise missing("line_items")
    if len({line["currency"] for line in lines}) != 1:
        raise invalid("line_items", "All line items must have the same currency.")
    return lines


def _line(world: World, item: Params, is_taxed: bool, customer: Obj | None) -> Obj:
    quantity = item.integer("quantity", 1) or 1
    data = item.child("price_data")
    if not data:
        raise missing(item.name("price_data"))
    currency = data.currency()
    unit_amount = data.amount("unit_amount")
    behavior = data.choice("tax_behavior", ("exclusive", "inclusive", "unspecified"), "unspecified") or ""
    product = data.child("product_data")
    name = product.needed("name")
    description = product.text("description")
    tax_code = product.text("tax_code")
    price = _price(world, currency, unit_amount, behavior, product.metadata())
    subtotal = unit_amount * quantity
    tax, total = (
        taxes.split(world, subtotal, behavior=behavior, customer=customer) if is_taxed else (0, subtotal)
    )
    return {
        "id": new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": subtotal,
        "amount_tax": tax,
        "amount_total": total,
        "currency": currency,
        "description": name,
        "metadata": item.metadata(),
        "price": price,
        "quantity": quantity,
        "_long_description": description,
        "_tax_code": tax_code,
        "_tax_behavior": behavior,
    }


def _price(world: World, currency: str, unit_amount: int, behavior: str, metadata: dict[str, str]) -> Obj:
    return {
        "id": new_id("price"),
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": world.now(),
        "currency": currency,
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": None,
        "metadata": metadata,
        "nickname": None,
        "product": "prod_" + new_id("x")[-14:],
        "recurring": None,
        "tax_behavior": behavior,
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time",
        "unit_amount": unit_amount,
        "unit_amount_decimal": str(unit_amount),
    }
