"""What models cost now, and when that changes: nano-units per million units of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connections

from models_catalog.models import PriceLine, PriceVersion, PriceWindow, PriceWindowSpan, ServiceTier
from portal.kit.ids import PREFIXES, public_id
from tenants.scope import scope_alias

DAY_MINUTES: Final = 1440


@dataclass(frozen=True, slots=True)
class ClassPrice:
    """Nano-units per million tokens of the standard tier for a short input: now, and over the times of the
    week."""

    now: int
    cheapest: int
    dearest: int


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """What a model costs now. A class without a line of its own costs what the class that contains it does.

    is_private: agreed with the organization. has_bands: longer inputs may cost otherwise.
    """

    version_id: UUID
    currency: str
    input: ClassPrice
    cached_input: ClassPrice
    output: ClassPrice
    is_private: bool
    has_bands: bool


@dataclass(frozen=True, slots=True)
class WeekSpan:
    """Minutes of the week from Monday 00:00, half-open, in the version's time zone."""

    from_minute: int
    to_minute: int


@dataclass(frozen=True, slots=True)
class DailyTimes:
    """The same times on some days (0 is Monday): minutes of the day, half-open; 1,440 is midnight."""

    days: tuple[int, ...]
    from_minute: int
    to_minute: int


@dataclass(frozen=True, slots=True)
class Window:
    """A named part of the week, such as off-peak. is_open: at the moment that was asked for."""

    id: UUID
    name: str
    is_open: bool
    spans: tuple[WeekSpan, ...]

    @property
    def times(self) -> tuple[DailyTimes, ...]:
        """The spans cut at midnight, and days of the same times together: as people write opening hours."""
        days: dict[tuple[int, int], list[int]] = {}
        for span in self.spans:
            start = span.from_minute
            while start < span.to_minute:
                day = start // DAY_MINUTES
                end = min(span.to_minute, (day + 1) * DAY_MINUTES)
                days.setdefault((start - day * DAY_MINUTES, end - day * DAY_MINUTES), []).append(day)
                start = end
        return tuple(DailyTimes(tuple(found), *times) for times, found in days.items())


@dataclass(frozen=True, slots=True)
class Line:
    """One price. window None: at all times without a line of their own; input_to_tokens None: open."""

    token_class: str
    service_tier: str
    window: str | None
    input_from_tokens: int
    input_to_tokens: int | None
    price_nanos_per_million: int


@dataclass(frozen=True, slots=True)
class Price:
    """A published version with all its lines: standard tier first, then by class, band and window."""

    version_id: UUID
    currency: str
    time_zone: str
    active_from: datetime
    active_to: datetime | None
    is_private: bool
    lines: tuple[Line, ...]
    windows: tuple[Window, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["price"], self.version_id)


@dataclass(frozen=True, slots=True)
class PriceChange:
    """From `at` on the price is another one; None: the model then has no price and cannot be called."""

    at: datetime
    price: Price | None


# For each model the version that counts, the window that is open in it, and the lines that a short input
# is charged with in each of its windows and outside of them.
LISTED_PRICES: Final = """
  SELECT v.id AS version_id, v.currency, v.tenant_id IS NOT NULL AS is_private,
    EXISTS (SELECT 1 FROM models_catalog_priceline b
            WHERE b.version_id = v.id AND b.service_tier = 'standard' AND b.input_from_tokens > 0
           ) AS has_bands,
    c.token_class, max(c.price) FILTER (WHERE c.is_now) AS now,
    min(c.price) AS cheapest, max(c.price) AS dearest
  FROM models_catalog_priceversion v
  CROSS JOIN LATERAL (SELECT catalog_window_at(v.id, %(now)s) AS id) o
  CROSS JOIN LATERAL (
    SELECT l.token_class, l.price_nanos_per_million AS price, w.id IS NOT DISTINCT FROM o.id AS is_now
    FROM (SELECT NULL::uuid AS id UNION ALL
          SELECT DISTINCT s.window_id FROM models_catalog_pricewindowspan s WHERE s.version_id = v.id) w
    CROSS JOIN LATERAL catalog_chosen_lines(v.id, 'standard', w.id, 0) l
    WHERE l.token_class IN ('input', 'cached_input', 'output')) c
  WHERE v.id = ANY (%(versions)s)
  GROUP BY v.id, c.token_class
"""


