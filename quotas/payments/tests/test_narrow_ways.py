"""What can only go wrong between two statements, or by a role that asks for more than it may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
import stripe
from django.db import connections, transaction
from psycopg.types.json import Jsonb

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import NANOS_PER_UNIT as UNIT
from quotas.models import EventSource, EventState, OperationKind, OperationState, RefundState, StripeEvent
from quotas.payments import inbox, polling, refunds, sending
from quotas.payments.customers import ensure_customer
from quotas.payments.handlers import find_handler
from quotas.payments.tests.moneyback_side import assert_audit_holds, pay, refund, refunds_of
from quotas.payments.tests.stripe_side import begin, event_about, operation_of
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import connected, money_of
from tests.factories import TenantFixture, make_tenant


def test_whoever_asks_for_the_same_does_not_wait_for_its_end(standin: Standin) -> None:
    """Its end locks it and then what it is for: whoever has locked that must wait for no operation."""
    top_up = begin(make_tenant(granted=None))
    ensure_customer(tenant_id=top_up.tenant_id, now=utc_now())
    with role_scope("operator"), transaction.atomic(using="operator"):
        operation_id = sending.commit_operation(
            tenant_id=top_up.tenant_id,
            kind=OperationKind.EXPIRE_CHECKOUT,
            subject_id=top_up.id,
            parameters={"session": top_up.session_id},
        )
    with connected("operator", autocommit=False) as ending:
        ending.execute(
            "UPDATE quotas_stripeoperation SET state = 'DONE', object_id = 'x', finished_at = now() "
            "WHERE id = %s",
            (operation_id,),
        )
        with role_scope("operator"), transaction.atomic(using="operator"):
            with connections["operator"].cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '300ms'")
            again = sending.commit_operation(
                tenant_id=top_up.tenant_id,
                kind=OperationKind.EXPIRE_CHECKOUT,
                subject_id=top_up.id,
                parameters={"session": top_up.session_id},
            )
    assert again == operation_id


def test_a_refund_that_is_given_up_while_it_is_heard_of(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe has it; it was found to be ours, and credited again before it could be locked."""
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.fault("answer_lost", match="POST /v1/refunds")
    ordered = refund(top_up, 8)
    operation = operation_of(ordered.refund_id, "REFUND")
    know = refunds._known

    def give_up_after(found: dict[str, Any]) -> Any:
        known = know(found)
        monkeypatch.setattr(refunds, "_known", know)
        with monkeypatch.context() as blind:
            blind.setitem(sending.LOOKUPS, OperationKind.REFUND, lambda *_: None)
            sent = sending.send(operation_id=operation.id, now=utc_now() + timedelta(hours=24))
        assert sent.state == OperationState.ABANDONED
        return known

    monkeypatch.setattr(refunds, "_known", give_up_after)
    refunds.apply_charge_refunds(charge_id=top_up.charge_id, now=utc_now())
    first, second = refunds_of(top_up)
    assert (first.state, first.refund_id, second.state) == (RefundState.FAILED, None, RefundState.SUCCEEDED)
    assert money_of(tenant.id).paid == 12 * UNIT
    refunds.apply_charge_refunds(charge_id=top_up.charge_id, now=utc_now())
    assert money_of(tenant.id).paid == 12 * UNIT
    assert_audit_holds()


