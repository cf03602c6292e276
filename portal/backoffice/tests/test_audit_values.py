"""The audit log in words of people: no raw unit is left, nothing is rounded, and what is unknown stays."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from portal.backoffice.audit.rows import shown_events
from portal.backoffice.audit.values import name_text, value_text
from portal.kit.ids import PREFIXES, public_id
from portal.pages.tags import moment
from tenants.audit_queries import AuditRow
from tenants.models import ActorKind, AuditOutcome

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "value", "facts", "shown_name", "shown"),
    [
        ("energy_nanos_per_kwh", 110_000_000, {"currency": "USD"}, "energy per kwh", "$0.11"),
        ("amount_nanos", -12_500_000_000, {"currency": "CNY"}, "amount", "−¥12.50"),
        ("lifetime_paid_nanos", 1_234_500_000_000, {}, "lifetime paid", "1,234.5"),
        ("reserved_ppm", 125_000, {}, "reserved", "12.5 %"),
        ("reserved_ppm", 1_000_000, {}, "reserved", "100 %"),
        ("pue_thousandths", 1_250, {}, "pue", "1.25"),
        ("output_weight", 4_000, {}, "output weight", "4"),
        ("value", 5_000_000_000, {"kind": "MONEY_MONTH"}, "value", "5"),
        ("value", 5_000_000, {"kind": "TOKENS_TPM"}, "value", "5,000,000"),
        ("power_watts", 10_500, {}, "power watts", "10,500"),
        ("content_sha256", DIGEST, {}, "content sha256", "0123456789ab…"),
        ("alert_percents", [50, 80], {}, "alert percents", "50; 80"),
        ("rules", {"CNY": 10**9, "USD": 5 * 10**8}, {}, "rules", "¥1.00, $0.50"),
        (
            "limits",
            [{"kind": "MONEY_DAY", "model": None, "currency": "USD", "value": 2 * 10**9}],
            {},
            "limits",
            "kind MONEY_DAY, value $2.00",
        ),
        ("is_hard", True, {}, "is hard", "yes"),
        ("ends_at", None, {}, "ends at", "–"),
        ("something_new", "as it is", {}, "something new", "as it is"),
        ("code", "2026-13-45T00:00 is no moment", {}, "code", "2026-13-45T00:00 is no moment"),
        ("note", ["<b>"], {}, "note", "&lt;b&gt;"),
    ],
)
def test_values_in_words(
    name: str, value: object, facts: dict[str, object], shown_name: str, shown: str
) -> None:
    assert (name_text(name), value_text(name, value, facts)) == (shown_name, shown)


def test_moments_are_those_of_pages() -> None:
    at = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
    assert value_text("active_from", at.isoformat(), {}) == moment(at)


@given(st.integers(-(2**63), 2**63))
def test_amounts_without_a_currency_are_exact(nanos: int) -> None:
    text = value_text("amount_nanos", nanos, {}).replace(",", "").replace("−", "-")
    assert Decimal(text).scaleb(9) == nanos


def test_a_fact_is_answered_in_chinese_too() -> None:
    with translation.override("zh-hans"):
        assert value_text("is_hard", True, {}) == "是"
        assert value_text("is_hard", False, {}) == "否"


def event(target: str, *, action: str = "test", tenant: bool = True) -> AuditRow:
    return AuditRow(
        id=uuid4(),
        at=datetime.now(UTC),
        actor_kind=ActorKind.SYSTEM,
        actor_id=None,
        actor_email="",
        actor_role="",
        key_id=None,
        action=action,
        outcome=AuditOutcome.DONE,
        tenant_id=uuid4() if tenant else None,
        organization="",
        target=target,
        before={"currency": "USD", "energy_nanos_per_kwh": 1, "told": 1},
        after={"currency": "USD", "energy_nanos_per_kwh": 10**9, "told": 1},
        reason="",
        is_internal=False,
    )


def test_targets_lead_to_their_pages() -> None:
    for kind, place in (
        ("pool", "/operator/fleet/pools/{}"),
        ("backend", "/operator/fleet/backends/{}"),
        ("deployment", "/operator/fleet/deployments/{}"),
        ("tier", "/operator/tiers/{}"),
        ("credit_order", "/operator/approvals/?before="),
        ("limit", "/operator/tenants/org_"),
    ):
        target = public_id(PREFIXES[kind], uuid4())
        (shown,) = shown_events([event(target)])
        assert shown.target_url.startswith(place.format(target)), kind
    for stray in (event("tier_x"), event("nothing"), event(""), event("lim_/")):
        assert shown_events([stray])[0].target_url == ""
    gone = event(public_id(PREFIXES["tier"], uuid4()), action="tier.delete")
    assert shown_events([gone])[0].target_url == ""


def test_what_stayed_is_not_told() -> None:
    (shown,) = shown_events([event("")])
    (change,) = shown.changes
    assert (change.name, change.before, change.after) == ("energy per kwh", "$0.000000001", "$1.00")