def listed_prices(*, version_ids: Sequence[UUID], now: datetime) -> dict[UUID, ListedPrice]:
    """Prices of versions, in the scope that is open; by the version."""
    if not version_ids:
        return {}
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(LISTED_PRICES, {"versions": list(version_ids), "now": now})
        found = cursor.fetchall()
    classes: dict[UUID, dict[str, ClassPrice]] = {}
    flags: dict[UUID, tuple[str, bool, bool]] = {}
    for version_id, currency, is_private, has_bands, token_class, *prices in found:
        classes.setdefault(version_id, {})[token_class] = ClassPrice(*prices)
        flags[version_id] = currency, is_private, has_bands
    return {
        version_id: ListedPrice(
            version_id, currency, by["input"], by["cached_input"], by["output"], is_private, has_bands
        )
        for (version_id, by), (currency, is_private, has_bands) in zip(
            classes.items(), flags.values(), strict=True
        )
    }


def version_at(*, model_id: UUID, tenant_id: UUID | None, currency: str, at: datetime) -> UUID | None:
    """The version that counts at a moment; one of the tenant's own beats the list."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT catalog_version_at(%s, %s, %s, %s)", [model_id, tenant_id, currency, at])
        version_id: UUID | None = cursor.fetchone()[0]
    return version_id


def next_change(
    *, model_id: UUID, tenant_id: UUID | None, currency: str, now: datetime
) -> PriceChange | None:
    """When the published price is another one next, as far as it is published."""
    with connections[scope_alias()].cursor() as cursor:
        # Only when a version begins or ends can another one count.
        cursor.execute(
            """
            SELECT e.at, catalog_version_at(%(model)s, %(tenant)s, %(currency)s, e.at)
            FROM (
              SELECT DISTINCT unnest(ARRAY[v.active_from, v.active_to]) AS at
              FROM models_catalog_priceversion v
              WHERE v.model_id = %(model)s AND v.currency = %(currency)s AND v.published_at IS NOT NULL
                AND (v.tenant_id IS NULL OR v.tenant_id = %(tenant)s)) e
            WHERE e.at > %(now)s
              AND catalog_version_at(%(model)s, %(tenant)s, %(currency)s, e.at)
                IS DISTINCT FROM catalog_version_at(%(model)s, %(tenant)s, %(currency)s, %(now)s)
            ORDER BY e.at LIMIT 1
            """,
            {"model": model_id, "tenant": tenant_id, "currency": currency, "now": now},
        )
        found = cursor.fetchone()
    if found is None:
        return None
    at, version_id = found
    return PriceChange(at, price_of(version_id=version_id, at=at) if version_id else None)


def price_of(*, version_id: UUID, at: datetime) -> Price:
    """A version with its lines and windows; `at` says which window counts as open."""
    version = PriceVersion.objects.get(id=version_id)
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT catalog_window_at(%s, %s)", [version_id, at])
        (open_window,) = cursor.fetchone()
    spans: dict[UUID, list[WeekSpan]] = {}
    for span in PriceWindowSpan.objects.filter(version_id=version_id).order_by("minutes"):
        spans.setdefault(span.window_id, []).append(WeekSpan(span.minutes.lower, span.minutes.upper))
    windows = tuple(
        Window(window.id, window.name, window.id == open_window, tuple(spans.get(window.id, ())))
        for window in PriceWindow.objects.filter(version_id=version_id).order_by("name")
    )
    names = {window.id: window.name for window in windows}
    lines = [
        Line(
            line.token_class,
            line.service_tier,
            names[line.window_id] if line.window_id else None,
            line.input_from_tokens,
            line.input_to_tokens,
            line.price_nanos_per_million,
        )
        for line in PriceLine.objects.filter(version_id=version_id)
    ]
    return Price(
        version.id,
        version.currency,
        version.time_zone,
        version.active_from,
        version.active_to,
        version.tenant_id is not None,
        tuple(sorted(lines, key=_line_order)),
        windows,
    )


_CLASS_ORDER: Final = ("input", "cached_input", "image", "output", "reasoning", "request")


def _line_order(line: Line) -> tuple[int, int, int, str]:
    return (
        ServiceTier.values.index(line.service_tier),
        _CLASS_ORDER.index(line.token_class),
        line.input_from_tokens,
        line.window or "",
    )
