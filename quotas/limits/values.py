"""What was set for an organization, by whom: the values that quotas_effective_limits chooses from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.db import connections
from django.db.models import Q, QuerySet

from portal.kit.ids import PREFIXES, public_id
from quotas.models import Limit, LimitKind, LimitOrigin, TierLimit, Wallet
from quotas.models.limits import ANY
from tenants.scope import scope_alias


class LimitSource(StrEnum):
    """Whose value it is. INSTALLATION: the rate that applies where neither tier nor operator set one."""

    TIER = "TIER"
    OPERATOR = "OPERATOR"
    TENANT = "TENANT"
    INSTALLATION = "INSTALLATION"


@dataclass(frozen=True, slots=True)
class Place:
    """One scope and kind: every call of the organization, or those of a model, a key, or both."""

    kind: LimitKind
    model_id: UUID | None = None
    api_key_id: UUID | None = None


ORGANIZATION_RPM: Final = Place(LimitKind.REQUESTS_RPM)


@dataclass(frozen=True, slots=True)
class SetValue:
    """One value for a place. limit_id: of a Limit; None for a tier's and the installation's."""

    value: int
    is_hard: bool = True
    alert_percents: tuple[int, ...] = ()
    limit_id: UUID | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["limit"], self.limit_id) if self.limit_id else ""


@dataclass(slots=True)
class PlaceValues:
    """All values for one place; `applied` is the hard one that counts, with whose it is."""

    by_source: dict[LimitSource, SetValue] = field(default_factory=dict)
    applied: tuple[int, LimitSource] | None = None


def in_force(at: datetime) -> Q:
    """Rows of periods that contain this moment."""
    return Q(starts_at__lte=at) & (Q(ends_at=None) | Q(ends_at__gt=at))


def limits_in_force(*, tenant_id: UUID, at: datetime) -> QuerySet[Limit]:
    return Limit.objects.filter(in_force(at), tenant_id=tenant_id)


def tier_at(*, tenant_id: UUID, at: datetime) -> UUID | None:
    """The tier of an organization at a moment; None where no tier is everybody's."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT quotas_tier_at(%s, %s)", (tenant_id, at))
        found: UUID | None = cursor.fetchone()[0]
    return found


def values_by_place(*, tenant_id: UUID, at: datetime, default_rpm: int = 0) -> dict[Place, PlaceValues]:
    """What was set for each place that has anything set, and which value counts there.

    default_rpm: what the installation allows where no tier and no operator says otherwise; 0 for no such.
    """
    places: dict[Place, PlaceValues] = {}
    for place, source, value in [*_from_tier(tenant_id, at), *_from_limits(tenant_id, at)]:
        places.setdefault(place, PlaceValues()).by_source[source] = value
    for place, ceiling, source in _applied(tenant_id, at):
        places.setdefault(place, PlaceValues()).applied = (ceiling, source)
    if default_rpm:
        _apply_default(places.setdefault(ORGANIZATION_RPM, PlaceValues()), default_rpm)
    return places


def ceiling_of(values: PlaceValues | None) -> tuple[int, LimitSource] | None:
    """What an organization's own value may be at most: the operator's, else the tier's, else the
    installation's; None when nobody set any. Soft budgets are no ceilings."""
    for source in (LimitSource.OPERATOR, LimitSource.TIER, LimitSource.INSTALLATION):
        found = values.by_source.get(source) if values else None
        if found is not None and found.is_hard:
            return found.value, source
    return None


def _apply_default(values: PlaceValues, default_rpm: int) -> None:
    if values.by_source.keys() & {LimitSource.TIER, LimitSource.OPERATOR}:
        return
    values.by_source[LimitSource.INSTALLATION] = SetValue(default_rpm)
    if values.applied is None or values.applied[0] > default_rpm:
        values.applied = (default_rpm, LimitSource.INSTALLATION)


def _from_limits(tenant_id: UUID, at: datetime) -> Iterable[tuple[Place, LimitSource, SetValue]]:
    for row in limits_in_force(tenant_id=tenant_id, at=at):
        yield (
            Place(LimitKind(row.kind), row.model_id, row.api_key_id),
            LimitSource(LimitOrigin(row.origin)),
            SetValue(row.value, row.is_hard, tuple(row.alert_percents), row.id, row.starts_at, row.ends_at),
        )


def _from_tier(tenant_id: UUID, at: datetime) -> Iterable[tuple[Place, LimitSource, SetValue]]:
    tier_id = tier_at(tenant_id=tenant_id, at=at)
    if tier_id is None:
        return
    currency = Wallet.objects.filter(tenant_id=tenant_id).values_list("currency", flat=True).first() or ""
    for row in TierLimit.objects.filter(tier_id=tier_id, currency__in=("", currency)):
        yield Place(LimitKind(row.kind), row.model_id), LimitSource.TIER, SetValue(row.value)


def _applied(tenant_id: UUID, at: datetime) -> Iterable[tuple[Place, int, LimitSource]]:
    """The same function as admission and the gateway ask."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT kind, model_id, api_key_id, value, source FROM quotas_effective_limits(%s, %s)",
            (tenant_id, at),
        )
        rows: list[Any] = cursor.fetchall()
    for kind, model_id, api_key_id, value, source in rows:
        yield Place(LimitKind(kind), _none(model_id), _none(api_key_id)), value, LimitSource(source)


def _none(value: UUID) -> UUID | None:
    return None if value == ANY else value
