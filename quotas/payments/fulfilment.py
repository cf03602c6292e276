"""What Stripe says about a payment becomes the state of its top-up, and credit, exactly once.

Webhook, landing page, poller and replay all end here: the object is read again, and what it says now is
applied. Order and repetition do not matter. Locks, in this order: the top-up, the wallet.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import connections, transaction

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id, transfer_id
from portal.kit.money import from_minor_units
from quotas.ledger import payments as ledger
from quotas.models import (
    OPEN_TOP_UP_STATES,
    AccountKind,
    StripeCustomer,
    TopUp,
    TopUpSource,
    TopUpState,
    TransferKind,
)
from quotas.payments import mismatch
from quotas.payments.client import stripe_client
from quotas.payments.sending import require_no_transaction
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

SESSION_EXPANDED: Final = ["payment_intent.latest_charge", "payment_intent.payment_method", "invoice"]
INTENT_EXPANDED: Final = ["latest_charge", "payment_method"]
STATEMENT_WORDS: Final = {
    TopUpSource.CHECKOUT: "Top-up",
    TopUpSource.RECHARGE: "Auto-recharge",
    TopUpSource.BANK: "Bank transfer",
    TopUpSource.INVOICE: "Invoice paid",
}
# States that a state may be followed by; PAID may follow every other one, and nothing follows it.
_BEFORE: Final = {
    TopUpState.PROCESSING: (TopUpState.OPEN, TopUpState.ACTION_NEEDED),
    TopUpState.ACTION_NEEDED: (TopUpState.OPEN,),
    TopUpState.FAILED: OPEN_TOP_UP_STATES,
    TopUpState.EXPIRED: (TopUpState.OPEN, TopUpState.ACTION_NEEDED),
}


class TopUpNotFound(LookupError):
    """There is no such top-up."""


@dataclass(frozen=True, slots=True)
class PaidFacts:
    """What came in, in nano-units of the top-up's currency; tax_nanos is part of gross_nanos. The rest is
    what people want to see of it, and where it is at Stripe."""

    gross_nanos: int
    tax_nanos: int = 0
    charge_id: str = ""
    method: str = ""
    receipt_url: str = ""
    invoice_url: str = ""
    session_id: str | None = None
    payment_intent_id: str | None = None

    @property
    def credit_nanos(self) -> int:
        return self.gross_nanos - self.tax_nanos


def apply_session(*, session_id: str, now: datetime) -> TopUpState | None:
    """Bring the top-up of a Checkout Session to the state that the session has at Stripe.

    The state it has then; None for a session that is not ours. Opens scopes of its own. Errors:
    quotas.payments.sending.TransactionOpen, quotas.payments.client.PaymentsNotConfigured, stripe.StripeError.
    """
    require_no_transaction()
    session = _retrieve_session(session_id)
    if session is None:
        return None
    with role_scope("operator"):
        top_up = _top_up_of(session, TopUp.objects.filter(session_id=session_id).first())
        if top_up is None or top_up.source != TopUpSource.CHECKOUT:
            return None
        wrong = mismatch.of_session(top_up, session, _customer_of(top_up))
        if wrong:
            return _refuse(top_up, wrong, now)
        state = _apply_session(top_up, session, now)
        if state == TopUpState.PAID:
            _after_paid(top_up, session.get("payment_intent"), now)
        return state


def apply_intent(*, intent_id: str, now: datetime) -> TopUpState | None:
    """The same for a PaymentIntent, of an auto-recharge or of a Checkout Session."""
    require_no_transaction()
    try:
        intent = stripe_client().v1.payment_intents.retrieve(intent_id, {"expand": INTENT_EXPANDED}).to_dict()
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise
    with role_scope("operator"):
        top_up = _top_up_of(intent, TopUp.objects.filter(payment_intent_id=intent_id).first())
    if top_up is None:
        return None
    if top_up.source == TopUpSource.CHECKOUT:
        return None if top_up.session_id is None else apply_session(session_id=top_up.session_id, now=now)
    if top_up.source == TopUpSource.RECHARGE:
        from quotas.payments.recharge import outcomes

        with role_scope("operator"):
            outcomes.apply_recharge_intent(top_up_id=top_up.id, intent=intent, now=now)
            top_up.refresh_from_db()
            if top_up.state == TopUpState.PAID:
                _review_receivable(top_up, now)
        return TopUpState(top_up.state)
    return None


def apply_top_up(*, top_up_id: UUID, now: datetime) -> TopUpState | None:
    """The same for one of our top-ups, wherever it is paid; None when there is no such top-up. One that
    Stripe knows nothing of yet stays as it is."""
    require_no_transaction()
    with role_scope("operator"):
        top_up = TopUp.objects.filter(id=top_up_id).first()
    if top_up is None:
        return None
    if top_up.source == TopUpSource.CHECKOUT and top_up.session_id is not None:
        return apply_session(session_id=top_up.session_id, now=now)
    if top_up.source == TopUpSource.RECHARGE and top_up.payment_intent_id is not None:
        return apply_intent(intent_id=top_up.payment_intent_id, now=now)
    return TopUpState(top_up.state)


def credit_top_up(*, top_up_id: UUID, paid: PaidFacts, source_account: AccountKind, now: datetime) -> bool:
    """Credit a top-up, whatever state it has; false when that was done before. THE one place that does.

    Within the caller's transaction, if one is open. As operator. What is owed is paid first.
    Errors: TopUpNotFound; django.db.IntegrityError when it was credited with other amounts.
    """
    with transaction.atomic(using=scope_alias()):
        top_up = TopUp.objects.select_for_update(no_key=True).filter(id=top_up_id).first()
        if top_up is None:
            raise TopUpNotFound("there is no such top-up")
        if top_up.state == TopUpState.PAID:
            return False
        posted_id = transfer_id(TransferKind.TOP_UP, f"topup:{top_up.id}")
        words = STATEMENT_WORDS[TopUpSource(top_up.source)]
        ledger.pay_in(
            transfer_id=posted_id,
            kind=TransferKind.TOP_UP,
            tenant_id=top_up.tenant_id,
            amount_nanos=paid.credit_nanos,
            tax_nanos=paid.tax_nanos,
            source=source_account,
            reason=f"{words} ({public_id(PREFIXES['top_up'], top_up.id)})",
        )
        top_up.state, top_up.transfer_id, top_up.ended_at = TopUpState.PAID, posted_id, now
        top_up.amount_nanos = paid.credit_nanos
        top_up.gross_nanos, top_up.tax_nanos = paid.gross_nanos, paid.tax_nanos
        top_up.charge_id, top_up.method = paid.charge_id, paid.method[:64]
        top_up.receipt_url, top_up.invoice_url = paid.receipt_url, paid.invoice_url
        top_up.session_id = paid.session_id or top_up.session_id
        top_up.payment_intent_id = paid.payment_intent_id or top_up.payment_intent_id
        top_up.pay_url, top_up.failure_code = "", ""
        top_up.save()
    logger.info("quotas.payments.credited", extra={"top_up": str(top_up), "source": top_up.source})
    return True


def move_top_up(*, top_up_id: UUID, state: TopUpState, failure_code: str = "", now: datetime) -> bool:
    """Note that a top-up is under way or has failed; false when it is further already. As operator, within
    the caller's transaction if one is open."""
    is_open = state in OPEN_TOP_UP_STATES
    may_follow = TopUp.objects.filter(id=top_up_id, state__in=_BEFORE[state])
    return bool(
        may_follow.update(state=state, failure_code=failure_code[:100], ended_at=None if is_open else now)
    )


