"""Effective limits: everything that bounds an organization's calls, in one place, with whose value it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from models_catalog.models import CatalogModel
from portal.kit.ids import PREFIXES, public_id
from quotas.limits.periods import resets_at
from quotas.limits.standing import NextTier, TierStanding, next_tier, standing
from quotas.limits.use import Use, use_of
from quotas.limits.values import LimitSource, Place, PlaceValues, SetValue, values_by_place
from quotas.models import LimitKind, Wallet
from tenants import queries as tenant_queries
from tenants.queries import KeyRow

_KINDS: Final = {kind: number for number, kind in enumerate(LimitKind)}


@dataclass(frozen=True, slots=True)
class LimitScope:
    """Whose calls a limit counts. Everything is empty for those of the whole organization.

    key_is_live: false for a key that expired or was revoked, or that is no program's.
    """

    model_id: UUID | None = None
    model_slug: str = ""
    api_key_id: UUID | None = None
    key_name: str = ""
    key_is_live: bool = True

    @property
    def is_organization(self) -> bool:
        return self.model_id is None and self.api_key_id is None

    @property
    def key_public_id(self) -> str:
        return public_id(PREFIXES["api_key"], self.api_key_id) if self.api_key_id else ""

    @property
    def order(self) -> tuple[int, str, str, str]:
        """The organization, then models, then keys, then models through keys; by name."""
        rank = 2 * (self.api_key_id is not None) + (self.model_id is not None)
        return rank, self.key_name, self.key_public_id, self.model_slug


@dataclass(frozen=True, slots=True)
class LimitLine:
    """One scope and kind: the value that applies, whose it is, and the values beside it.

    value: what refuses calls; where every value is soft, the lowest of those, and is_hard is false.
    Tokens and requests are counted, money is in nano-units. used, pending and resets_at are None for
    rates. alert_percents: of the organization's budget, else of the operator's.
    """

    scope: LimitScope
    kind: LimitKind
    value: int
    source: LimitSource
    is_hard: bool
    of_tier: SetValue | None
    of_operator: SetValue | None
    of_tenant: SetValue | None
    of_installation: SetValue | None
    used: int | None
    pending: int | None
    resets_at: datetime | None

    @property
    def alert_percents(self) -> tuple[int, ...]:
        for value in (self.of_tenant, self.of_operator):
            if value is not None and value.alert_percents:
                return value.alert_percents
        return ()

    @property
    def percent(self) -> int | None:
        """How much of it is used and reserved, in whole percent rounded down; None for rates."""
        if self.used is None or self.pending is None:
            return None
        return 100 if self.value == 0 else (self.used + self.pending) * 100 // self.value

    @property
    def is_exhausted(self) -> bool:
        """Whether it refuses the next call, as far as that can be known before it comes."""
        if not self.is_hard:
            return False
        percent = self.percent
        return self.value == 0 if percent is None else percent >= 100


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """What applies to an organization at a moment.

    tier: None where no tier is everybody's. next_tier: None at the top, and where no rule leads further.
    paid_nanos: what it has paid in its lifetime.
    """

    tenant_id: UUID
    currency: str
    tier: TierStanding | None
    next_tier: NextTier | None
    paid_nanos: int
    lines: tuple[LimitLine, ...]

    @property
    def exhausted(self) -> tuple[LimitLine, ...]:
        return tuple(line for line in self.lines if line.is_exhausted)

    @property
    def own(self) -> tuple[LimitLine, ...]:
        """The lines for which the organization set a value of its own, whether it counts or not."""
        return tuple(line for line in self.lines if line.of_tenant is not None)


def effective_limits(*, tenant_id: UUID, now: datetime, default_rpm: int = 0) -> EffectiveLimits:
    """Every limit of an organization now, in the scope that is open (its own, or the operator's).

    default_rpm: requests a minute that the installation allows where neither tier nor operator set any;
    0 for no such limit.
    """
    currency = Wallet.objects.filter(tenant_id=tenant_id).values_list("currency", flat=True).first() or ""
    places = values_by_place(tenant_id=tenant_id, at=now, default_rpm=default_rpm)
    used = use_of(tenant_id=tenant_id, places=list(places), now=now)
    scopes = _Scopes(tenant_id, list(places), now)
    lines = [_line(scopes.of(place), place, values, used.get(place), now) for place, values in places.items()]
    tier = standing(tenant_id=tenant_id, now=now)
    following, paid_nanos = next_tier(tenant_id=tenant_id, currency=currency, tier=tier)
    return EffectiveLimits(
        tenant_id,
        currency,
        tier,
        following,
        paid_nanos,
        tuple(sorted(lines, key=lambda line: (line.scope.order, _KINDS[line.kind]))),
    )


def _line(scope: LimitScope, place: Place, values: PlaceValues, use: Use | None, now: datetime) -> LimitLine:
    by_source = values.by_source
    if values.applied is not None:
        value, source = values.applied
    else:
        source = min(by_source, key=lambda one: (by_source[one].value, one != LimitSource.TENANT))
        value = by_source[source].value
    return LimitLine(
        scope=scope,
        kind=place.kind,
        value=value,
        source=source,
        is_hard=values.applied is not None,
        of_tier=by_source.get(LimitSource.TIER),
        of_operator=by_source.get(LimitSource.OPERATOR),
        of_tenant=by_source.get(LimitSource.TENANT),
        of_installation=by_source.get(LimitSource.INSTALLATION),
        used=use.used if use else None,
        pending=use.pending if use else None,
        resets_at=resets_at(place.kind, now),
    )


class _Scopes:
    """Places with the names of their models and keys."""

    def __init__(self, tenant_id: UUID, places: list[Place], now: datetime) -> None:
        models = {place.model_id for place in places if place.model_id}
        self._slugs = dict(CatalogModel.objects.filter(id__in=models).values_list("id", "slug"))
        self._keys: dict[UUID, KeyRow] = {}
        if any(place.api_key_id for place in places):
            rows = tenant_queries.list_api_keys(tenant_id=tenant_id, now=now, with_playground=True)
            self._keys = {row.id: row for row in rows}

    def of(self, place: Place) -> LimitScope:
        key = self._keys.get(place.api_key_id) if place.api_key_id else None
        return LimitScope(
            model_id=place.model_id,
            model_slug=self._slugs.get(place.model_id, "") if place.model_id else "",
            api_key_id=place.api_key_id,
            key_name=key.name if key else "",
            key_is_live=place.api_key_id is None or (key is not None and key.is_live),
        )
