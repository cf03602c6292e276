"""Tiers: what each allows and what leads to it, and which an operator assigns to an organization."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Q

from models_catalog.models import CatalogModel
from portal.kit.ids import PREFIXES, public_id
from quotas.models import LimitKind, Tier, TierAssignment, TierLimit, TierRule
from quotas.models.limits import BUDGET_KINDS, MAX_LIMIT
from tenants.models import ActorKind
from tenants.operations import audit
from tenants.operations.organizations import lock_tenant
from tenants.scope import scope_alias

# Changes of tiers are made one by one: a default is one only, and a rank is nobody else's.
TIERS_LOCK: Final = 0x51C0_0002
MAX_RANK: Final = 1000
MAX_TIER_LIMITS: Final = 500
_CODE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class InvalidTier(ValueError):
    """A code, name, rank, rule or limit of a tier is none; the message says which."""


class TierTaken(ValueError):
    """Another tier has this code or rank; the message says which."""


class TierNotFound(LookupError):
    """There is no such tier."""


class TierInUse(ValueError):
    """The tier was assigned to somebody at some time, or is everybody's: it cannot be deleted."""


class DefaultTierNeeded(ValueError):
    """A tier stops being everybody's when another one becomes that."""


class OverrideNotFound(LookupError):
    """No tier that an operator assigned is in force or waits to be."""


@dataclass(frozen=True, slots=True)
class TierCeiling:
    """One limit of a tier. value: a count, or nano-units of `currency`, which only budgets have.

    model_slug: filled in when read.
    """

    kind: LimitKind
    value: int
    model_id: UUID | None = None
    currency: str = ""
    model_slug: str = ""


@dataclass(frozen=True, slots=True)
class TierRow:
    """A tier. rules: what must have been paid in a lifetime, in nano-units by currency.

    organizations: how many have it at the moment that was asked for; None when none was.
    """

    id: UUID
    code: str
    name: str
    rank: int
    is_default: bool
    rules: Mapping[str, int]
    limits: tuple[TierCeiling, ...]
    organizations: int | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["tier"], self.id)


def list_tiers(*, now: datetime | None = None) -> list[TierRow]:
    """All tiers, the lowest rank first. now: also count who has each then; as operator."""
    tiers = list(Tier.objects.prefetch_related("rules", "limits__model").order_by("rank"))
    counts = _organizations(now) if now is not None else None
    return [_row(tier, None if counts is None else counts.get(tier.id, 0)) for tier in tiers]


def find_tier(*, tier_id: UUID) -> TierRow:
    """One tier. Errors: TierNotFound."""
    return _row(_tier(tier_id), None)


def save_tier(
    *,
    code: str,
    name: str,
    rank: int,
    is_default: bool,
    rules: Mapping[str, int],
    limits: Sequence[TierCeiling],
    actor: audit.Actor,
    reason: str,
    tier_id: UUID | None = None,
) -> UUID:
    """Make a tier, or with tier_id change one, at once for everybody who has it; its id. As operator.

    The lists are the whole of it. Errors: InvalidTier, TierTaken, TierNotFound, DefaultTierNeeded,
    audit.ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    name = " ".join(name.split())
    _check(code, name, rank, rules, limits)
    with transaction.atomic(using=scope_alias()):
        _lock_tiers()
        tier = _tier(tier_id) if tier_id is not None else Tier()
        before = _described(_row(tier, None)) if tier_id is not None else None
        _check_unique(tier.id, code, rank)
        if tier.is_default and not is_default:
            raise DefaultTierNeeded("make another tier everybody's instead")
        if is_default:
            Tier.objects.filter(is_default=True).exclude(id=tier.id).update(is_default=False)
        tier.code, tier.name, tier.rank, tier.is_default = code, name, rank, is_default
        tier.save(force_insert=tier_id is None, force_update=tier_id is not None)
        _replace(tier, rules, limits)
        audit.record(
            actor=actor,
            action="tier.create" if tier_id is None else "tier.change",
            target=public_id(PREFIXES["tier"], tier.id),
            before=before,
            after=_described(find_tier(tier_id=tier.id)),
            reason=reason,
        )
    return tier.id


def delete_tier(*, tier_id: UUID, actor: audit.Actor, reason: str) -> None:
    """Delete a tier that nobody ever had. As operator.

    Errors: TierNotFound, TierInUse, audit.ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        _lock_tiers()
        tier = _tier(tier_id)
        if tier.is_default or TierAssignment.objects.filter(tier_id=tier_id).exists():
            raise TierInUse("a tier that somebody has or had is not deleted")
        before = _described(_row(tier, None))
        tier.delete()
        audit.record(
            actor=actor,
            action="tier.delete",
            target=public_id(PREFIXES["tier"], tier_id),
            before=before,
            reason=reason,
        )


