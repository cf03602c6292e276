"""What tests of refunds and disputes do and look at: paid top-ups, spent credit, rows and books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.conf import settings

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT
from quotas import audit as audits
from quotas.admission import AdmissionRow
from quotas.ledger import operations as ledger
from quotas.models import Dispute, Refund, TopUp, TopUpState
from quotas.payments.fulfilment import apply_session
from quotas.payments.refunds import Ordered, order_refund
from quotas.payments.stripe_matching import LINES_SQL
from quotas.payments.tests.stripe_side import begin, session_of, top_up_of
from quotas.tests.doors import admitted, settle_one
from tenants.operations import audit
from tenants.scope import role_scope
from tenants.tests.people import make_user
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    settlement_row,
    void_row,
)

UNIT = NANOS_PER_UNIT
TOKENS_PER_UNIT = 1_000


@contextmanager
def taxed(standin: Standin, monkeypatch: Any, percent: float = 10.0) -> Iterator[None]:
    standin.control.settings(tax_percent=percent)
    monkeypatch.setitem(settings.TUNING, "SLUICE_PAYMENTS_TAX", 1)
    yield


def pay(standin: Standin, tenant: TenantFixture, units: int = 20, *, method: str = "card") -> TopUp:
    """A top-up that is paid at Stripe and credited."""
    top_up = begin(tenant, units)
    standin.control.complete_session(session_of(top_up), method=method)
    assert apply_session(session_id=session_of(top_up), now=utc_now()) == TopUpState.PAID
    return top_up_of(top_up.id)


def make_dear_model() -> ModelFixture:
    """A model of which a thousand tokens that go in cost a unit, and one that comes out next to nothing."""
    return make_model(prices={"input": UNIT // TOKENS_PER_UNIT * 10**6, "output": 10**6})


def spend(tenant: TenantFixture, model: ModelFixture, units: int) -> None:
    """Use up so much credit with one call."""
    row = _call(tenant, model, units)
    with connected("dataplane") as connection:
        admitted(connection, row)
        settle_one(connection, settlement_row(row, prompt_tokens=units * TOKENS_PER_UNIT))


@contextmanager
def held(tenant: TenantFixture, model: ModelFixture, units: int) -> Iterator[None]:
    """A call is under way that holds so much."""
    row = _call(tenant, model, units)
    with connected("dataplane") as connection:
        admitted(connection, row)
        yield
        settle_one(connection, void_row(row))


def _call(tenant: TenantFixture, model: ModelFixture, units: int) -> AdmissionRow:
    enable(tenant, model)
    with role_scope("operator"):
        # A hold covers what comes out as well, so all of a balance is spent with a credit line only.
        ledger.set_credit_line(tenant_id=tenant.id, overdraft_nanos=100)
    return admission_row(tenant, model, prompt_bound_tokens=units * TOKENS_PER_UNIT, output_cap_tokens=1)


def an_operator() -> audit.Actor:
    return audit.operator(make_user().id)


def refund(top_up: TopUp, units: float | None = None, *, actor: audit.Actor | None = None) -> Ordered:
    amount_nanos = None if units is None else round(units * UNIT)
    return order_refund(
        top_up_id=top_up.id,
        amount_nanos=amount_nanos,
        reason="for the test",
        actor=actor or an_operator(),
        now=utc_now(),
    )


def refunds_of(top_up: TopUp) -> list[Refund]:
    with role_scope("operator"):
        return list(Refund.objects.filter(top_up_id=top_up.id).order_by("id"))


def disputes_of(top_up: TopUp) -> list[Dispute]:
    with role_scope("operator"):
        return list(Dispute.objects.filter(top_up_id=top_up.id).order_by("id"))


def tax_of(tenant_id: UUID) -> int:
    """What the tenant's transfers left on the account of collected tax, in nano-units."""
    with connected("operator") as connection:
        row = connection.execute(
            "SELECT coalesce(sum(e.amount_nanos), 0)::bigint FROM quotas_ledgertransfer t"
            " JOIN quotas_ledgerentry e ON e.transfer_id = t.id"
            " JOIN quotas_ledgeraccount a ON a.id = e.account_id"
            " WHERE t.tenant_id = %s AND a.kind = 'TAX_PAYABLE'",
            (tenant_id,),
        ).fetchone()
    assert row is not None
    return int(row[0])


def state_of(tenant_id: UUID) -> tuple[str, str]:
    """Its state, and the cause of its suspension."""
    with connected("operator") as connection:
        row = connection.execute(
            "SELECT state, suspension_cause FROM tenants_tenant WHERE id = %s", (tenant_id,)
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def differing_lines(line_ids: list[str], tenant_id: UUID | None = None) -> list[Any]:
    """Of these balance transactions, and of a tenant's transfers, those without an equal counterpart."""
    with connected("operator") as connection:
        return connection.execute(
            f"SELECT kind, balance_transaction_id, stripe_nanos, ledger_nanos FROM ({LINES_SQL}) lines "
            "WHERE stripe_nanos IS DISTINCT FROM ledger_nanos AND (balance_transaction_id = ANY (%s) "
            "OR transfer_id IN (SELECT id FROM quotas_ledgertransfer WHERE tenant_id = %s))",
            (line_ids, tenant_id),
        ).fetchall()


def assert_audit_holds() -> None:
    violated = [result for result in audits.run() if not result.holds]
    assert not violated, violated
