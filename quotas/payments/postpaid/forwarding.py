"""A monthly invoice becomes one of Stripe: the draft, a line for each of ours, and then it is final.

Each request is a row of ours first, whose id is its key; a line's request is known by the line. So whatever
stops on the way goes on where it was. Nothing is finalized that does not add up at Stripe, too.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import transaction

from portal.kit.money import to_minor_units
from quotas.models import (
    MonthlyInvoice,
    MonthlyInvoiceLine,
    MonthlyInvoiceState,
    MonthlyLineKind,
    OperationKind,
    OperationState,
    StripeOperation,
)
from quotas.payments import sending
from quotas.payments.client import stripe_client
from quotas.payments.customers import created_around, ensure_customer, first_of
from quotas.payments.policy import payment_policy
from quotas.payments.postpaid.applying import apply_invoice, net_minor_units
from quotas.payments.sending import Sent
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

# As people read them on the invoice; English, as everything that operators wrote into the catalog.
CLASS_WORDS: Final = {
    "input": "input tokens",
    "cached_input": "cached input tokens",
    "image": "image tokens",
    "output": "output tokens",
    "reasoning": "reasoning tokens",
    "request": "requests",
}
LINE_WORDS: Final = {
    MonthlyLineKind.BROUGHT: "Brought forward",
    MonthlyLineKind.PAYMENTS: "Paid in advance",
    MonthlyLineKind.CARRIED: "Rounding and carried over",
}


class InvoiceNotFound(LookupError):
    """There is no such invoice."""


def forward_invoice(*, invoice_id: UUID, now: datetime) -> MonthlyInvoiceState:
    """Bring a draft to Stripe and finalize it there. The state that it has then: still DRAFT where Stripe did
    not answer, or refused something, which `failure_text` says. Opens scopes of its own.

    Errors: InvoiceNotFound, and as quotas.payments.customers.ensure_customer and apply_invoice.
    """
    sending.require_no_transaction()
    invoice = _read(invoice_id)
    if invoice.state != MonthlyInvoiceState.DRAFT:
        return MonthlyInvoiceState(invoice.state)
    customer_id = ensure_customer(tenant_id=invoice.tenant_id, now=now)
    try:
        stripe_id = sending.require_done(_make(invoice, customer_id, now)).object_id
        for operation_id in _commit_items(invoice, customer_id, stripe_id, now):
            sending.require_done(sending.send(operation_id=operation_id, now=now))
        _check_sum(invoice, stripe_id)
        sending.require_done(_finalize(invoice, stripe_id, now))
    except (sending.StripeUnavailable, sending.StripeRefused, DoesNotAddUp) as error:
        logger.warning("quotas.payments.invoice_left", extra={"invoice": str(invoice), "error": str(error)})
        _note(invoice, str(error))
        return MonthlyInvoiceState(_read(invoice_id).state)
    apply_invoice(invoice_id=stripe_id, now=now)
    return MonthlyInvoiceState(_read(invoice_id).state)


class DoesNotAddUp(RuntimeError):
    """Stripe's draft is not over the amount of ours, so it is not finalized."""


def _read(invoice_id: UUID) -> MonthlyInvoice:
    with role_scope("operator"):
        invoice = MonthlyInvoice.objects.filter(id=invoice_id).first()
    if invoice is None:
        raise InvoiceNotFound("there is no such invoice")
    return invoice


def _make(invoice: MonthlyInvoice, customer_id: str, now: datetime) -> Sent:
    parameters: dict[str, Any] = {
        "customer": customer_id,
        "currency": invoice.currency.lower(),
        "collection_method": "send_invoice",
        "days_until_due": invoice.days_until_due,
        # Nothing happens to it by itself, and nothing that lies around at Stripe gets onto it.
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "description": f"Usage until {invoice.month:%B %Y}",
        "metadata": {"invoice": str(invoice)},
    }
    if payment_policy().takes_tax:
        parameters["automatic_tax"] = {"enabled": True}
    return _commit_and_send(invoice, OperationKind.INVOICE, parameters, now)


def _finalize(invoice: MonthlyInvoice, stripe_id: str, now: datetime) -> Sent:
    parameters = {"invoice": stripe_id, "metadata": {"invoice": str(invoice)}}
    return _commit_and_send(invoice, OperationKind.FINALIZE_INVOICE, parameters, now)


