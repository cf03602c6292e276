"""Starting a top-up on Stripe's page, and giving it up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import connections

from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import to_minor_units
from quotas.models import (
    OPEN_TOP_UP_STATES,
    OperationKind,
    OperationState,
    StripeOperation,
    TopUp,
    TopUpSource,
    TopUpState,
)
from quotas.payments import sending
from quotas.payments.client import stripe_config
from quotas.payments.customers import created_around, ensure_customer, first_of
from quotas.payments.policy import PaymentPolicy, payment_policy
from quotas.payments.sending import Sent
from tenants.models import Tenant, TenantState
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias, tenant_scope

# In addresses that people come back to: stands for the public id of the top-up.
TOP_UP_PLACE: Final = "{top_up}"
PRODUCT_NAME: Final = "Credit"


class AmountNotOffered(ValueError):
    """The amount is neither in the operator's list nor within the limits, or no whole number of coins."""


class TooManyOpenTopUps(ValueError):
    """The organization has as many open top-ups as it may; they expire by themselves."""


class OrganizationClosed(ValueError):
    """A closed organization buys nothing."""


@dataclass(frozen=True, slots=True)
class StartedTopUp:
    """pay_url: Stripe's page, where the browser is led."""

    top_up_id: UUID
    pay_url: str


def start_top_up(
    *,
    tenant_id: UUID,
    user_id: UUID | None,
    amount_nanos: int,
    keeps_method: bool,
    success_url: str,
    cancel_url: str,
    now: datetime,
) -> StartedTopUp:
    """Open a page of Stripe on which `amount_nanos` of credit can be paid, in the wallet's currency.

    keeps_method: the method of payment is saved for auto-recharge. success_url, cancel_url: absolute;
    {top_up} in them becomes its public id. Opens scopes of its own: call it outside every transaction.
    Errors: AmountNotOffered, TooManyOpenTopUps, OrganizationClosed,
    quotas.payments.client.PaymentsNotConfigured, quotas.payments.sending.StripeUnavailable (it may be done
    a little later; the top-up stays open), StripeRefused.
    """
    stripe_config()
    sending.require_no_transaction()
    policy = payment_policy()
    with role_scope("operator"):
        tenant = Tenant.objects.get(id=tenant_id)
    if tenant.state == TenantState.CLOSED:
        raise OrganizationClosed("the organization is closed")
    if not policy.offers(amount_nanos, tenant.currency):
        raise AmountNotOffered("this amount is not offered")
    customer_id = ensure_customer(tenant_id=tenant_id, now=now)
    top_up_id = uuid7()
    wanted = _Wanted(
        top_up_id, customer_id, amount_nanos, tenant.currency, keeps_method, success_url, cancel_url
    )
    with tenant_scope(tenant_id):
        _count_open(tenant_id, policy.open_top_ups)
        TopUp.objects.create(
            id=top_up_id,
            tenant_id=tenant_id,
            currency=tenant.currency,
            source=TopUpSource.CHECKOUT,
            amount_nanos=amount_nanos,
            created_by_id=user_id,
            created_at=now,
            expires_at=now + policy.session_lifetime,
        )
        operation_id = sending.commit_operation(
            tenant_id=tenant_id,
            kind=OperationKind.CHECKOUT,
            subject_id=top_up_id,
            parameters=_session(wanted, policy, now),
            now=now,
        )
        audit.record(
            actor=audit.member(user_id, None) if user_id is not None else audit.SYSTEM,
            action="top_up.start",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["top_up"], top_up_id),
            after={"amount_nanos": amount_nanos, "currency": tenant.currency, "keeps_method": keeps_method},
        )
    sent = sending.require_done(sending.send(operation_id=operation_id, now=now))
    with role_scope("operator"):
        pay_url = TopUp.objects.values_list("pay_url", flat=True).get(id=top_up_id)
    return StartedTopUp(top_up_id, pay_url or str((sent.data or {}).get("url", "")))


def cancel_top_up(
    *, tenant_id: UUID, top_up_id: UUID, actor: audit.Actor, now: datetime
) -> TopUpState | None:
    """Close the page of a top-up that nobody wants to pay any more; what is paid meanwhile is credited.

    The state it has then; None when the organization has no such top-up. Opens scopes of its own. Errors:
    quotas.payments.client.PaymentsNotConfigured, quotas.payments.sending.StripeUnavailable.
    """
    from quotas.payments.fulfilment import apply_top_up

    stripe_config()
    sending.require_no_transaction()
    with tenant_scope(tenant_id):
        top_up = TopUp.objects.filter(id=top_up_id, source=TopUpSource.CHECKOUT).first()
        if top_up is None:
            return None
        if top_up.state != TopUpState.OPEN or top_up.session_id is None:
            return TopUpState(top_up.state)
        operation_id = sending.commit_operation(
            tenant_id=tenant_id,
            kind=OperationKind.EXPIRE_CHECKOUT,
            subject_id=top_up_id,
            parameters={"session": top_up.session_id},
            now=now,
        )
        audit.record(
            actor=actor,
            action="top_up.cancel",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["top_up"], top_up_id),
        )
    sending.send(operation_id=operation_id, now=now)
    # Stripe refuses to close what was paid or has expired: the session itself says what it is.
    return apply_top_up(top_up_id=top_up_id, now=now)


