"""Invoice items, and the lines that an invoice shows of them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from devstack.stripe_standin.errors import invalid, missing, wrong_state
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import taxes
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

MOST_ITEMS = 250


def make(
    world: World,
    *,
    customer: str,
    invoice: str | None,
    currency: str,
    amount: int,
    description: str | None,
    metadata: dict[str, str],
    quantity: str = "1",
    unit_amount: str | None = None,
    period: Obj | None = None,
    tax_behavior: str = "exclusive",
    discountable: bool = True,
) -> Obj:
    """amount: smallest unit, for the whole quantity; unit_amount as a decimal of it."""
    unit = str(amount) if unit_amount is None else unit_amount
    price = {"price": new_id("price"), "product": "prod_" + new_id("x")[-14:]}
    now = world.now()
    return world.put(
        {
            "id": new_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": currency,
            "customer": customer,
            "customer_account": None,
            "date": now,
            "description": description,
            "discountable": discountable,
            "discounts": [],
            "invoice": invoice,
            "livemode": False,
            "metadata": metadata,
            "net_amount": amount,
            "parent": None,
            "period": period or {"start": now, "end": now},
            "pricing": {"price_details": price, "type": "price_details", "unit_amount_decimal": unit},
            "proration": False,
            "quantity": int(Decimal(quantity)),
            "quantity_decimal": quantity,
            "tax_rates": [],
            "test_clock": None,
            "_line": new_id("il"),
            "_tax_behavior": tax_behavior,
        }
    )


def line_of(world: World, item: Obj, *, is_taxed: bool, customer: Obj | None) -> Obj:
    """The line that an invoice shows for an item."""
    behavior = item["_tax_behavior"]
    tax, total = (
        taxes.split(world, item["amount"], behavior=behavior, customer=customer)
        if is_taxed
        else (0, item["amount"])
    )
    return {
        "id": item["_line"],
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": item["discountable"],
        "discounts": [],
        "invoice": item["invoice"],
        "livemode": False,
        "metadata": item["metadata"],
        "parent": {
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": None,
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        "period": item["period"],
        "pretax_credit_amounts": [],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": None,
        "subtotal": item["amount"],
        "taxes": [taxes.shown_tax(tax, total - tax, behavior)] if is_taxed else [],
        "_tax": tax,
        "_total": total,
    }


def read_amount(params: Params) -> tuple[int, str, str | None]:
    """(amount, quantity, amount of one) from the parameters of an item or a line."""
    quantity = params.text("quantity_decimal") or params.text("quantity") or "1"
    unit = params.text("unit_amount_decimal")
    data = params.child("price_data")
    if data:
        unit = data.text("unit_amount_decimal") or data.text("unit_amount") or unit
        data.text("currency")
        data.text("product")
        params.take("tax_behavior")
    if unit is None:
        amount = params.integer("amount")
        if amount is None:
            raise missing(params.name("amount"))
        return amount, quantity, None
    if params.has("amount"):
        raise invalid(
            params.name("amount"), "You may only specify one of these parameters: amount, unit_amount."
        )
    try:
        product = Decimal(quantity) * Decimal(unit)
    except InvalidOperation:
        raise invalid(params.name("unit_amount_decimal"), f"Invalid decimal: {quantity} x {unit}") from None
    return int(product.quantize(Decimal(1), ROUND_HALF_UP)), quantity, unit


@route("POST", "/v1/invoiceitems", "invoice_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    invoice_id = params.text("invoice")
    invoice = world.get("invoice", invoice_id, param="invoice") if invoice_id else None
    customer = params.text("customer") or (invoice or {}).get("customer")
    if customer is None:
        raise missing("customer")
    world.get("customer", customer, param="customer")
    if invoice is not None:
        _check_open(world, invoice, customer)
    behavior = params.choice("tax_behavior", ("exclusive", "inclusive", "unspecified"), "exclusive") or ""
    amount, quantity, unit = read_amount(params)
    currency = params.text("currency") or (invoice or {}).get("currency")
    if currency is None:
        raise missing("currency")
    if invoice is not None and invoice["currency"] != currency:
        raise invalid("currency", f"The invoice's currency is {invoice['currency']}.")
    item = make(
        world,
        customer=customer,
        invoice=invoice_id,
        currency=currency,
        amount=amount,
        description=params.text("description"),
        metadata=params.metadata(),
        quantity=quantity,
        unit_amount=unit,
        period=read_period(params),
        tax_behavior=behavior,
        discountable=params.flag("discountable", amount >= 0),
    )
    params.text("tax_code")
    world.emit("invoiceitem.created", item)
    return item


def read_period(params: Params) -> Obj | None:
    """The time that an item is for; `start` and `end` in seconds since 1970."""
    if not params.has("period"):
        return None
    child = params.child("period")
    start, end = child.integer("start"), child.integer("end")
    if start is None or end is None or end < start:
        raise invalid(params.name("period"), "A period needs a start, and an end that isn't before it.")
    return {"start": start, "end": end}


def _check_open(world: World, invoice: Obj, customer: str) -> None:
    if invoice["status"] != "draft":
        raise wrong_state(
            "This invoice is no longer editable: invoice items can be added to a draft only.",
            code="invoice_not_editable",
        )
    if invoice["customer"] != customer:
        raise invalid("invoice", "The invoice is another customer's.")
    if len(world.store.find("invoiceitem", {"invoice": invoice["id"]})) >= MOST_ITEMS:
        raise invalid("invoice", f"An invoice can have {MOST_ITEMS} items.", code="invoice_too_many_items")


@route("GET", "/v1/invoiceitems/{invoiceitem}", "invoice_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("invoiceitem", call.id)


@route("GET", "/v1/invoiceitems", "invoice_read")
def list_all(call: Call) -> Obj:
    if call.params.has("pending") and call.params.flag("pending"):
        return listed(call, "invoiceitem", "customer", also="json_extract(body, '$.invoice') IS NULL")
    return listed(call, "invoiceitem", "customer", "invoice")


@route("DELETE", "/v1/invoiceitems/{invoiceitem}", "invoice_write")
def delete(call: Call) -> Obj:
    world = call.world
    item = world.get("invoiceitem", call.id)
    if item["invoice"] and world.get("invoice", item["invoice"])["status"] != "draft":
        raise wrong_state("This invoice is no longer editable.", code="invoice_not_editable")
    world.store.delete(item["id"])
    world.emit("invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}
