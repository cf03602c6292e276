"""Whatever happens in whatever order: never above the cap, never two at once, each payment credited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devstack.stripe_standin.testing import Standin, running_standin
from portal.kit.money import NANOS_PER_UNIT, from_minor_units
from quotas.models import OPEN_TOP_UP_STATES, RechargeState, TopUp, TopUpState
from quotas.payments import fulfilment, recharge, sending
from quotas.payments.recharge.queries import month_of
from quotas.payments.tests.recharge_side import (
    intents_of,
    quiet_others,
    recharge_of,
    recharges_of,
    recharging,
    start,
)
from quotas.payments.tests.stripe_side import configure
from tenants.operations import audit
from tenants.scope import tenant_scope
from tests.database import money_of
from tests.factories import TenantFixture
from tests.factories_payments import make_recharge

FAULTS = ("answer_lost", "error_after", "error_before", "error_stored", "rate_limit")
STEPS = st.one_of(
    st.just(("start",)),
    st.just(("start",)),
    st.tuples(st.just("wait"), st.sampled_from([1, 3, 24, 26, 24 * 20])),
    st.tuples(st.just("amounts"), st.integers(5, 40), st.integers(0, 80)),
    st.tuples(st.just("bank"), st.sampled_from(["pays", "pays", "declined", "authentication_required"])),
    st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
    st.just(("sweep",)),
    st.just(("poll",)),
    st.just(("turn on",)),
    st.just(("turn off",)),
)


class Story:
    """One organization that is always below its threshold, so that nothing but the cap holds it back."""

    def __init__(self, standin: Standin) -> None:
        self.standin = standin
        self.tenant: TenantFixture = recharging(standin, amount="20", cap="60", threshold="1000000")
        # Earlier stories have moved its clock.
        self.now = datetime.fromtimestamp(standin.control.get("clock")["now"], UTC)
        self.method_id = recharge_of(self.tenant.id).payment_method_id
        self.known: set[Any] = set()

    def take(self, step: tuple[Any, ...]) -> None:
        kind, *values = step
        getattr(self, f"_{kind.replace(' ', '_')}")(*values)
        self._check()

    def _start(self) -> None:
        start(self.now)

    def _wait(self, hours: int) -> None:
        self.standin.control.advance(hours * 3600)
        self.now += timedelta(hours=hours)

    def _amounts(self, amount: int, more: int) -> None:
        self._change(amount_nanos=amount * NANOS_PER_UNIT, monthly_cap_nanos=(amount + more) * NANOS_PER_UNIT)

    def _bank(self, behaviour: str) -> None:
        self.standin.control.set_behaviour(payment_method=self.method_id, behaviour=behaviour)

    def _fault(self, fault: str) -> None:
        self.standin.control.fault(fault, match="POST /v1/payment_intents", times=1)

    def _sweep(self) -> None:
        sending.sweep_operations(now=self.now + timedelta(minutes=2))

    def _poll(self) -> None:
        for top_up in self._open():
            fulfilment.apply_top_up(top_up_id=top_up.id, now=self.now)

    def _turn_on(self) -> None:
        if recharge_of(self.tenant.id).state == RechargeState.OFF:
            self._change(state=RechargeState.ON, declines=0, retry_at=None)

    def _turn_off(self) -> None:
        with tenant_scope(self.tenant.id):
            recharge.turn_off(tenant_id=self.tenant.id, actor=audit.SYSTEM, now=self.now)

    def _change(self, **fields: Any) -> None:
        row = recharge_of(self.tenant.id)
        kept = ("state", "threshold_nanos", "amount_nanos", "monthly_cap_nanos", "payment_method_id")
        make_recharge(self.tenant, **({name: getattr(row, name) for name in kept} | fields))

    def _open(self) -> list[TopUp]:
        return [one for one in recharges_of(self.tenant.id) if one.state in OPEN_TOP_UP_STATES]

    def _check(self) -> None:
        """What may never be otherwise, after any step."""
        rows, row = recharges_of(self.tenant.id), recharge_of(self.tenant.id)
        assert len(self._open()) <= 1
        month, next_month = month_of(self.now)
        new = [one for one in rows if one.id not in self.known]
        assert len(new) <= 1
        if new:
            counted = [
                one.amount_nanos
                for one in rows
                if month <= one.created_at < next_month
                and (one.state in OPEN_TOP_UP_STATES or one.state == TopUpState.PAID or one in new)
            ]
            assert sum(counted) <= row.monthly_cap_nanos
        self.known |= {one.id for one in new}

    def end(self) -> None:
        """Everything that is under way comes to its end: the books of both sides agree."""
        self._bank("pays")
        for _ in range(3):
            self._sweep()
            self._poll()
            self._wait(24)
        paid = [one for one in recharges_of(self.tenant.id) if one.state == TopUpState.PAID]
        intents = {one["id"]: one for one in intents_of(self.standin, self.tenant)}
        succeeded = {key for key, one in intents.items() if one["status"] == "succeeded"}
        assert {one.payment_intent_id for one in paid} == succeeded
        received = sum(from_minor_units(intents[key]["amount_received"], "USD") for key in succeeded)
        assert money_of(self.tenant.id).paid == NANOS_PER_UNIT + received
        # What failed can never be paid later.
        failed = {one.payment_intent_id for one in recharges_of(self.tenant.id) if one.state == "FAILED"}
        assert {intents[key]["status"] for key in failed - {None}} <= {"canceled"}


@pytest.fixture(scope="module")
def own_standin(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    """Its clock is moved, which no other test should notice."""
    with (
        running_standin(tmp_path_factory.mktemp("stripe")) as running,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        configure(monkeypatch, running)
        yield running


@example(steps=[("start",), ("wait", 1)] * 4)
@example(
    steps=[
        ("bank", "declined"),
        ("start",),
        ("wait", 3),
        ("start",),
        ("bank", "pays"),
        ("wait", 26),
        ("start",),
    ]
)
@example(
    steps=[
        ("bank", "authentication_required"),
        ("start",),
        ("turn off",),
        ("sweep",),
        ("turn on",),
        ("start",),
    ]
)
@example(
    steps=[("fault", "error_after"), ("start",), ("wait", 1), ("start",), ("wait", 24), ("sweep",), ("poll",)]
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=4, max_size=16))
def test_sequences(own_standin: Standin, steps: list[tuple[Any, ...]]) -> None:
    quiet_others()
    own_standin.control.post("faults", clear=True)
    story = Story(own_standin)
    for step in steps:
        story.take(step)
    story.end()
