"""Whom a change of a price reaches, what they pay before it, and whether it gets dearer for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connections

from models_catalog.models import CatalogModel, PriceVersion
from models_catalog.pricing.compare import Increase, compare
from models_catalog.pricing.content import PriceContent
from models_catalog.pricing.storage import read_contents
from portal.kit.ids import PREFIXES, public_id
from tenants.scope import scope_alias


@dataclass(frozen=True, slots=True)
class Affected:
    """An organization that the change reaches at `at`. before: the version that it pays until then.

    increases: empty when nothing gets dearer than what it pays now or would pay right before.
    """

    tenant_id: UUID
    name: str
    at: datetime
    before: UUID | None
    increases: tuple[Increase, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def pays_more(self) -> bool:
        return bool(self.increases)


@dataclass(frozen=True, slots=True)
class Place:
    """Which price: of a model, in a currency, for one organization or, None, on the list."""

    model_id: UUID
    currency: str
    tenant_id: UUID | None


# Everybody whose calls can be priced with it: the model is enabled and the wallet is in the currency. The
# list reaches an organization at the first moment of the period when no private price of its own counts.
_REACHED: Final = """
  SELECT t.id, t.name, r.at,
    catalog_version_at(%(model)s, t.id, %(currency)s, %(now)s),
    catalog_version_at(%(model)s, t.id, %(currency)s, r.at - interval '1 microsecond')
  FROM models_catalog_modelgrant g
  JOIN tenants_tenant t ON t.id = g.tenant_id
  CROSS JOIN LATERAL (
    SELECT min(m.at) AS at FROM (
      SELECT %(from)s::timestamptz AS at
      UNION ALL
      SELECT p.active_to FROM models_catalog_priceversion p
      WHERE p.model_id = %(model)s AND p.currency = %(currency)s AND p.tenant_id = t.id
        AND p.published_at IS NOT NULL AND p.active_to > %(from)s
        AND (%(to)s::timestamptz IS NULL OR p.active_to < %(to)s::timestamptz)
        AND %(tenant)s::uuid IS NULL
    ) m
    WHERE %(tenant)s::uuid IS NOT NULL OR NOT EXISTS (
      SELECT 1 FROM models_catalog_priceversion p
      WHERE p.model_id = %(model)s AND p.currency = %(currency)s AND p.tenant_id = t.id
        AND p.published_at IS NOT NULL AND p.active_from <= m.at
        AND (p.active_to IS NULL OR m.at < p.active_to))
  ) r
  WHERE g.model_id = %(model)s AND g.ended_at IS NULL AND t.currency = %(currency)s
    AND t.state <> 'CLOSED' AND r.at IS NOT NULL
    AND (%(tenant)s::uuid IS NULL OR t.id = %(tenant)s::uuid)
  ORDER BY lower(t.name), t.id
"""


def affected_by(
    *,
    place: Place,
    content: PriceContent | None,
    active_from: datetime,
    active_to: datetime | None,
    now: datetime,
) -> list[Affected]:
    """Organizations for which `content` counts at some time of [active_from, active_to), by name.

    content None: they have no price then. Asked before the change is written.
    """
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _REACHED,
            {
                "model": place.model_id,
                "currency": place.currency,
                "tenant": place.tenant_id,
                "now": now,
                "from": active_from,
                "to": active_to,
            },
        )
        rows = cursor.fetchall()
    judge = _Judge(place.model_id, content, (version for row in rows for version in row[3:]))
    return [
        Affected(tenant_id, name, at, before, judge.increases(current, before))
        for tenant_id, name, at, current, before in rows
    ]


def increases(*, version_id: UUID, against: UUID | None) -> list[Increase]:
    """In what one version is dearer than another; against None, in nothing."""
    model_id = PriceVersion.objects.values_list("model_id", flat=True).get(id=version_id)
    (content,) = read_contents(PriceVersion.objects.filter(id=version_id)).values()
    return list(_Judge(model_id, content, [against]).increases(against))


class _Judge:
    """Compares one content with versions, each once: thousands of organizations pay the same price."""

    def __init__(self, model_id: UUID, content: PriceContent | None, versions: Iterable[UUID | None]) -> None:
        ids = {version for version in versions if version is not None}
        self._content = content
        self._old = read_contents(PriceVersion.objects.filter(id__in=ids))
        self._max_tokens = CatalogModel.objects.values_list("context_tokens", flat=True).get(id=model_id)
        self._found: dict[UUID, tuple[Increase, ...]] = {}

    def increases(self, *versions: UUID | None) -> tuple[Increase, ...]:
        """In what the content is dearer than any of these, the first that it is dearer than."""
        for version in versions:
            if version is not None and (found := self._of(version)):
                return found
        return ()

    def _of(self, version: UUID) -> tuple[Increase, ...]:
        if version not in self._found:
            self._found[version] = tuple(
                compare(self._content, self._old[version], max_input_tokens=self._max_tokens)
            )
        return self._found[version]


def payers(affected: Sequence[Affected]) -> list[Affected]:
    """Those for whom something gets dearer."""
    return [one for one in affected if one.pays_more]
