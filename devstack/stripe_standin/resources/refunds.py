"""Refunds: by the API or from the dashboard; at once, or pending; and some fail later."""

from __future__ import annotations

from devstack.stripe_standin.errors import ApiError, invalid, missing, wrong_state
from devstack.stripe_standin.resources import balance
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

REASONS = ("duplicate", "fraudulent", "requested_by_customer")


def make(
    world: World, charge: Obj, *, amount: int | None, reason: str | None, metadata: dict[str, str]
) -> Obj:
    """Gives back `amount` (smallest unit), or all that is left. Raises ApiError when that isn't possible."""
    left = charge["amount"] - charge["amount_refunded"]
    if not charge["paid"]:
        raise wrong_state(f"Charge {charge['id']} has not been paid.", code="charge_not_refundable")
    if charge["disputed"] and _is_withdrawn(world, charge):
        raise wrong_state(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
        )
    if left == 0:
        raise wrong_state(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = left if amount is None else amount
    if amount > left:
        raise ApiError(
            400,
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
            param="amount",
            executed=True,
        )
    is_card = charge["id"].startswith("ch_")
    refund: Obj = {
        "id": new_id("re" if is_card else "pyr"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": world.now(),
        "currency": charge["currency"],
        "destination_details": {"type": "card", "card": {"type": "refund", "reference_status": "pending"}}
        if is_card
        else {"type": charge["payment_method_details"]["type"]},
        "metadata": metadata,
        "payment_intent": charge["payment_intent"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "pending" if world.settings.pending_refunds else "succeeded",
        "transfer_reversal": None,
    }
    transaction = balance.move(
        world,
        "refund" if is_card else "payment_refund",
        amount=-amount,
        currency=charge["currency"],
        source=refund["id"],
    )
    refund["balance_transaction"] = transaction["id"]
    world.put(refund)
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    world.put(charge)
    world.emit("refund.created", refund)
    world.emit("charge.refunded", charge)
    return refund


def _is_withdrawn(world: World, charge: Obj) -> bool:
    return any(
        not dispute["is_charge_refundable"]
        for dispute in world.store.find("dispute", {"charge": charge["id"]})
    )


def settle(world: World, refund: Obj) -> Obj:
    """A pending refund reaches its person."""
    if refund["status"] != "pending":
        raise wrong_state(f"Refund {refund['id']} is {refund['status']}.")
    refund["status"] = "succeeded"
    return _update(world, refund)


def fail(world: World, refund: Obj, reason: str) -> Obj:
    """The bank sends a refund back, perhaps long after it had succeeded: the account gets the money again."""
    if refund["status"] not in ("pending", "succeeded"):
        raise wrong_state(f"Refund {refund['id']} is {refund['status']}.")
    transaction = balance.move(
        world,
        "refund_failure",
        amount=refund["amount"],
        currency=refund["currency"],
        source=refund["id"],
    )
    refund |= {
        "status": "failed",
        "failure_reason": reason,
        "failure_balance_transaction": transaction["id"],
    }
    charge = world.get("charge", refund["charge"])
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    world.put(charge)
    _update(world, refund)
    world.emit("refund.failed", refund)
    return refund


def _update(world: World, refund: Obj) -> Obj:
    world.put(refund)
    world.emit("refund.updated", refund)
    world.emit("charge.refund.updated", refund)
    return refund


@route("POST", "/v1/refunds", "charge_write")
def create(call: Call) -> Obj:
    world, params = call.world, call.params
    charge_id, intent_id = params.text("charge"), params.text("payment_intent")
    if charge_id is not None and intent_id is not None:
        raise invalid("charge", "You may only specify one of these parameters: payment_intent, charge.")
    if intent_id is not None:
        intent = world.get("payment_intent", intent_id, param="payment_intent")
        charge_id = intent["latest_charge"]
        if intent["status"] != "succeeded" or charge_id is None:
            raise wrong_state(
                "This PaymentIntent does not have a successful charge to refund.",
                code="payment_intent_unexpected_state",
            )
    if charge_id is None:
        raise missing("payment_intent")
    amount = params.amount("amount") if params.has("amount") else None
    return make(
        world,
        world.get("charge", charge_id, param="charge"),
        amount=amount,
        reason=params.choice("reason", REASONS),
        metadata=params.metadata(),
    )


@route("GET", "/v1/refunds/{refund}", "charge_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("refund", call.id)


@route("GET", "/v1/refunds", "charge_read")
def list_all(call: Call) -> Obj:
    return listed(call, "refund", "charge", "payment_intent")
