"""Credit notes: corrections of invoices that are final."""

from __future__ import annotations

from devstack.stripe_standin.errors import invalid, missing
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import invoice_states, refunds, taxes
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

REASONS = ("duplicate", "fraudulent", "order_change", "product_unsatisfactory")


@route("POST", "/v1/credit_notes", "credit_note_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    invoice = world.get("invoice", params.needed("invoice"), param="invoice")
    invoice_states.require(invoice, "open", "paid", "uncollectible")
    lines, subtotal, tax = _read_lines(world, params, invoice)
    total = subtotal + tax
    already = invoice["pre_payment_credit_notes_amount"] + invoice["post_payment_credit_notes_amount"]
    if total < 1 or already + total > invoice["total"]:
        raise invalid(
            "amount",
            f"The sum of credit amount and refund amount ({total}) must be above zero and no more than what "
            f"is left to credit on the invoice ({invoice['total'] - already}).",
        )
    note = _blank(world, invoice, lines, subtotal, tax)
    note["reason"] = params.choice("reason", REASONS)
    note["memo"] = params.text("memo")
    note["metadata"] = params.metadata()
    note["effective_at"] = params.integer("effective_at", world.now())
    params.choice("email_type", ("credit_note", "none"))
    is_paid = invoice["status"] == "paid"
    note["type"] = "post_payment" if is_paid else "pre_payment"
    note["post_payment_amount" if is_paid else "pre_payment_amount"] = total
    parts = {
        name: params.integer(name, 0) or 0
        for name in ("credit_amount", "refund_amount", "out_of_band_amount")
    }
    params.refuse_unread()
    if is_paid:
        _give_back(world, invoice, note, parts, total)
        invoice["post_payment_credit_notes_amount"] += total
        invoice_states.balance_of(world, invoice)
    else:
        if any(parts.values()):
            raise invalid("credit_amount", "An invoice that isn't paid has nothing to give back.")
        if total > invoice["amount_remaining"]:
            raise invalid("amount", f"No more than {invoice['amount_remaining']} is left to pay.")
        invoice["pre_payment_credit_notes_amount"] += total
        invoice_states.credited(world, invoice)
    world.put(note)
    world.emit("credit_note.created", note)
    world.emit("invoice.updated", invoice)
    return note


def _read_lines(world: World, params: Params, invoice: Obj) -> tuple[list[Obj], int, int]:
    """(lines, amount without tax, tax): from `lines`, or one line for an `amount` that includes its tax."""
    amount = params.integer("amount")
    sent = params.children("lines")
    if amount is not None:
        if sent:
            raise invalid("amount", "You may only specify one of these parameters: amount, lines.")
        tax = amount * (invoice["total"] - invoice["total_excluding_tax"]) // max(1, invoice["total"])
        return [_line("Credit", amount - tax, None)], amount - tax, tax
    if not sent:
        raise missing("amount")
    known = {line["id"]: line for line in invoice_states.lines_of(world, invoice)}
    lines = [_read_line(part, known) for part in sent]
    subtotal = sum(line["amount"] for line in lines)
    tax = 0
    if invoice["automatic_tax"]["enabled"]:
        customer = world.get("customer", invoice["customer"])
        tax, _ = taxes.split(world, subtotal, behavior="exclusive", customer=customer)
    return lines, subtotal, tax


def _read_line(part: Params, known: dict[str, Obj]) -> Obj:
    kind = part.choice("type", ("invoice_line_item", "custom_line_item"))
    if kind is None:
        raise missing(part.name("type"))
    description, amount = part.text("description"), part.integer("amount")
    quantity = part.integer("quantity")
    if kind == "custom_line_item":
        unit = part.integer("unit_amount")
        if unit is None:
            raise missing(part.name("unit_amount"))
        return _line(description or "Credit", unit * (quantity or 1), None, quantity or 1)
    named = part.needed("invoice_line_item")
    if named not in known:
        raise invalid(part.name("invoice_line_item"), f"No such invoice line item: '{named}'")
    line = known[named]
    if amount is None:
        amount = line["amount"] * (quantity or line["quantity"]) // max(1, line["quantity"])
    if amount > line["amount"]:
        raise invalid(part.name("amount"), f"The line's amount is {line['amount']}.")
    return _line(description or line["description"], amount, named, quantity)


def _line(description: str | None, amount: int, invoice_line: str | None, quantity: int | None = None) -> Obj:
    line: Obj = {
        "id": new_id("cnli"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": description,
        "discount_amount": 0,
        "discount_amounts": [],
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": quantity,
        "tax_rates": [],
        "taxes": [],
        "type": "invoice_line_item" if invoice_line else "custom_line_item",
        "unit_amount": None if invoice_line else amount // (quantity or 1),
        "unit_amount_decimal": None if invoice_line else str(amount // (quantity or 1)),
    }
    return line | ({"invoice_line_item": invoice_line} if invoice_line else {})


def _blank(world: World, invoice: Obj, lines: list[Obj], subtotal: int, tax: int) -> Obj:
    identifier = new_id("cn")
    count = len(world.store.find("credit_note", {"invoice": invoice["id"]}))
    return {
        "id": identifier,
        "object": "credit_note",
        "amount": subtotal + tax,
        "amount_shipping": 0,
        "created": world.now(),
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": None,
        "invoice": invoice["id"],
        "lines": {
            "object": "list",
            "data": lines,
            "has_more": False,
            "url": f"/v1/credit_notes/{identifier}/lines",
        },
        "livemode": False,
        "memo": None,
        "metadata": {},
        "number": f"{invoice['number']}-CN-{count + 1:02d}",
        "out_of_band_amount": None,
        "pdf": f"{world.base_url}/cn/{identifier}/pdf",
        "post_payment_amount": 0,
        "pre_payment_amount": 0,
        "pretax_credit_amounts": [],
        "reason": None,
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": subtotal + tax,
        "total_excluding_tax": subtotal,
        "total_taxes": [taxes.shown_tax(tax, subtotal, "exclusive")] if tax else [],
        "type": "pre_payment",
        "voided_at": None,
    }


def _give_back(world: World, invoice: Obj, note: Obj, parts: dict[str, int], total: int) -> None:
    """What was paid already goes to the customer's balance, back to the card, or another way."""
    if sum(parts.values()) != total:
        raise invalid(
            "credit_amount",
            f"The sum of refund_amount, credit_amount and out_of_band_amount must equal the credit note's "
            f"amount ({total}).",
        )
    note["out_of_band_amount"] = parts["out_of_band_amount"] or None
    if parts["credit_amount"]:
        customer = world.get("customer", invoice["customer"])
        customer["balance"] -= parts["credit_amount"]
        world.put(customer)
    if parts["refund_amount"]:
        intent = world.get("payment_intent", invoice["_intent"] or "", param="refund_amount")
        charge = world.get("charge", intent["latest_charge"] or "", param="refund_amount")
        refund = refunds.make(world, charge, amount=parts["refund_amount"], reason=None, metadata={})
        note["refunds"] = [
            {
                "amount_refunded": refund["amount"],
                "payment_record_refund": None,
                "refund": refund["id"],
                "type": "refund",
            }
        ]


@route("POST", "/v1/credit_notes/{id}/void", "credit_note_write")
def void(call: Call) -> Obj:
    world, note = call.world, call.world.get("credit_note", call.id)
    invoice = world.get("invoice", note["invoice"])
    if note["status"] != "issued" or note["type"] != "pre_payment":
        raise invalid("id", "Only an issued credit note of an invoice that was not paid can be voided.")
    invoice_states.require(invoice, "open", "uncollectible")
    note |= {"status": "void", "voided_at": world.now()}
    invoice["pre_payment_credit_notes_amount"] -= note["total"]
    invoice_states.credited(world, invoice)
    world.put(note)
    world.emit("credit_note.voided", note)
    return note


@route("GET", "/v1/credit_notes/{id}", "credit_note_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("credit_note", call.id)


@route("GET", "/v1/credit_notes", "credit_note_read")
def list_all(call: Call) -> Obj:
    return listed(call, "credit_note", "customer", "invoice")
