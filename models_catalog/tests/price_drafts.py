"""Prices for tests of the pricing functions: random ones, and drafts of them in the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.postgresql.psycopg_any import NumericRange
from hypothesis import strategies as st

from models_catalog.models import CatalogModel, PriceLine, PriceVersion, PriceWindow, PriceWindowSpan
from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.tests.catalog_files import fresh_name
from portal.kit.ids import uuid7
from tenants.scope import role_scope

PROMPT_CLASSES = ("input", "cached_input", "image")
OUTPUT_CLASSES = ("output", "reasoning")
CLASSES = (*PROMPT_CLASSES, *OUTPUT_CLASSES, "request")
TIERS = ("standard", "batch")
WINDOWS = ("night", "weekend")
MAX_TOKENS = 20_000_000


@dataclass(frozen=True, slots=True)
class Line:
    token_class: str
    price: int
    tier: str = "standard"
    window: str | None = None
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A version in the database and the ids of its windows."""

    version_id: UUID
    window_ids: dict[str, UUID] = field(default_factory=dict)


amounts = st.one_of(
    st.integers(0, 3),
    st.integers(0, 10**7),
    st.sampled_from([499_999, 500_000, 500_001, 1_500_000, MAX_PRICE_NANOS_PER_MILLION]),
    st.integers(0, MAX_PRICE_NANOS_PER_MILLION),
)
_edges = st.lists(st.one_of(st.integers(1, 20), st.integers(1, MAX_TOKENS)), max_size=2, unique=True).map(
    sorted
)


@st.composite
def price_lines(draw: st.DrawFn) -> list[Line]:
    """What a published version can hold: input and output of each tier without gaps, a few uses more."""
    tiers = draw(st.sampled_from([TIERS[:1], TIERS]))
    needed = [(tier, token_class, None) for tier in tiers for token_class in ("input", "output")]
    further = st.tuples(st.sampled_from(tiers), st.sampled_from(CLASSES), st.sampled_from([None, *WINDOWS]))
    uses = dict.fromkeys([*needed, *draw(st.lists(further, max_size=8))])
    found: list[Line] = []
    for tier, token_class, window in uses:
        bounds: list[int | None] = [0, *draw(_edges), None]
        for start, end in pairwise(bounds):
            assert start is not None
            if (tier, token_class, window) in needed or draw(st.booleans()):
                found.append(Line(token_class, draw(amounts), tier, window, start, end))
    return found


@contextmanager
def undone() -> Iterator[None]:
    """The operator's scope in a transaction that leaves nothing behind."""
    with role_scope("operator"), transaction.atomic(using="operator"):
        yield
        transaction.set_rollback(True, using="operator")


def make_model() -> CatalogModel:
    return CatalogModel.objects.create(
        slug=f"price/m-{fresh_name()}",
        display_name="M",
        context_tokens=4096,
        max_output_tokens=1024,
        default_output_cap_tokens=256,
    )


def make_draft(
    lines: Sequence[Line],
    *,
    spans: Sequence[tuple[str, int, int]] = (),
    model: CatalogModel | None = None,
    **fields: Any,
) -> Draft:
    """A version that is not published. spans: window, first and last minute of the week (half-open)."""
    version = PriceVersion.objects.create(
        **{
            "model": model or make_model(),
            "currency": "USD",
            "active_from": datetime(2026, 1, 1, tzinfo=UTC),
            **fields,
        }
    )
    names = {line.window for line in lines if line.window} | {name for name, _, _ in spans}
    window_ids = {name: uuid7() for name in sorted(names)}
    PriceWindow.objects.bulk_create(
        PriceWindow(id=window_id, version=version, name=name) for name, window_id in window_ids.items()
    )
    PriceWindowSpan.objects.bulk_create(
        PriceWindowSpan(version=version, window_id=window_ids[name], minutes=NumericRange(start, end))
        for name, start, end in spans
    )
    PriceLine.objects.bulk_create(
        PriceLine(
            version=version,
            token_class=line.token_class,
            service_tier=line.tier,
            window_id=window_ids[line.window] if line.window else None,
            input_from_tokens=line.start,
            input_to_tokens=line.end,
            price_nanos_per_million=line.price,
        )
        for line in lines
    )
    return Draft(version.id, window_ids)


def query(sql: str, parameters: Sequence[Any] = (), *, using: str = "operator") -> list[tuple[Any, ...]]:
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
