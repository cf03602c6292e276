"""Reads for operators: every price by model and currency, one version, and drafts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.db.models import F, Q, QuerySet

from models_catalog.models import CatalogModel, PriceNotice, PriceVersion
from models_catalog.pricing.affected import Place, affected_by
from models_catalog.pricing.compare import price_at
from models_catalog.pricing.content import Gap, PriceContent, gaps
from models_catalog.pricing.drafts import DraftNotFound, of_tenant, price_id
from models_catalog.pricing.storage import read_content, read_contents
from portal.kit.ids import PREFIXES, public_id

MAX_ROWS: Final = 200


class VersionState(StrEnum):
    DRAFT = "DRAFT"
    SCHEDULED = "SCHEDULED"
    IN_FORCE = "IN_FORCE"
    ENDED = "ENDED"
    WITHDRAWN = "WITHDRAWN"  # ended before it began


class PriceNotFound(LookupError):
    """There is no such version."""


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version in a list. Prices of the standard tier for a short input outside all windows: nano-units per
    million, None where the draft has none. created_by, published_by: addresses, empty for catalog files."""

    id: UUID
    model_id: UUID
    slug: str
    model_name: str
    currency: str
    tenant_id: UUID | None
    tenant_name: str
    state: VersionState
    active_from: datetime
    active_to: datetime | None
    published_at: datetime | None
    created_at: datetime
    created_by: str
    published_by: str
    input_nanos: int | None
    cached_nanos: int | None
    output_nanos: int | None
    has_more: bool

    @property
    def public_id(self) -> str:
        return price_id(self.id)

    @property
    def tenant_public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id) if self.tenant_id else ""

    @property
    def is_private(self) -> bool:
        return self.tenant_id is not None


@dataclass(frozen=True, slots=True)
class PriceGroup:
    """The prices of a model in one currency. in_force: the list's; None without one."""

    model_id: UUID
    slug: str
    model_name: str
    currency: str
    in_force: VersionRow | None
    scheduled: tuple[VersionRow, ...]
    drafts: tuple[VersionRow, ...]
    private: tuple[VersionRow, ...]

    @property
    def rows(self) -> tuple[VersionRow, ...]:
        """As a table shows them: what counts, what will, the private prices, the drafts."""
        first = (self.in_force,) if self.in_force else ()
        return (*first, *self.scheduled, *self.private, *self.drafts)


