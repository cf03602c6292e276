"""What auto-recharge asks of Stripe: a payment without the customer, and the end of one that was refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import stripe

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import to_minor_units
from quotas.models import (
    AutoRecharge,
    OperationKind,
    StripeOperation,
    TopUp,
    TopUpSource,
    TopUpState,
)
from quotas.payments import sending
from quotas.payments.customers import created_around, first_of
from quotas.payments.recharge.taxes import RechargeTax


def commit_payment(
    *, top_up: TopUp, recharge: AutoRecharge, customer_id: str, tax: RechargeTax | None, now: datetime
) -> UUID:
    """Write down the payment that is to be asked for, in the transaction that makes its top-up; its id."""
    gross_nanos = top_up.amount_nanos + (tax.tax_nanos if tax is not None else 0)
    return sending.commit_operation(
        tenant_id=top_up.tenant_id,
        kind=OperationKind.RECHARGE,
        subject_id=top_up.id,
        parameters={
            "amount": to_minor_units(gross_nanos, top_up.currency),
            "currency": top_up.currency.lower(),
            "customer": customer_id,
            "payment_method": recharge.payment_method_id,
            # Nobody is there to be sent elsewhere.
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "off_session": True,
            "confirm": True,
            "metadata": {"top_up": public_id(PREFIXES["top_up"], top_up.id)},
            # Stripe books the tax with the payment.
            **({"hooks": {"inputs": {"tax": {"calculation": tax.id}}}} if tax is not None else {}),
        },
        now=now,
    )


def commit_cancellation(*, top_up: TopUp, now: datetime) -> UUID | None:
    """Write down that this payment is to be cancelled, so that it can never be paid beside another one; its
    id, or None where Stripe knows of no payment."""
    if not top_up.payment_intent_id:
        return None
    return sending.commit_operation(
        tenant_id=top_up.tenant_id,
        kind=OperationKind.CANCEL_INTENT,
        subject_id=top_up.id,
        parameters={"intent": top_up.payment_intent_id},
        now=now,
    )


def cancel_waiting(*, tenant_id: UUID, now: datetime) -> UUID | None:
    """The same for the organization's payment that waits for the customer, if there is one. The caller holds
    the lock of its auto-recharge, and sends what was written down or leaves it to the sweeper."""
    waiting = TopUp.objects.filter(
        tenant_id=tenant_id, source=TopUpSource.RECHARGE, state=TopUpState.ACTION_NEEDED
    ).first()
    return commit_cancellation(top_up=waiting, now=now) if waiting is not None else None


def _pay(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.payment_intents.create(operation.parameters, options)


def _find_payment(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    made = client.v1.payment_intents.list(
        {"customer": operation.parameters["customer"], "created": created_around(operation), "limit": 100}
    )
    return first_of(made, operation)


def _cancel(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.payment_intents.cancel(
        operation.parameters["intent"], {"cancellation_reason": "abandoned"}, options
    )


def _find_cancelled(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    intent = client.v1.payment_intents.retrieve(operation.parameters["intent"])
    return intent if intent.status == "canceled" else None


sending.CALLS[OperationKind.RECHARGE] = _pay
sending.LOOKUPS[OperationKind.RECHARGE] = _find_payment
sending.CALLS[OperationKind.CANCEL_INTENT] = _cancel
sending.LOOKUPS[OperationKind.CANCEL_INTENT] = _find_cancelled
