"""Disputes: opened, escalated, won and lost by command. An inquiry takes nothing."""

from __future__ import annotations

from devstack.stripe_standin.errors import wrong_state
from devstack.stripe_standin.resources import balance
from devstack.stripe_standin.routing import Call, listed, route
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, new_id

_EVIDENCE_DAYS = 7
_EVIDENCE = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)


def open_dispute(world: World, charge: Obj, *, amount: int | None, reason: str, inquiry: bool) -> Obj:
    """A bank asks (inquiry) or takes the money back. amount: smallest unit; all that isn't refunded."""
    if not charge["paid"] or charge["disputed"]:
        raise wrong_state(f"Charge {charge['id']} is not paid, or disputed already.")
    if not amount and charge["amount"] == charge["amount_refunded"]:
        raise wrong_state(f"Charge {charge['id']} has gone back already.")
    dispute: Obj = {
        "id": new_id("du"),
        "object": "dispute",
        "amount": amount or charge["amount"] - charge["amount_refunded"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": world.now(),
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(_EVIDENCE), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": world.now() + _EVIDENCE_DAYS * 86_400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": inquiry,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network_reason_code": "83",
            },
            "type": "card",
        },
        "reason": reason,
        "status": "warning_needs_response" if inquiry else "needs_response",
    }
    charge["disputed"] = True
    world.put(charge)
    if not inquiry:
        _withdraw(world, dispute)
    world.put(dispute)
    world.emit("charge.dispute.created", dispute)
    if not inquiry:
        world.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def escalate(world: World, dispute: Obj) -> Obj:
    """An inquiry becomes a dispute: now the money is taken."""
    _require(dispute, "warning_needs_response")
    dispute |= {"status": "needs_response", "is_charge_refundable": False}
    dispute["payment_method_details"]["card"]["case_type"] = "chargeback"
    _withdraw(world, dispute)
    world.put(dispute)
    world.emit("charge.dispute.updated", dispute)
    world.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close(world: World, dispute: Obj, *, won: bool, fee_returned: bool = False) -> Obj:
    """The end: an inquiry is dropped, a dispute won (the money comes back) or lost."""
    if dispute["status"] == "warning_needs_response":
        dispute["status"] = "warning_closed"
        world.put(dispute)
        world.emit("charge.dispute.closed", dispute)
        return dispute
    _require(dispute, "needs_response")
    dispute["status"] = "won" if won else "lost"
    if won:
        _book(world, dispute, dispute["amount"], -world.settings.dispute_fee if fee_returned else 0)
    world.put(dispute)
    world.emit("charge.dispute.closed", dispute)
    if won:
        world.emit("charge.dispute.funds_reinstated", dispute)
    return dispute


def _require(dispute: Obj, status: str) -> None:
    if dispute["status"] != status:
        raise wrong_state(f"Dispute {dispute['id']} is {dispute['status']}.")


def _withdraw(world: World, dispute: Obj) -> None:
    _book(world, dispute, -dispute["amount"], world.settings.dispute_fee)


def _book(world: World, dispute: Obj, amount: int, fee: int) -> None:
    transaction = balance.move(
        world,
        "adjustment",
        amount=amount,
        currency=dispute["currency"],
        source=dispute["id"],
        fee=fee,
        fee_description="Dispute fee",
        category="dispute" if amount < 0 else "dispute_reversal",
        description=f"Chargeback {'withdrawal' if amount < 0 else 'reversal'} for {dispute['charge']}",
    )
    dispute["balance_transactions"].append(transaction)


@route("GET", "/v1/disputes/{dispute}", "dispute_read")
def retrieve(call: Call) -> Obj:
    return call.world.get("dispute", call.id)


@route("GET", "/v1/disputes", "dispute_read")
def list_all(call: Call) -> Obj:
    return listed(call, "dispute", "charge", "payment_intent")