@dataclass(frozen=True, slots=True)
class PriceBoard:
    """A page of groups, by slug and currency. next: what `after` takes for the next page."""

    groups: tuple[PriceGroup, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One version with what it says. gaps: what a draft still lacks. current: what counts now in its place.

    told: how many organizations were, or will be, told by mail that it is dearer.
    """

    row: VersionRow
    content: PriceContent
    gaps: tuple[Gap, ...]
    current: VersionRow | None
    current_content: PriceContent | None
    scheduled: tuple[VersionRow, ...]
    told: int = 0

    @property
    def is_complete(self) -> bool:
        return not self.gaps


def price_board(
    *,
    now: datetime,
    search: str = "",
    currency: str = "",
    only: str = "",
    tenant_id: UUID | None = None,
    after: str = "",
    limit: int = 25,
) -> PriceBoard:
    """Prices that count, will count, or are drafts, of `limit` models. only: drafts, scheduled or private.
    tenant_id: the list prices beside those of this organization, of models where it has one."""
    wanted = PriceVersion.objects.filter(Q(active_to=None) | Q(active_to__gt=now) | Q(published_at=None))
    wanted = wanted.filter(Q(published_at=None) | ~Q(active_to=F("active_from")))
    if currency:
        wanted = wanted.filter(currency=currency)
    if tenant_id is not None:
        wanted = wanted.filter(Q(tenant__isnull=True) | Q(tenant_id=tenant_id))
    models = CatalogModel.objects.filter(slug__gt=after) if after else CatalogModel.objects.all()
    for word in search.split()[:8]:
        models = models.filter(Q(slug__icontains=word) | Q(display_name__icontains=word))
    if only:
        models = models.filter(id__in=wanted.filter(_only(only, now)).values("model_id"))
    if tenant_id is not None:
        models = models.filter(id__in=wanted.filter(tenant_id=tenant_id).values("model_id"))
    found = list(models.order_by("slug")[: limit + 1])
    page = found[:limit]
    rows = _rows(wanted.filter(model_id__in=[model.id for model in page]), now)
    groups = [
        group
        for model in page
        for group in _groups_of(model, [row for row in rows if row.model_id == model.id])
    ]
    if only:
        groups = [group for group in groups if _has(group, only)]
    return PriceBoard(tuple(groups), page[-1].slug if len(found) > limit else None)


def list_versions(
    *,
    now: datetime,
    model_id: UUID | None = None,
    currency: str = "",
    tenant_id: UUID | None = None,
    state: VersionState | None = None,
    before: UUID | None = None,
    limit: int = MAX_ROWS,
) -> list[VersionRow]:
    """Versions of every kind, newest first; `before` is the id of the last one of the page before."""
    versions = PriceVersion.objects.all()
    if model_id is not None:
        versions = versions.filter(model_id=model_id)
    if currency:
        versions = versions.filter(currency=currency)
    if tenant_id is not None:
        versions = versions.filter(tenant_id=tenant_id)
    if state is not None:
        versions = versions.filter(_in_state(state, now))
    if before is not None:
        versions = versions.filter(id__lt=before)
    return _rows(versions.order_by("-id")[: min(limit, MAX_ROWS)], now)


def version_page(*, version_id: UUID, now: datetime) -> VersionPage:
    """One version, whatever its state. Errors: PriceNotFound."""
    version = PriceVersion.objects.filter(id=version_id).first()
    if version is None:
        raise PriceNotFound("there is no such price")
    (row,) = _rows(PriceVersion.objects.filter(id=version_id), now)
    content = read_content(version)
    place = PriceVersion.objects.filter(
        of_tenant(version.tenant_id), model_id=version.model_id, currency=version.currency
    )
    current = _rows(place.filter(_in_state(VersionState.IN_FORCE, now)), now)
    if not current and version.tenant_id is not None:
        listed = PriceVersion.objects.filter(
            of_tenant(None), model_id=version.model_id, currency=version.currency
        )
        current = _rows(listed.filter(_in_state(VersionState.IN_FORCE, now)), now)
    return VersionPage(
        row=row,
        content=content,
        gaps=tuple(gaps(content.lines)),
        current=current[0] if current else None,
        current_content=read_content(PriceVersion.objects.get(id=current[0].id)) if current else None,
        scheduled=tuple(_rows(place.filter(_in_state(VersionState.SCHEDULED, now)), now)),
        told=PriceNotice.objects.filter(version_id=version_id).count(),
    )


def draft_of(*, version_id: UUID) -> tuple[PriceVersion, PriceContent]:
    """A draft and what it says. Errors: DraftNotFound."""
    draft = PriceVersion.objects.select_related("model").filter(id=version_id, published_at=None).first()
    if draft is None:
        raise DraftNotFound("there is no such draft")
    return draft, read_content(draft)


def find_version(*, version_id: UUID) -> PriceVersion | None:
    """A version, whatever its state."""
    return PriceVersion.objects.filter(id=version_id).first()


def model_of(*, slug: str) -> UUID | None:
    """The id of a listed or retired model."""
    if "\0" in slug:
        return None
    return CatalogModel.objects.filter(slug=slug.strip()).values_list("id", flat=True).first()


def model_slugs(*, limit: int = 500) -> list[str]:
    """What there is to price, by name."""
    return list(CatalogModel.objects.order_by("slug").values_list("slug", flat=True)[:limit])


def in_force(*, model_id: UUID, currency: str, tenant_id: UUID | None, now: datetime) -> UUID | None:
    """The version that counts now in this place alone: a private price or the list, not one for the other."""
    return (
        PriceVersion.objects.filter(of_tenant(tenant_id), model_id=model_id, currency=currency)
        .filter(_in_state(VersionState.IN_FORCE, now))
        .values_list("id", flat=True)
        .first()
    )


def reach(*, model_id: UUID, currency: str, tenant_id: UUID | None, now: datetime) -> int:
    """How many organizations a price in this place would reach now."""
    found = affected_by(
        place=Place(model_id, currency, tenant_id), content=None, active_from=now, active_to=None, now=now
    )
    return len(found)


def _rows(versions: QuerySet[PriceVersion], now: datetime) -> list[VersionRow]:
    found = list(
        versions.select_related("model", "tenant").annotate(
            author=F("created_by__email"), publisher=F("published_by__email")
        )
    )
    contents = read_contents(found)
    return [_row(version, contents[version.id], now) for version in found]


def _row(version: Any, content: PriceContent, now: datetime) -> VersionRow:
    lines = tuple(content.lines)
    prices = [price_at(lines, "standard", None, name, 0) for name in ("input", "cached_input", "output")]
    return VersionRow(
        id=version.id,
        model_id=version.model_id,
        slug=version.model.slug,
        model_name=version.model.display_name,
        currency=version.currency,
        tenant_id=version.tenant_id,
        tenant_name=version.tenant.name if version.tenant_id else "",
        state=state_of(version, now),
        active_from=version.active_from,
        active_to=version.active_to,
        published_at=version.published_at,
        created_at=version.created_at,
        created_by=version.author or "",
        published_by=version.publisher or "",
        input_nanos=prices[0],
        cached_nanos=prices[1],
        output_nanos=prices[2],
        has_more=len({(line.service_tier, line.window, line.input_from_tokens) for line in lines}) > 1,
    )


def state_of(version: PriceVersion, now: datetime) -> VersionState:
    if version.published_at is None:
        return VersionState.DRAFT
    if version.active_to == version.active_from:
        return VersionState.WITHDRAWN
    if version.active_from > now:
        return VersionState.SCHEDULED
    if version.active_to is not None and version.active_to <= now:
        return VersionState.ENDED
    return VersionState.IN_FORCE


def _in_state(state: VersionState, now: datetime) -> Q:
    published = Q(published_at__isnull=False)
    holds = ~Q(active_to=F("active_from")) | Q(active_to=None)
    return {
        VersionState.DRAFT: Q(published_at=None),
        VersionState.WITHDRAWN: published & Q(active_to=F("active_from")),
        VersionState.SCHEDULED: published & holds & Q(active_from__gt=now),
        VersionState.ENDED: published & holds & Q(active_to__lte=now),
        VersionState.IN_FORCE: published
        & holds
        & Q(active_from__lte=now)
        & (Q(active_to=None) | Q(active_to__gt=now)),
    }[state]


def _only(only: str, now: datetime) -> Q:
    if only == "drafts":
        return _in_state(VersionState.DRAFT, now)
    if only == "scheduled":
        return _in_state(VersionState.SCHEDULED, now)
    return Q(tenant__isnull=False)


def _has(group: PriceGroup, only: str) -> bool:
    return bool({"drafts": group.drafts, "scheduled": group.scheduled}.get(only, group.private))


def _groups_of(model: CatalogModel, rows: Sequence[VersionRow]) -> list[PriceGroup]:
    by_currency: dict[str, list[VersionRow]] = defaultdict(list)
    for row in rows:
        by_currency[row.currency].append(row)
    return [
        _group(model, currency, sorted(by_currency[currency], key=lambda row: row.active_from))
        for currency in sorted(by_currency) or [""]
    ]


def _group(model: CatalogModel, currency: str, rows: Sequence[VersionRow]) -> PriceGroup:
    listed = [row for row in rows if not row.is_private]
    return PriceGroup(
        model_id=model.id,
        slug=model.slug,
        model_name=model.display_name,
        currency=currency,
        in_force=next((row for row in listed if row.state == VersionState.IN_FORCE), None),
        scheduled=tuple(row for row in listed if row.state == VersionState.SCHEDULED),
        drafts=tuple(row for row in rows if row.state == VersionState.DRAFT),
        private=tuple(row for row in rows if row.is_private and row.state != VersionState.DRAFT),
    )
