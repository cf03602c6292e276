"""What a valid catalog file asks for. `values` hold model fields, and only those that the file writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from models_catalog.catalog_file.problems import Place, Problems
from models_catalog.pricing.content import PriceContent

Values = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class WantedPool:
    place: Place
    code: str
    values: Values


@dataclass(frozen=True, slots=True)
class WantedFeed:
    """`values` has `columns` only when the file writes any option of the format."""

    place: Place
    code: str
    values: Values


@dataclass(frozen=True, slots=True)
class WantedBackend:
    """`credential` is None when the file does not speak of it, and empty to remove it."""

    place: Place
    code: str
    pool: str
    values: Values
    credential: str | None = field(repr=False)
    feeds: tuple[WantedFeed, ...] = ()


@dataclass(frozen=True, slots=True)
class WantedDeployment:
    place: Place
    backend: str
    values: Values


@dataclass(frozen=True, slots=True)
class WantedPrice:
    """`active_from` is None for a price that holds from now on."""

    place: Place
    active_from_place: Place
    currency: str
    active_from: datetime | None
    content: PriceContent


@dataclass(frozen=True, slots=True)
class WantedModel:
    """`aliases` and `successor` (a slug) are None when the file does not speak of them; an empty successor
    removes it."""

    place: Place
    slug: str
    values: Values
    deployments: tuple[WantedDeployment, ...]
    prices: tuple[WantedPrice, ...]
    aliases: tuple[str, ...] | None
    successor: str | None


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that something else must bear: a pool, backend or model of the file or the catalog, a time
    zone."""

    kind: Literal["pool", "backend", "model", "time zone"]
    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class WantedCatalog:
    """Entries with mistakes are left out, but the names that the file defines and refers to are all here."""

    pools: tuple[WantedPool, ...]
    backends: tuple[WantedBackend, ...]
    models: tuple[WantedModel, ...]
    pool_codes: frozenset[str]
    backend_codes: frozenset[str]
    references: tuple[Reference, ...]


@dataclass(slots=True)
class Reading:
    """What the functions that read one file share. `currencies` is None where any will do."""

    problems: Problems
    environ: Mapping[str, str]
    currencies: tuple[str, ...] | None
    references: list[Reference] = field(default_factory=list)
