"""Tiers: saving, assigning, and rising by what was paid."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connections

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.limits import operations, tiers
from quotas.limits.promotion import promote_tiers
from quotas.limits.queries import EffectiveLimits, effective_limits
from quotas.limits.standing import tier_overrides
from quotas.limits.tests.stage import (
    CURRENCY,
    UNIT,
    free_rank,
    make_bounded,
    make_tier,
    open_in_test_currency,
)
from quotas.limits.tests.test_setting_limits import at_once
from quotas.limits.tiers import TierCeiling, TierRow
from quotas.models import LimitKind, LimitOrigin, Tier
from tenants.models import Membership, Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import rows_of
from tests.factories import add_granted, add_paid, make_model
from tests.people import Person, make_person

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def operator(database: None) -> audit.Actor:
    return audit.operator(make_person("operator", is_staff=True).id)


def save(operator: audit.Actor, **changes: Any) -> UUID:
    with role_scope("operator"):
        values: dict[str, Any] = {
            "code": uuid7().hex,
            "name": "Growth",
            "rank": free_rank(),
            "is_default": False,
            "rules": {},
            "limits": (),
            "actor": operator,
            "reason": "for the test",
        }
        return tiers.save_tier(**(values | changes))


def found(tier_id: UUID) -> TierRow:
    with role_scope("operator"):
        return tiers.find_tier(tier_id=tier_id)


def test_a_saved_tier_reads_back_and_a_change_is_the_whole_of_it(operator: audit.Actor) -> None:
    model = make_model()
    limits = [
        TierCeiling(LimitKind.REQUESTS_RPM, 60),
        TierCeiling(LimitKind.REQUESTS_RPM, 6, model.id),
        TierCeiling(LimitKind.MONEY_DAY, 10**10, currency="CNY"),
    ]
    tier_id = save(operator, rules={CURRENCY: 10**9}, limits=limits)
    row = found(tier_id)
    assert row.rules == {CURRENCY: 10**9}
    assert {(limit.kind, limit.value, limit.model_id, limit.currency) for limit in row.limits} == {
        (limit.kind, limit.value, limit.model_id, limit.currency) for limit in limits
    }
    save(operator, tier_id=tier_id, code=row.code, rank=row.rank, name="Scale", rules={}, limits=limits[:1])
    changed = found(tier_id)
    assert (changed.name, changed.rules, len(changed.limits)) == ("Scale", {}, 1)
    trail = rows_of("tenants_auditevent", target=public_id(PREFIXES["tier"], tier_id))
    by_action = {event["action"]: event for event in trail}
    assert set(by_action) == {"tier.create", "tier.change"}
    assert by_action["tier.change"]["before"] == by_action["tier.create"]["after"]
    assert by_action["tier.change"]["reason"] == "for the test"


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "Not A Code"},
        {"name": " "},
        {"rank": -1},
        {"rank": 1001},
        {"rules": {"USD": 0}},
        {"limits": [TierCeiling(LimitKind.MONEY_DAY, 1)]},
        {"limits": [TierCeiling(LimitKind.TOKENS_DAY, 1, currency="USD")]},
        {"limits": [TierCeiling(LimitKind.TOKENS_DAY, -1)]},
        {"limits": [TierCeiling(LimitKind.TOKENS_DAY, 1), TierCeiling(LimitKind.TOKENS_DAY, 2)]},
        {"limits": [TierCeiling(LimitKind.TOKENS_DAY, 1, uuid7())]},
    ],
)
def test_what_is_no_tier(operator: audit.Actor, changes: dict[str, Any]) -> None:
    with pytest.raises(tiers.InvalidTier):
        save(operator, **changes)


def test_codes_and_ranks_are_nobody_elses(operator: audit.Actor) -> None:
    row = found(save(operator))
    for taken in ({"code": row.code}, {"rank": row.rank}):
        with pytest.raises(tiers.TierTaken):
            save(operator, **taken)
    with pytest.raises(tiers.TierNotFound):
        save(operator, tier_id=uuid7())


def test_one_tier_is_everybodys_until_another_one_is(operator: audit.Actor) -> None:
    """A tier without limits, so that no other test notices; and none is everybody's afterwards."""
    bounded = make_bounded()
    first, second = save(operator, is_default=True), save(operator)
    try:
        standing = bounded.limits().tier
        assert standing is not None
        assert (standing.tier_id, standing.since, standing.is_override) == (first, None, False)
        row = found(first)
        with pytest.raises(tiers.DefaultTierNeeded):
            save(operator, tier_id=first, code=row.code, rank=row.rank)
        row = found(second)
        save(operator, tier_id=second, code=row.code, rank=row.rank, is_default=True)
        assert not found(first).is_default
        with role_scope("operator"), pytest.raises(tiers.TierInUse):
            tiers.delete_tier(tier_id=second, actor=operator, reason="for the test")
        with role_scope("operator"):
            counts = {row.id: row.organizations for row in tiers.list_tiers(now=utc_now())}
        assert counts[first] == 0
        assert (counts[second] or 0) >= 1
    finally:
        with role_scope("operator"):
            Tier.objects.filter(is_default=True).update(is_default=False)


