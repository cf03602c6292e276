"""What tests of payments do at Stripe's side, and what they look at on ours."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import stripe
from django.conf import settings

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import StripeOperation, TopUp
from quotas.payments import checkout
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import TenantFixture

PAGE = "http://127.0.0.1/back/{top_up}"


def configure(monkeypatch: pytest.MonkeyPatch, standin: Standin) -> None:
    """Make a stand-in the Stripe of this process."""
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", standin.secret_key)
    monkeypatch.setattr(settings, "STRIPE_WEBHOOK_SECRETS", (standin.webhook_secret,))
    monkeypatch.setattr(settings, "STRIPE_API_BASE", standin.url)
    monkeypatch.setattr(settings, "STRIPE_ACCOUNT", "")


def begin(
    tenant: TenantFixture, units: int = 20, *, keeps_method: bool = False, now: datetime | None = None
) -> TopUp:
    """A top-up that waits to be paid."""
    started = checkout.start_top_up(
        tenant_id=tenant.id,
        user_id=None,
        amount_nanos=units * NANOS_PER_UNIT,
        keeps_method=keeps_method,
        success_url=PAGE,
        cancel_url=PAGE,
        now=now or utc_now(),
    )
    assert started.pay_url.startswith("http")
    return top_up_of(started.top_up_id)


def top_up_of(top_up_id: UUID) -> TopUp:
    with role_scope("operator"):
        return TopUp.objects.get(id=top_up_id)


def session_of(top_up: TopUp) -> str:
    assert top_up.session_id is not None
    return top_up.session_id


def operation_of(subject_id: UUID, kind: str = "CHECKOUT") -> StripeOperation:
    with role_scope("operator"):
        return StripeOperation.objects.get(subject_id=subject_id, kind=kind)


def credits_of(tenant_id: UUID) -> list[tuple[str, int]]:
    """Every transfer of an organization by kind, with what it changed of paid credit and debt together."""
    with connected("operator") as connection:
        return connection.execute(
            "SELECT t.kind, sum(e.amount_nanos)::bigint FROM quotas_ledgertransfer t"
            " JOIN quotas_ledgerentry e ON e.transfer_id = t.id"
            " JOIN quotas_ledgeraccount a ON a.id = e.account_id"
            " WHERE a.tenant_id = %s AND a.kind IN ('TOPPED_UP', 'RECEIVABLE')"
            " GROUP BY t.id, t.kind ORDER BY 2",
            (tenant_id,),
        ).fetchall()


def signed(event: dict[str, Any], secret: str, *, at: datetime | None = None) -> tuple[bytes, str]:
    """The body of an event and the header that a secret signs it with."""
    body = json.dumps(event)
    moment_s = int((at or utc_now()).timestamp())
    return body.encode(), stripe.WebhookSignature.generate_signature_header(body, secret, moment_s)


def event_about(object_id: str, kind: str = "checkout.session.completed", **changes: Any) -> dict[str, Any]:
    """An event of a form as Stripe's have; `changes` replace what stands in it."""
    return {
        "id": f"evt_{uuid7().hex}",
        "object": "event",
        "api_version": stripe.api_version,
        "created": int(utc_now().timestamp()),
        "livemode": False,
        "type": kind,
        "data": {"object": {"id": object_id, "object": "checkout.session"}},
        **changes,
    }


def stripe_tables() -> dict[str, list[Any]]:
    """Everything that a forged event could change, money included."""
    tables = ("quotas_stripeevent", "quotas_topup", "quotas_stripeoperation", "quotas_ledgertransfer")
    with connected("owner") as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in tables
        }
