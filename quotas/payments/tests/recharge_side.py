"""Organizations that recharge by themselves, for tests: with a card at the stand-in."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import parse_amount
from quotas.models import AutoRecharge, RechargeState, TopUp, TopUpSource
from quotas.payments import recharge
from quotas.payments.client import stripe_client
from quotas.payments.customers import ensure_customer
from quotas.payments.fulfilment import describe_method
from tenants.models import Role
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import TenantFixture, make_tenant
from tests.factories_payments import make_recharge
from tests.people import make_member


def quiet_others() -> None:
    """Organizations of other tests start nothing: whoever starts recharges starts those of all."""
    with role_scope("operator"):
        AutoRecharge.objects.update(state=RechargeState.OFF)


def recharging(
    standin: Standin,
    *,
    behaviour: str = "pays",
    granted: str | None = None,
    paid: str | None = "1.00",
    currency: str = "USD",
    threshold: str = "5",
    amount: str = "20",
    cap: str = "100",
) -> TenantFixture:
    """An organization below its threshold, with an owner who reads mails and a saved card."""
    tenant = make_tenant(currency, granted=granted, paid=paid)
    make_member(tenant, Role.OWNER)
    method = save_card(standin, tenant, behaviour)
    make_recharge(
        tenant,
        threshold_nanos=parse_amount(threshold),
        amount_nanos=parse_amount(amount),
        monthly_cap_nanos=parse_amount(cap),
        payment_method_id=method["id"],
        method=describe_method(method),
    )
    return tenant


def save_card(standin: Standin, tenant: TenantFixture, behaviour: str = "pays") -> dict[str, Any]:
    """A card of the organization's customer at the stand-in."""
    customer = ensure_customer(tenant_id=tenant.id, now=utc_now())
    method: dict[str, Any] = standin.control.save_card(customer=customer, behaviour=behaviour)
    return method


def start(now: datetime | None = None) -> recharge.StartReport:
    return recharge.start_due_recharges(now=now or utc_now())


def recharges_of(tenant_id: UUID) -> list[TopUp]:
    """Oldest first."""
    with role_scope("operator"):
        found = TopUp.objects.filter(tenant_id=tenant_id, source=TopUpSource.RECHARGE)
        return list(found.order_by("created_at", "id"))


def states_of(tenant_id: UUID) -> list[str]:
    return [str(one.state) for one in recharges_of(tenant_id)]


def recharge_of(tenant_id: UUID) -> AutoRecharge:
    with role_scope("operator"):
        return AutoRecharge.objects.get(tenant_id=tenant_id)


def subjects_of(tenant_id: UUID) -> list[str]:
    """Of the mails that the organization's members got, oldest first."""
    rows = sorted(rows_of("tenants_outboxmessage", role="owner", tenant_id=tenant_id), key=_by_id)
    return [row["subject"].partition(": ")[2] for row in rows]


def _by_id(row: dict[str, Any]) -> UUID:
    found: UUID = row["id"]
    return found


def intents_of(standin: Standin, tenant: TenantFixture) -> list[dict[str, Any]]:
    """The payments that the stand-in has of the organization, oldest first."""
    customer = ensure_customer(tenant_id=tenant.id, now=utc_now())
    listed = stripe_client().v1.payment_intents.list({"customer": customer, "limit": 100})
    return [intent.to_dict() for intent in listed.auto_paging_iter()][::-1]
