"""Which kind of event is about what: the object that it names is read again and its state applied."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

# Imported for what they add to quotas.payments.sending: whoever handles events also ends operations.
from quotas.payments import checkout as _checkout  # noqa: F401
from quotas.payments import disputes, fulfilment, postpaid, recharge, refunds


class Handler(Protocol):
    """Applies the state that an object has at Stripe; false when it is none of ours. In no transaction."""

    def __call__(self, *, object_id: str, now: datetime) -> bool: ...


def _session(*, object_id: str, now: datetime) -> bool:
    if fulfilment.apply_session(session_id=object_id, now=now) is not None:
        return True
    return recharge.apply_setup(session_id=object_id, now=now)


def _intent(*, object_id: str, now: datetime) -> bool:
    return fulfilment.apply_intent(intent_id=object_id, now=now) is not None


def _refund(*, object_id: str, now: datetime) -> bool:
    return refunds.apply_refund(refund_id=object_id, now=now)


def _charge_refunds(*, object_id: str, now: datetime) -> bool:
    return refunds.apply_charge_refunds(charge_id=object_id, now=now)


def _dispute(*, object_id: str, now: datetime) -> bool:
    return disputes.apply_dispute(dispute_id=object_id, now=now)


def _invoice(*, object_id: str, now: datetime) -> bool:
    return postpaid.apply_invoice(invoice_id=object_id, now=now)


def _credit_note(*, object_id: str, now: datetime) -> bool:
    return postpaid.apply_credit_note(credit_note_id=object_id, now=now)


# The beginning of an event's type → what handles it; the longest that fits wins.
HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "checkout.session.": _session,
        "payment_intent.": _intent,
        "payment_method.": recharge.apply_payment_method,
        "refund.": _refund,
        "charge.refund.": _refund,
        "charge.refunded": _charge_refunds,
        "charge.dispute.": _dispute,
        "invoice.": _invoice,
        "credit_note.": _credit_note,
    }
)


def find_handler(event_type: str) -> Handler | None:
    """What handles events of this type; None when nothing does."""
    fitting = [prefix for prefix in HANDLERS if event_type.startswith(prefix)]
    return HANDLERS[max(fitting, key=len)] if fitting else None
