"""Reads of replays: how far one is, and what it found, by organization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from models_catalog.models import PriceVersion
from models_catalog.pricing.storage import read_content
from portal.kit.ids import PREFIXES, public_id
from quotas.csv_text import amount, csv_text, safe_text
from quotas.models import PriceReplay, ReplayState
from quotas.replay.result import Found, Margin, Sums
from tenants.models import Tenant

CSV_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class TenantEffect:
    """What the draft would have meant for one organization. share_ppm: of what all pay with the draft."""

    tenant_id: UUID
    name: str
    sums: Sums
    share_ppm: int

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay as it stands. is_stale: the draft says something else by now.

    rows: who pays most more first, then who saves least; at most as many as were asked for, of `tenants`.
    """

    id: UUID
    version_id: UUID
    model_id: UUID
    currency: str
    state: ReplayState
    is_stale: bool
    from_at: datetime
    to_at: datetime
    days: int
    days_done: int
    created_at: datetime
    finished_at: datetime | None
    error: str
    total: Sums
    margin: Margin | None
    rows: tuple[TenantEffect, ...]
    tenants: int
    dearer: int
    cheaper: int

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["replay"], self.id)

    @property
    def is_open(self) -> bool:
        return self.state in (ReplayState.WAITING, ReplayState.RUNNING)

    @property
    def is_done(self) -> bool:
        return self.state == ReplayState.DONE

    @property
    def unchanged(self) -> int:
        """Organizations that pay the same to the nano-unit."""
        return self.tenants - self.dearer - self.cheaper


def replay_of(*, version_id: UUID, limit: int = 100) -> Replay | None:
    """The newest replay of a version, with its `limit` most affected organizations; None without one."""
    stored = PriceReplay.objects.filter(version_id=version_id).order_by("-id").first()
    if stored is None:
        return None
    version = PriceVersion.objects.get(id=version_id)
    found = Found.of_json(stored.result)
    total = found.total
    differences = [sums.difference_nanos for sums in found.tenants.values()]
    return Replay(
        id=stored.id,
        version_id=version_id,
        model_id=version.model_id,
        currency=version.currency,
        state=ReplayState(stored.state),
        is_stale=read_content(version).sha256 != stored.content_sha256,
        from_at=stored.from_at,
        to_at=stored.to_at,
        days=stored.days,
        days_done=stored.days_done,
        created_at=stored.created_at,
        finished_at=stored.finished_at,
        error=stored.error,
        total=total,
        margin=found.margin,
        rows=tuple(_effects(found, total)[:limit]) if stored.state == ReplayState.DONE else (),
        tenants=len(differences),
        dearer=sum(1 for difference in differences if difference > 0),
        cheaper=sum(1 for difference in differences if difference < 0),
    )


def replay_csv(*, version_id: UUID) -> Iterator[str]:
    """The newest finished replay, every organization a line; nothing but the head without one."""
    yield csv_text(
        [
            (
                "organization",
                "name",
                "currency",
                "from",
                "to",
                "requests",
                "prompt_tokens",
                "cached_tokens",
                "image_tokens",
                "completion_tokens",
                "reasoning_tokens",
                "charged_then",
                "at_todays_price",
                "with_the_draft",
                "difference",
                "requests_changed",
                "requests_without_price",
            )
        ]
    )
    replay = replay_of(version_id=version_id, limit=10**9)
    if replay is None:
        return
    for start in range(0, len(replay.rows), CSV_CHUNK):
        yield csv_text(
            (
                row.public_id,
                safe_text(row.name),
                replay.currency,
                replay.from_at.isoformat(),
                replay.to_at.isoformat(),
                row.sums.requests,
                row.sums.prompt_tokens,
                row.sums.cached_tokens,
                row.sums.image_tokens,
                row.sums.completion_tokens,
                row.sums.reasoning_tokens,
                amount(row.sums.charged_nanos),
                amount(row.sums.today_nanos),
                amount(row.sums.draft_nanos),
                amount(row.sums.difference_nanos),
                row.sums.changed,
                row.sums.refused,
            )
            for row in replay.rows[start : start + CSV_CHUNK]
        )


def _effects(found: Found, total: Sums) -> list[TenantEffect]:
    names = dict(Tenant.objects.filter(id__in=list(found.tenants)).values_list("id", "name"))
    rows = [
        TenantEffect(
            tenant_id,
            names.get(tenant_id, ""),
            sums,
            sums.draft_nanos * 1_000_000 // total.draft_nanos if total.draft_nanos else 0,
        )
        for tenant_id, sums in found.tenants.items()
    ]
    return sorted(rows, key=lambda row: (-row.sums.difference_nanos, row.name.lower(), row.tenant_id))
