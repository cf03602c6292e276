"""What became of a top-up, for whoever has just paid it."""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

import stripe

from quotas.payments.checkout import cancel_top_up
from quotas.payments.client import PaymentsNotConfigured
from quotas.payments.fulfilment import TopUpNotFound, apply_top_up
from quotas.payments.sending import StripeUnavailable
from quotas.payments.top_ups import TopUpRow, find_top_up
from tenants.operations import audit
from tenants.scope import tenant_scope

logger = logging.getLogger(__name__)


def look_up_top_up(*, tenant_id: UUID, top_up_id: UUID, asks_stripe: bool, now: datetime) -> TopUpRow:
    """One of the organization's own. asks_stripe: while it is open, Stripe is asked first; where that is in
    vain, the answer is what we know. Opens scopes of its own. Errors: TopUpNotFound."""
    row = _find(tenant_id, top_up_id)
    if not asks_stripe or not row.is_open:
        return row
    try:
        apply_top_up(top_up_id=row.id, now=now)
    except PaymentsNotConfigured:
        return row
    except stripe.StripeError:
        # Its webhook, or the poller, brings what this answer would have said.
        logger.warning("quotas.payments.landing_in_vain", extra={"top_up": row.public_id}, exc_info=True)
        return row
    return _find(tenant_id, top_up_id)


def _find(tenant_id: UUID, top_up_id: UUID) -> TopUpRow:
    with tenant_scope(tenant_id):
        row = find_top_up(tenant_id=tenant_id, top_up_id=top_up_id)
    if row is None:
        raise TopUpNotFound("the organization has no such top-up")
    return row


def give_up_top_up(*, tenant_id: UUID, top_up_id: UUID, actor: audit.Actor, now: datetime) -> None:
    """Nobody wants to pay it any more: its page is closed, as soon as Stripe can be reached. Opens scopes of
    its own. Errors: TopUpNotFound."""
    row = _find(tenant_id, top_up_id)
    try:
        cancel_top_up(tenant_id=tenant_id, top_up_id=row.id, actor=actor, now=now)
    except (PaymentsNotConfigured, StripeUnavailable):
        return
    except stripe.StripeError:
        logger.warning("quotas.payments.giving_up_in_vain", extra={"top_up": row.public_id}, exc_info=True)
