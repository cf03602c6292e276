"""The catalog as a list: searched, narrowed down, sorted, with how many there are of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.db import connections

from models_catalog.models import ApiKeyModel, CatalogModel, ModelGrant, ModelState
from models_catalog.operations import ModelNotFound
from models_catalog.queries.prices import (
    ListedPrice,
    Price,
    PriceChange,
    listed_prices,
    next_change,
    price_of,
    version_at,
)
from portal.kit.ids import PREFIXES, public_id
from tenants.models import ApiKey
from tenants.operations import KeyNotFound
from tenants.scope import scope_alias

Sort = Literal["relevance", "name", "newest", "input_price", "context"]

MAX_PAGE_MODELS = 200
MAX_ENABLED_MODELS = 500
MAX_SEARCH_LENGTH = 200
MAX_SEARCH_WORDS = 8
# Words of fewer characters have no trigrams of their own; they must be contained. Names of models are short
# and odd, so that a slip of the finger leaves about half of a word's trigrams.
MIN_FUZZY_LENGTH = 3
MIN_SIMILARITY = 0.45


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A listed model. price: in the currency asked for, None when it has none there. is_enabled: by the
    organization asked for."""

    id: UUID
    slug: str
    display_name: str
    description: str
    context_tokens: int
    max_output_tokens: int
    default_output_cap_tokens: int
    capabilities: tuple[str, ...]
    created_at: datetime
    is_enabled: bool
    price: ListedPrice | None

    @property
    def vendor(self) -> str:
        return self.slug.partition("/")[0]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["model"], self.id)


@dataclass(frozen=True, slots=True)
class Facet:
    """How many models the list would have with this value chosen besides the others."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class ModelList:
    """A page of the catalog; `next` is what `after` takes for the next one. total: of all pages."""

    rows: tuple[ModelRow, ...]
    total: int
    vendors: tuple[Facet, ...]
    capabilities: tuple[Facet, ...]
    next: str | None


_ORDERS = {
    "relevance": "score DESC, lower(display_name), slug",
    "name": "lower(display_name), slug",
    "newest": "created_at DESC, slug",
    "input_price": "input_price ASC NULLS LAST, slug",
    "context": "context_tokens DESC, slug",
}
# Vendors are alternatives, so their counts leave the choice of vendors aside; capabilities add up.
_LIST = """
WITH words AS (
  SELECT w.word, w.pattern, length(w.word) >= %(min_fuzzy)s AS is_fuzzy
  FROM unnest(%(words)s::text[], %(patterns)s::text[]) AS w(word, pattern)
), listed AS MATERIALIZED (
  SELECT m.id, m.slug, m.display_name, m.context_tokens, m.created_at, m.capabilities,
    split_part(m.slug, '/', 1) AS vendor,
    catalog_version_at(m.id, %(tenant)s, %(currency)s, %(now)s) AS version_id, s.score
  FROM models_catalog_catalogmodel m
  CROSS JOIN LATERAL (
    SELECT coalesce(bool_and(f.score > 0), true) AS is_found, coalesce(sum(f.score), 0) AS score
    FROM words w CROSS JOIN LATERAL (
      SELECT CASE WHEN m.display_name ILIKE w.pattern OR m.slug ILIKE w.pattern THEN 2 ELSE 0 END
        + CASE WHEN m.description ILIKE w.pattern THEN 0.5 ELSE 0 END
        + coalesce((
          SELECT n.similarity FROM (
            SELECT word_similarity(w.word, m.slug || ' ' || m.display_name) AS similarity) n
          WHERE w.is_fuzzy AND n.similarity >= %(min_similarity)s), 0) AS score) f
  ) s
  WHERE m.state = 'ACTIVE' AND s.is_found
    AND (%(min_context)s::bigint IS NULL OR m.context_tokens >= %(min_context)s::bigint)
    AND m.capabilities @> %(capabilities)s::varchar[]
), priced AS MATERIALIZED (
  SELECT l.*, p.price_nanos_per_million AS input_price,
    %(vendors)s::text[] IS NULL OR l.vendor = ANY (%(vendors)s::text[]) AS is_of_vendor
  FROM listed l LEFT JOIN LATERAL (
    SELECT c.price_nanos_per_million
    FROM catalog_chosen_lines(l.version_id, 'standard', catalog_window_at(l.version_id, %(now)s), 0) c
    WHERE c.token_class = 'input') p ON true
  WHERE %(max_input_price)s::bigint IS NULL OR p.price_nanos_per_million <= %(max_input_price)s::bigint
), placed AS (
  SELECT id, slug, version_id, row_number() OVER (ORDER BY {order}) AS place FROM priced WHERE is_of_vendor
)
SELECT 'model' AS what, slug AS value, place, id, version_id FROM placed
WHERE place > coalesce((SELECT place FROM placed WHERE slug = %(after)s), 0)
  AND place <= coalesce((SELECT place FROM placed WHERE slug = %(after)s), 0) + %(limit)s
UNION ALL SELECT 'total', '', count(*), NULL, NULL FROM placed
UNION ALL SELECT 'vendor', vendor, count(*), NULL, NULL FROM priced GROUP BY vendor
UNION ALL SELECT 'capability', c, count(*), NULL, NULL FROM priced, unnest(capabilities) c
  WHERE is_of_vendor GROUP BY c
