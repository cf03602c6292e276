"""What an invoice goes through: totals, finalizing, paying, voiding. Clock, API and people come here."""

from __future__ import annotations

from devstack.stripe_standin.errors import ApiError, wrong_state
from devstack.stripe_standin.resources import invoice_items, payment_intents, payment_methods, taxes
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id, token

FINALIZED_AFTER_S = 3600


def blank(world: World, customer: Obj, currency: str) -> Obj:
    """A draft without anything on it."""
    now = world.now()
    return {
        "id": new_id("in"),
        "object": "invoice",
        "account_country": "US",
        "account_name": "Stand-in for Stripe",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": False,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": "manual",
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": None,
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [{"type": part["type"], "value": part["value"]} for part in customer["_tax_ids"]],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": {"object": "list", "data": [], "has_more": False, "url": ""},
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": now,
        "period_start": now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": None,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": None,
        "_days_until_due": None,
        "_intent": None,
        "_overdue_told": False,
    }


def lines_of(world: World, invoice: Obj) -> list[Obj]:
    """All lines, in the order in which their items were made."""
    customer = world.get("customer", invoice["customer"])
    items = world.store.find("invoiceitem", {"invoice": invoice["id"]}, oldest_first=True)
    is_taxed = invoice["automatic_tax"]["enabled"]
    return [invoice_items.line_of(world, item, is_taxed=is_taxed, customer=customer) for item in items]


def add_up(world: World, invoice: Obj) -> Obj:
    """Stores the invoice with lines and totals as its items make them."""
    lines = lines_of(world, invoice)
    tax = sum(line["_tax"] for line in lines)
    total = sum(line["_total"] for line in lines)
    url = f"/v1/invoices/{invoice['id']}/lines"
    invoice["lines"] = {"object": "list", "data": lines[:10], "has_more": len(lines) > 10, "url": url}
    invoice["subtotal"] = sum(line["amount"] for line in lines)
    invoice["total"] = total
    invoice["total_excluding_tax"] = invoice["subtotal_excluding_tax"] = total - tax
    invoice["total_taxes"] = (
        [taxes.shown_tax(tax, total - tax, "exclusive")] if invoice["automatic_tax"]["enabled"] else []
    )
    return balance_of(world, invoice)


def balance_of(world: World, invoice: Obj) -> Obj:
    """Stores the invoice with what is still due."""
    credited = invoice["pre_payment_credit_notes_amount"]
    invoice["amount_due"] = max(0, invoice["total"] - credited)
    paid = invoice["amount_paid"] + invoice["amount_paid_off_stripe"]
    invoice["amount_remaining"] = 0 if invoice["status"] == "paid" else max(0, invoice["amount_due"] - paid)
    return world.put(invoice)


def finalize(world: World, invoice: Obj, *, intent: Obj | None = None) -> Obj:
    """A draft becomes a document that can be paid, by this intent or by one of its own."""
    require(invoice, "draft")
    add_up(world, invoice)
    customer = world.get("customer", invoice["customer"])
    invoice["number"] = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04d}"
    customer["next_invoice_sequence"] += 1
    world.put(customer)
    secret = token(40)
    invoice |= {
        "status": "open",
        "effective_at": world.now(),
        "ending_balance": 0,
        "hosted_invoice_url": f"{world.base_url}/i/{invoice['id']}/{secret}",
        "invoice_pdf": f"{world.base_url}/i/{invoice['id']}/{secret}/pdf",
    }
    invoice["automatically_finalizes_at"] = None
    invoice["status_transitions"]["finalized_at"] = world.now()
    if invoice["_days_until_due"] is not None:
        invoice["due_date"] = world.now() + invoice["_days_until_due"] * 86_400
    world.put(invoice)
    if intent is not None:
        _join(world, invoice, intent)
    elif invoice["total"] > 0:
        _ask_for_money(world, invoice)
    world.emit("invoice.finalized", invoice)
    if invoice["total"] <= 0:
        _become_paid(world, invoice)
    return invoice


def _ask_for_money(world: World, invoice: Obj) -> None:
    """The payment intent of an open invoice, and the record that joins both."""
    intent = payment_intents.make(
        world,
        amount=invoice["amount_remaining"],
        currency=invoice["currency"],
        customer=invoice["customer"],
        metadata={},
        description=f"Payment for Invoice {invoice['number']}",
    )
    _join(world, invoice, intent)