def _count_open(tenant_id: UUID, most: int) -> None:
    """Errors: TooManyOpenTopUps. Starts of one organization count each other."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"topup:{tenant_id}"])
    open_ones = TopUp.objects.filter(
        tenant_id=tenant_id, source=TopUpSource.CHECKOUT, state__in=OPEN_TOP_UP_STATES
    )
    # What is paid and only takes its time keeps nobody from paying again.
    if open_ones.exclude(state=TopUpState.PROCESSING).count() >= most:
        raise TooManyOpenTopUps(f"{most} top-ups are open")


@dataclass(frozen=True, slots=True)
class _Wanted:
    top_up_id: UUID
    customer_id: str
    amount_nanos: int
    currency: str
    keeps_method: bool
    success_url: str
    cancel_url: str


def _session(wanted: _Wanted, policy: PaymentPolicy, now: datetime) -> dict[str, Any]:
    """What is asked of Stripe. Which methods of payment are shown, Stripe decides by account and customer."""
    public = public_id(PREFIXES["top_up"], wanted.top_up_id)
    line = {
        "quantity": 1,
        "price_data": {
            "currency": wanted.currency.lower(),
            "unit_amount": to_minor_units(wanted.amount_nanos, wanted.currency),
            "product_data": {"name": PRODUCT_NAME},
            **({"tax_behavior": "exclusive"} if policy.takes_tax else {}),
        },
    }
    session: dict[str, Any] = {
        "mode": "payment",
        "customer": wanted.customer_id,
        "client_reference_id": public,
        "line_items": [line],
        "success_url": wanted.success_url.replace(TOP_UP_PLACE, public),
        "cancel_url": wanted.cancel_url.replace(TOP_UP_PLACE, public),
        "expires_at": int((now + policy.session_lifetime).timestamp()),
        # The wallet's currency is the one that is paid: what Stripe converts would not be what we credit.
        "adaptive_pricing": {"enabled": False},
        "metadata": {"top_up": public},
    }
    if wanted.keeps_method:
        session["payment_intent_data"] = {"setup_future_usage": "off_session"}
    if policy.takes_tax:
        session["automatic_tax"] = {"enabled": True}
        session["customer_update"] = {"address": "auto", "name": "auto"}
        session["tax_id_collection"] = {"enabled": True}
    if policy.makes_invoices:
        session["invoice_creation"] = {"enabled": True}
    return session


def _create(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    asked: dict[str, Any] = dict(operation.parameters)
    # What the session leads to carries the same words, so that each of its events leads back to us.
    asked["payment_intent_data"] = {**asked.get("payment_intent_data", {}), "metadata": asked["metadata"]}
    if "invoice_creation" in asked:
        asked["invoice_creation"] = {"enabled": True, "invoice_data": {"metadata": asked["metadata"]}}
    return client.v1.checkout.sessions.create(asked, options)  # type: ignore[arg-type]


def _finish(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    """The top-up has a page to be paid on, or has failed."""
    still = TopUp.objects.filter(id=_subject(operation), state=TopUpState.OPEN)
    if sent.state != OperationState.DONE:
        still.update(state=TopUpState.FAILED, failure_code=sent.error_code[:100], ended_at=now)
        return
    session = sent.data or {}
    intent = session.get("payment_intent")
    still.update(
        session_id=sent.object_id,
        pay_url=session.get("url") or "",
        payment_intent_id=intent.get("id") if isinstance(intent, dict) else intent,
    )


def _subject(operation: StripeOperation) -> UUID:
    assert operation.subject_id is not None
    return operation.subject_id


def _look_up(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    asked: dict[str, Any] = {
        "customer": operation.parameters["customer"],
        "created": created_around(operation),
        "limit": 100,
    }
    return first_of(client.v1.checkout.sessions.list(asked), operation)  # type: ignore[arg-type]


def _expire(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.checkout.sessions.expire(operation.parameters["session"], {}, options)


def _look_up_expired(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    session = client.v1.checkout.sessions.retrieve(operation.parameters["session"])
    return session if session.status == "expired" else None


sending.CALLS[OperationKind.CHECKOUT] = _create
sending.FINISHERS[OperationKind.CHECKOUT] = _finish
sending.LOOKUPS[OperationKind.CHECKOUT] = _look_up
sending.CALLS[OperationKind.EXPIRE_CHECKOUT] = _expire
sending.LOOKUPS[OperationKind.EXPIRE_CHECKOUT] = _look_up_expired