def _commit_and_send(
    invoice: MonthlyInvoice, kind: OperationKind, parameters: dict[str, Any], now: datetime
) -> Sent:
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        operation_id = sending.commit_operation(
            tenant_id=invoice.tenant_id, kind=kind, subject_id=invoice.id, parameters=parameters, now=now
        )
    return sending.send(operation_id=operation_id, now=now)


def _commit_items(invoice: MonthlyInvoice, customer_id: str, stripe_id: str, now: datetime) -> list[UUID]:
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        lines = MonthlyInvoiceLine.objects.filter(invoice_id=invoice.id).exclude(asked_nanos=0)
        return [
            sending.commit_operation(
                tenant_id=invoice.tenant_id,
                kind=OperationKind.INVOICE_ITEM,
                subject_id=line.id,
                parameters={
                    "customer": customer_id,
                    "invoice": stripe_id,
                    "currency": invoice.currency.lower(),
                    "amount": to_minor_units(line.asked_nanos, invoice.currency),
                    "description": line_words(line),
                    "period": {
                        "start": int(invoice.from_at.timestamp()),
                        "end": int(invoice.to_at.timestamp()),
                    },
                    "metadata": {"invoice": str(invoice), "line": str(line.id)},
                },
                now=now,
            )
            for line in lines.select_related("model").order_by("position")
        ]


def line_words(line: MonthlyInvoiceLine) -> str:
    """What stands in a line at Stripe."""
    if line.kind != MonthlyLineKind.USAGE or line.model is None:
        return LINE_WORDS[MonthlyLineKind(line.kind)]
    return f"{line.model.display_name}: {line.units:,} {CLASS_WORDS[line.token_class]}"[:500]


def _check_sum(invoice: MonthlyInvoice, stripe_id: str) -> None:
    try:
        found = stripe_client().v1.invoices.retrieve(stripe_id).to_dict()
    except stripe.InvalidRequestError as error:
        raise DoesNotAddUp(sending.error_text(error)) from error
    wanted = to_minor_units(invoice.amount_nanos, invoice.currency)
    if net_minor_units(found) != wanted or found["currency"] != invoice.currency.lower():
        raise DoesNotAddUp(f"Stripe's invoice is over {net_minor_units(found)}, ours over {wanted}")


def _note(invoice: MonthlyInvoice, text: str) -> None:
    with role_scope("operator"):
        MonthlyInvoice.objects.filter(id=invoice.id).update(failure_text=text[:500])


def _finish_invoice(*, operation: StripeOperation, sent: Sent, now: datetime) -> None:
    if sent.state == OperationState.DONE and operation.subject_id is not None:
        MonthlyInvoice.objects.filter(id=operation.subject_id, stripe_invoice_id=None).update(
            stripe_invoice_id=sent.object_id
        )


def _call_invoice(
    client: stripe.StripeClient, operation: StripeOperation, options: Any
) -> stripe.StripeObject:
    return client.v1.invoices.create(operation.parameters, options)


def _call_item(client: stripe.StripeClient, operation: StripeOperation, options: Any) -> stripe.StripeObject:
    return client.v1.invoice_items.create(operation.parameters, options)


def _call_finalize(
    client: stripe.StripeClient, operation: StripeOperation, options: Any
) -> stripe.StripeObject:
    return client.v1.invoices.finalize_invoice(
        operation.parameters["invoice"], {"auto_advance": False}, options
    )


def _find_invoice(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    wanted: Any = {
        "customer": operation.parameters["customer"],
        "created": created_around(operation),
        "limit": 100,
    }
    return first_of(client.v1.invoices.list(wanted), operation)


def _find_item(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    wanted: Any = {"invoice": operation.parameters["invoice"], "limit": 100}
    return first_of(client.v1.invoice_items.list(wanted), operation)


def _find_finalized(client: stripe.StripeClient, operation: StripeOperation) -> stripe.StripeObject | None:
    found = client.v1.invoices.retrieve(operation.parameters["invoice"])
    return None if found.status == "draft" else found


sending.CALLS[OperationKind.INVOICE] = _call_invoice
sending.CALLS[OperationKind.INVOICE_ITEM] = _call_item
sending.CALLS[OperationKind.FINALIZE_INVOICE] = _call_finalize
sending.FINISHERS[OperationKind.INVOICE] = _finish_invoice
sending.LOOKUPS[OperationKind.INVOICE] = _find_invoice
sending.LOOKUPS[OperationKind.INVOICE_ITEM] = _find_item
sending.LOOKUPS[OperationKind.FINALIZE_INVOICE] = _find_finalized