def _join(world: World, invoice: Obj, intent: Obj) -> None:
    invoice["_intent"] = intent["id"]
    world.put(invoice)
    world.put(
        {
            "id": new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": intent["amount"],
            "created": world.now(),
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )


def take_payment(world: World, invoice: Obj, method: Obj, *, on_session: bool) -> Obj | None:
    """Charges what is still due. None when it came or is on its way, else the error as the API shows it."""
    require(invoice, "open", "uncollectible")
    intent = world.get("payment_intent", invoice["_intent"])
    intent["amount"] = invoice["amount_remaining"]
    invoice["attempted"] = True
    invoice["attempt_count"] += 1
    world.put(invoice)
    error = payment_intents.attempt(world, intent, method, on_session=on_session)
    if error is not None:
        world.emit("invoice.payment_failed", invoice)
        return error
    if intent["status"] == "succeeded":
        follow(world, intent)
    return None


def follow(world: World, intent: Obj) -> None:
    """The intent of an invoice has succeeded, or failed later on."""
    for invoice in world.store.find("invoice", {"_intent": intent["id"]}):
        if invoice["status"] not in ("open", "uncollectible"):
            continue
        if intent["status"] != "succeeded":
            world.emit("invoice.payment_failed", invoice)
            continue
        invoice["amount_paid"] += intent["amount_received"]
        _close_payment(world, invoice, "paid", intent["amount_received"])
        _become_paid(world, invoice)


def pay_elsewhere(world: World, invoice: Obj) -> None:
    """The account says that the money came another way."""
    require(invoice, "open", "uncollectible")
    invoice["amount_paid_off_stripe"] += invoice["amount_remaining"]
    _cancel_intent(world, invoice)
    _become_paid(world, invoice)


def _become_paid(world: World, invoice: Obj) -> None:
    invoice["status"] = "paid"
    invoice["status_transitions"]["paid_at"] = world.now()
    balance_of(world, invoice)
    world.emit("invoice.paid", invoice)
    world.emit("invoice.payment_succeeded", invoice)


def credited(world: World, invoice: Obj) -> None:
    """A credit note has lowered what is due; nothing left to pay is paid."""
    balance_of(world, invoice)
    if invoice["status"] == "open" and invoice["amount_remaining"] == 0:
        _cancel_intent(world, invoice)
        _become_paid(world, invoice)
    elif invoice["_intent"] and invoice["status"] == "open":
        intent = world.get("payment_intent", invoice["_intent"])
        world.put(intent | {"amount": invoice["amount_remaining"]})


def void(world: World, invoice: Obj) -> Obj:
    require(invoice, "open", "uncollectible")
    invoice["status"] = "void"
    invoice["status_transitions"]["voided_at"] = world.now()
    _cancel_intent(world, invoice)
    balance_of(world, invoice)
    world.emit("invoice.voided", invoice)
    return invoice


def give_up(world: World, invoice: Obj) -> Obj:
    require(invoice, "open")
    invoice["status"] = "uncollectible"
    invoice["status_transitions"]["marked_uncollectible_at"] = world.now()
    world.put(invoice)
    world.emit("invoice.marked_uncollectible", invoice)
    return invoice


def _cancel_intent(world: World, invoice: Obj) -> None:
    if invoice["_intent"] is None:
        return
    intent = world.get("payment_intent", invoice["_intent"])
    if intent["status"] in ("requires_payment_method", "requires_confirmation"):
        intent |= {"status": "canceled", "canceled_at": world.now(), "cancellation_reason": "void_invoice"}
        world.put(intent)
        world.emit("payment_intent.canceled", intent)
        _close_payment(world, invoice, "canceled", None)


def _close_payment(world: World, invoice: Obj, status: str, amount: int | None) -> None:
    for payment in world.store.find("invoice_payment", {"invoice": invoice["id"], "status": "open"}):
        payment |= {"status": status, "amount_paid": amount}
        payment["status_transitions"][f"{status}_at"] = world.now()
        world.put(payment)
        if status == "paid":
            world.emit("invoice_payment.paid", payment)


def default_method(world: World, invoice: Obj, named: str | None) -> Obj:
    """The method that an invoice is charged to."""
    customer = world.get("customer", invoice["customer"])
    chosen = (
        named or invoice["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    )
    if chosen is None:
        raise ApiError(
            400,
            "There is no default payment method set on this Customer or Invoice. Please set a default "
            "payment method or provide one.",
            code="invoice_payment_intent_requires_action",
            executed=True,
        )
    return payment_methods.resolve(world, chosen, customer=customer["id"], param="payment_method")


def pass_time(world: World) -> None:
    """Drafts that advance by themselves are finalized; invoices fall due."""
    now = world.now()
    ready = "json_extract(body, '$.automatically_finalizes_at') <= ?"
    for invoice in world.store.find("invoice", {"status": "draft"}, also=ready, values=(now,)):
        finalize(world, invoice)
        if invoice["collection_method"] == "send_invoice" and invoice["status"] == "open":
            world.emit("invoice.sent", invoice)
    late = "json_extract(body, '$.due_date') <= ? AND NOT json_extract(body, '$._overdue_told')"
    for invoice in world.store.find("invoice", {"status": "open"}, also=late, values=(now,)):
        invoice["_overdue_told"] = True
        world.put(invoice)
        world.emit("invoice.overdue", invoice)


def require(invoice: Obj, *states: str) -> None:
    if invoice["status"] not in states:
        raise wrong_state(
            f"Invoice {invoice['id']} is {invoice['status']}; this needs one that is {' or '.join(states)}.",
            code="invoice_not_editable" if states == ("draft",) else None,
        )
