"""What is asked of Stripe is asked once, whatever becomes of the answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.conf import settings
from django.db import connections, transaction

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from quotas.models import OperationKind, OperationState, StripeCustomer, TopUpState
from quotas.payments import sending
from quotas.payments.customers import ensure_customer
from quotas.payments.fulfilment import apply_top_up
from quotas.payments.sending import StripeRefused, StripeUnavailable, TransactionOpen
from quotas.payments.tests.stripe_side import begin, operation_of, session_of, top_up_of
from tenants.scope import role_scope
from tests.database import connected, money_of, rows_of
from tests.factories import TenantFixture, make_tenant

CREATE_SESSION = "POST /v1/checkout/sessions"


def begin_in_vain(tenant: TenantFixture) -> UUID:
    """A top-up whose page could not be opened; its id."""
    with pytest.raises(StripeUnavailable):
        begin(tenant)
    (row,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert row["state"] == "OPEN"
    assert row["session_id"] is None
    found: UUID = row["id"]
    return found


def sessions_of(standin: Standin, top_up_id: UUID) -> list[dict[str, Any]]:
    named = str(operation_of(top_up_id).id)
    sessions = standin.control.books()["sessions"]
    return [one for one in sessions if (one.get("metadata") or {}).get("operation") == named]


def sweep(after: timedelta = timedelta(minutes=5)) -> None:
    sending.sweep_operations(now=utc_now() + after)


def test_nothing_is_sent_inside_a_transaction(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    for alias in ("operator", "tenant"):
        with transaction.atomic(using=alias), pytest.raises(TransactionOpen):
            begin(tenant)
    assert rows_of("quotas_stripeoperation", tenant_id=tenant.id) == []


def test_an_operation_is_committed_with_what_it_is_for(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    with role_scope("operator"), pytest.raises(ValueError, match="committed with"):
        sending.commit_operation(
            tenant_id=tenant.id, kind=OperationKind.CUSTOMER, subject_id=None, parameters={}
        )


@pytest.mark.parametrize("fault", ["error_before", "rate_limit", "answer_lost"])
def test_the_sweeper_asks_again_with_the_same_key(standin: Standin, fault: str) -> None:
    tenant = make_tenant(granted=None)
    ensure_customer(tenant_id=tenant.id, now=utc_now())
    standin.control.fault(fault, match=CREATE_SESSION)
    top_up_id = begin_in_vain(tenant)
    assert operation_of(top_up_id).state == OperationState.PENDING
    sending.sweep_operations(now=utc_now())
    assert operation_of(top_up_id).attempts == 1, "it was somebody else's turn"
    sweep()
    operation = operation_of(top_up_id)
    assert (operation.state, operation.attempts) == (OperationState.DONE, 2)
    assert top_up_of(top_up_id).session_id == operation.object_id
    assert len(sessions_of(standin, top_up_id)) == 1


@pytest.mark.parametrize("was_made", [True, False])
def test_an_error_that_the_key_repeats_is_looked_up(standin: Standin, was_made: bool) -> None:
    tenant = make_tenant(granted=None)
    ensure_customer(tenant_id=tenant.id, now=utc_now())
    standin.control.fault("error_after" if was_made else "error_stored", match=CREATE_SESSION)
    top_up_id = begin_in_vain(tenant)
    sweep(timedelta(minutes=1))
    if not was_made:
        assert operation_of(top_up_id).state == OperationState.PENDING
        sweep(timedelta(minutes=20))
    operation = operation_of(top_up_id)
    assert operation.state == (OperationState.DONE if was_made else OperationState.ABANDONED)
    assert len(sessions_of(standin, top_up_id)) == was_made
    top_up = top_up_of(top_up_id)
    assert top_up.state == (TopUpState.OPEN if was_made else TopUpState.FAILED)
    if was_made:
        standin.control.complete_session(session_of(top_up))
        assert apply_top_up(top_up_id=top_up_id, now=utc_now()) == TopUpState.PAID


@pytest.mark.parametrize("was_made", [True, False])
def test_an_old_key_is_not_used_again(standin: Standin, was_made: bool) -> None:
    tenant = make_tenant(granted=None)
    ensure_customer(tenant_id=tenant.id, now=utc_now())
    standin.control.fault("answer_lost" if was_made else "error_before", match=CREATE_SESSION)
    top_up_id = begin_in_vain(tenant)
    sweep(timedelta(hours=23))
    assert operation_of(top_up_id).state == (OperationState.DONE if was_made else OperationState.ABANDONED)
    assert len(sessions_of(standin, top_up_id)) == was_made
    if not was_made:
        assert top_up_of(top_up_id).failure_code == "abandoned"


def test_what_stripe_refuses_is_over(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant(granted=None)
    # Shorter than Stripe lets a page live.
    monkeypatch.setitem(settings.TUNING, "SLUICE_CHECKOUT_S", 60)
    with pytest.raises(StripeRefused):
        begin(tenant)
    (row,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert (row["state"], row["failure_code"]) == ("FAILED", operation_of(row["id"]).error_code)
    assert operation_of(row["id"]).state == OperationState.REFUSED
    sent = sending.send(operation_id=operation_of(row["id"]).id, now=utc_now())
    assert sent.state == OperationState.REFUSED


def test_a_key_without_the_right_scope_decides_nothing(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = make_tenant(granted=None)
    ensure_customer(tenant_id=tenant.id, now=utc_now())
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", standin.restricted_key("customer_write"))
    top_up_id = begin_in_vain(tenant)
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", standin.secret_key)
    sweep()
    assert operation_of(top_up_id).state == OperationState.DONE


def test_many_that_send_one_operation_make_one_session(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    ensure_customer(tenant_id=tenant.id, now=utc_now())
    standin.control.fault("error_before", match=CREATE_SESSION)
    top_up_id = begin_in_vain(tenant)
    operation_id = operation_of(top_up_id).id

    def send(_: int) -> str:
        try:
            return str(sending.send(operation_id=operation_id, now=utc_now()).state)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(send, range(16)))
    assert "DONE" in states
    assert set(states) <= {"DONE", "PENDING"}
    assert len(sessions_of(standin, top_up_id)) == 1
    assert top_up_of(top_up_id).session_id == operation_of(top_up_id).object_id


def test_first_payments_at_once_make_one_customer(standin: Standin) -> None:
    tenant = make_tenant(granted=None)

    def ensure(_: int) -> str:
        try:
            return ensure_customer(tenant_id=tenant.id, now=utc_now())
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ensure, range(8)))
    assert len(found) == 1
    with role_scope("operator"):
        assert StripeCustomer.objects.get(tenant_id=tenant.id).customer_id in found
    assert len(rows_of("quotas_stripeoperation", tenant_id=tenant.id, kind="CUSTOMER")) == 1


def test_a_finisher_that_fails_ends_nothing(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant(granted=None)
    ensure_customer(tenant_id=tenant.id, now=utc_now())

    def fail(**_: Any) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as patched:
        patched.setitem(sending.FINISHERS, OperationKind.CHECKOUT, fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            begin(tenant)
    (row,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert operation_of(row["id"]).state == OperationState.PENDING
    sweep()
    assert operation_of(row["id"]).state == OperationState.DONE
    assert len(sessions_of(standin, row["id"])) == 1


def test_one_that_cannot_be_finished_stops_nobody(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older of two raises each time; the younger is sent all the same."""
    broken, fine = make_tenant(granted=None), make_tenant(granted=None)
    ids = []
    for tenant in (broken, fine):
        ensure_customer(tenant_id=tenant.id, now=utc_now())
        standin.control.fault("error_before", match=CREATE_SESSION)
        ids.append(begin_in_vain(tenant))
    finish = sending.FINISHERS[OperationKind.CHECKOUT]

    def fail_for_broken(**given: Any) -> None:
        if given["operation"].tenant_id == broken.id:
            raise RuntimeError("on purpose")
        finish(**given)

    with monkeypatch.context() as patched:
        patched.setitem(sending.FINISHERS, OperationKind.CHECKOUT, fail_for_broken)
        sweep()
    assert [operation_of(one).state for one in ids] == [OperationState.PENDING, OperationState.DONE]
    sweep(timedelta(minutes=10))
    assert operation_of(ids[0]).state == OperationState.DONE


def test_the_database_lets_an_operation_end_once(standin: Standin) -> None:
    top_up = begin(make_tenant(granted=None))
    operation = operation_of(top_up.id)
    for change in ("state = 'REFUSED', error_text = 'x'", "parameters = '{}'", "object_id = 'cs_other'"):
        with (
            connected("operator") as connection,
            pytest.raises(psycopg.errors.IntegrityError),
        ):
            connection.execute(
                f"UPDATE quotas_stripeoperation SET {change} WHERE id = %s",
                (operation.id,),
            )


def test_an_operation_for_the_same_is_the_same(standin: Standin) -> None:
    top_up = begin(make_tenant(granted=None))
    with role_scope("operator"), transaction.atomic(using="operator"):
        again = sending.commit_operation(
            tenant_id=top_up.tenant_id,
            kind=OperationKind.CHECKOUT,
            subject_id=top_up.id,
            parameters={"anything": "else"},
        )
    assert again == operation_of(top_up.id).id
    assert money_of(top_up.tenant_id).paid == 0