def assign_tier(
    *,
    tenant_id: UUID,
    tier_id: UUID,
    ends_at: datetime | None,
    actor: audit.Actor,
    now: datetime,
    reason: str,
    starts_at: datetime | None = None,
) -> UUID:
    """An operator's override: it beats what payments lead to, from starts_at (now without it) until before
    ends_at (open without it), and takes the place of other overrides in that time; its id. As operator.

    Errors: InvalidTier for such a time, TierNotFound, audit.ReasonMissing,
    tenants.operations.OrganizationNotFound.
    """
    reason = audit.checked_reason(reason)
    begins = max(starts_at or now, now)
    if actor.kind != ActorKind.OPERATOR:
        raise ValueError("only operators assign tiers")
    if ends_at is not None and ends_at <= begins:
        raise InvalidTier("an override ends after it begins")
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        tier = _tier(tier_id)
        replaced = _end_overrides(tenant_id, begins, ends_at)
        assignment = TierAssignment.objects.create(
            tenant_id=tenant_id,
            tier=tier,
            is_automatic=False,
            starts_at=begins,
            ends_at=ends_at,
            reason=reason,
            set_by_id=actor.user_id,
        )
        audit.record(
            actor=actor,
            action="tier.assign",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["tier"], tier.id),
            before={"overrides": replaced},
            after=_override(assignment),
            reason=reason,
        )
    return assignment.id


