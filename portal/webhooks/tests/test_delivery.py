"""From Stripe's events to credit, through real processes: delivered, doubled, lost, late."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from portal.kit.money import NANOS_PER_UNIT
from portal.webhooks.tests.stage import Stage
from quotas.payments.tests.stripe_side import begin, configure, credits_of, session_of
from tests.celery_process import running_celery
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant
from tests.waiting import wait_for

PAID = 20 * NANOS_PER_UNIT


@pytest.fixture(autouse=True)
def _configured(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, stage.standin)
    stage.standin.control.chaos()


def paid_at_stripe(stage: Stage, method: str = "card") -> tuple[TenantFixture, str]:
    tenant = make_tenant(granted=None)
    session = session_of(begin(tenant))
    stage.standin.control.complete_session(session, method=method)
    return tenant, session


def wait_for_credit(tenant: TenantFixture, what: str, timeout_s: float = 60.0) -> None:
    started_s = time.monotonic()
    wait_for(lambda: money_of(tenant.id).paid == PAID, timeout_s, what)
    print(f"\n{what}: credited after {time.monotonic() - started_s:.2f} s")


def test_a_webhook_alone_credits(stage: Stage) -> None:
    """Nobody lands on a page, and no poller runs."""
    tenant, session = paid_at_stripe(stage)
    wait_for_credit(tenant, "webhook only")
    wait_for(
        lambda: {row["state"] for row in rows_of("quotas_stripeevent", object_id=session)} == {"PROCESSED"},
        20.0,
    )
    assert {row["source"] for row in rows_of("quotas_stripeevent", object_id=session)} == {"WEBHOOK"}


def test_doubled_and_shuffled_webhooks_credit_once(stage: Stage) -> None:
    tenant, session = paid_at_stripe(stage)
    wait_for_credit(tenant, "doubled webhooks")
    events = [row["id"] for row in rows_of("quotas_stripeevent", object_id=session)]
    answers = stage.standin.control.deliver(events=events, times=5, shuffle=7)
    assert {answer["answer"] for answer in answers} == {200}
    assert credits_of(tenant.id) == [("TOP_UP", PAID)]


def test_a_method_that_takes_its_time_is_credited_when_it_arrives(stage: Stage) -> None:
    tenant, session = paid_at_stripe(stage, method="us_bank_account")
    wait_for(
        lambda: [row["state"] for row in rows_of("quotas_topup", session_id=session)] == ["PROCESSING"], 30.0
    )
    assert money_of(tenant.id).paid == 0
    stage.standin.control.settle(payment=session)
    wait_for_credit(tenant, "asynchronous method")


def test_while_the_worker_cannot_reach_stripe_nothing_is_lost(stage: Stage, tmp_path: Path) -> None:
    """The event is stored; what fails to process it is tried again by the sweeper."""
    stage.standin.control.fault("error_before", match="GET /v1/checkout/sessions", times=3)
    tenant, _ = paid_at_stripe(stage)
    with running_celery(tmp_path, with_beat=True, SLUICE_TOP_UPS_POLL_S="3600", **stage.environment):
        wait_for_credit(tenant, "after errors of Stripe")
    assert credits_of(tenant.id) == [("TOP_UP", PAID)]


@pytest.mark.parametrize("poller", ["top-ups", "events"])
def test_a_lost_webhook_is_made_up_for(stage: Stage, tmp_path: Path, poller: str) -> None:
    stage.standin.control.chaos(lose=1.0)
    tenant, session = paid_at_stripe(stage)
    rates = {"SLUICE_TOP_UPS_POLL_S": "3600", "SLUICE_PAYMENTS_POLL_S": "3600"}
    rates["SLUICE_TOP_UPS_POLL_S" if poller == "top-ups" else "SLUICE_PAYMENTS_POLL_S"] = "1"
    assert rows_of("quotas_stripeevent", object_id=session) == []
    with running_celery(tmp_path, with_beat=True, **rates, **stage.environment):
        wait_for_credit(tenant, f"lost webhook, poller of {poller}")
    sources = {row["source"] for row in rows_of("quotas_stripeevent", object_id=session)}
    assert sources == ({"POLLER"} if poller == "events" else set())
    assert credits_of(tenant.id) == [("TOP_UP", PAID)]
