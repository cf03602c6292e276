"""Checkout sessions: made by the API here, completed by people in `checkout_flow`."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.errors import invalid, missing, wrong_state
from devstack.stripe_standin.expansion import included
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.resources import payment_intents, setup_intents, taxes
from devstack.stripe_standin.resources.line_items import read_line_items
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.settings import REUSABLE_METHODS
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

LIVES_S = 86_400
_PRESENTATIONS = ("always", "auto", "if_required", "never", "required")


@route("POST", "/v1/checkout/sessions", "checkout_session_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    mode = params.choice("mode", ("payment", "setup"))
    if mode is None:
        raise missing("mode")
    customer = _customer(world, params)
    methods = payment_intents.chosen_methods(world, params)
    updates = params.child("customer_update")
    saves_address = updates.choice("address", ("auto", "never")) == "auto"
    saves_name = updates.choice("name", ("auto", "never")) == "auto"
    updates.choice("shipping", ("auto", "never"))
    automatic_tax = taxes.read(params, customer, address_is_saved=saves_address)
    session = _blank(world, mode, customer, automatic_tax)
    session["_saves"] = {"address": saves_address, "name": saves_name}
    _read_texts(world, params, session)
    if mode == "payment":
        _read_payment(world, params, session, customer)
        if session["_setup_future_usage"]:
            methods = [method for method in methods if method in REUSABLE_METHODS]
    else:
        _read_setup(world, params, session, methods)
    session["payment_method_types"] = [
        method for method in methods if mode == "payment" or method in REUSABLE_METHODS
    ]
    return world.put(session)


def _customer(world: World, params: Params) -> Obj | None:
    identifier = params.text("customer")
    if identifier is None:
        return None
    if params.has("customer_email"):
        raise invalid(
            "customer_email", "You may only specify one of these parameters: customer, customer_email."
        )
    return world.get("customer", identifier, param="customer")


def _read_texts(world: World, params: Params, session: Obj) -> None:
    success_url = params.text("success_url")
    if success_url is None:
        raise missing("success_url")
    session["success_url"] = success_url
    session["cancel_url"] = params.text("cancel_url")
    session["client_reference_id"] = params.text("client_reference_id")
    session["customer_email"] = params.text("customer_email")
    session["customer_creation"] = params.choice("customer_creation", ("always", "if_required"))
    session["locale"] = params.text("locale")
    session["submit_type"] = params.text("submit_type")
    session["metadata"] = params.metadata()
    session["billing_address_collection"] = params.choice("billing_address_collection", _PRESENTATIONS)
    session["expires_at"] = params.integer("expires_at", session["expires_at"])
    if not 1800 - 60 <= session["expires_at"] - world.now() <= LIVES_S + 60:
        raise invalid(
            "expires_at", "The `expires_at` timestamp must be between 30 minutes and 24 hours from now."
        )
    params.choice("ui_mode", ("hosted_page", "hosted"))
    session["adaptive_pricing"] = {"enabled": params.child("adaptive_pricing").flag("enabled")}
    tax_ids = params.child("tax_id_collection")
    session["tax_id_collection"] = {
        "enabled": tax_ids.flag("enabled"),
        "required": tax_ids.text("required", "never"),
    }
    saved = params.child("saved_payment_method_options")
    saved.take("payment_method_save")
    saved.take("allow_redisplay_filters")
    params.take("payment_method_options")
    texts = params.child("custom_text")
    for name in ("submit", "after_submit", "terms_of_service_acceptance"):
        if texts.has(name):
            session["custom_text"][name] = {"message": texts.child(name).needed("message")}
    if params.has("consent_collection"):
        params.take("consent_collection")


def _read_payment(world: World, params: Params, session: Obj, customer: Obj | None) -> None:
    lines = read_line_items(world, params, session["automatic_tax"]["enabled"], customer)
    session["_lines"] = lines
    session["currency"] = lines[0]["currency"]
    session["amount_subtotal"] = sum(line["amount_subtotal"] for line in lines)
    session["amount_total"] = sum(line["amount_total"] for line in lines)
    payment_intents.check_amount(session["amount_total"], session["currency"])
    session["total_details"] = {
        "amount_discount": 0,
        "amount_shipping": 0,
        "amount_tax": sum(line["amount_tax"] for line in lines),
    }
    data = params.child("payment_intent_data")
    usage = data.choice("setup_future_usage", ("off_session", "on_session"))
    session["_setup_future_usage"] = usage
    session["_intent_metadata"] = data.metadata()
    session["_intent_description"] = data.text("description")
    session["_receipt_email"] = data.text("receipt_email")
    data.text("statement_descriptor_suffix")
    invoice = params.child("invoice_creation")
    wanted = invoice.child("invoice_data")
    session["_invoice"] = invoice.flag("enabled")
    if customer is None and (usage or session["_invoice"]):
        # Both belong to somebody.
        session["customer_creation"] = "always"
    session["_invoice_metadata"] = wanted.metadata()
    session["_invoice_description"] = wanted.text("description")
    session["_invoice_footer"] = wanted.text("footer")
    session["_invoice_fields"] = [
        {"name": field.needed("name"), "value": field.needed("value")}
        for field in wanted.children("custom_fields")
    ]
    session["invoice_creation"] = {
        "enabled": session["_invoice"],
        "invoice_data": {
            "account_tax_ids": None,
            "custom_fields": session["_invoice_fields"] or None,
            "description": session["_invoice_description"],
            "footer": session["_invoice_footer"],
            "issuer": None,
            "metadata": session["_invoice_metadata"],
            "rendering_options": None,
        },
    }


def _read_setup(world: World, params: Params, session: Obj, methods: list[str]) -> None:
    currency = params.text("currency")
    if currency is None and not methods:
        raise missing("currency")
    session["currency"] = currency
    data = params.child("setup_intent_data")
    session["_intent_description"] = data.text("description")
    session["payment_status"] = "no_payment_required"
    intent = setup_intents.make(
        world,
        customer=session["customer"],
        metadata=data.metadata(),
        methods=[method for method in methods if method in REUSABLE_METHODS],
    )
    session["setup_intent"] = intent["id"]


def _blank(world: World, mode: str, customer: Obj | None, automatic_tax: Obj) -> Obj:
    identifier = f"cs_test_{new_id('a')[2:]}{new_id('b')[2:]}"
    return {
        "id": identifier,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": None,
        "amount_total": None,
        "automatic_tax": automatic_tax,
        "billing_address_collection": None,
        "cancel_url": None,
        "client_reference_id": None,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": world.now(),
        "currency": None,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "customer_creation": None,
        "customer_details": None,
        "customer_email": None,
        "discounts": None,
        "expires_at": world.now() + LIVES_S,
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": None,
        "metadata": {},
        "mode": mode,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always" if mode == "setup" else "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": [],
        "payment_status": "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": None,
        "total_details": None,
        "ui_mode": "hosted_page",
        "url": f"{world.base_url}/c/pay/{identifier}",
        "wallet_options": None,
        "_lines": [],
        "_setup_future_usage": None,
    }


@included("checkout.session", "line_items")
def show_line_items(world: World, session: Obj) -> Any:
    url = f"/v1/checkout/sessions/{session['id']}/line_items"
    return {"object": "list", "data": session["_lines"], "has_more": False, "url": url}


@route("GET", "/v1/checkout/sessions/{session}/line_items", "checkout_session_read")
def list_line_items(call: Call) -> Obj:
    for name in ("limit", "starting_after", "ending_before"):
        call.params.take(name)
    shown_items: Obj = show_line_items(call.world, call.world.get("checkout.session", call.id))
    return shown_items


@route("GET", "/v1/checkout/sessions/{session}", "checkout_session_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("checkout.session", call.id)


@route("POST", "/v1/checkout/sessions/{session}", "checkout_session_write")
def update(call: Call) -> Obj:
    session = call.world.get("checkout.session", call.id)
    session["metadata"] = call.params.metadata(old=session["metadata"])
    return call.world.put(session)


@route("POST", "/v1/checkout/sessions/{session}/expire", "checkout_session_write")
def expire_now(call: Call) -> Obj:
    session = call.world.get("checkout.session", call.id)
    if session["status"] != "open":
        raise wrong_state(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a '
            f"status of {session['status']}."
        )
    return expire(call.world, session)


def expire(world: World, session: Obj) -> Obj:
    session |= {"status": "expired", "url": None, "expires_at": min(session["expires_at"], world.now())}
    world.put(session)
    world.emit("checkout.session.expired", session)
    return session


@route("GET", "/v1/checkout/sessions", "checkout_session_read")
def list_all(call: Call) -> Obj:
    details = call.params.child("customer_details")
    where: Obj = {}
    if email := details.text("email"):
        where["customer_details.email"] = email
    return listed(call, "checkout.session", "customer", "payment_intent", "status", where=where)