def _retrieve_session(session_id: str) -> dict[str, Any] | None:
    try:
        found = stripe_client().v1.checkout.sessions.retrieve(session_id, {"expand": SESSION_EXPANDED})
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise
    return found.to_dict(for_json=True)


def _top_up_of(found: dict[str, Any], known: TopUp | None) -> TopUp | None:
    """Our top-up: known by the id of the object, or named in its metadata while we do not know that id."""
    if known is not None:
        return known
    named = (found.get("metadata") or {}).get("top_up", "")
    try:
        top_up_id = parse_public_id(PREFIXES["top_up"], named)
    except InvalidPublicId:
        return None
    return TopUp.objects.filter(id=top_up_id).first()


def _customer_of(top_up: TopUp) -> str | None:
    customers = StripeCustomer.objects.filter(tenant_id=top_up.tenant_id)
    return customers.values_list("customer_id", flat=True).first()


def _apply_session(top_up: TopUp, session: dict[str, Any], now: datetime) -> TopUpState:
    """In no transaction, as operator; the state that the top-up has afterwards."""
    intent: dict[str, Any] = session.get("payment_intent") or {}
    if session["payment_status"] == "paid":
        credit_top_up(
            top_up_id=top_up.id,
            paid=_paid_facts(session, intent, top_up.currency),
            source_account=AccountKind.STRIPE_CLEARING,
            now=now,
        )
        return TopUpState.PAID
    if session["status"] == "expired":
        move_top_up(top_up_id=top_up.id, state=TopUpState.EXPIRED, now=now)
    elif session["status"] == "complete":
        failed = intent.get("status") in {"requires_payment_method", "canceled"}
        error = intent.get("last_payment_error") or {}
        code = str(error.get("decline_code") or error.get("code") or "payment_failed")
        move_top_up(
            top_up_id=top_up.id,
            state=TopUpState.FAILED if failed else TopUpState.PROCESSING,
            failure_code=code if failed else "",
            now=now,
        )
    top_up.refresh_from_db()
    return TopUpState(top_up.state)


