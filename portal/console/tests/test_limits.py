"""The page of limits: who sees and who sets, what is refused and why, and what stands out."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.test import override_settings

from portal.console.tests.people import Stage, open_stage, text_of
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from quotas.limits import operations
from quotas.limits.tests.stage import UNIT, make_tier, spend
from quotas.limits.tests.test_setting_limits import events
from quotas.limits.tiers import TierCeiling, assign_tier
from quotas.models import LimitKind, LimitOrigin
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import rows_of
from tests.factories import TenantFixture, add_granted, add_paid, enable, issue_key, make_model
from tests.people import make_person

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def set_own(stage: Stage, kind: LimitKind, value: int, **options: object) -> str:
    """The public id of the limit."""
    with tenant_scope(stage.tenant_id):
        limit_id = operations.set_limit(
            tenant_id=stage.tenant_id,
            kind=kind,
            value=value,
            origin=LimitOrigin.TENANT,
            actor=audit.member(stage.owner.id, Role.OWNER),
            now=utc_now(),
            **options,  # type: ignore[arg-type]
        )
    return public_id(PREFIXES["limit"], limit_id)


def give_tier(stage: Stage, *ceilings: TierCeiling) -> None:
    with role_scope("operator"):
        operator = audit.operator(make_person("operator", is_staff=True).id)
        assign_tier(
            tenant_id=stage.tenant_id,
            tier_id=make_tier(ceilings),
            ends_at=None,
            actor=operator,
            now=utc_now(),
            reason="for the test",
        )


def test_the_empty_page_says_what_a_limit_is_good_for(stage: Stage) -> None:
    page = text_of(stage.get("limits"))
    assert 'data-testid="limits-empty"' in page
    assert stage.url("limit-new") in page
    viewer = text_of(stage.as_role(Role.VIEWER).get("limits"))
    assert 'data-testid="limits-empty"' in viewer
    assert stage.url("limit-new") not in viewer


@pytest.mark.parametrize("role", list(Role))
def test_everybody_sees_and_owners_and_admins_set(stage: Stage, role: Role) -> None:
    limit = set_own(stage, LimitKind.TOKENS_DAY, 1000)
    member = stage.as_role(role)
    page = member.get("limits")
    assert page.status_code == 200
    assert ('data-testid="limit-change"' in text_of(page)) == (role in (Role.OWNER, Role.ADMIN))
    answers = [
        member.post("limit-new", data={"kind": "TOKENS_MONTH", "value": "5"}).status_code,
        member.post("limit-change", limit, data={"value": "500"}).status_code,
        member.post("limit-remove", limit).status_code,
    ]
    if role in (Role.OWNER, Role.ADMIN):
        # The change ended the row of this id.
        assert answers == [302, 302, 404]
    else:
        assert answers == [403, 403, 403]
        assert [row["value"] for row in rows_of("quotas_limit", tenant_id=stage.tenant_id)] == [1000]


def test_a_limit_is_set_changed_and_removed_without_scripts(stage: Stage) -> None:
    form = stage.get("limit-new")
    assert form.status_code == 200
    assert 'data-testid="limit-form"' in text_of(form)
    done = stage.post(
        "limit-new", data={"kind": "MONEY_MONTH", "value": "12.5", "alerts": "100, 50 80%", "is_hard": "on"}
    )
    assert done.status_code == 302
    (row,) = rows_of("quotas_limit", tenant_id=stage.tenant_id)
    assert (row["value"], row["alert_percents"], row["is_hard"]) == (12_500_000_000, [50, 80, 100], True)
    limit = public_id(PREFIXES["limit"], row["id"])
    page = text_of(stage.get("limits"))
    assert "$12.50" in page
    assert "50 %,</span>" in page
    change = text_of(stage.get("limit-change", limit))
    assert 'value="12.5"' in change
    assert stage.post("limit-change", limit, data={"value": "20", "alerts": "90"}).status_code == 302
    current = [row for row in rows_of("quotas_limit", tenant_id=stage.tenant_id) if row["ends_at"] is None]
    assert [(row["value"], row["is_hard"]) for row in current] == [(20 * 10**9, False)]
    limit = public_id(PREFIXES["limit"], current[0]["id"])
    assert "Alerts only" in text_of(stage.get("limits"))
    assert "no longer counts" in text_of(stage.get("limit-remove", limit))
    assert stage.post("limit-remove", limit).status_code == 302
    assert 'data-testid="limits-empty"' in text_of(stage.get("limits"))
    assert [event["action"] for event in events(stage.tenant_id)] == ["limit.set", "limit.set", "limit.clear"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"kind": "TOKENS_DAY", "value": "many"}, "Enter a whole number."),
        ({"kind": "TOKENS_DAY", "value": "-5"}, "Enter a whole number."),
        ({"kind": "TOKENS_DAY", "value": "9" * 19}, "not so large"),
        ({"kind": "MONEY_DAY", "value": "1e3"}, "Enter an amount such as 12.50"),
        ({"kind": "MONEY_DAY", "value": "-1"}, "from 0 on"),
        ({"kind": "MONEY_DAY", "value": "5", "alerts": "half"}, "Enter percentages"),
        ({"kind": "MONEY_DAY", "value": "5", "alerts": "0"}, "Enter percentages"),
        ({"kind": "MONEY_DAY", "value": "5", "alerts": "1 2 3 4 5 6"}, "at most 5 percentages"),
        ({"kind": "MONEY_DAY", "value": "5"}, "needs at least one alert"),
        ({"kind": "NONSENSE", "value": "5"}, "NONSENSE is not one of"),
        ({"kind": "TOKENS_DAY", "value": "5", "model": "not/enabled"}, "is not one of"),
        ({"kind": "TOKENS_DAY", "value": "5", "key": "key_nonsense"}, "is not one of"),
        ({}, "This field is required."),
    ],
)
def test_what_is_wrong_is_said_at_the_form(stage: Stage, data: dict[str, str], words: str) -> None:
    answer = stage.post("limit-new", data=data, htmx=True)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert not rows_of("quotas_limit", tenant_id=stage.tenant_id)


@pytest.mark.parametrize("text", ["1,000,000", "1 000 000", "1_000_000", "1000000"])
def test_counts_are_read_with_and_without_separators(stage: Stage, text: str) -> None:
    assert stage.post("limit-new", data={"kind": "TOKENS_DAY", "value": text}).status_code == 302
    (row,) = rows_of("quotas_limit", tenant_id=stage.tenant_id)
    assert row["value"] == 1_000_000


def test_a_limit_above_the_tier_is_refused_and_names_what_is_allowed(stage: Stage) -> None:
    give_tier(
        stage,
        TierCeiling(LimitKind.TOKENS_DAY, 50_000),
        TierCeiling(LimitKind.MONEY_DAY, 7 * UNIT, currency="USD"),
    )
    answer = stage.post("limit-new", data={"kind": "TOKENS_DAY", "value": "50001"}, htmx=True)
    assert answer.status_code == 422
    assert "the tier allows 50,000 at most" in text_of(answer)
    answer = stage.post("limit-new", data={"kind": "MONEY_DAY", "value": "8", "is_hard": "on"})
    assert "the tier allows $7.00 at most" in text_of(answer)
    page = text_of(stage.get("limits"))
    assert 'data-testid="tier-card"' in page
    assert "assigned by the operator" in page
    assert 'data-source="TIER"' in page


def test_scopes_are_picked_from_what_is_enabled_and_live(stage: Stage) -> None:
    model = make_model()
    key, digest = issue_key(stage.tenant_id)
    tenant = TenantFixture(stage.tenant_id, stage.public_id, "USD", key, digest)
    enable(tenant, model)
    key_id = public_id(PREFIXES["api_key"], key.id)
    form = text_of(stage.get("limit-new"))
    assert f'value="{model.slug}"' in form
    assert f'value="{key_id}"' in form
    data = {"kind": "REQUESTS_RPM", "value": "5", "model": model.slug, "key": key_id}
    assert stage.post("limit-new", data=data).status_code == 302
    (row,) = rows_of("quotas_limit", tenant_id=stage.tenant_id)
    assert (row["model_id"], row["api_key_id"]) == (model.id, key.id)
    page = text_of(stage.get("limits"))
    assert re.search(rf"{model.slug} with the key “test”", page)


def test_what_is_used_up_stands_first_and_is_marked(stage: Stage) -> None:
    model = make_model()
    key, digest = issue_key(stage.tenant_id)
    tenant = TenantFixture(stage.tenant_id, stage.public_id, "USD", key, digest)
    enable(tenant, model)
    add_granted(stage.tenant_id, UNIT)
    set_own(stage, LimitKind.TOKENS_DAY, 1000)
    spend(tenant, model, tokens=950)
    page = text_of(stage.get("limits"))
    assert "Nearly used up" in page
    assert "data-exhausted" not in page
    set_own(stage, LimitKind.TOKENS_DAY, 950)
    page = text_of(stage.get("limits"))
    assert page.index('data-testid="limits-exhausted"') < page.index('data-testid="effective-limits"')
    assert "The whole organization · Tokens per day" in page
    assert page.count("data-exhausted") == 1
    assert 'class="meter meter-bad"' in page


def test_the_default_of_the_service_is_named(stage: Stage) -> None:
    with override_settings(TUNING={**settings.TUNING, "SLUICE_RATE_LIMIT_RPM": 60}):
        page = text_of(stage.get("limits"))
        refused = stage.post("limit-new", data={"kind": "REQUESTS_RPM", "value": "61"}, htmx=True)
    assert "Default of the service" in page
    assert "the service allows 60 at most" in text_of(refused)


def test_the_next_tier_says_what_is_missing(stage: Stage) -> None:
    """In a currency that no wallet of this test has, nothing is promised."""
    make_tier(rules={"XTB": 5 * UNIT})
    give_tier(stage)
    add_paid(stage.tenant_id, UNIT)
    assert 'data-testid="next-tier"' not in text_of(stage.get("limits"))


def test_the_rail_leads_there(stage: Stage) -> None:
    page = text_of(stage.as_role(Role.BILLING).get("overview"))
    assert f'href="{stage.url("limits")}"' in page
