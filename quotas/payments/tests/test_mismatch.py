"""What was paid must be what was asked for, by whom it was asked of; else nothing is credited."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import TopUp, TopUpState
from quotas.payments import landing, mismatch
from quotas.payments.client import stripe_client
from quotas.payments.customers import ensure_customer
from quotas.payments.fulfilment import TopUpNotFound, apply_intent, apply_session, apply_top_up
from quotas.payments.tests.stripe_side import PAGE, begin, operation_of, session_of, top_up_of
from tests.database import money_of
from tests.factories import TenantFixture, make_tenant


def foreign_session(standin: Standin, top_up: TopUp, customer_id: str, **changes: Any) -> str:
    """A session that somebody with our key made by hand, that names a top-up of ours, and is paid."""
    named = operation_of(top_up.id).parameters["metadata"]
    asked: dict[str, Any] = {
        "mode": "payment",
        "customer": customer_id,
        "client_reference_id": public_id(PREFIXES["top_up"], top_up.id),
        "line_items": [
            {
                "quantity": 1,
                "price_data": {"currency": "usd", "unit_amount": 100, "product_data": {"name": "Credit"}},
            }
        ],
        "success_url": PAGE,
        "metadata": named,
        **changes,
    }
    session = stripe_client().v1.checkout.sessions.create(asked)  # type: ignore[arg-type]
    standin.control.complete_session(session.id)
    return session.id


def test_a_cheaper_session_credits_nothing(standin: Standin) -> None:
    """It names a top-up of twenty and is paid with one."""
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    session = foreign_session(standin, top_up, ensure_customer(tenant_id=tenant.id, now=utc_now()))
    state = apply_session(session_id=session, now=utc_now())
    assert state == TopUpState.FAILED
    assert top_up_of(top_up.id).failure_code.startswith("mismatch_")
    assert money_of(tenant.id).paid == 0
    # The real one is credited all the same, once it is paid.
    standin.control.complete_session(session_of(top_up))
    assert apply_top_up(top_up_id=top_up.id, now=utc_now()) == TopUpState.PAID
    assert apply_session(session_id=session, now=utc_now()) == TopUpState.PAID
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT


def test_another_customers_payment_credits_nothing(standin: Standin) -> None:
    mine, theirs = make_tenant(granted=None), make_tenant(granted=None)
    top_up = begin(mine)
    session = foreign_session(standin, top_up, ensure_customer(tenant_id=theirs.id, now=utc_now()))
    assert apply_session(session_id=session, now=utc_now()) == TopUpState.FAILED
    assert top_up_of(top_up.id).failure_code == "mismatch_customer"
    assert (money_of(mine.id).paid, money_of(theirs.id).paid) == (0, 0)


def test_the_session_of_another_organization_changes_nothing(standin: Standin) -> None:
    """Whoever lands with it sees nothing of it; whoever it belongs to gets what they paid for."""
    mine, theirs = make_tenant(granted=None), make_tenant(granted=None)
    top_up = begin(theirs)
    standin.control.complete_session(session_of(top_up))
    with pytest.raises(TopUpNotFound):
        landing.look_up_top_up(tenant_id=mine.id, top_up_id=top_up.id, asks_stripe=True, now=utc_now())
    assert money_of(theirs.id).paid == 0
    apply_session(session_id=session_of(top_up), now=utc_now())
    assert (money_of(mine.id).paid, money_of(theirs.id).paid) == (0, 20 * NANOS_PER_UNIT)


def test_objects_that_name_nothing_of_ours_are_foreign(standin: Standin) -> None:
    customer = ensure_customer(tenant_id=make_tenant(granted=None).id, now=utc_now())
    intent = stripe_client().v1.payment_intents.create(
        {"amount": 100, "currency": "usd", "customer": customer, "metadata": {"top_up": "tup_nothing"}}
    )
    assert apply_intent(intent_id=intent.id, now=utc_now()) is None
    assert apply_intent(intent_id="pi_unknown", now=utc_now()) is None
    assert apply_session(session_id="cs_test_unknown", now=utc_now()) is None


@pytest.fixture(scope="module")
def opened(database: None, shared_standin: Standin) -> tuple[TenantFixture, TopUp, dict[str, Any], str]:
    """A top-up, the session that pays it, and its customer."""
    from quotas.payments.tests.stripe_side import configure

    with pytest.MonkeyPatch.context() as patched:
        configure(patched, shared_standin)
        tenant = make_tenant(granted=None)
        top_up = begin(tenant)
        shared_standin.control.complete_session(session_of(top_up))
        session = stripe_client().v1.checkout.sessions.retrieve(session_of(top_up)).to_dict()
    return tenant, top_up, session, session["customer"]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"livemode": True}, "livemode"),
        ({"livemode": None}, "livemode"),
        ({"customer": "cus_other"}, "customer"),
        ({"customer": None}, "customer"),
        ({"metadata": {}}, "top_up"),
        ({"metadata": None}, "top_up"),
        ({"currency": "cny"}, "currency"),
        ({"currency": None}, "currency"),
        ({"mode": "setup"}, "mode"),
        ({"client_reference_id": "tup_other"}, "reference"),
        ({"amount_subtotal": 1999}, "amount"),
        ({"amount_total": 1999}, "credit"),
        ({"amount_total": None}, "credit"),
        ({"total_details": {"amount_tax": 1}}, "credit"),
        ({"payment_status": "no_payment_required"}, "payment"),
        ({"id": "cs_other"}, "session"),
    ],
)
def test_everything_of_a_session_must_agree(
    standin: Standin,
    opened: tuple[TenantFixture, TopUp, dict[str, Any], str],
    changes: dict[str, Any],
    wrong: str,
) -> None:
    _, top_up, session, customer = opened
    assert mismatch.of_session(top_up, {**session, **changes}, customer) == wrong


def test_without_a_customer_of_ours_nothing_agrees(
    standin: Standin, opened: tuple[TenantFixture, TopUp, dict[str, Any], str]
) -> None:
    _, top_up, session, _ = opened
    assert mismatch.of_session(top_up, {**session, "customer": None}, None) == "customer"


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"amount": 1999}, "amount"),
        ({"amount_received": 0}, "amount"),
        ({"status": "processing", "amount_received": 0}, ""),
        ({"currency": "jpy"}, "currency"),
        ({"id": "pi_other"}, "intent"),
    ],
)
def test_everything_of_an_intent_must_agree(
    standin: Standin,
    opened: tuple[TenantFixture, TopUp, dict[str, Any], str],
    changes: dict[str, Any],
    wrong: str,
) -> None:
    _, top_up, session, customer = opened
    intent = stripe_client().v1.payment_intents.retrieve(session["payment_intent"]).to_dict()
    known = TopUp(
        id=top_up.id,
        tenant_id=top_up.tenant_id,
        currency=top_up.currency,
        amount_nanos=top_up.amount_nanos,
        payment_intent_id=intent["id"],
    )
    assert mismatch.of_intent(known, {**intent, **changes}, customer) == wrong