def test_only_a_tier_that_nobody_had_is_deleted(operator: audit.Actor) -> None:
    unused, used = save(operator), save(operator)
    bounded = make_bounded()
    bounded.assign(used)
    with role_scope("operator"):
        tiers.end_tier_override(tenant_id=bounded.id, actor=operator, now=utc_now(), reason="for the test")
        with pytest.raises(tiers.TierInUse):
            tiers.delete_tier(tier_id=used, actor=operator, reason="for the test")
        tiers.delete_tier(tier_id=unused, actor=operator, reason="for the test")
        with pytest.raises(tiers.TierNotFound):
            tiers.find_tier(tier_id=unused)
        with pytest.raises(tiers.OverrideNotFound):
            tiers.end_tier_override(
                tenant_id=bounded.id, actor=operator, now=utc_now(), reason="for the test"
            )


def test_an_override_takes_the_place_of_those_in_its_time(operator: audit.Actor) -> None:
    bounded, tier = make_bounded(), make_tier()
    now = utc_now()
    day = timedelta(days=1)
    bounded.assign(tier, now=now, starts_at=now + 10 * day, ends_at=now + 11 * day)
    bounded.assign(tier, now=now, ends_at=now + 5 * day)
    bounded.assign(tier, now=now, starts_at=now + 3 * day, ends_at=now + 4 * day)
    with role_scope("operator"):
        rows = tier_overrides(tenant_id=bounded.id, now=now)
    assert [((row.starts_at - now) / day, ((row.ends_at or now) - now) / day) for row in rows] == [
        (0, 3),
        (3, 4),
        (10, 11),
    ]
    with pytest.raises(tiers.InvalidTier):
        bounded.assign(tier, now=now, ends_at=now)
    bounded.assign(tier, now=now)
    with role_scope("operator"):
        assert len(tier_overrides(tenant_id=bounded.id, now=now)) == 1
        tiers.end_tier_override(tenant_id=bounded.id, actor=operator, now=now + day, reason="for the test")
        assert not tier_overrides(tenant_id=bounded.id, now=now + day)


# --- Promotion -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ladder(database: None) -> tuple[UUID, UUID]:
    """Two tiers: one is reached with 100 units, the higher one with 1,000."""
    low = make_tier([TierCeiling(LimitKind.REQUESTS_RPM, 60)], rules={CURRENCY: 100 * UNIT})
    money = TierCeiling(LimitKind.MONEY_DAY, 50 * UNIT, currency=CURRENCY)
    other = TierCeiling(LimitKind.MONEY_DAY, 77 * UNIT, currency="CNY")
    return low, make_tier(
        [TierCeiling(LimitKind.REQUESTS_RPM, 6000), money, other], rules={CURRENCY: 1000 * UNIT}
    )


def limits_of(tenant_id: UUID) -> EffectiveLimits:
    with tenant_scope(tenant_id):
        return effective_limits(tenant_id=tenant_id, now=utc_now())


def promote(tenant_id: UUID | None = None) -> int:
    with role_scope("operator"):
        return promote_tiers(now=utc_now(), tenant_id=tenant_id)


def mails_to(person: Person) -> list[dict[str, Any]]:
    return rows_of("tenants_outboxmessage", role="dataplane", to_email=person.email)