def test_what_was_sent_late_and_just_now_is_not_given_up(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sent it for a day; then it was, and may be under way while another one looks for it."""
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.fault("error_before", match="POST /v1/refunds")
    ordered = refund(top_up, 8)
    operation = operation_of(ordered.refund_id, "REFUND")
    late = utc_now() + timedelta(hours=24)
    with connected("operator") as connection:
        connection.execute(
            "UPDATE quotas_stripeoperation SET sent_at = %s WHERE id = %s",
            (late - timedelta(seconds=20), operation.id),
        )
    assert sending.send(operation_id=operation.id, now=late).state == OperationState.PENDING
    assert money_of(tenant.id).paid == 12 * UNIT
    later = late + timedelta(minutes=20)
    assert sending.send(operation_id=operation.id, now=later).state == OperationState.ABANDONED
    assert money_of(tenant.id).paid == 20 * UNIT


def test_too_many_requests_decide_nothing(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    """However Stripe says it: 400 with a code of its own is one of its ways."""
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)

    def refuse(*_: Any) -> Any:
        raise stripe.RateLimitError("slow down", http_status=400, code="rate_limit")

    monkeypatch.setitem(sending.CALLS, OperationKind.REFUND, refuse)
    assert refund(top_up, 8).state == RefundState.PENDING


def _stored(standin: Standin, event: dict[str, Any]) -> str:
    with role_scope("operator"):
        inbox.store_event(event=event, source=EventSource.WEBHOOK, now=utc_now())
    return str(event["id"])


def _event(event_id: str) -> StripeEvent:
    with role_scope("operator"):
        return StripeEvent.objects.get(id=event_id)


def test_a_replay_that_is_asked_for_meanwhile_is_not_lost(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = _stored(standin, event_about("cs_none"))

    def replay(**_: Any) -> bool:
        with role_scope("operator"):
            inbox.replay_event(event_id=event_id, actor=audit.SYSTEM, reason="once more", now=utc_now())
        return True

    monkeypatch.setattr(inbox, "find_handler", lambda _: replay)
    inbox.process_event(event_id=event_id, now=utc_now())
    assert _event(event_id).state == EventState.RECEIVED
    monkeypatch.setattr(inbox, "find_handler", find_handler)
    assert inbox.process_event(event_id=event_id, now=utc_now()) == EventState.IGNORED


def test_an_event_about_nothing_that_has_an_id_is_ignored(standin: Standin) -> None:
    """Such as an invoice that is yet to come."""
    event_id = _stored(standin, event_about("", "invoice.upcoming", data={"object": {"object": "invoice"}}))
    assert inbox.process_event(event_id=event_id, now=utc_now()) == EventState.IGNORED


def test_a_run_ends_in_time(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is due for the next run."""
    now = utc_now()
    for _ in range(3):
        _stored(standin, event_about("cs_none"))
    monkeypatch.setattr(inbox, "RUN_BUDGET_S", -1.0)
    assert inbox.process_due_events(now=now + timedelta(minutes=1), limit=3).done == 1
    monkeypatch.setattr(polling, "BUDGET_S", -1.0)
    assert polling.poll_open_top_ups(now=now + timedelta(days=1), limit=1) <= 1


OWN, OTHERS = "own", "others"


@pytest.mark.parametrize(
    ("kind", "parameters", "changes"),
    [
        ("REFUND", {"charge": "ch_x", "amount": 1}, {}),
        ("RECHARGE", {"customer": OWN, "amount": 1}, {}),
        ("INVOICE", {"customer": OWN}, {}),
        ("CHECKOUT", {"customer": OTHERS}, {}),
        ("SETUP", {"customer": OTHERS}, {}),
        ("SETUP", {}, {}),
        ("EXPIRE_CHECKOUT", {"session": OTHERS}, {}),
        ("CANCEL_INTENT", {"intent": OTHERS}, {}),
        ("CHECKOUT", {"customer": OWN}, {"state": "DONE", "object_id": "cs_x", "finished_at": utc_now()}),
    ],
)
def test_a_tenants_role_asks_only_for_what_is_its_own(
    standin: Standin, kind: str, parameters: dict[str, Any], changes: dict[str, Any]
) -> None:
    tenant, other = make_tenant(granted=None), make_tenant(granted=None)
    own, others = begin(tenant), begin(other)
    known: dict[str, dict[Any, Any]] = {
        "customer": {one.id: ensure_customer(tenant_id=one.id, now=utc_now()) for one in (tenant, other)},
        "session": {other.id: others.session_id},
        "intent": {other.id: "pi_of_others"},
    }
    whose = {OWN: tenant.id, OTHERS: other.id}
    filled = {name: known[name][whose[v]] if v in whose else v for name, v in parameters.items()}
    subject_id = own.id if kind in ("EXPIRE_CHECKOUT", "CANCEL_INTENT") else uuid7()
    row = {
        "id": uuid7(),
        "tenant_id": tenant.id,
        "kind": kind,
        "subject_id": subject_id,
        "parameters": Jsonb(filled),
        "state": "PENDING",
        "object_id": "",
        "finished_at": None,
        **changes,
    }
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        _insert(tenant, "quotas_stripeoperation", row | {"error_code": "", "error_text": "", "attempts": 0})


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "RECHARGE"},
        {"source": "BANK"},
        {"session_id": "cs_of_others"},
        {"payment_intent_id": "pi_of_others"},
        {"charge_id": "ch_of_others"},
    ],
)
def test_a_tenants_role_starts_top_ups_on_stripes_page_only(database: None, changes: dict[str, Any]) -> None:
    tenant = make_tenant(granted=None)
    row = {
        "id": uuid7(),
        "tenant_id": tenant.id,
        "currency": "USD",
        "source": "CHECKOUT",
        "amount_nanos": UNIT,
        "state": "OPEN",
        **dict.fromkeys(("charge_id", "method", "pay_url", "receipt_url", "invoice_url", "failure_code"), ""),
        **changes,
    }
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        _insert(tenant, "quotas_topup", row)


def _insert(tenant: TenantFixture, table: str, row: dict[str, Any]) -> None:
    columns, places = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    with tenant_scope(tenant.id), connected("tenant") as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
        connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", row)
