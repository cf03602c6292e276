"""Charges: one for each attempt to take money."""

from __future__ import annotations

from typing import Any

from devstack.stripe_standin.expansion import included
from devstack.stripe_standin.resources import balance
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id


def make(world: World, intent: Obj, method: Obj, *, status: str, failure: Obj | None = None) -> Obj:
    """A charge of the intent's whole amount. status: succeeded, pending (known later) or failed."""
    is_card = method["type"] == "card"
    identifier = new_id("ch" if is_card else "py")
    charge: Obj = {
        "id": identifier,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if status == "succeeded" else 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "STAND-IN",
        "captured": status != "failed",
        "created": world.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": failure["code"] if failure else None,
        "failure_message": failure["message"] if failure else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "on_behalf_of": None,
        "outcome": _outcome(status, failure),
        "paid": status == "succeeded",
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {
            "type": method["type"],
            method["type"]: _details(method),
        },
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": f"{world.base_url}/receipts/{identifier}",
        "refunded": False,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": status,
        "transfer_data": None,
        "transfer_group": None,
    }
    if status == "succeeded":
        book(world, charge)
    world.put(charge)
    world.emit(f"charge.{status}", charge)
    return charge


def book(world: World, charge: Obj) -> None:
    """The movement of a charge that succeeded; the caller stores the charge."""
    transaction = balance.move(
        world,
        "charge" if charge["id"].startswith("ch_") else "payment",
        amount=charge["amount"],
        currency=charge["currency"],
        source=charge["id"],
        fee=processing_fee(world, charge),
        description=charge["description"],
    )
    charge["balance_transaction"] = transaction["id"]


def processing_fee(world: World, charge: Obj) -> int:
    return balance.processing_fee(world, charge["amount"])


def settle(world: World, charge: Obj, failure: Obj | None) -> None:
    """A pending charge succeeds, or fails for the reason given."""
    status = "failed" if failure else "succeeded"
    charge["status"], charge["outcome"] = status, _outcome(status, failure)
    charge["paid"] = failure is None
    if failure:
        charge |= {"failure_code": failure["code"], "failure_message": failure["message"], "captured": False}
    else:
        charge["amount_captured"] = charge["amount"]
        book(world, charge)
    world.put(charge)
    world.emit(f"charge.{status}", charge)


def _details(method: Obj) -> Obj:
    if method["type"] != "card":
        return {}
    card = method["card"]
    return {
        "amount_authorized": None,
        "authorization_code": None,
        "brand": card["brand"],
        "checks": card["checks"],
        "country": card["country"],
        "exp_month": card["exp_month"],
        "exp_year": card["exp_year"],
        "fingerprint": card["fingerprint"],
        "funding": card["funding"],
        "installments": None,
        "last4": card["last4"],
        "mandate": None,
        "network": "visa",
        "network_token": {"used": False},
        "network_transaction_id": None,
        "regulated_status": "unregulated",
        "three_d_secure": None,
        "wallet": None,
    }


def _outcome(status: str, failure: Obj | None) -> Obj:
    declined = failure is not None
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if declined else "approved_by_network",
        "reason": failure.get("decline_code") if failure else None,
        "risk_level": "normal",
        "seller_message": "The bank declined the payment." if declined else "Payment complete.",
        "type": "issuer_declined" if declined else "authorized",
    }


@included("charge", "refunds")
def show_refunds(world: World, charge: Obj) -> Any:
    found = world.store.find("refund", {"charge": charge["id"]}, limit=11)
    url = f"/v1/charges/{charge['id']}/refunds"
    return {"object": "list", "data": found[:10], "has_more": len(found) > 10, "url": url}


@route("GET", "/v1/charges/{charge}", "charge_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("charge", call.id)


@route("GET", "/v1/charges", "charge_read")
def list_all(call: Call) -> Obj:
    return listed(call, "charge", "customer", "payment_intent")
