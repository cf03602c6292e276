"""Which top-ups can be started, and what is asked of Stripe for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import NANOS_PER_UNIT, parse_amount
from quotas.models import TopUpState
from quotas.payments.checkout import (
    AmountNotOffered,
    OrganizationClosed,
    TooManyOpenTopUps,
    cancel_top_up,
    start_top_up,
)
from quotas.payments.client import PaymentsNotConfigured
from quotas.payments.customer_portal import open_customer_portal
from quotas.payments.fulfilment import apply_top_up
from quotas.payments.policy import PaymentPolicy, parse_offer, payment_policy
from quotas.payments.tests.stripe_side import begin, operation_of, session_of, top_up_of
from tenants.models import Role, TenantState
from tenants.operations import audit
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant, set_state
from tests.factories_bank import payer


def start(tenant: TenantFixture, amount_nanos: int) -> None:
    start_top_up(
        tenant_id=tenant.id,
        user_id=None,
        amount_nanos=amount_nanos,
        keeps_method=False,
        success_url="http://127.0.0.1/yes",
        cancel_url="http://127.0.0.1/no",
        now=utc_now(),
    )


@pytest.mark.parametrize("amount", ["0", "-5", "4.99", "20.001", "10000.01", "0.000000001"])
def test_other_amounts_are_not_offered(standin: Standin, amount: str) -> None:
    tenant = make_tenant(granted=None)
    with pytest.raises(AmountNotOffered):
        start(tenant, parse_amount(amount))
    assert rows_of("quotas_topup", tenant_id=tenant.id) == []


def test_offers_by_currency() -> None:
    offered = parse_offer(("20", "10", "CNY:100", "CNY:50.50"))
    policy = PaymentPolicy(offered=offered, is_free=False)
    assert policy.amounts("USD") == (10 * NANOS_PER_UNIT, 20 * NANOS_PER_UNIT)
    assert policy.amounts("CNY") == (50_500_000_000, 100 * NANOS_PER_UNIT)
    assert policy.offers(20 * NANOS_PER_UNIT, "USD")
    assert not policy.offers(20 * NANOS_PER_UNIT, "CNY")
    assert not policy.offers(21 * NANOS_PER_UNIT, "USD")
    assert not policy.offers(20 * NANOS_PER_UNIT, "XXX")
    assert PaymentPolicy().offers(5 * NANOS_PER_UNIT, "USD")
    assert payment_policy().amounts("CNY")


@pytest.mark.parametrize("entry", ["x", "0", "-1", "USD:0.001", "XXX:5", ":", "JPY:1.5"])
def test_a_list_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="SLUICE_TOP_UP_AMOUNTS"):
        parse_offer((entry,))


def test_without_a_key_nothing_is_sold(database: None) -> None:
    tenant = make_tenant(granted=None)
    with pytest.raises(PaymentsNotConfigured):
        start(tenant, 20 * NANOS_PER_UNIT)
    assert rows_of("quotas_topup", tenant_id=tenant.id) == []


def test_a_closed_organization_buys_nothing(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    set_state(tenant.id, TenantState.CLOSED)
    with pytest.raises(OrganizationClosed):
        start(tenant, 20 * NANOS_PER_UNIT)
    set_state(tenant.id, TenantState.SUSPENDED)
    start(tenant, 20 * NANOS_PER_UNIT)


def test_what_is_asked_of_stripe(standin: Standin) -> None:
    tenant = make_tenant("CNY", granted=None)
    top_up = begin(tenant, 100, keeps_method=True)
    public = public_id(PREFIXES["top_up"], top_up.id)
    asked: dict[str, Any] = operation_of(top_up.id).parameters
    assert asked["client_reference_id"] == public
    assert asked["line_items"][0]["price_data"]["unit_amount"] == 10_000
    assert asked["line_items"][0]["price_data"]["currency"] == "cny"
    assert asked["success_url"].endswith(f"/{public}")
    assert asked["payment_intent_data"] == {"setup_future_usage": "off_session"}
    assert "payment_method_types" not in asked
    assert asked["metadata"] == {
        "tenant": tenant.public_id,
        "top_up": public,
        "operation": str(operation_of(top_up.id).id),
        "installation": settings.PORTAL_URL,
    }
    (audited,) = rows_of("tenants_auditevent", tenant_id=tenant.id, action="top_up.start")
    assert audited["target"] == public


def test_open_top_ups_are_few(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_OPEN_TOP_UPS", 2)
    tenant = make_tenant(granted=None)
    first, second = begin(tenant), begin(tenant)
    with pytest.raises(TooManyOpenTopUps):
        begin(tenant)
    assert (
        cancel_top_up(tenant_id=tenant.id, top_up_id=first.id, actor=audit.SYSTEM, now=utc_now())
        == TopUpState.EXPIRED
    )
    third = begin(tenant)
    # What is paid, and only takes its time, keeps nobody from paying.
    standin.control.complete_session(session_of(second), method="us_bank_account")
    assert apply_top_up(top_up_id=second.id, now=utc_now()) == TopUpState.PROCESSING
    assert begin(tenant).id != third.id


def test_giving_up_stands_in_the_audit_log(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up, person_id = begin(tenant), payer(tenant).id
    actor = audit.member(person_id, Role.BILLING)
    for _ in range(2):
        cancel_top_up(tenant_id=tenant.id, top_up_id=top_up.id, actor=actor, now=utc_now())
    (audited,) = rows_of("tenants_auditevent", tenant_id=tenant.id, action="top_up.cancel")
    assert audited["target"] == public_id(PREFIXES["top_up"], top_up.id)
    assert (audited["actor_id"], audited["actor_role"]) == (person_id, "BILLING")


def test_who_opens_the_customer_portal_stands_in_the_audit_log(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    actor = audit.member(payer(tenant).id, Role.BILLING)
    open_customer_portal(
        tenant_id=tenant.id, return_url="https://portal.example/", actor=actor, now=utc_now()
    )
    (audited,) = rows_of("tenants_auditevent", tenant_id=tenant.id, action="billing.portal")
    assert audited["actor_id"] == actor.user_id


def test_giving_up_what_was_paid_meanwhile_credits_it(standin: Standin) -> None:
    tenant, other = make_tenant(granted=None), make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    assert cancel_top_up(tenant_id=other.id, top_up_id=top_up.id, actor=audit.SYSTEM, now=utc_now()) is None
    assert (
        cancel_top_up(tenant_id=tenant.id, top_up_id=top_up.id, actor=audit.SYSTEM, now=utc_now())
        == TopUpState.PAID
    )
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
    later = utc_now() + timedelta(minutes=1)
    assert (
        cancel_top_up(tenant_id=tenant.id, top_up_id=top_up.id, actor=audit.SYSTEM, now=later)
        == TopUpState.PAID
    )
    assert top_up_of(top_up.id).pay_url == ""
