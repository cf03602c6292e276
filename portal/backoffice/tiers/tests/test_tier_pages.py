"""Operators' pages of tiers and of one organization's limits: every write with its reason and its trail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse

from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.limits import tiers
from quotas.limits.tests.stage import Bounded, free_rank, make_bounded, make_tier
from quotas.limits.tiers import TierCeiling, TierRow
from quotas.models import LimitKind
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import make_model
from tests.people import signed_in

pytestmark = pytest.mark.usefixtures("database")

HTMX = {"HX-Request": "true"}


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@pytest.fixture
def bounded(database: None) -> Bounded:
    return make_bounded()


def url(name: str, *parts: str) -> str:
    return reverse(f"backoffice:{name}", args=parts)


def text_of(answer: Any) -> str:
    return str(answer.content.decode())


def tier_form(**changes: str) -> dict[str, str]:
    with role_scope("operator"):
        rank = free_rank()
    return {
        "name": "Growth",
        "code": uuid7().hex,
        "rank": str(rank),
        "reason": "new price list",
        "models-TOTAL_FORMS": "2",
        "models-INITIAL_FORMS": "0",
        **changes,
    }


def tier_with(code: str) -> TierRow | None:
    with role_scope("operator"):
        return next((row for row in tiers.list_tiers() if row.code == code), None)


def test_a_tier_is_made_changed_and_deleted(client: Client) -> None:
    model = make_model()
    form = tier_form(
        paid_USD="100",
        paid_CNY="700.50",
        REQUESTS_RPM="1,000",
        MONEY_DAY_CNY="50",
        **{
            "models-0-model": model.slug,
            "models-0-kind": "MONEY_MONTH",
            "models-0-value": "12.5",
            "models-0-currency": "USD",
            "models-1-kind": "REQUESTS_RPM",
        },
    )
    # The catalog may hold more models than a list of choices shows; then this row could not be picked.
    page = text_of(client.get(url("tier-new")))
    assert "models-0-model" in page
    if f'value="{model.slug}"' not in page:
        form |= {"models-0-model": "", "models-0-value": ""}
    assert client.post(url("tier-new"), form).status_code == 302
    row = tier_with(form["code"])
    assert row is not None
    assert row.rules == {"USD": 100 * 10**9, "CNY": 700_500_000_000}
    kinds = {(limit.kind, limit.value, limit.currency) for limit in row.limits if limit.model_id is None}
    assert kinds == {(LimitKind.REQUESTS_RPM, 1000, ""), (LimitKind.MONEY_DAY, 50 * 10**9, "CNY")}
    if form["models-0-model"]:
        assert [limit.value for limit in row.limits if limit.model_id == model.id] == [12_500_000_000]
    shown = text_of(client.get(url("tier", row.public_id)))
    assert 'value="700.5"' in shown
    listed = text_of(client.get(url("tiers")))
    assert f'data-code="{form["code"]}"' in listed
    changed = {**form, "name": "Scale", "paid_CNY": "", "models-0-model": "", "models-0-value": ""}
    assert client.post(url("tier", row.public_id), changed).status_code == 302
    after = tier_with(form["code"])
    assert after is not None
    assert (after.name, after.rules) == ("Scale", {"USD": 100 * 10**9})
    assert "Nobody ever had it" in text_of(client.get(url("tier-delete", row.public_id), headers=HTMX))
    assert client.post(url("tier-delete", row.public_id), {"reason": "x"}).status_code == 422
    assert client.post(url("tier-delete", row.public_id), {"reason": "not sold"}).status_code == 302
    assert tier_with(form["code"]) is None
    trail = rows_of("tenants_auditevent", target=row.public_id)
    assert {event["action"] for event in trail} == {"tier.create", "tier.change", "tier.delete"}
    assert {event["reason"] for event in trail} == {"new price list", "not sold"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": ""}, "This field is required."),
        ({"code": "Not A Code"}, "a code has"),
        ({"paid_USD": "0"}, "above zero"),
        ({"REQUESTS_RPM": "many"}, "Enter a whole number."),
        ({"MONEY_DAY_USD": "-1"}, "from 0 on"),
        ({"models-0-value": "5"}, "Fill in the whole row."),
        ({"rank": "9999"}, "less than or equal to 1000"),
    ],
)
def test_what_is_wrong_with_a_tier_is_said(client: Client, changes: dict[str, str], words: str) -> None:
    form = tier_form(**{"models-0-kind": "REQUESTS_RPM", "models-0-currency": "USD", **changes})
    answer = client.post(url("tier-new"), form)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert tier_with(form["code"]) is None


def test_ranks_are_taken_once(client: Client) -> None:
    form = tier_form()
    assert client.post(url("tier-new"), form).status_code == 302
    answer = client.post(url("tier-new"), {**form, "code": uuid7().hex})
    assert answer.status_code == 422
    assert "this code or this rank" in text_of(answer)


def test_an_operator_sets_changes_and_clears_a_limit(client: Client, bounded: Bounded) -> None:
    org = bounded.tenant.public_id
    page = text_of(client.get(url("tenant-limits", org)))
    assert 'data-testid="limits-empty"' in page
    day = (utc_now() + timedelta(days=3)).date()
    form = {
        "kind": "MONEY_DAY",
        "value": "5",
        "is_hard": "on",
        "alerts": "80",
        "ends_on": str(day),
        "reason": "trial",
    }
    assert client.post(url("tenant-limit-new", org), {**form, "reason": ""}).status_code == 422
    yesterday = str((utc_now() - timedelta(days=2)).date())
    late = client.post(url("tenant-limit-new", org), {**form, "ends_on": yesterday})
    assert (late.status_code, "not over yet" in text_of(late)) == (422, True)
    assert client.post(url("tenant-limit-new", org), form).status_code == 302
    (row,) = rows_of("quotas_limit", tenant_id=bounded.id)
    assert (row["origin"], row["value"], row["ends_at"].date()) == (
        "OPERATOR",
        5 * 10**9,
        day + timedelta(days=1),
    )
    limit = public_id(PREFIXES["limit"], row["id"])
    assert limit in text_of(client.get(url("tenant-limits", org)))
    assert 'value="5"' in text_of(client.get(url("tenant-limit-change", org, limit)))
    changed = client.post(
        url("tenant-limit-change", org, limit), {"value": "6", "is_hard": "on", "reason": "more"}
    )
    assert changed.status_code == 302
    (current,) = [one for one in rows_of("quotas_limit", tenant_id=bounded.id) if one["value"] == 6 * 10**9]
    limit = public_id(PREFIXES["limit"], current["id"])
    assert client.post(url("tenant-limit-clear", org, limit), {"reason": "over"}).status_code == 302
    assert bounded.limits().lines == ()
    trail = rows_of("tenants_auditevent", tenant_id=bounded.id)
    assert sorted(event["reason"] for event in trail) == ["more", "over", "trial"]


def test_an_own_limit_is_shown_beside_and_can_be_cleared_but_not_changed(
    client: Client, bounded: Bounded
) -> None:
    org = bounded.tenant.public_id
    limit = public_id(PREFIXES["limit"], bounded.set_own(LimitKind.TOKENS_DAY, 5))
    page = text_of(client.get(url("tenant-limits", org)))
    assert "The organization" in page
    assert url("tenant-limit-change", org, limit) not in page
    assert client.get(url("tenant-limit-change", org, limit)).status_code == 404
    other = make_bounded()
    assert client.get(url("tenant-limit-clear", other.tenant.public_id, limit)).status_code == 404
    assert client.post(url("tenant-limit-clear", org, limit), {"reason": "by mistake"}).status_code == 302
    assert bounded.limits().lines == ()


def test_a_tier_is_assigned_from_a_day_to_a_day_and_ended(client: Client, bounded: Bounded) -> None:
    org = bounded.tenant.public_id
    tier_id = make_tier([TierCeiling(LimitKind.CONCURRENCY, 3)])
    tier = public_id(PREFIXES["tier"], tier_id)
    today = utc_now().date()
    form = {"tier": tier, "reason": "pilot", "ends_on": str(today + timedelta(days=2))}
    wrong = client.post(
        url("tenant-tier", org), {**form, "starts_on": str(today + timedelta(days=5))}, headers=HTMX
    )
    assert (wrong.status_code, "not before the first" in text_of(wrong)) == (422, True)
    assert client.post(url("tenant-tier", org), form).status_code == 302
    page = text_of(client.get(url("tenant-limits", org)))
    assert 'data-testid="tier-override"' in page
    assert "pilot" in page
    standing = bounded.limits().tier
    assert standing is not None
    assert standing.tier_id == tier_id
    # The organization sees that it was assigned, and not why.
    own = text_of(signed_in(bounded.owner).get(reverse("console:limits", args=[org])))
    assert "assigned by the operator" in own
    assert "pilot" not in own
    assert client.post(url("tenant-tier-end", org), {"reason": "pilot over"}).status_code == 302
    assert bounded.limits().tier is None
    again = client.post(url("tenant-tier-end", org), {"reason": "pilot over"})
    assert (again.status_code, "No tier is assigned" in text_of(again)) == (422, True)


def test_what_does_not_exist(client: Client, bounded: Bounded) -> None:
    nobody = public_id(PREFIXES["organization"], uuid7())
    nothing = public_id(PREFIXES["limit"], UUID(int=5))
    for address in (
        url("tenant-limits", nobody),
        url("tenant-tier", nobody),
        url("tenant-limit-clear", bounded.tenant.public_id, nothing),
        url("tenant-limit-clear", bounded.tenant.public_id, "lim_x"),
        url("tier", public_id(PREFIXES["tier"], uuid7())),
    ):
        assert client.get(address).status_code == 404, address
