"""Two organizations that have a row in every table: what walls are tried with."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

from models_catalog import operations as catalog_operations
from models_catalog.models import CatalogModel, PriceNotice, PriceNoticeKind
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.business.operations import allocate_hour
from quotas.credit import operations as credit_operations
from quotas.credit.policy import CreditPolicy
from quotas.models import (
    BudgetAlert,
    CreditOrderKind,
    Limit,
    LimitKind,
    LimitOrigin,
    Tier,
    TierAssignment,
    WelcomeGrant,
)
from quotas.reconciliation.tests.said import Said, make_feed, post, take
from quotas.tests.doors import admit, settle
from tenants import operations as tenant_operations
from tenants.models import ManagementScope, Membership, Role, User
from tenants.operations import OutgoingMail, audit
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    issue_key,
    make_model,
    make_price,
    make_tenant,
    settlement_row,
)
from tests.factories_bank import make_every_bank_row
from tests.factories_bundles import make_ready_bundle
from tests.factories_payments import make_every_payment
from tests.factories_postpaid import make_every_postpaid
from tests.people import Person


class Populated(NamedTuple):
    """Two organizations with a row in every table that a tenant owns."""

    mine: TenantFixture
    theirs: TenantFixture
    model: ModelFixture


def populate() -> Populated:
    """Makes them. Rows of one organization are like those of the other."""
    model = make_model()
    made = Populated(make_tenant(paid="1.00"), make_tenant(paid="1.00"), model)
    feed_id = make_feed(model.backend_id)
    for tenant in (made.mine, made.theirs):
        enable(tenant, model)
        private_id = make_price(model.id, tenant_id=tenant.id)
        with role_scope("operator"):
            PriceNotice.objects.create(
                tenant_id=tenant.id,
                version_id=private_id,
                kind=PriceNoticeKind.NEW_PRICE,
                takes_effect_at=utc_now(),
                next_attempt_at=utc_now(),
                mailed_at=utc_now(),
            )
        with role_scope("auth"):
            user = User.objects.create_user(email=f"{uuid7()}@example.com", full_name="Somebody")
        with role_scope("operator"):
            Membership.objects.create(tenant_id=tenant.id, user=user, role=Role.OWNER)
            WelcomeGrant.objects.create(
                tenant_id=tenant.id, user=user, currency=tenant.currency, amount_nanos=1
            )
            tenant_operations.accept_terms(user_id=user.id, version="1", tenant_id=tenant.id)
            tenant_operations.invite_member(
                tenant_id=tenant.id,
                email="somebody.else@example.com",
                role=Role.VIEWER,
                actor_id=user.id,
                actor_role=Role.OWNER,
                compose=lambda token: OutgoingMail("somebody.else@example.com", "Join us", token),
                now=utc_now(),
            )
            slug = CatalogModel.objects.get(id=model.id).slug
            catalog_operations.restrict_api_key(tenant_id=tenant.id, key_id=tenant.key.id, slugs=[slug])
            _hold_management_key(tenant.id, audit.member(user.id, Role.OWNER))
            _bound(tenant.id, user.id)
            _order_credit(tenant.id, audit.operator(user.id))
        make_every_payment(tenant)
        make_every_postpaid(tenant)
        # The key above may not use the model that the paid credit is consumed with.
        key, digest_hex = issue_key(tenant.id)
        unbound = replace(tenant, key=key, digest_hex=digest_hex)
        make_every_bank_row(unbound, Person(user.id, user.email), with_reference=True)
        rows = [admission_row(tenant, model) for _ in range(2)]
        with connected("dataplane") as dataplane:
            admit(dataplane, *rows)
            settle(dataplane, settlement_row(rows[0], prompt_tokens=10))
        # The backend says something else, and is right.
        take(feed_id, [Said(rows[0].attempt_id, 12, 0)])
        post()
        make_ready_bundle(tenant)
    for tenant in (made.mine, made.theirs):
        _allocate_hour_of(tenant)
    return made


def _allocate_hour_of(tenant: TenantFixture) -> None:
    """What the calls of all organizations cost and earned in the hour of this one's."""
    with connected("operator") as operator:
        row = operator.execute(
            "SELECT max(admitted_at) FROM quotas_inferencerequest WHERE tenant_id = %s", (tenant.id,)
        ).fetchone()
    assert row is not None
    hour = row[0].replace(minute=0, second=0, microsecond=0)
    assert allocate_hour(hour=hour, now=max(utc_now(), hour + timedelta(seconds=2)))


def _bound(tenant_id: UUID, user_id: UUID) -> None:
    """A tier, a budget that stops nothing, whose counter the next admission makes, and an alert."""
    tier, _ = Tier.objects.get_or_create(code="walls", defaults={"name": "Walls", "rank": 50})
    TierAssignment.objects.create(tenant_id=tenant_id, tier=tier, is_automatic=True, starts_at=utc_now())
    Limit.objects.create(
        tenant_id=tenant_id,
        kind=LimitKind.MONEY_DAY,
        origin=LimitOrigin.TENANT,
        value=10**15,
        starts_at=utc_now() - timedelta(minutes=1),
        set_by_id=user_id,
    )
    BudgetAlert.objects.create(
        tenant_id=tenant_id,
        kind=LimitKind.MONEY_DAY,
        period_start=utc_now().date(),
        percent=50,
        value=10**15,
        used=1,
    )


def _order_credit(tenant_id: UUID, actor: audit.Actor) -> None:
    """An order of credit that expires, which was carried out, and a note."""
    credit_operations.order_credit(
        tenant_id=tenant_id,
        kind=CreditOrderKind.GRANT,
        amount_nanos=1,
        reason="for the test",
        actor=actor,
        policy=CreditPolicy(limit_nanos=1, line_limit_nanos=0),
        now=utc_now(),
        expires_at=utc_now() + timedelta(days=30),
    )
    tenant_operations.add_note(tenant_id=tenant_id, text="for the test", actor=actor)


def _hold_management_key(tenant_id: UUID, maker: audit.Actor) -> None:
    """One key, and one write that was made with it."""
    assert settings.SECRET_STORE is not None
    key = tenant_operations.create_management_key(
        tenant_id=tenant_id,
        name="deploy",
        role=Role.VIEWER,
        scopes=[ManagementScope.KEYS_READ],
        expires_at=None,
        actor=maker,
        secrets=settings.SECRET_STORE,
        now=utc_now(),
    )
    tenant_operations.remember_write(
        tenant_id=tenant_id,
        management_key_id=key.id,
        idempotency_key="first",
        fingerprint=bytes(32),
        answer=tenant_operations.StoredAnswer(201, "{}"),
        secrets=settings.SECRET_STORE,
        now=utc_now(),
    )
