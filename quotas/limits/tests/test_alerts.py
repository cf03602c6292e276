"""Budget alerts: once a scope, period and percentage, whoever looks and however often."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connections

from portal.kit.clock import utc_now
from quotas.limits import mails
from quotas.limits.alerts import raise_budget_alerts
from quotas.limits.tests.stage import Bounded, make_bounded, spend
from quotas.limits.tests.test_setting_limits import at_once
from quotas.models import LimitKind
from tenants.models import Role
from tenants.operations import TooManyMails
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import ModelFixture, enable, make_model
from tests.people import Person, make_member

pytestmark = pytest.mark.usefixtures("database")

# One prompt token costs 1,000 nano-units.
TOKEN = 1000


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.fixture
def bounded(model: ModelFixture) -> Bounded:
    made = make_bounded(granted="5.00")
    enable(made.tenant, model)
    return made


def look(*, now: datetime | None = None, since: datetime | None = None) -> int:
    """What a run raises for everybody; other tests leave nothing to raise behind."""
    with role_scope("operator"):
        return raise_budget_alerts(now=now or utc_now(), since=since)


def alerts_of(tenant_id: UUID) -> list[tuple[str, int, int]]:
    rows = rows_of("quotas_budgetalert", tenant_id=tenant_id)
    return sorted((row["kind"], row["percent"], row["used"]) for row in rows)


def mails_to(person: Person) -> list[dict[str, Any]]:
    return rows_of("tenants_outboxmessage", role="dataplane", to_email=person.email)


def test_each_threshold_is_told_once_and_the_highest_new_one_in_a_mail(
    bounded: Bounded, model: ModelFixture
) -> None:
    bounded.set_own(LimitKind.MONEY_MONTH, 1000 * TOKEN, alert_percents=(50, 80, 100))
    spend(bounded.tenant, model, tokens=499)
    assert look() == 0
    spend(bounded.tenant, model, tokens=1)
    assert look() == 1
    assert look() == 0
    spend(bounded.tenant, model, tokens=490)
    assert look() == 1
    spend(bounded.tenant, model, tokens=1)
    assert look() == 0
    bounded.set_own(LimitKind.MONEY_MONTH, 991 * TOKEN, alert_percents=(50, 80, 100))
    assert look() == 1
    assert alerts_of(bounded.id) == [
        ("MONEY_MONTH", 50, 500 * TOKEN),
        ("MONEY_MONTH", 80, 990 * TOKEN),
        ("MONEY_MONTH", 100, 991 * TOKEN),
    ]
    assert len(mails_to(bounded.owner)) == 3


def test_thresholds_that_are_passed_together_make_one_mail(bounded: Bounded, model: ModelFixture) -> None:
    billing, viewer, admin = (
        make_member(bounded.tenant, role) for role in (Role.BILLING, Role.VIEWER, Role.ADMIN)
    )
    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, is_hard=False, alert_percents=(50, 80, 100))
    spend(bounded.tenant, model, tokens=900)
    assert look() == 2
    for person, count in ((bounded.owner, 1), (billing, 1), (admin, 1), (viewer, 0)):
        assert len(mails_to(person)) == count
    (mail,) = mails_to(billing)
    assert "80 %" in mail["subject"]
    assert "$0.0009 of $0.001 for today" in mail["text_body"]
    assert "It only alerts" in mail["text_body"]
    assert f"{bounded.tenant.public_id}/limits" in mail["text_body"]


def test_a_hard_budget_says_that_calls_will_be_refused(bounded: Bounded, model: ModelFixture) -> None:
    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, model_id=model.id, alert_percents=(50,))
    spend(bounded.tenant, model, tokens=600)
    assert look() == 1
    (mail,) = mails_to(bounded.owner)
    assert "calls are refused" in mail["text_body"]
    assert model.slug in mail["text_body"]


def test_every_period_begins_anew(bounded: Bounded, model: ModelFixture) -> None:
    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, alert_percents=(50,))
    spend(bounded.tenant, model, tokens=600)
    assert look() == 1
    assert look(now=utc_now() + timedelta(days=1)) == 0


def test_the_organizations_own_budget_is_watched_before_the_operators(
    bounded: Bounded, model: ModelFixture
) -> None:
    bounded.set_operators(LimitKind.MONEY_DAY, 10_000 * TOKEN, alert_percents=(1,))
    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, alert_percents=(90,))
    spend(bounded.tenant, model, tokens=600)
    assert look() == 0
    spend(bounded.tenant, model, tokens=300)
    assert look() == 1


def test_two_runs_at_once_tell_once(bounded: Bounded, model: ModelFixture) -> None:
    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, alert_percents=(50, 80))
    spend(bounded.tenant, model, tokens=900)
    raised: list[int] = []

    def run() -> None:
        try:
            raised.append(look())
        finally:
            connections.close_all()

    at_once([run] * 4)
    assert sum(raised) == 2
    assert len(rows_of("quotas_budgetalert", tenant_id=bounded.id)) == 2
    assert len(mails_to(bounded.owner)) == 1


def test_only_who_used_something_lately_is_looked_at(bounded: Bounded, model: ModelFixture) -> None:
    spend(bounded.tenant, model, tokens=900)
    later = utc_now() + timedelta(hours=5)
    # The period has to be the same five hours later.
    kind = LimitKind.MONEY_MONTH
    if later.month != utc_now().month:
        pytest.skip("the month ends within the test's hours")
    bounded.set_own(kind, 1000 * TOKEN, alert_percents=(50,))
    assert look(now=later, since=later - timedelta(hours=2)) == 0
    assert look(now=later) == 1
    fresh = make_bounded(granted="5.00")
    enable(fresh.tenant, model)
    spend(fresh.tenant, model, tokens=900)
    fresh.set_own(kind, 1000 * TOKEN, alert_percents=(50,), now=later)
    # A budget that is new is looked at, whenever it was used.
    assert look(now=later + timedelta(minutes=1), since=later - timedelta(hours=2)) == 1


def test_an_organization_that_may_mail_no_more_is_still_told_on_its_page(
    bounded: Bounded, model: ModelFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise TooManyMails("as many as it may")

    monkeypatch.setattr(mails, "enqueue_mail", refuse)
    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, alert_percents=(50,))
    spend(bounded.tenant, model, tokens=600)
    assert look() == 1
    assert len(rows_of("quotas_budgetalert", tenant_id=bounded.id)) == 1


def test_an_alert_and_its_mails_commit_together(
    bounded: Bounded, model: ModelFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the mail cannot be written")

    bounded.set_own(LimitKind.MONEY_DAY, 1000 * TOKEN, alert_percents=(50,))
    spend(bounded.tenant, model, tokens=600)
    with monkeypatch.context() as patch:
        patch.setattr(mails, "enqueue_mail", fail)
        with pytest.raises(RuntimeError):
            look()
    assert not rows_of("quotas_budgetalert", tenant_id=bounded.id)
    assert look() == 1


def test_a_budget_of_nothing_alerts_nobody(bounded: Bounded, model: ModelFixture) -> None:
    bounded.set_own(LimitKind.MONEY_DAY, 0, alert_percents=(50,))
    assert look() == 0
