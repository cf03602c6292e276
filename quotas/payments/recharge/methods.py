"""The method of payment that recharges are paid with: saved on Stripe's page, changed and removed there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import (
    AutoRecharge,
    OperationKind,
    RechargeState,
    StripeOperation,
    TopUp,
    TopUpSource,
)
from quotas.payments import sending
from quotas.payments.client import stripe_client, stripe_config
from quotas.payments.customers import ensure_customer, find_customer
from quotas.payments.fulfilment import describe_method
from quotas.payments.policy import payment_policy
from quotas.payments.recharge.charging import send_cancellation
from quotas.payments.recharge.intents import cancel_waiting
from quotas.payments.recharge.outcomes import switch_off
from quotas.payments.recharge.rows import RechargeReason, described, locked_recharge, store, turn_on
from tenants.models import Tenant
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias, tenant_scope

# What can be charged again while nobody is there. Alipay and WeChat Pay are for once.
REUSABLE_TYPES: Final = frozenset({"card", "link"})
MAX_SETUPS_PER_HOUR: Final = 20
# Where tax is taken, it has to be known where the customer is.
_ADDRESS: Final = {"billing_address_collection": "required", "customer_update": {"address": "auto"}}
_EXPANDED: Final = {"expand": ["setup_intent.payment_method"]}


class TooManySetups(ValueError):
    """The organization has opened the page that saves a method as often as it may within an hour."""


def start_setup(*, tenant_id: UUID, user_id: UUID, success_url: str, cancel_url: str, now: datetime) -> str:
    """Open a page of Stripe that saves a method of payment and charges nothing; its address.

    success_url, cancel_url: absolute; {CHECKOUT_SESSION_ID} in the first one is replaced by Stripe. Opens
    scopes of its own. Errors: TooManySetups, quotas.payments.client.PaymentsNotConfigured,
    quotas.payments.sending.StripeUnavailable, StripeRefused.
    """
    stripe_config()
    sending.require_no_transaction()
    customer_id = ensure_customer(tenant_id=tenant_id, now=now)
    with tenant_scope(tenant_id):
        lately = StripeOperation.objects.filter(
            tenant_id=tenant_id, kind=OperationKind.SETUP, created_at__gt=now - timedelta(hours=1)
        )
        if lately.count() >= MAX_SETUPS_PER_HOUR:
            raise TooManySetups("the page was opened too often within an hour")
        currency = Tenant.objects.values_list("currency", flat=True).get(id=tenant_id)
        operation_id = sending.commit_operation(
            tenant_id=tenant_id,
            kind=OperationKind.SETUP,
            subject_id=None,
            parameters={
                "mode": "setup",
                "customer": customer_id,
                "currency": currency.lower(),
                "success_url": success_url,
                "cancel_url": cancel_url,
                **(_ADDRESS if payment_policy().takes_tax else {}),
            },
            now=now,
        )
        audit.record(
            actor=audit.member(user_id, None),
            action="recharge.setup",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
        )
    sent = sending.require_done(sending.send(operation_id=operation_id, now=now))
    return str((sent.data or {}).get("url", ""))


def apply_setup(*, session_id: str, now: datetime) -> bool:
    """Take over the method that was saved on such a page; whether the page was one of ours.

    Called by the landing page, events, poller and replay alike; opens scopes of its own. Errors:
    quotas.payments.sending.StripeUnavailable, quotas.payments.client.PaymentsNotConfigured.
    """
    sending.require_no_transaction()
    session = _read(lambda client: client.v1.checkout.sessions.retrieve(session_id, _EXPANDED))
    if session is None or session["mode"] != "setup":
        return False
    with role_scope("operator"):
        named = (session.get("metadata") or {}).get("operation", "")
        operation_id = _uuid(named)
        if operation_id is None:
            return False
        operation = StripeOperation.objects.filter(kind=OperationKind.SETUP, id=operation_id).first()
        if operation is None or session["customer"] != find_customer(tenant_id=operation.tenant_id):
            return False
        intent = session.get("setup_intent") or {}
        if session["status"] == "complete" and intent.get("status") == "succeeded":
            _adopt(operation.tenant_id, intent["payment_method"], now)
    return True


def offer_paid_method(*, top_up_id: UUID, payment_method: Mapping[str, Any], now: datetime) -> bool:
    """The method that a top-up was paid with, which its payer wanted kept; whether it is taken.

    Where auto-recharge waits for the customer, it goes on: the bank has seen the customer. Safe to repeat.
    Opens scopes of its own.
    """
    with role_scope("operator"):
        top_up = TopUp.objects.get(id=top_up_id)
        last = (
            TopUp.objects.filter(tenant_id=top_up.tenant_id, source=TopUpSource.RECHARGE)
            .order_by("-created_at")
            .first()
        )
        resumes = last is None or last.created_at < top_up.created_at
        return _adopt(top_up.tenant_id, payment_method, now, resumes=resumes)


def apply_payment_method(*, object_id: str, now: datetime) -> bool:
    """What became of a saved method: removed at Stripe, or replaced by its bank; whether it is one of ours.
    Opens scopes of its own. Errors: as of apply_setup."""
    sending.require_no_transaction()
    with role_scope("operator"):
        if not AutoRecharge.objects.filter(payment_method_id=object_id).exists():
            return False
    method = _read(lambda client: client.v1.payment_methods.retrieve(object_id))
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        recharge = (
            AutoRecharge.objects.select_for_update(no_key=True).filter(payment_method_id=object_id).first()
        )
        if recharge is None:
            return True
        before = described(recharge)
        if method is not None and method.get("customer") == find_customer(tenant_id=recharge.tenant_id):
            recharge.method = describe_method(method)
            store(recharge, action="recharge.method", actor=audit.SYSTEM, before=before, now=now)
            return True
        was_off = recharge.state == RechargeState.OFF
        recharge.payment_method_id = recharge.method = ""
        if not was_off:
            switch_off(recharge, RechargeReason.METHOD_REMOVED, now, before=before)
        else:
            store(recharge, action="recharge.method_removed", actor=audit.SYSTEM, before=before, now=now)
        cancel_waiting(tenant_id=recharge.tenant_id, now=now)
    return True


def _adopt(tenant_id: UUID, method: Mapping[str, Any], now: datetime, *, resumes: bool = False) -> bool:
    """Make it the organization's method, unless a newer one is. resumes: auto-recharge goes on with it even
    so, where it waits for the customer."""
    if method["type"] not in REUSABLE_TYPES or method.get("customer") != find_customer(tenant_id=tenant_id):
        return False
    given_at = datetime.fromtimestamp(method["created"], UTC)
    with transaction.atomic(using=scope_alias()):
        recharge = locked_recharge(tenant_id)
        is_known = method["id"] == recharge.payment_method_id
        is_newer = not is_known and (recharge.method_at is None or given_at >= recharge.method_at)
        is_paused = recharge.state == RechargeState.PAUSED
        if not is_newer and not (resumes and is_paused):
            return False
        before = described(recharge)
        recharge.payment_method_id, recharge.method = method["id"], describe_method(dict(method))
        recharge.method_at = max(given_at, recharge.method_at or given_at)
        cancelled = None
        if is_paused or recharge.state_reason == RechargeReason.NO_METHOD:
            turn_on(recharge)
            cancelled = cancel_waiting(tenant_id=tenant_id, now=now)
        elif recharge.state == RechargeState.ON:
            # Another card is not what was declined: it is tried at once.
            recharge.declines, recharge.retry_at = 0, None
        store(recharge, action="recharge.method", actor=audit.SYSTEM, before=before, now=now)
        waiting_id = (
            StripeOperation.objects.values_list("subject_id", flat=True).get(id=cancelled)
            if cancelled is not None
            else None
        )
    if waiting_id is not None:
        send_cancellation(top_up_id=waiting_id, now=now)
    return True


def _read(retrieve: Any) -> dict[str, Any] | None:
    """An object of Stripe's; None when there is none. Errors: StripeUnavailable, PaymentsNotConfigured."""
    try:
        return dict(retrieve(stripe_client()).to_dict())
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise sending.StripeUnavailable(sending.error_text(error)) from error
    except stripe.StripeError as error:
        raise sending.StripeUnavailable(sending.error_text(error)) from error


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _create(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.checkout.sessions.create(operation.parameters, options)


sending.CALLS[OperationKind.SETUP] = _create
