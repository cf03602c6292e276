"""What a person does with a checkout session: the hosted page and the control API come here."""

from __future__ import annotations

from devstack.stripe_standin.errors import invalid, wrong_state
from devstack.stripe_standin.resources import (
    customers,
    invoices,
    payment_intents,
    payment_methods,
    setup_intents,
)
from devstack.stripe_standin.settings import DELAYED_METHODS
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id, shown


def complete(
    world: World,
    session: Obj,
    *,
    method: str,
    behaviour: str,
    last4: str = "4242",
    country: str | None = None,
) -> str | None:
    """The person confirms. None when the session is complete, else why the method was refused, in words.

    method: one of the session's; behaviour: see payment_methods.BEHAVIOURS. country: what the person wrote;
    without, the customer's own, or US.
    """
    if session["status"] != "open":
        raise wrong_state(f"This Checkout Session is {session['status']}.")
    if method not in session["payment_method_types"]:
        raise invalid("method", f"{method} is not offered: {', '.join(session['payment_method_types'])}")
    if behaviour not in payment_methods.BEHAVIOURS:
        raise invalid("behaviour", f"No such behaviour: {behaviour}")
    if session["customer"] is None and session["customer_creation"] == "always":
        session["customer"] = _new_customer(world, session)
    chosen = payment_methods.make(world, method, behaviour=behaviour, last4=last4)
    _fill_details(world, session, country)
    if session["mode"] == "setup":
        return _save_method(world, session, chosen)
    return _pay(world, session, chosen)


def _pay(world: World, session: Obj, method: Obj) -> str | None:
    intent = _intent(world, session)
    error = payment_intents.attempt(world, intent, method, on_session=True)
    if error is not None:
        world.put(session)
        return str(error["message"])
    is_delayed = method["type"] in DELAYED_METHODS
    session |= {"status": "complete", "url": None, "payment_status": "unpaid" if is_delayed else "paid"}
    if session["_invoice"]:
        session["invoice"] = invoices.make_for_session(world, session, intent, is_paid=not is_delayed)["id"]
    world.put(session)
    world.emit("checkout.session.completed", session)
    return None


def _intent(world: World, session: Obj) -> Obj:
    if session["payment_intent"]:
        return world.get("payment_intent", session["payment_intent"])
    intent = payment_intents.make(
        world,
        amount=session["amount_total"],
        currency=session["currency"],
        customer=session["customer"],
        metadata=session["_intent_metadata"],
        description=session["_intent_description"],
        receipt_email=session["_receipt_email"],
        setup_future_usage=session["_setup_future_usage"],
        methods=session["payment_method_types"],
    )
    session["payment_intent"] = intent["id"]
    return intent


def _save_method(world: World, session: Obj, method: Obj) -> str | None:
    intent = world.get("setup_intent", session["setup_intent"])
    if payment_methods.BEHAVIOURS[method["_behaviour"]][0] != "pays":
        message = "Your card was declined."
        error = {
            "code": "card_declined",
            "decline_code": method["_behaviour"],
            "message": message,
            "type": "card_error",
        }
        setup_intents.fail(world, intent, error)
        return message
    if session["customer"]:
        payment_methods.attach(world, method, session["customer"])
    setup_intents.succeed(world, intent, method["id"])
    session |= {"status": "complete", "url": None}
    world.put(session)
    world.emit("checkout.session.completed", session)
    return None


def follow(world: World, intent: Obj) -> None:
    """A delayed payment has arrived or failed: the session that it belongs to tells so."""
    for session in world.store.find("checkout.session", {"payment_intent": intent["id"]}):
        if session["status"] != "complete" or session["payment_status"] != "unpaid":
            continue
        if intent["status"] == "succeeded":
            session["payment_status"] = "paid"
            world.put(session)
            world.emit("checkout.session.async_payment_succeeded", session)
        else:
            world.emit("checkout.session.async_payment_failed", session)


def _fill_details(world: World, session: Obj, country: str | None) -> None:
    """What the person wrote, or what is known of the customer; saved to the customer where that was asked."""
    customer = world.get("customer", session["customer"]) if session["customer"] else customers.blank(world)
    address = customer["address"]
    if country or not (address or {}).get("country"):
        empty: Obj = dict.fromkeys(("city", "line1", "line2", "postal_code", "state"))
        address = empty | {"country": country or "US"}
    name = customer["name"] or "Pat Person"
    if session["customer"]:
        before = shown(customer)
        customer["address"] = address if session["_saves"]["address"] else customer["address"]
        customer["name"] = name if session["_saves"]["name"] else customer["name"]
        customers.save(world, customer, before)
    session["customer_details"] = {
        "address": address,
        "business_name": None,
        "email": customer["email"] or session["customer_email"] or "person@example.com",
        "individual_name": None,
        "name": name,
        "phone": None,
        "tax_exempt": customer["tax_exempt"],
        "tax_ids": [{"type": part["type"], "value": part["value"]} for part in customer["_tax_ids"]],
    }


def _new_customer(world: World, session: Obj) -> str:
    customer = customers.blank(world)
    customer["email"] = session["customer_email"] or f"{new_id('person')}@example.com"
    world.put(customer)
    world.emit("customer.created", customer)
    return str(customer["id"])
