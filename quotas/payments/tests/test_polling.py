"""What webhooks lost, pollers find."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from django.conf import settings

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import PollCursor, TopUp, TopUpState
from quotas.payments import polling
from quotas.payments.tests.stripe_side import begin, session_of, top_up_of
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import make_tenant


def cursor() -> PollCursor:
    with role_scope("operator"):
        return PollCursor.objects.get(name=polling.EVENTS_CURSOR)


def test_lost_events_are_found_and_applied(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    report = polling.poll_events(now=utc_now())
    assert report.new > 0
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
    stored = rows_of("quotas_stripeevent", object_id=session_of(top_up))
    assert {(row["source"], row["state"]) for row in stored} == {("POLLER", "PROCESSED")}
    again = polling.poll_events(now=utc_now())
    assert again.new == 0
    assert again.found > 0, "it reads again with an overlap"
    assert cursor().error == ""


def test_events_of_many_pages_and_of_days_ago(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    polling.poll_events(now=utc_now())
    with role_scope("operator"):
        PollCursor.objects.update(read_to=utc_now() - timedelta(days=3))
    monkeypatch.setattr(polling, "PAGE_ROWS", 10)
    tenant = make_tenant(granted=None)
    top_ups = [begin(tenant) for _ in range(5)]
    for top_up in top_ups:
        standin.control.complete_session(session_of(top_up))
    polling.poll_events(now=utc_now())
    assert money_of(tenant.id).paid == 100 * NANOS_PER_UNIT
    assert utc_now() - cursor().read_to < timedelta(hours=1)


def test_why_it_cannot_read_is_noted(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    polling.poll_events(now=utc_now())
    before = cursor()
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", standin.restricted_key("customer_write"))
    now = utc_now() + timedelta(minutes=1)
    assert polling.poll_events(now=now).new == 0
    after = cursor()
    assert after.error
    assert (after.polled_at, after.read_to) == (now, before.read_to)


def test_open_top_ups_are_read_the_younger_the_more_often(standin: Standin) -> None:
    with role_scope("operator"):
        # Those of other tests have had their turn.
        TopUp.objects.update(checked_at=utc_now() + timedelta(days=1))
    tenant = make_tenant(granted=None)
    start = utc_now()
    top_up = begin(tenant, now=start)
    read_at = []
    for second in range(600):
        now = start + timedelta(seconds=second)
        if polling._claim_open_top_ups(now, 50):
            read_at.append(second)
    pauses = [later - earlier for earlier, later in pairwise(read_at)]
    assert read_at[0] == pauses[0] == 4
    assert pauses == sorted(pauses)
    assert len(read_at) < 45
    standin.control.complete_session(session_of(top_up))
    assert polling.poll_open_top_ups(now=now + timedelta(minutes=10)) == 1
    assert top_up_of(top_up.id).state == TopUpState.PAID
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
    assert polling.poll_open_top_ups(now=now + timedelta(minutes=30)) == 0


def test_one_top_up_that_cannot_be_read_hides_no_other(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = make_tenant(granted=None)
    broken, fine = begin(tenant), begin(tenant)
    standin.control.complete_session(session_of(fine))
    standin.control.fault("error_before", match=f"GET /v1/checkout/sessions/{session_of(broken)}")
    polling.poll_open_top_ups(now=utc_now() + timedelta(minutes=5))
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT


@pytest.mark.parametrize("outage", ["events", "top_ups"])
def test_an_outage_is_survived(standin: Standin, monkeypatch: pytest.MonkeyPatch, outage: str) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    with monkeypatch.context() as patched:
        patched.setattr(settings, "STRIPE_API_BASE", "http://127.0.0.1:9")
        polling.poll_events(now=utc_now())
        polling.poll_open_top_ups(now=utc_now() + timedelta(minutes=1))
    assert top_up_of(top_up.id).state == TopUpState.OPEN
    if outage == "events":
        polling.poll_events(now=utc_now())
    else:
        polling.poll_open_top_ups(now=utc_now() + timedelta(minutes=5))
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
