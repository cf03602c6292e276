"""The page of auto-recharge: each state says what it means and what to do, and its forms do it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from devstack.stripe_standin.testing import Standin, running_standin
from portal.console.tests.people import Stage, open_stage, text_of
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT, parse_amount
from quotas.models import RechargeState, TopUpSource, TopUpState
from quotas.payments import fulfilment
from quotas.payments.tests.recharge_side import quiet_others, recharge_of, save_card, start
from quotas.payments.tests.stripe_side import configure
from tenants.models import Role, TenantState
from tests.factories import TenantFixture, issue_key, set_state
from tests.factories_payments import make_recharge, make_top_up

AMOUNTS = {"threshold_nanos": "5", "amount_nanos": "20", "monthly_cap_nanos": "100"}


@pytest.fixture(scope="module")
def standin(database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    with (
        running_standin(tmp_path_factory.mktemp("stripe")) as running,
        pytest.MonkeyPatch.context() as monkeypatch,
    ):
        configure(monkeypatch, running)
        yield running


@pytest.fixture
def stage(database: None, standin: Standin) -> Stage:
    quiet_others()
    return open_stage()


def fixture_of(stage: Stage) -> TenantFixture:
    key, digest = issue_key(stage.tenant_id)
    return TenantFixture(stage.tenant_id, stage.public_id, "USD", key, digest)


def led_to(answer: Any) -> str:
    """The address on the page that leads to Stripe."""
    assert answer.status_code == 200
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', text_of(answer))
    assert found is not None
    return found[1]


def state_of(html: str) -> tuple[str, str]:
    found = re.search(r'data-testid="recharge-state" data-state="(\w+)" data-reason="(\w*)"', html)
    assert found is not None
    return found[1], found[2]


def test_from_nothing_to_a_card_and_on(stage: Stage, standin: Standin) -> None:
    html = text_of(stage.get("recharge"))
    assert state_of(html) == ("OFF", "")
    assert 'data-testid="recharge-empty"' in html
    assert 'data-testid="recharge-attempts-empty"' in html
    assert 'data-testid="recharge-off"' not in html

    address = led_to(stage.post("recharge-set", data=AMOUNTS))
    html = text_of(stage.get("recharge"))
    assert state_of(html) == ("OFF", "NO_METHOD")
    assert 'data-testid="recharge-no-method"' in html

    session_id = address.rpartition("/")[2]
    standin.control.complete_session(session_id)
    html = text_of(stage.get("recharge", query={"session": session_id}))
    assert state_of(html) == ("ON", "")
    assert "visa ···· 4242" in html
    assert 'data-testid="recharge-off"' in html

    start()
    html = text_of(stage.get("recharge"))
    assert re.findall(r'data-testid="recharge-row" data-top-up="tup_\w+" data-state="(\w+)"', html) == [
        "PAID"
    ]
    assert f'data-testid="recharge-used"><data class="money" value="{20 * NANOS_PER_UNIT}"' in html

    assert stage.post("recharge-off").status_code == 302
    assert state_of(text_of(stage.get("recharge"))) == ("OFF", "")
    assert stage.post("recharge-set", data=AMOUNTS | {"amount_nanos": "30"}).status_code == 302
    row = recharge_of(stage.tenant_id)
    assert (row.state, row.amount_nanos) == (RechargeState.ON, 30 * NANOS_PER_UNIT)
    assert row.changed_by_id == stage.owner.id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold_nanos", "twenty"),
        ("threshold_nanos", "0"),
        ("threshold_nanos", "20.01"),
        ("threshold_nanos", "1.001"),
        ("amount_nanos", "4.99"),
        ("amount_nanos", "10000.01"),
        ("amount_nanos", "-20"),
        ("amount_nanos", ""),
        ("monthly_cap_nanos", "19.99"),
        ("monthly_cap_nanos", "99999999999"),
    ],
)
def test_what_cannot_be_is_said_beside_the_field(stage: Stage, field: str, value: str) -> None:
    answer = stage.post("recharge-set", data=AMOUNTS | {field: value})
    assert answer.status_code == 422
    html = text_of(answer)
    assert f'id="recharge_{field}_error"' in html
    assert f'value="{value}"' in html or not value
    assert state_of(text_of(stage.get("recharge"))) == ("OFF", "")


def test_the_bank_wants_to_see_somebody(stage: Stage, standin: Standin) -> None:
    fixture = fixture_of(stage)
    method = save_card(standin, fixture, "authentication_required")
    make_recharge(fixture, payment_method_id=method["id"])
    start()
    html = text_of(stage.get("recharge"))
    assert state_of(html) == ("PAUSED", "AUTHENTICATION")
    assert 'data-testid="recharge-confirm"' in html
    session_id = led_to(stage.post("recharge-confirm")).rpartition("/")[2]
    standin.control.complete_session(session_id)
    assert fulfilment.apply_session(session_id=session_id, now=utc_now()) == TopUpState.PAID
    assert state_of(text_of(stage.get("recharge"))) == ("ON", "")
    assert stage.post("recharge-confirm").status_code == 302


@pytest.mark.parametrize(
    ("fields", "testid"),
    [
        ({"state": RechargeState.OFF, "state_reason": "DECLINED", "declines": 3}, "recharge-declined"),
        (
            {
                "state": RechargeState.OFF,
                "state_reason": "METHOD_REMOVED",
                "payment_method_id": "",
                "method": "",
            },
            "recharge-method-removed",
        ),
        ({"declines": 1, "retry_at": utc_now() + timedelta(hours=1)}, "recharge-declined-lately"),
        ({"monthly_cap_nanos": parse_amount("30")}, "recharge-capped"),
    ],
)
def test_each_state_says_what_to_do(stage: Stage, fields: dict[str, Any], testid: str) -> None:
    fixture = fixture_of(stage)
    make_recharge(fixture, **fields)
    make_top_up(fixture, source=TopUpSource.RECHARGE)
    make_top_up(fixture, source=TopUpSource.RECHARGE, state=TopUpState.FAILED, failure_code="expired_card")
    html = text_of(stage.get("recharge"))
    assert f'data-testid="{testid}"' in html
    assert f'data-testid="recharge-used"><data class="money" value="{20 * NANOS_PER_UNIT}"' in html
    assert html.count('data-testid="recharge-row"') == 2


def test_a_suspended_organization_is_told(stage: Stage) -> None:
    make_recharge(fixture_of(stage))
    set_state(stage.tenant_id, TenantState.SUSPENDED)
    assert "Nothing is bought while calls are refused." in text_of(stage.get("recharge"))


def test_who_may(stage: Stage) -> None:
    make_recharge(fixture_of(stage))
    assert 'data-testid="recharge-form"' in text_of(stage.as_role(Role.BILLING).get("recharge"))
    assert stage.as_role(Role.ADMIN).post("recharge-off").status_code == 302
    for role in (Role.DEVELOPER, Role.VIEWER):
        other = stage.as_role(role)
        assert other.get("recharge").status_code == 403
        for name in ("recharge-set", "recharge-off", "recharge-method", "recharge-confirm"):
            assert other.post(name, data=AMOUNTS).status_code == 403


def test_without_a_key_there_is_nothing_to_set(stage: Stage) -> None:
    with override_settings(STRIPE_SECRET_KEY=""):
        html = text_of(stage.get("recharge"))
        assert 'data-testid="no-payments"' in html
        assert 'data-testid="recharge-form"' not in html
        assert stage.post("recharge-method").status_code == 422


def test_a_provider_that_does_not_answer_is_told(stage: Stage) -> None:
    with override_settings(STRIPE_API_BASE="http://127.0.0.1:9"):
        answer = stage.post("recharge-method")
        assert answer.status_code == 422
        assert "could not be reached" in text_of(answer)
        html = text_of(stage.get("recharge", query={"session": "cs_test_whatever"}))
        assert "The card is not here yet" in html
    assert state_of(text_of(stage.get("recharge", query={"session": "cs_test_whatever"}))) == ("OFF", "")