def end_tier_override(*, tenant_id: UUID, actor: audit.Actor, now: datetime, reason: str) -> None:
    """End every override of an organization, also one that is yet to begin. As operator.

    Errors: OverrideNotFound, audit.ReasonMissing, tenants.operations.OrganizationNotFound.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        lock_tenant(tenant_id)
        ended = _end_overrides(tenant_id, now, None)
        if not ended:
            raise OverrideNotFound("no operator has assigned a tier")
        audit.record(
            actor=actor,
            action="tier.end_override",
            tenant_id=tenant_id,
            target=public_id(PREFIXES["organization"], tenant_id),
            before={"overrides": ended},
            reason=reason,
        )


def _end_overrides(tenant_id: UUID, begins: datetime, ends_at: datetime | None) -> list[dict[str, Any]]:
    """Make room between two moments: what reaches into it ends where it begins, at the earliest where it
    began itself. What was there."""
    rows = TierAssignment.objects.select_related("tier").filter(
        Q(ends_at=None) | Q(ends_at__gt=begins), tenant_id=tenant_id, is_automatic=False
    )
    if ends_at is not None:
        rows = rows.filter(starts_at__lt=ends_at)
    ended = []
    for row in rows.order_by("starts_at"):
        if row.ends_at == row.starts_at:
            continue
        ended.append(_override(row))
        row.ends_at = max(begins, row.starts_at)
        row.save(update_fields=["ends_at"])
    return ended


def _override(row: TierAssignment) -> dict[str, Any]:
    return {
        "tier": row.tier.code,
        "starts_at": row.starts_at.isoformat(),
        "ends_at": row.ends_at.isoformat() if row.ends_at else None,
    }


def _check(code: str, name: str, rank: int, rules: Mapping[str, int], limits: Sequence[TierCeiling]) -> None:
    if not _CODE.fullmatch(code):
        raise InvalidTier("a code has 1 to 32 lower-case letters, digits and hyphens")
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise InvalidTier("a name has 1 to 64 printable characters")
    if not 0 <= rank <= MAX_RANK:
        raise InvalidTier(f"a rank is a whole number from 0 to {MAX_RANK}")
    if not all(0 < paid <= MAX_LIMIT for paid in rules.values()):
        raise InvalidTier("a rule is an amount above zero")
    if len(limits) > MAX_TIER_LIMITS:
        raise InvalidTier(f"a tier has at most {MAX_TIER_LIMITS} limits")
    if not all(0 <= limit.value <= MAX_LIMIT for limit in limits):
        raise InvalidTier(f"a limit is a whole number from 0 to {MAX_LIMIT}")
    if not all((limit.kind in BUDGET_KINDS) == bool(limit.currency) for limit in limits):
        raise InvalidTier("a limit of money has a currency, and no other has one")
    if len({(limit.model_id, limit.kind, limit.currency) for limit in limits}) != len(limits):
        raise InvalidTier("a tier has one limit for each model and kind")
    models = {limit.model_id for limit in limits if limit.model_id}
    if CatalogModel.objects.filter(id__in=models).count() != len(models):
        raise InvalidTier("a limit is for a model that exists")


def _check_unique(tier_id: UUID, code: str, rank: int) -> None:
    others = Tier.objects.exclude(id=tier_id)
    if others.filter(code=code).exists():
        raise TierTaken("another tier has this code")
    if others.filter(rank=rank).exists():
        raise TierTaken("another tier has this rank")


def _replace(tier: Tier, rules: Mapping[str, int], limits: Sequence[TierCeiling]) -> None:
    TierRule.objects.filter(tier=tier).delete()
    TierLimit.objects.filter(tier=tier).delete()
    TierRule.objects.bulk_create(
        TierRule(tier=tier, currency=currency, lifetime_paid_nanos=paid) for currency, paid in rules.items()
    )
    TierLimit.objects.bulk_create(
        TierLimit(
            tier=tier, model_id=limit.model_id, kind=limit.kind, currency=limit.currency, value=limit.value
        )
        for limit in limits
    )


def _lock_tiers() -> None:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TIERS_LOCK])


def _tier(tier_id: UUID) -> Tier:
    tier = Tier.objects.prefetch_related("rules", "limits__model").filter(id=tier_id).first()
    if tier is None:
        raise TierNotFound("there is no such tier")
    return tier


def _row(tier: Tier, organizations: int | None) -> TierRow:
    order = {kind.value: number for number, kind in enumerate(LimitKind)}
    limits = [
        TierCeiling(
            LimitKind(limit.kind),
            limit.value,
            limit.model_id,
            limit.currency,
            limit.model.slug if limit.model else "",
        )
        for limit in tier.limits.all()
    ]
    limits.sort(key=lambda limit: (limit.model_slug, order[limit.kind], limit.currency))
    rules = {rule.currency: rule.lifetime_paid_nanos for rule in tier.rules.all()}
    return TierRow(
        tier.id,
        tier.code,
        tier.name,
        tier.rank,
        tier.is_default,
        dict(sorted(rules.items())),
        tuple(limits),
        organizations,
    )


def _organizations(now: datetime) -> dict[UUID, int]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT quotas_tier_at(t.id, %s) AS tier_id, count(*) FROM tenants_tenant t GROUP BY 1", (now,)
        )
        return {tier_id: count for tier_id, count in cursor.fetchall() if tier_id is not None}


def _described(row: TierRow) -> dict[str, Any]:
    """A tier as the audit log keeps it."""
    return {
        "code": row.code,
        "name": row.name,
        "rank": row.rank,
        "is_default": row.is_default,
        "rules": dict(row.rules),
        "limits": [
            {
                "kind": limit.kind.value,
                "model": limit.model_slug or None,
                "currency": limit.currency or None,
                "value": limit.value,
            }
            for limit in row.limits
        ],
    }