def test_an_organization_rises_with_what_it_has_paid(ladder: tuple[UUID, UUID]) -> None:
    low, high = ladder
    tenant_id, owner = open_in_test_currency(paid_nanos=99 * UNIT)
    add_granted(tenant_id, 5000 * UNIT)
    assert promote(tenant_id) == 0
    limits = limits_of(tenant_id)
    assert limits.tier is None
    assert limits.next_tier is not None
    assert (limits.next_tier.tier_id, limits.next_tier.missing_nanos, limits.paid_nanos) == (
        low,
        UNIT,
        99 * UNIT,
    )
    add_paid(tenant_id, UNIT)
    assert promote() == 1
    assert promote() == 0
    limits = limits_of(tenant_id)
    assert limits.tier is not None
    assert (limits.tier.tier_id, limits.tier.is_override) == (low, False)
    assert limits.next_tier is not None
    assert (limits.next_tier.tier_id, limits.next_tier.missing_nanos) == (high, 900 * UNIT)
    add_paid(tenant_id, 900 * UNIT)
    assert promote(tenant_id) == 1
    limits = limits_of(tenant_id)
    assert limits.tier is not None
    assert (limits.tier.tier_id, limits.next_tier) == (high, None)
    first, second = sorted(mails_to(owner), key=lambda mail: mail["created_at"])
    assert found(low).name in first["text_body"]
    assert "Requests per minute: 60\n" in first["text_body"]
    assert "Money per day: XTS 50.00" in second["text_body"]
    assert "77.00" not in second["text_body"]
    assert f"/o/{public_id(PREFIXES['organization'], tenant_id)}/limits" in second["html_body"]
    trail = [
        row for row in rows_of("tenants_auditevent", tenant_id=tenant_id) if row["action"] == "tier.promote"
    ]
    assert [row["actor_kind"] for row in trail] == ["SYSTEM", "SYSTEM"]
    assert {row["after"]["lifetime_paid_nanos"] for row in trail} == {100 * UNIT, 1000 * UNIT}


def test_nobody_is_put_down_and_what_paid_a_debt_counts(
    operator: audit.Actor, ladder: tuple[UUID, UUID]
) -> None:
    tenant_id, _ = open_in_test_currency(paid_nanos=100 * UNIT)
    assert promote(tenant_id) == 1
    row = found(ladder[0])
    save(
        operator,
        tier_id=row.id,
        code=row.code,
        rank=row.rank,
        rules={CURRENCY: 200 * UNIT},
        limits=row.limits,
    )
    try:
        assert promote(tenant_id) == 0
        standing = limits_of(tenant_id).tier
        assert standing is not None
        assert standing.tier_id == row.id
    finally:
        save(operator, tier_id=row.id, code=row.code, rank=row.rank, rules=row.rules, limits=row.limits)


def test_an_override_beats_what_was_reached_while_it_lasts(
    operator: audit.Actor, ladder: tuple[UUID, UUID]
) -> None:
    tenant_id, owner = open_in_test_currency(paid_nanos=100 * UNIT)
    small = make_tier([TierCeiling(LimitKind.REQUESTS_RPM, 1)])
    now = utc_now()
    with role_scope("operator"):
        tiers.assign_tier(
            tenant_id=tenant_id,
            tier_id=small,
            ends_at=now + timedelta(days=1),
            actor=operator,
            now=now,
            reason="they overdid it",
        )
    assert promote(tenant_id) == 1
    assert not mails_to(owner)
    with tenant_scope(tenant_id):
        names = [
            effective_limits(tenant_id=tenant_id, now=now + timedelta(hours=hour)).tier for hour in (1, 25)
        ]
    assert [tier.tier_id for tier in names if tier] == [small, ladder[0]]


def test_promotions_at_once_are_one(ladder: tuple[UUID, UUID]) -> None:
    tenant_id, owner = open_in_test_currency(paid_nanos=1000 * UNIT)
    billing = make_person("billing")
    with role_scope("operator"):
        Membership.objects.create(id=uuid7(), tenant_id=tenant_id, user_id=billing.id, role=Role.BILLING)
        viewer = make_person("viewer")
        Membership.objects.create(id=uuid7(), tenant_id=tenant_id, user_id=viewer.id, role=Role.VIEWER)
    counts: list[int] = []

    def run() -> None:
        try:
            counts.append(promote(tenant_id))
        finally:
            connections.close_all()

    at_once([run] * 3)
    assert sorted(counts) == [0, 0, 1]
    assert len(rows_of("quotas_tierassignment", tenant_id=tenant_id)) == 1
    assert (len(mails_to(owner)), len(mails_to(billing)), len(mails_to(viewer))) == (1, 1, 0)


def test_own_limits_stay_below_a_tier_that_was_reached(ladder: tuple[UUID, UUID]) -> None:
    tenant_id, owner = open_in_test_currency(paid_nanos=100 * UNIT)
    assert promote(tenant_id) == 1
    with tenant_scope(tenant_id), pytest.raises(operations.AboveCeiling):
        operations.set_limit(
            tenant_id=tenant_id,
            kind=LimitKind.REQUESTS_RPM,
            value=61,
            origin=LimitOrigin.TENANT,
            actor=audit.member(owner.id, Role.OWNER),
            now=utc_now(),
        )
