"""Invoices: the API's endpoints, and the invoice that a checkout session leaves behind."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.errors import ApiError, CommittedError, invalid, missing
from devstack.stripe_standin.expansion import included
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import invoice_items, invoice_states, taxes
from devstack.stripe_standin.routing import Call, listed, paged, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World


@route("POST", "/v1/invoices", "invoice_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    customer = world.get("customer", params.needed("customer"), param="customer")
    currency = params.currency() if params.has("currency") else customer["currency"] or "usd"
    invoice = invoice_states.blank(world, customer, currency)
    invoice["automatic_tax"] |= taxes.read(params, customer)
    _apply(world, params, invoice)
    if invoice["collection_method"] == "send_invoice" and not (
        invoice["due_date"] or invoice["_days_until_due"] is not None
    ):
        raise invalid(
            "days_until_due",
            "If invoice's collection_method is 'send_invoice', you must specify 'due_date' or "
            "'days_until_due'.",
        )
    if invoice["auto_advance"]:
        invoice["automatically_finalizes_at"] = world.now() + invoice_states.FINALIZED_AFTER_S
    behavior = params.choice("pending_invoice_items_behavior", ("exclude", "include"), "exclude")
    params.refuse_unread()
    world.put(invoice)
    if behavior == "include":
        pending = world.store.find(
            "invoiceitem",
            {"customer": customer["id"], "currency": currency},
            also="json_extract(body, '$.invoice') IS NULL",
        )
        for item in pending:
            world.put(item | {"invoice": invoice["id"]})
    invoice_states.add_up(world, invoice)
    world.emit("invoice.created", invoice)
    return invoice


def _apply(world: World, params: Params, invoice: Obj) -> None:
    for name in ("description", "footer", "statement_descriptor"):
        if params.has(name):
            invoice[name] = params.text(name)
    invoice["auto_advance"] = params.flag("auto_advance", invoice["auto_advance"])
    methods = ("charge_automatically", "send_invoice")
    invoice["collection_method"] = params.choice("collection_method", methods, invoice["collection_method"])
    if params.has("days_until_due"):
        invoice["_days_until_due"] = params.integer("days_until_due")
    invoice["due_date"] = params.integer("due_date", invoice["due_date"])
    invoice["effective_at"] = params.integer("effective_at", invoice["effective_at"])
    invoice["metadata"] = params.metadata(old=invoice["metadata"])
    fields = params.children("custom_fields")
    if fields:
        invoice["custom_fields"] = [
            {"name": part.needed("name"), "value": part.needed("value")} for part in fields
        ]
    method = params.text("default_payment_method")
    if method is not None:
        invoice["default_payment_method"] = world.get(
            "payment_method", method, param="default_payment_method"
        )["id"]
    params.child("rendering").take("amount_tax_display")
    params.take("payment_settings")
    params.take("issuer")


@route("POST", "/v1/invoices/{invoice}", "invoice_write")
def update(call: Call) -> Obj:
    invoice = call.world.get("invoice", call.id)
    if invoice["status"] != "draft" and set(call.params.sent()) - {"metadata", "expand", "auto_advance"}:
        invoice_states.require(invoice, "draft")
    _apply(call.world, call.params, invoice)
    invoice_states.add_up(call.world, invoice)
    call.world.emit("invoice.updated", invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice}/add_lines", "invoice_write")
def add_lines(call: Call) -> Obj:
    world, invoice = call.world, call.world.get("invoice", call.id)
    invoice_states.require(invoice, "draft")
    lines = call.params.children("lines")
    if not lines:
        raise missing("lines")
    invoice["metadata"] = call.params.metadata("invoice_metadata", invoice["metadata"])
    for line in lines:
        pending = line.text("invoice_item")
        if pending is not None:
            world.put(world.get("invoiceitem", pending, param="lines") | {"invoice": invoice["id"]})
            continue
        amount, quantity, unit = invoice_items.read_amount(line)
        invoice_items.make(
            world,
            customer=invoice["customer"],
            invoice=invoice["id"],
            currency=invoice["currency"],
            amount=amount,
            quantity=quantity,
            unit_amount=unit,
            description=line.text("description"),
            metadata=line.metadata(),
            period=invoice_items.read_period(line),
            discountable=line.flag("discountable", amount >= 0),
        )
    invoice_states.add_up(world, invoice)
    world.emit("invoice.updated", invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice}/finalize", "invoice_write")
def finalize(call: Call) -> Obj:
    call.params.flag("auto_advance")
    return invoice_states.finalize(call.world, call.world.get("invoice", call.id))


@route("POST", "/v1/invoices/{invoice}/send", "invoice_write")
def send(call: Call) -> Obj:
    invoice = call.world.get("invoice", call.id)
    if invoice["collection_method"] != "send_invoice":
        raise invalid(
            "invoice", "You can only manually send an invoice if its collection method is send_invoice."
        )
    if invoice["status"] == "draft":
        invoice_states.finalize(call.world, invoice)
    else:
        invoice_states.require(invoice, "open", "paid", "uncollectible")
    call.world.emit("invoice.sent", invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice}/pay", "invoice_write")
def pay(call: Call) -> Obj:
    world, params = call.world, call.params
    invoice = world.get("invoice", call.id)
    if invoice["status"] == "paid":
        raise ApiError(400, "Invoice is already paid", executed=True, code="invoice_already_paid")
    if invoice["status"] == "draft":
        invoice_states.finalize(world, invoice)
    if params.flag("paid_out_of_band"):
        invoice_states.pay_elsewhere(world, invoice)
        return invoice
    method = invoice_states.default_method(world, invoice, params.text("payment_method"))
    off_session = params.flag("off_session", default=True)
    params.refuse_unread()
    error = invoice_states.take_payment(world, invoice, method, on_session=not off_session)
    if error is None:
        return world.get("invoice", invoice["id"])
    details = {key: value for key, value in error.items() if key not in ("type", "message", "code")}
    raise CommittedError(
        ApiError(402, error["message"], kind="card_error", code=error["code"], executed=True, **details)
    )


@route("POST", "/v1/invoices/{invoice}/void", "invoice_write")
def void(call: Call) -> Obj:
    return invoice_states.void(call.world, call.world.get("invoice", call.id))


@route("POST", "/v1/invoices/{invoice}/mark_uncollectible", "invoice_write")
def mark_uncollectible(call: Call) -> Obj:
    return invoice_states.give_up(call.world, call.world.get("invoice", call.id))


@route("DELETE", "/v1/invoices/{invoice}", "invoice_write")
def delete(call: Call) -> Obj:
    world, invoice = call.world, call.world.get("invoice", call.id)
    invoice_states.require(invoice, "draft")
    for item in world.store.find("invoiceitem", {"invoice": invoice["id"]}):
        world.store.delete(item["id"])
    world.store.delete(invoice["id"])
    world.emit("invoice.deleted", invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


@route("GET", "/v1/invoices/{invoice}/lines", "invoice_read")
def list_lines(call: Call) -> Obj:
    invoice = call.world.get("invoice", call.id)
    return paged(call, invoice_states.lines_of(call.world, invoice))


@route("GET", "/v1/invoices/{invoice}", "invoice_read")
def retrieve(call: Call) -> Obj:
    invoice = call.world.get("invoice", call.id)
    return invoice_states.add_up(call.world, invoice) if invoice["status"] == "draft" else invoice


@route("GET", "/v1/invoices", "invoice_read")
def list_all(call: Call) -> Obj:
    return listed(call, "invoice", "customer", "status", "collection_method")


@included("invoice", "payments")
def show_payments(world: World, invoice: Obj) -> Any:
    found = world.store.find("invoice_payment", {"invoice": invoice["id"]})
    return {"object": "list", "data": found, "has_more": False, "url": "/v1/invoice_payments"}


@route("GET", "/v1/invoice_payments/{invoice_payment}", "invoice_read")
def retrieve_payment(call: Call) -> Obj:
    return call.world.get("invoice_payment", call.id)


@route("GET", "/v1/invoice_payments", "invoice_read")
def list_payments(call: Call) -> Obj:
    payment = call.params.child("payment")
    payment.take("type")
    intent = payment.text("payment_intent")
    where = {"payment.payment_intent": intent} if intent else {}
    return listed(call, "invoice_payment", "invoice", "status", where=where)


def make_for_session(world: World, session: Obj, intent: Obj, *, is_paid: bool) -> Obj:
    """The invoice of a checkout session, with the session's lines; open while the money is on its way."""
    customer = world.get("customer", session["customer"])
    invoice = invoice_states.blank(world, customer, session["currency"])
    invoice |= {
        "automatic_tax": invoice["automatic_tax"] | session["automatic_tax"],
        "custom_fields": session["_invoice_fields"] or None,
        "description": session["_invoice_description"],
        "footer": session["_invoice_footer"],
        "metadata": session["_invoice_metadata"],
    }
    world.put(invoice)
    for line in session["_lines"]:
        invoice_items.make(
            world,
            customer=customer["id"],
            invoice=invoice["id"],
            currency=session["currency"],
            amount=line["amount_subtotal"],
            description=line["description"],
            metadata={},
            quantity=str(line["quantity"]),
            unit_amount=str(line["price"]["unit_amount"]),
            tax_behavior=line["_tax_behavior"],
        )
    invoice_states.add_up(world, invoice)
    world.emit("invoice.created", invoice)
    invoice_states.finalize(world, invoice, intent=intent)
    if is_paid:
        invoice_states.follow(world, intent)
    return world.get("invoice", invoice["id"])
