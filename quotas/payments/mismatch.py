"""Whether what Stripe has is what we asked for: whoever pays anything else gets nothing for it by itself."""

from __future__ import annotations

from typing import Any

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import to_minor_units
from quotas.models import TopUp, TopUpState
from quotas.payments.client import stripe_config


def of_session(top_up: TopUp, session: dict[str, Any], customer_id: str | None) -> str:
    """What of a Checkout Session does not agree with the top-up: the name of the first such thing, or "".

    What a top-up that is paid was credited with is not looked at again. Errors:
    quotas.payments.client.PaymentsNotConfigured.
    """
    if top_up.state == TopUpState.PAID:
        return "" if top_up.session_id == session["id"] else "session"
    totals = session.get("total_details") or {}
    asked = to_minor_units(top_up.amount_nanos, top_up.currency)
    return _common(top_up, session, customer_id) or _first(
        session=top_up.session_id in (None, session["id"]),
        mode=session.get("mode") == "payment",
        reference=session.get("client_reference_id") == public_id(PREFIXES["top_up"], top_up.id),
        amount=session.get("amount_subtotal") == asked,
        credit=(session.get("amount_total") or 0) - (totals.get("amount_tax") or 0) == asked,
        payment=session.get("payment_status") in {"paid", "unpaid"},
    )


def of_intent(top_up: TopUp, intent: dict[str, Any], customer_id: str | None) -> str:
    """The same of a PaymentIntent that pays a top-up on its own, tax_nanos of the top-up included."""
    gross = to_minor_units(top_up.amount_nanos + (top_up.tax_nanos or 0), top_up.currency)
    is_paid = intent.get("status") == "succeeded"
    return _common(top_up, intent, customer_id) or _first(
        intent=top_up.payment_intent_id in (None, intent["id"]),
        amount=intent.get("amount") == gross and (not is_paid or intent.get("amount_received") == gross),
    )


def _common(top_up: TopUp, found: dict[str, Any], customer_id: str | None) -> str:
    metadata = found.get("metadata") or {}
    customer = found.get("customer")
    return _first(
        livemode=found.get("livemode") is stripe_config().is_live,
        customer=customer_id is not None
        and (customer.get("id") if isinstance(customer, dict) else customer) == customer_id,
        top_up=metadata.get("top_up") == public_id(PREFIXES["top_up"], top_up.id),
        tenant=metadata.get("tenant") == public_id(PREFIXES["organization"], top_up.tenant_id),
        currency=str(found.get("currency", "")).upper() == top_up.currency,
    )


def _first(**agrees: bool) -> str:
    return next((name for name, is_so in agrees.items() if not is_so), "")