def _refuse(top_up: TopUp, wrong: str, now: datetime) -> TopUpState:
    """What was paid is not what was asked for: operators have to look at it, and nothing is credited."""
    logger.error("quotas.payments.mismatch", extra={"top_up": str(top_up), "field": wrong})
    with transaction.atomic(using=scope_alias()):
        move_top_up(top_up_id=top_up.id, state=TopUpState.FAILED, failure_code=f"mismatch_{wrong}", now=now)
        TopUp.objects.filter(id=top_up.id, state__in=[TopUpState.FAILED, TopUpState.EXPIRED]).update(
            failure_code=f"mismatch_{wrong}"
        )
    top_up.refresh_from_db()
    return TopUpState(top_up.state)


def _paid_facts(session: dict[str, Any], intent: dict[str, Any], currency: str) -> PaidFacts:
    charge: dict[str, Any] = intent.get("latest_charge") or {}
    invoice: dict[str, Any] = session.get("invoice") or {}
    totals: dict[str, Any] = session.get("total_details") or {}
    return PaidFacts(
        gross_nanos=from_minor_units(session["amount_total"], currency),
        tax_nanos=from_minor_units(totals.get("amount_tax") or 0, currency),
        charge_id=charge.get("id") or "",
        method=describe_method(charge.get("payment_method_details") or {}),
        receipt_url=charge.get("receipt_url") or "",
        invoice_url=invoice.get("hosted_invoice_url") or "",
        session_id=session["id"],
        payment_intent_id=intent.get("id"),
    )


def describe_method(details: dict[str, Any]) -> str:
    """A charge's method, or a PaymentMethod, as people know it: `visa ···· 4242`, `alipay`."""
    kind = str(details.get("type") or "")
    card = details.get("card") or {}
    if kind == "card" and card.get("last4"):
        return f"{card.get('brand') or 'card'} ···· {card['last4']}"[:64]
    return kind.replace("_", " ")[:64]


def _after_paid(top_up: TopUp, intent: dict[str, Any] | None, now: datetime) -> None:
    """What follows from a top-up that is paid, each safe to do again; an error has it done again."""
    assert not connections[scope_alias()].in_atomic_block
    _review_receivable(top_up, now)
    method = (intent or {}).get("payment_method")
    if (intent or {}).get("setup_future_usage") == "off_session" and isinstance(method, dict):
        from quotas.payments.recharge import methods

        methods.offer_paid_method(top_up_id=top_up.id, payment_method=method, now=now)


def _review_receivable(top_up: TopUp, now: datetime) -> None:
    from quotas.payments import receivables

    receivables.review_receivable(tenant_id=top_up.tenant_id, now=now)
