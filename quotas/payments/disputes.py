"""Disputes: what a customer's bank took back, and what it gave again, as Stripe's books have it.

The dispute is read again whenever something is heard of it. Each of its balance transactions is one movement
and one transfer, so that order and repetition of events end the same. An inquiry moves nothing, and neither
does a status: what is lost was taken when the dispute began. Locks, in this order: the top-up, the wallet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.db import transaction

from portal.kit.ids import transfer_id
from portal.kit.money import from_minor_units
from quotas.ledger import payments as ledger
from quotas.models import Dispute, DisputeMovement, TopUp, TransferKind
from quotas.payments.charges import paid_top_up, read_or_none
from quotas.payments.client import stripe_client
from quotas.payments.moneyback_queries import refund_shares
from quotas.payments.receivables import review_receivable
from quotas.payments.sending import require_no_transaction
from quotas.payments.stripe_books import record_lines
from quotas.payments.tax_shares import tax_within_dispute
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

# Nothing comes after these. What was read before and is applied later must not undo them.
CLOSED_STATUSES: Final = ("won", "lost", "warning_closed", "prevented")


def apply_dispute(*, dispute_id: str, now: datetime) -> bool:
    """Bring our dispute to the state that Stripe's has, and post what it moved. False when it is about a
    charge that is none of ours. Opens scopes of its own.

    dispute_id: Stripe's. Errors: quotas.payments.sending.TransactionOpen, stripe.StripeError,
    quotas.payments.charges.NotCreditedYet.
    """
    require_no_transaction()
    found = read_or_none(lambda: stripe_client().v1.disputes.retrieve(dispute_id, {"expand": ["charge"]}))
    if found is None:
        return False
    charge = found.get("charge")
    top_up = paid_top_up(charge=charge, now=now) if isinstance(charge, dict) else None
    if top_up is None:
        return False
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        top_up = TopUp.objects.select_for_update(no_key=True).get(id=top_up.id)
        dispute = _note(top_up, found, now)
        lines = _lines(found)
        record_lines(lines=lines)
        for line in lines:
            if line["amount"]:
                _move(top_up, dispute, line)
    review_receivable(tenant_id=top_up.tenant_id, now=now)
    return True


def _note(top_up: TopUp, found: Mapping[str, Any], now: datetime) -> Dispute:
    """Our row of the dispute, up to date."""
    dispute = Dispute.objects.filter(dispute_id=found["id"]).first()
    if dispute is None:
        dispute = Dispute(
            tenant_id=top_up.tenant_id,
            currency=top_up.currency,
            top_up=top_up,
            dispute_id=found["id"],
            charge_id=found["charge"]["id"],
            opened_at=_moment(found["created"]),
        )
    if dispute.status in CLOSED_STATUSES:
        return dispute
    was = dispute.status
    dispute.amount_nanos = _nanos(top_up, found["amount"], found["currency"])
    dispute.status, dispute.reason = found["status"][:64], (found.get("reason") or "")[:64]
    due = (found.get("evidence_details") or {}).get("due_by")
    dispute.evidence_due_at = _moment(due) if due else None
    if dispute.status in CLOSED_STATUSES:
        dispute.closed_at = now
    dispute.save()
    if dispute.status != was:
        _record(dispute, was)
    return dispute


def _move(top_up: TopUp, dispute: Dispute, line: Mapping[str, Any]) -> None:
    """Post one balance transaction of the dispute, once: what it took, or what it gave back."""
    if DisputeMovement.objects.filter(balance_transaction_id=line["id"]).exists():
        return
    taken_nanos = -_moved_nanos(dispute, line)
    tax_nanos = tax_within_dispute(
        shares=refund_shares(top_up),
        gross_nanos=taken_nanos,
        step_nanos=from_minor_units(1, dispute.currency),
    )
    kind = TransferKind.CHARGEBACK if taken_nanos > 0 else TransferKind.REINSTATED
    posted_id = transfer_id(kind, f"dispute:{line['id']}")
    money: dict[str, Any] = {
        "transfer_id": posted_id,
        "kind": kind,
        "tenant_id": dispute.tenant_id,
        "amount_nanos": abs(taken_nanos - tax_nanos),
        "tax_nanos": abs(tax_nanos),
    }
    if taken_nanos > 0:
        ledger.pay_back(is_forced=True, reason=f"Disputed payment ({dispute})", **money)
    else:
        ledger.pay_in(reason=f"Disputed payment given back ({dispute})", **money)
    DisputeMovement.objects.create(
        balance_transaction_id=line["id"],
        tenant_id=dispute.tenant_id,
        currency=dispute.currency,
        dispute=dispute,
        taken_nanos=taken_nanos,
        tax_nanos=tax_nanos,
        transfer_id=posted_id,
    )


def _moved_nanos(dispute: Dispute, line: Mapping[str, Any]) -> int:
    """What the line moved in the top-up's currency. Where Stripe keeps its books in another one, it is the
    whole dispute, of which the customer's bank speaks; nothing is converted here."""
    if line["currency"].upper() == dispute.currency:
        return from_minor_units(line["amount"], dispute.currency)
    return dispute.amount_nanos if line["amount"] > 0 else -dispute.amount_nanos


def _lines(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The dispute's balance transactions, oldest first."""
    return sorted(found.get("balance_transactions") or (), key=lambda line: (line["created"], line["id"]))


def _nanos(top_up: TopUp, amount: int, currency: str) -> int:
    if currency.upper() != top_up.currency:
        raise ValueError(f"a dispute of {top_up} is not in its currency")
    return from_minor_units(amount, top_up.currency)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)


def _record(dispute: Dispute, was: str) -> None:
    audit.record(
        actor=audit.SYSTEM,
        action="dispute.change",
        tenant_id=dispute.tenant_id,
        target=str(dispute),
        before={"status": was} if was else None,
        after={
            "status": dispute.status,
            "amount_nanos": dispute.amount_nanos,
            "currency": dispute.currency,
        },
        is_internal=True,
    )
