"""The customer that stands for an organization at Stripe: made once, before its first payment."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import transaction

from quotas.models import OperationKind, OperationState, StripeCustomer, StripeOperation
from quotas.payments import sending
from quotas.payments.sending import Sent
from tenants.models import Membership, Role, Tenant
from tenants.scope import role_scope, scope_alias

# Somebody else in the organization may be at it in this moment.
TRIES: Final = 5
PAUSE_S: Final = 0.4
MAX_LISTED: Final = 2_000


def ensure_customer(*, tenant_id: UUID, now: datetime) -> str:
    """The id of the organization's customer at Stripe, which is made if there is none. Opens scopes of its
    own.

    Errors: quotas.payments.sending.TransactionOpen, StripeUnavailable and StripeRefused,
    quotas.payments.client.PaymentsNotConfigured, Tenant.DoesNotExist.
    """
    sending.require_no_transaction()
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_S)
        with role_scope("operator"):
            known = StripeCustomer.objects.filter(tenant_id=tenant_id).first()
            if known is not None:
                return known.customer_id
            with transaction.atomic(using=scope_alias()):
                operation_id = sending.commit_operation(
                    tenant_id=tenant_id,
                    kind=OperationKind.CUSTOMER,
                    subject_id=tenant_id,
                    parameters=_parameters(tenant_id),
                    now=now,
                )
        sent = sending.send(operation_id=operation_id, now=now)
        if sent.state != OperationState.PENDING or sent.error_code == sending.UNREACHABLE:
            break
    return sending.require_done(sent).object_id


def find_customer(*, tenant_id: UUID) -> str | None:
    """Its id at Stripe, if it has one. In the tenant's scope or as operator."""
    return StripeCustomer.objects.filter(tenant_id=tenant_id).values_list("customer_id", flat=True).first()


def _parameters(tenant_id: UUID) -> dict[str, Any]:
    tenant = Tenant.objects.get(id=tenant_id)
    owners = Membership.objects.filter(tenant_id=tenant_id, role=Role.OWNER).order_by("created_at")
    email = owners.values_list("user__email", flat=True).first()
    return {"name": tenant.name, **({"email": email} if email else {})}


def _create(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.customers.create(operation.parameters, options)


def _finish(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    if sent.state == OperationState.DONE:
        StripeCustomer.objects.create(
            tenant_id=operation.tenant_id, customer_id=sent.object_id, created_at=now
        )


def _look_up(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    made = client.v1.customers.list({"created": created_around(operation), "limit": 100})
    return first_of(made, operation)


def created_around(operation: StripeOperation) -> Any:
    """When something must have been made at Stripe that this operation made, as a filter of its lists."""
    first = operation.created_at - timedelta(hours=1)
    last = operation.created_at + sending.KEY_LIFETIME + timedelta(hours=2)
    return {"gte": int(first.timestamp()), "lte": int(last.timestamp())}


def first_of(listed: Any, operation: StripeOperation) -> stripe.StripeObject | None:
    """The object of a list at Stripe, at most MAX_LISTED of it, that carries this operation's id."""
    for count, found in enumerate(listed.auto_paging_iter()):
        if count >= MAX_LISTED:
            break
        if (found.to_dict().get("metadata") or {}).get("operation") == str(operation.id):
            one: stripe.StripeObject = found
            return one
    return None


sending.CALLS[OperationKind.CUSTOMER] = _create
sending.FINISHERS[OperationKind.CUSTOMER] = _finish
sending.LOOKUPS[OperationKind.CUSTOMER] = _look_up
