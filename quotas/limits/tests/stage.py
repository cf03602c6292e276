"""What tests of limits begin with: tiers, organizations of their own currency, members and actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas import operations as quota_operations
from quotas.admission import AdmissionRow
from quotas.limits import operations, tiers
from quotas.limits.queries import EffectiveLimits, effective_limits
from quotas.limits.tiers import TierCeiling
from quotas.models import LimitKind, LimitOrigin
from quotas.tests.doors import admitted, settle_one
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    add_paid,
    admission_row,
    make_tenant,
    settlement_row,
    unique_name,
)
from tests.people import Person, make_member, make_person

# No wallet of another module has it, so promotion there touches nobody else.
CURRENCY = "XTS"
UNIT = 10**9


@dataclass(frozen=True, slots=True)
class Bounded:
    """An organization, its owner, and an operator."""

    tenant: TenantFixture
    owner: Person
    operator: Person

    @property
    def id(self) -> UUID:
        return self.tenant.id

    @property
    def member_actor(self) -> audit.Actor:
        return audit.member(self.owner.id, Role.OWNER)

    @property
    def operator_actor(self) -> audit.Actor:
        return audit.operator(self.operator.id)

    def set_own(self, kind: LimitKind, value: int, *, now: datetime | None = None, **options: object) -> UUID:
        with tenant_scope(self.id):
            return operations.set_limit(
                tenant_id=self.id,
                kind=kind,
                value=value,
                origin=LimitOrigin.TENANT,
                actor=self.member_actor,
                now=now or utc_now(),
                **options,  # type: ignore[arg-type]
            )

    def set_operators(
        self, kind: LimitKind, value: int, *, now: datetime | None = None, **options: object
    ) -> UUID:
        with role_scope("operator"):
            return operations.set_limit(
                tenant_id=self.id,
                kind=kind,
                value=value,
                origin=LimitOrigin.OPERATOR,
                actor=self.operator_actor,
                now=now or utc_now(),
                reason="for the test",
                **options,  # type: ignore[arg-type]
            )

    def assign(
        self,
        tier_id: UUID,
        *,
        now: datetime | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
    ) -> UUID:
        with role_scope("operator"):
            return tiers.assign_tier(
                tenant_id=self.id,
                tier_id=tier_id,
                starts_at=starts_at,
                ends_at=ends_at,
                actor=self.operator_actor,
                now=now or utc_now(),
                reason="for the test",
            )

    def limits(self, *, now: datetime | None = None, default_rpm: int = 0) -> EffectiveLimits:
        with tenant_scope(self.id):
            return effective_limits(tenant_id=self.id, now=now or utc_now(), default_rpm=default_rpm)


def make_bounded(currency: str = "USD", **options: str | None) -> Bounded:
    """With the money of make_tenant's options."""
    tenant = make_tenant(currency, **options)
    return Bounded(tenant, make_member(tenant, Role.OWNER), make_person("operator", is_staff=True))


def open_in_test_currency(*, paid_nanos: int = 0, currency: str = CURRENCY) -> tuple[UUID, Person]:
    """An organization whose wallet is in a currency that no other test has, and its owner."""
    owner = make_person("payer")
    with role_scope("operator"):
        tenant_id = quota_operations.open_tenant(
            name=unique_name("Payer"), currency=currency, currencies=(currency,), owner_id=owner.id
        )
    if paid_nanos:
        add_paid(tenant_id, paid_nanos)
    return tenant_id, owner


def free_rank() -> int:
    """Above the ranks of all tiers that were saved by the rules. As operator."""
    return max([100, *(row.rank for row in tiers.list_tiers() if row.rank < tiers.MAX_RANK)]) + 1


def make_tier(
    limits: Sequence[TierCeiling] = (), *, rules: Mapping[str, int] | None = None, rank: int | None = None
) -> UUID:
    """A tier with a name of its own, above all others unless a rank is given."""
    with role_scope("operator"):
        return tiers.save_tier(
            code=uuid7().hex,
            name=unique_name("Tier"),
            rank=free_rank() if rank is None else rank,
            is_default=False,
            rules=rules or {},
            limits=limits,
            actor=audit.operator(make_person("operator", is_staff=True).id),
            reason="for the test",
        )


def spend(tenant: TenantFixture, model: ModelFixture, *, tokens: int) -> None:
    """A call that costs 1,000 nano-units for each of so many prompt tokens, and nothing else."""
    row = begin(tenant, model, tokens=tokens)
    with connected("dataplane") as connection:
        settle_one(connection, settlement_row(row, prompt_tokens=tokens))


def begin(tenant: TenantFixture, model: ModelFixture, *, tokens: int) -> AdmissionRow:
    """A call that is under way, and reserves so many prompt tokens and one of output."""
    row = admission_row(tenant, model, prompt_bound_tokens=tokens, output_cap_tokens=1)
    with connected("dataplane") as connection:
        return admitted(connection, row)
