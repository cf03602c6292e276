"""The exact what-if of a draft: asked for here, run by the worker, shown as it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from models_catalog.pricing import queries as price_queries
from models_catalog.pricing.drafts import DraftNotFound
from models_catalog.pricing.publish import IncompleteDraft
from portal.backoffice.pages import operator_actor, operator_page
from portal.backoffice.prices.rows import decimals_of, percent_text
from portal.kit.clock import utc_now
from portal.pages.access import parse_id
from portal.pages.answers import is_fragment, show
from portal.pages.downloads import csv_download
from quotas.business.queries import model_cost_gap
from quotas.replay import operations
from quotas.replay.queries import Replay, TenantEffect, replay_csv, replay_of

SHOWN_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One organization of the table. change: against today's price, with its sign."""

    effect: TenantEffect
    change: str
    share: str
    tone: str


@operator_page(methods=("GET", "HEAD", "POST"))
def what_if(request: HttpRequest, price: str) -> HttpResponse:
    """GET how far it is, or what it found; POST asks for it anew."""
    version_id = parse_id("price", price)
    try:
        page = price_queries.version_page(version_id=version_id, now=utc_now())
    except price_queries.PriceNotFound:
        raise Http404 from None
    address = f"{reverse('backoffice:price', args=[price])}#what-if"
    if request.method == "POST":
        try:
            operations.request_replay(version_id=version_id, actor=operator_actor(request), now=utc_now())
        except (DraftNotFound, IncompleteDraft):
            # Published, or made incomplete meanwhile: the page says which.
            return redirect(address)
        if not is_fragment(request):
            return redirect(address)
    if not is_fragment(request):
        return redirect(address)
    context = {"row": page.row, "is_draft": page.row.published_at is None, "gaps": page.gaps}
    return show(
        request,
        "backoffice/prices/_what_if.html",
        {**context, **replay_context(version_id, page.row.public_id)},
    )


@operator_page()
def what_if_csv(request: HttpRequest, price: str) -> StreamingHttpResponse:
    """Every organization of the newest finished what-if, a line each."""
    version_id = parse_id("price", price)
    replay = replay_of(version_id=version_id, limit=0) if _exists(version_id) else None
    if replay is None or not replay.is_done:
        raise Http404
    # Read now: the download outlives the request's scope.
    pieces = list(replay_csv(version_id=version_id))
    return csv_download(request, iter(pieces), f"what-if-{replay.to_at:%Y-%m-%d}-{replay.public_id}.csv")


def replay_context(version_id: UUID, public_id: str) -> dict[str, Any]:
    """What the section shows. percent: how far it is."""
    replay = replay_of(version_id=version_id, limit=SHOWN_ROWS)
    context: dict[str, Any] = {
        "replay": replay,
        "what_if_url": reverse("backoffice:price-what-if", args=[public_id]),
    }
    if replay is None:
        return context
    context["percent"] = replay.days_done * 100 // replay.days
    if replay.is_done:
        amounts = [
            amount
            for row in replay.rows
            for amount in (row.sums.charged_nanos, row.sums.today_nanos, row.sums.draft_nanos)
        ]
        context |= {
            "effects": [_row(effect) for effect in replay.rows],
            "hidden": replay.tenants - len(replay.rows),
            "change": percent_text(replay.total.change_ppm),
            "margin": _margin(replay),
            "margin_gap": _margin_gap(replay),
            "decimals": decimals_of(amounts),
            "csv_url": reverse("backoffice:price-what-if-csv", args=[public_id]),
        }
    return context


def _row(effect: TenantEffect) -> EffectRow:
    difference = effect.sums.difference_nanos
    tone = "bad" if difference > 0 else "ok" if difference < 0 else "quiet"
    return EffectRow(
        effect, percent_text(effect.sums.change_ppm), percent_text(effect.share_ppm, sign=False), tone
    )


def _margin(replay: Replay) -> dict[str, Any] | None:
    margin = replay.margin
    if margin is None:
        return None
    return {
        "cost_nanos": margin.cost_nanos,
        "before_nanos": margin.before_margin_nanos,
        "after_nanos": margin.after_margin_nanos,
        "before": percent_text(margin.before_ppm, sign=False),
        "after": percent_text(margin.after_ppm, sign=False),
    }


def _margin_gap(replay: Replay) -> str:
    """Why there is no margin, as it looks now; KNOWN where only the what-if did not know it yet."""
    if replay.margin is not None:
        return ""
    gap = model_cost_gap(
        model_id=replay.model_id, from_=replay.from_at, to=replay.to_at, currency=replay.currency
    )
    return gap or "KNOWN"


def _exists(version_id: UUID) -> bool:
    return bool(price_queries.find_version(version_id=version_id))