ORDER BY what, place, value
"""


def list_models(
    *,
    currency: str,
    now: datetime,
    search: str = "",
    capabilities: Sequence[str] = (),
    vendors: Sequence[str] = (),
    max_input_price: int | None = None,
    min_context: int | None = None,
    sort: Sort = "relevance",
    tenant_id: UUID | None = None,
    after: str | None = None,
    limit: int = 60,
) -> ModelList:
    """A page of the models on offer. In the scope of a tenant with its tenant_id, else in that of auth.

    search: every word must be contained in slug, name or description, or be like a part of slug or name.
    capabilities: all of these; vendors: any of these. max_input_price: nano-units per million tokens now,
    min_context: tokens. after: the slug of the last model before the page; limit: 1 to MAX_PAGE_MODELS.
    """
    limit = max(1, min(limit, MAX_PAGE_MODELS))
    words = search[:MAX_SEARCH_LENGTH].replace("\0", " ").split()[:MAX_SEARCH_WORDS]
    parameters: dict[str, Any] = {
        "words": words,
        "patterns": [contains_pattern(word) for word in words],
        "min_fuzzy": MIN_FUZZY_LENGTH,
        "min_similarity": MIN_SIMILARITY,
        "tenant": tenant_id,
        "currency": currency,
        "now": now,
        "min_context": min_context,
        "capabilities": list(capabilities),
        "vendors": list(vendors) or None,
        "max_input_price": max_input_price,
        "after": after,
        "limit": limit + 1,
    }
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_LIST.format(order=_ORDERS[sort]), parameters)
        found = cursor.fetchall()
    models = [row for row in found if row[0] == "model"]
    rows = _rows([(row[3], row[4]) for row in models[:limit]], tenant_id, now)
    return ModelList(
        rows,
        next(count for what, _, count, *_ in found if what == "total"),
        _facets(found, "vendor"),
        _facets(found, "capability"),
        rows[-1].slug if len(models) > limit else None,
    )


def contains_pattern(word: str) -> str:
    """A pattern for ILIKE that finds the word anywhere, with nothing in it special."""
    for special in ("\\", "%", "_"):
        word = word.replace(special, f"\\{special}")
    return f"%{word}%"


def _facets(found: list[tuple[Any, ...]], what: str) -> tuple[Facet, ...]:
    facets = [Facet(value, count) for kind, value, count, *_ in found if kind == what]
    return tuple(sorted(facets, key=lambda facet: (-facet.count, facet.value)))


def _rows(
    chosen: Sequence[tuple[UUID, UUID | None]], tenant_id: UUID | None, now: datetime
) -> tuple[ModelRow, ...]:
    """The models with these price versions, in this order."""
    models = CatalogModel.objects.in_bulk([model_id for model_id, _ in chosen])
    prices = listed_prices(version_ids=[version_id for _, version_id in chosen if version_id], now=now)
    enabled: set[UUID] = set()
    if tenant_id is not None:
        grants = ModelGrant.objects.filter(tenant_id=tenant_id, ended_at=None, model_id__in=list(models))
        enabled = set(grants.values_list("model_id", flat=True))
    return tuple(
        ModelRow(
            id=model.id,
            slug=model.slug,
            display_name=model.display_name,
            description=model.description,
            context_tokens=model.context_tokens,
            max_output_tokens=model.max_output_tokens,
            default_output_cap_tokens=model.default_output_cap_tokens,
            capabilities=tuple(model.capabilities),
            created_at=model.created_at,
            is_enabled=model.id in enabled,
            price=prices.get(version_id) if version_id else None,
        )
        for model, version_id in ((models[model_id], version_id) for model_id, version_id in chosen)
    )


@dataclass(frozen=True, slots=True)
class ModelPage:
    """One model. price: every line of the version that counts now, None without one in the currency;
    next_change: the next published one, None when none is published."""

    model: ModelRow
    price: Price | None
    next_change: PriceChange | None


def model_page(*, slug: str, currency: str, now: datetime, tenant_id: UUID | None = None) -> ModelPage:
    """One model on offer. In the scope of a tenant with its tenant_id, else in that of auth.

    Errors: ModelNotFound, also for a retired model.
    """
    model_id = (
        CatalogModel.objects.filter(slug=slug, state=ModelState.ACTIVE).values_list("id", flat=True).first()
    )
    if model_id is None:
        raise ModelNotFound(f"there is no model {slug}")
    version_id = version_at(model_id=model_id, tenant_id=tenant_id, currency=currency, at=now)
    (row,) = _rows([(model_id, version_id)], tenant_id, now)
    return ModelPage(
        row,
        price_of(version_id=version_id, at=now) if version_id else None,
        next_change(model_id=model_id, tenant_id=tenant_id, currency=currency, now=now),
    )


def enabled_models(
    *, tenant_id: UUID, currency: str, now: datetime, api_key_id: UUID | None = None
) -> tuple[ModelRow, ...]:
    """The models that an organization has enabled, or that one of its keys may use, by name; at most
    MAX_ENABLED_MODELS. In the scope of the tenant. Errors: KeyNotFound."""
    models = CatalogModel.objects.filter(
        state=ModelState.ACTIVE,
        id__in=ModelGrant.objects.filter(tenant_id=tenant_id, ended_at=None).values("model_id"),
    )
    if api_key_id is not None:
        key = ApiKey.objects.filter(tenant_id=tenant_id, id=api_key_id).first()
        if key is None:
            raise KeyNotFound("no such key")
        if key.restricts_models:
            allowed = ApiKeyModel.objects.filter(tenant_id=tenant_id, api_key_id=api_key_id)
            models = models.filter(id__in=allowed.values("model_id"))
    ids = list(models.order_by("display_name", "slug").values_list("id", flat=True)[:MAX_ENABLED_MODELS])
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT m.id, catalog_version_at(m.id, %s, %s, %s) "
            "FROM unnest(%s::uuid[]) WITH ORDINALITY AS m(id, place) ORDER BY m.place",
            [tenant_id, currency, now, ids],
        )
        chosen = cursor.fetchall()
    return _rows(chosen, tenant_id, now)
