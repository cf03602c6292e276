"""Models as rows of a public table: their list prices, and what was measured of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models_catalog.queries import ClassPrice, ListedPrice, ModelRow
from portal.storefront.tariff import decimals_of
from portal.storefront.words import Capability, capability
from quotas.metering.queries import ModelSpeed

_CLASSES: Final[Sequence[tuple[str, Callable[[ListedPrice], ClassPrice]]]] = (
    ("input", lambda price: price.input),
    ("cached", lambda price: price.cached_input),
    ("output", lambda price: price.output),
)


@dataclass(frozen=True, slots=True)
class ShownModel:
    """varies: the price is another one at other times of the week, or for longer inputs."""

    model: ModelRow
    capabilities: tuple[Capability, ...]
    ttft_ms: int | None
    tokens_per_s: int | None
    varies: bool


@dataclass(frozen=True, slots=True)
class ShownModels:
    """decimals: by column (input, cached, output), so that a column has the same precision all the way."""

    rows: tuple[ShownModel, ...]
    decimals: Mapping[str, int]


def shown_models(models: Sequence[ModelRow], speeds: Mapping[str, ModelSpeed]) -> ShownModels:
    prices = [model.price for model in models if model.price]
    return ShownModels(
        tuple(_shown(model, speeds.get(model.slug)) for model in models),
        {name: decimals_of(of(price).now for price in prices) for name, of in _CLASSES},
    )


def _shown(model: ModelRow, speed: ModelSpeed | None) -> ShownModel:
    price = model.price
    return ShownModel(
        model=model,
        capabilities=tuple(capability(value) for value in model.capabilities),
        ttft_ms=speed.ttft_ms if speed else None,
        tokens_per_s=round(speed.tokens_per_s) if speed and speed.tokens_per_s is not None else None,
        varies=price is not None
        and (price.has_bands or any(of(price).cheapest != of(price).dearest for _, of in _CLASSES)),
    )
