"""Stripe's own pages about saved methods of payment, the billing address and tax ids."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import stripe

from portal.kit.ids import PREFIXES, public_id
from quotas.payments.client import stripe_client
from quotas.payments.customers import ensure_customer
from quotas.payments.sending import StripeUnavailable
from tenants.operations import audit
from tenants.scope import tenant_scope


def open_customer_portal(*, tenant_id: UUID, return_url: str, actor: audit.Actor, now: datetime) -> str:
    """The address of a session of Stripe's customer portal for this organization. No scope may be open.

    A session changes nothing, so it is no operation with a row of its own; one whose answer is lost ends by
    itself. What is changed with it only Stripe knows; who could, the audit log says. Errors:
    PaymentsNotConfigured, StripeUnavailable.
    """
    client = stripe_client()
    customer_id = ensure_customer(tenant_id=tenant_id, now=now)
    try:
        session = client.v1.billing_portal.sessions.create(
            {"customer": customer_id, "return_url": return_url}
        )
    except stripe.StripeError as error:
        raise StripeUnavailable("Stripe opened no customer portal") from error
    with tenant_scope(tenant_id):
        audit.record(
            actor=actor,
            action="billing.portal",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
        )
    return str(session.url)
