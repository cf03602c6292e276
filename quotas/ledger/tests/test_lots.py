"""Free credit that expires: what goes first is spent first, nothing that is held goes, all of it adds up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from django.db import IntegrityError
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas import operations
from quotas.ledger import operations as ledger
from quotas.ledger.lots import expiring_credit
from quotas.models import CreditLot, LedgerTransfer, TransferKind
from quotas.payments.tests.moneyback_side import UNIT, held, make_dear_model, spend
from tenants.scope import role_scope
from tests.database import money_of
from tests.factories import ModelFixture, TenantFixture, enable, make_tenant

ENDLESS, FAR = None, 900


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_dear_model()


def grant(tenant_id: UUID, units: int, days: int | None) -> None:
    """days: from now; below 0 its time is over already."""
    ends = None if days is None else utc_now() + timedelta(days=days)
    with role_scope("operator"):
        assert ledger.grant_credit(
            tenant_id=tenant_id,
            amount_nanos=units * UNIT,
            key=str(uuid7()),
            reason="",
            expires_at=ends,
        )


def expire(tenant_id: UUID) -> int:
    with role_scope("operator"):
        return ledger.expire_lots(tenant_id=tenant_id)


def newcomer(model: ModelFixture) -> TenantFixture:
    tenant = make_tenant(granted=None)
    enable(tenant, model)
    return tenant


@dataclass
class Plain:
    """Days until the end, and units left: the first end is spent first, what never ends last."""

    lots: list[tuple[int, int]] = field(default_factory=list)

    def grant(self, units: int, days: int | None) -> None:
        self.lots.append((FAR if days is None else days, units))
        self.lots.sort(key=lambda lot: lot[0])

    def spend(self, units: int) -> None:
        left = []
        for days, has in self.lots:
            taken = min(has, units)
            units -= taken
            left.append((days, has - taken))
        self.lots = [lot for lot in left if lot[1]]

    def expire(self) -> int:
        gone = sum(units for days, units in self.lots if days < 0)
        self.lots = [lot for lot in self.lots if lot[0] >= 0]
        return gone

    @property
    def total(self) -> int:
        return sum(units for _, units in self.lots)

    def ending(self) -> int:
        return sum(units for days, units in self.lots if days != FAR)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(1, 9), st.sampled_from([ENDLESS, -3, -2, 5, 30])),
        st.tuples(st.just("spend"), st.integers(1, 9), st.none()),
        st.tuples(st.just("expire"), st.just(0), st.none()),
    ),
    max_size=9,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_any_history_agrees_with_the_plain_model(
    model: ModelFixture, steps: list[tuple[str, int, int | None]]
) -> None:
    tenant, plain = newcomer(model), Plain()
    for what, units, days in [*steps, ("expire", 0, None)]:
        if what == "grant":
            grant(tenant.id, units, days)
            plain.grant(units, days)
        elif what == "spend" and units < plain.total:
            spend(tenant, model, units)
            plain.spend(units)
        elif what == "expire":
            assert expire(tenant.id) == plain.expire() * UNIT
            assert expire(tenant.id) == 0
        assert money_of(tenant.id).granted == plain.total * UNIT
    with role_scope("operator"):
        assert sum(one.amount_nanos for one in expiring_credit(tenant_id=tenant.id)) == plain.ending() * UNIT


def test_what_a_call_holds_goes_when_it_is_free(model: ModelFixture) -> None:
    tenant = newcomer(model)
    grant(tenant.id, 10, -1)
    with held(tenant, model, 4):
        assert operations.expire_credit(now=utc_now()) >= 1
        assert 4 * UNIT <= money_of(tenant.id).granted == money_of(tenant.id).pending
    assert operations.expire_credit(now=utc_now()) >= 1
    assert money_of(tenant.id).granted == 0
    with role_scope("operator"):
        pieces = LedgerTransfer.objects.filter(tenant_id=tenant.id, kind=TransferKind.EXPIRY)
        lots = CreditLot.objects.filter(tenant_id=tenant.id)
        assert pieces.count() == 2
        assert list(lots.values_list("left_nanos", flat=True)) == [0, 0]


def test_paid_credit_never_expires_and_a_debt_is_not_made(model: ModelFixture) -> None:
    tenant = newcomer(model)
    with role_scope("operator"):
        ledger.set_credit_line(tenant_id=tenant.id, overdraft_nanos=5 * UNIT)
        ledger.record_receipt(tenant_id=tenant.id, amount_nanos=3 * UNIT, key=str(uuid7()), reason="")
    grant(tenant.id, 10, -1)
    assert expire(tenant.id) == 10 * UNIT
    assert (money_of(tenant.id).paid, money_of(tenant.id).granted) == (3 * UNIT, 0)


def test_the_same_grant_with_another_end_is_refused(model: ModelFixture) -> None:
    tenant, ends = newcomer(model), utc_now() + timedelta(days=3)
    give = partial(ledger.grant_credit, tenant_id=tenant.id, amount_nanos=7, key=str(uuid7()), reason="")
    with role_scope("operator"):
        assert give(expires_at=ends)
        assert not give(expires_at=ends)
        with pytest.raises(IntegrityError):
            give()
    assert money_of(tenant.id).granted == 7
