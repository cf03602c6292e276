"""Payment methods, from hosted pages or Stripe's test tokens. Each knows how it behaves."""

from __future__ import annotations

from devstack.stripe_standin.errors import invalid
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

# How a method behaves: when a person is there, and when it is charged without one.
# pays, authenticate (asks for the person), or the decline code.
BEHAVIOURS: dict[str, tuple[str, str]] = {
    "pays": ("pays", "pays"),
    "authentication_required": ("pays", "authenticate"),
    "declined": ("generic_decline", "generic_decline"),
    "insufficient_funds": ("insufficient_funds", "insufficient_funds"),
    "expired_card": ("expired_card", "expired_card"),
    "declined_later": ("pays", "generic_decline"),
    # Of delayed methods: accepted, and settled or refused later.
    "fails_later": ("pays", "pays"),
}
# Numbers of Stripe's documentation, by the last four digits.
CARDS = {
    "4242": "pays",
    "3155": "authentication_required",
    "0002": "declined",
    "9995": "insufficient_funds",
    "0069": "expired_card",
    "0341": "declined_later",
}
TOKENS = {
    "pm_card_visa": "4242",
    "pm_card_mastercard": "4242",
    "pm_card_chargeDeclined": "0002",
    "pm_card_visa_chargeDeclined": "0002",
    "pm_card_chargeDeclinedInsufficientFunds": "9995",
    "pm_card_chargeDeclinedExpiredCard": "0069",
    "pm_card_authenticationRequired": "3155",
    "pm_card_threeDSecure2Required": "3155",
    "pm_card_chargeCustomerFail": "0341",
}


def make(
    world: World, kind: str, *, behaviour: str = "pays", last4: str = "4242", customer: str | None = None
) -> Obj:
    """A payment method, attached when a customer is named."""
    address = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
    details: Obj = {}
    if kind == "card":
        details = {
            "brand": "visa",
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": "US",
            "display_brand": "visa",
            "exp_month": 12,
            "exp_year": 2040,
            "fingerprint": "standin" + last4,
            "funding": "credit",
            "generated_from": None,
            "last4": last4,
            "networks": {"available": ["visa"], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        }
    elif kind == "us_bank_account":
        details = {
            "account_holder_type": "company",
            "account_type": "checking",
            "bank_name": "STAND-IN BANK",
            "financial_connections_account": None,
            "fingerprint": "standin" + last4,
            "last4": "6789",
            "networks": {"preferred": "ach", "supported": ["ach"]},
            "routing_number": "110000000",
            "status_details": {},
        }
    return world.put(
        {
            "id": new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "always",
            "billing_details": {
                "address": address,
                "email": None,
                "name": None,
                "phone": None,
                "tax_id": None,
            },
            "created": world.now(),
            "customer": customer,
            "customer_account": None,
            kind: details,
            "livemode": False,
            "metadata": {},
            "type": kind,
            "_behaviour": behaviour,
        }
    )


def resolve(world: World, identifier: str, *, customer: str | None, param: str) -> Obj:
    """The method with this id, or a new one from a test token. ApiError when it is another customer's."""
    if identifier in TOKENS:
        last4 = TOKENS[identifier]
        return make(world, "card", behaviour=CARDS[last4], last4=last4, customer=customer)
    method = world.get("payment_method", identifier, param=param)
    if method.get("_detached"):
        raise invalid(
            param,
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer "
            "attachment, shared with a connected account without Customer attachment, or was detached from a "
            "Customer. It may not be used again. To use a PaymentMethod multiple times, you must attach it "
            "to a Customer first.",
        )
    if method["customer"] is not None and method["customer"] != customer:
        raise invalid(
            param,
            "The provided PaymentMethod does not belong to this Customer."
            if customer
            else "The payment method belongs to a customer: name it as `customer`.",
            code="payment_method_customer_decline" if customer else None,
        )
    return method


def attach(world: World, method: Obj, customer: str) -> Obj:
    if method["customer"] == customer:
        return method
    method["customer"] = customer
    world.put(method)
    world.emit("payment_method.attached", method)
    return method


def unattach(world: World, method: Obj) -> Obj:
    """Takes the method from its customer, who may have had it as the default."""
    customer = world.get("customer", method["customer"])
    if customer["invoice_settings"]["default_payment_method"] == method["id"]:
        customer["invoice_settings"]["default_payment_method"] = None
        world.put(customer)
    previous = {"customer": method["customer"]}
    method["customer"] = None
    method["_detached"] = True
    world.put(method)
    world.emit("payment_method.detached", method, previous)
    return method


@route("GET", "/v1/payment_methods/{payment_method}", "payment_method_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("payment_method", call.id)


@route("GET", "/v1/payment_methods", "payment_method_read")
def list_all(call: Call) -> Obj:
    customer = call.params.text("customer")
    if customer is not None:
        call.world.get("customer", customer, param="customer")
    call.params.take("allow_redisplay")
    return (
        listed(call, "payment_method", "type", also="json_extract(body, '$.customer') IS NOT NULL")
        | {"url": "/v1/payment_methods"}
        if customer is None
        else listed(call, "payment_method", "type", "customer")
    )


@route("GET", "/v1/customers/{customer}/payment_methods", "payment_method_read")
def list_of_customer(call: Call) -> Obj:
    call.world.get("customer", call.id)
    call.params.take("allow_redisplay")
    return listed(call, "payment_method", "type", where={"customer": call.id})


@route("POST", "/v1/payment_methods/{payment_method}/attach", "payment_method_write")
def attach_to(call: Call) -> Obj:
    customer = call.world.get("customer", call.params.needed("customer"), param="customer")
    method = resolve(call.world, call.id, customer=customer["id"], param="payment_method")
    return attach(call.world, method, customer["id"])


@route("POST", "/v1/payment_methods/{payment_method}/detach", "payment_method_write")
def detach(call: Call) -> Obj:
    method = call.world.get("payment_method", call.id)
    if method["customer"] is None:
        raise invalid(
            "payment_method",
            "The payment method you provided is not attached to a customer so detachment is impossible.",
        )
    return unattach(call.world, method)
