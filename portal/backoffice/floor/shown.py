"""The factory floor as page and socket show it: the same plain values for both, in no language.

Numbers read alike in all languages here, so they are made text once for everybody; words are the page's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.urls import reverse

from portal.backoffice.amounts import places_of, rounded_text
from portal.backoffice.floor.state import Flow, Flows, PoolNow, Totals, pools_now, totals
from portal.kit.ids import PREFIXES, public_id
from portal.pages.tags import MINUS, NONE, count_text
from quotas.business.floor import FloorBooks

MAX_POOLS: Final = 60
STALE_AFTER: Final = timedelta(seconds=15)
BAR_WIDTH: Final = 100

Shown = dict[str, Any]


def shown(books: FloorBooks | None, flows: Flows | None, *, at: datetime) -> Shown:
    """Everything on the screen at that moment. Without books nothing is known of any pool; without flows
    not what flows."""
    pools = [] if books is None else pools_now(books, flows)
    sums = totals(pools)
    places = places_of(_amounts(pools, sums))
    ordered = sorted(pools, key=_incomplete)[:MAX_POOLS]
    return {
        "at": _moment(at),
        "books_at": None if books is None else _moment(books.at),
        "books": "unknown" if books is None else "stale" if at - books.at > STALE_AFTER else "fresh",
        "flow": "unknown" if flows is None else "known",
        "pools": [_pool(one, places) for one in ordered],
        "hidden": len(pools) - len(ordered),
        "total": _total(sums, places) if books is not None else blank_total(),
    }


def blank_pool() -> Shown:
    """A row of which nothing is known yet: the page's pattern of one."""
    return {
        "id": "",
        "code": "",
        "name": "",
        "url": "",
        "cells": dict.fromkeys((*_flow_cells(None), "now", "capacity", "share", "breakeven"), NONE),
        "money": {"earned": [], "burned": [], "margin": []},
        "fill": None,
        "mark": None,
        "place": "",
        "notes": [],
    }


def blank_total() -> Shown:
    return {
        "cells": dict.fromkeys((*_flow_cells(None), "now", "capacity", "share"), NONE),
        "money": {"earned": [], "burned": [], "margin": []},
    }


def _incomplete(one: PoolNow) -> tuple[bool, str]:
    """Pools of which all is known come first, each by code."""
    return one.capacity is None or one.pool.cost_nanos_per_hour is None, one.pool.code


def _pool(one: PoolNow, places: int) -> Shown:
    pool, breakeven = one.pool, one.pool.breakeven_ppm
    cost = {} if pool.cost_nanos_per_hour is None else {pool.currency: pool.cost_nanos_per_hour}
    margin = {} if pool.margin_nanos_per_hour is None else {pool.currency: pool.margin_nanos_per_hour}
    earned = {currency: nanos for currency, nanos in pool.earned.items() if nanos}
    if not earned and pool.currency:
        earned = {pool.currency: 0}
    identifier = public_id(PREFIXES["pool"], pool.id)
    return {
        "id": identifier,
        "code": pool.code,
        "name": pool.name,
        "url": reverse("backoffice:pool", kwargs={"pool": identifier}),
        "cells": {
            **_flow_cells(one.flow),
            **_capacity_cells(one.flow, one.capacity, one.share),
            "breakeven": NONE if breakeven is None else decimal_text(breakeven / 10_000),
        },
        "money": _money(earned, cost, margin, places),
        "fill": None if one.share is None else f"{min(one.share, 1) * BAR_WIDTH:.3f}",
        "mark": None if breakeven is None or breakeven > 1_000_000 else f"{breakeven * BAR_WIDTH / 1e6:.3f}",
        "place": one.place or "",
        "notes": list(one.notes),
    }


def _total(sums: Totals, places: int) -> Shown:
    return {
        "cells": {**_flow_cells(sums.flow), **_capacity_cells(sums.flow, sums.capacity, sums.share)},
        "money": _money(sums.earned, sums.burned, sums.margin, places),
    }


def _flow_cells(flow: Flow | None) -> dict[str, str]:
    if flow is None:
        return dict.fromkeys(("input", "cached", "output", "calls"), NONE)
    return {
        "input": decimal_text(flow.input),
        "cached": decimal_text(flow.cached),
        "output": decimal_text(flow.output),
        "calls": count_text(flow.live_calls),
    }


def _capacity_cells(flow: Flow | None, capacity: int | None, share: float | None) -> dict[str, str]:
    return {
        "now": NONE if flow is None or flow.weighted is None else decimal_text(flow.weighted),
        "capacity": NONE if capacity is None else count_text(capacity),
        "share": NONE if share is None else decimal_text(share * 100),
    }


def decimal_text(value: float) -> str:
    """With one decimal, and never a zero for what is none."""
    if 0 < value < 0.05:
        return "< 0.1"
    return f"{value:,.1f}"


def _money(
    earned: Mapping[str, int], burned: Mapping[str, int], margin: Mapping[str, int | None], places: int
) -> dict[str, list[dict[str, str]]]:
    return {
        "earned": [_amount(currency, earned[currency], places) for currency in sorted(earned)],
        "burned": [_amount(currency, burned[currency], places) for currency in sorted(burned)],
        "margin": [_amount(currency, margin[currency], places, sign=True) for currency in sorted(margin)],
    }


def _amount(currency: str, nanos: int | None, places: int, *, sign: bool = False) -> dict[str, str]:
    """text: rounded, never to zero; exact: all of its nano-units, as people read them. An amount that is not
    known has its currency alone."""
    if nanos is None:
        return {"text": f"{currency} {NONE}", "nanos": "", "exact": "", "currency": currency}
    return {
        "text": rounded_text(nanos, currency, places=places, sign=sign),
        "nanos": str(nanos),
        "exact": count_text(nanos).replace("-", MINUS),
        "currency": currency,
    }


def _amounts(pools: Iterable[PoolNow], sums: Totals) -> Iterable[int]:
    yield from sums.earned.values()
    yield from sums.burned.values()
    for one in pools:
        yield from one.pool.earned.values()
        yield one.pool.cost_nanos_per_hour or 0


def _moment(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
