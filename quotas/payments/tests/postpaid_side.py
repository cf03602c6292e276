"""What tests of monthly invoices do and look at: who pays afterwards, calls, the moved clock."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest
import stripe
from django.conf import settings

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from quotas import audit as audits
from quotas.admission import AdmissionRow
from quotas.business.allocation import split
from quotas.credit import operations as credit
from quotas.credit.policy import CreditPolicy
from quotas.metering.queries import request_receipt
from quotas.models import CreditOrderKind, MonthlyInvoice, MonthlyInvoiceLine, MonthlyLineKind, Wallet
from quotas.payments.handlers import find_handler
from quotas.payments.postpaid.agreements import agree
from tenants.operations import audit
from tenants.scope import role_scope
from tenants.tests.people import make_user
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_tenant, silence_feeds

UNIT = 10**9
DAY = timedelta(days=1)
# So dear that a call comes to cents, and so odd that hardly anything adds up to whole ones.
PRICES = {
    "input": 723_456_789_123,
    "cached_input": 12_345_678_917,
    "output": 787_654_321_013,
    "reasoning": 934_567_891_231,
    "request": 7_777_777_777,
}


def dear_model(**fields: Any) -> ModelFixture:
    return make_model(prices=PRICES, **fields)


def operator() -> audit.Actor:
    return audit.operator(make_user().id)


def make_postpaid(
    *models: ModelFixture, line_units: int = 500, granted: str | None = None, paid: str | None = None
) -> TenantFixture:
    """An organization with a credit line that is invoiced monthly, and uses these models. No feed of another
    test holds its invoices up."""
    silence_feeds()
    tenant = make_tenant(granted=granted, paid=paid)
    for model in models:
        enable(tenant, model)
    give_line(tenant.id, line_units)
    with role_scope("operator"):
        agree(tenant_id=tenant.id, days_until_due=30, reason="for the test", actor=operator(), now=utc_now())
    return tenant


def give_line(tenant_id: UUID, units: int) -> None:
    with role_scope("operator"):
        credit.order_credit(
            tenant_id=tenant_id,
            kind=CreditOrderKind.CREDIT_LINE,
            amount_nanos=units * UNIT,
            reason="for the test",
            actor=operator(),
            policy=CreditPolicy.of_units(limit_units=1000, line_limit_units=10_000),
            now=utc_now(),
        )


def no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is posted counts at once: no other transaction is open in a test."""
    monkeypatch.setitem(settings.TUNING, "SLUICE_INVOICE_LAG_S", 0)


def month_end(months: int = 1) -> datetime:
    """The end of the month that the tests run in, or of one of the following."""
    day = utc_now().date().replace(day=1)
    for _ in range(months):
        day = (day + 32 * DAY).replace(day=1)
    return datetime.combine(day, time(), tzinfo=UTC)


def after_month(months: int = 1) -> datetime:
    """When the month is over, and the grace, too."""
    return month_end(months) + timedelta(hours=2)


def invoices_of(tenant_id: UUID) -> list[MonthlyInvoice]:
    with role_scope("operator"):
        return list(MonthlyInvoice.objects.filter(tenant_id=tenant_id).order_by("month"))


def lines_of(invoice: MonthlyInvoice) -> list[MonthlyInvoiceLine]:
    with role_scope("operator"):
        return list(MonthlyInvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position"))


def usage_of(invoice: MonthlyInvoice) -> dict[tuple[UUID, str], tuple[int, int]]:
    """Units and amount of its lines of usage, by model and class."""
    return {
        (line.model_id, line.token_class): (line.units, line.amount_nanos)
        for line in lines_of(invoice)
        if line.kind == MonthlyLineKind.USAGE and line.model_id is not None
    }


def used_by(calls: list[AdmissionRow]) -> dict[tuple[UUID, str], tuple[int, int]]:
    """The same from the usage rows: each call's newest revision, recomputed from its receipt."""
    units: Counter[tuple[UUID, str]] = Counter()
    nanos: Counter[tuple[UUID, str]] = Counter()
    for call in calls:
        with role_scope("operator"):
            receipt = request_receipt(tenant_id=call.tenant_id, request_id=call.request_id)
        if not receipt.revisions:
            continue
        newest = receipt.revisions[-1]
        billed = [line for line in newest.lines if line.is_billed]
        weights = [line.amount_nanos for line in billed]
        paid_nanos = newest.charged_nanos - newest.granted_nanos
        parts = split(paid_nanos, weights) if any(weights) else [0] * len(weights)
        for line, part in zip(billed, parts, strict=True):
            units[call.model_id, line.token_class] += line.units
            nanos[call.model_id, line.token_class] += part
    return {key: (units[key], nanos[key]) for key in units if units[key] or nanos[key]}


def wallet_of(tenant_id: UUID) -> Wallet:
    with role_scope("operator"):
        return Wallet.objects.get(tenant_id=tenant_id)


def broken_invariants() -> dict[str, list[str]]:
    return {result.code: result.examples for result in audits.run() if not result.holds}


def client_of(standin: Standin) -> stripe.StripeClient:
    return stripe.StripeClient(standin.secret_key, base_addresses={"api": standin.url}, max_network_retries=0)


def tell(standin: Standin, *, now: datetime, kind: str = "") -> int:
    """What happened at Stripe is handled, the oldest first, as the worker does; how many events were ours."""
    events = [
        event.to_dict() for event in client_of(standin).v1.events.list({"limit": 100}).auto_paging_iter()
    ]
    ours = 0
    for event in reversed(events):
        handler = find_handler(event["type"])
        if handler is not None and event["type"].startswith(kind):
            ours += handler(object_id=event["data"]["object"]["id"], now=now)
    return ours


def move_clock(standin: Standin, to: datetime) -> None:
    """The account's clock at Stripe shows this time, if it is not further already."""
    standin.control.post("clock", by_s=max(0.0, to.timestamp() - standin.control.get("clock")["now"]))


def pay(standin: Standin, invoice: MonthlyInvoice, behaviour: str = "pays") -> bool:
    """Somebody pays on the page of the invoice; whether the card was accepted."""
    assert invoice.stripe_invoice_id is not None
    client = client_of(standin)
    customer = client.v1.invoices.retrieve(invoice.stripe_invoice_id).customer
    card = standin.control.save_card(customer=customer, behaviour=behaviour)["id"]
    try:
        client.v1.invoices.pay(invoice.stripe_invoice_id, {"payment_method": card})
    except stripe.CardError:
        return False
    return True
