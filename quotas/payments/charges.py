"""Which top-up a charge of Stripe paid for, and that it is credited before anything is taken back from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import stripe
from django.db.models import Q

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id
from quotas.models import StripeCustomer, TopUp, TopUpState
from quotas.payments import fulfilment
from tenants.scope import role_scope


class NotCreditedYet(RuntimeError):
    """Something is taken back of a payment that is not credited; it is tried again when it is."""


def paid_top_up(*, charge: Mapping[str, Any], now: datetime) -> TopUp | None:
    """The paid top-up of a charge, credited now where that was still to be done; None when the charge is none
    of ours. charge: as Stripe has it. Opens scopes of its own, outside every transaction.

    Errors: NotCreditedYet, and what quotas.payments.fulfilment.apply_intent raises.
    """
    top_up = _find(charge)
    if top_up is None and _is_customers(charge):
        raise NotCreditedYet(f"charge {charge['id']} of a customer of ours paid for nothing that we know")
    if top_up is None or top_up.state == TopUpState.PAID:
        return top_up
    intent_id = id_of(charge.get("payment_intent"))
    if intent_id:
        fulfilment.apply_intent(intent_id=intent_id, now=now)
        top_up = _find(charge)
    if top_up is not None and top_up.failure_code.startswith("mismatch_"):
        # What was paid is not what was asked for, and brought nothing that could be taken back.
        return None
    if top_up is None or top_up.state != TopUpState.PAID:
        raise NotCreditedYet(f"the top-up of charge {charge['id']} is not paid")
    return top_up


def read_or_none(read: Callable[[], stripe.StripeObject]) -> dict[str, Any] | None:
    """What is read at Stripe; None when the account has no such thing. Errors: stripe.StripeError."""
    try:
        return read().to_dict()
    except stripe.InvalidRequestError as error:
        if error.http_status == 404:
            return None
        raise


def id_of(value: Any) -> str:
    """The id of what Stripe gives as an id or, expanded, as the object; empty for nothing."""
    if isinstance(value, Mapping):
        return str(value["id"])
    return str(value) if value else ""


def _is_customers(charge: Mapping[str, Any]) -> bool:
    customer_id = id_of(charge.get("customer"))
    with role_scope("operator"):
        return bool(customer_id) and StripeCustomer.objects.filter(customer_id=customer_id).exists()


def _find(charge: Mapping[str, Any]) -> TopUp | None:
    wanted = Q(charge_id=str(charge["id"]))
    intent_id = id_of(charge.get("payment_intent"))
    if intent_id:
        wanted |= Q(payment_intent_id=intent_id)
    metadata = charge.get("metadata") or {}
    with suppress(InvalidPublicId):
        wanted |= Q(id=parse_public_id(PREFIXES["top_up"], str(metadata.get("top_up", ""))))
    with role_scope("operator"):
        return TopUp.objects.filter(wanted).order_by("id").first()
